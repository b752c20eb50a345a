"""Figure and summary of the arm `real_feature`."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.report.drawing import new_figure, run_table
from kramers_grok.report.words import Answer, measured

__all__ = ["answer", "figure", "summary"]


def figure(tree: xr.DataTree) -> Any:
    """Draw the arm's figure."""
    rows = tree["sgd"].to_dataset()
    figure, ax = new_figure((6.0, 4.2))
    order = np.argsort(rows["temperature"].values)
    inverse = 1 / rows["temperature"].values[order]
    ax.semilogy(
        inverse, rows["predicted_mean"].values[order], "k--", label="theory: exact chain with minibatch noise and step"
    )
    error = [rows["mean_exit_time"] - rows["lower"], rows["upper"] - rows["mean_exit_time"]]
    ax.errorbar(
        1 / rows["temperature"],
        rows["mean_exit_time"],
        yerr=error,
        fmt="D",
        mfc="white",
        capsize=3,
        label="SGD on the digits' first principal component",
    )
    for x, y, batch in zip(
        1 / rows["temperature"].values, rows["mean_exit_time"].values, rows["batch_size"].values, strict=True
    ):
        ax.annotate(f"B = {batch:g}", (x, y), (8, -8), textcoords="offset points", fontsize="small")
    ax.margins(x=0.14)
    ax.set_xlabel("1/T [1/loss]")
    ax.set_ylabel("mean exit time [time]")
    share = float(rows["share_saddle"].max())
    ax.set_title(f"A real feature; minibatch share of the noise at the saddle ≤ {share:.1%}", fontsize="medium")
    ax.legend(frameon=False, fontsize="small")
    return figure


def summary(tree: xr.DataTree) -> str:
    """Return what was found, as Markdown."""
    rows = tree["sgd"].to_dataset()
    share = (
        f"Minibatch share of the gradient noise: {float(rows.share_minimum.max()):.2%} at the minimum, up to "
        f"{float(rows.share_saddle.max()):.2%} along the unstable direction at the saddle; "
        "it is part of the prediction."
    )
    return "\n".join(["## Digits' first principal component", "", run_table(rows), "", share])


def answer(tree: xr.DataTree) -> Answer:
    """Say whether a real feature escapes at the predicted rate."""
    found = measured(tree["sgd"].to_dataset())
    share = float(tree["sgd"]["share_saddle"].max())
    verdict = "is learned at the predicted rate" if found.agrees else "is not learned at the predicted rate"
    text = (
        f"The digits' first principal component {verdict}: SGD's mean escape times are {found.text}; the minibatches' "
        f"own noise, which is part of the prediction, is at most {100 * share:.2g} % of the noise at the saddle."
    )
    return Answer(text, found.agrees)
