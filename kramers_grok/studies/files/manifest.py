"""What a directory says about the study that it holds: one file of JSON that people can read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kramers_grok.core.exceptions import StudyConflictError
from kramers_grok.core.schema import package_version
from kramers_grok.studies.files.content import content_hash

__all__ = ["MANIFEST", "Manifest", "differences_of", "read_manifest"]

MANIFEST = "study.json"
_FORMAT = "kramers_grok study 1"


@dataclass(frozen=True)
class Manifest:
    """What a directory says about the study that it holds.

    Attributes
    ----------
    name : str
        What kind of study it is.
    study : mapping
        What identifies it, of JSON's types.
    version : str
        The kramers_grok that wrote it; this one if not given.
    """

    name: str
    study: dict[str, Any]
    version: str = ""

    def text(self) -> bytes:
        """Return the content of the file."""
        text = {
            "format": _FORMAT,
            "name": self.name,
            "hash": content_hash({"name": self.name, "study": self.study}),
            "kramers_grok_version": self.version or package_version(),
            "study": self.study,
        }
        return (json.dumps(text, indent=2, ensure_ascii=False) + "\n").encode()


def read_manifest(directory: Path) -> Manifest:
    """Return what a directory says about its study.

    Raises
    ------
    StudyConflictError
        If it holds no study, or one of a format that this version does not know.
    """
    path = directory / MANIFEST
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        found = Manifest(str(held["name"]), dict(held["study"]), str(held.get("kramers_grok_version", "unknown")))
        held_format = str(held["format"])
    except (FileNotFoundError, NotADirectoryError):
        raise StudyConflictError(
            f"{directory} holds no study: it has no {path.name}.\nUse the directory that was --out of a run."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, IsADirectoryError) as error:
        raise StudyConflictError(
            f"{path} is not the manifest of a study ({type(error).__name__}): nothing was written.\nUse another --out."
        ) from error
    if held_format != _FORMAT:
        raise StudyConflictError(
            f"{directory} holds another study; nothing was written:\n"
            f"  - it has format {held_format!r}, this version writes {_FORMAT!r}\n"
            "Use another --out, or the kramers_grok that made it."
        )
    return found


def differences_of(held: Any, asked: Any, where: str = "") -> Iterator[str]:
    """Say where two configurations differ, leaf by leaf.

    Examples
    --------
    >>> list(differences_of({"sgd": {"lr": 0.1}}, {"sgd": {"lr": 0.2}}))
    ['`sgd.lr` is 0.1 there, you asked for 0.2']
    """
    if isinstance(held, dict) and isinstance(asked, dict):
        for key in sorted(held.keys() | asked.keys()):
            yield from differences_of(held.get(key), asked.get(key), f"{where}.{key}" if where else str(key))
    elif held != asked:
        yield f"`{where}` is {held!r} there, you asked for {asked!r}"
