r"""One balanced mode as a one-dimensional process, and its exact exit time.

The arc length :math:`x=\sqrt D\,a` moves in the free energy F(x) with constant mobility; minibatch noise acts on
all layers alike, so a balanced mode stays balanced and the reduction to one dimension is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.region import Region
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.exit_law import ExitTime, SurvivalCurve
from kramers_grok.theory.fokker_planck import exit_curve
from kramers_grok.theory.minibatch import MinibatchNoise
from kramers_grok.theory.quadrature import Diffusion, Interval, mean_exit
from kramers_grok.theory.time_step import monitoring_shift

__all__ = ["ModeDynamics", "mode_exit_time", "mode_start"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ModeDynamics:
    r"""Drift and diffusion of one mode in arc length :math:`x=\sqrt D\,a`.

    .. math:: dx = -\big[F' + \tfrac h2(F''F' - TF''')\big]dt
              + \sqrt{2T(1+hF'') + D\,\varepsilon\,a^{2D-2}c(m)}\;dW

    All layers of a balanced mode get the same minibatch noise, so it stays balanced and this is exact.

    Parameters
    ----------
    mode : Mode
    temperature : float
        T ≥ 0 [loss].
    step : float
        Step h of Euler-Maruyama, to first order; its product with the minibatch noise is left out.
    minibatch : MinibatchNoise, optional
    """

    mode: Mode
    temperature: float
    step: float = 0.0
    minibatch: MinibatchNoise | None = None

    def order_parameter_derivatives(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """Order parameter m(x) and its first three derivatives, each of the shape of `x`."""
        depth, root = self.mode.depth, np.sqrt(self.mode.depth)
        a = x / root
        factors = np.cumprod([1.0, depth / root, (depth - 1) / root, (depth - 2) / root])
        terms = [factors[n] * a ** max(depth - n, 0) for n in range(4)]
        return terms[0], terms[1], terms[2], terms[3]

    def order_parameter(self, x: Array) -> Array:
        """Order parameter m at `x`."""
        return self.order_parameter_derivatives(x)[0]

    def order_parameter_slope(self, x: Array) -> Array:
        """Slope m′ at `x`."""
        return self.order_parameter_derivatives(x)[1]

    def slope(self, x: Array) -> Array:
        """F′ at `x`."""
        m, m1, _, _ = self.order_parameter_derivatives(x)
        q, sigma = self.mode.input_variance, self.mode.singular_value
        return np.asarray(self.mode.weight_decay * x - q * (sigma - m) * m1)

    def curvature(self, x: Array) -> Array:
        """F″ at `x`."""
        m, m1, m2, _ = self.order_parameter_derivatives(x)
        q, sigma = self.mode.input_variance, self.mode.singular_value
        return np.asarray(self.mode.weight_decay + q * (m1**2 - (sigma - m) * m2))

    def third(self, x: Array) -> Array:
        """F‴ at `x`."""
        m, m1, m2, m3 = self.order_parameter_derivatives(x)
        q, sigma = self.mode.input_variance, self.mode.singular_value
        return np.asarray(q * (3 * m1 * m2 - (sigma - m) * m3))

    def drift(self, x: Array) -> Array:
        """Drift of x."""
        force = self.slope(x)
        if self.step == 0:
            return -force
        correction = self.curvature(x) * force - self.temperature * self.third(x)
        return np.asarray(-force - 0.5 * self.step * correction)

    def diffusion(self, x: Array) -> Array:
        """Diffusion coefficient of x."""
        value = np.full_like(x, self.temperature)
        if self.step:
            value = value * (1 + self.step * self.curvature(x))
        if self.minibatch is not None:
            m, m1, _, _ = self.order_parameter_derivatives(x)
            value = value + self.minibatch.strength(m) * m1**2
        return value

    @property
    def process(self) -> Diffusion:
        """As a process for quadrature."""
        return Diffusion(self.drift, self.diffusion)


@dataclass(frozen=True)
class _ModeLaw:
    dynamics: ModeDynamics
    interval: Interval
    mean: float

    def __call__(self) -> SurvivalCurve:
        return exit_curve(self.dynamics.process, self.interval, self.mean)


def mode_exit_time(
    mode: Mode,
    temperature: float,
    target: Region,
    start: ArrayLike | None,
    step: float,
    monitored: bool,
    minibatch: MinibatchNoise | None,
) -> ExitTime:
    """Exit time of a mode; parameters, errors and an example in `exit_times.exit_time`."""
    silent = minibatch is None or minibatch.lr_over_batch == 0
    if temperature == 0 and (silent or target.above):
        raise InvalidParameterError(
            "temperature = 0, expected > 0: "
            + (
                "without noise nothing leaves a minimum.\n"
                if silent
                else "minibatch noise alone vanishes at the unlearned state, where Φ diverges; replicas are "
                "absorbed there and the mean time to learn is infinite.\n"
            )
            + "Use `temperature=mode.barrier().height / 6`, or any floor of isotropic noise."
        )
    origin = mode_start(mode, target, start)
    dynamics = ModeDynamics(mode, temperature, step, minibatch)
    interval = _mode_interval(dynamics, target, origin, monitored)
    result = mean_exit(dynamics.process, interval)
    return ExitTime(
        mean=result.mean,
        relative_error=result.relative_error,
        method="nested quadrature in the mode's arc length",
        temperature=temperature,
        law=_ModeLaw(dynamics, interval, result.mean),
    )


def mode_start(mode: Mode, target: Region, start: ArrayLike | None) -> float:
    """Arc length at which an exit begins: 0 for a target above, the learned state for one below, unless given.

    Raises
    ------
    InvalidParameterError
        For a start in the target, or a target in another feature than the one there is.
    """
    if target.feature != 0:
        raise checks.invalid("target.feature", target.feature, "0", "a mode has one order parameter")
    if start is not None:
        origin = checks.finite("start", np.asarray(start).item())
    else:
        origin = 0.0 if target.above else float(np.sqrt(mode.depth) * mode.learned_amplitude())
    m = float(mode.landscape.order_parameters_at(np.array([origin]))[0])
    if target.contains(m):
        raise InvalidParameterError(
            f"The start m = {m:.6g} already lies in the target (m {'>' if target.above else '<'}= "
            f"{target.threshold:g}): the exit time would be 0.\n"
            "Put the target on the other side of the barrier: `beyond(mode.barrier())` to learn, "
            "`beyond(mode.forgetting_barrier())` to forget."
        )
    return float(origin)


def _mode_interval(dynamics: ModeDynamics, target: Region, origin: float, monitored: bool) -> Interval:
    mode, mirrored = dynamics.mode, dynamics.mode.depth % 2 == 0
    if mirrored and target.threshold < 0:
        raise checks.invalid(
            "target.threshold", target.threshold, ">= 0", f"m = a^{mode.depth} is never negative on the balanced path"
        )
    border = float(mode.coordinate(target.threshold))
    shift = 0.0
    if monitored and dynamics.step:
        shift = monitoring_shift(float(dynamics.diffusion(np.array([border]))[0]), dynamics.step)
    if not target.above:
        # An even mode that starts on the negative branch has its mirror image as exit
        side = -1.0 if mirrored and origin < 0 else 1.0
        return Interval(start=side * origin, lower=border - shift)
    border += shift
    return Interval(start=origin, lower=-border if mirrored else None, upper=border)
