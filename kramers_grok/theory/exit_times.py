r"""Exact exit times, without a fitted parameter: the balanced mode and the three-layer chain.

The mode is one-dimensional in the arc length :math:`x=\sqrt D\,a`, so its mean exit time is a nested quadrature
(`quadrature`) and its distribution a finite-volume solve (`fokker_planck`); the chain of three weights is a
sparse solve in three dimensions (`chain_exit`). `time_step` adds to first order what a finite step does, `minibatch`
the noise of minibatches; `discrete_chain` solves the mode's walk with a finite step, and its SGD, exactly. Derived in
the chapters on exit times and on the discrete chain.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from kramers_grok.core import checks
from kramers_grok.core.exceptions import ValidityWarning
from kramers_grok.core.region import Region
from kramers_grok.theory.chain_exit import chain_exit_time
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.discrete_chain import DiscreteExitTime, discrete_exit, discrete_exit_time, sgd_exit_time
from kramers_grok.theory.exit_law import ExitTime
from kramers_grok.theory.fokker_planck import exit_curve
from kramers_grok.theory.gradient_noise import GaussianResidualVariance, ResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise
from kramers_grok.theory.mode_exit import ModeDynamics, mode_exit_time
from kramers_grok.theory.quadrature import Diffusion, Interval, MeanExit, mean_exit, splitting_probability
from kramers_grok.theory.time_step import discrete_mean_exit

__all__ = [
    "Diffusion",
    "DiscreteExitTime",
    "ExitTime",
    "Interval",
    "MeanExit",
    "MinibatchNoise",
    "ModeDynamics",
    "discrete_exit",
    "discrete_exit_time",
    "discrete_mean_exit",
    "exit_curve",
    "exit_time",
    "lr_over_batch_for",
    "mean_exit",
    "minibatch_mode_exit_time",
    "sgd_exit_time",
    "splitting_probability",
    "temperature_for",
]

# Above this step · curvature the neglected O(h²) of the modified equation is percents
_LARGE_STEP = 0.3


def exit_time(
    system: Mode | DeepLinearChain,
    *,
    temperature: float,
    target: Region,
    start: ArrayLike | None = None,
    step: float = 0.0,
    monitored: bool = False,
    minibatch: MinibatchNoise | None = None,
) -> ExitTime:
    r"""Exact mean and distribution of the time at which a system first enters a region.

    Parameters
    ----------
    system : Mode or DeepLinearChain
        A mode of any depth (quadrature, relative error 1e-10 and better) or the chain of three weights
        (three-dimensional solve, about 1e-4).
    temperature : float
        Isotropic temperature T [loss]; 0 is allowed for a mode with minibatch noise.
    target : Region
        Where the order parameter m counts as escaped. At even depth a mode has two mirror exits.
    start : array_like, optional
        Arc length x of the mode, or the weights (3,) of the chain; by default 0 for a target above, the
        learned state for one below.
    step : float
        Step of Euler-Maruyama (for SGD the learning rate) whose first-order effect is included [time].
    monitored : bool
        Whether the walk is looked at at its steps only.
    minibatch : MinibatchNoise, optional
        Minibatch noise in the diffusion limit.

    Returns
    -------
    ExitTime

    Raises
    ------
    InvalidParameterError
        For T ≤ 0, a start in the target, a chain of another depth than 3, an infinite mean.

    Warns
    -----
    ValidityWarning
        If the target lies before the barrier's top, or `step` times the stiffest curvature exceeds 0.3.

    Examples
    --------
    >>> mode = Mode(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> result = exit_time(mode, temperature=mode.barrier().height / 6, target=Region(0.1))
    >>> print(f"{result.mean:.6f} {float(result.survival(result.mean)):.4f}")
    11028.569081 0.3679
    """
    if not isinstance(target, Region):
        raise checks.invalid(
            "target", target, "a Region", "every rate names its target", "Use `beyond(system.barrier())`."
        )
    temperature = checks.non_negative("temperature", temperature)
    step = checks.non_negative("step", step, "it is a time", "Use `step=0` for continuous time.")
    if isinstance(system, DeepLinearChain):
        result = chain_exit_time(
            system,
            temperature=temperature,
            target=target,
            start=start,
            step=step,
            monitored=monitored,
            minibatch=minibatch,
        )
    elif isinstance(system, Mode):
        result = mode_exit_time(system, temperature, target, start, step, monitored, minibatch)
    else:
        raise checks.invalid(
            "system",
            type(system).__name__,
            "a Mode or a DeepLinearChain",
            "only these have an exact exit time",
            "Use `mean_exit(Diffusion(drift, diffusion), interval)`.",
        )
    notes = _notes(system, target, step)
    for note in notes:
        warnings.warn(note, ValidityWarning, stacklevel=2)
    return replace(result, warnings=result.warnings + notes)


def _notes(system: Mode | DeepLinearChain, target: Region, step: float) -> tuple[str, ...]:
    notes = []
    if system.depth > 2 and system.weight_decay < system.spinodal():
        amplitude = system.saddle_amplitude()
        gap = target.score(amplitude**system.depth) - target.score(target.threshold)
        if gap > 1e-9 * abs(target.threshold):
            notes.append(
                f"The target's border m = {target.threshold:g} lies before the barrier's top, "
                f"m = {amplitude**system.depth:.6g}: replicas that reach it mostly fall back. "
                "Use `beyond(system.barrier())` for an escape."
            )
    if step:
        reached = max(abs(target.threshold), 0.0 if target.above else system.singular_value)
        stiff = system.weight_decay + system.input_variance * system.depth * reached ** (2 - 2 / system.depth)
        if step * stiff > _LARGE_STEP:
            notes.append(
                f"step · curvature reaches {step * stiff:.2g}: the time step is included to first order only. "
                "Compare with `discrete_exit_time`, or use a smaller step."
            )
    return tuple(notes)


def minibatch_mode_exit_time(
    mode: Mode,
    *,
    label_noise: float,
    lr_over_batch: float,
    target: Region,
    start: float | None = None,
    injected_temperature: float = 0.0,
) -> ExitTime:
    r"""Exit time of the balanced mode under minibatch noise of white Gaussian data (diffusion limit).

    In the amplitude a of each layer

    .. math:: da = -\tfrac{F'(a)}{D}dt + \sqrt{\varepsilon}\,a^{D-1}\sqrt{2q^2(\sigma-m)^2+qs^2}\;dW,

    computed in arc length :math:`x=\sqrt D\,a`, in which `start` is given. The mean time from the unlearned state
    upwards is infinite without injected noise: there the minibatch noise vanishes.

    Parameters
    ----------
    mode : Mode
    label_noise : float
        Standard deviation s of the label noise.
    lr_over_batch : float
        ε = η/B.
    target : Region
    start : float, optional
        Arc length; by default 0 for a target above, the learned state for one below.
    injected_temperature : float
        Temperature of isotropic noise on top [loss].

    Raises
    ------
    InvalidParameterError
        If the mean is infinite, or as in `exit_time`.

    Notes
    -----
    Discrete SGD departs from its diffusion limit even for η → 0 at fixed ε: rare events see all cumulants of the
    per-sample gradient, not only its variance.

    Examples
    --------
    >>> mode = Mode(depth=3, singular_value=1.0, weight_decay=0.44)
    >>> forgotten = Region(0.001, above=False)
    >>> result = minibatch_mode_exit_time(mode, label_noise=0.5, lr_over_batch=0.1 / 16, target=forgotten)
    >>> print(f"{result.mean:.3f}")
    1873.025
    """
    label_noise = checks.non_negative("label_noise", label_noise)
    residual = GaussianResidualVariance(mode.singular_value, mode.input_variance, label_noise)
    noise = MinibatchNoise(checks.positive("lr_over_batch", lr_over_batch), residual)
    return exit_time(mode, temperature=injected_temperature, target=target, start=start, minibatch=noise)


def temperature_for(
    system: Mode | DeepLinearChain,
    mean_exit_time: float,
    target: Region,
    *,
    start: ArrayLike | None = None,
    step: float = 0.0,
    monitored: bool = False,
    minibatch: MinibatchNoise | None = None,
) -> float:
    """Temperature at which the exact mean exit time is `mean_exit_time` [loss].

    Parameters
    ----------
    system : Mode or DeepLinearChain
    mean_exit_time : float
        The mean wanted [time].
    target, start, step, monitored, minibatch
        As in `exit_time`.

    Returns
    -------
    float
        [loss]

    Raises
    ------
    InvalidParameterError
        If no temperature gives that mean.

    Examples
    --------
    >>> mode = Mode(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> T = temperature_for(mode, 11028.569081, Region(0.1))
    >>> print(f"{mode.barrier().height / T:.6f}")
    6.000000
    """

    def log_mean(temperature: float) -> float:
        return _quiet_log_mean(
            system,
            temperature=temperature,
            target=target,
            start=start,
            step=step,
            monitored=monitored,
            minibatch=minibatch,
        )

    return _invert(log_mean, mean_exit_time, _guess(system, mean_exit_time, target), _tolerance(system))


def lr_over_batch_for(
    system: Mode | DeepLinearChain,
    mean_exit_time: float,
    target: Region,
    noise_variance: float,
    *,
    start: ArrayLike | None = None,
    step: float = 0.0,
    monitored: bool = False,
    residual_variance: ResidualVariance | None = None,
) -> float:
    r"""Ratio ε = lr/batch at which SGD with per-sample noise has the mean exit time `mean_exit_time`.

    Per-sample gradient noise of variance :math:`g^2` makes :math:`T = \varepsilon g^2/2`.

    Parameters
    ----------
    system : Mode or DeepLinearChain
    mean_exit_time : float
        The mean wanted [time]; in steps it is this over the learning rate.
    target
        As in `exit_time`.
    noise_variance : float
        g² > 0 [gradient²].
    start, step, monitored
        As in `exit_time`; `step` is the learning rate.
    residual_variance : callable, optional
        c(m) of the data, to include the minibatch noise, which scales with ε too.

    Returns
    -------
    float
        [time]

    Examples
    --------
    >>> mode = Mode(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> ratio = lr_over_batch_for(mode, 11028.569081, Region(0.1), noise_variance=0.25)
    >>> print(f"{ratio * 0.25 / 2 * 6 / mode.barrier().height:.6f}")
    1.000000
    """
    variance = checks.positive("noise_variance", noise_variance, "it makes the temperature")

    def log_mean(temperature: float) -> float:
        ratio = 2 * temperature / variance
        minibatch = None if residual_variance is None else MinibatchNoise(ratio, residual_variance)
        return _quiet_log_mean(
            system,
            temperature=temperature,
            target=target,
            start=start,
            step=step,
            monitored=monitored,
            minibatch=minibatch,
        )

    guess = _guess(system, mean_exit_time, target)
    return float(2 * _invert(log_mean, mean_exit_time, guess, _tolerance(system)) / variance)


def _quiet_log_mean(system: Mode | DeepLinearChain, **arguments: Any) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ValidityWarning)
        return float(np.log(exit_time(system, **arguments).mean))


def _tolerance(system: Mode | DeepLinearChain) -> float:
    return 1e-12 if isinstance(system, Mode) else 1e-6


def _guess(system: Mode | DeepLinearChain, mean: float, target: Region) -> float:
    """Temperature from Arrhenius' law with the well's curvature as prefactor."""
    mean = checks.positive("mean_exit_time", mean)
    if system.depth > 2 and system.weight_decay < system.spinodal():
        barrier = system.barrier() if target.above else system.forgetting_barrier()
        return float(barrier.height / max(np.log(mean * system.weight_decay), 1.0))
    return float(system.weight_decay * abs(target.threshold) ** (2 / system.depth) / 2)


def _invert(log_mean: Callable[[float], float], mean: float, guess: float, tolerance: float) -> float:
    wanted = np.log(checks.positive("mean_exit_time", mean))
    # Nearly linear in 1/T, where a bracketing secant needs few solves
    cold, hot = 1 / guess, 1 / guess
    for _ in range(40):
        if log_mean(1 / cold) >= wanted:
            break
        cold *= 1.3
    for _ in range(40):
        if log_mean(1 / hot) <= wanted:
            break
        hot /= 1.3
    else:
        raise checks.invalid(
            "mean_exit_time",
            mean,
            "a time that some temperature gives",
            f"at T = {1 / hot:.3g} the mean is still {np.exp(log_mean(1 / hot)):.3g}",
            "Ask for a longer time.",
        )
    if cold == hot:
        return float(1 / cold)
    return float(1 / brentq(lambda b: log_mean(1 / b) - wanted, hot, cold, rtol=tolerance, xtol=1e-300))
