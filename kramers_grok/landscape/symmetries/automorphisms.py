r"""Permutations and changes of sign of hidden units that leave a point in parameter space where it is.

They are the automorphisms of a labelled graph: units are its vertices, weights its labels. Widths of 16 have
:math:`16!\,2^{16}` permutations and signs, so they are not tried out: units are told apart by their labels as far as
possible (colour refinement: Weisfeiler & Leman 1968), what is left is searched with backtracking, and the order of the
group is the product of the orbits' lengths along a chain of stabilisers (Schreier and Sims).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.landscape.symmetries.units import UnitLayer

__all__ = ["Element", "UnitGraph", "weight_labels"]

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Unit = tuple[int, int]  # number of the layer, number of the unit
_Place = tuple[int, int, int]  # the same, and the column of the table

# Images tried before a search gives up: networks of some hundred units need a few per unit.
_PATIENCE = 200_000
_CHAINED = 4.0


@dataclass(frozen=True, eq=False)
class Element:
    """A group element: unit i of layer l goes to place ``orders[l][i]`` with the sign ``signs[l][i]``."""

    orders: tuple[Integers, ...]
    signs: tuple[Array, ...]

    def applied(self, layers: Sequence[UnitLayer], theta: Array) -> Array:
        """Image of a point, shape (parameter,)."""
        for layer, order, signs in zip(layers, self.orders, self.signs, strict=True):
            theta = layer.moved(theta, order, signs)
        return theta


@dataclass(frozen=True, eq=False)
class _Link:
    """Weights between the units of two layers: parameter numbers (kind, unit, unit) and which signs they feel."""

    weights: Integers
    first_flips: NDArray[np.bool_]  # (kind,)
    second_flips: NDArray[np.bool_]


class UnitGraph:
    """The graph of some layers of units.

    Parameters
    ----------
    layers : sequence of UnitLayer
        No two of which hold more than single weights in common: a weight leads from one unit to another.

    Raises
    ------
    InvalidParameterError
        If a parameter belongs to units of more than two layers.
    """

    def __init__(self, layers: Sequence[UnitLayer]) -> None:
        self.layers = tuple(layers)
        self.units: list[Unit] = [(l, i) for l, layer in enumerate(self.layers) for i in range(layer.width)]
        places = _places(self.layers)
        self._own = [
            np.array([c for c, p in enumerate(layer.members[0].tolist()) if len(places[p]) == 1], dtype=int)
            for layer in self.layers
        ]
        self._links = self._linked(places)

    def _linked(self, places: dict[int, list[_Place]]) -> dict[tuple[int, int], _Link]:
        kinds = self._kinds(max(places, default=-1) + 1)
        cells: dict[tuple[int, int], dict[int, Integers]] = {}
        turns: dict[tuple[int, int], dict[int, list[bool]]] = {}
        for p, where in places.items():
            if len(where) < 2:
                continue
            (l, i, c), (k, j, d) = sorted(where)
            shape, kind = (self.layers[l].width, self.layers[k].width), int(kinds[p])
            cells.setdefault((l, k), {}).setdefault(kind, np.zeros(shape, dtype=np.int64))[i, j] = p
            turns.setdefault((l, k), {})[kind] = [bool(self.layers[n].signs[e] < 0) for n, e in ((l, c), (k, d))]
        links = {}
        for pair, by_kind in cells.items():
            signs = np.array([turns[pair][kind] for kind in by_kind], dtype=bool)
            links[pair] = _Link(np.array(list(by_kind.values())), signs[:, 0], signs[:, 1])
        return links

    def _kinds(self, size: int) -> Integers:
        """Number of a class of parameters that permutations of units carry into each other, shape (parameter,)."""
        ends = [
            (np.repeat(layer.members[:1], layer.width, axis=0).ravel(), layer.members.ravel()) for layer in self.layers
        ]
        rows, columns = (np.concatenate([e[k] for e in ends] or [np.zeros(0, int)]) for k in (0, 1))
        graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size))
        return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)

    # ---------------------------------------------------------------- questions

    def log_stabiliser(self, points: Array, tolerance: float) -> float:
        """Logarithm of the number of elements that leave all of some points alone.

        Parameters
        ----------
        points : ndarray, shape (point, parameter)
        tolerance : float
            Weights closer than this are equal [weight].
        """
        labels = weight_labels(points, tolerance)
        colours = self._colours([labels])[0]
        sizes: dict[int, int] = {}
        for unit in self.units:
            sizes[colours[unit]] = sizes.get(colours[unit], 0) + 1
        # Units that nothing is like are placed first: what cannot work is noticed before anything is tried.
        base = sorted(self.units, key=lambda unit: sizes[colours[unit]])
        search = _Search(self, labels, labels, colours, colours)
        total, generators = 0.0, list[dict[tuple[Unit, int], tuple[Unit, int]]]()
        for level in range(len(base) - 1, -1, -1):
            unit, fixed = base[level], {u: (u, 1) for u in base[:level]}
            orbit, refused = _orbit((unit, 1), generators), set[tuple[Unit, int]]()
            for candidate in search.candidates(unit):
                if candidate[0] in fixed or candidate in orbit or candidate in refused:
                    continue
                found = search.run(base, fixed | {unit: candidate})
                if found is None:
                    refused.add(candidate)
                    continue
                generators.append({(u, s): (image, s * turn) for u, (image, turn) in found.items() for s in (1, -1)})
                orbit = _orbit((unit, 1), generators)
            total += math.log(len(orbit))
        return total

    def carrying(self, theta: Array, to: Array, tolerance: float) -> Element | None:
        """Return an element that takes `theta` to `to`, or None if there is none."""
        both = weight_labels(np.stack([theta, to]), tolerance)
        first, second = both[:1], both[1:]
        one, other = self._colours([first, second])
        if sorted(one.values()) != sorted(other.values()):
            return None
        counts = {c: list(one.values()).count(c) for c in set(one.values())}
        base = sorted(self.units, key=lambda unit: counts[one[unit]])
        found = _Search(self, first, second, one, other).run(base, {})
        if found is None:
            return None
        orders = tuple(np.array([found[(l, i)][0][1] for i in range(v.width)]) for l, v in enumerate(self.layers))
        signs = tuple(np.array([float(found[(l, i)][1]) for i in range(v.width)]) for l, v in enumerate(self.layers))
        element = Element(orders, signs)
        # Labels may chain values further apart, and parameters of no unit have none.
        off = np.abs(element.applied(self.layers, theta) - to).max()
        return element if off <= _CHAINED * tolerance else None

    # ---------------------------------------------------------------- colours

    def _colours(self, several: list[Integers]) -> list[dict[Unit, int]]:
        """Refined colours of the units under each of several labellings, comparable with each other."""
        names: dict[object, int] = {}
        now = [{u: names.setdefault(self._alone(labels, u), len(names)) for u in self.units} for labels in several]
        for _ in range(len(self.units)):
            names = {}
            new = [
                {u: names.setdefault(self._among(labels, u, before), len(names)) for u in self.units}
                for labels, before in zip(several, now, strict=True)
            ]
            done = all(len(set(a.values())) == len(set(b.values())) for a, b in zip(now, new, strict=True))
            now = new
            if done:
                break
        return now

    def _alone(self, labels: Integers, unit: Unit) -> tuple[object, ...]:
        """What distinguishes a unit by itself, whatever its sign."""
        l, i = unit
        columns = self._own[l]
        seen = labels[:, self.layers[l].members[i, columns]]
        turned = seen * self.layers[l].signs[columns].astype(np.int64)
        return (l, max(tuple(seen.ravel().tolist()), tuple(turned.ravel().tolist())))

    def _among(self, labels: Integers, unit: Unit, colours: dict[Unit, int]) -> tuple[object, ...]:
        """Its colour and those of its neighbours, with the sizes of the weights to them."""
        l, i = unit
        neighbours = []
        for (one, other), link in self._links.items():
            if l in (one, other):
                far = other if l == one else one
                weights = np.abs(labels[:, link.weights[:, i] if l == one else link.weights[:, :, i]])
                seen = [tuple(weights[:, :, j].ravel().tolist()) for j in range(self.layers[far].width)]
                neighbours.append(tuple(sorted((colours[(far, j)], s) for j, s in enumerate(seen))))
        return (colours[unit], tuple(neighbours))


def _places(layers: Sequence[UnitLayer]) -> dict[int, list[_Place]]:
    """Where each parameter stands in the tables."""
    places: dict[int, list[_Place]] = {}
    for l, layer in enumerate(layers):
        for i, row in enumerate(layer.members.tolist()):
            for c, p in enumerate(row):
                places.setdefault(p, []).append((l, i, c))
    if any(len(found) > 2 for found in places.values()):
        raise InvalidParameterError(
            "A parameter belongs to units of more than two layers, expected two at most: a weight leads from one unit "
            "to another."
        )
    return places


class _Search:
    """Backtracking over images of units, from one labelling to another."""

    def __init__(
        self, graph: UnitGraph, source: Integers, target: Integers, one: dict[Unit, int], other: dict[Unit, int]
    ) -> None:
        self.graph, self.source, self.target, self.one = graph, source, target, one
        self.by_colour: dict[int, list[Unit]] = {}
        for unit in graph.units:
            self.by_colour.setdefault(other[unit], []).append(unit)
        self.tried = 0

    def candidates(self, unit: Unit) -> list[tuple[Unit, int]]:
        """Images that a unit's colour allows."""
        signs = (1,) if self.graph.layers[unit[0]].flips is None else (1, -1)
        return [(image, s) for image in self.by_colour.get(self.one[unit], []) for s in signs]

    def run(self, base: list[Unit], given: dict[Unit, tuple[Unit, int]]) -> dict[Unit, tuple[Unit, int]] | None:
        """Complete a partial map, or return None."""
        images: dict[Unit, tuple[Unit, int]] = {}
        for unit, image in given.items():
            if not self._fits(unit, image, images):
                return None
            images[unit] = image
        self.tried = 0
        return self._extend([u for u in base if u not in given], images)

    def _extend(self, left: list[Unit], images: dict[Unit, tuple[Unit, int]]) -> dict[Unit, tuple[Unit, int]] | None:
        if not left:
            return dict(images)
        unit, taken = left[0], {image for image, _ in images.values()}
        for candidate in self.candidates(unit):
            if candidate[0] in taken:
                continue
            self.tried += 1
            if self.tried > _PATIENCE:
                raise InvalidParameterError(
                    "The symmetries of this point could not be counted: too many units look alike without being "
                    "interchangeable.\nPerturb the point, or give the multiplicity yourself."
                )
            if self._fits(unit, candidate, images):
                images[unit] = candidate
                found = self._extend(left[1:], images)
                if found is not None:
                    return found
                del images[unit]
        return None

    def _fits(self, unit: Unit, image: tuple[Unit, int], images: dict[Unit, tuple[Unit, int]]) -> bool:
        """Whether a unit's own weights and those to the units placed before agree."""
        (l, i), ((_, x), sign) = unit, image
        layer, columns = self.graph.layers[l], self.graph._own[l]
        turned = np.where((layer.signs[columns] < 0) & (sign < 0), -1, 1)
        a, b = self.source[:, layer.members[i, columns]], self.target[:, layer.members[x, columns]]
        if not np.array_equal(a * turned, b):
            return False
        for (one, other), link in self.graph._links.items():
            if l not in (one, other):
                continue
            far = other if l == one else one
            placed = [(j, *images[(far, j)]) for j in range(self.graph.layers[far].width) if (far, j) in images]
            if not placed:
                continue
            here, there = np.array([j for j, _, _ in placed]), np.array([w[1] for _, w, _ in placed])
            signs = np.array([s for _, _, s in placed])
            weights = link.weights if l == one else link.weights.transpose(0, 2, 1)
            mine, theirs = (link.first_flips, link.second_flips)[:: 1 if l == one else -1]
            factor = np.where(mine & (sign < 0), -1, 1)[:, None] * np.where(theirs[:, None] & (signs < 0), -1, 1)
            if not np.array_equal(self.source[:, weights[:, i, here]] * factor, self.target[:, weights[:, x, there]]):
                return False
        return True


def _orbit(
    start: tuple[Unit, int], generators: list[dict[tuple[Unit, int], tuple[Unit, int]]]
) -> set[tuple[Unit, int]]:
    seen, waiting = {start}, [start]
    while waiting:
        at = waiting.pop()
        for generator in generators:
            image = generator[at]
            if image not in seen:
                seen.add(image)
                waiting.append(image)
    return seen


def weight_labels(points: Array, tolerance: float) -> Integers:
    """Whole numbers for weights: equal for equal ones, opposite for opposite ones, 0 for 0; shape of `points`."""
    sizes = np.abs(points).ravel()
    order = np.argsort(sizes)
    steps = np.diff(sizes[order], prepend=0.0) > tolerance
    numbers = np.empty(len(sizes), dtype=np.int64)
    numbers[order] = np.cumsum(steps)
    return np.asarray(numbers.reshape(points.shape) * np.sign(points).astype(np.int64))
