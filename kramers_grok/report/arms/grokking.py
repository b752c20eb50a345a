"""Figure and summary of the arm `grokking`."""

from __future__ import annotations

from typing import Any

import xarray as xr

from kramers_grok import plots
from kramers_grok.report.drawing import new_figure

__all__ = ["figure", "summary"]


def figure(tree: xr.DataTree) -> Any:
    """Draw the arm's figure."""
    figure, (ax, below) = new_figure((6.6, 6.2), 2, sharex=True)
    nodes = [node.to_dataset() for node in tree.children.values()]
    curves = {f"B/η = {float(d['batch_size'] / d['lr']):.0f}": d["loss"] for d in nodes}
    plots.grokking(curves, ax)
    ax.set_xlabel("")
    trap, decay = tree.attrs["trap_weight_decay"], tree.attrs["weight_decay"]
    ax.set_title(f"Trapped at λ = {trap:g}, released at λ = {decay:g}: the loss drops late", fontsize="medium")
    for number, (name, data) in enumerate(zip(curves, nodes, strict=True)):
        colour = f"C{number}"
        below.semilogx(data["time"], data["learned_fraction"], ".", color=colour, ms=3, label=f"{name}, measured")
        below.semilogx(data["time"], data["predicted_learned"], "-", color=colour, lw=1)
        below.axvline(float(data["predicted_mean"]), color=colour, ls=":", lw=1)
    below.set_ylabel("fraction that has learned")
    below.set_xlabel("time since the release, η · step [time]")
    below.annotate("lines: predicted; dotted: predicted mean", (0.02, 0.9), xycoords="axes fraction", fontsize="small")
    return figure


def summary(tree: xr.DataTree) -> str:
    """Return what was found, as Markdown."""
    lines = ["## Grokking curves", ""]
    for node in tree.children.values():
        d = node.to_dataset()
        lines.append(
            f"- B/η = {float(d.batch_size / d.lr):.0f}: predicted mean escape time {float(d.predicted_mean):.0f}; "
            f"{float(d.learned_fraction[-1]):.3f} have learned by t = {float(d.time[-1]):.0f}"
        )
    return "\n".join(lines)
