"""Pages of studies, figures and the summary of the main job; every number comes from the files."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor
from pathlib import Path

import xarray as xr

from kramers_grok.plots.style import styled
from kramers_grok.report.arms import ARMS
from kramers_grok.report.words import Answer
from kramers_grok.report.writing import write_page
from kramers_grok.studies.files.store import read_netcdf

__all__ = ["ARMS", "answers", "draw", "load", "summary", "write", "write_page"]


def load(out: str | Path) -> dict[str, xr.DataTree]:
    """Read the arms' trees of a results directory: of those that have been run."""
    return {name: _load(Path(out), name) for name in _present(Path(out))}


def _present(out: Path) -> list[str]:
    """Arms with a file, or all if none has: then reading the first says what is missing."""
    return [name for name in ARMS if (out / f"{name}.nc").exists()] or list(ARMS)


def _load(out: Path, name: str) -> xr.DataTree:
    data = read_netcdf(out / f"{name}.nc")
    return data if isinstance(data, xr.DataTree) else xr.DataTree(data, name=name)


def write(out: str | Path, executor: Executor | None = None) -> str:
    """Draw all figures of a results directory, write ``summary.md`` and return its text.

    Parameters
    ----------
    out : path
    executor : Executor, optional
        Its workers take one arm each: its file is read once, for the figure and the summary.
    """
    names = _present(Path(out))
    mapped = (executor.map if executor is not None else map)(_arm, [Path(out)] * len(names), names)
    text = _joined(part for _, part in mapped)
    (Path(out) / "summary.md").write_text(text, encoding="utf-8")
    return text


def draw(out: str | Path) -> list[Path]:
    """Draw all figures of a results directory as PNG and SVG; return their paths."""
    return [path for name in _present(Path(out)) for path in _arm(Path(out), name)[0]]


def _arm(out: Path, name: str) -> tuple[list[Path], str]:
    """Draw an arm's figure; return its paths, and the arm's part of the summary."""
    import matplotlib.pyplot as plt

    tree = _load(out, name)
    with styled():
        figure = ARMS[name].figure(tree)
    paths = [out / f"{name}.png", out / f"{name}.svg"]
    # Without the date and with fixed ids the same numbers give the same file.
    with plt.rc_context({"svg.hashsalt": "kramers_grok"}):
        figure.savefig(paths[0], dpi=150)
        figure.savefig(paths[1], metadata={"Date": None})
    plt.close(figure)
    return paths, ARMS[name].summary(tree)


def answers(out: str | Path) -> dict[str, Answer]:
    """Return each arm's answer in words, and whether what was predicted was measured."""
    return {name: ARMS[name].answer(tree) for name, tree in load(out).items()}


def summary(out: str | Path) -> str:
    """Return the summary of a results directory as Markdown, numbers read from its files."""
    trees = load(out)
    return _joined(ARMS[name].summary(tree) for name, tree in trees.items())


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(["# What the main job found", *(part.strip() for part in parts)]) + "\n"
