r"""Symmetries of a model's energy: which points are copies of each other, and how many copies there are.

An escape rate counts every copy of the saddle around a minimum, and a copy of a minimum is no other state. Hidden units
can be permuted; those of an odd activation can change sign; linear ones can be rotated, so that a stationary point is
a whole orbit of volume

.. math:: \mathrm{Vol} = \prod_l \frac{|O(h_l)|}{|O(h_l - r_l)|}\,\sqrt{\det{}' G},

G the Gram matrix of the directions in which rotations move the point and :math:`r_l` the number of dimensions of layer
l that it uses (the rest of :math:`O(h_l)` leaves it alone). Where the group is finite the volume is the number of
copies, :math:`|\mathcal G|/|\mathrm{Stab}|`, and the rate out of a minimum counts
:math:`|\mathrm{Stab}_m|/|\mathrm{Stab}_m\cap\mathrm{Stab}_s|` saddles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import ortho_group
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.landscape.surface import as_point
from kramers_grok.landscape.symmetries.automorphisms import UnitGraph, weight_labels
from kramers_grok.landscape.symmetries.listed_orbits import SignedMap, checked_map, finite_generators, images, orbit
from kramers_grok.landscape.symmetries.units import UnitLayer
from kramers_grok.theory.orbits import log_stiefel_volume

__all__ = ["TOLERANCE", "Symmetry"]

Array = NDArray[np.float64]

#: Weights closer than this fraction of the largest one are equal.
TOLERANCE = 1e-6

# Directions shorter than this fraction of the weights' size turn weights that are not there.
_RANK = 1e-6
_SWEEPS = 50
_RESTARTS = 24


@dataclass(frozen=True, eq=False)
class Symmetry:
    """The symmetries of an energy.

    `symmetry_of` finds them; make one by hand for a model that it does not know.

    Parameters
    ----------
    n_parameters : int
    layers : tuple of UnitLayer
        Layers of interchangeable units.
    maps : tuple of (order, signs)
        Further permutations of the parameters with signs, each with the image ``signs * theta[order]``; together with
        the layers they generate a group.
    fingerprint : callable, optional
        Numbers that no symmetry changes, such as the outputs on the data: (point, parameter) to (point, number). Where
        layers rotate they decide which stationary points are copies.

    Examples
    --------
    Two units of a network with one input and one output; parameters are w_1, w_2, v_1, v_2:

    >>> from kramers_grok.landscape.symmetries.units import hidden_layers
    >>> tanh = Symmetry(4, hidden_layers((1, 2, 1), flips="odd"))
    >>> tanh.same_up_to([1.0, 2.0, 3.0, 4.0], [-2.0, 1.0, -4.0, 3.0])
    True
    >>> both, one = [1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 1.0, 0.0]
    >>> [round(math.exp(tanh.log_orbit_volume(point))) for point in (both, one, [0.0] * 4)]
    [4, 4, 1]
    >>> round(math.exp(tanh.log_multiplicity([0.0] * 4, both)))
    4
    """

    n_parameters: int
    layers: tuple[UnitLayer, ...] = ()
    maps: tuple[SignedMap, ...] = ()
    fingerprint: Callable[[Array], Array] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_parameters", checks.positive_int("n_parameters", self.n_parameters))
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "maps", tuple(checked_map(m, self.n_parameters) for m in self.maps))

    # ---------------------------------------------------------------- what it is

    @property
    def is_continuous(self) -> bool:
        """Whether layers rotate, so that stationary points have zero modes."""
        return any(layer.rotates for layer in self.layers)

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of units of each layer."""
        return tuple(layer.width for layer in self.layers)

    @property
    def softened(self) -> Symmetry:
        """The same layers with all their rotations, which an activation breaks: soft directions of small weights."""
        return replace(self, layers=tuple(replace(layer, rotates=True) for layer in self.layers), maps=())

    @cached_property
    def _graph(self) -> UnitGraph:
        return UnitGraph(self.layers)

    def __repr__(self) -> str:
        what = [
            f"{layer.width} units ({'rotations' if layer.rotates else 'signs' if layer.flips is not None else 'order'})"
            for layer in self.layers
        ]
        what += [f"{len(self.maps)} maps"] if self.maps else []
        return f"Symmetry({self.n_parameters} parameters: {', '.join(what) or 'none'})"

    # ---------------------------------------------------------------- rotations

    def tangents(self, theta: Tensor) -> Tensor:
        """Directions in which the rotations move points, shape (replica, generator, parameter).

        Generators are the pairs of units of the first layer that rotates, (0, 1), (0, 2), …, then of the next; at the
        angle ω a point has moved by ω times its vector to first order.

        Parameters
        ----------
        theta : Tensor, shape (replica, parameter)
        """
        parts = [layer.tangents(theta) for layer in self.layers if layer.rotates]
        return torch.cat(parts, dim=1) if parts else theta.new_zeros((len(theta), 0, theta.shape[1]))

    def generators(self, theta: ArrayLike) -> Array:
        """`tangents` of one point, shape (generator, parameter).

        Parameters
        ----------
        theta : array_like, shape (parameter,)
        """
        point = torch.from_numpy(self._point("theta", theta).copy())
        return np.asarray(self.tangents(point[None])[0].numpy())

    def rotated(self, theta: Tensor, rotations: Sequence[Tensor]) -> Tensor:
        """Image of points under a rotation of every layer that rotates, shape (replica, parameter).

        Parameters
        ----------
        theta : Tensor, shape (replica, parameter)
        rotations : sequence of Tensor, each of shape (replica or 1, h, h)
            One orthogonal matrix for each layer that rotates, as from `haar`.
        """
        for layer, rotation in zip((v for v in self.layers if v.rotates), rotations, strict=True):
            theta = layer.rotated(theta, rotation)
        return theta

    def haar(self, n: int, *, seed: int | np.random.Generator) -> list[Tensor]:
        """Draw rotations evenly over the group, reflections included: one (n, h, h) for each layer that rotates."""
        rng = np.random.default_rng(seed)
        return [_haar(n, layer.width, rng) for layer in self.layers if layer.rotates]

    def zero_modes(self, theta: ArrayLike) -> Array:
        """Orthonormal directions along the orbit of a point, shape (zero mode, parameter).

        Parameters
        ----------
        theta : array_like, shape (parameter,)
        """
        point = self._point("theta", theta)
        tangents = self.generators(point)
        if not len(tangents):
            return np.zeros((0, self.n_parameters))
        _, lengths, rows = np.linalg.svd(tangents, full_matrices=False)
        return np.asarray(rows[lengths > _RANK * max(float(np.linalg.norm(point)), np.finfo(float).tiny)])

    # ---------------------------------------------------------------- copies

    def log_orbit_volume(self, theta: ArrayLike, *, scale: float | None = None, tolerance: float = TOLERANCE) -> float:
        """Logarithm of the number of copies of a point, or of the volume of its orbit [weight^zero modes].

        Parameters
        ----------
        theta : array_like, shape (parameter,)
            A stationary point, to better than `tolerance`.
        scale : float, optional
            Natural size of the weights; by default the largest of this point. At the state 0 give that of another one,
            or its rounding counts as weights.
        tolerance : float
            Weights closer than this fraction of the scale are equal.

        Raises
        ------
        InvalidParameterError
            If some layers rotate and others do not, or rotations of two layers together leave the point alone that
            neither does alone (no stationary point with weight decay is such).
        """
        point = self._point("theta", theta)
        size = _size(point) if scale is None else checks.positive("scale", scale)
        if self.is_continuous:
            return self._log_volume(point, size)
        if self.maps:
            return math.log(len(self._orbit(point[None], tolerance * size)))
        whole = sum(
            math.lgamma(layer.width + 1) + (0.0 if layer.flips is None else layer.width * math.log(2))
            for layer in self.layers
        )
        return whole - self._log_stabiliser(point[None], tolerance * size)

    def log_multiplicity(self, minimum: ArrayLike, saddle: ArrayLike, *, tolerance: float = TOLERANCE) -> float:
        r"""Logarithm of the number of copies of a saddle around one minimum, what a rate's prefactor has to hold.

        With continuous symmetries the ratio of the orbits' volumes, :math:`\ln(\mathrm{Vol}_s/\mathrm{Vol}_m)`.

        Parameters
        ----------
        minimum, saddle : array_like, shape (parameter,)
            A minimum and a saddle next to it.
        tolerance : float
            As in `log_orbit_volume`.
        """
        low, top = self._point("minimum", minimum), self._point("saddle", saddle)
        pair = np.stack([low, top])
        size = _size(pair)
        if self.is_continuous:
            return self._log_volume(top, size) - self._log_volume(low, size)
        grain = tolerance * size
        if self.maps:
            return math.log(len(self._orbit(pair, grain))) - math.log(len(self._orbit(low[None], grain)))
        return self._log_stabiliser(low[None], grain) - self._log_stabiliser(pair, grain)

    def same_up_to(self, a: ArrayLike, b: ArrayLike, *, tolerance: float = TOLERANCE) -> bool:
        """Whether two points are one up to the symmetries.

        Where layers rotate, points have to be stationary (with weight decay): two such are copies if they compute the
        same function.
        """
        one, other = self._point("a", a), self._point("b", b)
        grain = tolerance * _size(np.stack([one, other]))
        if self.is_continuous:
            return self._same_function(one, other, tolerance)
        if np.abs(one - other).max() <= grain:
            return True
        if np.abs(np.sort(np.abs(one)) - np.sort(np.abs(other))).max() > grain:
            return False
        if self.maps:
            labels = weight_labels(np.stack([one, other]), grain)
            return any(
                np.array_equal(label, labels[1:]) for _, label in images(one[None], labels[:1], self._finite_generators)
            )
        return self._graph.carrying(one, other, grain) is not None

    def closest(self, theta: ArrayLike, to: ArrayLike) -> Array:
        """Copy of a point close to another one, shape (parameter,): the copy that a path should lead to.

        Layer by layer the best order and signs (an assignment problem) or rotation, until nothing moves closer, from
        some random copies: with several hidden layers a closer one may still exist.
        """
        point, other = self._point("theta", theta), self._point("to", to)
        if self.maps and not self.layers:
            copies = self._orbit(point[None], TOLERANCE * _size(point))
            return np.asarray(min((c[0] for c in copies), key=lambda c: float(np.linalg.norm(c - other))))
        best = self._descended(point, other)
        if len(self.layers) > 1:
            rng, widths = np.random.default_rng(0), [v.width for v in self.layers]
            for _ in range(_RESTARTS):
                start = point
                for layer, width in zip(self.layers, widths, strict=True):
                    turned = np.ones(width) if layer.flips is None else rng.choice([-1.0, 1.0], width)
                    start = layer.moved(start, rng.permutation(width), turned)
                found = self._descended(start, other)
                if np.linalg.norm(found - other) < np.linalg.norm(best - other) * (1 - 1e-9):
                    best = found
        return best

    def _descended(self, point: Array, other: Array) -> Array:
        """Copy to which the best images of one layer after the other lead."""
        distance = float(np.linalg.norm(point - other))
        for _ in range(_SWEEPS):
            moved = point
            for layer in self.layers:
                moved = layer.closest(moved, other)
            nearer = float(np.linalg.norm(moved - other))
            if nearer >= distance * (1 - 1e-12):
                break
            point, distance = moved, nearer
        return point

    def cluster(self, points: ArrayLike, *, tolerance: float = TOLERANCE) -> NDArray[np.int64]:
        """Number of the class of each point, shape (point,): classes are numbered as they first appear.

        Parameters
        ----------
        points : array_like, shape (point, parameter)
        """
        rows = [self._point("points", row) for row in np.atleast_2d(np.asarray(points, dtype=np.float64))]
        found: list[Array] = []
        numbers = []
        for row in rows:
            number = next(
                (n for n, known in enumerate(found) if self.same_up_to(known, row, tolerance=tolerance)), len(found)
            )
            if number == len(found):
                found.append(row)
            numbers.append(number)
        return np.array(numbers, dtype=np.int64)

    # ---------------------------------------------------------------- inside

    @cached_property
    def _finite_generators(self) -> list[SignedMap]:
        return finite_generators(self.n_parameters, self.layers, self.maps)

    def _orbit(self, points: Array, grain: float) -> list[Array]:
        """All images of some points together, each of the shape of `points`."""
        return orbit(points, self._finite_generators, grain)

    def _point(self, name: str, theta: ArrayLike) -> Array:
        return as_point(name, theta, self.n_parameters)

    def _log_stabiliser(self, points: Array, grain: float) -> float:
        return self._graph.log_stabiliser(points, grain) if self.layers else 0.0

    def _same_function(self, one: Array, other: Array, tolerance: float) -> bool:
        if self.fingerprint is None:
            raise InvalidParameterError(
                "Layers rotate and `fingerprint` is None, expected numbers that no rotation changes: copies of a point "
                "fill an orbit, on which points are told apart by what they compute.\n"
                "Use `Symmetry(…, fingerprint=outputs)`."
            )
        seen = self.fingerprint(np.stack([one, other]))
        unit = max(float(np.abs(seen).max()), np.finfo(float).tiny)
        sizes = np.linalg.norm([one, other], axis=1)
        # Of two functions alike the lengths differ too, if one of them is not at the bottom of its valley.
        alike = abs(sizes[0] - sizes[1]) <= tolerance * max(float(sizes.max()), np.finfo(float).tiny)
        return bool(alike and np.abs(seen[0] - seen[1]).max() <= tolerance * unit)

    def _log_volume(self, point: Array, size: float) -> float:
        if self.maps or not all(layer.rotates or layer.is_sign for layer in self.layers):
            raise InvalidParameterError(
                "Some layers rotate and others have permutations and signs only, expected one kind: the copies of a "
                "point under both are not counted.\nMerge linear layers that follow each other into one."
            )
        total, unmoved = 0.0, 0
        for layer in self.layers:
            used = int((np.linalg.svd(point[layer.members], compute_uv=False) > _RANK * size).sum())
            total += log_stiefel_volume(used, layer.width)
            unmoved += (layer.width - used) * (layer.width - used - 1) // 2
        tangents = self.generators(point)
        lengths = np.linalg.svd(tangents, compute_uv=False) if len(tangents) else np.zeros(0)
        moving = lengths[lengths > _RANK * size]
        if len(tangents) - len(moving) != unmoved:
            raise InvalidParameterError(
                f"{len(tangents) - len(moving)} rotations leave this point alone, expected {unmoved} by the ranks of "
                "its layers: rotations of several layers act together here, and the orbit's volume is not known.\n"
                "Use a stationary point, converged further."
            )
        return total + float(np.log(moving).sum())


def _size(points: Array) -> float:
    """Largest weight, or a tiny number where all are 0."""
    return max(float(np.abs(points).max()), np.finfo(float).tiny)


def _haar(n: int, width: int, rng: np.random.Generator) -> Tensor:
    if width == 1:
        return torch.from_numpy(rng.choice([-1.0, 1.0], size=(n, 1, 1)))
    return torch.from_numpy(np.asarray(ortho_group.rvs(width, size=n, random_state=rng)).reshape(n, width, width))
