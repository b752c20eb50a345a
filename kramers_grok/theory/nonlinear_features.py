r"""Where a nonlinear network loses its features: the linear spinodals, and what an activation function does to them.

Near 0 an activation is its slope :math:`s = \sigma'(0)`, and a network of D layers is a deep linear one whose map is
multiplied by :math:`s^{D-1}`. Amplitudes scaled by :math:`s^{-(D-1)/D}` undo that, at the price of weight decay: every
spinodal is multiplied by :math:`s^{2(D-1)/D}` (`slope_factor`).

At a spinodal weights are not small. *Saturation.* A unit of a wide layer sees all features at once; its
pre-activation z is close to Gaussian, and what a linear map can see of σ is its gain
:math:`g(v) = \mathrm E\,\sigma'(\sqrt v\,Z)` (Bussgang 1952). With feature k of size :math:`a_{lk}` in layer l and
spread evenly over the units,

.. math:: F = \tfrac12\sum_k q_k\big(\sigma_k - G\,\textstyle\prod_l a_{lk}\big)^2 + \tfrac\lambda2\sum_{lk} a_{lk}^2,
    \qquad G = \prod_{l<D} g(v_l),\quad v_l = \frac1{h_l}\sum_k q_k\prod_{j\le l}a_{jk}^2\prod_{j<l}g(v_j)^2 .

All features that are still learned saturate the units together, so the weakest is lost much earlier (`gain_spinodals`).
To first order in 1/h, with :math:`g = s + \tfrac12\sigma'''(0)\,v` and s = 1, the fold of feature k moves by

.. math:: \frac{\delta\lambda_k}{\lambda_k} = \frac{\sigma'''(0)}2\;
    \frac{S_k'V + S\,V_k'}{D\,\lambda_k a_k},\quad S = \lambda_k\sum_j a_j^2,\; V = \sum_l v_l,\;
    S_k' = \frac{D}{D-1}\,q\,\sigma_k a_k^{D-1}

(`saturation_shift`): first-order perturbation theory along the fold's null direction, primes being derivatives by
:math:`a_k`.

*One-sided units.* The gain of GELU is ½ at every v, as for every :math:`\sigma(z) = z/2` plus an even function. But
where a feature has a unit for itself that unit bends, and follows the inputs of one side only. A feature then comes in
two halves, each a chain of D weights with its own fold (`chain_spinodal`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from kramers_grok.core import checks
from kramers_grok.theory import mode_states

__all__ = ["chain_spinodal", "gain", "gain_spinodals", "saturation_shift", "slope_factor"]

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_LOST = 0.4  # of the map at the last value: a feature that fell further is gone
_FIRST_STEP = 1.15


def slope_factor(depth: int, slope: float) -> float:
    r"""Factor :math:`s^{2(D-1)/D}` on every spinodal and binodal of a deep linear network.

    Parameters
    ----------
    depth : int
        Number of weight layers D ≥ 2.
    slope : float
        :math:`s = \sigma'(0) > 0`.

    Examples
    --------
    >>> round(slope_factor(3, 0.5), 6)  # GELU
    0.39685
    """
    layers = checks.positive_int("depth", depth, minimum=2)
    return float(checks.positive("slope", slope) ** (2 * (layers - 1) / layers))


def gain(derivative: Function, variance: float) -> float:
    r"""Gain :math:`\mathrm E\,\sigma'(\sqrt v\,Z)` of a unit whose pre-activation is Gaussian.

    Parameters
    ----------
    derivative : callable
        σ′ on arrays.
    variance : float
        v ≥ 0.

    Examples
    --------
    >>> print(f"{gain(lambda z: 1 - np.tanh(z) ** 2, 0.01):.4f}")
    0.9902
    """
    return float(_WEIGHTS @ derivative(np.sqrt(variance) * _NODES))


def saturation_shift(
    singular_values: ArrayLike, hidden: Sequence[int], *, third_derivative: float = -2.0, input_variance: float = 1.0
) -> Array:
    r"""Relative shift of every feature's spinodal, to first order in 1/width, for white inputs and slope 1.

    Parameters
    ----------
    singular_values : array_like
        σ_k > 0, strongest feature first: the last is lost first.
    hidden : sequence of int
        Hidden widths (h_1, …, h_{D−1}), D ≥ 3.
    third_derivative : float
        :math:`\sigma'''(0)`; that of tanh is −2.
    input_variance : float
        q > 0.

    Returns
    -------
    ndarray
        :math:`\delta\lambda_k/\lambda_k`: its value at width h is exact up to terms of order 1/h².

    Raises
    ------
    InvalidParameterError
        For fewer than two hidden layers, or parameters out of range.

    Examples
    --------
    >>> saturation_shift([1.6, 1.3], (64, 64)).round(4).tolist()
    [-0.0205, -0.0547]
    """
    sigma, widths, depth = _checked(singular_values, hidden)
    q = checks.positive("input_variance", input_variance)
    levels = np.arange(1, depth)
    shifts = []
    for k, value in enumerate(sigma):
        decay = float(mode_states.spinodal(depth, value, q))
        own = float(value * (depth - 2) / (2 * (depth - 1))) ** (1 / depth)
        a = np.append(mode_states.learned_amplitude(depth, sigma[:k], decay, q), own) if k else np.array([own])
        loss, variance = (
            decay * (a**2).sum(),
            sum(q / h * (a ** (2 * n)).sum() for n, h in zip(levels, widths, strict=True)),
        )
        loss_slope = depth / (depth - 1) * q * value * own ** (depth - 1)
        variance_slope = sum(q / h * 2 * n * own ** (2 * n - 1) for n, h in zip(levels, widths, strict=True))
        total = loss_slope * variance + loss * variance_slope
        shifts.append(0.5 * third_derivative * total / (depth * decay * own))
    return np.array(shifts)


def gain_spinodals(
    derivative: Function, singular_values: ArrayLike, hidden: Sequence[int], *, input_variances: ArrayLike = 1.0
) -> Array:
    """Spinodals of all features with the units' gain made self-consistent, each while the stronger ones are learned.

    Gaussian pre-activations, features spread evenly over the units: see the module's docstring. What is left out is of
    second order in 1/width.

    Parameters
    ----------
    derivative : callable
        σ′ on arrays.
    singular_values : array_like
        σ_k > 0, strongest feature first: the last is lost first.
    hidden : sequence of int
        As in `saturation_shift`.
    input_variances : array_like
        q_k > 0 of every feature, or one for all.

    Returns
    -------
    ndarray
        λ_k [loss/weight²], to 0.02 %.

    Examples
    --------
    >>> wide = gain_spinodals(lambda z: 1 - np.tanh(z) ** 2, [1.6, 1.3], (64, 64))
    >>> (wide / mode_states.spinodal(3, [1.6, 1.3])).round(2).tolist()
    [0.98, 0.95]
    """
    sigma, widths, depth = _checked(singular_values, hidden)
    q = np.broadcast_to(checks.finite_array("input_variances", input_variances), sigma.shape)

    def maps(a: Array) -> Array:
        """What the network makes of every feature; `a` has shape (layer, feature)."""
        product = 1.0
        for level, width in enumerate(widths, start=1):
            seen = (q[: a.shape[1]] * a[:level].prod(axis=0) ** 2).sum() * product**2 / width
            product *= gain(derivative, float(seen))
        return np.asarray(product * a.prod(axis=0))

    slope = float(derivative(np.zeros(1))[0])
    found = []
    for count in range(1, sigma.size + 1):
        strength, weight = sigma[:count], q[:count]

        def energy(a: Array, decay: float, strength: Array = strength, weight: Array = weight) -> float:
            residual = strength - maps(a.reshape(depth, -1))
            return float(0.5 * (weight * residual**2).sum() + 0.5 * decay * (a**2).sum())

        def weakest(a: Array) -> float:
            return float(maps(a.reshape(depth, -1))[-1])

        linear = slope_factor(depth, slope) * float(mode_states.spinodal(depth, strength[-1], weight[-1]))
        start = np.tile(1.1 * (strength / slope ** (depth - 1)) ** (1 / depth), depth)
        found.append(_fold(energy, weakest, start, 0.3 * linear))
    return np.array(found)


def chain_spinodal(
    value: Function,
    derivative: Function,
    inputs: ArrayLike,
    targets: ArrayLike,
    *,
    units: Sequence[int] = (1, 1),
    weights: ArrayLike | None = None,
) -> float:
    r"""Spinodal of one feature on its own, with the whole activation function and the data's own distribution.

    The network is a chain of D weights,
    :math:`f(s) = a_D\sqrt{n_{D-1}}\;\sigma\big(\dots\sigma(a_1 s/\sqrt{n_1})\big)`: n_l units of each hidden layer are
    alike up to sign. For tanh, which spreads a feature over all units, n_l is the layer's width; for one half of a
    feature in a network of GELU it is 1, with ``-inputs`` and ``-targets`` for the other half.

    Parameters
    ----------
    value, derivative : callable
        σ and σ′ on arrays.
    inputs, targets : array_like, shape (sample,)
        The data in the feature's own direction, v·x and u·y.
    units : sequence of int
        (n_1, …, n_{D−1}), D ≥ 3.
    weights : array_like, shape (sample,), optional
        Of the samples, as those of a quadrature; equal if left out.

    Returns
    -------
    float
        λ [loss/weight²], to 0.02 %.

    Examples
    --------
    >>> s = np.linspace(-1.0, 1.0, 21)
    >>> linear = chain_spinodal(lambda z: z, np.ones_like, s, 2 * s)
    >>> print(f"{linear / mode_states.spinodal(3, 2.0, (s**2).mean()):.3f}")
    1.000
    """
    s = checks.finite_array("inputs", inputs, ndim=1)
    y = checks.finite_array("targets", targets, ndim=1)
    w = np.full(s.size, 1 / s.size) if weights is None else checks.finite_array("weights", weights, ndim=1)
    widths = [checks.positive_int("units", n) for n in units]
    depth = len(widths) + 1
    ratios = [a / b for a, b in zip((1, *widths), (*widths, 1), strict=True)]

    def passed(a: Array) -> tuple[Array, list[Array], list[Array]]:
        seen, before = [s], []
        for weight, ratio in zip(a[:-1], ratios, strict=False):
            before.append(weight * ratio**0.5 * seen[-1])
            seen.append(value(before[-1]))
        return a[-1] * ratios[-1] ** 0.5 * seen[-1], before, seen

    def energy(a: Array, decay: float) -> tuple[float, Array]:
        output, before, seen = passed(a)
        residual = output - y
        delta, slopes = w * residual, np.empty(depth)
        for index in range(depth - 1, -1, -1):
            slopes[index] = ratios[index] ** 0.5 * float(delta @ seen[index])
            if index:
                delta = delta * a[index] * ratios[index] ** 0.5 * derivative(before[index - 1])
        return float(0.5 * w @ residual**2 + 0.5 * decay * a @ a), slopes + decay * a

    variance, covariance = float(w @ s**2), float(w @ (s * y))
    sigma = covariance / variance
    slope = float(derivative(np.zeros(1))[0])
    linear = slope_factor(depth, slope) * float(mode_states.spinodal(depth, sigma, variance))
    start = np.full(depth, 1.2 * (sigma / slope ** (depth - 1)) ** (1 / depth))
    return _fold(energy, lambda a: float(w @ (passed(a)[0] * s)) / variance, start, 0.3 * linear, jac=True)


def _fold(
    energy: Callable[[Array, float], object],
    size: Callable[[Array], float],
    start: Array,
    decay: float,
    *,
    jac: bool = False,
) -> float:
    """Largest λ at which the minimum that continues `start` is still there, by steps that shrink at the fold."""
    search: Any = minimize
    step, last, known = _FIRST_STEP, start, 0.0
    size_there = np.nan
    while step - 1 > 2e-4:
        found = search(energy, last, args=(decay,), jac=jac or None, method="BFGS", options={"gtol": 1e-7}).x
        now = size(found)
        if known and now < _LOST * size_there:
            decay, step = known, 1 + (step - 1) / 2
        else:
            known, last, size_there = decay, found, now
        decay *= step
    return known


def _checked(singular_values: ArrayLike, hidden: Sequence[int]) -> tuple[Array, list[int], int]:
    sigma = checks.finite_array("singular_values", singular_values, ndim=1)
    widths = [checks.positive_int("hidden", h) for h in hidden]
    if len(widths) < 2:
        raise checks.invalid(
            "hidden", tuple(widths), "at least two hidden layers", "at D = 2 features are lost continuously",
            "Use `hidden=(h, h)` for three layers of weights.",
        )  # fmt: skip
    if (sigma <= 0).any():
        raise checks.invalid(
            "singular_values", sigma.tolist(), "numbers > 0", "singular values of features are positive"
        )
    return sigma, widths, len(widths) + 1
