"""One run at a time works on a directory: a lock that the operating system frees when its process dies."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from kramers_grok.core.exceptions import StudyLockedError, StudyWriteError
from kramers_grok.studies.files.atomic import write_over

__all__ = ["HOLDER", "LOCK", "Holder", "holder", "locked"]

LOCK = ".lock"
HOLDER = ".lock.json"  # beside the lock: a lock file that is being replaced guards nothing
_PATIENCE = 0.3  # seconds: who only asks for the holder of a killed run's lock has it for an instant


@dataclass(frozen=True)
class Holder:
    """The run that holds a directory's lock, or the last one that did.

    Attributes
    ----------
    pid : int
        Its process.
    host : str
        Its machine.
    since : str
        When it took the lock (ISO 8601, UTC).
    """

    pid: int
    host: str
    since: str


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory that exists.

    The lock belongs to this process: it is free once the process is gone, however it ended, even if workers that it
    forked live on.

    Raises
    ------
    StudyLockedError
        If another run holds it, with that run's process, machine and start.
    StudyWriteError
        If no lock file can be made there.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with locked(Path(directory)):
    ...         who = holder(Path(directory))
    ...     nobody = holder(Path(directory))
    >>> who.pid == os.getpid(), nobody
    (True, None)
    """
    lock = FileLock(directory / LOCK, timeout=_PATIENCE, thread_local=False)
    try:
        lock.acquire(poll_interval=0.05)
    except Timeout:
        raise _held(directory) from None
    except OSError as error:
        raise StudyWriteError(
            f"{directory} cannot be locked ({error.strerror or error}): a run writes into it, and only one may.\n"
            f"Make {directory} writable, or use another --out.",
            path=directory / LOCK,
        ) from error
    own = Holder(os.getpid(), socket.gethostname(), datetime.now(UTC).isoformat(timespec="seconds"))
    try:
        with contextlib.suppress(StudyWriteError):  # a full disk keeps no one from reading what is there
            write_over(directory / HOLDER, [json.dumps(asdict(own)).encode() + b"\n"])
        yield
    finally:
        if os.getpid() == own.pid:  # a forked child that comes by here has no lock
            with contextlib.suppress(OSError):
                (directory / HOLDER).unlink(missing_ok=True)
            lock.release()


def holder(directory: Path) -> Holder | None:
    """Return who holds a directory's lock, None if nobody does or nobody says so; a killed run holds nothing."""
    if not (directory / HOLDER).exists():  # as after a run that ended by itself
        return None
    probe = FileLock(directory / LOCK, timeout=0, thread_local=False)
    try:
        probe.acquire()
    except Timeout:
        return _last(directory)
    except OSError:  # somebody else's directory: what its files say is all there is to know
        return _last(directory)
    probe.release()
    return None


def _last(directory: Path) -> Holder | None:
    """Return what the last run to take the lock wrote down."""
    try:
        held = json.loads((directory / HOLDER).read_text(encoding="utf-8"))
        return Holder(int(held["pid"]), str(held["host"]), str(held["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _held(directory: Path) -> StudyLockedError:
    known = _last(directory)
    who, stop = "another run", ""
    if known is not None:
        who = f"process {known.pid} on {known.host}, since {known.since}"
        stop = f", stop it (`kill -INT {known.pid}` on {known.host})"
    return StudyLockedError(
        f"{directory} is being worked on by {who}; nothing was written: two runs at once would compute the same cells "
        f"twice.\nWait until it is done{stop}, or use another --out."
    )
