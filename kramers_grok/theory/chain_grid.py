r"""Grid, energy and generator of the three-layer scalar chain, reduced by its symmetry.

The chain's diffusion is :math:`L f = \sum_{ij} e^{F/T}\partial_i\big(A_{ij}\,e^{-F/T}\partial_j f\big)`, A = T·1
without a step-size correction. On a Cartesian grid each pair of neighbours along e (axes and, where A has
off-diagonal entries, face diagonals) is joined with the rate

.. math:: \kappa_e\,h^{-2}\,e^{-(F_j-F_i)/2T},

which obeys detailed balance and is accurate to O(h²) (Lie, Fackeldey & Weber, SIAM J. Matrix Anal. Appl. 34,
738 (2013)). A link that enters the target at a fraction θ of its length gets the rate divided by θ and the
energy at the crossing (Gibou, Fedkiw, Cheng & Kang, J. Comput. Phys. 176, 205 (2002)).

Energy and target are invariant under permutations and pairs of sign flips, a group of order 24, so one node
stands for its whole orbit: sorted by modulus, the sign of the product on the smallest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from kramers_grok.theory.minibatch import MinibatchNoise

__all__ = ["ChainGenerator", "ChainProblem", "build_chain_generator"]

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

# Smallest link fraction at the target: below it the rate 1/θ would spoil the matrix and gain nothing
SHORTEST_LINK = 0.02
SHORTEST_DIAGONAL = 0.3


@dataclass(frozen=True)
class ChainProblem:
    """The chain, its noise and its target.

    Parameters
    ----------
    sigma, decay, variance : float
        Singular value σ, weight decay λ, input variance q.
    temperature : float
        T [loss].
    threshold, sign : float
        The target is ``sign · (m − threshold) ≥ shift · (standard deviation of m in one step)``.
    ceiling : float
        Energy above which nodes are left out on the near side of the barrier [loss].
    margin : float
        The same beyond the barrier, counted from the lowest energy with the same m.
    crest : float
        Order parameter of the saddle (or of the threshold, where there is none on the way).
    step : float
        Euler-Maruyama step whose first-order effect is included.
    shift : float
        See `threshold`.
    minibatch : MinibatchNoise, optional
    """

    sigma: float
    decay: float
    variance: float
    temperature: float
    threshold: float
    sign: float
    ceiling: float
    margin: float
    crest: float
    step: float = 0.0
    shift: float = 0.0
    minibatch: MinibatchNoise | None = None

    def energy(self, a: Array) -> Array:
        """Energy F at `a`, shape (..., 3) -> (...)."""
        m = a.prod(axis=-1)
        return np.asarray(0.5 * self.variance * (self.sigma - m) ** 2 + 0.5 * self.decay * (a**2).sum(axis=-1))

    def others(self, a: Array) -> Array:
        """Gradient v of the product m, without dividing by weights that may be 0."""
        return np.stack([a[..., 1] * a[..., 2], a[..., 0] * a[..., 2], a[..., 0] * a[..., 1]], axis=-1)

    def potential(self, a: Array) -> Array:
        r"""Energy of the modified equation, :math:`F - \tfrac h4|\nabla F|^2 + \tfrac h2 T\Delta F`."""
        energy = self.energy(a)
        if self.step == 0:
            return energy
        v = self.others(a)
        pull = self.variance * (self.sigma - a.prod(axis=-1))
        gradient = self.decay * a - pull[..., None] * v
        laplacian = self.variance * (v**2).sum(axis=-1) + 3 * self.decay
        return np.asarray(energy + self.step * (0.5 * self.temperature * laplacian - 0.25 * (gradient**2).sum(axis=-1)))

    def mobility(self, a: Array, direction: Integers) -> Array:
        """Coefficient κ of the links along `direction`, from the tensor T(1 + step · Hessian)."""
        axes = np.flatnonzero(direction)
        v = self.others(a)
        if len(axes) == 1:
            curvature = self.variance * v[..., axes[0]] ** 2 + self.decay
            return np.asarray(self.temperature * (1 + self.step * curvature))
        i, j = axes
        k = 3 - i - j
        pull = self.variance * (self.sigma - a.prod(axis=-1))
        mixed = self.variance * v[..., i] * v[..., j] - pull * a[..., k]
        return np.asarray(0.5 * direction[i] * direction[j] * self.temperature * self.step * mixed)

    def minibatch_mobility(self, a: Array, direction: Integers) -> Array:
        """The same for the Itô term of the minibatch noise, at the node itself."""
        assert self.minibatch is not None
        axes = np.flatnonzero(direction)
        v, strength = self.others(a), np.asarray(self.minibatch.strength(a.prod(axis=-1)))
        if len(axes) == 1:
            return np.asarray(strength * v[..., axes[0]] ** 2)
        i, j = axes
        return np.asarray(0.5 * direction[i] * direction[j] * strength * v[..., i] * v[..., j])

    def level(self, a: Array) -> Array:
        """Function that is ≥ 0 in the target."""
        value = self.sign * (a.prod(axis=-1) - self.threshold)
        if self.shift:
            # Taken where the ray meets the border: minibatch noise grows faster with m than m itself
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.nan_to_num(self.threshold / a.prod(axis=-1), nan=1.0)
            border = a * np.cbrt(np.clip(ratio, 0.0, 8.0))[..., None]
            value = value - self.shift * np.sqrt(2 * self.step * self.normal_diffusion(border))
        return np.asarray(value)

    def normal_diffusion(self, a: Array) -> Array:
        r"""Diffusion coefficient of m, :math:`v^T A v`."""
        v, m = self.others(a), a.prod(axis=-1)
        square = (v**2).sum(axis=-1)
        # Σ_{i≠j} v_i v_j a_k, with v_i v_j = m a_k
        mixed = 2 * m * (a**2).sum(axis=-1)
        curvature = self.variance * square**2 - self.variance * (self.sigma - m) * mixed + self.decay * square
        value = self.temperature * (square + self.step * curvature)
        if self.minibatch is not None:
            value = value + np.asarray(self.minibatch.strength(m)) * square**2
        return np.asarray(np.maximum(value, 0.0))

    def kept(self, a: Array) -> NDArray[np.bool_]:
        """Whether a point is low enough in energy to matter."""
        m = a.prod(axis=-1)
        energy = self.energy(a)
        # On the way down from the barrier only the neighbourhood of the balanced path is visited
        lowest = 0.5 * self.variance * (self.sigma - m) ** 2 + 1.5 * self.decay * np.abs(m) ** (2 / 3)
        beyond = self.sign * (m - self.crest) > 0
        return np.asarray(np.where(beyond, energy <= lowest + self.margin, energy <= self.ceiling))

    def reach(self) -> float:
        """Bound on the distance in m by which a watched target moves away."""
        if not self.shift:
            return 0.0
        border = np.full(3, np.cbrt(abs(self.threshold)))
        return float(2 * self.shift * np.sqrt(2 * self.step * self.normal_diffusion(border)))

    def radius(self) -> float:
        """No kept point outside the target lies further from the origin."""
        # Above: m < threshold leaves at least ½q(σ − threshold)² of the energy to the loss
        border = self.threshold + self.reach() if self.sign > 0 else self.sigma
        loss = 0.5 * self.variance * max(self.sigma - border, 0.0) ** 2
        near = 2 / self.decay * max(self.ceiling - loss, 0.0)
        far = 3 * max(border, 0.0) ** (2 / 3) + 2 * self.margin / self.decay if self.sign > 0 else 0.0
        return float(np.sqrt(max(near, far)))


@dataclass(frozen=True, eq=False)
class ChainGenerator:
    """Killed backward generator on the reduced grid.

    Attributes
    ----------
    spacing : float
    table : ndarray of int
        Node number of each canonical grid point, −1 where there is none.
    offset : int
        Added to the third index.
    rates : sparse matrix, shape (node, node)
        Rates between nodes (links of a node to its own orbit left out).
    killing : ndarray, shape (node,)
        Rate into the target.
    """

    spacing: float
    table: Integers
    offset: int
    rates: sp.csr_matrix
    killing: Array

    def node(self, points: Integers) -> Integers:
        """Node numbers of grid points (..., 3), −1 where there is none."""
        inside = np.asarray((np.abs(points) <= self.offset).all(axis=-1))
        canonical = canonical_points(np.where(inside[..., None], points, 0))
        found = self.table[canonical[..., 0], canonical[..., 1], canonical[..., 2] + self.offset]
        return np.where(inside, found, -1)


def canonical_points(points: Integers) -> Integers:
    """Representative of each orbit: moduli descending, the product's sign on the last."""
    ordered = -np.sort(-np.abs(points), axis=-1)
    negative = (points < 0).sum(axis=-1) % 2 == 1
    ordered[..., 2] = np.where(negative, -ordered[..., 2], ordered[..., 2])
    return ordered


def _directions(problem: ChainProblem) -> Iterator[Integers]:
    for axis, sign in product(range(3), (1, -1)):
        yield sign * np.eye(3, dtype=np.int64)[axis]
    if problem.step or problem.minibatch is not None:
        for (i, j), si, sj in product(combinations(range(3), 2), (1, -1), (1, -1)):
            yield si * np.eye(3, dtype=np.int64)[i] + sj * np.eye(3, dtype=np.int64)[j]


def _domain(problem: ChainProblem, spacing: float) -> tuple[Integers, Integers, int]:
    """Canonical grid points outside the target, the table of their numbers, and its offset."""
    n = int(problem.radius() / spacing) + 2
    i, j = np.tril_indices(n + 1)
    counts = 2 * j + 1
    k = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts + j, counts)
    points = np.stack([np.repeat(i, counts), np.repeat(j, counts), k], axis=1).astype(np.int64)
    a = np.asarray(points * spacing, dtype=np.float64)
    points = points[np.logical_and(problem.kept(a), problem.level(a) < 0)]
    table = np.full((n + 1, n + 1, 2 * n + 1), -1, dtype=np.int64)
    table[points[:, 0], points[:, 1], points[:, 2] + n] = np.arange(len(points))
    return points, table, n


def count_nodes(problem: ChainProblem, spacing: float) -> int:
    """Number of nodes that a grid of this spacing would have."""
    return len(_domain(problem, spacing)[0])


def _crossing(problem: ChainProblem, a: Array, move: Array) -> Array:
    """Fraction of each link at which it enters the target, by the Illinois method."""
    low, high, middle = np.zeros(len(a)), np.ones(len(a)), np.ones(len(a))
    at_low, at_high = problem.level(a), np.maximum(problem.level(a + move), 0.0)
    for _ in range(6):
        middle = low + (high - low) * at_low / (at_low - at_high)
        value = problem.level(a + middle[:, None] * move)
        outside = value < 0
        # The end that stays has its value halved, so that both ends close in
        at_low, at_high = np.where(outside, value, at_low / 2), np.where(outside, at_high / 2, value)
        low, high = np.where(outside, middle, low), np.where(outside, high, middle)
    shortest = SHORTEST_LINK if np.count_nonzero(move) == 1 else SHORTEST_DIAGONAL
    return np.clip(middle, shortest, 1.0)


def build_chain_generator(problem: ChainProblem, spacing: float, anchor: Array) -> tuple[ChainGenerator, int]:
    """Build the generator on the part of the grid connected to `anchor`; return it and the anchor's node."""
    points, table, offset = _domain(problem, spacing)
    frame = ChainGenerator(spacing, table, offset, sp.csr_matrix((0, 0)), np.zeros(0))
    links = [_link(problem, frame, points, direction) for direction in _directions(problem)]
    # Off-diagonal diffusion is a difference of diagonal links. Where some are cut off (nodes left out) or a
    # negative one leads into the target, the rest alone would be unstable: there only the axes are kept.
    ragged = np.zeros(len(points), dtype=bool)
    for link in links[6:]:
        ragged |= (link.neighbour < 0) & (~link.entering | (link.rate < 0))
    for link in links[6:]:
        link.rate[ragged] = 0.0
    killing = np.zeros(len(points))
    for link in links:
        killing += np.where(link.entering, link.rate, 0.0)
    inner = [np.flatnonzero(link.neighbour >= 0) for link in links]
    values = np.concatenate([link.rate[i] for link, i in zip(links, inner, strict=True)])
    columns = np.concatenate([link.neighbour[i] for link, i in zip(links, inner, strict=True)])
    rates = sp.csr_matrix((values, (np.concatenate(inner), columns)), (len(points), len(points)))
    rates.setdiag(0.0)
    rates.eliminate_zeros()
    return _connected(ChainGenerator(spacing, table, offset, rates, killing), anchor)


@dataclass(frozen=True, eq=False)
class _Link:
    """Links of all nodes in one direction: neighbour (−1: none), whether they enter the target, rate."""

    neighbour: Integers
    entering: NDArray[np.bool_]
    rate: Array


def _link(problem: ChainProblem, frame: ChainGenerator, points: Integers, direction: Integers) -> _Link:
    spacing = frame.spacing
    a: Array = np.asarray(points * spacing, dtype=np.float64)
    move: Array = np.asarray(direction * spacing, dtype=np.float64)
    neighbour = frame.node(points + direction)
    entering = (problem.level(a + move) >= 0) & (neighbour < 0)
    fraction = np.ones(len(points))
    fraction[entering] = _crossing(problem, a[entering], move)
    end = a + fraction[:, None] * move
    boltzmann = np.exp((problem.potential(a) - problem.potential(end)) / (2 * problem.temperature))
    rate = problem.mobility((a + end) / 2, direction) * boltzmann
    if problem.minibatch is not None:
        rate = rate + problem.minibatch_mobility(a, direction)
    return _Link(neighbour, entering, rate / (fraction * spacing**2))


def _connected(generator: ChainGenerator, anchor: Array) -> tuple[ChainGenerator, int]:
    home = int(generator.node(np.rint(anchor / generator.spacing).astype(np.int64)))
    _, labels = connected_components(generator.rates, directed=False)
    keep = np.flatnonzero(labels == labels[home])
    renumber = np.full(len(labels) + 1, -1, dtype=np.int64)
    renumber[keep] = np.arange(len(keep))
    reduced = ChainGenerator(
        generator.spacing,
        renumber[generator.table],
        generator.offset,
        generator.rates[keep][:, keep].tocsr(),
        generator.killing[keep],
    )
    return reduced, int(renumber[home])
