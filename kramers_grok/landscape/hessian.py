"""Hessians of a torch energy: whole, or as products with vectors, by automatic differentiation of the gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Gradient", "curvature_along", "hessian", "hessian_products"]

Gradient = Callable[[Tensor], Tensor]
"""Gradient of an energy, (replica, parameter) to the same."""

# Points at which the gradient is differentiated at once: its intermediate results are many times as large.
_ROWS = 1024


def hessian_products(gradient: Gradient, theta: Tensor, vectors: Tensor) -> Tensor:
    """Hessian at one point times each of some vectors, shape (vector, parameter).

    Parameters
    ----------
    gradient : callable
        (replica, parameter) to the same, differentiable.
    theta : Tensor, shape (parameter,)
    vectors : Tensor, shape (vector, parameter)
    """
    parts = [curvature_along(gradient, theta.expand(len(v), -1), v) for v in torch.split(vectors, _ROWS)]
    return torch.cat(parts)


def curvature_along(gradient: Gradient, points: Tensor, directions: Tensor) -> Tensor:
    """Hessian times direction, each row at its own point, shape (point, parameter).

    Parameters
    ----------
    gradient : callable
        As in `hessian_products`.
    points, directions : Tensor, shape (point, parameter)
    """
    # The derivative of gradient · direction, the Hessian being symmetric.
    with torch.enable_grad():
        at = points.detach().clone().requires_grad_(True)
        along = (gradient(at) * directions).sum()
        (derivative,) = torch.autograd.grad(along, at)
    return derivative.detach()


def hessian(gradient: Gradient, theta: Tensor) -> Tensor:
    """Hessians at each row of `theta` by automatic differentiation, shape (replica, parameter, parameter).

    Parameters
    ----------
    gradient : callable
        As in `hessian_products`.
    theta : Tensor, shape (replica, parameter)

    Examples
    --------
    >>> def gradient(theta):  # of x² y
    ...     x, y = theta.unbind(1)
    ...     return torch.stack([2 * x * y, x**2], dim=1)
    >>> hessian(gradient, torch.tensor([[1.0, 3.0]])).tolist()
    [[[6.0, 2.0], [2.0, 0.0]]]
    """
    size = theta.shape[1]
    eye = torch.eye(size, dtype=theta.dtype, device=theta.device)
    # Many points of few parameters go through in one pass, a point of many parameters in several.
    together = max(1, _ROWS // size)
    parts = []
    for points in torch.split(theta, together):
        if size > _ROWS:
            rows = hessian_products(gradient, points[0], eye)
        else:
            rows = curvature_along(gradient, points.repeat_interleave(size, dim=0), eye.repeat(len(points), 1))
        matrices = rows.reshape(len(points), size, size)
        parts.append(0.5 * (matrices + matrices.transpose(1, 2)))
    return torch.cat(parts)
