"""One module for each arm of the main job: its figure, its answer and its part of the summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import xarray as xr

from kramers_grok.report.arms import (
    arrhenius,
    control,
    forgetting,
    grokking,
    hysteresis,
    minibatch,
    optimizers,
    phases,
    ramp,
    real_feature,
    states,
    subsampling,
    wide,
)
from kramers_grok.report.words import Answer

__all__ = ["ARMS", "ArmReport"]


class ArmReport(Protocol):
    """What a module here must have."""

    def figure(self, tree: xr.DataTree) -> Any:
        """Return the arm's matplotlib figure."""
        ...

    def summary(self, tree: xr.DataTree) -> str:
        """Return what was found, as Markdown; every number is read from the tree."""
        ...

    def answer(self, tree: xr.DataTree) -> Answer:
        """Return the arm's answer in a sentence or two; what it says depends on the tree."""
        ...


# In the order of the summary.
ARMS: Mapping[str, ArmReport] = {
    "arrhenius": arrhenius,
    "wide": wide,
    "forgetting": forgetting,
    "minibatch": minibatch,
    "optimizers": optimizers,
    "real_feature": real_feature,
    "phases": phases,
    "grokking": grokking,
    "hysteresis": hysteresis,
    "states": states,
    "subsampling": subsampling,
    "ramp": ramp,
    "control": control,
}
