r"""Stationary states of one mode, vectorised: spinodal, binodal, amplitudes, barriers, curvatures.

Everything is a function of depth :math:`D` and of one number, the distance from the spinodal
:math:`\ell = \ln(\lambda_{\rm spinodal}/\lambda)`. With :math:`m = m_{\rm spinodal} e^{w}` the condition for
stationary points, :math:`\lambda = q a^{D-2}(\sigma - a^D)`, becomes

.. math:: c\,(e^{w}-1-w) + \left[-\ln(1-z) - z\right] = \ell, \qquad z = c\,(e^w-1),\quad c = (D-2)/D,

a sum of two terms that are never negative: saddle at w < 0, learned state at w > 0. In these variables
heights and curvatures are products, so no digits are lost anywhere between λ → 0 and the spinodal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks

__all__ = [
    "barrier_height",
    "binodal",
    "forgetting_barrier_height",
    "learned_amplitude",
    "learned_curvature",
    "saddle_amplitude",
    "saddle_curvature",
    "spinodal",
]

Array = NDArray[np.float64]

DEPTH_REASON = "depth counts weight layers, and one layer is linear regression: one minimum, nothing to trap"
DEPTH_FIX = "Use `depth=3` for the smallest network with a barrier (`depth=2` has a continuous onset)."

# Below this distance from the spinodal the rounding of powers would show; exact rationals take over.
_NEAR_SPINODAL = 1e-2
# Below this scale of √ℓ the two branches are told apart by their series (relative error: its fourth power).
_AT_SPINODAL = 1e-3
# Below this strength of weight decay the learned state is a quickly contracting fixed point.
_WEAK_DECAY = 1e-2
_SERIES = 0.3
_ITERATIONS = 100


def _positive_array(name: str, value: ArrayLike, why: str, fix: str) -> Array:
    array = checks.finite_array(name, value, why=why, fix=fix)
    if not (array > 0).all():
        raise checks.invalid(name, float(array.min()), "numbers > 0", why, fix)
    return array


def _depth_array(value: ArrayLike) -> Array:
    array = checks.finite_array("depth", value, why=DEPTH_REASON, fix=DEPTH_FIX)
    if not ((array >= 2) & (array == np.floor(array))).all():
        bad = array[~((array >= 2) & (array == np.floor(array)))]
        raise checks.invalid("depth", float(bad.flat[0]), "integers >= 2", DEPTH_REASON, DEPTH_FIX)
    return array


SIGMA_REASON = "a feature without input-output covariance has nothing to learn"
SIGMA_FIX = "Use the modulus: the sign of a singular value is a convention (flip the sign of the outputs)."
DECAY_REASON = "without weight decay a = 0 is no minimum, and no barrier exists"
DECAY_FIX = "Use for instance `weight_decay=0.5 * binodal(depth, singular_value)`."
VARIANCE_REASON = "it is the mean square of the mode's input"
VARIANCE_FIX = "Use `input_variance=1.0` for white inputs."


def _checked(depth: ArrayLike, singular_value: ArrayLike, input_variance: ArrayLike) -> tuple[Array, Array, Array]:
    return (
        _depth_array(depth),
        _positive_array("singular_value", singular_value, SIGMA_REASON, SIGMA_FIX),
        _positive_array("input_variance", input_variance, VARIANCE_REASON, VARIANCE_FIX),
    )


def _log_reduced_spinodal(depth: Array) -> Array:
    """Logarithm of the spinodal at σ = q = 1; 0 at D = 2, where 0⁰ = 1."""
    p = (depth - 2) / (2 * (depth - 1))
    return np.asarray((depth - 2) / depth * np.log(np.where(depth > 2, p, 1.0)) + np.log1p(-p))


def spinodal(depth: ArrayLike, singular_value: ArrayLike, input_variance: ArrayLike = 1.0) -> Array:
    r"""Weight decay at which the learned state disappears.

    .. math:: \lambda_{\rm s} = q\,\sigma^{2-2/D}\, p^{(D-2)/D} (1-p), \qquad p = \frac{D-2}{2(D-1)}

    reached at the order parameter :math:`m = p\,\sigma`. At D = 2 it is the continuous onset :math:`q\sigma`.

    Parameters
    ----------
    depth : array_like of int
        Number of weight layers D ≥ 2.
    singular_value : array_like
        σ > 0 [unit of the order parameter].
    input_variance : array_like
        q > 0.

    Returns
    -------
    ndarray, broadcast shape
        [loss / amplitude²]

    Raises
    ------
    InvalidParameterError
        For D < 2, σ ≤ 0, q ≤ 0, NaN.

    Examples
    --------
    >>> print(f"{spinodal(3, 1.0):.12f}")
    0.472470393711
    """
    d, sigma, q = _checked(depth, singular_value, input_variance)
    return np.asarray(q * sigma ** (2 - 2 / d) * np.exp(_log_reduced_spinodal(d)))


def binodal(depth: ArrayLike, singular_value: ArrayLike, input_variance: ArrayLike = 1.0) -> Array:
    r"""Weight decay at which the learned and the unlearned state are equally deep.

    .. math:: \lambda_{\rm b} = q\,\sigma^{2-2/D}\, \left(\tfrac{D-2}{D-1}\right)^{(D-2)/D} \frac{1}{D-1}

    at :math:`m = \sigma (D-2)/(D-1)`, twice the order parameter of the spinodal. Parameters, shapes and
    errors as in `spinodal`, with which it coincides at D = 2.

    Examples
    --------
    >>> print(f"{binodal(3, 1.0):.12f}")
    0.396850262992
    """
    d, sigma, q = _checked(depth, singular_value, input_variance)
    return np.asarray(q * sigma ** (2 - 2 / d) * ((d - 2) / (d - 1)) ** ((d - 2) / d) / (d - 1))


def _exponential_remainder(w: Array) -> Array:
    """``exp(w) − 1 − w`` without cancellation near 0."""
    small = np.where(np.abs(w) < _SERIES, w, 0.0)
    total = np.zeros_like(w)
    for n in range(18, 1, -1):
        total = (1.0 + total) * small / n
    return np.where(np.abs(w) < _SERIES, total * small, np.expm1(w) - w)


def _logarithm_remainder(z: Array) -> Array:
    """``−log(1 − z) − z`` without cancellation near 0."""
    small = np.where(np.abs(z) < _SERIES, z, 0.0)
    total = np.zeros_like(z)
    for n in range(34, 1, -1):
        total = total * small + 1.0 / n
    return np.where(np.abs(z) < _SERIES, total * small**2, -np.log1p(-np.minimum(z, 1 - 1e-16)) - z)


def _distance(w: Array, c: Array) -> tuple[Array, Array]:
    """Distance ℓ from the spinodal at which w is stationary, and its derivative with respect to w."""
    growth = np.expm1(w)
    z = c * growth
    slope = c * growth + c * np.exp(w) * z / np.maximum(1 - z, 1e-16)
    return c * _exponential_remainder(w) + _logarithm_remainder(z), slope


def _root(f: Callable[[Array], tuple[Array, Array]], low: Array, high: Array, start: Array) -> Array:
    """Root of an increasing function inside [low, high]: Newton, replaced by bisection where it leaves."""
    x = start
    for _ in range(_ITERATIONS):
        value, slope = f(x)
        low, high = np.where(value < 0, x, low), np.where(value < 0, high, x)
        step = np.divide(value, slope, out=np.full_like(x, np.inf), where=slope > 0)
        new = x - step
        # Newton's steps shrink quadratically: this one is the last, even if it lands on the bracket's border.
        done = np.abs(step) <= 1e-15 * np.abs(x)
        new = np.where(((new >= low) & (new <= high)) | done, new, 0.5 * (low + high))
        if (done | (new == x)).all():
            break
        x = new
    return np.where(done, x, new)


def _exact_distance(depth: float, sigma: float, decay: float, q: float) -> float:
    """Distance ℓ in exact rationals: (λ/λ_s)^D is a rational number of the four parameters."""
    d = int(depth)
    numerator = Fraction(decay) ** d * (2 * (d - 1)) ** (2 * d - 2)
    denominator = Fraction(q) ** d * Fraction(sigma) ** (2 * d - 2) * (d - 2) ** (d - 2) * d**d
    return -float(np.log1p(float(numerator / denominator - 1)) / d)


def _distances(d: Array, sigma: Array, decay: Array, q: Array) -> Array:
    log_decay = np.log(decay) - np.log(q) - (2 - 2 / d) * np.log(sigma)
    distance = np.array(_log_reduced_spinodal(d) - log_decay)
    # λ at a relative distance of 1e-10 keeps only six digits of it after a subtraction of logarithms.
    for i in np.argwhere(np.abs(distance) < _NEAR_SPINODAL):
        at = tuple(i)
        distance[at] = _exact_distance(float(d[at]), float(sigma[at]), float(decay[at]), float(q[at]))
    return distance


@dataclass(frozen=True)
class _States:
    """Saddle and learned state of broadcast parameters; NaN where they do not exist."""

    depth: Array
    singular_value: Array
    weight_decay: Array
    input_variance: Array
    distance: Array
    saddle: Array  # w < 0
    learned: Array  # w > 0

    def order_parameter(self, w: Array) -> Array:
        with np.errstate(invalid="ignore"):
            m = self.singular_value * (self.depth - 2) / (2 * (self.depth - 1)) * np.exp(w)
        return np.asarray(m)

    def residual(self, w: Array) -> Array:
        """1 − m/σ, from the stationarity condition rather than by subtraction."""
        d = self.depth
        log_decay = _log_reduced_spinodal(d) - self.distance
        log_m = np.log(np.where(d > 2, (d - 2) / (2 * (d - 1)), 1.0)) + w
        return np.asarray(np.exp(log_decay - (d - 2) / d * log_m))

    @property
    def scale(self) -> Array:
        """Energy that the heights are multiples of."""
        d = self.depth
        return np.asarray(self.input_variance * self.singular_value**2 * (d - 2) ** 2 / (8 * (d - 1)))


def _states(depth: ArrayLike, singular_value: ArrayLike, weight_decay: ArrayLike, input_variance: ArrayLike) -> _States:
    d, sigma, q = _checked(depth, singular_value, input_variance)
    decay = _positive_array("weight_decay", weight_decay, DECAY_REASON, DECAY_FIX)
    d, sigma, decay, q = (np.array(v) for v in np.broadcast_arrays(d, sigma, decay, q))
    distance = _distances(d, sigma, decay, q)
    saddle, learned = np.full_like(d, np.nan), np.full_like(d, np.nan)
    there = (distance > 0) & (d > 2)
    if there.any():
        saddle[there] = _saddle_root(d[there], distance[there])
        learned[there] = _learned_root(d[there], distance[there])
    return _States(d, sigma, decay, q, distance, saddle, learned)


def _saddle_root(d: Array, distance: Array) -> Array:
    c = (d - 2) / d

    def condition(t: Array) -> tuple[Array, Array]:
        value, slope = _distance(-t, c)
        return value - distance, -slope

    # Bounds on t = −w: the parabola of the fold lies above the convex function, its asymptote below it.
    low = np.sqrt(2 * distance / (c * (1 + c)))
    high = (distance + np.log1p(c)) / c
    low = np.minimum(low * (1 - 1e-12), high)
    return -_root(condition, low, high, low)


def _learned_root(d: Array, distance: Array) -> Array:
    c = (d - 2) / d
    p = (d - 2) / (2 * (d - 1))
    decay = np.exp(_log_reduced_spinodal(d) - distance)  # λ in units of q σ^(2−2/D)
    weak = decay < _WEAK_DECAY
    gap = np.where(weak, decay, 0.0)  # 1 − m/σ = λ (m/σ)^(−c)
    for _ in range(12):
        gap = np.where(weak, decay * np.exp(-c * np.log1p(-gap)), 0.0)

    def condition(w: Array) -> tuple[Array, Array]:
        value, slope = _distance(w, c)
        return value - target, slope

    target = np.where(weak, 1e-2, distance)  # weak ones are done: give them any solvable equation
    high = np.minimum(np.sqrt(2 * target / (c * (1 + c))), -np.log(p))
    high = np.where(weak, high, np.minimum(high, np.log1p(-np.minimum(decay, 0.999)) - np.log(p)))
    high = high * (1 + 1e-12)
    root = _root(condition, np.zeros_like(high), high, high)
    return np.where(weak, np.log1p(-gap) - np.log(p), root)


def saddle_amplitude(
    depth: ArrayLike, singular_value: ArrayLike, weight_decay: ArrayLike, input_variance: ArrayLike = 1.0
) -> Array:
    r"""Amplitude a of each layer at the barrier's top.

    The smaller root of :math:`\lambda = q a^{D-2}(\sigma-a^D)`.

    Bracketed Newton iteration, relative accuracy about 1e-14, NaN where no barrier exists
    (λ above the spinodal, or D = 2).

    Parameters
    ----------
    depth, singular_value : array_like
        As in `spinodal`.
    weight_decay : array_like
        λ > 0 [loss / amplitude²].
    input_variance : array_like
        As in `spinodal`.

    Returns
    -------
    ndarray, broadcast shape

    Raises
    ------
    InvalidParameterError
        For D < 2, σ ≤ 0, λ ≤ 0, q ≤ 0, NaN.

    Examples
    --------
    >>> a = saddle_amplitude(3, 1.0, [0.25, 0.5])
    >>> print(f"{a[0]:.6f} {a[0] * (1 - a[0] ** 3):.6f} {a[1]}")
    0.254174 0.250000 nan
    """
    states = _states(depth, singular_value, weight_decay, input_variance)
    return np.asarray(states.order_parameter(states.saddle) ** (1 / states.depth))


def learned_amplitude(
    depth: ArrayLike, singular_value: ArrayLike, weight_decay: ArrayLike, input_variance: ArrayLike = 1.0
) -> Array:
    r"""Amplitude a of each layer in the learned state.

    The larger root of :math:`\lambda = q a^{D-2}(\sigma-a^D)`; at D = 2, :math:`a = \sqrt{\sigma - \lambda/q}`.
    Parameters, NaN and errors as in `saddle_amplitude`.

    Examples
    --------
    >>> print(f"{learned_amplitude(3, 1.0, 0.25):.6f} {learned_amplitude(2, 1.0, 0.19):.6f}")
    0.896790 0.900000
    """
    states = _states(depth, singular_value, weight_decay, input_variance)
    amplitude = states.order_parameter(states.learned) ** (1 / states.depth)
    gap = states.input_variance * states.singular_value - states.weight_decay
    shallow = np.sqrt(np.where(gap > 0, gap, np.nan) / states.input_variance)
    return np.where(states.depth == 2, shallow, amplitude)


def barrier_height(
    depth: ArrayLike, singular_value: ArrayLike, weight_decay: ArrayLike, input_variance: ArrayLike = 1.0
) -> Array:
    r"""Height of the barrier out of the unlearned state, :math:`F(a_s) - F(0)` [loss].

    .. math:: \Delta F = \tfrac12 q\,\sigma^2\, \mu\,[(D-2) - (D-1)\mu], \qquad \mu = a_s^D/\sigma,

    a form without cancellation. For small λ it tends to
    :math:`\frac{D-2}{2}\lambda(\lambda/q\sigma)^{2/(D-2)}`. Parameters, NaN and errors as in `saddle_amplitude`.

    Examples
    --------
    >>> print(f"{barrier_height(3, 1.0, binodal(3, 1.0)):.13f}")
    0.0337211244341
    """
    states = _states(depth, singular_value, weight_decay, input_variance)
    ratio = np.exp(states.saddle)
    return np.asarray(states.scale * ratio * (2 - ratio))


def forgetting_barrier_height(
    depth: ArrayLike, singular_value: ArrayLike, weight_decay: ArrayLike, input_variance: ArrayLike = 1.0
) -> Array:
    r"""Height of the barrier out of the learned state, :math:`F(a_s) - F(a_l)` [loss].

    .. math:: \Delta F = \tfrac12 q\,\sigma^2 (\mu_l-\mu_s)\,[(D-1)(\mu_l+\mu_s) - (D-2)]

    with :math:`\mu = a^D/\sigma`. It vanishes with the power 3/2 of the distance from the spinodal, where
    the bracket is taken from its series. Parameters, NaN and errors as in `saddle_amplitude`.

    Examples
    --------
    >>> print(f"{forgetting_barrier_height(3, 1.0, binodal(3, 1.0)):.13f}")
    0.0337211244341
    """
    states = _states(depth, singular_value, weight_decay, input_variance)
    d = states.depth
    c = np.where(d > 2, (d - 2) / d, 1.0)
    up, down = np.expm1(states.learned), -np.expm1(states.saddle)
    s = np.sqrt(2 * np.where(states.distance > 0, states.distance, np.nan) / (c * (1 + c)))
    near = (d > 2) & (s < _AT_SPINODAL)
    series = 1 - (c**2 + 25 * c + 1) * s**2 / 90 + (c**2 - 11 * c + 1) * s**2 / 36
    height = np.where(near, 8 / (3 * d) * s**3 * series, (up - down) * (up + down))
    return np.asarray(states.scale * height)


def saddle_curvature(
    depth: ArrayLike, singular_value: ArrayLike, weight_decay: ArrayLike, input_variance: ArrayLike = 1.0
) -> Array:
    r"""Negative curvature of the saddle along the balanced path, per unit arc length [1/time].

    .. math:: \mu_- = D q a_s^{2D-2} - (D-2)\lambda

    Also the one negative eigenvalue of the chain's Hessian; the other D−1 are 2λ.
    Parameters, NaN and errors as in `saddle_amplitude`.

    Examples
    --------
    >>> print(f"{saddle_curvature(3, 1.0, 0.25):.6f}")
    -0.237479
    """
    states = _states(depth, singular_value, weight_decay, input_variance)
    slope = np.expm1(states.saddle) / states.residual(states.saddle)
    return np.asarray(states.weight_decay * (states.depth - 2) * slope)


def learned_curvature(
    depth: ArrayLike, singular_value: ArrayLike, weight_decay: ArrayLike, input_variance: ArrayLike = 1.0
) -> Array:
    r"""Curvature of the learned state along the balanced path [1/time].

    .. math:: \mu_l = D q a_l^{2D-2} - (D-2)\lambda

    Parameters, NaN and errors as in `saddle_amplitude`; at D = 2 it is :math:`2(q\sigma-\lambda)`.

    Examples
    --------
    >>> print(f"{learned_curvature(3, 1.0, 0.25):.6f}")
    1.690371
    """
    states = _states(depth, singular_value, weight_decay, input_variance)
    slope = np.expm1(states.learned) / states.residual(states.learned)
    gap = states.input_variance * states.singular_value - states.weight_decay
    shallow = 2 * np.where(gap > 0, gap, np.nan)
    return np.where(states.depth == 2, shallow, states.weight_decay * (states.depth - 2) * slope)
