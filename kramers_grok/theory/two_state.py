"""Rates between the unlearned and the learned state, as functions of temperature, weight decay and learning rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core.region import Region, beyond
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.gradient_noise import ResidualVariance
from kramers_grok.theory.rate_table import RateTable, System, rate_table, with_weight_decay

__all__ = ["TwoStateRates", "two_state_rates"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TwoStateRates:
    """Rates of learning and forgetting, from `two_state_rates`.

    Attributes
    ----------
    system : Mode or DeepLinearChain
    forward, backward : RateTable
        At the step `step`.
    step : float
        Learning rate that the tables were made for.
    noise_variance : float
        Per-sample variance g² of the gradient's noise.
    target : Region
        What counts as learned.
    residual_variance : callable or None
        c(m) of the data, where the minibatches' own noise is included.
    """

    system: System
    forward: RateTable
    backward: RateTable
    step: float
    noise_variance: float
    target: Region
    residual_variance: ResidualVariance | None = None

    def __call__(self, temperature: ArrayLike, weight_decay: ArrayLike, lr: ArrayLike) -> tuple[Array, Array]:
        r"""Rates k₊ and k₋ [1/time].

        A learning rate other than the tables' changes them by its leading order in T,
        :math:`\ln k_h/k_0 = h[\tfrac14(\operatorname{tr}H_{\min} - \operatorname{tr}H_s) - \tfrac12|\mu_-|]`.
        """
        heat, decay, eta = np.broadcast_arrays(*(np.asarray(v, float) for v in (temperature, weight_decay, lr)))
        excess = eta - self.step
        slopes = np.ones((2, *decay.shape))
        for value in np.unique(decay):
            slopes[:, decay == value] = np.array(_step_slopes(with_weight_decay(self.system, float(value))))[:, None]
        forward = self.forward(heat, decay) * np.exp(excess * slopes[0])
        return forward, self.backward(heat, decay) * np.exp(excess * slopes[1])


def _step_slopes(system: System) -> tuple[float, float]:
    """Derivatives of ln k₊ and ln k₋ with respect to the step."""
    top = float(np.min(system.barrier().saddle_spectrum))
    barriers = (system.barrier(), system.forgetting_barrier())
    traces = [float(barrier.minimum_spectrum.sum() - barrier.saddle_spectrum.sum()) for barrier in barriers]
    return 0.5 * top + 0.25 * traces[0], 0.5 * top + 0.25 * traces[1]


def two_state_rates(
    system: System,
    *,
    noise_variance: float,
    temperatures: tuple[float, float],
    weight_decays: tuple[float, float] | float | None = None,
    step: float,
    residual_variance: ResidualVariance | None = None,
    ratio_nodes: int = 3,
) -> TwoStateRates:
    """Tabulate the rates between the unlearned and the learned state, to borders half way beyond the barrier.

    Parameters
    ----------
    system : Mode or DeepLinearChain
    noise_variance : float
        Per-sample variance g² of the gradient's noise; T = η g²/(2B).
    temperatures : (float, float)
        Range of T [loss].
    weight_decays : (float, float) or float, optional
        Range of λ; the system's own if not given.
    step : float
        Learning rate, included to first order.
    residual_variance : callable, optional
        c(m) of the data, to include the minibatches' own noise.
    ratio_nodes : int
        As in `rate_table`.

    Returns
    -------
    TwoStateRates

    Notes
    -----
    The backward rate of the chain is taken from its mode, which it exceeds by 1 to 4 %: over one saddle, with nearly
    the same entropy on both sides.
    """
    decays = system.weight_decay if weight_decays is None else weight_decays
    mode = system.mode if isinstance(system, DeepLinearChain) else system
    # One border each for all λ: beyond the barrier at the λ where it is furthest.
    low, high = decays if isinstance(decays, tuple) else (decays, decays)
    learned = beyond(with_weight_decay(mode, high).barrier())
    forgotten = beyond(with_weight_decay(mode, low).forgetting_barrier())

    def table(which: System, target: Region, points: int) -> RateTable:
        return rate_table(
            which,
            target=target,
            temperatures=temperatures,
            weight_decays=decays,
            step=step,
            monitored=True,
            noise_variance=noise_variance,
            residual_variance=residual_variance,
            points=points,
            ratio_nodes=ratio_nodes,
        )

    return TwoStateRates(
        system, table(system, learned, 9), table(mode, forgotten, 5), step, noise_variance, learned, residual_variance
    )
