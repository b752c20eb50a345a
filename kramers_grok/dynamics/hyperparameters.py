r"""Hyperparameters that may differ from step to step, from replica to replica, or not at all.

Whatever is given, the value used at step s by replica i is ``table[s] · factor[i]``: a schedule fills the table, an
array of shape (replica,) the factors, a plain number neither. Factors live in the state's buffers, where they follow
their replicas through selections and copies; tables are made on the host for the steps of one call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import PerSample
from kramers_grok.core.schedules import Schedule

__all__ = ["Clock", "Hyper", "Hyperparameter", "Hyperparameters", "Tables"]

Hyper: TypeAlias = float | ArrayLike | Schedule
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Hyperparameter:
    """One hyperparameter: a number, one number per replica, or a schedule; make it with `read`.

    Attributes
    ----------
    name : str
    given : float, array of shape (replica,) or Schedule
    lowest, highest : float
        Least and greatest value that a schedule may take.
    """

    name: str
    given: float | Array | Schedule
    lowest: float = 0.0
    highest: float = np.inf

    @classmethod
    def read(
        cls, name: str, value: Hyper, *, zero: bool = False, lowest: float = 0.0, highest: float = np.inf
    ) -> Hyperparameter:
        """Check what was given; `zero` says whether a plain 0 is allowed (a schedule may always end there).

        Raises
        ------
        InvalidParameterError
            For numbers out of range, arrays of more than one dimension, schedules that begin out of range.
        """
        if callable(value):
            made = cls(name, value, lowest, highest)
            made.table(0, 1)
            return made
        check = checks.non_negative if zero else checks.positive
        if np.ndim(value) == 0:
            return cls(name, check(name, value))
        array = checks.finite_array(name, value, why="one number for all replicas, or one for each")
        if array.ndim != 1:
            raise checks.invalid(
                name, checks.Described(f"array of shape {array.shape}"), "a number, shape (replica,) or a schedule",
                "one entry is one replica",
            )  # fmt: skip
        check(name, float(array.min()))
        return cls(name, np.array(array))

    @property
    def scheduled(self) -> bool:
        """Whether it changes from step to step."""
        return callable(self.given)

    @property
    def per_replica(self) -> Array | None:
        """The value of each replica, None where all have the same."""
        return self.given if isinstance(self.given, np.ndarray) else None

    @property
    def number(self) -> float | None:
        """The value, where there is only one."""
        return self.given if isinstance(self.given, float) else None

    def table(self, first: int, n_steps: int) -> float | Array:
        """Table of the steps from `first` on; a number where no step differs from another (1 for factors)."""
        if not callable(self.given):
            return 1.0 if isinstance(self.given, np.ndarray) else self.given
        steps = np.arange(first, first + n_steps)
        table = np.asarray(self.given(steps), dtype=np.float64)
        if table.shape != steps.shape:
            raise checks.invalid(
                self.name, checks.Described(f"schedule giving shape {table.shape} for {n_steps} steps"),
                "one value per step", "a schedule is asked for many steps at once", "Write it with numpy functions.",
            )  # fmt: skip
        bad = ~(np.isfinite(table) & (table >= self.lowest) & (table <= self.highest))
        if bad.any():
            step = int(np.argmax(bad))
            value = checks.Described(f"{table[step]:g} at step {first + step}")
            limit = f" and <= {self.highest:g}" if np.isfinite(self.highest) else ""
            rule = f"a finite number >= {self.lowest:g}{limit} at every step"
            raise checks.invalid(self.name, value, rule, f"`{self.name}` = {self.given!r}")
        return table

    def describe(self) -> dict[str, Any]:
        """A number or an array under its name; a schedule as text, under another name."""
        if callable(self.given):
            return {f"{self.name}_schedule": repr(self.given)}
        return {self.name: self.given}


@dataclass(frozen=True)
class Tables:
    """What the steps of one call use: numbers, or arrays of shape (step,); replicas multiply their factors.

    Attributes
    ----------
    lr, weight_decay : float or array
    noise : float or array
        Standard deviation of the injected noise of a batch's mean gradient, g/√B.
    batch_size : int or array of int
    """

    lr: float | Array
    weight_decay: float | Array
    noise: float | Array
    batch_size: int | NDArray[np.int64]

    @property
    def amplitude(self) -> float | Array:
        """Displacement by the injected noise, η g/√B."""
        return self.lr * self.noise


@dataclass(frozen=True, eq=False)
class Hyperparameters:
    """All of a run: learning rate, weight decay, batch size, injected noise."""

    lr: Hyperparameter
    weight_decay: Hyperparameter
    batch_size: Hyperparameter
    noise: PerSample | None

    def __post_init__(self) -> None:
        if self.noise is None or self.noise.temperature is None:
            return
        for varying in (self.lr, self.batch_size):
            if varying.scheduled:
                raise InvalidParameterError(
                    f"`noise` is given by its temperature while `{varying.name}` = {varying.given!r} changes, expected "
                    "a fixed variance: a noise made for each moment's learning rate and batch size would undo the "
                    "schedule.\nUse `per_sample(variance=…)`: T = lr · variance / (2 · batch_size) then moves along."
                )

    @property
    def size(self) -> int:
        """Batch size at the first step."""
        return int(np.rint(np.asarray(self.batch_size.table(0, 1)).reshape(-1)[0]))

    @cached_property
    def variance(self) -> float | Array:
        """Per-sample variance g² of the injected noise; an array where it differs between replicas."""
        if self.noise is None:
            return 0.0
        lr = 1.0 if callable(self.lr.given) else self.lr.given
        return self.noise.variance_for(lr, self.size)

    @property
    def n_replicas(self) -> int | None:
        """How many replicas the arrays are made for; None without arrays.

        Raises
        ------
        InvalidParameterError
            If they disagree.
        """
        lengths = {p.name: len(p.per_replica) for p in (self.lr, self.weight_decay) if p.per_replica is not None}
        if isinstance(self.variance, np.ndarray):
            lengths["noise"] = len(self.variance)
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"`{name}` has {length}" for name, length in lengths.items())
            raise InvalidParameterError(f"{listed} entries, expected one for each replica in all of them.")
        return next(iter(lengths.values()), None)

    @property
    def steady(self) -> bool:
        """Whether no hyperparameter changes with the step."""
        return not (self.lr.scheduled or self.weight_decay.scheduled or self.batch_size.scheduled)

    def factors(self) -> Mapping[str, Array]:
        """Factors by buffer name, shape (replica,): only of what differs between replicas."""
        made = {p.name: p.per_replica for p in (self.lr, self.weight_decay) if p.per_replica is not None}
        variance = self.variance
        if isinstance(variance, np.ndarray):
            made["noise_amplitude"] = _root(variance if self.batch_size.scheduled else variance / self.size)
        return made

    def tables(self, first: int, n_steps: int) -> Tables:
        """Tables of the steps from `first` on.

        Raises
        ------
        InvalidParameterError
            If a schedule leaves its range, or a step is unstable at the origin (η λ ≥ 2).
        """
        lr, decay = self.lr.table(first, n_steps), self.weight_decay.table(first, n_steps)
        sizes = self.batch_size.table(first, n_steps)
        variance = self.variance
        if isinstance(variance, np.ndarray):
            noise = _root(1.0 / np.rint(sizes)) if isinstance(sizes, np.ndarray) else 1.0
        else:
            noise = _root(variance / np.rint(sizes)) if isinstance(sizes, np.ndarray) else (variance / sizes) ** 0.5
        self._check_stable(lr, decay)
        whole = np.rint(sizes).astype(np.int64) if isinstance(sizes, np.ndarray) else int(sizes)
        return Tables(lr, decay, noise, whole)

    def _check_stable(self, lr: float | Array, decay: float | Array) -> None:
        factors = [p.per_replica if p.per_replica is not None else np.ones(1) for p in (self.lr, self.weight_decay)]
        product = np.max(lr * decay, initial=0.0) * np.max(factors[0] * factors[1])
        if product >= 2:
            largest = float(np.max(lr) * np.max(factors[0]))
            strongest = float(np.max(decay) * np.max(factors[1]))
            raise InvalidParameterError(
                f"`lr` = {largest:g} with weight decay {strongest:g}, expected lr · weight_decay < 2: "
                "at the origin each step multiplies the weights by 1 − lr · weight_decay, which grows beyond that.\n"
                f"Use `lr={0.1 / strongest:.3g}` or less."
            )

    @property
    def temperature(self) -> float | Array:
        """Temperature η g²/(2B) under plain gradient descent; an array where replicas differ.

        Raises
        ------
        InvalidParameterError
            If the learning rate or the batch size follows a schedule.
        """
        if callable(self.lr.given) or self.batch_size.scheduled:
            raise InvalidParameterError(
                "The temperature η g²/(2B) follows the schedule of the learning rate or the batch size, expected "
                "numbers.\nUse `process.noise_variance` and the schedule's values."
            )
        return self.lr.given * self.variance / (2 * self.size)

    def describe(self) -> dict[str, Any]:
        """Numbers where there is one, arrays where replicas differ, text for schedules."""
        told = {**self.lr.describe(), **self.weight_decay.describe(), **self.batch_size.describe()}
        told["noise_std"] = self.variance**0.5
        if not self.batch_size.scheduled:
            told["batch_size"] = self.size
        if not self.lr.scheduled:
            told["dt"] = self.lr.given
            if not self.batch_size.scheduled:
                told["temperature"] = self.temperature
        return told


def _root(values: Array) -> Array:
    """Square roots by Python's power, as of a single number: then an array of equal numbers makes the same paths."""
    return np.array([float(v) ** 0.5 for v in values])


class Clock:
    """Time since the start, t = Σ η, under any learning rate.

    Examples
    --------
    >>> from kramers_grok.core.schedules import Piecewise
    >>> Clock(Hyperparameter.read("lr", Piecewise((0.5, 0.1), (2,)))).times([0, 1, 2, 3]).round(12).tolist()
    [0.0, 0.5, 1.0, 1.1]
    """

    def __init__(self, lr: Hyperparameter) -> None:
        self.lr = lr
        self._sums = np.zeros(1)

    def times(self, steps: ArrayLike, replicas: ArrayLike | None = None) -> Array:
        """Return the time before each step; see `SGD.times`."""
        number = np.asarray(steps, dtype=np.int64)
        if not callable(self.lr.given):
            elapsed = number.astype(np.float64)
            if isinstance(self.lr.given, float):
                return elapsed * self.lr.given
            if replicas is not None:
                return np.asarray(elapsed * self.lr.given[np.asarray(replicas, dtype=np.int64)])
            return np.asarray(np.multiply.outer(self.lr.given, elapsed))
        last = int(number.max(initial=0))
        if last >= len(self._sums):
            # Further than asked: who asks step by step must not sum from the start each time.
            first = len(self._sums) - 1
            more = np.asarray(self.lr.table(first, last + min(max(last, 1024), 2**20) - first))
            self._sums = np.concatenate([self._sums, self._sums[-1] + np.cumsum(more)])
        return np.asarray(self._sums[number])
