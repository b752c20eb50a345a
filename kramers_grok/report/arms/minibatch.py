"""Figure and summary of the arm `minibatch`."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.stats
import xarray as xr

from kramers_grok.report.drawing import new_figure
from kramers_grok.report.words import LEVEL, Answer, smallest_p, span

__all__ = ["answer", "figure", "summary"]


def figure(tree: xr.DataTree) -> Any:
    """Draw the arm's figure."""
    data = tree["sgd"].to_dataset()
    figure, (ax, below) = new_figure((6.4, 6.0), 2, sharex=True)
    for batch in data["batch_size"].values.tolist():
        rows = data.sel(batch_size=batch)
        label = f"B = {batch:g}, η/B = {data.attrs['lr'] / batch:.3g}"
        (points,) = ax.plot(rows["amplitude"], rows["escaped_fraction"], "o", ms=5, label=label)
        ax.plot(rows["start_amplitude"], rows["predicted_fraction"], "--", lw=1, color=points.get_color())
        below.semilogy(rows["amplitude"], rows["amplitude_left"], "o-", ms=4, label=label)
    for axes in (ax, below):
        axes.axvline(data.attrs["saddle_amplitude"], color="grey", ls=":", lw=1)
    ax.annotate(
        "barrier", (data.attrs["saddle_amplitude"], 0.5), rotation=90, ha="right", color="grey", fontsize="small"
    )
    ax.plot([], [], "k--", lw=1, label="predicted: splitting probability")
    ax.set_ylabel("fraction escaped")
    ax.set_title(f"Minibatch noise only (s = {data.attrs['label_noise']:g}): the trap absorbs", fontsize="medium")
    ax.legend(frameon=False, fontsize="small")
    below.set_ylabel(f"median amplitude of the censored\nat t = {data.attrs['horizon']:g}")
    below.set_xlabel("amplitude at the start, all layers [weight]")
    return figure


def summary(tree: xr.DataTree) -> str:
    """Return what was found, as Markdown."""
    data = tree["sgd"].to_dataset()
    lines = ["## Minibatch noise only, from the trap", ""]
    for batch in data["batch_size"].values.tolist():
        fractions = ", ".join(
            f"{float(f):.3f} (predicted {float(p):.3f}) from a = {float(a):g}"
            for a, f, p in zip(
                data["amplitude"],
                data["escaped_fraction"].sel(batch_size=batch),
                data["predicted_fraction"].sel(batch_size=batch, start_amplitude=data["amplitude"]),
                strict=True,
            )
        )
        lines.append(f"- B = {batch}: escaped {fractions}")
    return "\n".join(lines)


def answer(tree: xr.DataTree) -> Answer:
    """Say whether minibatch noise alone frees the trap, and whether the predicted shares are met."""
    data = tree["sgd"].to_dataset()
    n = int(data.attrs["n_replicas"])
    predicted = data["predicted_fraction"].sel(start_amplitude=data["amplitude"].values).transpose("batch_size", ...)
    counts = np.rint(n * data["escaped_fraction"].transpose("batch_size", "amplitude").values).astype(int)
    p = smallest_p([
        scipy.stats.binomtest(int(k), n, min(max(float(share), 0.0), 1.0)).pvalue
        for k, share in zip(counts.ravel(), predicted.values.ravel(), strict=True)
    ])  # fmt: skip
    inside, near = float(data["amplitude"][0]), float(data["amplitude"][-1])
    out = int(counts[:, 0].sum())
    verdict = (
        f"{out} of {n * len(counts)} replicas escape" if out else f"the trap absorbs: 0 of {n * len(counts)} escape"
    )
    shares = counts[:, -1] / n
    match = "as" if p >= LEVEL else "not as"
    text = (
        f"With minibatch noise alone {verdict} from amplitude {inside:g}; from {near:g}, close to the barrier, "
        f"{span(shares, '.2f')} do, {match} predicted (smallest p = {p:.2g} of {counts.size} after Holm)."
    )
    return Answer(text, p >= LEVEL and not out)
