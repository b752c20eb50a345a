r"""Interchangeable units of a network, as tables of parameters.

A hidden unit's weights are scattered over the parameter vector: its row of one layer (and its bias), its column of
the next. A table lists them, one row for each unit of the layer, so that every symmetry of the layer is a matrix that
acts on the rows of ``theta[members]``: permutations, changes of sign, rotations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from kramers_grok.core.exceptions import InvalidParameterError

__all__ = ["UnitLayer", "hidden_layers"]

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class UnitLayer:
    r"""A layer of h units that can be exchanged for each other.

    Parameters
    ----------
    members : ndarray of int, shape (unit, weight)
        Numbers of the parameters of each unit; those in one column play the same part in every unit.
    flips : ndarray of bool, shape (weight,), optional
        Columns that change sign together without a change of the function: all of them for an odd activation (tanh),
        those that lead into the unit for an even one (quadratic). None: no such symmetry.
    rotates : bool
        Whether every rotation in O(h) of the units is a symmetry (linear units), and not permutations and signs alone.

    Raises
    ------
    InvalidParameterError
        If the table is none, or a parameter stands in it twice.
    """

    members: Integers
    flips: NDArray[np.bool_] | None = None
    rotates: bool = False

    def __post_init__(self) -> None:
        members = np.asarray(self.members, dtype=np.int64)
        if members.ndim != 2 or len(np.unique(members)) != members.size:
            raise InvalidParameterError(
                f"`members` has shape {members.shape} and {len(np.unique(members))} different entries, expected "
                "(unit, weight) without repetitions: a unit's weights are its own."
            )
        object.__setattr__(self, "members", members)
        if self.flips is not None:
            flips = np.asarray(self.flips, dtype=bool)
            if flips.shape != members.shape[1:]:
                raise InvalidParameterError(f"`flips` has shape {flips.shape}, expected {members.shape[1:]}.")
            object.__setattr__(self, "flips", flips)

    @property
    def width(self) -> int:
        """Number h of units."""
        return len(self.members)

    @property
    def is_sign(self) -> bool:
        """Whether it is one unit that can change its sign: the rotations of one unit."""
        return self.width == 1 and self.flips is not None and bool(self.flips.all())

    @property
    def signs(self) -> Array:
        """Factor of each column when a unit's sign changes, shape (weight,)."""
        turned = np.zeros(self.members.shape[1], bool) if self.flips is None else self.flips
        return np.where(turned, -1.0, 1.0)

    @property
    def n_rotations(self) -> int:
        """Dimension of the rotations, h(h − 1)/2."""
        return self.width * (self.width - 1) // 2

    def tangents(self, theta: Tensor) -> Tensor:
        """Direction in which each rotation moves `theta`, shape (replica, h(h − 1)/2, parameter).

        Rotation number k turns the pair k of units (0, 1), (0, 2), …, (h − 2, h − 1); at the angle ω the point has
        moved by ω times this vector to first order.
        """
        first, second = np.triu_indices(self.width, 1)
        out = theta.new_zeros((len(theta), len(first), theta.shape[1]))
        rows = torch.arange(len(first), device=theta.device)[:, None]
        one, other = (torch.as_tensor(self.members[i], device=theta.device) for i in (first, second))
        out[:, rows, one] = theta[:, other]
        out[:, rows, other] = -theta[:, one]
        return out

    def rotated(self, theta: Tensor, rotation: Tensor) -> Tensor:
        """Rows of the table multiplied by matrices of shape (replica or 1, h, h), whether or not a symmetry."""
        members = torch.as_tensor(self.members, device=theta.device)
        turned = rotation @ theta[:, members]
        out = theta.clone()
        out[:, members.reshape(-1)] = turned.reshape(len(theta), -1)
        return out

    def moved(self, theta: Array, order: Integers, signs: Array) -> Array:
        """Return the point with unit i at place ``order[i]``, its sign changed where ``signs[i]`` is −1."""
        out = theta.copy()
        out[self.members[order]] = theta[self.members] * np.where(signs[:, None] < 0, self.signs, 1.0)
        return out

    def closest(self, theta: Array, to: Array) -> Array:
        """Image of `theta` under this layer's symmetries that lies closest to `to`, the other layers left alone."""
        mine, other = theta[self.members], to[self.members]
        if self.rotates:
            left, _, right = np.linalg.svd(other @ mine.T)
            out = theta.copy()
            out[self.members] = (left @ right) @ mine
            return out
        plain = mine @ other.T
        turned = (mine * self.signs) @ other.T
        rows, columns = linear_sum_assignment(-np.maximum(plain, turned))
        signs = np.where(turned > plain, -1.0, 1.0)[rows, columns]
        return self.moved(theta, columns.astype(np.int64), signs)


def hidden_layers(
    widths: Sequence[int], *, biases: bool = False, flips: str | None = None, rotates: bool = False
) -> tuple[UnitLayer, ...]:
    """Tables of the hidden layers of a fully connected network: parameters W_1, …, W_D row by row, then biases.

    Parameters
    ----------
    widths : sequence of int
        (d, h_1, …, h_{D−1}, o).
    biases : bool
    flips : {"odd", "even"}, optional
        Parity of the activation.
    rotates : bool
        Whether the activation is linear.
    """
    sizes = [a * b for a, b in pairwise(widths)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    bias_starts = starts[-1] + np.concatenate([[0], np.cumsum(widths[1:])])
    layers = []
    for l, (below, width, above) in enumerate(zip(widths, widths[1:], widths[2:], strict=False)):
        incoming = starts[l] + np.arange(width * below).reshape(width, below)
        if biases:
            incoming = np.concatenate([incoming, bias_starts[l] + np.arange(width)[:, None]], axis=1)
        outgoing = starts[l + 1] + np.arange(above * width).reshape(above, width).T
        turned = None
        if flips is not None:
            turned = np.array([True] * incoming.shape[1] + [flips == "odd"] * above)
        layers.append(UnitLayer(np.concatenate([incoming, outgoing], axis=1), turned, rotates))
    return tuple(layers)
