r"""Cumulants of one sample's gradient factor, the building block of SGD's Hamiltonians.

One sample :math:`(x, y)` moves a scalar chain through one number, :math:`rx = xy - mx^2`, m the order parameter. All
that large deviations need of the data is

.. math:: \Gamma(t; m) = \log\mathbb E\,e^{t(xy - mx^2)} .

The diffusion limit keeps its first two cumulants, :math:`\Gamma \to \kappa_1(m)\,t + \tfrac12\kappa_2(m)\,t^2`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.gradient_noise import EmpiricalResidualVariance

__all__ = ["CumulantJet", "EmpiricalCumulants", "GaussianCumulants", "SampleCumulants", "TwoCumulants"]

Array = NDArray[np.float64]

_SMALLEST = 1e-100


@dataclass(frozen=True)
class CumulantJet:
    r"""Γ and its derivatives :math:`\Gamma_t, \Gamma_m, \Gamma_{tt}, \Gamma_{tm}` at the same points."""

    value: Array
    t: Array
    m: Array
    tt: Array
    tm: Array


class SampleCumulants(Protocol):
    r"""Cumulant generating function :math:`\Gamma(t; m)` of rx."""

    def jet(self, t: Array, m: Array) -> CumulantJet:
        """Value and derivatives; `t` inside `limits`, shapes broadcast.

        Parameters
        ----------
        t, m : array

        Returns
        -------
        CumulantJet
        """
        ...

    def limits(self, m: Array) -> tuple[Array, Array]:
        """Ends of the interval of t, around 0, in which Γ is finite.

        Parameters
        ----------
        m : array

        Returns
        -------
        array
            Lower ends.
        array
            Upper ends.
        """
        ...

    def two(self) -> TwoCumulants:
        """Its diffusion limit.

        Returns
        -------
        TwoCumulants
        """
        ...


@dataclass(frozen=True)
class TwoCumulants:
    r"""First two cumulants: :math:`\kappa_1 = q(\sigma - m)` and the parabola :math:`\kappa_2 = c(m)`.

    .. math:: \Gamma = \kappa_1 t + \tfrac12\kappa_2t^2, \qquad \kappa_2 = k\,(m - m_*)^2 + c_* .

    Attributes
    ----------
    singular_value, input_variance : float
        σ and q.
    curvature, vertex, floor : float
        k, :math:`m_*` and :math:`c_*` of the variance.
    """

    singular_value: float
    input_variance: float
    curvature: float
    vertex: float
    floor: float

    def jet(self, t: Array, m: Array) -> CumulantJet:
        """Value and derivatives."""
        mean = self.input_variance * (self.singular_value - m)
        variance = self.curvature * (m - self.vertex) ** 2 + self.floor
        slope = 2 * self.curvature * (m - self.vertex)
        return CumulantJet(
            value=t * (mean + 0.5 * t * variance),
            t=mean + t * variance,
            m=t * (-self.input_variance + 0.5 * t * slope),
            tt=variance + 0 * t,
            tm=-self.input_variance + t * slope,
        )

    def limits(self, m: Array) -> tuple[Array, Array]:
        """No limits."""
        return np.full_like(m, -np.inf), np.full_like(m, np.inf)

    def two(self) -> Self:
        """Itself."""
        return self


@dataclass(frozen=True)
class GaussianCumulants:
    r"""Gaussian teacher: :math:`x\sim N(0,q)`, :math:`y = \sigma x + s\,n`, n standard normal.

    .. math:: \Gamma(t; m) = -\tfrac12\log\big(1 - 2tq(\sigma-m) - t^2qs^2\big)

    Parameters
    ----------
    singular_value : float
        σ > 0.
    input_variance : float
        q > 0.
    label_noise : float
        s ≥ 0.

    Examples
    --------
    >>> cumulants = GaussianCumulants(1.0, label_noise=0.5)
    >>> round(float(cumulants.jet(np.array(0.2), np.array(0.5)).value), 6)
    0.117861
    """

    singular_value: float
    input_variance: float = 1.0
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("singular_value", "input_variance"):
            object.__setattr__(self, name, checks.positive(name, getattr(self, name)))
        object.__setattr__(self, "label_noise", checks.non_negative("label_noise", self.label_noise))

    @classmethod
    def of(cls, mode: Mode, *, label_noise: float) -> Self:
        """Take σ and q from a mode or chain.

        Parameters
        ----------
        mode : Mode or DeepLinearChain
        label_noise : float
            s ≥ 0.
        """
        return cls(mode.singular_value, mode.input_variance, label_noise)

    def jet(self, t: Array, m: Array) -> CumulantJet:
        """Value and derivatives."""
        q, variance = self.input_variance, self.input_variance * self.label_noise**2
        pull = q * (self.singular_value - m)
        fall = t * (2 * pull + t * variance)
        # Within rounding of a limit Γ is large, not infinite
        rest, tilted = np.maximum(1 - fall, _SMALLEST), pull + t * variance
        mean = tilted / rest
        return CumulantJet(
            value=-0.5 * np.where(np.abs(fall) < 0.5, np.log1p(-np.minimum(fall, 0.5)), np.log(rest)),
            t=mean,
            m=-t * q / rest,
            tt=variance / rest + 2 * mean**2,
            tm=-q / rest - 2 * t * q * mean / rest,
        )

    def limits(self, m: Array) -> tuple[Array, Array]:
        """Roots of the logarithm's argument."""
        pull = self.input_variance * (self.singular_value - np.asarray(m))
        variance = self.input_variance * self.label_noise**2
        large = np.hypot(pull, np.sqrt(variance)) + np.abs(pull)
        with np.errstate(divide="ignore"):
            # The quadratic formula without its cancellation; infinite where there is no root
            near, far = np.divide(1.0, large), np.divide(large, variance)
        return -np.where(pull > 0, far, near), np.where(pull > 0, near, far)

    def two(self) -> TwoCumulants:
        r"""Diffusion limit, :math:`c(m) = 2q^2(\sigma-m)^2 + qs^2`."""
        q = self.input_variance
        return TwoCumulants(self.singular_value, q, 2 * q**2, self.singular_value, q * self.label_noise**2)


@dataclass(frozen=True, init=False, eq=False)
class EmpiricalCumulants:
    r"""A finite data set, drawn with replacement: :math:`\Gamma(t;m) = \log\frac1N\sum_i e^{t(x_iy_i - mx_i^2)}`.

    Parameters
    ----------
    x : array_like, shape (sample,)
    y : array_like, shape (sample,), optional
        None autoencodes `x`.

    Raises
    ------
    InvalidParameterError
        For shapes that differ, empty or non-finite data, or inputs that are all zero.

    Notes
    -----
    The largest exponent is taken out of the sum, so no t overflows.

    Examples
    --------
    >>> cumulants = EmpiricalCumulants([1.0, 2.0], [1.0, 1.0])
    >>> round(float(cumulants.jet(np.array(2000.0), np.array(0.5)).value), 6)
    999.306853
    """

    product: Array
    square: Array
    variance: EmpiricalResidualVariance

    def __init__(self, x: ArrayLike, y: ArrayLike | None = None) -> None:
        variance = EmpiricalResidualVariance(x, y)
        inputs = np.asarray(x, dtype=np.float64)
        targets = inputs if y is None else np.asarray(y, dtype=np.float64)
        if not inputs.any():
            raise checks.invalid("x", "all zeros", "an input that varies", "nothing can be learned from it")
        object.__setattr__(self, "product", inputs * targets)
        object.__setattr__(self, "square", inputs**2)
        object.__setattr__(self, "variance", variance)

    def jet(self, t: Array, m: Array) -> CumulantJet:
        """Value and derivatives, from the tilted averages."""
        t, m = np.broadcast_arrays(np.asarray(t, dtype=np.float64), np.asarray(m, dtype=np.float64))
        number, square = self.product - m[..., None] * self.square, self.square
        exponent = t[..., None] * number
        total = logsumexp(exponent, axis=-1)
        weights = np.exp(exponent - total[..., None])
        mean, mean_square = (weights * number).sum(axis=-1), weights @ square
        away = number - mean[..., None]
        return CumulantJet(
            value=np.asarray(total - np.log(len(square))),
            t=mean,
            m=-t * mean_square,
            tt=(weights * away**2).sum(axis=-1),
            tm=-mean_square - t * ((weights * away) @ square),
        )

    def limits(self, m: Array) -> tuple[Array, Array]:
        """No limits."""
        return np.full_like(m, -np.inf), np.full_like(m, np.inf)

    def two(self) -> TwoCumulants:
        """Diffusion limit; variances are normalised by 1/N."""
        q = float(self.square.mean())
        c = self.variance
        return TwoCumulants(float(self.product.mean()) / q, q, c.curvature, c.vertex, c.floor)


def check_same_mean(samples: SampleCumulants, singular_value: float, input_variance: float) -> None:
    """Raise unless the samples' σ and q are those of the landscape: actions start and end at its stationary points."""
    two = samples.two()
    pairs = (
        ("singular_value", two.singular_value, singular_value),
        ("input_variance", two.input_variance, input_variance),
    )
    for name, found, expected in pairs:
        if abs(found - expected) > 1e-9 * abs(expected):
            raise InvalidParameterError(
                f"The samples have {name} = {found:.10g}, the landscape {expected:.10g}: its stationary points would "
                "not be those of the samples' mean gradient.\n"
                "Use `Mode.from_data(x, y, depth=…, weight_decay=…)`, or `GaussianCumulants.of(mode, label_noise=…)`."
            )
