"""All figures look alike, are readable in grey and to the colour-blind, name their axes, and say what they miss.

One small data set for each figure; what is asked is asked of all of them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pytest
import xarray as xr

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.colors import Normalize, to_hex, to_rgb
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

import kramers_grok as kg
from kramers_grok import plots
from kramers_grok.analysis import BUDGET_COLUMNS
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.schema import VARIABLES, exit_dataset
from kramers_grok.plots.style import CYCLE, DASHES, HATCHES, MARKERS, STYLE, look
from kramers_grok.theory.mode_tables import free_energy_table
from kramers_grok.theory.phases import FeatureSpectrum

Array = np.ndarray[Any, np.dtype[np.float64]]

# ---------------------------------------------------------------- data


def run(tau: float, horizon: float = 2.0) -> xr.Dataset:
    times = np.random.default_rng(0).exponential(tau, size=60)
    settings: dict[str, Any] = {"seed": 0, "dtype": "float64", "device": "cpu", "configuration": {}}
    return exit_dataset(np.minimum(times, horizon), times < horizon, horizon=horizon, coords={}, **settings)


def table(heat: Array, factor: float) -> xr.Dataset:
    tau = factor * np.exp(0.5 / heat)
    columns = {"mean_exit_time": tau, "lower": 0.9 * tau, "upper": 1.1 * tau, "predicted_mean": tau}
    return xr.Dataset({k: ("temperature", v) for k, v in columns.items()}, coords={"temperature": heat})


def arrhenius() -> dict[str, xr.Dataset]:
    heat = np.array([0.1, 0.2, 0.4])
    lines = {f"law {k}": table(heat, k)[["mean_exit_time"]] for k in (1.1, 1.2, 1.3)}
    return lines | {name: table(heat, k) for k, name in enumerate(("langevin", "sgd", "splitting", "other"), start=1)}


def survival() -> dict[str, xr.Dataset]:
    t = np.linspace(0, 2, 20)
    law = xr.Dataset({"survival": ("time", np.exp(-t)), "mean_exit_time": 1.0}, coords={"time": t})
    return {"langevin": run(1.0), "sgd": run(0.9), "another": run(0.5), "theory": law, "theory: slow": law}


def budget() -> xr.Dataset:
    columns = {name: ("engine", [10.0, -10.0]) for name in BUDGET_COLUMNS}
    more = {"total_error": 50.0, "standard_error": 5.0, "asymptotic_time": 100.0}
    totals = {name: ("engine", [value, value]) for name, value in more.items()}
    return xr.Dataset(columns | totals, coords={"engine": ["langevin", "sgd"]})


def loop() -> xr.Dataset:
    decay, spinodal = np.linspace(0.1, 0.5, 30), np.linspace(0.45, 0.15, 8)
    up = np.where(decay[:, None] < spinodal, np.linspace(2, 1, 8), 0.0)
    columns = {"up": up, "down": 0.01 * up, "predicted_up": up}
    data: dict[str, Any] = {name: (("weight_decay", "feature"), v) for name, v in columns.items()}
    features = {"jump": -np.ones(8), "before": spinodal - 0.01, "after": spinodal + 0.01, "spinodal": spinodal}
    return xr.Dataset(data | {n: ("feature", v) for n, v in features.items()}, coords={"weight_decay": decay})


def stairs() -> xr.Dataset:
    decay = np.linspace(0.5, 0.1, 20)
    share = 1 / (1 + np.exp((decay - np.array([[0.4], [0.3], [0.2]])) / 0.01))
    names = ("returned", "predicted_lower", "predicted_upper")
    return xr.Dataset({n: (("feature", "weight_decay"), share) for n in names}, coords={"weight_decay": decay})


def families() -> dict[str, xr.Dataset]:
    columns = {"area": [1.0, 2.0, 2.5], "predicted_area": [1.0, 2.0, 2.5], "n_jumps": [1, 2, 3]}
    one = xr.Dataset({n: ("n_features", v) for n, v in columns.items()}, coords={"n_features": [1, 2, 3]})
    return {"teacher": one, "digits": one}


def losses() -> xr.Dataset:
    time = np.geomspace(0.1, 100, 40)
    loss = np.where(time < np.array([1.0, 3.0, 9.0, 20.0])[:, None, None], 1.0, np.full((1, 3, 1), 0.1))
    dims = ("lr_over_batch", "replica", "time")
    return xr.Dataset({"loss": (dims, loss)}, coords={"time": time, "lr_over_batch": [0.1, 0.2, 0.3, 0.4]})


def train_and_test() -> xr.Dataset:
    one = losses().isel(lr_over_batch=0)
    means = {f"{name}_predicted": one["loss"].mean("replica") for name in ("train", "test")}
    return xr.Dataset({"train_loss": one["loss"], "test_loss": 2 * one["loss"], **means})


def verdicts() -> xr.Dataset:
    flags = (("samples_per_input", "weight_decay"), np.array([[True, False], [False, True]]))
    coords = {"samples_per_input": [1.0, 2.0], "weight_decay": [0.01, 0.1]}
    return xr.Dataset({"measured": flags, "predicted": flags}, coords=coords)


def choice() -> xr.Dataset:
    noise, fine, laws = np.array([0.0, 1.0, 2.0, 4.0, 8.0]), np.geomspace(1, 8, 50), ["arrhenius", "power", "growth"]
    curves = np.stack([np.exp(3 / fine), 20 / fine**2, 9 / fine])
    data = {
        "median_exit_time": ("noise", np.array([50.0, 20.0, 4.5, 2.1, 1.5])),
        "lower_limit": ("noise", np.array([True, True, False, False, False])),
        "longest_time": ("noise", np.full(5, 50.0)),
        "fitted_median": (("law", "curve_noise"), curves),
        "akaike_weight": ("law", np.array([0.9, 0.1, 0.0])),
        "log_likelihood": ("law", np.array([-10.0, -12.0, -900.0])),
    }
    attrs = {"verdict": "arrhenius", "best": "arrhenius", "misfit": 0.01}
    return xr.Dataset(data, coords={"noise": noise, "curve_noise": fine, "law": laws}, attrs=attrs)


def cost() -> dict[str, xr.Dataset]:
    x = np.array([10.0, 15.0, 20.0])
    columns = {"cost": 7 * x**2, "cost_error": np.full(3, 0.3), "brute_force_cost": np.exp(x)}
    one = xr.Dataset({n: ("run", v) for n, v in columns.items()}, coords={"barrier_over_temperature": ("run", x)})
    return {"mode": one, "chain": 2 * one.assign_coords(), "matrix": one}


def ratios() -> xr.Dataset:
    x = np.tile(1 / np.array([10.0, 13.0, 18.0, 26.0, 40.0]), (5, 1))
    data = {"x": x, "ratio": 1 + x * np.arange(5)[:, None], "ratio_error": np.full((5, 5), 0.01)}
    cases = {"case": [f"case {k}" for k in range(5)]}
    return xr.Dataset({name: (("case", "point"), v) for name, v in data.items()}, coords=cases)


def ramps() -> xr.Dataset:
    decay = np.linspace(0.4, 0.2, 40)
    law = np.stack([np.exp(-np.exp((at - decay) * 80)) for at in (0.32, 0.3, 0.28)])
    left = np.stack([np.linspace(at - 0.02, at + 0.02, 25) for at in (0.32, 0.3, 0.28)])
    one, each = ("ramp_rate", "position"), ("ramp_rate", "replica")
    data = {"driven_survival": (one, law), "adiabatic_survival": (one, law**1.2)}
    measured = {"weight_decay_at_exit": (each, left), "escaped": (each, left > 0)}
    return xr.Dataset(data | measured, coords={"weight_decay": ("position", decay), "ramp_rate": [1e-4, 1e-3, 1e-2]})


def loops() -> xr.Dataset:
    names = ("width", "width_error", "driven_width", "adiabatic_width")
    width = np.array([[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]])
    coords = {"temperature": [0.1, 0.2, 0.3], "ramp_rate": [1e-4, 1e-3]}
    return xr.Dataset({name: (("temperature", "ramp_rate"), width) for name in names}, coords=coords)


def schedules() -> xr.Dataset:
    step, tau = np.arange(100), np.arange(10, 90, 10)[:, None]
    left = np.broadcast_to(np.linspace(1, 90, 30), (8, 30))
    data = {"predicted_survival": (("schedule", "step"), np.exp(-step / tau))}
    each = ("schedule", "replica")
    measured = {"learn_step": (each, left), "escaped": (each, left > 0)}
    return xr.Dataset(data | measured, coords={"step": step, "schedule": [f"schedule {k}" for k in range(8)]})


def diagram() -> xr.Dataset:
    width, heat = np.array([2, 4, 8]), np.array([0.01, 0.02, 0.04])
    barrier = np.array([[9.0, 5.0, 2.0], [5.0, 2.0, 0.5], [2.0, np.nan, np.nan]])
    data = {"radial_barrier_over_temperature": (("width", "temperature"), barrier)}
    more = {"melted": (("width", "temperature"), np.isnan(barrier)), "critical_width": ("temperature", [9.0, 8.5, 3.0])}
    labels = {"units": "1", "long_name": "radial barrier over T"}
    ds = xr.Dataset(data | more, coords={"width": width, "temperature": heat})
    ds["radial_barrier_over_temperature"].attrs = labels
    return ds


def departure() -> xr.Dataset:
    coords = {"weight_decay": [0.4, 0.43, 0.46], "label_noise": [0.5, 1.0], "lr_over_batch": [0.02, 0.01, 0.005]}
    action = np.broadcast_to([1.0, 6.0, 20.0], (3, 2, 3))
    return xr.Dataset({"log_departure": (tuple(coords), 0.1 * action), "action_over_ratio": (tuple(coords), action)},
                      coords=coords)  # fmt: skip


def dimensions() -> xr.Dataset:
    columns = {"mean_exit_time": [100.0, 50.0, 80.0, 40.0], "standard_error": [5.0, 3.0, 4.0, 2.0],
               "predicted_time": [100.0] * 4, "predicted_factor": [1.0, 0.5, 0.8, 0.4],
               "n_inputs": [1, 16, 1, 16], "n_outputs": [1, 1, 8, 8]}  # fmt: skip
    return xr.Dataset({name: ("run", values) for name, values in columns.items()})


def path(shift: float = 0.0) -> xr.Dataset:
    way = np.linspace(-1.0, 1.0, 21)
    data = {
        "free_energy": ("arc_length", shift + 0.1 * (1 - way**2)),
        "order_parameter": ("arc_length", 0.5 * (1 + way)),
    }
    states = {
        "state_energy": ("state", shift + np.array([0.0, 0.1, 0.0])),
        "state_arc_length": ("state", [-1.0, 0.0, 1.0]),
    }
    return xr.Dataset(data | states, coords={"arc_length": way})


def graph() -> xr.DataTree:
    def table(dim: str, energies: list[float], m: list[float]) -> xr.Dataset:
        return xr.Dataset({"energy": (dim, energies), "order_parameter": ((dim, "feature"), np.array(m)[:, None])})

    saddles = table("saddle", [0.8, 1.2], [0.7, 0.2]).assign(ends=(("saddle", "end"), [[0, 1], [1, 2]]))
    return xr.DataTree.from_dict({"minima": table("state", [0.0, 0.5, 1.0], [1.0, 0.5, 0.0]), "saddles": saddles})


MODE = kg.Mode(depth=3, singular_value=1.0, weight_decay=0.25)

# Figure, its data, and further arguments
FIGURES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "arrhenius": (arrhenius, {"gradient_noise_variance": 1.0}),
    "arrhenius_trap": (choice, {}),
    "diffusion_departure": (departure, {"label_noise": 1.0}),
    "energy_path": (lambda: {name: path(0.1 * k) for k, name in enumerate("abcd")}, {}),
    "error_budget": (budget, {}),
    "escape_laws": (lambda: {name: choice() for name in "abcd"}, {}),
    "extra_dimensions": (dimensions, {}),
    "grokking": (losses, {}),
    "grokking_map": (verdicts, {}),
    "hysteresis_loop": (loop, {}),
    "landscape": (lambda: free_energy_table(MODE, [0.15, 0.25, 0.35, 0.45, 0.5], n_points=30), {}),
    "landscape_graph": (graph, {}),
    "law_choice": (choice, {}),
    "learning_curves": (schedules, {}),
    "loop_area": (families, {}),
    "loop_width": (loops, {}),
    "phase_diagram": (lambda: FeatureSpectrum.from_teacher(np.linspace(0.1, 2, 30)).table(3), {}),
    "phases": (lambda: FeatureSpectrum.from_teacher([2.0, 1.0, 0.5]).table(3), {}),
    "ramp_escapes": (ramps, {}),
    "ratio_extrapolation": (ratios, {}),
    "returns": (stairs, {}),
    "splitting_cost": (cost, {}),
    "staircase": (loop, {}),
    "survival": (survival, {}),
    "train_and_test": (train_and_test, {}),
    "width_temperature": (diagram, {}),
}
every_figure = pytest.mark.parametrize("name", FIGURES)


def draw(name: str, ax: Any = None) -> Any:
    make, more = FIGURES[name]
    return getattr(plots, name)(make(), ax=ax, **more)


@functools.cache
def drawn(name: str) -> Any:
    """The figure, for those who only look."""
    return draw(name)


def test_every_public_figure_is_asked() -> None:
    assert set(FIGURES) == set(plots.__all__) - {"label", "styled"}


# ---------------------------------------------------------------- axes and labels


@every_figure
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


@every_figure
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


# ---------------------------------------------------------------- colour

# Okabe and Ito (2008), with the grey that R's palette of this name ends in
OKABE_ITO = {"#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999"}
# Machado, Oliveira and Fernandes, IEEE Trans. Vis. Comput. Graph. 15, 1291 (2009), severity 1, for linear RGB
VISIONS = {
    "usual": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                            [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip
WHITE = np.array([0.9505, 1.0, 1.089])
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour: Any, vision: str = "usual") -> Array:
    """CIELAB of a colour as somebody sees it: the first number is its lightness in grey, 0 to 100."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(VISIONS[vision] @ linear, 0, 1) / WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISIONS)
def test_the_first_six_colours_are_told_apart_with_every_vision(vision: str) -> None:
    seen = [lab(colour, vision) for colour in CYCLE[:6]]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15


def test_green_and_red_of_equal_strength_would_fail() -> None:
    green, red = lab("#00a000", "deuteranopia"), lab("#c86400", "deuteranopia")
    assert np.linalg.norm(green - red) < 15 < np.linalg.norm(lab("#00a000") - lab("#c86400"))


def colours(ax: Any) -> set[str]:
    """All colours of lines and areas that are not those of a colour map."""
    found: list[Any] = []
    for line in ax.get_lines():
        found += [line.get_color(), line.get_markerfacecolor(), line.get_markeredgecolor()]
    for patch in ax.patches:
        found += [patch.get_facecolor(), patch.get_edgecolor()]
    for collection in ax.collections:
        if collection.get_array() is None and not type(collection).__name__.endswith("ContourSet"):
            found += [*collection.get_facecolor(), *collection.get_edgecolor()]
    return {to_hex(c) for c in found if not isinstance(c, str) or c.lower() != "none"}


@every_figure
def test_colours_are_okabe_and_itos_or_grey(name: str) -> None:
    ax = drawn(name)
    for each in ax.figure.axes:
        strange = {c for c in colours(each) - OKABE_ITO if np.ptp(to_rgb(c)) > 0.01}
        assert not strange or each.get_label() == "<colorbar>", strange


@pytest.mark.parametrize("name", ["diffusion_departure", "staircase", "width_temperature"])
def test_colour_maps_only_get_darker_or_lighter(name: str) -> None:
    maps = [c for c in drawn(name).collections if c.get_array() is not None]
    maps = [c for c in maps if c.cmap(0.0) != c.cmap(1.0)]  # white over what means nothing, black lines
    assert maps
    for mesh in maps:
        light = np.array([lab(mesh.cmap(v)[:3])[0] for v in np.linspace(0, 1, 64)])
        assert isinstance(mesh.norm, Normalize)
        assert (np.diff(light) > 0).all() or (np.diff(light) < 0).all()
        assert np.ptp(light) > 50


# ---------------------------------------------------------------- readable in grey

LIGHTNESS = 20.0  # of 100: neighbouring greys that nobody confuses, in a line as thin as these


def marks(handle: Any) -> dict[str, Any]:
    """What a reader sees of a legend's entry in a print in grey."""
    if isinstance(handle, ErrorbarContainer):
        return {"bars": True} | marks(handle.lines[0])
    if isinstance(handle, BarContainer):
        handle = handle.patches[0]
    if isinstance(handle, Line2D):
        dash = handle._unscaled_dash_pattern if handle.get_linestyle() not in ("None", "none", "", " ") else None
        marker = None if handle.get_marker() in ("None", "none", "", " ", None) else handle.get_marker()
        hollow = (
            lab(handle.get_markerfacecolor())[0] > 90 if marker and handle.get_markerfacecolor() != "none" else True
        )
        return {"kind": "line", "dash": repr(dash), "marker": marker, "hollow": bool(marker) and hollow,
                "light": lab(handle.get_color())[0]}  # fmt: skip
    if isinstance(handle, Patch):
        return {"kind": "area", "hatch": handle.get_hatch() or "", "light": lab(handle.get_facecolor()[:3])[0]}
    face, paths = handle.get_facecolor(), handle.get_paths()
    hollow = not len(face) or lab(face[0][:3])[0] > 90
    vertices = len(paths[0].vertices) if paths else 0
    light = lab((face if len(face) else handle.get_edgecolor())[0][:3])[0]
    return {"kind": type(handle).__name__, "shape": vertices, "hollow": hollow, "light": light,
            "hatch": handle.get_hatch() or ""}  # fmt: skip


def told_apart(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two series differ in anything but the hue of their colours."""
    if abs(one["light"] - other["light"]) >= LIGHTNESS:
        return True
    return any(one.get(key) != other.get(key) for key in {*one, *other} - {"light"})


@every_figure
def test_every_pair_of_series_is_told_apart_in_grey(name: str) -> None:
    ax = drawn(name)
    entries: list[tuple[str, dict[str, Any]]] = []
    for each in ax.figure.axes:
        handles, texts = each.get_legend_handles_labels()
        assert not any(isinstance(h, HandlerTuple) for h in handles)
        entries += [(text, marks(handle)) for handle, text in zip(handles, texts, strict=True)]
    assert len({text for text, _ in entries}) == len(entries)
    confused = [(a, b) for (a, x), (b, y) in itertools.combinations(entries, 2) if not told_apart(x, y)]
    assert not confused


def test_lines_that_differ_in_hue_alone_fail() -> None:
    _, ax = plt.subplots()
    green, purple = (ax.plot([0, 1], color=CYCLE[k], label=str(k))[0] for k in (2, 3))
    assert not told_apart(marks(green), marks(purple))
    purple.set_linestyle("--")
    assert told_apart(marks(green), marks(purple))


def test_no_two_of_many_series_look_alike_in_grey() -> None:
    many = [look(number) for number in range(24)]
    assert len({(each.marker, each.dash) for each in many}) == 24
    assert (len(set(MARKERS)), len(set(DASHES)), len(set(HATCHES))) == (12, 8, 8)
    # By markers alone, e.g. points with error bars
    assert len({each.marker for each in many[:12]}) == 12


# ---------------------------------------------------------------- wrong data


@every_figure
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
