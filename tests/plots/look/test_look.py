"""All figures look alike whatever the caller's settings, name their axes, and say what they miss.

One small data set for each figure; what is asked is asked of all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pytest
import xarray as xr

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from every_figure import FIGURES, draw, drawn, of_every_figure

from kramers_grok import plots
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.schema import VARIABLES
from kramers_grok.plots.style import CYCLE, STYLE


def test_every_public_figure_is_asked() -> None:
    assert set(FIGURES) == set(plots.__all__) - {"label", "styled"}


# ---------------------------------------------------------------- axes and labels


@of_every_figure
def test_draws_into_the_axes_it_is_given_and_leaves_its_data_alone(name: str) -> None:
    make, more = FIGURES[name]
    data, again = make(), make()
    _, ax = plt.subplots()
    assert getattr(plots, name)(data, ax=ax, **more) is ax
    assert len(plt.get_fignums()) == 1
    assert ax.has_data()
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    pairs = [(data, again)] if isinstance(data, xr.Dataset) else [(data[k], again[k]) for k in data]
    for one, other in pairs:
        xr.testing.assert_identical(one, other)


# Where the label of the axis comes from
LABELLED = {
    "arrhenius": ("mean_exit_time", "y"), "diffusion_departure": ("weight_decay", "x"), "escape_laws": ("noise", "x"),
    "grokking": ("loss", "y"), "hysteresis_loop": ("up", "y"), "landscape": ("amplitude", "x"),
    "law_choice": ("median_exit_time", "y"), "loop_width": ("ramp_rate", "x"), "phase_diagram": ("singular_value", "x"),
    "ratio_extrapolation": ("x", "x"), "returns": ("weight_decay", "x"), "staircase": ("weight_decay", "x"),
    "splitting_cost": ("barrier_over_temperature", "x"), "train_and_test": ("time", "x"),
    "width_temperature": ("width", "x"),
}  # fmt: skip


@pytest.mark.parametrize("name", LABELLED)
def test_labels_come_from_the_attributes(name: str) -> None:
    make, more = FIGURES[name]
    variable, which = LABELLED[name]
    data = make()
    for ds in [data] if isinstance(data, xr.Dataset) else data.values():
        ds[variable].attrs = {"long_name": "what the file says", "units": "furlongs"}
    ax = getattr(plots, name)(data, **more)
    assert (ax.get_xlabel() if which == "x" else ax.get_ylabel()) == "what the file says [furlongs]"


# ---------------------------------------------------------------- one look


THEIRS = {"lines.linewidth": 9.0, "lines.markersize": 20.0, "legend.frameon": True, "legend.fontsize": 20.0,
          "errorbar.capsize": 9.0, "image.cmap": "jet", "hatch.linewidth": 5.0}  # fmt: skip


def sizes(ax: Any) -> list[Any]:
    """How everything in the axes is drawn, as far as settings could change it."""
    lines = [(line.get_linewidth(), line.get_markersize(), line.get_color()) for line in ax.get_lines()]
    areas = [(*c.get_linewidth(), c.get_cmap().name) for c in ax.collections]
    hatches = [patch.get_linewidth() for patch in ax.patches]
    box = ax.get_legend()
    legend = [] if box is None else [box.get_frame_on(), *(text.get_fontsize() for text in box.get_texts())]
    return [lines, areas, hatches, legend]


@of_every_figure
def test_looks_the_same_whatever_the_callers_settings(name: str) -> None:
    with matplotlib.rc_context(THEIRS):
        before = dict(matplotlib.rcParams)
        theirs = draw(name, plt.subplots()[1])
        assert dict(matplotlib.rcParams) == before
    assert sizes(theirs) == sizes(drawn(name))


@pytest.mark.parametrize("name", ["error_budget", "survival"])
def test_looks_the_same_to_the_pixel(name: str) -> None:
    images = []
    for settings in ({}, THEIRS):
        with matplotlib.rc_context({"figure.dpi": 40, **settings}):
            figure, ax = plt.subplots(figsize=(4, 3))
            draw(name, ax)
            figure.canvas.draw()
            images.append(np.asarray(figure.canvas.buffer_rgba()).copy())
    np.testing.assert_array_equal(images[0], images[1])


def test_own_panels_can_have_the_look() -> None:
    with plots.styled():
        plain = {key: value for key, value in STYLE.items() if key not in ("figure.figsize", "axes.prop_cycle")}
        assert {key: matplotlib.rcParams[key] for key in plain} == plain
        assert matplotlib.rcParams["axes.prop_cycle"].by_key()["color"] == list(CYCLE)
    assert matplotlib.rcParams["legend.frameon"] is True


# ---------------------------------------------------------------- wrong data


@of_every_figure
def test_a_wrong_data_set_is_named_with_what_is_missing_and_how_to_make_it(name: str) -> None:
    _, more = FIGURES[name]
    wrong = xr.Dataset({"something": ("else", [1.0])})
    figure: Callable[..., Any] = getattr(plots, name)
    with pytest.raises(InvalidParameterError, match=r"(?s)(no|neither) `.*holds.*something.*Make it with `") as caught:
        figure(wrong, **more)
    assert "`None`" not in str(caught.value)
    with pytest.raises(InvalidParameterError, match=r"(?s)(is|are) (ndarray|int).*Make it with `"):
        figure(np.zeros(3), **more)
    assert plt.get_fignums() == []  # nothing half drawn is left behind


def test_every_labelled_variable_is_in_the_vocabulary_or_labels_itself() -> None:
    assert {"mean_exit_time", "weight_decay", "amplitude", "ramp_rate", "barrier_over_temperature"} <= set(VARIABLES)
