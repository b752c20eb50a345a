r"""The hysteresis loop of a slow sweep in weight decay: branches, areas, jumps, and how slow is slow.

Upwards a learned feature follows :math:`\lambda(m) = q\,m^{1-2/D}(\sigma - m)` to the fold at
:math:`m = p\,\sigma`, :math:`p = \frac{D-2}{2(D-1)}`, and falls to 0 there, at its spinodal. Downwards without noise it
stays at 0, a minimum at every :math:`\lambda > 0`. What the two branches enclose above :math:`\lambda_1` is

.. math:: A = \int_{\lambda_1}^{\lambda_s} m\,d\lambda
    = \big[m\lambda - G(m)\big]_{m(\lambda_1)}^{p\sigma},\qquad
    G(m) = q\Big[\frac{\sigma m^\alpha}{\alpha} - \frac{m^{\alpha+1}}{\alpha+1}\Big],\quad \alpha = 2-\tfrac2D,

by parts. Every term is proportional to :math:`q\,\sigma^{3-2/D}`, so a loop's area adds up over features: hysteresis
grows with the number of features and with the dimension of the data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.schema import describe
from kramers_grok.theory import mode_states
from kramers_grok.theory.phases import FeatureSpectrum

__all__ = ["bottleneck_time", "first_probabilities", "jump_size", "loop_area", "order_probability", "predicted_loop"]

Array = NDArray[np.float64]

_FOLD = "D >= 3: at D = 2 the transition is continuous, and nothing is left behind"


def jump_size(depth: ArrayLike, singular_value: ArrayLike) -> Array:
    r"""Order parameter that is lost at the spinodal, :math:`\sigma\frac{D-2}{2(D-1)}`; 0 at D = 2.

    Parameters
    ----------
    depth : array_like of int
        Number of weight layers D ≥ 2.
    singular_value : array_like
        σ > 0.

    Returns
    -------
    ndarray, broadcast shape

    Raises
    ------
    InvalidParameterError
        For D < 2, σ ≤ 0, NaN.

    Examples
    --------
    >>> jump_size([2, 3, 4], 1.2).round(12).tolist()
    [0.0, 0.3, 0.4]
    """
    d, sigma, _ = mode_states._checked(depth, singular_value, 1.0)
    return np.asarray(sigma * (d - 2) / (2 * (d - 1)))


def loop_area(
    depth: ArrayLike, singular_value: ArrayLike, weight_decay: ArrayLike = 0.0, input_variance: ArrayLike = 1.0
) -> Array:
    r"""Area between a feature's branch upwards and its branch downwards without noise, above `weight_decay`.

    .. math:: A(0) = q\,\sigma^{\alpha+1}\Big[\frac{1}{\alpha(\alpha+1)} + \frac{\alpha-1}{\alpha}p^\alpha
        - \frac{\alpha}{\alpha+1}p^{\alpha+1}\Big]

    Parameters
    ----------
    depth, singular_value : array_like
        As in `kramers_grok.theory.mode_states.spinodal`.
    weight_decay : array_like
        Lower end λ ≥ 0 of the sweep [loss / amplitude²].
    input_variance : array_like
        As in `spinodal`.

    Returns
    -------
    ndarray, broadcast shape
        [order parameter · loss / amplitude²]; 0 above the spinodal, and at D = 2, where both branches are one.

    Raises
    ------
    InvalidParameterError
        For D < 2, σ ≤ 0, λ < 0, q ≤ 0, NaN.

    Examples
    --------
    >>> print(f"{loop_area(3, 1.0):.10f} {loop_area(3, 1.0, 0.25):.10f} {loop_area(3, 1.0, 0.5):.1f}")
    0.3383025141 0.1217382251 0.0
    """
    d, sigma, q = mode_states._checked(depth, singular_value, input_variance)
    decay = checks.finite_array("weight_decay", weight_decay)
    if (decay < 0).any():
        raise checks.invalid("weight_decay", float(decay.min()), "numbers >= 0", "a sweep begins at some weight decay")
    d, sigma, decay, q = (np.array(v) for v in np.broadcast_arrays(d, sigma, decay, q))
    spinodal = mode_states.spinodal(d, sigma, q)
    inside = (decay < spinodal) & (d > 2)
    start = np.where(inside & (decay > 0), decay, 0.5 * spinodal)
    highest = np.where(decay > 0, mode_states.learned_amplitude(d, sigma, start, q) ** d, sigma)
    fold = jump_size(d, sigma)
    area = fold * spinodal - highest * decay - _primitive(d, sigma, q, fold) + _primitive(d, sigma, q, highest)
    return np.where(inside, area, 0.0)


def _primitive(d: Array, sigma: Array, q: Array, m: Array) -> Array:
    """∫ λ dm along the branch."""
    alpha = 2 - 2 / d
    return np.asarray(q * (sigma * m**alpha / alpha - m ** (alpha + 1) / (alpha + 1)))


def bottleneck_time(
    depth: ArrayLike, singular_value: ArrayLike, weight_decay: ArrayLike, input_variance: ArrayLike = 1.0
) -> Array:
    r"""Time that gradient descent spends beside the vanished minimum, for λ just above the spinodal [time].

    .. math:: t = \frac{\pi}{\lambda_s\sqrt{(D-1)(D-2)\,(\lambda/\lambda_s-1)}}

    from :math:`\dot x = -x_s\,[\lambda-\lambda_s + \tfrac12|g''|(a-a_s)^2]`, the parabola of the fold. A sweep whose
    steps in λ are small has to wait that long at the first value above; below, the same root is the relaxation time's.
    Leading order: right for :math:`\lambda/\lambda_s-1\to0`.

    Parameters
    ----------
    depth, singular_value : array_like
        As in `kramers_grok.theory.mode_states.spinodal`, D ≥ 3.
    weight_decay : array_like
        λ above the spinodal [loss / amplitude²].
    input_variance : array_like
        As in `spinodal`.

    Returns
    -------
    ndarray, broadcast shape
        [time]; gradient descent takes this over its learning rate in steps.

    Raises
    ------
    InvalidParameterError
        For D < 3, λ at or below the spinodal, or numbers out of range.

    Examples
    --------
    >>> from kramers_grok.theory.mode_states import spinodal
    >>> print(f"{bottleneck_time(3, 1.0, 1.003 * spinodal(3, 1.0)):.2f}")
    85.84
    """
    d, sigma, q = mode_states._checked(depth, singular_value, input_variance)
    if (d < 3).any():
        raise checks.invalid("depth", float(d.min()), _FOLD)
    decay = checks.finite_array("weight_decay", weight_decay)
    spinodal = mode_states.spinodal(d, sigma, q)
    excess = decay / spinodal - 1
    if not (excess > 0).all():
        raise checks.invalid(
            "weight_decay", float(decay.min()), f"numbers above the spinodal {float(spinodal.max()):.6g}",
            "below it the learned state is there, and descent stays",
        )  # fmt: skip
    return np.asarray(np.pi / (spinodal * np.sqrt((d - 1) * (d - 2) * excess)))


def predicted_loop(spectrum: FeatureSpectrum, depth: int, weight_decays: ArrayLike) -> xr.Dataset:
    r"""Predict a slow sweep of a deep linear network up and down in weight decay, without noise.

    Parameters
    ----------
    spectrum : FeatureSpectrum
    depth : int
        Number of weight layers D ≥ 2.
    weight_decays : array_like, shape (n,)
        Values of the sweep > 0, at least two; sorted upwards in the result [loss / amplitude²].

    Returns
    -------
    xarray.Dataset
        ``up`` and ``down`` (weight_decay, feature): order parameters of the sweep that begins with all features that
        can be learned; at D = 2 the two are the same. ``area`` (feature): of the loop above the lowest value, exact,
        not from the grid; ``jump`` (feature): size of the fall at the spinodal, 0 for features whose spinodal the
        sweep does not pass. ``stable`` (weight_decay): whether the set of features that ``up`` shows is a minimum of
        the matrix network. It always is for white inputs and for autoencoders; where it is not, the network leaves
        for a state that mixes features, and ``up`` does not hold. Attributes ``total_area`` and ``n_jumps``.

    Raises
    ------
    InvalidParameterError
        For D < 2, fewer than two values, or values that are not positive.

    Examples
    --------
    >>> loop = predicted_loop(FeatureSpectrum.from_teacher([2.0, 1.0]), 3, [0.1, 0.5, 1.0, 1.5])
    >>> loop.up.round(4).values.tolist()
    [[1.9195, 0.8963], [1.5698, 0.0], [1.0, 0.0], [0.0, 0.0]]
    >>> loop.n_jumps, f"{loop.total_area:.4f}"
    (2, '1.7524')
    """
    decay = np.sort(checks.finite_array("weight_decays", weight_decays, ndim=1))
    if decay.size < 2 or decay[0] <= 0:
        raise checks.invalid(
            "weight_decays", checks.Described(f"{decay.size} value(s), the lowest {decay[0]:g}"),
            "at least two numbers > 0", mode_states.DECAY_REASON, mode_states.DECAY_FIX,
        )  # fmt: skip
    sigma, q = np.asarray(spectrum.singular_values), np.asarray(spectrum.input_variances)
    spinodals = spectrum.spinodals(depth)
    up = np.nan_to_num(mode_states.learned_amplitude(depth, sigma, decay[:, None], q) ** depth)
    passed = (decay[0] < spinodals) & (spinodals <= decay[-1]) & (depth > 2)
    # Beyond the last value of the sweep the loop is not closed: the area is what it has seen.
    area = loop_area(depth, sigma, decay[0], q) - loop_area(depth, sigma, decay[-1], q)
    jump = np.where(passed, jump_size(depth, sigma), 0.0)
    stable = [_is_stable(spectrum, depth, float(value)) for value in decay]
    labels = {"units": "1", "long_name": "order parameter m of a sweep"}
    return xr.Dataset(
        {
            "up": (("weight_decay", "feature"), up, labels | {"long_name": "order parameter m, upwards"}),
            "down": (
                ("weight_decay", "feature"),
                up if depth == 2 else np.zeros_like(up),
                labels | {"long_name": "order parameter m, downwards without noise"},
            ),
            "area": ("feature", area, {"units": "loss/weight²", "long_name": "area of the hysteresis loop"}),
            "jump": ("feature", jump, {"units": "1", "long_name": "fall of m at the spinodal"}),
            "stable": ("weight_decay", stable, {"units": "1", "long_name": "this set of features is a minimum"}),
        },
        coords={
            "weight_decay": ("weight_decay", decay, describe("weight_decay")),
            "feature": ("feature", np.arange(spectrum.rank), describe("feature")),
            "spinodal": ("feature", spinodals, describe("spinodal")),
        },
        attrs={"depth": depth, "total_area": float(area.sum()), "n_jumps": int(passed.sum())},
    )


def _is_stable(spectrum: FeatureSpectrum, depth: int, weight_decay: float) -> bool:
    """Whether all features that can be learned form a metastable state."""
    stability = spectrum._stability(depth, weight_decay)
    return stability.is_stable(stability.learnable)


def first_probabilities(survival: ArrayLike) -> Array:
    r"""Probability of each of several independent features to be the first that returns.

    .. math:: P_k = -\int_0^\infty \prod_{j\neq k} S_j\,dS_k

    by the trapezoidal rule in :math:`S_k`, scaled to the probability that any returns by the last time. For constant
    rates it is :math:`k_k/\sum_j k_j`.

    Parameters
    ----------
    survival : array_like, shape (feature, time)
        Probability of each feature not to have returned, at common rising times from 0 on.

    Returns
    -------
    ndarray, shape (feature,)

    Raises
    ------
    InvalidParameterError
        If a survival does not begin at 1, rises or is negative.

    Examples
    --------
    >>> t = np.linspace(0.0, 40.0, 4001)
    >>> first_probabilities(np.exp(-np.outer([3.0, 1.0], t))).round(4).tolist()
    [0.75, 0.25]
    """
    s = _survivals(survival)
    middle = 0.5 * (s[:, 1:] + s[:, :-1])
    flows = np.array([(-np.diff(row) * np.delete(middle, k, axis=0).prod(axis=0)).sum() for k, row in enumerate(s)])
    return np.asarray(flows / flows.sum())


def order_probability(survival: ArrayLike, order: Sequence[int]) -> float:
    r"""Probability that independent features return in a given order.

    .. math:: P(T_1 < T_2 < \dots) = \int f_1(t_1)\int_{t_1} f_2(t_2)\int_{t_2}\dots

    Parameters
    ----------
    survival : array_like, shape (feature, time)
        As in `first_probabilities`; the last time late enough that all have returned.
    order : sequence of int
        Numbers of the features, the first to return first.

    Raises
    ------
    InvalidParameterError
        As in `first_probabilities`, or for an order that is no permutation.

    Examples
    --------
    >>> t = np.linspace(0.0, 40.0, 4001)
    >>> survival = np.exp(-np.outer([3.0, 2.0, 1.0], t))
    >>> round(order_probability(survival, (0, 1, 2)), 4)  # 3/6 · 2/3
    0.3333
    """
    s = _survivals(survival)
    if sorted(order) != list(range(len(s))):
        raise checks.invalid("order", tuple(order), f"a permutation of 0 … {len(s) - 1}", "each feature returns once")
    after = np.ones(s.shape[1])  # probability that the later ones come in their order, all after t
    for k in reversed(order):
        pieces = -np.diff(s[k]) * 0.5 * (after[1:] + after[:-1])
        after = np.append(pieces[::-1].cumsum()[::-1], 0.0)
    return float(after[0])


def _survivals(survival: ArrayLike) -> Array:
    s = checks.finite_array("survival", survival, ndim=2)
    if not (np.allclose(s[:, 0], 1.0, atol=1e-6) and (np.diff(s, axis=1) <= 1e-9).all() and (s >= -1e-9).all()):
        raise checks.invalid(
            "survival", checks.Described(f"rows that begin at {s[:, 0].tolist()}"),
            "rows that fall from 1 and are never negative", "they are probabilities, from time 0 on",
        )  # fmt: skip
    return s
