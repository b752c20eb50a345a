"""Figure and summary of the arm `phases`."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from kramers_grok import plots
from kramers_grok.report.drawing import new_figure
from kramers_grok.report.words import Answer, power

__all__ = ["answer", "figure", "summary"]


def figure(tree: xr.DataTree) -> Any:
    """Draw the arm's figure."""
    figure, ax = new_figure((6.4, 4.4))
    plots.phases(tree.to_dataset(), ax)
    ax.set_title(f"Digits as a deep linear autoencoder, D = {tree.attrs['depth']}", fontsize="medium")
    return figure


def summary(tree: xr.DataTree) -> str:
    """Return what was found, as Markdown."""
    phases = tree.to_dataset()
    return (
        "## Phases of the digits\n\n"
        f"{phases.sizes['feature']} features; spinodals from {float(phases.spinodal.min()):.3g} to "
        f"{float(phases.spinodal.max()):.4g}; up to {int(phases.n_states.max())} metastable states."
    )


def answer(tree: xr.DataTree) -> Answer:
    """Say how many states the digits have at once, and where they are lost."""
    data = tree.to_dataset()
    most, n = int(data["n_states"].max()), data.sizes["feature"]
    where = data["weight_decay"].values[int(np.argmax(data["n_states"].values))]
    both_ends = f"between λ = {power(float(data['spinodal'].min()))} and {float(data['spinodal'].max()):.4g}"
    count = "up to one state for each number of features learned" if most == n + 1 else f"of {n + 1} at most"
    text = (
        f"The digits as a linear autoencoder of {int(data.attrs['depth'])} layers have {most} metastable states at λ "
        f"= {power(where)} ({count}); the {n} features lose theirs one by one at their spinodals {both_ends} (theory, "
        "nothing is simulated)."
    )
    return Answer(text, None)
