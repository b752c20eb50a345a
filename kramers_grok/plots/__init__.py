"""Figures of what was predicted and measured; data in as xarray, axes out.

Every function draws into `ax` (a new figure if None) and returns it. matplotlib is imported when
a figure is asked for, not with the package. Labels come from ``long_name`` and ``units``.
"""

from kramers_grok.plots.exits import arrhenius, survival
from kramers_grok.plots.hysteresis import hysteresis_loop, loop_area, returns, staircase
from kramers_grok.plots.phase_diagram import width_temperature
from kramers_grok.plots.ramps import learning_curves, loop_width, ramp_escapes
from kramers_grok.plots.rates import error_budget, ratio_extrapolation, splitting_cost
from kramers_grok.plots.states import landscape, phases
from kramers_grok.plots.style import label
from kramers_grok.plots.training import grokking, grokking_map, train_and_test

__all__ = [
    "arrhenius",
    "error_budget",
    "grokking",
    "grokking_map",
    "hysteresis_loop",
    "label",
    "landscape",
    "learning_curves",
    "loop_area",
    "loop_width",
    "phases",
    "ramp_escapes",
    "ratio_extrapolation",
    "returns",
    "splitting_cost",
    "staircase",
    "survival",
    "train_and_test",
    "width_temperature",
]
