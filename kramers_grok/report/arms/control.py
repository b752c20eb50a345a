"""Figure and summary of the arm `control`."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok import plots
from kramers_grok.plots.style import CYCLE
from kramers_grok.report.drawing import new_figure
from kramers_grok.report.words import LEVEL, Answer, smallest_p
from kramers_grok.studies.results.points import two_sided

__all__ = ["answer", "figure", "summary"]


def figure(tree: xr.DataTree) -> Any:
    """Draw the arm's figure: the schedules, what they learn and when, and what they end with."""
    table = tree["schedules"].to_dataset()
    figure, (heat, learned, loss) = new_figure((8.4, 9.6), 3, height_ratios=(1, 1.7, 1.2))
    for number, name in enumerate(table["schedule"].values.tolist()):
        row = table.sel(schedule=name)
        style = "-" if number < len(CYCLE) else "-."
        heat.plot(row["step"], 1e3 * row["temperature"], color=CYCLE[number % len(CYCLE)], lw=1.2, ls=style)
    heat.set_xlabel("step")
    heat.set_ylabel("T = ηg²/2B [10⁻³ loss]")
    plots.learning_curves(table, learned)
    learned.set_title("pale: SGD with minibatches · line: predicted", fontsize="medium")
    place = np.arange(table.sizes["schedule"])
    excess = table["final_loss"] - float(table.attrs["floor"])
    predicted = table["predicted_final_loss"] - float(table.attrs["floor"])
    loss.errorbar(place, excess, yerr=2 * table["final_loss_error"], fmt="o", ms=5, capsize=2, color=CYCLE[1])
    loss.plot(place, predicted, "k_", ms=14, label="predicted (points: SGD)")
    loss.set_yscale("log")
    names = [textwrap.fill(name, 10) for name in table["schedule"].values.tolist()]
    loss.set_xticks(place, names, fontsize="small")
    loss.set_ylabel("final loss above\nthe learned minimum [loss]")
    loss.legend(frameon=False, fontsize="small")
    figure.suptitle("Learning faster: schedules designed from the escape rates", fontsize="medium")
    return figure


def summary(tree: xr.DataTree) -> str:
    """Return what was found, as Markdown."""
    table = tree["schedules"].to_dataset()
    floor = float(table.attrs["floor"])
    lines = [
        f"## Control schedules: {int(table.attrs['n_steps'])} steps each, ΔF/T = "
        f"{float(table.attrs['barrier_over_temperature']):g} at the end, peak × {float(table.attrs['peak']):g}",
        "",
        "| schedule | steps to learn (cut at the end) | predicted | learned at the end | predicted "
        "| final loss − minimum | predicted | the same of the learned | predicted | samples [10³] |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in table["schedule"].values.tolist():
        r = table.sel(schedule=name)
        lines.append(
            f"| {name} | {float(r.mean_steps):.0f} ± {float(r.mean_steps_error):.0f} "
            f"| {float(r.predicted_mean_steps):.0f} "
            f"| {float(r.learned_at_end):.3f} ± {float(r.learned_at_end_error):.3f} "
            f"| {float(r.predicted_learned_at_end):.3f} | {float(r.final_loss) - floor:.4f} ± "
            f"{float(r.final_loss_error):.4f} | {float(r.predicted_final_loss) - floor:.4f} "
            f"| {_excess(r, floor)} "
            f"| {float(r.predicted_learned_loss) - floor:.5f} | {float(r.samples) / 1e3:.0f} |"
        )
    allowed = [name for name in table["schedule"].values.tolist() if name != "constant, peak"]
    fastest = min(allowed, key=lambda name: float(table.sel(schedule=name)["mean_steps"]))
    lowest = min(allowed, key=lambda name: float(table.sel(schedule=name)["final_loss"]))
    lines += [
        "",
        f"Among the schedules that end with the final setting, fewest steps to learn: *{fastest}*; lowest final loss: "
        f"*{lowest}*.",
    ]
    return "\n".join(lines) + "\n"


def _excess(row: xr.Dataset, floor: float) -> str:
    """Loss of those that have learned above the minimum; a dash where fewer than two have."""
    if not np.isfinite(float(row.learned_loss)):
        return "–"
    return f"{float(row.learned_loss) - floor:.5f} ± {float(row.learned_loss_error):.5f}"


def answer(tree: xr.DataTree) -> Answer:
    """Say which schedule learns fastest, by how much, and whether that was predicted."""
    table = tree["schedules"].to_dataset()
    allowed = [name for name in table["schedule"].values.tolist() if name != "constant, peak"]
    fastest = min(allowed, key=lambda name: float(table.sel(schedule=name)["mean_steps"]))
    expected = min(allowed, key=lambda name: float(table.sel(schedule=name)["predicted_mean_steps"]))
    best, slow = table.sel(schedule=fastest), table.sel(schedule="constant, final")
    z = ((table["mean_steps"] - table["predicted_mean_steps"]) / table["mean_steps_error"]).values
    p = smallest_p(two_sided(z))
    match = "as predicted" if fastest == expected else f"where {expected} was predicted"
    numbers = "agree with" if p >= LEVEL else "depart from"
    text = (
        f"Of the schedules that end with the final setting, “{fastest}” learns fastest, {match}: "
        f"{float(best['mean_steps']):.0f} ± {float(best['mean_steps_error']):.0f} steps (predicted "
        f"{float(best['predicted_mean_steps']):.0f}) instead of {float(slow['mean_steps']):.0f} at the final setting. "
        f"The {z.size} mean times {numbers} the predicted ones (smallest p = {p:.2g} after Holm)."
    )
    return Answer(text, p >= LEVEL)
