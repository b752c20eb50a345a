r"""Escape through many states: a Markov chain between minima, solved without a subtraction.

At low temperature a process sits in one minimum after the other and jumps between neighbours with the rates

.. math:: k_{ij} = \frac1{Z_i}\sum_{s:\,i\leftrightarrow j} \mathrm{cap}_s ,

:math:`\mathrm{cap}_s` the capacity of a saddle and :math:`Z_i` the weight of a minimum: the chain is reversible. Its
rates differ by powers of :math:`e^{1/T}`, more than a linear solver's rounding bears. States are therefore eliminated
one by one, each handing its probabilities and its waiting time on to the others: sums and products of positive numbers
only, kept as logarithms (Grassmann, Taksar & Heyman, Oper. Res. 33, 1107 (1985); as graph transformation: Trygubenko &
Wales, J. Chem. Phys. 124, 234110 (2006)).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError

__all__ = ["ChainTime", "MarkovChain"]

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class ChainTime:
    """A mean escape time through a chain of states.

    Attributes
    ----------
    value : float
        Mean time [time]; infinite where the target may never be reached.
    lower, upper : float
        Where it lies if every capacity and every weight is within its own error.
    notes : tuple of str
        What limits the rates that it is made of; empty if nothing does.
    """

    value: float
    lower: float
    upper: float
    notes: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether nothing is noted."""
        return not self.notes


@dataclass(frozen=True, eq=False)
class MarkovChain:
    r"""A reversible continuous-time chain between states, given by capacities and weights.

    Parameters
    ----------
    ends : array_like of int, shape (saddle, 2)
        The two states that each saddle joins; one that joins a state with itself (its own copies) changes nothing.
    log_capacities : array_like, shape (saddle,)
        ln cap, in units in which :math:`k = \mathrm{cap}/Z` is a rate [1/time].
    log_weights : array_like, shape (state,)
        ln Z.
    capacity_errors, weight_errors : array_like, optional
        Relative errors of each; 0 if not given.
    notes : tuple of str
        Handed on to every result.

    Raises
    ------
    InvalidParameterError
        If shapes do not fit or a number of a state does not exist.

    Examples
    --------
    Two states with rates 1/4 there and 1 back:

    >>> chain = MarkovChain([[0, 1]], [0.0], np.log([4.0, 1.0]))
    >>> chain.rates().tolist()
    [[-0.25, 0.25], [1.0, -1.0]]
    >>> chain.mean_time(0, 1).value
    4.0
    """

    ends: ArrayLike
    log_capacities: ArrayLike
    log_weights: ArrayLike
    capacity_errors: ArrayLike | None = None
    weight_errors: ArrayLike | None = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        capacities, weights = np.asarray(self.log_capacities, float), np.asarray(self.log_weights, float)
        ends = np.asarray(self.ends, dtype=np.int64).reshape(-1, 2)
        if capacities.shape != (len(ends),) or weights.ndim != 1 or not len(weights):
            raise InvalidParameterError(
                f"`ends` has shape {ends.shape}, `log_capacities` {capacities.shape}, `log_weights` {weights.shape}, "
                "expected (saddle, 2), (saddle,) and (state,)."
            )
        if len(ends) and not (ends.min() >= 0 and ends.max() < len(weights)):
            raise checks.invalid("ends", ends.tolist(), f"numbers of states below {len(weights)}")
        if np.isnan(capacities).any() or (capacities == np.inf).any() or not np.isfinite(weights).all():
            raise InvalidParameterError("`log_capacities` or `log_weights` hold numbers that are not finite.")
        for name, values, size in (("capacity_errors", self.capacity_errors, len(ends)),
                                   ("weight_errors", self.weight_errors, len(weights))):  # fmt: skip
            errors = np.zeros(size) if values is None else np.asarray(values, dtype=np.float64)
            if errors.shape != (size,) or not (errors >= 0).all():
                raise checks.invalid(name, checks.Described(f"array of shape {errors.shape}"), f"{size} numbers >= 0")
            object.__setattr__(self, name, errors)
        object.__setattr__(self, "ends", ends)
        object.__setattr__(self, "log_capacities", capacities)
        object.__setattr__(self, "log_weights", weights)

    @property
    def n_states(self) -> int:
        """Number of states."""
        return len(np.asarray(self.log_weights))

    def log_rates(self) -> Array:
        """Logarithm of the rate from each state to each other, shape (state, state); −inf where there is no saddle."""
        table = np.full((self.n_states, self.n_states), -np.inf)
        for (i, j), capacity in zip(np.asarray(self.ends), np.asarray(self.log_capacities), strict=True):
            if i != j:
                table[i, j] = table[j, i] = np.logaddexp(table[i, j], capacity)
        return np.asarray(table - np.asarray(self.log_weights)[:, None])

    def rates(self) -> Array:
        """Rate from each state (row) to each other (column), the diagonal making rows sum to 0 [1/time]."""
        table = np.exp(self.log_rates())
        return np.asarray(table - np.diag(table.sum(axis=1)))

    def occupations(self) -> Array:
        """Probability of each state in equilibrium, shape (state,)."""
        weights = np.asarray(self.log_weights)
        return np.asarray(np.exp(weights - np.logaddexp.reduce(weights)))

    # ---------------------------------------------------------------- times

    def mean_times(self, targets: int | Iterable[int]) -> Array:
        """Mean time from each state to the first visit of a set of states, shape (state,) [time].

        Parameters
        ----------
        targets : int or iterable of int

        Returns
        -------
        ndarray
            0 at the targets, infinite where they may never be reached.
        """
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(self._log_times(self._states("targets", targets))))

    def mean_time(self, start: int, targets: int | Iterable[int]) -> ChainTime:
        """Mean time from one state to the first visit of a set of others, with its interval.

        Each capacity and each weight is moved by its error, one at a time; the changes of the logarithm are added. The
        interval therefore holds to first order whatever the errors have to do with each other, and is wide where they
        are independent.

        Parameters
        ----------
        start : int
        targets : int or iterable of int

        Raises
        ------
        InvalidParameterError
            For numbers of states that do not exist, or no target.
        """
        (first,) = self._states("start", start)
        aims = self._states("targets", targets)
        value = float(self._log_times(aims)[first])
        change = 0.0
        if math.isfinite(value):
            for name, errors in (("log_capacities", self.capacity_errors), ("log_weights", self.weight_errors)):
                for number, error in enumerate(np.log1p(np.asarray(errors))):
                    if error > 0:
                        moved = [self._moved(name, number, s * error)._log_times(aims)[first] for s in (1, -1)]
                        change += 0.5 * abs(float(moved[0] - moved[1]))
        return ChainTime(_exp(value), _exp(value - change), _exp(value + change), self.notes)

    def committor(self, a: int | Iterable[int], b: int | Iterable[int]) -> Array:
        """Probability to reach the states `b` before the states `a`, from each state, shape (state,).

        NaN where neither is ever reached.
        """
        first, last = self._states("a", a), self._states("b", b)
        if set(first) & set(last):
            raise InvalidParameterError(f"`a` = {first} and `b` = {last} share states, expected two sets apart.")
        order, rows, _ = self._eliminated([*first, *last])
        probability = np.full(self.n_states, -np.inf)
        probability[last] = 0.0
        for x in reversed(order):
            probability[x] = _dot(rows[x], probability) if np.isfinite(rows[x]).any() else np.nan
        return np.asarray(np.exp(probability))

    def shares(self, a: int | Iterable[int], b: int | Iterable[int]) -> Array:
        """Share of the transitions from `a` to `b` that each saddle carries, shape (saddle,).

        Net numbers: positive from the first of its two ends to the second, returns counted against. Over the saddles at
        the border of `a` they sum to 1.

        Raises
        ------
        InvalidParameterError
            If nothing leads from `a` to `b`.
        """
        first = self._states("a", a)
        probability = np.nan_to_num(self.committor(first, b))
        ends, capacities = np.asarray(self.ends), np.asarray(self.log_capacities)
        flux = np.exp(capacities - capacities.max(initial=-np.inf)) * (
            probability[ends[:, 1]] - probability[ends[:, 0]]
        )
        inside = np.isin(ends, first)
        total = float(np.abs(flux[inside[:, 0] != inside[:, 1]]).sum())
        if not total > 0:
            raise InvalidParameterError(f"Nothing leads from the states {first} to {b}: there are no shares.")
        return np.asarray(flux / total)

    # ---------------------------------------------------------------- inside

    def _states(self, name: str, given: int | Iterable[int]) -> list[int]:
        numbers: Sequence[int] = [given] if isinstance(given, int | np.integer) else list(given)
        if not numbers or any(not 0 <= n < self.n_states for n in numbers):
            raise checks.invalid(name, numbers, f"at least one number of a state, from 0 to {self.n_states - 1}")
        return sorted({int(n) for n in numbers})

    def _moved(self, name: str, number: int, change: float) -> MarkovChain:
        values = np.array(getattr(self, name), dtype=np.float64)
        values[number] += change
        if name == "log_weights":
            return replace(self, log_weights=values)
        return replace(self, log_capacities=values)

    def _log_times(self, targets: list[int]) -> Array:
        order, rows, waiting = self._eliminated(targets)
        times = np.full(self.n_states, -np.inf)
        for x in reversed(order):
            times[x] = np.logaddexp(waiting[x], _dot(rows[x], times))
        return times

    def _eliminated(self, targets: list[int]) -> tuple[list[int], Array, Array]:
        """Eliminate all states but the targets.

        Returns the order, the jump probabilities of each state when its turn came (to states that were left), and its
        mean time until that jump; as logarithms.
        """
        jumps = self.log_rates()
        out = np.logaddexp.reduce(jumps, axis=1)
        waiting = -out
        with np.errstate(invalid="ignore"):
            jumps = np.where(np.isfinite(jumps), jumps - out[:, None], -np.inf)
        order = [x for x in range(self.n_states) if x not in targets]
        left = np.ones(self.n_states, dtype=bool)
        for x in order:
            left[x] = False
            leaves = np.logaddexp.reduce(jumps[x, left])  # all but a return to x itself
            row = np.where(left & np.isfinite(jumps[x]), jumps[x], -np.inf)
            row = row - leaves if np.isfinite(leaves) else row
            waiting[x] = waiting[x] - leaves  # infinite where nothing leads out
            jumps[x] = row
            for j in np.flatnonzero(left & np.isfinite(jumps[:, x])):
                if j not in targets:
                    jumps[j] = np.logaddexp(jumps[j], np.where(np.isfinite(row), jumps[j, x] + row, -np.inf))
                    waiting[j] = np.logaddexp(waiting[j], jumps[j, x] + waiting[x])
                    jumps[j, x] = -np.inf
        return order, jumps, waiting


def _dot(log_weights: Array, log_values: Array) -> float:
    """Logarithm of a sum of products, where a weight 0 outweighs an infinite value."""
    used = np.isfinite(log_weights)
    return float(np.logaddexp.reduce(log_weights[used] + log_values[used])) if used.any() else -math.inf


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
