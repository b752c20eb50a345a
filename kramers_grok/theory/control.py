r"""Learning faster by schedule: the two-state master equation, and the schedule that is best for it.

A trapped network learns at the rate :math:`k_+(T, \lambda)` and forgets at :math:`k_-(T, \lambda)`. With a setting
:math:`u = (\eta, B, \lambda)` at each step, :math:`T = \eta g^2/2B`, the probability p to have learned obeys, per step,

.. math:: \frac{dp}{dn} = f(p, u) = \eta\,\big[k_+(u)\,(1-p) - k_-(u)\,p\big].

**What is optimal.** Let :math:`f^*(p) = \max_u f(p, u)` over the admissible settings. For any schedule
:math:`dp/dn = f(p, u(n)) \le f^*(p)`, so by the comparison theorem for scalar equations the *greedy* schedule
:math:`u^*(p) = \arg\max_u f(p, u)` has the largest p at every step: no look-ahead is needed. Where :math:`k_-` is
negligible, f is largest at the largest :math:`\eta k_+`; as that is monotone in T (Arrhenius) and in λ, the optimum is
bang-bang: the hottest setting allowed, then the final one, which the constraint on the final loss demands for the last
steps. Where :math:`k_-` matters T falls with p along the arc :math:`\partial f/\partial T = 0`: an annealing. The same
schedule, started at p = 0 with :math:`k_-` left out, has the least mean time to learn, since it has the largest hazard
at every step.

The bounds on the settings are the user's: stability, the least weight decay, and :math:`\Delta F/T \ge 2`, below which
two states with rates between them are no description any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.schedules import Constant, Piecewise, Schedule
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.driven import Driving, drive
from kramers_grok.theory.plans import BatchSizeKnob, Knob, LearningRateKnob, Plan, Setting, WeightDecayKnob
from kramers_grok.theory.rate_table import System, with_weight_decay
from kramers_grok.theory.two_state import TwoStateRates, two_state_rates
from kramers_grok.theory.well_averages import well_losses

__all__ = [
    "BatchSizeKnob",
    "Design",
    "Knob",
    "LearningRateKnob",
    "Plan",
    "PlanPrediction",
    "Setting",
    "TwoStateRates",
    "WeightDecayKnob",
    "design_schedule",
    "predict_plan",
    "two_state_rates",
]

Array = NDArray[np.float64]

# Pieces of a plan on which rates are constant
PIECES = 500
# Levels of each knob between its final value and its bound
LEVELS = 9
# Least ΔF/T of a designed schedule
LEAST_BARRIER = 2.0


@dataclass(frozen=True, eq=False)
class PlanPrediction:
    """What a plan is predicted to do.

    Attributes
    ----------
    steps : ndarray, shape (piece + 1,)
        Step numbers from 0 to the end.
    survival : ndarray, shape (piece + 1,)
        Probability of not having learned once until there.
    learned : ndarray, shape (piece + 1,)
        Probability to be in the learned state there, forgetting included.
    final_loss : float
        Mean population loss (without decay) at the end, over all replicas [loss].
    learned_loss : float
        Mean loss of those that have learned [loss].
    thermal_excess : float
        That loss above the learned minimum of the final weight decay [loss].
    samples : float
        Samples processed.
    """

    steps: Array
    survival: Array
    learned: Array
    final_loss: float
    learned_loss: float
    thermal_excess: float
    samples: float

    @property
    def mean_steps(self) -> float:
        """Mean number of steps to learn, cut at the plan's end (restricted mean)."""
        return float(np.trapezoid(self.survival, self.steps))

    @property
    def learned_at_end(self) -> float:
        """Probability to be in the learned state at the end."""
        return float(self.learned[-1])


def predict_plan(
    rates: TwoStateRates, plan: Plan, n_steps: int, *, pieces: int = PIECES, lag: bool = True
) -> PlanPrediction:
    r"""Predict what a plan does, from the unlearned state.

    Parameters
    ----------
    rates : TwoStateRates
    plan : Plan
    n_steps : int
    pieces : int
        Pieces on which the setting of their middle holds.
    lag : bool
        Take the hazard of learning from the mode's Fokker–Planck equation under the plan, times the chain's ratio of
        rates, instead of from :math:`k_+`: the well has to fill, at the start and after every change. Odd depths only.

    Returns
    -------
    PlanPrediction

    Raises
    ------
    InvalidParameterError
        If the plan leaves the range of temperatures of `rates`.
    """
    n_steps = checks.positive_int("n_steps", n_steps)
    edges = np.unique(np.linspace(0, n_steps, min(pieces, n_steps) + 1).astype(np.int64))
    middle, length = (edges[1:] + edges[:-1]) // 2, np.diff(edges)
    eta, decay = plan.lr(middle), plan.weight_decay(middle)
    heat, sizes = plan.temperature(middle, rates.noise_variance), np.rint(plan.batch_size(middle))
    forward, backward = rates(heat, decay, eta)
    gains, losses = forward * eta * length, backward * eta * length
    if lag and rates.system.depth % 2:
        gains = _driven_hazard(rates, Driving(eta * length, decay, heat, eta, eta / sizes))
    survival = np.exp(-np.concatenate([[0.0], np.cumsum(gains)]))
    learned = [0.0]
    for gain, loss in zip(gains, losses, strict=True):
        total = gain + loss
        share = gain / total if total > 0 else 0.0
        learned.append(share + (learned[-1] - share) * float(np.exp(-total)))
    last = Setting(float(eta[-1]), int(sizes[-1]), float(decay[-1]))
    remembered = _lagging(heat, eta * length, rates.system, last.weight_decay)
    inside, outside, floor = well_losses(with_weight_decay(rates.system, last.weight_decay), remembered, step=last.lr)
    p = learned[-1]
    return PlanPrediction(
        edges.astype(np.float64),
        survival,
        np.array(learned),
        p * inside + (1 - p) * outside,
        inside,
        inside - floor,
        float(np.sum(sizes * length)),
    )


def _driven_hazard(rates: TwoStateRates, driving: Driving) -> Array:
    """Hazard of each piece from the driven mode, with the chain's ratio."""
    system = rates.system
    mode = system.mode if isinstance(system, DeepLinearChain) else system
    result = drive(
        mode, driving, target=rates.target, start=0.0, residual_variance=rates.residual_variance, monitored=True
    )
    hazard = -np.diff(np.log(np.maximum(result.survival, 1e-300)))
    return np.asarray(hazard * rates.forward.over_mode(driving.temperature, driving.weight_decay))


def _lagging(heat: Array, duration: Array, system: System, decay: float) -> float:
    """Temperature that the learned well remembers at the end: it forgets at twice its softest curvature."""
    rate = _relaxation(system, decay)
    left = np.concatenate([np.cumsum((rate * duration)[::-1])[::-1][1:], [0.0]])
    weights = np.exp(-left) * -np.expm1(-rate * duration)
    return float(weights @ heat + np.exp(-float(rate * duration.sum())) * heat[0])


def _relaxation(system: System, decay: float) -> float:
    """Rate at which variances in the learned well relax."""
    return 2 * float(np.min(with_weight_decay(system, decay).forgetting_barrier().minimum_spectrum))


@dataclass(frozen=True, eq=False)
class Design:
    """A designed schedule with what is predicted for it.

    Attributes
    ----------
    plan : Plan
        Schedules for `lr`, `batch_size` and `weight_decay` of SGD.
    prediction : PlanPrediction
    constant : PlanPrediction
        Of the final setting held all the time.
    settings : tuple of (Setting, int)
        Settings in their order, each with its number of steps.
    """

    plan: Plan
    prediction: PlanPrediction
    constant: PlanPrediction
    settings: tuple[tuple[Setting, int], ...]


def design_schedule(
    rates: TwoStateRates,
    final: Setting,
    n_steps: int,
    knobs: Sequence[Knob],
    *,
    tolerance: float = 0.02,
    least_barrier: float = LEAST_BARRIER,
    pieces: int = 400,
) -> Design:
    r"""Find the schedule that learns soonest and ends with the loss of the final setting.

    Greedy in :math:`\eta[k_+(1-p) - k_-p]`, which is optimal (see the module's docstring), until the final setting must
    take over: so many steps before the end that what the learned well remembers of other temperatures and weight decays
    exceeds the final thermal loss by less than `tolerance`, relatively.

    Parameters
    ----------
    rates : TwoStateRates
        Its range of temperatures limits the design, too.
    final : Setting
        What training ends with; its loss is the constraint.
    n_steps : int
        Number of steps in all.
    knobs : sequence of Knob
        What may be turned, all combinations: `LearningRateKnob`, `BatchSizeKnob`, `WeightDecayKnob`.
    tolerance : float
        Relative excess of the thermal loss at the end that is allowed.
    least_barrier : float
        Least ΔF/T, for either state, at every step.
    pieces : int
        Steps of the design's grid in time.

    Returns
    -------
    Design

    Raises
    ------
    InvalidParameterError
        If no time is left before the final setting must take over.

    Examples
    --------
    >>> from kramers_grok.theory.deep_linear import Mode
    >>> mode = Mode(3, 1.0, 0.25)
    >>> rates = two_state_rates(mode, noise_variance=2.0, temperatures=(0.001, 0.0045), step=0.1)
    >>> design = design_schedule(rates, Setting(0.1, 80, 0.25), 20_000, [BatchSizeKnob(smallest=30)])
    >>> [(setting.batch_size, steps > 1000) for setting, steps in design.settings]
    [(30, True), (80, False)]
    >>> bool(design.prediction.mean_steps < 0.3 * design.constant.mean_steps)
    True
    """
    n_steps = checks.positive_int("n_steps", n_steps)
    tolerance = checks.positive("tolerance", tolerance)
    candidates = _admissible(rates, final, knobs, least_barrier)
    eta = np.array([s.lr for s in candidates])
    heat = np.array([s.temperature(rates.noise_variance) for s in candidates])
    forward, backward = rates(heat, np.array([s.weight_decay for s in candidates]), eta)
    cool = _settling_steps(rates, final, candidates, tolerance)
    free = n_steps - cool
    if free < 1:
        raise checks.invalid(
            "n_steps", n_steps, f"more than {cool}", "that many steps of the final setting are needed at the end"
        )
    edges = np.unique(np.linspace(0, free, min(pieces, free) + 1).astype(np.int64))
    p, chosen = 0.0, []
    for length in np.diff(edges):
        best = int(np.argmax(eta * (forward * (1 - p) - backward * p)))
        total = eta[best] * (forward[best] + backward[best]) * length
        share = forward[best] / (forward[best] + backward[best])
        p = float(share + (p - share) * np.exp(-total))
        chosen.append((candidates[best], int(length)))
    settings = _merged([*chosen, (final, cool)])
    plan = _plan(settings)
    constant = predict_plan(rates, Plan.constant(final), n_steps)
    return Design(plan, predict_plan(rates, plan, n_steps), constant, settings)


def _settling_steps(rates: TwoStateRates, final: Setting, candidates: Sequence[Setting], tolerance: float) -> int:
    """Steps after which the learned well has forgotten every other temperature and weight decay."""
    relax = _relaxation(rates.system, final.weight_decay) * final.lr
    cold = final.temperature(rates.noise_variance)
    hottest = max(setting.temperature(rates.noise_variance) for setting in candidates)
    steps = np.log(max((hottest / cold - 1) / tolerance, 1.0)) / relax
    inside, _, floor = well_losses(with_weight_decay(rates.system, final.weight_decay), cold)
    floors = [_floor(with_weight_decay(rates.system, decay)) for decay in {s.weight_decay for s in candidates}]
    # A shifted mean relaxes at half the rate of a variance; its loss is compared with the thermal one.
    shift = max(abs(value - floor) for value in floors) / (tolerance * abs(inside - floor))
    return int(np.ceil(max(steps, 2 * np.log(max(shift, 1.0)) / relax))) + 1


def _floor(system: System) -> float:
    """Loss at the learned minimum."""
    return 0.5 * system.input_variance * (system.singular_value - system.learned_amplitude() ** system.depth) ** 2


def _admissible(rates: TwoStateRates, final: Setting, knobs: Sequence[Knob], least: float) -> list[Setting]:
    """Return the settings of all combinations of knobs that keep both barriers."""
    found: list[Setting] = []
    for choice in product(*(knob.settings(final, LEVELS) for knob in knobs)):
        setting = final
        for part in choice:
            changed = {
                n: v for n in ("lr", "batch_size", "weight_decay") if (v := getattr(part, n)) != getattr(final, n)
            }
            setting = replace(setting, **changed)
        moved = with_weight_decay(rates.system, setting.weight_decay)
        heat = setting.temperature(rates.noise_variance)
        height = min(moved.barrier().height, moved.forgetting_barrier().height)
        low, high = rates.forward.temperatures
        if (
            height >= least * heat * (1 - 1e-9)
            and low * (1 - 1e-9) <= heat <= high * (1 + 1e-9)
            and setting not in found
        ):
            found.append(setting)
    if not found:
        raise InvalidParameterError(
            f"No setting between the final one ({final}) and the knobs' bounds keeps ΔF/T >= {least:g} inside the "
            "range of temperatures of `rates`.\nWiden `temperatures`, or use a colder final setting."
        )
    return found


def _merged(settings: Sequence[tuple[Setting, int]]) -> tuple[tuple[Setting, int], ...]:
    runs = groupby(settings, key=lambda pair: pair[0])
    return tuple((setting, sum(length for _, length in run)) for setting, run in runs)


def _plan(settings: Sequence[tuple[Setting, int]]) -> Plan:
    lengths = [length for _, length in settings]

    def schedule(name: str) -> Schedule:
        values = [float(getattr(setting, name)) for setting, _ in settings]
        return Constant(values[0]) if len(set(values)) == 1 else Piecewise(values, lengths)

    return Plan(schedule("lr"), schedule("batch_size"), schedule("weight_decay"))
