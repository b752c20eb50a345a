r"""Exact exit times of discrete chains: Euler-Maruyama walks, and SGD with true minibatches in one mode.

A chain that takes steps of h and leaves at its first step outside has the mean exit time :math:`\tau(x)` and the
survival function :math:`S_n(x)` with

.. math:: \tau(x) = h + \int p(x,y)\,\tau(y)\,dy, \qquad S_{n+1}(x) = \int p(x,y)\,S_n(y)\,dy,

integrals over the inside. No limit of small steps, small noise or high barriers is taken: what a run measures in one
mode is this number, up to its statistical error. Derived in the chapter on the discrete chain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import PerSample
from kramers_grok.core.region import Region
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.discrete_kernels import (
    BatchKernel,
    BridgedKernel,
    FoldedKernel,
    GaussianKernel,
    StepKernel,
)
from kramers_grok.theory.discrete_law import DiscreteExitTime, StepLaw, step_law
from kramers_grok.theory.discrete_solver import COARSE, build_chain, mean_number_of_steps
from kramers_grok.theory.mode_exit import ModeDynamics, mode_start
from kramers_grok.theory.quadrature import Diffusion, Interval

__all__ = ["DiscreteExitTime", "discrete_exit", "discrete_exit_time", "sgd_exit_time"]

Array = NDArray[np.float64]


def discrete_exit(process: Diffusion, interval: Interval, *, step: float, bridge: bool = False) -> DiscreteExitTime:
    r"""Exact exit time of the Euler-Maruyama walk of any one-dimensional process.

    .. math:: x' = x + h\,b(x) + \sqrt{2\mathcal D(x)h}\;\xi

    Parameters
    ----------
    process : Diffusion
        Drift and diffusion *of the scheme* (not of its modified equation).
    interval : Interval
        Start and absorbing ends; a side without exit is a natural boundary.
    step : float
        Time step h > 0 [time].
    bridge : bool
        Whether the walk also leaves between two steps, with the Brownian-bridge probability
        :math:`e^{-d(x)d(y)/\mathcal D(x)h}`, d the distance from the nearest end; such an exit counts half a step
        before the step's end.

    Returns
    -------
    DiscreteExitTime
        Its `temperature` is NaN: a process has a diffusion.

    Raises
    ------
    InvalidParameterError
        If the step is not positive or too small for a dense matrix, or a wall is given.

    Examples
    --------
    The walk in :math:`(x^2-1)^2` at β = 5 that is seen at its steps only reaches the top late:

    >>> from kramers_grok.theory.quadrature import mean_exit
    >>> process, top = Diffusion(lambda x: -4 * x * (x**2 - 1), 0.2), Interval(-1.0, upper=0.0)
    >>> print(f"{discrete_exit(process, top, step=0.01).mean / mean_exit(process, top).mean:.5f}")
    1.11147
    >>> print(f"{discrete_exit(process, top, step=0.01, bridge=True).mean / mean_exit(process, top).mean:.5f}")
    0.98489
    """
    step = checks.positive("step", step)
    if interval.wall is not None:
        raise checks.invalid("interval.wall", interval.wall, "None", "a discrete walk jumps over a wall")
    kernel: StepKernel = GaussianKernel(process, step)
    if bridge:
        kernel = BridgedKernel(GaussianKernel(process, step), lambda x: _gap(interval, x))
    return _solve(kernel, interval, step, 0.5 * bridge, float("nan"))


def _gap(interval: Interval, x: Array) -> Array:
    ends = [np.abs(x - end) for end in (interval.lower, interval.upper) if end is not None]
    return np.asarray(np.min(ends, axis=0))


def discrete_exit_time(
    mode: Mode, *, temperature: float, step: float, target: Region, start: float | None = None, bridge: bool = False
) -> DiscreteExitTime:
    r"""Exact exit time of a mode's Langevin walk with a finite step.

    .. math:: x' = x - hF'(x) + \sqrt{2Th}\,\xi

    in arc length :math:`x = \sqrt D\,a`: what `first_passage` of ``Langevin(mode, temperature=…, dt=step)`` measures,
    up to its statistical error. SGD on the population's gradient with per-sample noise is the same chain,
    :math:`h = \eta,\ T = \eta g^2/2B`.

    Parameters
    ----------
    mode : Mode
    temperature : float
        T > 0 [loss].
    step : float
        Time step h > 0 [time].
    target : Region
        Where the order parameter m counts as escaped. At even depth a target above has two mirror images.
    start : float, optional
        Arc length; by default 0 for a target above, the learned state for one below.
    bridge : bool
        Whether crossings between two steps count, as `first_passage` counts them for Langevin dynamics unless told
        otherwise: distances :math:`|m - m_b|/|m'|` at both ends of the step, the exit half a step before its end.

    Returns
    -------
    DiscreteExitTime

    Raises
    ------
    InvalidParameterError
        For T ≤ 0, a start in the target, steps unstable at the origin (hλ ≥ 2) or too many for a dense matrix.

    Notes
    -----
    The relative error is near 1e-11 whatever the mean: at ΔF/T = 35 the mean is 1e17 steps.

    Examples
    --------
    >>> from kramers_grok.core.region import beyond
    >>> mode = Mode(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> barrier = mode.barrier()
    >>> walk = discrete_exit_time(mode, temperature=barrier.height / 30, step=0.1, target=beyond(barrier))
    >>> print(f"{walk.mean:.8e}")
    2.77945953e+14
    """
    heat = checks.positive("temperature", temperature, "without noise nothing leaves a minimum")
    step = _step("step", step, mode)
    interval = _interval(mode, target, start)
    dynamics = ModeDynamics(mode, heat)
    kernel: StepKernel = GaussianKernel(dynamics.process, step)
    if bridge:
        kernel = BridgedKernel(GaussianKernel(dynamics.process, step), _ModeGap(dynamics, target.threshold))
    return _solve(_folded(kernel, mode, target), interval, step, 0.5 * bridge, heat)


def sgd_exit_time(
    mode: Mode,
    *,
    lr: float,
    batch_size: int,
    label_noise: float,
    target: Region,
    start: float | None = None,
    noise: PerSample | None = None,
) -> DiscreteExitTime:
    r"""Exact exit time of a mode under SGD with true minibatches of white Gaussian data.

    .. math:: x' = x - \eta\big[(\hat\Sigma_{xx} m - \hat\Sigma_{yx})\,m' + \lambda x\big]
              + \eta\,\frac{g}{\sqrt B}\,\xi

    in arc length, with the batch's moments drawn afresh at every step,
    :math:`\hat\Sigma_{xx} = q\chi^2_B/B`, :math:`\hat\Sigma_{yx} = \sigma\hat\Sigma_{xx} +
    s\sqrt{\hat\Sigma_{xx}/B}\,n`. No diffusion limit: all cumulants of the gradient and the finite learning rate are
    in it. Without injected noise a balanced chain of D weights stays balanced under SGD and is this mode.

    Parameters
    ----------
    mode : Mode
    lr : float
        Learning rate η > 0 [time per step].
    batch_size : int
        B ≥ 1.
    label_noise : float
        Standard deviation s ≥ 0 of the labels' noise.
    target : Region
        Where the order parameter m counts as escaped.
    start : float, optional
        Arc length; by default 0 for a target above, the learned state for one below.
    noise : PerSample, optional
        Isotropic Gaussian noise on every sample's gradient, here along x: T = η g²/(2B).

    Returns
    -------
    DiscreteExitTime
        Watched at its steps: SGD has nothing in between.

    Raises
    ------
    InvalidParameterError
        If the mean is infinite: upwards, or down to m ≤ 0, with minibatch noise alone, which vanishes at m = 0. If
        neither labels nor gradients have noise. As in `discrete_exit_time`.

    Examples
    --------
    A learned feature is forgotten 1.41 times later than the diffusion limit of the same minibatch noise says (1873.0):

    >>> mode = Mode(depth=3, singular_value=1.0, weight_decay=0.44)
    >>> forgotten = Region(0.001, above=False)
    >>> print(f"{sgd_exit_time(mode, lr=0.1, batch_size=16, label_noise=0.5, target=forgotten).mean:.3f}")
    2640.601
    """
    lr = _step("lr", lr, mode)
    batch_size = checks.positive_int("batch_size", batch_size)
    label_noise = checks.non_negative("label_noise", label_noise)
    variance = float(noise.variance_for(lr, batch_size)) if noise is not None else 0.0
    interval = _interval(mode, target, start)
    if variance == 0:
        _check_reachable(target, label_noise)
    dynamics = ModeDynamics(mode, 0.0)
    kernel = BatchKernel(
        order_parameter=dynamics.order_parameter,
        slope=dynamics.order_parameter_slope,
        singular_value=mode.singular_value,
        weight_decay=mode.weight_decay,
        input_variance=mode.input_variance,
        label_noise=label_noise,
        lr=lr,
        batch_size=batch_size,
        noise_variance=variance,
        interpolation=float(mode.coordinate(mode.singular_value)),
    )
    temperature = lr * variance / (2 * batch_size)
    return _solve(_folded(kernel, mode, target), interval, lr, 0.0, temperature)


@dataclass(frozen=True)
class _ModeGap:
    """Distance from the target's border, flat in m: |m − m_b| over the slope |m′|."""

    dynamics: ModeDynamics
    threshold: float

    def __call__(self, x: Array) -> Array:
        slope = np.abs(self.dynamics.order_parameter_slope(x))
        return np.asarray(np.abs(self.dynamics.order_parameter(x) - self.threshold) / np.maximum(slope, 1e-100))


@dataclass(frozen=True)
class _Law:
    kernel: StepKernel
    interval: Interval

    def __call__(self) -> StepLaw:
        return step_law(build_chain(self.kernel, self.interval, refinement=COARSE))


def _solve(kernel: StepKernel, interval: Interval, step: float, offset: float, temperature: float) -> DiscreteExitTime:
    number, error = mean_number_of_steps(kernel, interval)
    return DiscreteExitTime(
        mean=step * (number - offset),
        relative_error=error,
        method="integral equation of the discrete chain",
        temperature=temperature,
        step=step,
        offset=offset,
        law=_Law(kernel, interval),
    )


def _step(name: str, value: float, mode: Mode) -> float:
    step = checks.positive(name, value)
    if step * mode.weight_decay >= 2:
        raise checks.invalid(
            name,
            step,
            f"{name} · weight_decay < 2",
            "at the origin each step multiplies x by 1 − step · weight_decay, which grows beyond that",
            f"Use `{name}={0.1 / mode.weight_decay:.3g}` or less.",
        )
    return step


def _interval(mode: Mode, target: Region, start: float | None) -> Interval:
    if not isinstance(target, Region):
        raise checks.invalid(
            "target", target, "a Region", "every exit time names its target", "Use `beyond(mode.barrier())`."
        )
    origin = mode_start(mode, target, start)
    mirrored = mode.depth % 2 == 0
    border = float(mode.coordinate(target.threshold))
    if target.above:
        return Interval(start=origin, lower=-border if mirrored else None, upper=border)
    if mirrored and border == 0:
        raise checks.invalid(
            "target.threshold",
            target.threshold,
            "> 0",
            "no step ends at m = 0 exactly",
            "Use `Region(1e-3, above=False)`.",
        )
    return Interval(start=abs(origin) if mirrored else origin, lower=border)


def _folded(kernel: StepKernel, mode: Mode, target: Region) -> StepKernel:
    """At even depth a step may jump across a target around 0 to the mirror image of the learned state."""
    return FoldedKernel(kernel) if mode.depth % 2 == 0 and not target.above else kernel


def _check_reachable(target: Region, label_noise: float) -> None:
    fix = "Inject noise, `noise=per_sample(temperature=...)`, or start learned with `Region(m > 0, above=False)`."
    if target.above or target.threshold <= 0:
        raise InvalidParameterError(
            f"`noise` = None with the target m {'>=' if target.above else '<='} {target.threshold:g}: minibatch noise "
            "alone vanishes at m = 0, where replicas are absorbed, so that a share of them never arrives and the mean "
            f"exit time is infinite.\n{fix}"
        )
    if label_noise == 0:
        raise checks.invalid(
            "label_noise",
            label_noise,
            "> 0, or `noise`",
            "without either a step given the batch's inputs is deterministic, and at m = σ no noise is left",
            "Use `label_noise=1e-2`, or `noise=per_sample(temperature=...)`.",
        )
