"""Figure and summary of the arm `phases`."""

from __future__ import annotations

from typing import Any

import xarray as xr

from kramers_grok import plots
from kramers_grok.report.drawing import new_figure

__all__ = ["figure", "summary"]


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
