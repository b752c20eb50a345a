"""Figures of what was predicted and measured; data in as xarray, axes out.

Every function draws into `ax` (a new figure if None) and returns it. matplotlib is imported when
a figure is asked for, not with the package. Labels come from ``long_name`` and ``units``.
"""

from kramers_grok.plots.exits import arrhenius, survival
from kramers_grok.plots.phase_diagram import width_temperature
from kramers_grok.plots.rates import error_budget, ratio_extrapolation, splitting_cost
from kramers_grok.plots.states import landscape, phases
from kramers_grok.plots.style import label
from kramers_grok.plots.training import grokking

__all__ = [
    "arrhenius",
    "error_budget",
    "grokking",
    "label",
    "landscape",
    "phases",
    "ratio_extrapolation",
    "splitting_cost",
    "survival",
    "width_temperature",
]
