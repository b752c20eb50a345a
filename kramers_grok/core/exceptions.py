"""Every error and warning that the library raises on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "DivergedError",
    "InvalidParameterError",
    "KramersGrokError",
    "NoBarrierError",
    "StudyConflictError",
    "TooFewEscapesError",
    "ValidityWarning",
]


class KramersGrokError(Exception):
    """Base of all errors raised on purpose by kramers_grok."""


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


class StudyConflictError(KramersGrokError):
    """The results directory belongs to another study; nothing was written."""


class ValidityWarning(UserWarning):
    """A formula is used outside the range in which it is accurate."""
