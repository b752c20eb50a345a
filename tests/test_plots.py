"""Figures show what the data hold: labels, curves, bounds, controls."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import matplotlib
import numpy as np
import pytest
import xarray as xr

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from kramers_grok import plots
from kramers_grok.analysis import compare, exit_time_table
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.schema import exit_dataset


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


@dataclass(frozen=True)
class Exponential:
    mean: float

    def survival(self, t):
        return np.exp(-t / self.mean)


@dataclass(frozen=True)
class CubicMode:
    def free_energy(self, a):
        return a**2 * (1 - a) ** 2

    def saddle_amplitude(self):
        return 0.5

    def learned_amplitude(self):
        return 1.0


def run(tau, horizon, n=100, **coords):
    times = np.random.default_rng(0).exponential(tau, size=n)
    settings = {"seed": 0, "dtype": "float64", "device": "cpu", "configuration": {}}
    return exit_dataset(np.minimum(times, horizon), times < horizon, horizon=horizon, coords=coords, **settings)


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_survival_of_a_comparison():
    tree = compare(theory=Exponential(1.0), langevin=run(1.0, 2.0), sgd=run(1.0, 3.0))
    ax = plots.survival(tree)
    assert ax.get_yscale() == "log"
    assert ax.get_xlabel() == "time [time]"
    assert ax.get_ylabel() == "survival probability"
    assert legend(ax)[2] == "theory"
    assert legend(ax)[0].startswith("langevin (")
    assert len(ax.collections) == 2  # bands
    assert ax.get_xlim()[1] == pytest.approx(1.02 * 3.0)
    ax.figure.canvas.draw()


def test_survival_of_one_run_in_given_axes_and_units():
    _, ax = plt.subplots()
    assert plots.survival(run(1.0, 2.0, engine="sgd"), ax, time_scale=2.0) is ax
    assert ax.get_xlim()[1] == pytest.approx(1.02)
    assert ax.get_xlabel() == "time / 2"
    plots.survival({"none left": run(1e9, 2.0), "all left": run(1e-3, 2.0)}).figure.canvas.draw()


def test_arrhenius_draws_lines_points_bounds_and_the_control():
    T = np.array([0.1, 0.2, 0.4])
    theory = xr.Dataset({"mean_exit_time": ("temperature", np.exp(0.5 / T))}, coords={"temperature": T})
    table = exit_time_table([run(np.exp(0.5 / t), 1e4, temperature=t) for t in T])
    trapped = exit_time_table([run(1e15, 1e4, temperature=0.05), run(1e15, 1e4, temperature=0.0)])
    ax = plots.arrhenius({"exact": theory, "langevin": table, "sgd": trapped}, gradient_noise_variance=1.0)
    assert ax.get_yscale() == "log"
    assert ax.get_xlabel() == "inverse temperature 1/T [1/loss]"
    assert "exact" in legend(ax)
    np.testing.assert_allclose(np.sort(ax.get_lines()[0].get_xdata()), np.sort(1 / T))
    texts = [t.get_text() for t in ax.texts]
    assert "T = 0, sgd: 0 of 100 escaped by t = 1e+04 →" in texts
    # The lower bound 100·1e4/ln 20 at 1/T = 20, with room for its arrow.
    assert ax.get_ylim()[1] > 8 * 1e6 / np.log(20)
    ax.figure.canvas.draw()
    (top,) = ax.child_axes
    assert top.get_xlabel().startswith("batch size over learning rate B/η")
    np.testing.assert_allclose(top.get_xlim(), 0.5 * np.asarray(ax.get_xlim()))


def test_landscape_marks_the_stationary_points():
    ax = plots.landscape(CubicMode())
    marks = [tuple(float(v[0]) for v in line.get_data()) for line in ax.get_lines()[1:]]
    assert marks == [(0.0, 0.0), (0.5, 0.0625), (1.0, 0.0)]
    assert ax.get_xlabel() == "amplitude a [weight]"


def test_phases_staircase_meets_the_spinodals():
    spinodal = np.array([0.4, 0.2, 0.1])
    decay = np.geomspace(0.01, 1, 200)
    ds = xr.Dataset(
        {
            "spinodal": ("feature", spinodal),
            "binodal": ("feature", 0.8 * spinodal),
            "n_states": ("weight_decay", 1 + (decay[:, None] < spinodal).sum(1)),
        },
        coords={"weight_decay": decay},
    )
    ax = plots.phases(ds)
    assert ax.get_ylabel() == "number of metastable states"
    assert ax.get_xlabel() == "weight decay λ [loss/weight²]"
    np.testing.assert_allclose(ax.get_lines()[1].get_xdata(), spinodal)
    assert legend(plots.phases(ds.drop_vars("n_states"), max_features=2))[0].startswith("binodal")
    ax.figure.canvas.draw()


@pytest.mark.parametrize("as_mapping", [False, True])
def test_grokking_shows_median_and_band(as_mapping):
    time = np.array([0.0, 1.0, 10.0, 100.0])
    values = np.arange(5.0)[None, :, None] + np.array([0.0, 10.0])[:, None, None] + np.zeros(4)
    dims = ("lr_over_batch", "replica", "time")
    loss = xr.DataArray(values, dims=dims, coords={"lr_over_batch": [0.1, 0.2], "time": time}, name="loss")
    curves = {"a": loss[0], "b": loss[1]} if as_mapping else loss
    ax = plots.grokking(curves)
    assert ax.get_xscale() == "log"
    assert ax.get_ylabel() == "loss [loss]"
    assert legend(ax) == (
        ["a", "b"] if as_mapping else [f"learning rate over batch size η/B = {v}" for v in (0.1, 0.2)]
    )
    x, median = ax.get_lines()[0].get_data()
    assert x.tolist() == [1.0, 10.0, 100.0]  # t = 0 has no place on a logarithmic axis
    assert median.tolist() == [2.0, 2.0, 2.0]
    assert len(ax.collections) == 2
    plots.grokking(loss[0, 0])


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.survival({"x": xr.Dataset()}), "group 'x' has neither `exit_time` nor `survival`"),
        (lambda: plots.arrhenius({"x": xr.Dataset()}), "curve 'x' has no `mean_exit_time`"),
        (lambda: plots.phases(xr.Dataset()), "has no `spinodal`, `binodal`"),
        (lambda: plots.grokking({"x": xr.DataArray(np.zeros(3), dims="step")}), "curve 'x' has dimensions"),
    ],
)
def test_bad_data_is_refused_before_a_figure_is_made(draw, message):
    with pytest.raises(InvalidParameterError, match=message):
        draw()


def test_importing_plots_does_not_import_matplotlib():
    code = "import sys, kramers_grok.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
