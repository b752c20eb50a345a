"""What happened in a study, one line of JSON for each event: for progress and estimates, never for results.

Losing it loses nothing: which cells are finished is what the directory's listing says.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["Journal"]


class Journal:
    """The journal of a study.

    Parameters
    ----------
    path : path
        Made with the first event.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     journal = Journal(Path(directory) / "journal.jsonl")
    ...     kept = journal.append("finished", cell="sgd-0123456789abcdef", n_escaped=64, seconds=1.5)
    ...     events = [(event["event"], event["n_escaped"]) for event in journal.read()]
    >>> kept, events
    (True, [('finished', 64)])
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def append(self, event: str, **fields: Any) -> bool:
        """Add an event with the time and these fields, and return whether the disk took it.

        A journal that cannot be written is no reason to lose a study: no error is raised.

        Parameters
        ----------
        event : str
            What happened, e.g. "finished", "diverged", "failed", "damaged".
        **fields
            Numbers (NaN and infinity become null), text, lists, mappings; anything else becomes its text.
        """
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event} | fields
        text = json.dumps(_plain(line), ensure_ascii=False, allow_nan=False) + "\n"
        content = text.encode("utf-8", "backslashreplace")  # half a surrogate pair becomes its JSON escape
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                # One call for one line: lines of two processes do not mix. A line that a killed process left unfinished
                # is closed first, so that it takes no other with it.
                os.write(descriptor, (b"" if _closed(descriptor) else b"\n") + content)
            finally:
                os.close(descriptor)
        except OSError:
            return False
        return True

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the events in order, without lines that are damaged or unfinished; nothing if there is no journal."""
        with contextlib.suppress(OSError), open(self.path, "rb") as file:
            for line in file:
                try:
                    event = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(event, dict) and isinstance(event.get("event"), str):
                    yield event


def _closed(descriptor: int) -> bool:
    """Whether the file is empty or ends with its last line."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    return size == 0 or (os.lseek(descriptor, size - 1, os.SEEK_SET) >= 0 and os.read(descriptor, 1) == b"\n")


def _plain(value: Any) -> Any:
    """Turn a value into what JSON knows."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value)
