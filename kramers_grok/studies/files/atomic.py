"""Files that are there whole or not at all, whatever happens to the process that writes them or to the disk.

The content goes under a temporary name, is forced to disk, and takes its name in one step; then the directory is forced
to disk as well, so that a name that was seen once is still there after the machine lost its power. Plain system calls:
a full or read-only disk is an `OSError` here, not something a file format's library turns it into.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kramers_grok.core.exceptions import StudyWriteError

__all__ = ["clean_leftovers", "is_leftover", "put_aside", "write_once", "write_over"]

_TEMPORARY = re.compile(r"^\.(?P<host>.+)\.(?P<pid>\d+)\.[0-9a-f]{32}\.tmp$")


def write_once(path: Path, parts: Iterable[bytes | memoryview]) -> bool:
    """Give `path` this content unless it exists already, and return whether it was this call that made it.

    Raises
    ------
    StudyWriteError
        If the disk is full, read-only or broken. Nothing is at `path` then that was not there before.
    """
    with _reported(path):
        temporary = _written(path, parts)
        try:
            return _publish(temporary, path)
        finally:
            _unlink(temporary)


def write_over(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Give `path` this content, in place of what is there.

    Raises
    ------
    StudyWriteError
        If the disk is full, read-only or broken. What was at `path` is still there then.
    """
    with _reported(path):
        temporary = _written(path, parts)
        try:
            os.replace(temporary, path)
        finally:
            _unlink(temporary)
        _sync_directory(path.parent)


def put_aside(path: Path, directory: Path) -> Path:
    """Move a file into `directory`, made if need be, under a name that is free there, and return its new path.

    Raises
    ------
    OSError
        If it cannot be moved, `FileNotFoundError` if another process was faster.
    """
    directory.mkdir(exist_ok=True)
    number = 1
    while (kept := directory / f"{path.stem}.{number}{path.suffix}").exists():
        number += 1
    os.replace(path, kept)
    _sync_directory(path.parent)
    return kept


def is_leftover(name: str) -> bool:
    """Whether a file name is that of a file in the making."""
    return _TEMPORARY.match(name) is not None


def clean_leftovers(directory: Path) -> None:
    """Remove temporary files of processes of this host that are gone; those of others may be alive."""
    if os.name != "posix" or not directory.is_dir():
        return
    host = _host()
    for entry in os.scandir(directory):
        found = _TEMPORARY.match(entry.name)
        if not found or found["host"] != host:
            continue
        if not _alive(int(found["pid"])):
            _unlink(Path(entry.path))


def _alive(pid: int) -> bool:
    """Whether a process of this host may still write; a dead one whose parent never asks for it (a zombie) does not."""
    try:
        os.kill(pid, 0)  # signal 0 asks whether the process exists
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state not in (b"Z", b"X")


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Say which file could not be written, and that nothing is lost."""
    try:
        yield
    except OSError as error:
        raise StudyWriteError(
            f"{path} could not be written ({error.strerror or error}): nothing that was there is changed, and finished "
            f"cells are kept.\nMake room, or make {path.parent} writable, and run the same command again.",
            path=path,
        ) from error


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname()) or "host"


def _temporary(directory: Path) -> Path:
    """Name of a file in the making; host and process tell whose it is."""
    return directory / f".{_host()}.{os.getpid()}.{uuid.uuid4().hex}.tmp"


def _written(path: Path, parts: Iterable[bytes | memoryview]) -> Path:
    """Write the content under a name that nobody reads yet, down to the disk."""
    temporary = _temporary(path.parent)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        try:
            for part in parts:
                rest = memoryview(part)
                while rest:  # a disk that is almost full takes a part of it
                    rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)  # its failure counts: some file systems find out only here that they are full
        finally:
            os.close(descriptor)
    except BaseException:
        _unlink(temporary)
        raise
    return temporary


def _publish(temporary: Path, final: Path) -> bool:
    """Give a finished file its name; if another process was first, its file stays."""
    try:
        os.link(temporary, final)  # unlike a rename, fails where the name exists
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links; a real failure comes back from the rename
        if final.exists():
            return False
        os.replace(temporary, final)
    _sync_directory(final.parent)
    return True


def _unlink(path: Path) -> None:
    """Remove a file that no reader looks at; where that fails, a later start does it."""
    with contextlib.suppress(OSError):
        path.unlink()


def _sync_directory(directory: Path) -> None:
    """Force a directory's entries to disk, where the system can (not on Windows, nor on some network file systems)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
