r"""Noise added to every sample's gradient, with the temperature that it makes, or to every sample's activations.

SGD with learning rate :math:`\eta` and batch size :math:`B`, whose per-sample gradients carry Gaussian noise
of variance :math:`g^2` in every direction, moves with :math:`T = \eta g^2 / (2B)`. The temperature is derived
from these or they from it, never typed twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError

__all__ = [
    "ActivationNoise",
    "PerSample",
    "activation_noise",
    "effective_temperature",
    "noise_variance_for",
    "per_sample",
]

Array: TypeAlias = NDArray[np.float64]


def effective_temperature(lr: float, batch_size: int, variance: float) -> float:
    r"""Temperature :math:`T = \eta g^2/(2B)` of SGD along a direction of gradient variance g² [loss].

    Raises
    ------
    InvalidParameterError
        For η ≤ 0, B < 1 or a negative variance.

    Examples
    --------
    >>> effective_temperature(lr=0.1, batch_size=5, variance=2.0)
    0.02
    """
    noise = checks.non_negative("variance", variance)
    return checks.positive("lr", lr) * noise / (2 * checks.positive_int("batch_size", batch_size))


def noise_variance_for(temperature: float, lr: float, batch_size: int) -> float:
    r"""Per-sample noise variance :math:`g^2 = 2BT/\eta` that makes a temperature: inverse of `effective_temperature`.

    Examples
    --------
    >>> noise_variance_for(0.02, lr=0.1, batch_size=5)
    2.0
    """
    heat = checks.non_negative("temperature", temperature)
    return 2 * checks.positive_int("batch_size", batch_size) * heat / checks.positive("lr", lr)


@dataclass(frozen=True)
class PerSample:
    """Isotropic Gaussian noise on every sample's gradient, independent between samples and steps.

    Make it with :func:`per_sample`.

    Attributes
    ----------
    variance, temperature : float, tuple of float (one for each replica) or None
        Exactly one is given; the other follows from lr and batch size.
    """

    variance: float | tuple[float, ...] | None = None
    temperature: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if (self.variance is None) == (self.temperature is None):
            raise InvalidParameterError(
                "Per-sample noise needs exactly one of `variance`, `std` and `temperature`: the others follow "
                "from T = lr · variance / (2 · batch_size).\nUse `per_sample(temperature=T)`."
            )
        for name in ("variance", "temperature"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _one_or_many(name, getattr(self, name)))

    def variance_for(self, lr: float | Array, batch_size: int) -> float | Array:
        """Per-sample variance g² [gradient²] at this learning rate and batch size; an array if anything is one."""
        if self.variance is not None:
            return np.array(self.variance) if isinstance(self.variance, tuple) else self.variance
        assert self.temperature is not None
        size, rate = checks.positive_int("batch_size", batch_size), _positive("lr", lr)
        heat = np.array(self.temperature) if isinstance(self.temperature, tuple) else self.temperature
        return 2 * size * heat / rate

    def temperature_for(self, lr: float | Array, batch_size: int) -> float | Array:
        """Temperature [loss] at this learning rate and batch size; an array if anything is one."""
        size = checks.positive_int("batch_size", batch_size)
        return _positive("lr", lr) * self.variance_for(lr, batch_size) / (2 * size)


def _positive(name: str, value: float | Array) -> float | Array:
    if isinstance(value, np.ndarray):
        checks.positive(name, float(value.min()))
        return value
    return checks.positive(name, value)


def _one_or_many(name: str, value: Any) -> float | tuple[float, ...]:
    """A number ≥ 0, or one for each replica; a tuple, so that noises stay comparable."""
    if np.ndim(value) == 0:
        return checks.non_negative(name, value)
    many = checks.finite_array(name, value, ndim=1, why="one entry is one replica")
    checks.non_negative(name, float(many.min()))
    return tuple(many.tolist())


def per_sample(*, variance: Any = None, std: Any = None, temperature: Any = None) -> PerSample:
    """Return isotropic Gaussian noise for every sample's gradient.

    Parameters
    ----------
    variance : float or array_like of shape (replica,), optional
        Variance g² of each component of each sample's gradient noise [gradient²].
    std : float or array_like of shape (replica,), optional
        Its square root g.
    temperature : float or array_like of shape (replica,), optional
        The temperature wanted [loss]; g² = 2·B·T/lr then follows.

    Returns
    -------
    PerSample
        What `SGD` takes as its ``noise``.

    Examples
    --------
    >>> per_sample(temperature=0.003125).variance_for(lr=0.1, batch_size=8)
    0.5
    """
    if std is not None:
        if variance is not None:
            raise InvalidParameterError("Give `std` or `variance`, not both: variance = std².")
        many = _one_or_many("std", std)
        variance = tuple(g**2 for g in many) if isinstance(many, tuple) else many**2
    return PerSample(variance=variance, temperature=temperature)


@dataclass(frozen=True)
class ActivationNoise:
    r"""Gaussian noise on every sample's hidden activations, :math:`h_l = W_l h_{l-1} + n_l`, drawn anew at every step.

    Each of the D − 1 hidden layers gets :math:`n_l \sim N(0, s_h^2)`, independent between units, layers and samples;
    forward and backward pass see the same. Make it with :func:`activation_noise`.

    Attributes
    ----------
    variance : float
        Variance :math:`s_h^2 \ge 0` [activation²].
    """

    variance: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "variance", checks.non_negative("variance", self.variance))

    @property
    def std(self) -> float:
        """Standard deviation s_h [activation]."""
        return math.sqrt(self.variance)


def activation_noise(*, variance: float | None = None, std: float | None = None) -> ActivationNoise:
    """Return Gaussian noise for every sample's hidden activations.

    Parameters
    ----------
    variance : float, optional
        Variance s_h² of each activation's noise [activation²].
    std : float, optional
        Its square root s_h; exactly one of the two.

    Returns
    -------
    ActivationNoise
        What `SGD` takes as its ``activation_noise``.

    Examples
    --------
    >>> activation_noise(std=0.5)
    ActivationNoise(variance=0.25)
    """
    if (variance is None) == (std is None):
        raise InvalidParameterError(
            "Activation noise needs exactly one of `variance` and `std`: variance = std².\n"
            "Use `activation_noise(variance=0.01)`."
        )
    return ActivationNoise(checks.non_negative("std", std) ** 2 if variance is None else variance)
