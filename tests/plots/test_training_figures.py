"""Train and test error, and the map of where the curve exists."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from kramers_grok import plots
from kramers_grok.core.exceptions import InvalidParameterError


def run_of_four() -> xr.Dataset:
    time = np.geomspace(1, 100, 7)
    loss = np.linspace(1, 0, 7) * np.array([[1.0], [1.0], [1.0], [3.0]])
    data = {name: (("replica", "time"), loss * scale) for name, scale in (("train_loss", 1.0), ("test_loss", 2.0))}
    return xr.Dataset({**data, "test_predicted": ("time", np.ones(7))}, coords={"time": time})


def test_train_and_test_draws_means_bands_and_predictions() -> None:
    ax = plots.train_and_test(run_of_four())
    lines = {str(line.get_label()): line for line in ax.get_lines()}
    assert set(lines) == {"train error", "test error", "test, predicted"}
    assert np.asarray(lines["train error"].get_ydata())[0] == pytest.approx(1.5)
    assert len(ax.collections) == 2
    assert ax.get_xscale() == "log"
    plt.close("all")


def test_train_and_test_needs_both() -> None:
    with pytest.raises(InvalidParameterError, match="the run has no `test_loss`"):
        plots.train_and_test(run_of_four().drop_vars("test_loss"))


def verdicts() -> xr.Dataset:
    dims = ("samples_per_input", "weight_decay")
    table = np.array([[True, False], [False, False], [True, True]])
    return xr.Dataset(
        {"measured": (dims, table), "predicted": (dims, ~table)},
        coords={"samples_per_input": [1.0, 2.0, 16.0], "weight_decay": [0.01, 0.1]},
    )


def test_map_marks_every_point_once_and_the_predicted_ones_twice() -> None:
    ax = plots.grokking_map(verdicts())
    shown = [c for c in ax.collections if len(np.ma.getdata(c.get_offsets()))]
    assert len(shown) == 6 + 3
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "2", "16"]
    plt.close("all")


def test_map_of_one_batch_size() -> None:
    with pytest.raises(InvalidParameterError, match="Select one batch size first"):
        plots.grokking_map(verdicts().expand_dims("batch_size"))
