r"""Scores: what a climb out of the well is measured by.

The best score is the committor, the probability to escape before returning: splitting on its isosurfaces loses nothing
to replicas that look advanced and are not. The order parameter m of a matrix network is the product of the layers along
one path, and does not see how it is shared among them: at the same m, unequal layers grow faster and are further on
their way. The scores here know that, at more work for each step. They decide the cost of splitting, never its result.

Measured by evidence/splitting_cost.py, steps for 10 % relative to the order parameter's, each ± 25 %: the linearised
committor 0.72 in the chain and 0.65 in the network with h = 2 (ΔF/T = 20), 1.06 with h = 4 (ΔF/T = 30); two steps of
relaxation 0.98, 0.56 and 1.5. So m is no bad score for the first feature, and the time saved is small; relaxation,
which no kernel compiles, takes 20 to 80 times longer.

`OrderParameter`, the default, is defined with the processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, cast

import numpy as np
import sympy
import torch
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.barrier import Barrier
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.landscape import Landscape
from kramers_grok.dynamics.process import Observed, OrderParameter, Score
from kramers_grok.models.base import Model
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain

__all__ = ["LayerAmplitudes", "LinearCommittor", "OrderParameter", "Relaxed", "ResidualFeature", "Score"]

TINY = 1e-300  # keeps 0/0 away where a layer is exactly 0; nothing else feels it


@dataclass(frozen=True)
class LinearCommittor:
    r"""Committor of the landscape linearised at its saddles, in the direction that decides.

    Near a saddle :math:`\theta_s` with unstable direction n the committor depends on
    :math:`n\cdot(\theta-\theta_s)` alone and grows with it, so its isosurfaces are planes. With several saddles the
    score is the largest of their :math:`n_j\cdot(\theta-\theta_j)`.

    Parameters
    ----------
    directions : tuple of tuple of float, shape (saddle, parameter)
        Unit vectors :math:`n_j`, pointing out of the well.
    offsets : tuple of float, shape (saddle,)
        :math:`n_j\cdot\theta_j`.

    Raises
    ------
    InvalidParameterError
        If there is no direction, or not one offset for each.

    Examples
    --------
    >>> chain = DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> score = LinearCommittor.of_chain(chain)
    >>> len(score.directions)          # the signs of three weights whose product is positive
    4
    """

    directions: tuple[tuple[float, ...], ...]
    offsets: tuple[float, ...]

    def __post_init__(self) -> None:
        n = checks.finite_array("directions", self.directions, ndim=2, why="one row for each saddle")
        if len(self.offsets) != len(n):
            raise checks.invalid("offsets", self.offsets, f"{len(n)} numbers", "one for each direction")

    @classmethod
    def of_barrier(cls, barrier: Barrier) -> LinearCommittor:
        """Return the score of one saddle: its unstable direction, turned away from the minimum."""
        values, vectors = np.linalg.eigh(barrier.landscape.hessian_at(barrier.saddle))
        n = vectors[:, int(np.argmin(values))]
        n = n * (np.sign(n @ (barrier.saddle - barrier.minimum)) or 1.0)
        return cls((tuple(n.tolist()),), (float(n @ barrier.saddle),))

    @classmethod
    def of_chain(cls, chain: DeepLinearChain) -> LinearCommittor:
        """Return the score of a chain's saddles out of 0: equal weights, up to signs whose product is positive."""
        depth = chain.depth
        signs = [s for s in product((1.0, -1.0), repeat=depth) if np.prod(s) > 0]
        rows = tuple(tuple(float(v) / depth**0.5 for v in s) for s in signs)
        return cls(rows, (depth**0.5 * chain.mode.saddle_amplitude(),) * len(rows))

    def values(self, observed: Observed, theta: Tensor) -> Tensor:
        """Largest distance beyond a saddle's plane (negative before it), shape (replica,)."""
        best: Tensor | None = None
        for direction, offset in zip(self.directions, self.offsets, strict=True):
            # Summed column by column: a matrix product's rounding would depend on the number of replicas.
            distance = sum((n * theta.select(1, j) for j, n in enumerate(direction)), torch.zeros_like(theta[:, 0]))
            best = distance - offset if best is None else torch.maximum(best, distance - offset)
        assert best is not None
        return best

    def expression(self, landscape: Landscape) -> sympy.Expr | None:
        """Return the same in the landscape's coordinates."""
        planes = [
            sum(sympy.Float(n) * x for n, x in zip(direction, landscape.coordinates, strict=True)) - sympy.Float(offset)
            for direction, offset in zip(self.directions, self.offsets, strict=True)
        ]
        return planes[0] if len(planes) == 1 else sympy.Max(*planes)


@dataclass(frozen=True)
class LayerAmplitudes:
    r"""Sum of the layers' amplitudes along one feature's path through a matrix network.

    Forward from the feature's input direction v, :math:`\rho_l = |W_l f_{l-1}|` with :math:`f_l = W_lf_{l-1}/\rho_l`,
    for the layers up to D−2; back from its output direction u, :math:`\rho_D = |W_D^Tu|`; and the layer that joins
    them, :math:`z = m/(\rho_1\cdots\rho_{D-2}\,\rho_D)`. The product of the amplitudes is m, rotations of the hidden
    layers leave them alone, and the score is their sum, over D: at the saddle its gradient is the unstable
    direction, so this is the committor linearised there on the whole orbit at once.

    Parameters
    ----------
    widths : tuple of int
        (d, h_1, …, h_{D−1}, o), D ≥ 3.
    left, right : tuple of float
        Unit vectors u (output) and v (input) of the feature.

    Raises
    ------
    InvalidParameterError
        If a direction does not fit the widths, or D < 3.

    Examples
    --------
    >>> network = DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=0.25)
    >>> score = LayerAmplitudes.of(network)
    >>> theta = network.embed(network.theory.saddle(0))
    >>> m = network.order_parameters(theta[None]).item()
    >>> print(f"{score.values(network, theta[None]).item() ** 3:.6f} {m:.6f}")
    0.016421 0.016421
    """

    widths: tuple[int, ...]
    left: tuple[float, ...]
    right: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.widths) < 4:
            raise checks.invalid("widths", self.widths, "three layers or more", "two layers have no barrier")
        if (len(self.right), len(self.left)) != (self.widths[0], self.widths[-1]):
            raise InvalidParameterError(
                f"`right` and `left` have {len(self.right)} and {len(self.left)} components, expected "
                f"{self.widths[0]} inputs and {self.widths[-1]} outputs.\nUse `LayerAmplitudes.of(network, feature)`."
            )

    @classmethod
    def of(cls, network: DeepLinearNetwork, feature: int = 0) -> LayerAmplitudes:
        """Return the score of a network's feature, strongest feature 0.

        Parameters
        ----------
        network : DeepLinearNetwork
        feature : int
        """
        u, values, vt = np.linalg.svd(network.teacher_matrix)
        known = len(network.singular_values)
        if not 0 <= feature < known:
            raise checks.invalid("feature", feature, f"0 to {known - 1}", f"the teacher has {len(values)} features")
        return cls(network.widths, tuple(u[:, feature].tolist()), tuple(vt[feature].tolist()))

    def values(self, observed: Observed, theta: Tensor) -> Tensor:
        """Mean amplitude of the layers, shape (replica,)."""
        layers = _layers(self.widths, [theta.select(1, j) for j in range(theta.shape[1])])
        amplitude: Tensor = self._mean_amplitude(layers, torch.sqrt)
        return amplitude

    def expression(self, landscape: Landscape) -> sympy.Expr | None:
        """Return the same in the weights, in the order of `network_landscape`."""
        _check_weights(self.widths, landscape)
        expression: sympy.Expr = self._mean_amplitude(_layers(self.widths, landscape.coordinates), sympy.sqrt)
        return expression

    def _mean_amplitude(self, layers: list[list[list[Any]]], sqrt: Any) -> Any:
        """One arithmetic for tensors and for symbols: mean of the radii and of what joins them."""
        forward: list[Any] = _apply(layers[0], self.right)
        radii = [_norm(forward, sqrt)]
        for layer in layers[1:-2]:
            forward = [x / radii[-1] for x in forward]
            forward = _apply(layer, forward)
            radii.append(_norm(forward, sqrt))
        forward = _apply(layers[-2], [x / radii[-1] for x in forward])
        columns = [[row[j] for row in layers[-1]] for j in range(self.widths[-2])]
        backward = _apply(columns, self.left)
        radii.append(_norm(backward, sqrt))
        joint = sum(b * f for b, f in zip(backward, forward, strict=True)) / radii[-1]
        return (sum(radii) + joint) / len(layers)


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
    left: tuple[tuple[float, ...], ...]
    right: tuple[tuple[float, ...], ...]

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
        """Return the score of an escape from the `rank` strongest features to one more.

        Parameters
        ----------
        network : DeepLinearNetwork
        rank : int
        """
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
        _check_weights(self.widths, landscape)
        return self._residual(list(landscape.coordinates))

    def _residual(self, weights: Sequence[Any]) -> Any:
        """One arithmetic for tensors and for symbols: the map between the features, then Gauss's elimination."""
        columns: list[list[Any]] = []
        for v in self.right:
            vector: Sequence[Any] = v
            for layer in _layers(self.widths, weights):
                vector = _apply(layer, vector)
            columns.append([_apply([vector], u)[0] for u in self.left])
        size = len(columns)
        for k in range(size - 1):
            for j in range(k + 1, size):
                factor = columns[j][k] / columns[k][k]
                for i in range(k + 1, size):
                    columns[j][i] = columns[j][i] - factor * columns[k][i]
        return columns[-1][-1]


def _check_weights(widths: tuple[int, ...], landscape: Landscape) -> None:
    n_parameters = sum(a * b for a, b in pairwise(widths))
    if len(landscape.coordinates) != n_parameters:
        raise InvalidParameterError(
            f"The landscape has {len(landscape.coordinates)} coordinates, expected the {n_parameters} weights "
            f"of widths {widths}.\nUse the score of the network that moves."
        )


def _layers(widths: tuple[int, ...], weights: Sequence[Any]) -> list[list[list[Any]]]:
    """W_1 … W_D as nested lists of their entries (tensors or symbols)."""
    entries = iter(weights)
    return [[[next(entries) for _ in range(a)] for _ in range(b)] for a, b in pairwise(widths)]


def _apply(matrix: Sequence[Sequence[Any]], vector: Sequence[Any]) -> list[Any]:
    """Matrix times vector; components of a direction that are 0 leave nothing behind."""
    kept = [j for j, v in enumerate(vector) if not (isinstance(v, float) and abs(v) < 1e-15)]
    return [sum(row[j] * vector[j] for j in kept) for row in matrix]


def _norm(vector: Sequence[Any], sqrt: Any) -> Any:
    return sqrt(sum(x * x for x in vector) + TINY)


@dataclass(frozen=True)
class Relaxed:
    r"""Order parameter after some steps of gradient descent: where the noiseless flow would carry the replica.

    States that the flow takes to the same place have nearly the same committor. The flow shrinks what lies before
    the separatrix and grows what lies behind it, whatever the landscape; no saddle need be known. Each evaluation
    costs `n_steps` gradients.

    Parameters
    ----------
    n_steps : int
        Steps of descent.
    step : float
        Their size [time]; `n_steps · step` of about one relaxation time of the unstable direction is enough.
    feature : int
    sign : float
        +1, or −1 for a target below.

    Examples
    --------
    >>> from kramers_grok.dynamics.langevin import Langevin
    >>> chain = DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> process = Langevin(chain, temperature=0.001, dt=0.1)
    >>> saddle = torch.as_tensor(chain.barrier().saddle)[None]
    >>> score = Relaxed(n_steps=10, step=0.5)
    >>> before, at, behind = (float(score.values(process, f * saddle)) for f in (0.9, 1.0, 1.1))
    >>> bool(before < 0.9**3 * at and 1.1**3 * at < behind)
    True
    """

    n_steps: int
    step: float
    feature: int = 0
    sign: float = 1.0

    def __post_init__(self) -> None:
        checks.positive_int("n_steps", self.n_steps)
        checks.positive("step", self.step)

    def values(self, observed: Observed, theta: Tensor) -> Tensor:
        """±m after the descent, shape (replica,)."""
        model = cast(Model, getattr(observed, "model", observed))
        for _ in range(self.n_steps):
            theta = theta - self.step * model.gradient(theta)
        return OrderParameter(self.feature, self.sign).values(model, theta)

    def expression(self, landscape: Landscape) -> sympy.Expr | None:
        """None: nested that deep, an expression is slower to compile than it saves."""
        return None
