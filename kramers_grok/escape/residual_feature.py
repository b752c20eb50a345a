r"""A score for escapes from states that have learned something: what the network holds beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import sympy
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.landscape import Landscape
from kramers_grok.dynamics.process import Observed
from kramers_grok.models.deep_linear import DeepLinearNetwork

__all__ = ["ResidualFeature"]

Vectors = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ResidualFeature:
    r"""What the network holds of the next feature beyond the features that it has learned.

    With :math:`M_{ij} = u_i^TWv_j` over the learned features S and the next one j, the Schur complement

    .. math:: s = M_{jj} - M_{jS}\,M_{SS}^{-1}\,M_{Sj}

    is 0 for every map of rank \|S\| whose learned block is not singular, and m_j where the features do not mix. The
    order parameter m_j itself also grows when a learned channel *turns* towards feature j, which costs little where
    their singular values are close and frees nobody: excursions that look advanced and are not.

    Parameters
    ----------
    widths : tuple of int
        (d, h_1, …, h_{D−1}, o).
    left, right : tuple of tuple of float
        Unit vectors u and v of the learned features, and of the next one last.

    Raises
    ------
    InvalidParameterError
        If directions do not fit the widths or each other.

    Examples
    --------
    A rank-1 map turned by a small angle has m_2 > 0, but holds nothing of a second feature:

    >>> import torch
    >>> network = DeepLinearNetwork((2, 2, 2), [2.0, 1.0], weight_decay=0.1)
    >>> w = torch.tensor([0.9, 0.1])
    >>> theta = torch.cat([w, torch.zeros(2), w, torch.zeros(2)]).reshape(2, 2, 2)
    >>> theta[1] = theta[1].T.clone()
    >>> theta = theta.reshape(1, 8)
    >>> score = ResidualFeature.of(network, rank=1)
    >>> f"{network.order_parameters(theta)[0, 1]:.2f} {score.values(network, theta).item():.2f}"
    '0.01 0.00'
    """

    widths: tuple[int, ...]
    left: Vectors
    right: Vectors

    def __post_init__(self) -> None:
        if len(self.left) != len(self.right) or not self.left:
            raise InvalidParameterError(
                f"`left` and `right` hold {len(self.left)} and {len(self.right)} vectors, expected one pair for each "
                "learned feature and one for the next.\nUse `ResidualFeature.of(network, rank)`."
            )
        fits = all(len(v) == self.widths[0] for v in self.right) and all(len(u) == self.widths[-1] for u in self.left)
        if not fits:
            raise InvalidParameterError(
                f"Directions do not fit {self.widths[0]} inputs and {self.widths[-1]} outputs.\n"
                "Use `ResidualFeature.of(network, rank)`."
            )

    @classmethod
    def of(cls, network: DeepLinearNetwork, rank: int) -> ResidualFeature:
        """Return the score of an escape from the `rank` strongest features to one more."""
        known = len(network.singular_values)
        if not 0 <= rank < known:
            raise checks.invalid("rank", rank, f"0 to {known - 1}", f"the teacher has {known} features")
        u, _, vt = np.linalg.svd(network.teacher_matrix)
        kept = slice(rank + 1)
        left, right = (tuple(tuple(map(float, row)) for row in m[kept]) for m in (u.T, vt))
        return cls(network.widths, left, right)

    def values(self, observed: Observed, theta: Tensor) -> Tensor:
        """Schur complement s, shape (replica,)."""
        residual: Tensor = self._residual([theta.select(1, j) for j in range(theta.shape[1])])
        return residual

    def expression(self, landscape: Landscape) -> sympy.Expr | None:
        """Return the same in the weights, in the order of `network_landscape`."""
        n_parameters = sum(a * b for a, b in pairwise(self.widths))
        if len(landscape.coordinates) != n_parameters:
            raise InvalidParameterError(
                f"The landscape has {len(landscape.coordinates)} coordinates, expected the {n_parameters} weights "
                f"of widths {self.widths}.\nUse the score of the network that moves."
            )
        return self._residual(list(landscape.coordinates))

    def _residual(self, weights: Sequence[Any]) -> Any:
        """One arithmetic for tensors and for symbols: the map between the features, then Gauss's elimination."""
        entries = iter(weights)
        layers = [[[next(entries) for _ in range(a)] for _ in range(b)] for a, b in pairwise(self.widths)]
        columns: list[list[Any]] = []
        for v in self.right:
            vector: list[Any] = list(v)
            for layer in layers:
                vector = [_dot(row, vector) for row in layer]
            columns.append([_dot(vector, list(u)) for u in self.left])
        size = len(columns)
        for k in range(size - 1):
            for j in range(k + 1, size):
                factor = columns[j][k] / columns[k][k]
                for i in range(k + 1, size):
                    columns[j][i] = columns[j][i] - factor * columns[k][i]
        return columns[-1][-1]


def _dot(first: Sequence[Any], second: Sequence[Any]) -> Any:
    """Sum of products; components of a fixed direction that are 0 leave nothing behind."""
    terms = [a * b for a, b in zip(first, second, strict=True) if not (isinstance(b, float) and abs(b) < 1e-15)]
    return sum(terms[1:], terms[0])
