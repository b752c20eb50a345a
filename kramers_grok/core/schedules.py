r"""Schedules: a hyperparameter as a function of the step number.

A schedule is anything that maps step numbers (counted from 0, arrays welcome) to the values used at those steps.
The classes here cover the usual ones; a function of your own with numpy works as well. Under gradual changes
everything that counts time must sum it: t = Σ η(s).

References
----------
I. Loshchilov and F. Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR 2017 (arXiv:1608.03983).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks

__all__ = ["Constant", "Cosine", "Geometric", "Linear", "Piecewise", "Schedule", "WarmRestarts"]


@runtime_checkable
class Schedule(Protocol):
    """A value for every step number; vectorised, numpy only."""

    def __call__(self, steps: ArrayLike) -> NDArray[np.float64]:
        """Return the values used at `steps` (integers ≥ 0, any shape), in the same shape."""
        ...


def _progress(steps: ArrayLike, n_steps: int) -> NDArray[np.float64]:
    """Share of the way at each step: 0 at the first, 1 from step `n_steps` on."""
    return np.asarray(np.minimum(np.asarray(steps, dtype=np.float64) / n_steps, 1.0))


def _evenly(function: Callable[[NDArray[np.float64]], Any], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply a function to a row of numbers: numpy rounds powers and cosines of a lone number in another way."""
    return np.asarray(function(values.reshape(-1)), dtype=np.float64).reshape(values.shape)


@dataclass(frozen=True)
class Constant:
    """The same value at every step.

    Examples
    --------
    >>> Constant(0.1)([0, 5]).tolist()
    [0.1, 0.1]
    """

    value: float

    def __post_init__(self) -> None:
        checks.finite("value", self.value)

    def __call__(self, steps: ArrayLike) -> NDArray[np.float64]:
        """Return `value` everywhere."""
        return np.full(np.shape(steps), float(self.value))


@dataclass(frozen=True)
class Linear:
    """From `start` to `stop` on a straight line in `n_steps` steps; `stop` from then on.

    Attributes
    ----------
    start, stop : float
    n_steps : int

    Examples
    --------
    >>> Linear(1.0, 0.0, 4)([0, 1, 4, 9]).tolist()
    [1.0, 0.75, 0.0, 0.0]
    """

    start: float
    stop: float
    n_steps: int

    def __post_init__(self) -> None:
        _check_ends(self.start, self.stop, self.n_steps)

    def __call__(self, steps: ArrayLike) -> NDArray[np.float64]:
        """Return start + (stop − start)·s/n."""
        share = _progress(steps, self.n_steps)
        return np.asarray((1.0 - share) * self.start + share * self.stop)


@dataclass(frozen=True)
class Geometric:
    """From `start` to `stop` by one factor per step, in `n_steps` steps; `stop` from then on.

    Attributes
    ----------
    start, stop : float
        Both > 0.
    n_steps : int

    Examples
    --------
    >>> Geometric(1.0, 0.25, 2)([0, 1, 2, 3]).tolist()
    [1.0, 0.5, 0.25, 0.25]
    """

    start: float
    stop: float
    n_steps: int

    def __post_init__(self) -> None:
        checks.positive("start", self.start, "one factor per step cannot change a sign", "Use `Linear`.")
        checks.positive("stop", self.stop, "one factor per step never reaches 0", "Use `Linear`.")
        checks.positive_int("n_steps", self.n_steps)

    def __call__(self, steps: ArrayLike) -> NDArray[np.float64]:
        """Return start · (stop/start)^(s/n)."""
        ratio = self.stop / self.start
        return _evenly(lambda share: self.start * ratio**share, _progress(steps, self.n_steps))


@dataclass(frozen=True)
class Piecewise:
    """Plateaus: ``values[i]`` for ``n_steps[i]`` steps; the last value goes on.

    Attributes
    ----------
    values : sequence of float
    n_steps : sequence of int
        One for each value, or for each but the last.

    Examples
    --------
    >>> Piecewise((3.0, 1.0, 2.0), (2, 1))([0, 1, 2, 3, 99]).tolist()
    [3.0, 3.0, 1.0, 2.0, 2.0]
    """

    values: Sequence[float]
    n_steps: Sequence[int]

    def __post_init__(self) -> None:
        values = tuple(checks.finite("values", v) for v in self.values)
        lengths = tuple(checks.positive_int("n_steps", n) for n in self.n_steps)
        if not values or len(lengths) not in (len(values), len(values) - 1):
            raise checks.invalid(
                "n_steps",
                checks.Described(f"{len(lengths)} length(s) for {len(values)} value(s)"),
                "a length for every value, the last one may be left out",
                "each value holds for its number of steps",
            )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "n_steps", lengths)

    def __call__(self, steps: ArrayLike) -> NDArray[np.float64]:
        """Return the plateau's value."""
        borders = np.cumsum(self.n_steps[: len(self.values) - 1])
        return np.asarray(self.values)[np.searchsorted(borders, np.asarray(steps), side="right")]


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from `start` down (or up) to `stop` in `n_steps` steps; `stop` from then on.

    Attributes
    ----------
    start, stop : float
    n_steps : int

    Examples
    --------
    >>> Cosine(1.0, 0.0, 4)([0, 2, 4, 9]).round(12).tolist()
    [1.0, 0.5, 0.0, 0.0]
    """

    start: float
    stop: float
    n_steps: int

    def __post_init__(self) -> None:
        _check_ends(self.start, self.stop, self.n_steps)

    def __call__(self, steps: ArrayLike) -> NDArray[np.float64]:
        """Return stop + (start − stop)(1 + cos(π s/n))/2."""
        return _half_cosine(_progress(steps, self.n_steps), self.start, self.stop)


@dataclass(frozen=True)
class WarmRestarts:
    """Half a cosine from `start` to `stop`, again and again: cosine annealing with warm restarts.

    Attributes
    ----------
    start, stop : float
    period : int
        Steps of the first cycle.
    growth : int
        Each cycle is that many times as long as the one before.

    Examples
    --------
    >>> WarmRestarts(1.0, 0.0, 2, growth=2)([0, 1, 2, 4, 6]).round(12).tolist()
    [1.0, 0.5, 1.0, 0.5, 1.0]
    """

    start: float
    stop: float
    period: int
    growth: int = 1

    def __post_init__(self) -> None:
        _check_ends(self.start, self.stop, self.period, "period")
        checks.positive_int("growth", self.growth)

    def __call__(self, steps: ArrayLike) -> NDArray[np.float64]:
        """Return the value in the cycle that the step lies in."""
        number = np.asarray(steps, dtype=np.int64)
        if self.growth == 1:
            return _half_cosine((number % self.period) / self.period, self.start, self.stop)
        # Starts of the cycles: whole numbers, so that no logarithm decides on which side of a restart a step lies.
        starts, length = [0], self.period
        while starts[-1] <= number.max(initial=0):
            starts.append(starts[-1] + length)
            length *= self.growth
        cycle = np.searchsorted(starts, number, side="right") - 1
        begin, lengths = np.asarray(starts)[cycle], np.diff([*starts, starts[-1] + length])[cycle]
        return _half_cosine((number - begin) / lengths, self.start, self.stop)


def _half_cosine(share: NDArray[np.float64], start: float, stop: float) -> NDArray[np.float64]:
    weight = 0.5 * (1.0 + _evenly(np.cos, np.asarray(np.pi * share)))
    return np.asarray(weight * start + (1.0 - weight) * stop)


def _check_ends(start: float, stop: float, n_steps: int, length: str = "n_steps") -> None:
    checks.finite("start", start)
    checks.finite("stop", stop)
    checks.positive_int(length, n_steps)
