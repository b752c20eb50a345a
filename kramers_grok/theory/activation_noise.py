r"""Noisy hidden activations: the loss that they add, and the covariance of the gradients that they make.

A sample passes the network as :math:`h_l = W_l h_{l-1} + n_l`, :math:`n_l \sim N(0, s_h^2)`, l = 1 … D − 1, and
:math:`e = W_D h_{D-1} - y`. With :math:`A_l = W_D\cdots W_{l+1}` the residual is
:math:`e = Wx - y + \sum_l A_l n_l`, so the mean loss, whose gradient is the mean gradient, is

.. math:: L + \tfrac12 s_h^2 \sum_{l=1}^{D-1} \|W_D\cdots W_{l+1}\|_F^2 .

Layer l has the gradient :math:`A_l^T e\,h_{l-1}^T`. All of it is linear in the independent numbers
z = (inputs, label noise, activation noise), so its component along a direction G is a quadratic form,

.. math:: z^T Q z, \qquad Q = E^T \sum_l A_l G_l H_{l-1}, \qquad e = Ez, \quad h_l = H_l z,

whose mean and covariance for standard normal z are tr Q and :math:`2\operatorname{tr}(Q_s Q'_s)` of the symmetric
parts. Where all weights are 0 only the top layer's gradient :math:`-y\,n_{D-1}^T` is left: it is not gated, and has the
covariance :math:`s_h^2\,E[yy^T]` for every hidden unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.theory.deep_linear import DeepLinearChain

__all__ = [
    "activation_penalty",
    "activation_penalty_gradient",
    "chain_gradient_covariance",
    "data_gradient_variance",
    "gaussian_gradient_covariance",
]

Array: TypeAlias = NDArray[np.float64]
Layers: TypeAlias = Sequence[Array]


def activation_penalty(layers: Sequence[ArrayLike], variance: float) -> float:
    r"""Loss :math:`\tfrac12 s_h^2\sum_l \|W_D\cdots W_{l+1}\|_F^2` that activation noise adds on average [loss].

    Parameters
    ----------
    layers : sequence of array_like, shapes (h_l, h_{l−1})
        W_1 … W_D.
    variance : float
        s_h² ≥ 0.

    Raises
    ------
    InvalidParameterError
        If the layers do not fit on each other or the variance is negative.

    Examples
    --------
    >>> activation_penalty([[[1.0]], [[2.0]], [[3.0]]], 0.5)  # ½ · ½ · (3² + 6²)
    11.25
    """
    weights, noise = _layers(layers), checks.non_negative("variance", variance)
    return 0.5 * noise * sum(float((above**2).sum()) for above in _above(weights)[:-1])


def activation_penalty_gradient(layers: Sequence[ArrayLike], variance: float) -> list[Array]:
    r"""Gradient of `activation_penalty`, layer by layer: :math:`A_l^T A_l W_l S_l`.

    :math:`S_l` is the covariance of the noise that arrives in :math:`h_{l-1}`:
    :math:`S_1 = 0, S_{l+1} = W_l S_l W_l^T + s_h^2`.

    Examples
    --------
    >>> [g.item() for g in activation_penalty_gradient([[[1.0]], [[2.0]], [[3.0]]], 0.5)]
    [0.0, 9.0, 7.5]
    """
    weights, noise = _layers(layers), checks.non_negative("variance", variance)
    arriving = np.zeros((weights[0].shape[1],) * 2)
    gradient = []
    for weight, above in zip(weights, _above(weights), strict=True):
        gradient.append(above.T @ above @ weight @ arriving)
        arriving = weight @ arriving @ weight.T + noise * np.eye(len(weight))
    return gradient


def gaussian_gradient_covariance(
    layers: Sequence[ArrayLike],
    directions: Sequence[ArrayLike],
    *,
    teacher_matrix: ArrayLike,
    input_covariance: ArrayLike,
    label_noise: float = 0.0,
    variance: float = 0.0,
) -> Array:
    r"""Covariance of the per-sample gradients' components along directions, for Gaussian teacher data; exact.

    Parameters
    ----------
    layers : sequence of array_like, shapes (h_l, h_{l−1})
        W_1 … W_D.
    directions : sequence of array_like, shapes (direction, h_l, h_{l−1})
        G_1 … G_D of each direction, not normalised here.
    teacher_matrix : array_like, shape (output, input)
    input_covariance : array_like, shape (input, input)
    label_noise : float
        s ≥ 0.
    variance : float
        s_h² ≥ 0 of the activations.

    Returns
    -------
    ndarray, shape (direction, direction)    [loss²/weight²]
        Of one sample; a batch of B independent ones has 1/B of it.

    Raises
    ------
    InvalidParameterError
        If shapes do not fit or a variance is negative.

    Examples
    --------
    Nothing learned: only the top layer has noise, of variance s_h² E y² = 0.5 · (1.2² + 0.6²).

    >>> zero, one = [[0.0]], [[[1.0]], [[0.0]]]
    >>> gaussian_gradient_covariance([zero, zero], [one[::-1], one], teacher_matrix=[[1.2]], input_covariance=[[1.0]],
    ...     label_noise=0.6, variance=0.5).round(12).tolist()
    [[0.9, 0.0], [0.0, 0.0]]
    """
    weights = _layers(layers)
    along = _directions(weights, directions)
    matrix = checks.finite_array("teacher_matrix", teacher_matrix, ndim=2)
    covariance = checks.finite_array("input_covariance", input_covariance, ndim=2)
    inputs, outputs = weights[0].shape[1], weights[-1].shape[0]
    for name, array, shape in (
        ("teacher_matrix", matrix, (outputs, inputs)), ("input_covariance", covariance, (inputs, inputs)),
    ):  # fmt: skip
        if array.shape != shape:
            raise checks.invalid(name, checks.Described(f"array of shape {array.shape}"), f"shape {shape}")
    label, noise = checks.non_negative("label_noise", label_noise), checks.non_negative("variance", variance)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(values.clip(min=0.0))
    targets = np.hstack([matrix @ root, label * np.eye(outputs)])
    forms = _forms(weights, along, np.hstack([root, np.zeros((inputs, outputs))]), targets, noise)
    forms = 0.5 * (forms + forms.swapaxes(1, 2))
    return np.asarray(2 * np.einsum("aij,bij->ab", forms, forms))


def data_gradient_variance(
    layers: Sequence[ArrayLike], directions: Sequence[ArrayLike], x: ArrayLike, y: ArrayLike, *, variance: float
) -> tuple[Array, Array]:
    r"""Variance of the per-sample gradients of a data set, between its samples and within one by activation noise.

    Parameters
    ----------
    layers, directions
        As in `gaussian_gradient_covariance`.
    x, y : array_like, shapes (sample, input) and (sample, output)
    variance : float
        s_h² ≥ 0 of the activations.

    Returns
    -------
    between : ndarray, shape (direction,)    [loss²/weight²]
        The variance over the samples of a sample's mean gradient, normalised by 1/N; the sampler's factor is this one's
        alone.
    within : ndarray, shape (direction,)    [loss²/weight²]
        The mean over the samples of the variance that the noise gives it.

    Raises
    ------
    InvalidParameterError
        If shapes do not fit or the variance is negative.
    """
    weights = _layers(layers)
    along = _directions(weights, directions)
    noise = checks.non_negative("variance", variance)
    inputs = checks.finite_array("x", x, ndim=2)
    outputs = checks.finite_array("y", y, ndim=2)
    columns = (weights[0].shape[1], weights[-1].shape[0])
    if (inputs.shape[1], outputs.shape[1]) != columns or len(inputs) != len(outputs):
        raise checks.invalid(
            "x, y", checks.Described(f"arrays of shapes {inputs.shape} and {outputs.shape}"),
            f"shapes (sample, {columns[0]}) and (sample, {columns[1]})",
        )  # fmt: skip
    d, o = columns
    # z = (x, y, noise): a sample's first d + o entries are fixed, so its form is a constant, a linear part, a quadratic
    forms = _forms(weights, along, np.eye(d, d + o), np.eye(o, d + o, k=d), noise)
    forms = 0.5 * (forms + forms.swapaxes(1, 2))
    fixed = np.hstack([inputs, outputs])
    own, mixed, quadratic = forms[:, : d + o, : d + o], forms[:, : d + o, d + o :], forms[:, d + o :, d + o :]
    means = np.einsum("ni,aij,nj->an", fixed, own, fixed, optimize=True)  # + tr of the quadratic part, the same for all
    second = fixed.T @ fixed / len(fixed)
    linear = 4 * np.einsum("aik,ij,ajk->a", mixed, second, mixed, optimize=True)
    return means.var(axis=1), linear + 2 * (quadratic**2).sum(axis=(1, 2))


def chain_gradient_covariance(
    chain: DeepLinearChain, weights: ArrayLike, *, label_noise: float = 0.0, variance: float = 0.0
) -> Array:
    """Per-sample gradient covariance of the scalar chain with noisy activations and Gaussian data; exact.

    Parameters
    ----------
    chain : DeepLinearChain
    weights : array_like, shape (layer,)
    label_noise : float
        s ≥ 0.
    variance : float
        s_h² ≥ 0 of the activations; without it the covariance is c(m) v vᵀ.

    Returns
    -------
    ndarray, shape (layer, layer)

    Raises
    ------
    InvalidParameterError
        If `weights` has another shape or a variance is negative.

    Examples
    --------
    >>> chain = DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> chain_gradient_covariance(chain, [0.0, 0.0, 0.0], variance=0.5).diagonal().round(12).tolist()
    [0.0, 0.0, 0.5]
    """
    a = checks.finite_array("weights", weights, ndim=1)
    if a.shape != (chain.depth,):
        raise checks.invalid("weights", checks.Described(f"array of shape {a.shape}"), f"shape ({chain.depth},)")
    return gaussian_gradient_covariance(
        [np.array([[weight]]) for weight in a],
        list(np.eye(chain.depth)[:, :, None, None]),
        teacher_matrix=[[chain.singular_value]],
        input_covariance=[[chain.input_variance]],
        label_noise=label_noise,
        variance=variance,
    )


def _layers(layers: Sequence[ArrayLike]) -> list[Array]:
    weights = [checks.finite_array("layers", layer, ndim=2) for layer in layers]
    if len(weights) < 2 or any(a.shape[0] != b.shape[1] for a, b in pairwise(weights)):
        shapes = ", ".join(str(w.shape) for w in weights)
        raise InvalidParameterError(
            f"`layers` have shapes {shapes}, expected at least two matrices (h_l, h_l−1) from the inputs up.\n"
            "Use `[w_1, w_2, w_3]`."
        )
    return weights


def _directions(weights: Layers, directions: Sequence[Any]) -> list[Array]:
    along = [checks.finite_array("directions", d, ndim=3) for d in directions]
    if [d.shape[1:] for d in along] != [w.shape for w in weights] or len({len(d) for d in along}) != 1:
        shapes = ", ".join(str(d.shape) for d in along)
        raise checks.invalid(
            "directions", checks.Described(f"arrays of shapes {shapes}"), "shape (direction, *layer) for every layer"
        )
    return along


def _above(weights: Layers) -> list[Array]:
    """A_l = W_D … W_{l+1} of every layer, l = 1 … D; the last is 1."""
    products = [np.eye(len(weights[-1]))]
    for weight in weights[:0:-1]:
        products.append(products[-1] @ weight)
    return products[::-1]


def _forms(weights: Layers, along: Layers, inputs: Array, targets: Array, noise: float) -> Array:
    """Q of every direction, shape (direction, number, number).

    `inputs` and `targets` are x and y as linear maps of the first numbers z; the activations' noise follows.
    """
    first, hidden = inputs.shape[1], [len(w) for w in weights[:-1]]
    total = first + sum(hidden)
    maps = [np.hstack([inputs, np.zeros((len(inputs), total - first))])]
    begin = first
    for weight in weights[:-1]:
        passed = weight @ maps[-1]
        passed[:, begin : begin + len(weight)] += np.sqrt(noise) * np.eye(len(weight))
        begin += len(weight)
        maps.append(passed)
    residual = weights[-1] @ maps[-1]
    residual[:, :first] -= targets
    forms = np.zeros((len(along[0]), total, total))
    for above, direction, arriving in zip(_above(weights), along, maps, strict=True):
        forms += (residual.T @ above) @ direction @ arriving
    return forms
