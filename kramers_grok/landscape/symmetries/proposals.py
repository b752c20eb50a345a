r"""Symmetries proposed from the shapes of parameters, and probed.

Nothing in a torch module says which of its units are interchangeable. Axes of parameters that have one length may
number the same units, as the rows of one weight matrix, the entries of its bias and the columns of the next matrix do:
such sets are proposed, and those kept under which the model's outputs do not change at random parameters. What is kept
therefore is a symmetry; what is not proposed is missed, and its copies are not counted: in modules with many axes of
one length, units that are joined by more than five of them or by parameters far apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import ortho_group
from torch import Tensor

from kramers_grok.landscape.symmetries.listed_orbits import SignedMap
from kramers_grok.landscape.symmetries.units import UnitLayer
from kramers_grok.models.activations import Activation
from kramers_grok.models.base import SymbolicModel

__all__ = ["close", "coordinate_maps", "parity", "proposed", "random_points"]

Array = NDArray[np.float64]
Axis = tuple[int, int]  # number of a parameter, number of one of its axes
Outputs = Callable[[Tensor], Tensor]

# Axes of one length whose sets are all tried; of more only those of few axes of parameters near each other.
_FEW_AXES = 9
# A layer of units has weights in and out, a bias, and perhaps two parameters of a normalisation.
_LARGEST_SET = 5
# Parameters that follow each other, within which a set lies.
_WINDOW = 6
_POINTS = 6
_SEED = 20
_EQUAL = 1e-9


def parity(activation: Activation) -> tuple[str | None, bool]:
    """Whether an activation function is "odd", "even" or neither, and whether it is linear.

    Examples
    --------
    >>> from kramers_grok.models.activations import GELU, Identity, Quadratic, Tanh
    >>> parity(Tanh()), parity(Quadratic()), parity(GELU()), parity(Identity())
    (('odd', False), ('even', False), (None, False), ('odd', True))
    """
    z = torch.linspace(-3.0, 3.0, 101, dtype=torch.float64)
    up, down = activation.value(z), activation.value(-z)
    linear = close(up, activation.value(torch.ones_like(z)) * z)
    return "odd" if close(up, -down) else "even" if close(up, down) else None, linear


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two results are equal up to rounding."""
    return bool((a - b).abs().max() <= _EQUAL * max(float(a.abs().max()), 1e-300))


def random_points(size: int, count: int = _POINTS) -> Tensor:
    """Fixed points to probe at, shape (point, parameter)."""
    return torch.from_numpy(np.random.default_rng(_SEED).normal(size=(count, size)))


# ---------------------------------------------------------------- modules


def proposed(
    shapes: Sequence[tuple[int, ...]], outputs: Outputs
) -> tuple[tuple[UnitLayer, ...], tuple[SignedMap, ...]]:
    """Propose layers of interchangeable units and keep those that leave the outputs alone.

    Parameters
    ----------
    shapes : sequence of tuple of int
        Shapes of the parameters, in the order in which they stand in `theta`.
    outputs : callable
        (replica, parameter) to (replica, ...).

    Returns
    -------
    layers : tuple of UnitLayer
    maps : tuple of (order, signs)
        Exchanges and signs of units that both axes of one parameter number, as behind a residual connection.

    Examples
    --------
    A product of two matrices, whose inner dimension is a layer of linear units:

    >>> def product(theta):
    ...     return theta[:, 6:].reshape(-1, 2, 3) @ theta[:, :6].reshape(-1, 3, 2)
    >>> (layer,), maps = proposed([(3, 2), (2, 3)], product)
    >>> layer.members.tolist(), layer.rotates, maps
    ([[0, 1, 6, 9], [2, 3, 7, 10], [4, 5, 8, 11]], True, ())
    """
    starts = np.concatenate([[0], np.cumsum([int(np.prod(s)) for s in shapes])])
    tables = [np.arange(a, b).reshape(s) for a, b, s in zip(starts, starts[1:], shapes, strict=False)]
    probe = _Probe(outputs, int(starts[-1]))
    layers: list[UnitLayer] = []
    maps: list[SignedMap] = []
    taken: set[Axis] = set()
    for axes in _sets(shapes):
        if taken & set(axes):
            continue
        if len({p for p, _ in axes}) < len(axes):
            found = _probed_maps(probe, tables, axes)
            maps += found
            taken |= set(axes) if found else set()
            continue
        layer = _probed(probe, [np.moveaxis(tables[p], a, 0).reshape(shapes[p][a], -1) for p, a in axes])
        if layer is not None:
            layers.append(layer)
            taken |= set(axes)
    alone = [k for k, shape in enumerate(shapes) if 1 in shape]
    for size in range(1, min(len(alone), _LARGEST_SET) + 1):
        for chosen in combinations(alone, size):
            layer = _probed(probe, [tables[p].reshape(1, -1) for p in chosen])
            if layer is not None and not _generated(layer, layers, maps, probe.size):
                layers.append(layer)
    return tuple(layers), tuple(maps)


def _sets(shapes: Sequence[tuple[int, ...]]) -> Iterator[tuple[Axis, ...]]:
    """Sets of axes of one length ≥ 2, small sets first: all sets of a few axes, of many those near each other."""
    everything = [(p, a) for p, shape in enumerate(shapes) for a in range(len(shape))]
    for length in sorted({shapes[p][a] for p, a in everything} - {1}):
        axes = [(p, a) for p, a in everything if shapes[p][a] == length]
        if len(axes) <= _FEW_AXES:
            yield from (chosen for size in range(1, len(axes) + 1) for chosen in combinations(axes, size))
            continue
        for size in range(1, _LARGEST_SET + 1):
            for chosen in combinations(range(len(axes)), size):
                first, last = axes[chosen[0]][0], axes[chosen[-1]][0]
                if last - first < _WINDOW:
                    yield tuple(axes[k] for k in chosen)


class _Probe:
    """Do outputs change under a map of the parameters?"""

    def __init__(self, outputs: Outputs, size: int) -> None:
        self.outputs, self.size, self.points = outputs, size, random_points(size)
        with torch.no_grad():
            self.before = outputs(self.points)

    def unchanged(self, moved: Tensor) -> bool:
        with torch.no_grad():
            return close(self.outputs(moved), self.before)

    def under(self, order: NDArray[np.int64], signs: Array) -> bool:
        """Whether outputs do not change under a permutation with signs."""
        return self.unchanged(torch.from_numpy(signs) * self.points[:, torch.from_numpy(order)])

    def unseen(self, part: NDArray[np.int64]) -> bool:
        """Whether outputs do not depend on some parameters: then the probe says nothing of them."""
        points, columns = self.points.clone(), torch.from_numpy(part.ravel())
        points[:, columns] = points[:, columns].flip(0)
        return self.unchanged(points)


def _swaps(width: int) -> list[NDArray[np.int64]]:
    """Exchanges of neighbours, which generate all orders."""
    orders = [np.arange(width) for _ in range(width - 1)]
    for i, order in enumerate(orders):
        order[[i, i + 1]] = i + 1, i
    return orders


def _probed(probe: _Probe, parts: list[NDArray[np.int64]]) -> UnitLayer | None:
    """Return the layer whose units have these parameters, or None where they cannot be exchanged."""
    members = np.concatenate(parts, axis=1)
    width = len(members)
    layer = UnitLayer(members, np.ones(members.shape[1], bool))
    numbers, ones = np.arange(probe.size), np.ones(probe.size)
    for order in _swaps(width):
        moved = layer.moved(numbers.astype(np.float64), order, np.ones(width))
        if not probe.under(moved.astype(np.int64), ones):
            return None
    if any(probe.unseen(part) for part in parts):
        return None
    still, first = np.arange(width), np.where(np.arange(width) == 0, -1.0, 1.0)
    flips = None
    for pattern in product((True, False), repeat=len(parts)):
        columns = np.concatenate([np.full(part.shape[1], on) for part, on in zip(parts, pattern, strict=True)])
        if any(pattern) and probe.under(numbers, UnitLayer(members, columns).moved(ones, still, first)):
            flips = columns
            break
    if width == 1:  # a unit by itself has nothing but its sign
        return None if flips is None else UnitLayer(members, flips)
    return UnitLayer(members, flips, _linear(probe, layer))


def _linear(probe: _Probe, layer: UnitLayer) -> bool:
    turn = np.asarray(ortho_group.rvs(layer.width, random_state=np.random.default_rng(_SEED)))
    return probe.unchanged(layer.rotated(probe.points, torch.from_numpy(turn)[None]))


def _probed_maps(probe: _Probe, tables: list[NDArray[np.int64]], axes: tuple[Axis, ...]) -> list[SignedMap]:
    """Return the exchanges and signs of units numbered by these axes, some of which belong to one parameter."""
    width = tables[axes[0][0]].shape[axes[0][1]]
    maps = [_exchange(probe.size, tables, axes, order) for order in _swaps(width)]
    if not all(probe.under(*m) for m in maps) or any(probe.unseen(tables[p]) for p, _ in axes):
        return []
    for pattern in product((True, False), repeat=len(axes)):
        signs = np.ones(probe.size)
        for (p, a), on in zip(axes, pattern, strict=True):
            signs[np.take(tables[p], 0, axis=a)] *= -1.0 if on else 1.0
        if (signs < 0).any() and probe.under(np.arange(probe.size), signs):
            maps.append((np.arange(probe.size), signs))
            break
    return maps


def _exchange(
    size: int, tables: list[NDArray[np.int64]], axes: tuple[Axis, ...], order: NDArray[np.int64]
) -> SignedMap:
    numbers = np.arange(size)
    for p, a in axes:
        numbers[tables[p]] = np.take(numbers[tables[p]], order, axis=a)
    return numbers, np.ones(size)


def _generated(layer: UnitLayer, layers: Sequence[UnitLayer], maps: Sequence[SignedMap], size: int) -> bool:
    """Whether changes of sign that are known already make that of a unit by itself."""
    known = [signs < 0 for _, signs in maps]
    known += [v.moved(np.ones(size), np.arange(v.width), np.where(np.arange(v.width) == i, -1.0, 1.0)) < 0
              for v in layers for i in range(v.width)]  # fmt: skip
    new = layer.moved(np.ones(size), np.arange(1), -np.ones(1)) < 0
    return _rank(np.array([*known, new])) == _rank(np.array(known).reshape(-1, size))


def _rank(rows: NDArray[np.bool_]) -> int:
    """Rank over the numbers 0 and 1."""
    left, rank = rows.copy(), 0
    while len(left) and left.any():
        row = left[left.any(axis=1)][0]
        column = int(np.argmax(row))
        left = np.where(left[:, column : column + 1], left ^ row, left)
        rank += 1
    return rank


# ---------------------------------------------------------------- coordinates of a symbolic landscape


def coordinate_maps(model: SymbolicModel) -> tuple[SignedMap, ...]:
    """Exchanges of two coordinates, and signs of one or two, that change neither energy nor order parameters."""
    size = model.n_parameters
    points = random_points(size)
    before = (model.energy(points), model.order_parameters(points))
    pairs = list(combinations(range(size), 2))
    proposed: list[SignedMap] = []
    for chosen in [(i,) for i in range(size)] + pairs:
        signs = np.ones(size)
        signs[list(chosen)] = -1.0
        proposed.append((np.arange(size), signs))
    for i, j in pairs:
        order = np.arange(size)
        order[[i, j]] = j, i
        proposed.append((order, np.ones(size)))

    def holds(order: NDArray[np.int64], signs: Array) -> bool:
        moved = torch.as_tensor(signs) * points[:, torch.as_tensor(order)]
        return close(model.energy(moved), before[0]) and close(model.order_parameters(moved), before[1])

    return tuple(m for m in proposed if holds(*m))
