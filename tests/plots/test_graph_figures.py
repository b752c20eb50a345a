"""The picture of a many-state landscape."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import xarray as xr

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.plots.graphs import landscape_graph


def tree(features: int = 1) -> xr.DataTree:
    words = {"units": "1", "long_name": "order parameter m"}
    energy = {"units": "loss", "long_name": "energy F"}

    def table(dim: str, energies: list[float], m: list[float], **more: object) -> xr.Dataset:
        values = np.tile(np.array(m)[:, None], (1, features))
        columns = {"energy": (dim, energies, energy), "order_parameter": ((dim, "feature"), values, words)}
        return xr.Dataset({**columns, **more})

    ends = (("saddle", "end"), [[0, 1], [1, 2], [1, 1]])
    return xr.DataTree.from_dict({
        "minima": table("state", [0.0, 0.5, 1.0], [1.0, 0.5, 0.0]),
        "saddles": table("saddle", [0.8, 1.2, 2.0], [0.7, 0.2, 0.5], ends=ends),
    })  # fmt: skip


def test_minima_and_saddles_stand_at_their_energies() -> None:
    ax = landscape_graph(tree())
    lines = {str(line.get_label()): line for line in ax.get_lines()}
    np.testing.assert_array_equal(lines["minima"].get_xydata(), [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    np.testing.assert_array_equal(lines["saddles"].get_xydata(), [[0.7, 0.8], [0.2, 1.2], [0.5, 2.0]])
    assert lines["minima"].get_marker() != lines["saddles"].get_marker()  # told apart in grey
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("order parameter m", "energy F [loss]")
    assert [text.get_text() for text in ax.texts] == ["0", "1", "2"]
    ends = {tuple(np.round(line.get_xydata()[[0, -1]].ravel(), 9)) for line in ax.get_lines()[:-2]}
    assert ends == {
        (1.0, 0.0, 0.7, 0.8), (0.5, 0.5, 0.7, 0.8), (0.5, 0.5, 0.2, 1.2), (0.0, 1.0, 0.2, 1.2), (0.5, 0.5, 0.5, 2.0),
    }  # fmt: skip


def test_neighbours_stand_side_by_side_without_an_order_parameter() -> None:
    for given, feature in ((tree(), None), (tree(features=0), 0)):
        ax = landscape_graph(given, feature=feature)
        places = next(line for line in ax.get_lines() if line.get_label() == "minima").get_xdata()
        assert sorted(np.asarray(places)) == [0, 1, 2]
        assert np.asarray(places)[1] == 1  # between its two neighbours
    assert landscape_graph(tree(features=2), feature=1).get_xlabel() == "order parameter m of feature 1"


def test_a_graph_without_saddles_is_drawn() -> None:
    whole = tree()
    alone = xr.DataTree.from_dict({
        "minima": whole["minima"].to_dataset().isel(state=[0]),
        "saddles": whole["saddles"].to_dataset().isel(saddle=[]),
    })  # fmt: skip
    for feature in (0, None):
        assert len(landscape_graph(alone, feature=feature).texts) == 1


def test_what_is_no_graph_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="expected a graph"):
        landscape_graph(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="expected `minima` and `saddles`"):
        landscape_graph(xr.DataTree.from_dict({"minima": xr.Dataset()}))
    endless = tree()["saddles"].to_dataset().drop_vars("ends")
    with pytest.raises(InvalidParameterError, match="has no `ends`"):
        landscape_graph(xr.DataTree.from_dict({"minima": tree()["minima"], "saddles": endless}))
    with pytest.raises(InvalidParameterError, match="below 1"):
        landscape_graph(tree(), feature=4)
