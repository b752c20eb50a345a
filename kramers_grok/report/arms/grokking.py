"""Figure and summary of the arm `grokking`."""

from __future__ import annotations

from typing import Any

import xarray as xr

from kramers_grok import plots
from kramers_grok.plots.style import CYCLE
from kramers_grok.report.drawing import new_figure
from kramers_grok.report.words import Answer, measured, never

__all__ = ["answer", "figure", "summary"]


def _runs(tree: xr.DataTree) -> list[xr.Dataset]:
    return [node.to_dataset() for name, node in tree.children.items() if name.startswith("run")]


def figure(tree: xr.DataTree) -> Any:
    """Draw the arm's figure."""
    figure, (ax, below) = new_figure((6.8, 6.6), 2, sharex=True)
    runs = _runs(tree)
    curves = {f"B/η = {float(d['batch_size'] / d['lr']):.0f}": d["loss"] for d in runs}
    plots.grokking(curves, ax)
    ax.set_xlabel("")
    ax.legend(frameon=False, fontsize="small", ncols=2, loc="lower left")
    trap, decay = tree.attrs["trap_weight_decay"], tree.attrs["weight_decay"]
    ax.set_title(
        f"Trapped at λ = {trap:g}, released at λ = {decay:g}: the loss drops late,\n"
        f"over a factor of {tree.attrs['span']:.0f} in mean escape time by η/B alone",
        fontsize="medium",
    )
    for number, (name, data) in enumerate(zip(curves, runs, strict=True)):
        colour = CYCLE[number % len(CYCLE)]
        below.semilogx(data["time"], data["learned_fraction"], ".", color=colour, ms=3, label=name)
        below.semilogx(data["time"], data["predicted_learned"], "-", color=colour, lw=1)
        below.axvline(float(data["predicted_mean"]), color=colour, ls=":", lw=1)
        mean, low, high = (float(data[k]) for k in ("mean_exit_time", "lower", "upper"))
        below.errorbar(mean, 0.5 + 0.06 * number, xerr=[[mean - low], [high - mean]], fmt="D", ms=4, color=colour)
    below.set_ylabel("fraction that has learned")
    below.set_ylim(-0.03, 1.12)
    below.set_xlabel("time since the release, η · step [time]")
    below.annotate(
        "dots: measured; lines: predicted; dotted: predicted mean; diamonds: measured mean (95 %)",
        (0.02, 0.93), xycoords="axes fraction", fontsize="x-small",
    )  # fmt: skip
    return figure


def summary(tree: xr.DataTree) -> str:
    """Return what was found, as Markdown."""
    lines = [
        "## Grokking curves",
        "",
        f"Trap and release of the chain; predicted means span a factor of {tree.attrs['span']:.0f} by η/B alone.",
        "",
        "| B/η | ΔF/T | predicted mean | measured mean [95 %] | escaped |",
        "|---|---|---|---|---|",
    ]
    for d in _runs(tree):
        lines.append(
            f"| {float(d.batch_size / d.lr):.0f} | {float(d.barrier_over_temperature):g} "
            f"| {float(d.predicted_mean):.0f} "
            f"| {float(d.mean_exit_time):.0f} [{float(d.lower):.0f}, {float(d.upper):.0f}] "
            f"| {int(d.escaped.sum())}/{d.sizes['exit_replica']} |"
        )
    control = tree["control"].to_dataset()
    lines += [
        "",
        f"Released to full-batch descent from weights of up to {float(control.trap_amplitude.max()):.2g} in the trap: "
        f"{int(control.escaped.sum())} of {control.sizes['replica']} escaped by t = {float(control.horizon):g}.",
    ]
    return "\n".join(lines)


def answer(tree: xr.DataTree) -> Answer:
    """Say whether the delay of the loss drop is the predicted escape time."""
    runs = _runs(tree)
    columns = ("mean_exit_time", "standard_error", "predicted_mean")
    found = measured(xr.Dataset({n: ("run", [float(run[n]) for run in runs]) for n in columns}))
    times = [float(run["mean_exit_time"]) for run in runs]
    verdict = "is" if found.agrees else "is not"
    text = (
        f"The delay before the loss drops {verdict} the predicted escape time: mean times are {found.text}, and grow "
        f"by a factor of {max(times) / min(times):.0f} through η/B alone (predicted {float(tree.attrs['span']):.0f}); "
        f"{never(tree['control'].to_dataset(), 'full-batch descent')}."
    )
    return Answer(text, found.agrees and not bool(tree["control"].to_dataset()["escaped"].any()))
