"""What all commands share: exit codes, and errors as messages."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from kramers_grok.core.exceptions import (
    InvalidParameterError,
    KramersGrokError,
    StudyConflictError,
    StudyInterrupted,
    StudyLockedError,
)

__all__ = ["Exit", "exit_of", "fail", "say_json"]


class Exit(IntEnum):
    """What the commands' exit codes mean."""

    DONE = 0
    FAILED = 1  # an unexpected error: of some cells (the others are finished), of the workers, of the disk
    BAD_INPUT = 2  # nothing was done
    WITHOUT_ANSWER = 3  # done, but some cells diverged, have no barrier, or saw too few escapes
    LOCKED = 4
    INTERRUPTED = 130  # as shells have it: 128 + SIGINT


def exit_of(error: KramersGrokError) -> Exit:
    """Return the exit code that belongs to an error."""
    if isinstance(error, StudyInterrupted):
        return Exit.INTERRUPTED
    if isinstance(error, StudyLockedError):
        return Exit.LOCKED
    if isinstance(error, StudyConflictError | InvalidParameterError):
        return Exit.BAD_INPUT
    return Exit.FAILED


def fail(error: Exception, code: int = Exit.BAD_INPUT, *, as_json: bool = False) -> typer.Exit:
    """Say what went wrong, on standard error or as a line of JSON, and return what ends the command."""
    if as_json:
        say_json({"event": "error", "type": type(error).__name__, "message": str(error), "exit_code": int(code)})
    else:
        Console(stderr=True).print(f"[bold red]{type(error).__name__}[/]: {escape(str(error))}", highlight=False)
    return typer.Exit(int(code))


def say_json(line: dict[str, Any]) -> None:
    """Print one line of JSON to standard output, at once: somebody may be waiting at the other end of a pipe."""
    print(json.dumps(_plain(line), ensure_ascii=False, allow_nan=False, default=str), flush=True)


def _plain(value: Any) -> Any:
    """Turn NaN and infinity, which JSON does not know, into null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value
