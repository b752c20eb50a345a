"""Figures inside a page: drawn, checked and put into the HTML as data."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kramers_grok.plots.style import styled

__all__ = ["Picture", "draw", "drawn", "picture"]

_LARGEST_SVG = 400_000  # bytes; above it PNG is smaller and as sharp as a screen
_WIDE = 8.0  # inches; wider figures scroll inside themselves on a phone
_SIZE = re.compile(rb'<svg [^>]*?width="(?P<width>[\d.]+)pt" height="(?P<height>[\d.]+)pt"')  # as matplotlib writes it


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it: its data as an address, its size in pixels, and what it shows in words."""

    source: str
    alt: str
    caption: str
    width: int
    height: int
    wide: bool = False


def picture(figure: Any, *, alt: str, caption: str) -> Picture:
    """Turn a matplotlib figure into a picture: SVG, or PNG where that is much larger. The figure is closed.

    An SVG is kept in an ``img`` of its own, so that names inside one do not meet those of another.
    """
    import matplotlib.pyplot as plt

    # Without the date and with fixed ids the same numbers give the same page.
    with plt.rc_context({"svg.hashsalt": "kramers_grok"}):
        data, kind = _saved(figure, "svg", metadata={"Date": None}), "svg+xml"
        if len(data) > _LARGEST_SVG:
            data, kind = _saved(figure, "png", dpi=150), "png"
    width, height = figure.get_size_inches()
    plt.close(figure)
    return Picture(_address(data, kind), alt, caption, round(96 * width), round(96 * height), wide=width > _WIDE)


def drawn(path: Path, since: Path, *, alt: str, caption: str) -> Picture | None:
    """Return a figure that was saved as SVG after the data file `since` was written; None if there is none."""
    try:
        if path.stat().st_mtime < since.stat().st_mtime or path.stat().st_size > _LARGEST_SVG:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    size = _SIZE.search(data[:4096])
    if size is None:
        return None
    width, height = (float(size[name]) for name in ("width", "height"))
    return Picture(_address(data, "svg+xml"), alt, caption, round(96 / 72 * width), round(96 / 72 * height),
                   wide=width > 72 * _WIDE)  # fmt: skip


def _address(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _saved(figure: Any, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, **options)
    return stream.getvalue()


def draw(make: Callable[[], Any], *, alt: str, caption: str, problems: list[str]) -> Picture | None:
    """Draw a figure; one that cannot be drawn, of data that are half there or foreign, is a line in `problems`."""
    import matplotlib.pyplot as plt

    before = set(plt.get_fignums())
    try:
        with styled():
            figure = make()
        return None if figure is None else picture(figure, alt=alt, caption=caption)
    except Exception as error:  # a page without one figure is better than no page
        for number in set(plt.get_fignums()) - before:
            plt.close(number)
        problems.append(f"The figure “{caption}” could not be drawn ({type(error).__name__}: {error}).")
        return None
