"""Finite symmetries whose copies of a point are listed one by one: permutations of the parameters with signs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.landscape.symmetries.automorphisms import weight_labels
from kramers_grok.landscape.symmetries.units import UnitLayer

__all__ = ["SignedMap", "checked_map", "finite_generators", "images", "orbit"]

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
# The image of θ is ``signs * theta[order]``.
SignedMap = tuple[Integers, Array]

_LARGEST_ORBIT = 100_000


def checked_map(given: SignedMap, size: int) -> SignedMap:
    """Return a permutation with signs as arrays, or raise."""
    order, signs = np.asarray(given[0]), np.asarray(given[1], dtype=np.float64)
    if order.shape != (size,) or not np.array_equal(np.sort(order), np.arange(size)):
        raise checks.invalid(
            "maps", checks.Described(f"order of shape {order.shape}"), f"a permutation of {size} parameters",
            "the image of θ is `signs * theta[order]`",
        )  # fmt: skip
    if signs.shape != (size,) or not (np.abs(signs) == 1).all():
        raise checks.invalid("maps", checks.Described(f"signs of shape {signs.shape}"), f"{size} numbers ±1")
    return order.astype(np.int64), signs


def finite_generators(n_parameters: int, layers: Sequence[UnitLayer], maps: Sequence[SignedMap]) -> list[SignedMap]:
    """Permutations and signs that generate the finite group of layers and maps."""
    found = list(maps)
    numbers = np.arange(n_parameters, dtype=np.float64)
    for layer in layers:
        places = np.arange(layer.width)
        for first, second in pairwise(range(layer.width)):
            order = places.copy()
            order[[first, second]] = second, first
            found.append((layer.moved(numbers, order, np.ones(layer.width)).astype(np.int64), np.ones(len(numbers))))
        if layer.flips is not None:
            turned = layer.moved(np.ones(len(numbers)), places, np.where(places == 0, -1.0, 1.0))
            found.append((numbers.astype(np.int64), turned))
    return found


def orbit(points: Array, generators: Sequence[SignedMap], grain: float) -> list[Array]:
    """All images of some points together, each of the shape of `points`; weights closer than `grain` are equal."""
    return [image for image, _ in images(points, weight_labels(points, grain), generators)]


def images(points: Array, labels: Integers, generators: Sequence[SignedMap]) -> list[tuple[Array, Integers]]:
    """All images of some points together, with those of the labels of their weights."""
    seen, found = {labels.tobytes()}, [(points, labels)]
    for at, known in found:  # which grows meanwhile
        for order, signs in generators:
            label = known[:, order] * signs.astype(np.int64)
            if label.tobytes() not in seen:
                seen.add(label.tobytes())
                found.append((signs * at[:, order], label))
        if len(found) > _LARGEST_ORBIT:
            raise InvalidParameterError(
                f"A point has more than {_LARGEST_ORBIT} copies under `maps` and layers together, which are listed "
                "one by one.\nUse layers of units alone, which are counted without a list."
            )
    return found
