"""Where generated sources and machine code are kept on disk: by the content of everything they are made of.

numba's own cache looks at the file of the function that it compiled, not at what that function calls. After an edit, or
an update, of a callee alone it would hand out the old machine code. Here it looks into a folder named by a hash of all
sources of the package that are compiled, so that a change of any of them begins a new folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numba

__all__ = ["compiled_sources", "content_of", "directory", "kept_by_content"]

_COMPILES = re.compile(r"\b(njit|inline_njit|into_njit|intrinsic|overload)\b")


def directory(name: str) -> Path:
    """Return a folder of the cache, made if need be: below $KRAMERS_GROK_CACHE, $XDG_CACHE_HOME or ~/.cache.

    Where none can be written, a new temporary one: everything is then made anew in each process.
    """
    base = os.environ.get("KRAMERS_GROK_CACHE") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(base) / "kramers_grok" / name
    try:
        path.mkdir(parents=True, exist_ok=True)
        if os.access(path, os.W_OK):
            return path
    except OSError:
        pass
    return _temporary(name)


@cache
def _temporary(name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"kramers_grok_{name}_"))


def compiled_sources() -> list[Path]:
    """Return the package's files that hold something numba compiles, in order."""
    root = Path(__file__).parents[1]
    return [path for path in sorted(root.rglob("*.py")) if _COMPILES.search(path.read_text(encoding="utf-8"))]


def content_of(paths: Iterable[Path]) -> str:
    """Return a hash of files, their names among it.

    Examples
    --------
    >>> content_of([]) == content_of([])
    True
    """
    digest = hashlib.sha256()
    for path in paths:
        text = path.read_bytes()
        digest.update(f"{path.name} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:16]


@cache
def _content() -> str:
    return content_of(compiled_sources())


@contextmanager
def kept_by_content() -> Iterator[None]:
    """Let functions decorated meanwhile keep their machine code in the folder of today's sources."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(directory(f"machine_code/{_content()}"))
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before
