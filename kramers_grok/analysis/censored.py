"""Censored exit times of single replicas at several strengths of the noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from kramers_grok.analysis.survival import Sample
from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError

__all__ = ["ExitTimes"]

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ExitTimes:
    """Censored exit times at several strengths of the noise.

    Attributes
    ----------
    x : array, shape (replica,)
        Strength of the noise; 0 is a control without noise.
    exit_time : array, shape (replica,)    [time]
        Where a replica did not leave: the time until which it was watched.
    escaped : array of bool, shape (replica,)

    Raises
    ------
    InvalidParameterError
        Shapes that differ, x < 0, times that are not positive, fewer than two different x.

    Examples
    --------
    >>> exits = ExitTimes.of([0.1, 0.2], [[50.0, 80.0], [10.0, 20.0]], [[True, False], [True, True]])
    >>> exits.conditions.tolist(), exits.n_escaped.tolist()
    ([0.1, 0.2], [1, 2])
    """

    x: Array
    exit_time: Array
    escaped: Flags

    def __post_init__(self) -> None:
        x = checks.finite_array("x", self.x, ndim=1, why="one entry for each replica")
        times = checks.finite_array("exit_time", self.exit_time, ndim=1, why="censored replicas hold their horizon")
        escaped = np.asarray(self.escaped)
        if escaped.dtype.kind not in "biu" or not np.isin(escaped, (0, 1)).all():
            raise checks.invalid("escaped", checks.Described(f"array of {escaped.dtype}"), "True or False")
        if not x.shape == times.shape == escaped.shape:
            raise InvalidParameterError(
                f"`x`, `exit_time`, `escaped` have shapes {x.shape}, {times.shape}, {escaped.shape}, expected equal "
                "ones: one entry for each replica.\nUse `ExitTimes.of(x, exit_time, escaped)` for one row a condition."
            )
        if (x < 0).any():
            raise checks.invalid("x", checks.Described(f"array with minimum {x.min():g}"), "values >= 0")
        if (times <= 0).any():
            raise InvalidParameterError(
                f"`exit_time` has {int((times <= 0).sum())} value(s) <= 0: they started inside the target.\n"
                "Start in the trap."
            )
        if np.unique(x).size < 2:
            raise InvalidParameterError(
                f"`x` holds {np.unique(x).size} different value(s), expected at least 2: a law says how time changes "
                "with the noise.\nRun at another learning rate or batch size."
            )
        for name, value in (("x", x), ("exit_time", times), ("escaped", escaped.astype(bool))):
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, x: ArrayLike, exit_time: ArrayLike, escaped: ArrayLike) -> ExitTimes:
        """Return the data of one row a condition: `x` (condition,), the others (condition, replica).

        Parameters
        ----------
        x : array_like, shape (condition,)
            Strengths of the noise.
        exit_time, escaped : array_like, shape (condition, replica)
            Times, and whether the replica had left by then.
        """
        strengths = checks.finite_array("x", x, ndim=1)
        times, left = np.asarray(exit_time, dtype=np.float64), np.asarray(escaped)
        if times.ndim != 2 or times.shape != left.shape or len(times) != strengths.size:
            raise InvalidParameterError(
                f"`x`, `exit_time`, `escaped` have shapes {strengths.shape}, {times.shape}, {left.shape}, expected "
                "(condition,), (condition, replica), (condition, replica).\n"
                "Use `ExitTimes(x, exit_time, escaped)` for one entry a replica."
            )
        return cls(np.repeat(strengths, times.shape[1]), times.ravel(), left.ravel())

    @classmethod
    def of_runs(cls, runs: Iterable[xr.Dataset], x: ArrayLike | None = None) -> ExitTimes:
        """Return the data of runs of `first_passage`, one condition each; x is their lr/batch_size if not given.

        Parameters
        ----------
        runs : iterable of Dataset
            From `first_passage`.
        x : array_like, shape (condition,), optional
        """
        samples = [(ds, Sample.of(ds)) for ds in runs]
        if x is None:
            lacking = [i for i, (ds, _) in enumerate(samples) if not {"lr", "batch_size"} <= set(ds.coords)]
            if lacking:
                raise InvalidParameterError(
                    f"`runs[{lacking[0]}]` has no coordinates `lr` and `batch_size`: the strength of its noise is not "
                    "known.\nPass it: `ExitTimes.of_runs(runs, x=temperatures)`."
                )
            x = [float(ds["lr"]) / float(ds["batch_size"]) for ds, _ in samples]
        strengths = checks.finite_array("x", x, ndim=1)
        if strengths.size != len(samples):
            raise checks.invalid("x", checks.Described(f"{strengths.size} values"), f"{len(samples)}, one for each run")
        return cls(
            np.repeat(strengths, [s.n for _, s in samples]),
            np.concatenate([s.times for _, s in samples]),
            np.concatenate([s.escaped for _, s in samples]),
        )

    @cached_property
    def conditions(self) -> Array:
        """The different x, ascending."""
        return np.unique(self.x)

    @cached_property
    def index(self) -> NDArray[np.int64]:
        """Which condition each replica belongs to."""
        return np.searchsorted(self.conditions, self.x)

    @property
    def n(self) -> NDArray[np.int64]:
        """Replicas of each condition."""
        return np.bincount(self.index, minlength=self.conditions.size)

    @cached_property
    def n_escaped(self) -> NDArray[np.int64]:
        """Replicas of each condition that escaped."""
        return np.bincount(self.index, weights=self.escaped, minlength=self.conditions.size).astype(np.int64)

    @cached_property
    def horizons(self) -> Array:
        """Until when each condition was watched; infinite where all escaped [time]."""
        ends = np.full(self.conditions.size, -np.inf)
        np.maximum.at(ends, self.index[~self.escaped], self.exit_time[~self.escaped])
        return np.where(np.isfinite(ends), ends, np.inf)

    def without_control(self) -> ExitTimes:
        """Return the replicas that have noise."""
        kept = self.x > 0
        return ExitTimes(self.x[kept], self.exit_time[kept], self.escaped[kept])
