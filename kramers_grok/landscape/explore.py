"""A search for the saddles between known minima, and for the minima behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import UncertifiedError
from kramers_grok.landscape.graph import LandscapeGraph, Passage
from kramers_grok.landscape.points import StationaryPoint, find_minimum, same_state
from kramers_grok.landscape.saddles import descend, refine_saddle
from kramers_grok.landscape.string import minimum_energy_path
from kramers_grok.landscape.symmetries.symmetry import Symmetry, symmetry_of
from kramers_grok.models.base import Model

__all__ = ["explore"]

Array = NDArray[np.float64]

# A straight string may lie in a symmetric set that no step leaves: all are bent a little.
_BEND = 0.02


def explore(
    model: Model,
    minima: Sequence[StationaryPoint | ArrayLike],
    *,
    symmetry: Symmetry | None = None,
    neighbours: int | None = None,
    n_images: int = 33,
    max_states: int = 64,
    tolerance: float = 1e-10,
) -> LandscapeGraph:
    """Connect minima by minimum-energy paths and return the graph of all minima and saddles that come up.

    A string is drawn from each minimum to the nearest copy of each other one. From each of its maxima a saddle is
    refined, and followed down on both sides; ends that are new join the search. Minima that no string passes and
    saddles beside its way stay unknown: no search of this kind proves that a graph is complete.

    Parameters
    ----------
    model : Model
    minima : sequence of StationaryPoint or array_like of shape (parameter,)
        As from `kramers_grok.landscape.points.find_minima`.
    symmetry : Symmetry, optional
        What makes copies and zero modes; by default what `symmetry_of` finds.
    neighbours : int, optional
        Strings lead only to so many nearest states of each; by default to all.
    n_images : int
        Of each string.
    max_states : int
        States after which the search is given up.
    tolerance : float
        ‖∇F‖ of all points [loss/weight].

    Returns
    -------
    LandscapeGraph
        States numbered from the lowest energy up; its ``failures`` say which searches did not arrive.

    Raises
    ------
    InvalidParameterError
        For numbers out of range, or no minimum.
    UncertifiedError
        If one of `minima` is none, or there are more than `max_states`.

    Examples
    --------
    Two wells of different depth along x, and a saddle at about x = 0:

    >>> import sympy
    >>> from kramers_grok.core.landscape import Landscape
    >>> from kramers_grok.models.base import SymbolicModel
    >>> x, y = sympy.symbols("x y", real=True)
    >>> model = SymbolicModel(Landscape((x**2 - 1) ** 2 + x / 10 + y**2, (x, y), (x,)))
    >>> graph = explore(model, [[-1.0, 0.0], [1.0, 0.0]])
    >>> graph.energies.round(3).tolist(), graph.saddles["energy"].values.round(3).tolist()
    ([-0.101, 0.099], [1.001])
    """
    known = symmetry_of(model) if symmetry is None else symmetry
    search = _Search(model, known, checks.positive("tolerance", tolerance), n_images, max_states)
    for start in minima:
        search.number(search.converged(start))
    most = None if neighbours is None else checks.positive_int("neighbours", neighbours)
    done: set[tuple[int, int]] = set()
    search.limit()
    while pairs := [pair for pair in search.pairs(most) if pair not in done]:
        done.add(pairs[0])
        search.connect(*pairs[0])
        search.limit()
    order = sorted(range(len(search.states)), key=lambda n: search.states[n].energy)
    place = {n: i for i, n in enumerate(order)}
    passages = [Passage(p.saddle, _sorted(place[p.ends[0]], place[p.ends[1]])) for p in search.passages]
    passages.sort(key=lambda p: (p.ends, p.saddle.energy))
    return LandscapeGraph.of(
        model, [search.states[n] for n in order], passages, symmetry=known, failures=search.failures
    )


def _sorted(i: int, j: int) -> tuple[int, int]:
    return (i, j) if i <= j else (j, i)


class _Search:
    """What has been found, and how to find more."""

    def __init__(self, model: Model, symmetry: Symmetry, tolerance: float, n_images: int, max_states: int) -> None:
        self.model, self.symmetry, self.tolerance, self.n_images = model, symmetry, tolerance, n_images
        self.max_states = checks.positive_int("max_states", max_states)
        self.states: list[StationaryPoint] = []
        self.passages: list[Passage] = []
        self.failures: list[str] = []

    def converged(self, start: StationaryPoint | ArrayLike) -> StationaryPoint:
        """A minimum that was given, found again where it is no good one."""
        if not isinstance(start, StationaryPoint):
            return find_minimum(self.model, start, tolerance=self.tolerance, symmetry=self.symmetry)
        if start.gradient_norm <= self.tolerance and start.index == 0:
            return start
        return find_minimum(self.model, start.theta, tolerance=self.tolerance, symmetry=self.symmetry)

    def number(self, point: StationaryPoint) -> int:
        """Number of a minimum's state, a new one if it is none of those known."""
        if point.n_unexplained:
            raise UncertifiedError(
                f"The minimum at energy {point.energy:.6g} has {point.n_unexplained} zero modes that no known symmetry "
                "makes: it has no weight that a rate could be made of.\n"
                "Use a weight decay > 0, fewer units, or `symmetry=` with what is missing.",
                result=point,
            )
        for n, state in enumerate(self.states):
            if self._same(state, point):
                return n
        self.states.append(point)
        return len(self.states) - 1

    def limit(self) -> None:
        """Raise where there are too many states."""
        if len(self.states) > self.max_states:
            raise UncertifiedError(
                f"There are more than `max_states` = {self.max_states} states.\nUse a larger number, or a `symmetry` "
                "that says which of them are copies.",
                result=self.states,
            )

    def _same(self, a: StationaryPoint, b: StationaryPoint) -> bool:
        length = max((float(np.linalg.norm(s.theta)) for s in self.states), default=0.0)
        return a.n_zero_modes == b.n_zero_modes and same_state(self.symmetry, a, b, length)

    def pairs(self, neighbours: int | None) -> list[tuple[int, int]]:
        """Pairs of states, nearest first."""
        count = len(self.states)
        distance = {
            pair: float(np.linalg.norm(self._near(*pair) - self.states[pair[0]].theta))
            for pair in combinations(range(count), 2)
        }
        found = sorted(distance, key=distance.__getitem__)
        if neighbours is None:
            return found
        close = {i: [p for p in found if i in p][:neighbours] for i in range(count)}
        return [p for p in found if p in close[p[0]] or p in close[p[1]]]

    def _near(self, i: int, j: int) -> Array:
        return self.symmetry.closest(self.states[j].theta, self.states[i].theta)

    def connect(self, i: int, j: int) -> None:
        """Look at all saddles on a path between two states."""
        a, b = self.states[i].theta, self._near(i, j)
        path = minimum_energy_path(self.model, a, b, n_images=self.n_images, initial=np.stack(list(_bent(a, b))))
        if not path.maxima:
            self.failures.append(f"the path between the states at {self.states[i].energy:.6g} and "
                                 f"{self.states[j].energy:.6g} has no maximum")  # fmt: skip
        for top in path.maxima:
            try:
                self._passage(path.images[top], path.images[top + 1] - path.images[top - 1])
            except UncertifiedError as error:
                self.failures.append(str(error).splitlines()[0])

    def _passage(self, start: Array, along: Array) -> None:
        saddle = refine_saddle(self.model, start, along, tolerance=self.tolerance, symmetry=self.symmetry)
        if saddle.n_unexplained:
            raise UncertifiedError(f"the saddle at {saddle.energy:.6g} has zero modes that no known symmetry makes")
        if any(self._same(known.saddle, saddle) for known in self.passages):
            return
        ends = [self._behind(saddle, side) for side in (along, -along)]
        self.passages.append(Passage(saddle, _sorted(*ends)))

    def _behind(self, saddle: StationaryPoint, side: Array) -> int:
        """Number of the state to which one side of a saddle leads; a fork on the way is noted."""
        first, second = (
            self.number(
                descend(self.model, saddle, side, tolerance=self.tolerance, symmetry=self.symmetry, branch=branch)[0]
            )
            for branch in (0, 1)
        )
        if first != second:
            energies = " and ".join(f"{self.states[n].energy:.6g}" for n in (first, second))
            self.failures.append(
                f"the way down from the saddle at {saddle.energy:.6g} forks: noise decides between the states at "
                f"{energies}, and the first stands for both"
            )
        return first


def _bent(a: Array, b: Array) -> Iterator[Array]:
    side = np.random.default_rng(0).normal(size=a.size)  # a fixed direction: what is found must not depend on a seed
    side *= _BEND * np.linalg.norm(b - a) / np.linalg.norm(side)
    for share in np.linspace(0, 1, 17)[1:-1]:
        yield a + share * (b - a) + np.sin(np.pi * share) * side
