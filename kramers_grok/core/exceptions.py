"""Every error and warning that the library raises on purpose."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

__all__ = [
    "DamagedFileError",
    "DamagedFileWarning",
    "DivergedError",
    "InvalidParameterError",
    "KramersGrokError",
    "NoBarrierError",
    "StudyConflictError",
    "StudyInterrupted",
    "StudyLockedError",
    "StudyWriteError",
    "TooFewEscapesError",
    "UncertifiedError",
    "ValidityWarning",
    "WorkerDiedError",
]


class KramersGrokError(Exception):
    """Base of all errors raised on purpose by kramers_grok."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        # An exception is rebuilt from its message alone, which fails for those that need keywords: a process pool
        # would take the worker that sends one for dead.
        return partial(type(self).__new__, type(self)), self.args, self.__dict__


class InvalidParameterError(KramersGrokError, ValueError):
    """An argument breaks a rule; the message says what was given, the rule and the fix."""


class NoBarrierError(KramersGrokError):
    """The state asked about has no barrier: nothing is trapped, so no escape rate exists."""


class DivergedError(KramersGrokError):
    """Replicas left the finite numbers.

    Attributes
    ----------
    replicas : tuple of int
        Numbers of the replicas that diverged.
    step : int
        First step at which one of them was not finite any more.
    """

    def __init__(self, message: str, *, replicas: Sequence[int], step: int) -> None:
        super().__init__(message)
        self.replicas = tuple(int(r) for r in replicas)
        self.step = int(step)


class TooFewEscapesError(KramersGrokError):
    """Too few replicas escaped for the estimate asked for.

    Attributes
    ----------
    result : object
        What is known all the same (the partial estimate, or the data set).
    """

    def __init__(self, message: str, *, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class UncertifiedError(KramersGrokError):
    """A search found a point that is not what it was to be: its certificate fails, and no rate is made of it.

    Attributes
    ----------
    result : object
        What was found all the same (a stationary point, a path, or the minima that lie in between).
    """

    def __init__(self, message: str, *, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class StudyConflictError(KramersGrokError):
    """The results directory belongs to another study; nothing was written."""


class StudyLockedError(StudyConflictError):
    """Another run is at work on the results directory; nothing was written."""


class StudyWriteError(KramersGrokError):
    """A file could not be written: the disk is full, read-only, or over a quota. What was there is untouched.

    Attributes
    ----------
    path : pathlib.Path
        The file that is missing.
    """

    def __init__(self, message: str, *, path: str | os.PathLike[str]) -> None:
        super().__init__(message)
        self.path = Path(path)


class DamagedFileError(KramersGrokError):
    """A file does not hold what was written into it.

    Attributes
    ----------
    path : pathlib.Path
        Where it was found.
    reason : str
        How that is known.
    kept : pathlib.Path or None
        Where it was put aside, so that its cell can be computed again; None if it is still in its place.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | os.PathLike[str],
        reason: str = "",
        kept: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(message)
        self.path = Path(path)
        self.reason = reason
        self.kept = None if kept is None else Path(kept)


class StudyInterrupted(KramersGrokError):
    """A run was asked to stop and did, with its progress on disk: the same command goes on from there."""


class WorkerDiedError(KramersGrokError):
    """A worker process went away again and again while it computed a cell."""


class DamagedFileWarning(UserWarning):
    """A damaged file was found and put aside; what it held is computed again."""


class ValidityWarning(UserWarning):
    """A formula is used outside the range in which it is accurate."""
