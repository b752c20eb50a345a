r"""Predicted mean exit times, one effect at a time.

Each rung of a `Ladder` adds one thing that the rung before leaves out: the asymptotic formula, the exact solution
in continuous time, the time step, watching at the steps only, the noise of the data. Differences of neighbours
therefore sum to the difference of the ends, whatever their accuracy.
"""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard, cast, runtime_checkable

import numpy as np
from scipy.integrate import quad
from scipy.special import ndtr

from kramers_grok.analysis.rungs import FIRST_ORDER, Ladder, Setting
from kramers_grok.core.barrier import Barrier, OrbitBarrier
from kramers_grok.core.exceptions import InvalidParameterError, ValidityWarning
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.discrete_chain import DiscreteExitTime, discrete_exit, discrete_exit_time, sgd_exit_time
from kramers_grok.theory.exit_law import ExitTime
from kramers_grok.theory.exit_times import exit_time
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import minibatch_log_factor
from kramers_grok.theory.mode_exit import ModeDynamics, mode_start
from kramers_grok.theory.quadrature import Interval
from kramers_grok.theory.rates import eyring_kramers_rate, multiplicative_kramers_rate
from kramers_grok.theory.saddles import MatrixNetwork
from kramers_grok.theory.time_step import monitoring_shift

if TYPE_CHECKING:
    from kramers_grok.landscape.numerical_barrier import NumericalBarrier

__all__ = ["ClosedForm", "Ladder", "NetworkModel", "Setting", "System", "feature_mode", "is_numerical", "ladder"]


@runtime_checkable
class NetworkModel(Protocol):
    """A model that knows its theory, such as `DeepLinearNetwork`."""

    @property
    def theory(self) -> MatrixNetwork:
        """The matrix network with white inputs."""
        ...


_EXACT = "exact, from the discrete chain's own equation"

ClosedForm = Mode | DeepLinearChain | MatrixNetwork | NetworkModel
"""What has a theory of its own."""

System: TypeAlias = "ClosedForm | NumericalBarrier"
"""What a budget can be made for."""


def is_numerical(system: Any) -> TypeGuard[NumericalBarrier]:
    """Whether a barrier was found numerically; there is none before its module, which needs torch, is imported."""
    module = sys.modules.get("kramers_grok.landscape.numerical_barrier")
    return module is not None and isinstance(system, module.NumericalBarrier)


def ladder(system: System, setting: Setting, target: Region) -> Ladder:
    """Return the predicted mean exit times of a run, effect by effect.

    Parameters
    ----------
    system : Mode, DeepLinearChain, MatrixNetwork, DeepLinearNetwork or NumericalBarrier
        What moved.
    setting : Setting
        How.
    target : Region
        Where it counted as escaped.

    Raises
    ------
    NoBarrierError
        If the target is not behind a barrier, so that no asymptotic formula holds.
    InvalidParameterError
        As in `exit_time`.
    """
    if is_numerical(system):
        from kramers_grok.analysis.numerical_ladder import numerical_ladder  # needs torch, which closed forms do not

        return numerical_ladder(system, setting, target)
    return _closed(cast(ClosedForm, system), setting, target)


def _closed(system: ClosedForm, setting: Setting, target: Region) -> Ladder:
    """Rungs of a system with a theory of its own."""
    silent = setting.temperature == 0
    if silent and (setting.closed_noise is None or target.above or not isinstance(system, Mode)):
        note = "without a temperature only a mode that forgets by the noise of its data has a mean exit time"
        nan = math.nan
        return Ladder(nan, nan, nan, nan, nan, nan, "none", (note,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ValidityWarning)  # they are kept as notes
        if isinstance(system, Mode) or (isinstance(system, DeepLinearChain) and system.depth == 3):
            return _exact(system, setting, target)
        return _asymptotic_only(system, setting, target)


def _exact(system: Mode | DeepLinearChain, setting: Setting, target: Region) -> Ladder:
    """Rungs of a system whose exit time is solved exactly in continuous time."""
    # Where the data are the only noise, their diffusion limit stands in for the temperature
    silent = setting.temperature == 0
    known = setting if silent else replace(setting, minibatch=None)
    formula = _silent_asymptotic if silent else _asymptotic
    continuous = exit_time(
        system, temperature=known.temperature, target=target, start=known.start, minibatch=known.closed_noise
    )
    stepped = _stepped(system, known, target, bridged=True) if setting.step else continuous
    watched = stepped if setting.bridged or not setting.step else _stepped(system, known, target, bridged=False)
    made = watched if setting.closed_noise is None else _with_data(system, setting, target)
    rungs = (continuous, stepped, watched, made)
    return Ladder(
        asymptotic=formula(system, setting, target),
        continuous=continuous.mean,
        stepped=stepped.mean,
        watched=watched.mean,
        made=math.nan if setting.unknown_noise else made.mean,
        relative_error=max(rung.relative_error for rung in rungs),
        time_step_method=_EXACT if isinstance(made, DiscreteExitTime) else FIRST_ORDER,
        notes=tuple(dict.fromkeys(note for rung in rungs for note in rung.warnings)),
        law=watched if setting.unknown_noise else made,
    )


def _asymptotic_only(system: ClosedForm, setting: Setting, target: Region) -> Ladder:
    """Rungs of a system known to leading order in T/ΔF only: step, watching and data to first order on top."""
    barrier, depth = _barrier(system, target), _depth(system)
    rates = [eyring_kramers_rate(barrier, setting.temperature, step=h, warn=False) for h in (0.0, setting.step)]
    shift = 0.0 if setting.bridged else monitoring_shift(setting.temperature, setting.step)
    here, further = (_share(barrier, depth, setting.temperature, target, d) for d in (0.0, shift))
    watched = rates[1].mean_time * further
    made = math.nan if setting.unknown_noise else watched
    if setting.closed_noise is not None:
        made = math.nan
        if target.above:
            mode = feature_mode(system, target)
            made = watched * math.exp(-minibatch_log_factor(mode, setting.temperature, setting.closed_noise))
    return Ladder(
        asymptotic=rates[0].mean_time * here,
        continuous=math.nan,
        stepped=rates[1].mean_time * here,
        watched=watched,
        made=made,
        relative_error=0.0,
        time_step_method=f"{FIRST_ORDER}, leading order in T/ΔF",
        notes=tuple(rate.note for rate in rates[:1] if rate.note),
    )


def _barrier(system: ClosedForm, target: Region) -> Barrier | OrbitBarrier:
    """The barrier between the state that is left and the target."""
    if isinstance(system, Mode | DeepLinearChain):
        return system.barrier() if target.above else system.forgetting_barrier()
    network = _network(system)
    return network.barrier(target.feature) if target.above else network.forgetting_barrier(target.feature + 1)


def _network(system: MatrixNetwork | NetworkModel) -> MatrixNetwork:
    return system if isinstance(system, MatrixNetwork) else system.theory


def _depth(system: ClosedForm) -> int:
    return system.depth if isinstance(system, Mode | DeepLinearChain) else _network(system).depth


def feature_mode(system: ClosedForm, target: Region) -> Mode:
    """The mode of the target's feature."""
    if isinstance(system, Mode):
        return system
    return system.mode if isinstance(system, DeepLinearChain) else _network(system).mode(target.feature)


def _asymptotic(system: Mode | DeepLinearChain, setting: Setting, target: Region) -> float:
    """Asymptotic mean exit time into the target [time]."""
    barrier = _barrier(system, target)
    rate = eyring_kramers_rate(barrier, setting.temperature, warn=False)
    return rate.mean_time * _share(barrier, system.depth, setting.temperature, target)


def _silent_asymptotic(system: Mode | DeepLinearChain, setting: Setting, target: Region) -> float:
    """Asymptotic mean exit time of a mode whose only noise is that of its data, in the diffusion limit [time]."""
    mode = feature_mode(system, target)
    barrier = mode.forgetting_barrier()
    dynamics = ModeDynamics(mode, 0.0, minibatch=setting.closed_noise)
    bottom, top = np.array(barrier.minimum), np.array(barrier.saddle)

    def slope(x: float) -> float:
        at = np.array([x])
        return float((dynamics.slope(at) / dynamics.diffusion(at))[0])

    difference = quad(slope, float(bottom[0]), float(top[0]), epsrel=1e-10)[0]
    ends = [float(dynamics.diffusion(x)[0]) for x in (bottom, top)]
    rate = multiplicative_kramers_rate(
        barrier, potential_difference=difference, minimum_diffusion=ends[0], saddle_diffusion=ends[1], warn=False
    )
    return rate.mean_time * _share(barrier, mode.depth, ends[1], target)


def _share(
    barrier: Barrier | OrbitBarrier, depth: int, temperature: float, target: Region, shift: float = 0.0
) -> float:
    r"""Share of 1/k that passes before the target is reached, :math:`\Phi(d\sqrt{|\mu_-|/T})`.

    1/k counts crossings to the state behind the barrier. At a border nearer to the top, replicas arrive that still turn
    back: with Φ the normal distribution and d the border's distance past the top, ½ at d = 0 and 1 well beyond.
    """
    ends = (target.threshold, barrier.order_parameter_at_saddle)
    border, top = (math.copysign(abs(m) ** (1 / depth), m) for m in ends)
    # All layers of the unstable direction move alike: the arc length is √D times one layer's amplitude
    distance = target.sign * math.sqrt(depth) * (border - top) + shift
    return float(ndtr(distance * math.sqrt(-barrier.negative_eigenvalue / temperature)))


def _stepped(
    system: Mode | DeepLinearChain, setting: Setting, target: Region, *, bridged: bool
) -> ExitTime | DiscreteExitTime:
    """Exit time of the discrete chain: exact in the mode, to first order in the step in the chain of weights."""
    if isinstance(system, Mode):
        try:
            return _walk(system, setting, target, bridged)
        except InvalidParameterError:  # so small a step that the walk is too large to solve
            pass
    return exit_time(
        system, temperature=setting.temperature, target=target, start=setting.start, step=setting.step,
        monitored=not bridged, minibatch=setting.closed_noise,
    )  # fmt: skip


def _walk(mode: Mode, setting: Setting, target: Region, bridged: bool) -> DiscreteExitTime:
    """Exact exit time of the Euler–Maruyama walk of a mode, with the data's noise in the diffusion limit."""
    start = mode_start(mode, target, setting.start)
    if setting.closed_noise is None:
        return discrete_exit_time(
            mode, temperature=setting.temperature, step=setting.step, target=target, start=start, bridge=bridged
        )
    border = float(mode.coordinate(target.threshold))
    mirrored = mode.depth % 2 == 0
    interval = Interval(start, lower=border)
    if target.above:
        interval = Interval(start, lower=-border if mirrored else None, upper=border)
    process = ModeDynamics(mode, setting.temperature, minibatch=setting.closed_noise).process
    return discrete_exit(process, interval, step=setting.step, bridge=bridged)


def _with_data(system: Mode | DeepLinearChain, setting: Setting, target: Region) -> ExitTime | DiscreteExitTime:
    """Exit time with the noise of the data: SGD's own in a mode with Gaussian data, else the diffusion limit's."""
    if isinstance(system, Mode) and not setting.bridged:
        try:
            exact = _sgd(system, setting, target)
        except InvalidParameterError:  # as in `_stepped`
            exact = None
        if exact is not None:
            return exact
    return _stepped(system, setting, target, bridged=setting.bridged)


def _sgd(mode: Mode, setting: Setting, target: Region) -> DiscreteExitTime | None:
    """Exact exit time of SGD in a mode with Gaussian data; None if the data are others."""
    noise = setting.closed_noise
    assert noise is not None
    data = noise.residual_variance
    if not isinstance(data, GaussianResidualVariance) or noise.lr_over_batch == 0:
        return None
    size = setting.step / noise.lr_over_batch
    own = (data.singular_value, data.input_variance) == (mode.singular_value, mode.input_variance)
    if not own or abs(size - round(size)) > 1e-9 * size:
        return None
    injected = per_sample(temperature=setting.temperature) if setting.temperature else None
    start = mode_start(mode, target, setting.start)
    return sgd_exit_time(
        mode, lr=setting.step, batch_size=round(size), label_noise=data.label_noise, target=target, start=start,
        noise=injected,
    )  # fmt: skip
