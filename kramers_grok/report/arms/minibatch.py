"""Figure and summary of the arm `minibatch`."""

from __future__ import annotations

from typing import Any

import xarray as xr

from kramers_grok.report.drawing import new_figure

__all__ = ["figure", "summary"]


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
