"""Figures and the summary of the main job; every number comes from the files."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path

import xarray as xr

from kramers_grok.report.arms import ARMS
from kramers_grok.studies.store import read_netcdf

__all__ = ["ARMS", "draw", "load", "summary"]


def load(out: str | Path) -> dict[str, xr.DataTree]:
    """Read the arms' trees of a results directory."""
    return {name: _load(Path(out), name) for name in ARMS}


def _load(out: Path, name: str) -> xr.DataTree:
    data = read_netcdf(out / f"{name}.nc")
    return data if isinstance(data, xr.DataTree) else xr.DataTree(data, name=name)


def draw(out: str | Path, executor: Executor | None = None) -> list[Path]:
    """Draw all figures of a results directory as PNG and SVG; return their paths.

    Parameters
    ----------
    out : path
    executor : Executor, optional
        Draw in its workers, one figure a task.
    """
    mapped = (executor.map if executor is not None else map)(_draw, [Path(out)] * len(ARMS), ARMS)
    return [path for paths in mapped for path in paths]


def _draw(out: Path, name: str) -> list[Path]:
    import matplotlib.pyplot as plt

    figure = ARMS[name].figure(_load(out, name))
    paths = [out / f"{name}.png", out / f"{name}.svg"]
    # Without the date and with fixed ids the same numbers give the same file.
    with plt.rc_context({"svg.hashsalt": "kramers_grok"}):
        figure.savefig(paths[0], dpi=150)
        figure.savefig(paths[1], metadata={"Date": None})
    plt.close(figure)
    return paths


def summary(out: str | Path) -> str:
    """Return the summary of a results directory as Markdown, numbers read from its files."""
    trees = load(out)
    return "\n\n".join(["# What the main job found", *(ARMS[name].summary(trees[name]) for name in ARMS)]) + "\n"
