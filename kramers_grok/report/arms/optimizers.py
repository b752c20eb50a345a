"""Figure and summary of the arm `optimizers`."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.plots.style import CYCLE
from kramers_grok.report.drawing import new_figure
from kramers_grok.report.words import Answer, both

__all__ = ["answer", "figure", "summary"]


def figure(tree: xr.DataTree) -> Any:
    """Draw every replica's step to the second feature, full batch and minibatches, one row per optimizer."""
    data = tree["trap"].to_dataset()
    horizon, names = data.attrs["n_steps"], data["optimizer"].values.tolist()
    figure, ax = new_figure((7.6, 0.8 + 0.62 * len(names)))
    jitter = np.linspace(-0.11, 0.11, data.sizes["replica"])
    for row, name in enumerate(names):
        for number, batch in enumerate(data["batch"].values.tolist()):
            one = data.sel(optimizer=name, batch=batch)
            y, colour = row + (-0.18, 0.18)[number] + jitter, CYCLE[number]
            out = one["escaped"].values
            label = batch if batch == "full batch" else f"minibatches of {data.attrs['batch_size']}"
            ax.plot(one["exit_step"].values[out], y[out], "o", ms=3, color=colour, alpha=0.7)
            ax.plot([], [], "o", ms=5, color=colour, label=label if row == 0 else None)
            if not out.all():
                ax.plot([horizon], [y.mean()], ">", ms=7, mfc="none", color=colour)
            count = f"{int(out.sum())}/{out.size}"
            ax.text(1.02, y.mean(), count, transform=ax.get_yaxis_transform(), va="center", color=colour, fontsize=8)
        ax.text(
            1.12, row, str(data["attribution"].values[row]), transform=ax.get_yaxis_transform(), va="center", fontsize=9
        )
        ax.axhline(row + 0.5, color="0.9", lw=0.7)
    ax.plot([], [], ">", mfc="none", color="0.3", ms=5, label="not until the horizon (censored)")
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ticks = [t for t in (50, 100, 200, 500, 1000, 2000, 5000) if low <= t <= high]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.set_xticks([], minor=True)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel("step at which the second feature is learned")
    ax.text(1.12, 1.01, "attributed to", transform=ax.transAxes, fontsize=9, style="italic")
    ax.set_title("Out of the collapsed state: the full batch decides what is noise", fontsize="medium", loc="left")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return figure


def summary(tree: xr.DataTree) -> str:
    """Return what was found, as Markdown."""
    data = tree["trap"].to_dataset()
    n, steps, size = (data.attrs[name] for name in ("n_replicas", "n_steps", "batch_size"))
    lines = [
        "## Optimizers in the collapsed state",
        "",
        f"Share of {n} replicas that learn the second feature within {steps} steps [95 %], and their median step. Only "
        "the difference between the full batch and minibatches is attributed to noise.",
        "",
        f"| optimizer | η | λ | amplitude | full batch | median | minibatch, B = {size} | median | attributed to |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in data["optimizer"].values.tolist():
        one = data.sel(optimizer=name)
        cells = " | ".join(_cell(one.sel(batch=batch), steps) for batch in data["batch"].values.tolist())
        numbers = " | ".join(f"{float(one[key]):g}" for key in ("lr", "weight_decay", "amplitude"))
        lines.append(f"| {name} | {numbers} | {cells} | {one['attribution'].item()} |")
    return "\n".join(lines)


def _cell(one: xr.Dataset, steps: int) -> str:
    """Share with its interval, and the median step; beyond the horizon where fewer than half were seen to leave."""
    median = float(one["median_steps"])
    shown = f"{median:.0f}" if np.isfinite(median) else f"> {steps} (censored)"
    count = int(one["escaped"].sum())
    interval = f"[{float(one['fraction_lower']):.2f}, {float(one['fraction_upper']):.2f}]"
    return f"{count}/{one.sizes['replica']} {interval} | {shown}"


def answer(tree: xr.DataTree) -> Answer:
    """Say for which optimizers the escape from the collapsed state is due to noise."""
    data = tree["trap"].to_dataset()
    kinds: dict[str, list[str]] = {}
    for name, kind in zip(data["optimizer"].values.tolist(), data["attribution"].values.tolist(), strict=True):
        kinds.setdefault(str(kind), []).append(str(name))
    n = data.sizes["replica"]
    full = data["escaped"].sel(batch="full batch").sum("replica")
    noisy = kinds.get("noise-driven", [])
    verdict = f"Noise frees the collapsed state under {both(noisy)}" if noisy else "Noise frees no optimizer"
    others = "; ".join(f"{kind}: {both(names)}" for kind, names in kinds.items() if kind != "noise-driven")
    alone = int((full > 0).sum())
    text = (
        f"{verdict}{f' ({others})' if others else ''}: without any noise {alone} of {data.sizes['optimizer']} "
        f"optimizers learn the second feature within {data.attrs['n_steps']} steps, in up to {int(full.max())} of {n} "
        "replicas, so that only the difference to the full batch counts."
    )
    return Answer(text, None)
