"""Figures of what was predicted and measured; data in as xarray, axes out.

Every function takes the data set that it shows and draws into `ax` (a new figure if None), which it returns. All share
one look, in which no series has its colour alone, so that they can be read in grey; labels come from ``long_name``
and ``units``. matplotlib is imported when a figure is asked for, not with the package.
"""

from kramers_grok.plots.exits import survival
from kramers_grok.plots.forgetting import diffusion_departure, extra_dimensions
from kramers_grok.plots.graphs import landscape_graph
from kramers_grok.plots.hysteresis import hysteresis_loop, loop_area, returns, staircase
from kramers_grok.plots.laws import arrhenius_trap, escape_laws, law_choice
from kramers_grok.plots.melting import width_temperature
from kramers_grok.plots.paths import energy_path
from kramers_grok.plots.ramps import learning_curves, loop_width, ramp_escapes
from kramers_grok.plots.rates import error_budget, ratio_extrapolation, splitting_cost
from kramers_grok.plots.states import landscape, phase_diagram, phases
from kramers_grok.plots.style import label, styled
from kramers_grok.plots.temperatures import arrhenius
from kramers_grok.plots.training import grokking, grokking_map, train_and_test

__all__ = [
    "arrhenius",
    "arrhenius_trap",
    "diffusion_departure",
    "energy_path",
    "error_budget",
    "escape_laws",
    "extra_dimensions",
    "grokking",
    "grokking_map",
    "hysteresis_loop",
    "label",
    "landscape",
    "landscape_graph",
    "law_choice",
    "learning_curves",
    "loop_area",
    "loop_width",
    "phase_diagram",
    "phases",
    "ramp_escapes",
    "ratio_extrapolation",
    "returns",
    "splitting_cost",
    "staircase",
    "styled",
    "survival",
    "train_and_test",
    "width_temperature",
]
