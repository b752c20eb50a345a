r"""Gradient noise of the scalar chain: what a minibatch adds, and which temperature it makes.

The per-sample gradient of weight l is :math:`-(xy - m x^2)\,v_l` with :math:`v_l = \prod_{k\ne l} a_k`, so its
covariance has rank one,

.. math:: C(a) = c(m)\, v v^T, \qquad c(m) = \operatorname{Var}(xy - m x^2).

SGD with learning rate η and batch size B diffuses with :math:`\eta C/(2B)` per unit time t = η · step.
It is *gated*: v vanishes at the unlearned state, where minibatches alone make no noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import effective_temperature, noise_variance_for
from kramers_grok.theory.deep_linear import DeepLinearChain

__all__ = [
    "EmpiricalResidualVariance",
    "GaussianResidualVariance",
    "ResidualVariance",
    "effective_temperature",
    "finite_population_factor",
    "gradient_covariance",
    "gradient_direction",
    "minibatch_share",
    "noise_variance_for",
]

Array = NDArray[np.float64]


class ResidualVariance(Protocol):
    """Variance c(m) of the per-sample factor xy − m x², as a function of the order parameter."""

    def __call__(self, m: ArrayLike) -> Array:
        """Return c(m), the shape of `m`."""
        ...


@dataclass(frozen=True)
class GaussianResidualVariance:
    r"""Variance for Gaussian inputs of variance q and targets y = σx + s n with Gaussian noise n.

    .. math:: c(m) = 2q^2(\sigma-m)^2 + q s^2

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
    >>> GaussianResidualVariance(1.0, input_variance=1.0, label_noise=0.5)([0.0, 1.0]).tolist()
    [2.25, 0.25]
    """

    singular_value: float
    input_variance: float = 1.0
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("singular_value", "input_variance"):
            object.__setattr__(self, name, checks.positive(name, getattr(self, name)))
        object.__setattr__(self, "label_noise", checks.non_negative("label_noise", self.label_noise))

    def __call__(self, m: ArrayLike) -> Array:
        """Return c(m)."""
        gap = self.singular_value - np.asarray(m, dtype=np.float64)
        return np.asarray(2 * (self.input_variance * gap) ** 2 + self.input_variance * self.label_noise**2)


@dataclass(frozen=True, init=False)
class EmpiricalResidualVariance:
    r"""Variance over the samples of a finite data set, normalised by 1/N: a parabola in m.

    .. math:: c(m) = \overline{w^2}\,(m - m_*)^2 + c_*, \qquad w = x^2 - \overline{x^2}

    Parameters
    ----------
    x : array_like, shape (sample,)
    y : array_like, shape (sample,), optional
        None autoencodes `x`.

    Attributes
    ----------
    curvature, vertex, floor : float
        :math:`\overline{w^2}`, :math:`m_*` and :math:`c_*`. In this form c(m) cannot turn negative by rounding.

    Raises
    ------
    InvalidParameterError
        For shapes that differ, empty or non-finite data.

    Examples
    --------
    >>> c = EmpiricalResidualVariance([1.0, 2.0, 3.0])
    >>> c([1.0, 0.0]).round(4).tolist()
    [0.0, 10.8889]
    """

    curvature: float = field()
    vertex: float = field()
    floor: float = field()

    def __init__(self, x: ArrayLike, y: ArrayLike | None = None) -> None:
        inputs = checks.finite_array("x", x, ndim=1)
        targets = inputs if y is None else checks.finite_array("y", y, ndim=1)
        if targets.shape != inputs.shape:
            raise InvalidParameterError(
                f"`y` has shape {targets.shape}, expected {inputs.shape}: one target for each input.\n"
                "Use `y[: len(x)]`, or `y=None` to autoencode `x`."
            )
        product, square = inputs * targets, inputs**2
        u, w = product - product.mean(), square - square.mean()
        curvature = float(np.mean(w**2))
        vertex = float(np.mean(u * w)) / curvature if curvature > 0 else 0.0
        object.__setattr__(self, "curvature", curvature)
        object.__setattr__(self, "vertex", vertex)
        object.__setattr__(self, "floor", float(np.mean((u - vertex * w) ** 2)))

    def __call__(self, m: ArrayLike) -> Array:
        """Return c(m)."""
        return np.asarray(self.curvature * (np.asarray(m, dtype=np.float64) - self.vertex) ** 2 + self.floor)


def gradient_direction(weights: ArrayLike) -> Array:
    r"""Direction :math:`v_l = \prod_{k\ne l} a_k` of all per-sample gradients.

    Parameters
    ----------
    weights : array_like, shape (..., layer)

    Returns
    -------
    ndarray, shape (..., layer)

    Examples
    --------
    >>> gradient_direction([2.0, 3.0, 0.0]).tolist()
    [0.0, 0.0, 6.0]
    """
    a = checks.finite_array("weights", weights)
    one = np.ones((*a.shape[:-1], 1))
    # Products from either side: dividing the full product by a_l fails at a_l = 0.
    below = np.cumprod(np.concatenate([one, a[..., :-1]], axis=-1), axis=-1)
    above = np.cumprod(np.concatenate([one, a[..., :0:-1]], axis=-1), axis=-1)[..., ::-1]
    return np.asarray(below * above)


def gradient_covariance(weights: ArrayLike, residual_variance: ResidualVariance) -> Array:
    r"""Per-sample gradient covariance :math:`C = c(m)\,v v^T` of the chain's loss.

    Parameters
    ----------
    weights : array_like, shape (..., layer)
    residual_variance : callable
        c(m), see `GaussianResidualVariance` and `EmpiricalResidualVariance`.

    Returns
    -------
    ndarray, shape (..., layer, layer)
    """
    a = checks.finite_array("weights", weights)
    v = gradient_direction(a)
    return np.asarray(residual_variance(a.prod(axis=-1))[..., None, None] * v[..., :, None] * v[..., None, :])


def finite_population_factor(n_samples: int, batch_size: int) -> float:
    r"""Factor :math:`(N-B)/(N-1)` of the gradient variance for batches drawn without replacement.

    Batches must be drawn independently of each other; shuffled epochs are anticorrelated and much quieter.

    Raises
    ------
    InvalidParameterError
        If B is larger than N.

    Examples
    --------
    >>> finite_population_factor(5, 1), finite_population_factor(5, 5)
    (1.0, 0.0)
    """
    n = checks.positive_int("n_samples", n_samples)
    b = checks.positive_int("batch_size", batch_size)
    if b > n:
        raise checks.invalid(
            "batch_size",
            b,
            f"at most n_samples = {n}",
            "without replacement a batch cannot hold a sample twice",
            "Use a smaller batch, or draw with replacement (factor 1).",
        )
    return 0.0 if n == 1 else (n - b) / (n - 1)


def minibatch_share(
    chain: DeepLinearChain,
    point: ArrayLike,
    noise_variance: float,
    *,
    residual_variance: ResidualVariance,
    direction: ArrayLike | None = None,
    population_factor: float = 1.0,
) -> float:
    r"""Minibatch gradient variance over injected per-sample noise variance, along one direction.

    .. math:: c(m)\,(v\cdot e)^2\, f / g^2

    Parameters
    ----------
    chain : DeepLinearChain
    point : array_like, shape (layer,)
        For instance ``barrier.saddle``.
    noise_variance : float
        g² > 0, the variance of the isotropic noise added to each sample's gradient.
    residual_variance : callable
        c(m).
    direction : array_like, shape (layer,), optional
        Any length but 0. By default along v, where the share is largest; at a balanced saddle that is the
        unstable direction.
    population_factor : float
        f, see `finite_population_factor`.

    Raises
    ------
    InvalidParameterError
        For a point or direction of another shape, a zero direction, g² ≤ 0, or f < 0.

    Examples
    --------
    >>> chain = DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> share = minibatch_share(
    ...     chain, chain.barrier().saddle, 1.0, residual_variance=GaussianResidualVariance(1.0)
    ... )
    >>> print(f"{share:.6f}")
    0.024227
    """
    a = checks.finite_array("point", point, ndim=1)
    v = gradient_direction(a)
    e = v if direction is None else checks.finite_array("direction", direction, ndim=1)
    for name, array in (("point", a), ("direction", e)):
        if array.shape != (chain.depth,):
            raise checks.invalid(name, checks.Described(f"array of shape {array.shape}"), f"shape ({chain.depth},)")
    injected = checks.positive("noise_variance", noise_variance)
    factor = checks.non_negative("population_factor", population_factor)
    length = float(np.linalg.norm(e))
    if length == 0:
        if direction is None:  # the noise vanishes here, in every direction
            return 0.0
        raise checks.invalid("direction", "zero vector", "a vector of length > 0")
    along = float(v @ e) / length
    return float(residual_variance(a.prod())) * along**2 * factor / injected
