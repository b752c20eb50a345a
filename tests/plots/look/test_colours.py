"""All figures are readable in grey and to the colour-blind."""

from __future__ import annotations

import itertools
from typing import Any

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from every_figure import Array, drawn, of_every_figure
from matplotlib.colors import Normalize, to_hex, to_rgb
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kramers_grok.plots.style import CYCLE, DASHES, HATCHES, MARKERS, look

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


@of_every_figure
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


@of_every_figure
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
