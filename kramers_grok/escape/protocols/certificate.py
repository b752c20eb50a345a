r"""Certificates of minima: gradient, smallest curvature apart from symmetries, and how far the minimum can be.

A small gradient proves nothing: it is as small in the bottleneck behind a spinodal, and smaller at a saddle that
descent approaches. A point is certified as a minimum if the Hessian, with the zero modes of the network's own
symmetries projected out, is positive, and if the Newton–Kantorovich number

.. math:: \kappa = \frac{\mu_{\max}}{s}\,\frac{\|\nabla F\|}{\mu_{\min}^2} \le \tfrac12,

the condition under which Newton's iteration reaches a stationary point within :math:`2\|\nabla F\|/\mu_{\min}`.
:math:`\mu_{\max}/s` stands for the Lipschitz constant of the Hessian, s the weights' natural size: an estimate, which a
certificate's margin (usually several powers of ten) can bear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from kramers_grok.dynamics.batching import Data
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.landscape.hessian import Gradient, hessian, hessian_products
from kramers_grok.landscape.symmetries.symmetry import symmetry_of
from kramers_grok.models.base import BatchModel, SampleModel
from kramers_grok.models.data import FiniteData

__all__ = ["DENSE_LIMIT", "Certificate", "certify", "full_gradient", "stable_lr", "symmetries"]

Array = NDArray[np.float64]

#: Parameters up to which the whole Hessian is computed; beyond, its ends by Lanczos' iteration.
DENSE_LIMIT = 500

# Generators shorter than this fraction of the longest turn weights that are not there: no zero mode.
_RANK = 1e-4
_LANCZOS_TOLERANCE = 1e-4
_KRYLOV = 40
_BLOCK = 2**22  # entries of Hessians held at once


@dataclass(frozen=True, eq=False)
class Certificate:
    """What is known of points of descent; arrays of shape (replica,).

    Attributes
    ----------
    gradient_norm : ndarray
        ‖∇F‖ [loss/weight].
    smallest, largest : ndarray
        Ends of the Hessian's spectrum without the zero modes [loss/weight²].
    index : ndarray of int
        Number of negative eigenvalues; from Lanczos 0 or 1, where 1 means at least one.
    n_zero_modes : ndarray of int
        Independent generators of symmetries at the point, projected out.
    zero_mode_curvature : ndarray
        Largest norm of Hessian times zero mode [loss/weight²]: of the gradient's order over the weights' size, if
        they are zero modes.
    kantorovich : ndarray
        κ of the module's docstring.
    """

    gradient_norm: Array
    smallest: Array
    largest: Array
    index: NDArray[np.int64]
    n_zero_modes: NDArray[np.int64]
    zero_mode_curvature: Array
    kantorovich: Array

    @property
    def is_minimum(self) -> NDArray[np.bool_]:
        """Whether a strict minimum, up to symmetries, lies within 2‖∇F‖/μ_min."""
        return np.asarray((self.smallest > 0) & (self.kantorovich <= 0.5))


def full_gradient(process: SGD, weight_decay: float | None = None) -> Gradient:
    """Gradient of the loss that full-batch descent goes down, with weight decay; (replica, parameter) to the same.

    Parameters
    ----------
    process : SGD
        Its data are taken whole: all samples of finite data, otherwise the model's population, or the data that a
        nonlinear model has of its own.
    weight_decay : float, optional
        Instead of the process's own.
    """
    model, data = process.model, process.data
    decay = float(process.weight_decay) if weight_decay is None else weight_decay
    if isinstance(model, SampleModel):
        return _over_samples(model, data, decay)
    if isinstance(data, FiniteData):
        xx, yx = data.input_covariance, data.cross_covariance
    else:
        xx = model.input_covariance
        yx = model.teacher_matrix @ xx
    moments = [torch.as_tensor(np.array(a), dtype=torch.float64)[None] for a in (xx, yx)]

    def gradient(theta: Tensor) -> Tensor:
        return model.data_gradient(theta, *moments) + decay * theta

    return gradient


def _over_samples(model: SampleModel, data: Data, decay: float) -> Gradient:
    """`full_gradient` of a nonlinear model, on finite data or on the model's own."""
    whole = data if isinstance(data, FiniteData) else model.data
    if whole is None:
        return model.gradient  # says what is missing
    x, y = (torch.as_tensor(a, dtype=torch.float64)[None] for a in (whole.x, whole.y))

    def gradient(theta: Tensor) -> Tensor:
        return model.sample_gradient(theta, x, y) + decay * theta

    return gradient


def symmetries(model: BatchModel | SampleModel, theta: Tensor) -> Tensor:
    """Generators of the symmetries that leave a model's loss alone, shape (replica, generator, parameter).

    For matrix networks they are the rotations of each hidden layer's units, W_l → R W_l and W_{l+1} → W_{l+1} Rᵀ;
    networks with an activation function have none that are continuous.
    """
    return symmetry_of(model).tangents(theta)


def _zero_modes(model: BatchModel | SampleModel, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal zero modes, shape (replica, parameter, generator), columns beyond their number being 0."""
    generators = symmetries(model, theta)
    if generators.shape[1] == 0:
        return generators.transpose(1, 2), torch.zeros(len(theta), dtype=torch.int64)
    _, lengths, rows = torch.linalg.svd(generators, full_matrices=False)
    size = theta.norm(dim=1, keepdim=True)
    there = lengths > _RANK * size.clamp_min(torch.finfo(theta.dtype).tiny)
    return (rows * there.unsqueeze(2)).transpose(1, 2), there.sum(dim=1)


def certify(
    gradient: Gradient,
    model: BatchModel | SampleModel,
    theta: Tensor,
    *,
    scale: float = 1.0,
    dense_limit: int = DENSE_LIMIT,
) -> Certificate:
    """Examine points: are they minima, and how well is that known?

    Parameters
    ----------
    gradient : callable
        As from `full_gradient`.
    model : BatchModel or SampleModel
        Whose symmetries are projected out.
    theta : Tensor, shape (replica, parameter)
    scale : float
        Natural size s of the weights, about σ^(1/D) [weight].
    dense_limit : int
        Parameters up to which the whole Hessian is computed.

    Examples
    --------
    >>> from kramers_grok.models.data import population
    >>> from kramers_grok.models.deep_linear import DeepLinearNetwork
    >>> network = DeepLinearNetwork((2, 3, 3, 2), [2.0, 1.0], weight_decay=0.1)
    >>> descent = SGD(network, population(), lr=0.1)
    >>> theta = torch.stack([network.ordered_state([0]), network.ordered_state([1])])
    >>> found = certify(full_gradient(descent), network, theta)
    >>> found.is_minimum.tolist(), found.index.tolist(), found.n_zero_modes.tolist()
    ([True, False], [0, 1], [4, 4])
    """
    points = theta.detach().to(device="cpu", dtype=torch.float64)
    dense = points.shape[1] <= dense_limit
    block = max(1, _BLOCK // points.shape[1] ** 2) if dense else 1
    parts = []
    for batch in torch.split(points, block):
        basis, independent = _zero_modes(model, batch)
        spectra = _dense(gradient, batch, basis) if dense else _lanczos(gradient, batch, basis)
        parts.append((gradient(batch).norm(dim=1), independent, *spectra))
    columns: list[NDArray[Any]] = [torch.cat(p).numpy() for p in zip(*parts, strict=True)]
    norm, count, low, high, index, residual = columns
    with np.errstate(divide="ignore", invalid="ignore"):
        kappa = np.where(norm > 0, high / scale * norm / low**2, 0.0)
    return Certificate(norm, low, high, index, count, residual, kappa)


def _dense(gradient: Gradient, theta: Tensor, basis: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    matrices = hessian(gradient, theta)
    onto = basis @ basis.transpose(1, 2)
    away = torch.eye(theta.shape[1], dtype=theta.dtype) - onto
    residual = torch.linalg.norm(matrices @ basis, dim=1)
    residual = residual.amax(dim=1) if basis.shape[2] else torch.zeros(len(theta), dtype=theta.dtype)
    # Zero modes are moved to the top of the spectrum, where they are counted as nothing.
    top = matrices.abs().sum(dim=2).amax(dim=1)
    spectrum = torch.linalg.eigvalsh(away @ matrices @ away + 2 * top[:, None, None] * onto)
    kept = torch.where(spectrum > 1.5 * top[:, None], -torch.inf, spectrum)
    return spectrum[:, 0], kept.amax(dim=1), (spectrum < 0).sum(dim=1), residual


def _lanczos(gradient: Gradient, theta: Tensor, basis: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (point,), (zero,) = theta, basis

    def multiply(vector: Array) -> Array:
        v = torch.from_numpy(np.array(vector, dtype=np.float64).reshape(-1))
        v = v - zero @ (zero.T @ v)
        w = hessian_products(gradient, point, v[None])[0]
        return np.asarray((w - zero @ (zero.T @ w)).numpy())

    size = len(point)
    start = np.cos(np.arange(size) ** 2.0)  # any fixed vector: scipy's own would come from a global generator
    operator = LinearOperator((size, size), matvec=multiply, dtype=np.float64)
    ends = {"k": 1, "v0": start, "return_eigenvectors": False, "ncv": _KRYLOV}
    high = float(eigsh(operator, which="LA", tol=1e-2, **ends)[0])
    # Reflected at the upper end, where projected zero modes (curvature 0 in `operator`) would hide the low end.
    shifted = LinearOperator(
        (size, size),
        matvec=lambda v: multiply(v) + 2 * high * (zero @ (zero.T @ torch.from_numpy(np.array(v).reshape(-1)))).numpy(),
        dtype=np.float64,
    )
    low = float(eigsh(shifted, which="SA", tol=_LANCZOS_TOLERANCE, **ends)[0])
    residual = hessian_products(gradient, point, zero.T).norm(dim=1).max() if zero.shape[1] else torch.tensor(0.0)
    return (
        torch.tensor([low], dtype=torch.float64),
        torch.tensor([high], dtype=torch.float64),
        torch.tensor([int(low < 0)]),
        residual.to(torch.float64).reshape(1),
    )


def stable_lr(process: SGD, theta: Tensor, fraction: float = 0.5) -> float:
    """Learning rate at which descent from `theta` is stable: `fraction` of 2 over the largest curvature [time/step].

    Parameters
    ----------
    process : SGD
        Its own learning rate does not matter.
    theta : Tensor, shape (parameter,)
        For a sweep the learned state at its lowest weight decay, where the curvature is largest.
    fraction : float
        Between 0 and 1.

    Examples
    --------
    >>> from kramers_grok.models.data import population
    >>> from kramers_grok.models.deep_linear import DeepLinearNetwork
    >>> network = DeepLinearNetwork((2, 3, 3, 2), [2.0, 1.0], weight_decay=0.1)
    >>> descent = SGD(network, population(), lr=1e-3)
    >>> print(f"{stable_lr(descent, network.ordered_state([0, 1])):.2f}")
    0.14
    """
    found = certify(full_gradient(process), process.model, theta.reshape(1, -1))
    return float(2 * fraction / found.largest[0])
