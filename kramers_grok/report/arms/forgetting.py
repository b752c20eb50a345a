"""Figure and summary of the arm `forgetting`."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.report.drawing import new_figure
from kramers_grok.report.words import Answer, span

__all__ = ["answer", "figure", "summary"]


def figure(tree: xr.DataTree) -> Any:
    """Draw the arm's figure."""
    rows = tree["sgd"].to_dataset()
    figure, ax = new_figure((6.0, 4.0))
    ax.errorbar(
        rows["batch_size"],
        rows["ratio"],
        yerr=2 * rows["ratio_error"],
        fmt="o",
        capsize=3,
        label="SGD, true minibatches (±2 s.e.)",
    )
    ax.axhline(1, color="black", lw=1, label="diffusion limit, exact multiplicative time")
    ratio = float(rows.attrs["quasi_potential_ratio"])
    label = f"SGD's quasi-potential (shot noise, all cumulants): {ratio:.3f}"
    ax.axhline(ratio, color="tab:red", ls="--", lw=1, label=label)
    ax.set_xscale("log", base=2)
    ax.set_xlabel(f"batch size B at η/B = {rows.attrs['lr_over_batch']:g} [samples]")
    ax.set_ylabel("mean time to forget / diffusion limit")
    ax.set_ylim(0.8, 1.8)
    ax.legend(frameon=False, fontsize="small", loc="upper right")
    ax.set_title(
        "Learned → forgotten by minibatch noise alone:\nthe diffusion limit is known to depart", fontsize="medium"
    )
    return figure


def summary(tree: xr.DataTree) -> str:
    """Return what was found, as Markdown."""
    rows = tree["sgd"].to_dataset()
    lines = ["## Learned → forgotten under minibatch noise alone", ""]
    for run in range(rows.sizes["run"]):
        r = rows.isel(run=run)
        lines.append(
            f"- B = {int(r.batch_size)}: SGD {float(r.mean_exit_time):.0f}, diffusion limit "
            f"{float(r.predicted_mean):.0f}, ratio {float(r.ratio):.3f} ± {float(r.ratio_error):.3f}"
        )
    lines.append(f"- predicted by SGD's quasi-potential: {float(rows.attrs['quasi_potential_ratio']):.3f}")
    lines += ["", f"Why it departs: {rows.attrs['departure']}."]
    return "\n".join(lines)


def answer(tree: xr.DataTree) -> Answer:
    """Say whether minibatch noise alone leaves the diffusion limit, and which of two theories it is nearer to."""
    rows = tree["sgd"].to_dataset()
    ratio, error = rows["ratio"].values, rows["ratio_error"].values
    shot = float(rows.attrs["quasi_potential_ratio"])
    z, worst = (ratio - 1) / error, int(np.argmax(np.abs((ratio - 1) / error)))
    nearer = int((np.abs(ratio - shot) < np.abs(ratio - 1)).sum())
    seen = bool(np.abs(z[worst]) > LIMIT)
    verdict = "the diffusion limit fails" if seen else "no departure from the diffusion limit is seen"
    text = (
        f"Under minibatch noise alone {verdict}: a learned feature is held for {span(ratio, '.3f')} times the time it "
        f"predicts, at most {z[worst]:+.0f} s.e. from 1 (B = {int(rows['batch_size'][worst])}); SGD's "
        f"quasi-potential, which knows all cumulants, says {shot:.3f} and is nearer in {nearer} of {ratio.size} runs."
    )
    return Answer(text, seen and nearer == ratio.size)


LIMIT = 4.0  # standard errors
