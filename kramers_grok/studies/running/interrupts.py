"""Stopping a run on request, so that nothing is lost: a file that all its workers see."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["STOP", "Interrupts"]

STOP = ".stop"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what a batch system sends before it kills


class Interrupts:
    """Turns the first Ctrl-C (or SIGTERM) into a request to stop, which workers on any machine see as a file.

    A second one is a `KeyboardInterrupt`. The file may also be made by hand, from another machine.

    Parameters
    ----------
    directory : Path
        The study's.
    note : callable
        Told what happens.
    """

    def __init__(self, directory: Path, note: Callable[[str], None]) -> None:
        self.stopping = False
        self._file = directory / STOP
        self._note = note
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        self._file.unlink(missing_ok=True)  # of a run before this one
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self._before = {number: signal.signal(number, self._asked) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def look(self) -> None:
        """See whether the file is there."""
        if not self.stopping and self._file.exists():
            self.stopping = True
            self._note(f"{self._file} asks to stop: cells in flight go on to their next checkpoint, or to their end.")

    def stop(self) -> None:
        """Ask all workers to stop."""
        self.stopping = True
        with contextlib.suppress(OSError):  # a full disk: cells in flight go on to their ends then
            os.close(os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o666))

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            raise KeyboardInterrupt
        self.stop()
        with contextlib.suppress(RuntimeError):  # printing was interrupted half way, and cannot be entered twice
            self._note(
                "stopping: cells in flight go on to their next checkpoint, or to their end. "
                "Once more (Ctrl-C) stops at once."
            )
