r"""Activation functions of nonlinear networks, with the derivatives that hand-written gradients need.

Values and derivatives are made of operations whose result for an entry does not depend on how many entries there are:
torch's own ``sigmoid``, ``softplus`` and ``log1p`` compute the last few entries of a tensor by other code than the
rest, and the paths of a batch would then depend on its size in the last bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["GELU", "Activation", "Identity", "Quadratic", "ReLU", "Softplus", "Tanh"]


@runtime_checkable
class Activation(Protocol):
    """A function applied entry by entry, and its derivative.

    Any object with these two methods is one: `MLP` takes it, on torch.
    """

    def value(self, z: Tensor) -> Tensor:
        """σ(z), in the shape of z.

        Parameters
        ----------
        z : Tensor

        Returns
        -------
        Tensor, the shape of `z`
        """
        ...

    def derivative(self, z: Tensor, value: Tensor) -> Tensor:
        """σ′(z), in the shape of z; `value` is σ(z), from which some are cheaper.

        Parameters
        ----------
        z : Tensor
        value : Tensor
            σ(z).

        Returns
        -------
        Tensor, the shape of `z`
        """
        ...


@dataclass(frozen=True)
class Identity:
    """σ(z) = z: the network is a deep linear one.

    Examples
    --------
    >>> Identity().value(torch.tensor([2.0])).item()
    2.0
    """

    def value(self, z: Tensor) -> Tensor:
        """Return z."""
        return z

    def derivative(self, z: Tensor, value: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(z)


@dataclass(frozen=True)
class Tanh:
    """σ(z) = tanh z.

    Examples
    --------
    >>> z = torch.zeros(1)
    >>> Tanh().value(z).item(), Tanh().derivative(z, Tanh().value(z)).item()
    (0.0, 1.0)
    """

    def value(self, z: Tensor) -> Tensor:
        """Return tanh z."""
        return torch.tanh(z)

    def derivative(self, z: Tensor, value: Tensor) -> Tensor:
        """1 − tanh² z."""
        return 1.0 - value * value


@dataclass(frozen=True)
class ReLU:
    """σ(z) = max(z, 0); its derivative at 0 is taken as 0, as torch does.

    Examples
    --------
    >>> z = torch.tensor([-1.0, 0.0, 2.0])
    >>> ReLU().value(z).tolist(), ReLU().derivative(z, ReLU().value(z)).tolist()
    ([0.0, 0.0, 2.0], [0.0, 0.0, 1.0])
    """

    def value(self, z: Tensor) -> Tensor:
        """max(z, 0)."""
        return torch.relu(z)

    def derivative(self, z: Tensor, value: Tensor) -> Tensor:
        """1 above 0, otherwise 0."""
        return (z > 0).to(z.dtype)


def _phi(z: Tensor) -> Tensor:
    """Φ(z), the normal distribution function."""
    phi: Tensor = torch.special.ndtr(z)
    return phi


@dataclass(frozen=True)
class GELU:
    r"""σ(z) = z Φ(z), Φ the normal distribution function: the exact form, not the one by tanh.

    Hendrycks and Gimpel, arXiv:1606.08415 (2016).

    Examples
    --------
    >>> z = torch.zeros(1)
    >>> GELU().value(z).item(), GELU().derivative(z, GELU().value(z)).item()
    (0.0, 0.5)
    """

    def value(self, z: Tensor) -> Tensor:
        """Return z Φ(z)."""
        return z * _phi(z)

    def derivative(self, z: Tensor, value: Tensor) -> Tensor:
        """Φ(z) + z φ(z)."""
        return _phi(z) + z * torch.exp(-0.5 * z * z) * (1.0 / math.sqrt(2.0 * math.pi))


@dataclass(frozen=True)
class Softplus:
    """σ(z) = log(1 + eᶻ).

    Examples
    --------
    >>> z = torch.tensor([0.0, 1000.0], dtype=torch.float64)
    >>> [round(v, 6) for v in Softplus().value(z).tolist()], Softplus().derivative(z, z).tolist()
    ([0.693147, 1000.0], [0.5, 1.0])
    """

    def value(self, z: Tensor) -> Tensor:
        """log(1 + eᶻ), to full relative precision on both sides."""
        # By `where`, not by |z|, whose derivatives at 0 automatic differentiation would leave out.
        small = torch.exp(torch.where(z > 0, -z, z))
        whole = 1.0 + small
        # Kahan's log(1 + u): the rounding of 1 + u is divided out again.
        lost = whole == 1.0
        ratio = small / torch.where(lost, 1.0, whole - 1.0)
        return torch.where(z > 0, z, 0.0) + torch.where(lost, small, torch.log(whole) * ratio)

    def derivative(self, z: Tensor, value: Tensor) -> Tensor:
        """1/(1 + e⁻ᶻ)."""
        return 1.0 / (1.0 + torch.exp(-z))


@dataclass(frozen=True)
class Quadratic:
    """σ(z) = z².

    Examples
    --------
    >>> z = torch.tensor([-3.0])
    >>> Quadratic().value(z).item(), Quadratic().derivative(z, Quadratic().value(z)).item()
    (9.0, -6.0)
    """

    def value(self, z: Tensor) -> Tensor:
        """z²."""
        return z * z

    def derivative(self, z: Tensor, value: Tensor) -> Tensor:
        """2z."""
        return 2.0 * z
