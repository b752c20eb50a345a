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

import kramers_grok as kg
from kramers_grok import plots
from kramers_grok.analysis import BUDGET_COLUMNS, compare, exit_time_table
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
    assert legend(ax) == (["a", "b"] if as_mapping else [f"η/B = {v}" for v in (0.1, 0.2)])
    x, median = ax.get_lines()[0].get_data()
    assert x.tolist() == [1.0, 10.0, 100.0]  # t = 0 has no place on a logarithmic axis
    assert median.tolist() == [2.0, 2.0, 2.0]
    assert len(ax.collections) == 2
    plots.grokking(loss[0, 0])


def splitting_run(mean=1.0):
    values = {"mean_exit_time": mean, "lower": 0.8 * mean, "upper": 1.2 * mean, "standard_error": 0.1 * mean}
    coords = {"temperature": 0.1, "dt": 0.1}
    return xr.Dataset(values | {"probability": ("repeat", np.full(8, 0.1))}, coords=coords)


def test_survival_leaves_out_an_arm_without_a_curve():
    ax = plots.survival(compare(theory=Exponential(1.0), langevin=run(1.0, 2.0), splitting=splitting_run()))
    assert [text.split(" ")[0] for text in legend(ax)] == ["langevin", "theory"]


def cost_table(power, **attrs):
    x = np.array([10.0, 15.0, 20.0, 30.0])
    columns = {"cost": 7.0 * x**power, "cost_error": np.full(4, 0.3), "brute_force_cost": np.exp(x)}
    data = {name: ("run", values) for name, values in columns.items()}
    return xr.Dataset(data, coords={"barrier_over_temperature": ("run", x)}, attrs=attrs)


def test_splitting_cost_shows_points_fit_and_brute_force():
    few = cost_table(1.0).isel(run=[0, 1])
    ax = plots.splitting_cost({"mode": cost_table(2.0, relative_error=0.2), "chain": few})
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_xlabel() == "barrier over temperature ΔF/T"
    assert ax.get_ylabel() == "replica steps for 10 % error"
    assert legend(ax) == ["brute force", "mode: exponent 2.00 ± 0.37", "chain"]  # two points make no fit
    fit = ax.get_lines()[0]
    np.testing.assert_allclose(fit.get_ydata(), 7.0 * fit.get_xdata() ** 2, rtol=1e-9)
    low, high = ax.get_ylim()
    assert low < 7 * 10 < np.exp(30.0) < high
    ax.figure.canvas.draw()


def test_ratio_extrapolation_ends_at_the_intercepts():
    x = 1 / np.array([10.0, 13.0, 18.0, 26.0, 40.0])
    ratio = np.stack([1 + x + x**2, 1.05 + 2 * x])
    ratio[1, -1] = np.nan
    columns = {"x": np.stack([x, x]), "ratio": ratio, "ratio_error": np.full((2, 5), 0.01)}
    data = {name: (("case", "point"), values) for name, values in columns.items()}
    table = xr.Dataset(data, coords={"case": ["chain", "network"]})
    ax = plots.ratio_extrapolation(table)
    assert [text.split(" ±")[0] for text in legend(ax)] == ["chain: 1.000", "network: 1.050"]
    curves = [line for line in ax.get_lines() if len(line.get_xdata()) == 100]
    np.testing.assert_allclose([line.get_ydata()[0] for line in curves], [1.0, 1.05])
    assert ax.get_xlabel() == "temperature over barrier T/ΔF"
    assert len(legend(plots.ratio_extrapolation(table.isel(case=0, drop=True)))) == 1
    ax.figure.canvas.draw()


def test_error_budget_stacks_up_to_the_total():
    table = xr.Dataset(
        {name: ("engine", [100.0 * k, np.nan if k < 2 else 10.0]) for k, name in enumerate(BUDGET_COLUMNS)},
        coords={"engine": ["langevin", "network"]},
    ).assign(
        total_error=("engine", [1500.0, 40.0]),
        standard_error=("engine", [20.0, 20.0]),
        asymptotic_time=("engine", [1000.0, 1000.0]),
    )
    ax = plots.error_budget(table)
    heights = np.array([[bar.get_height() for bar in group] for group in ax.containers if hasattr(group, "patches")])
    assert heights.shape == (5, 2)  # the first column is 0 or unknown in both
    np.testing.assert_allclose(np.nansum(heights, axis=0), [150.0, 4.0])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["langevin", "network"]
    assert legend(ax)[-1] == "total ± 1 s.e."
    assert ax.get_ylabel() == "measured minus asymptotic [%]"
    ax.figure.canvas.draw()
    single = table.isel(engine=0, drop=True).expand_dims(temperature=[0.1])
    assert plots.error_budget(single, dim="temperature").get_xticklabels()[0].get_text() == "T = 0.1"


def test_error_budget_of_a_comparison():
    mode = kg.Mode(depth=3, singular_value=1.0, weight_decay=0.25)
    arm = splitting_run(1.1e4).assign_coords(temperature=mode.barrier().height / 6)
    tree = compare(splitting=arm, system=mode, target=kg.beyond(mode.barrier()))
    ax = plots.error_budget(tree["table"].to_dataset())
    assert legend(ax)[-2:] == ["statistical", "total ± 1 s.e."]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.survival({"x": xr.Dataset()}), "group 'x' has neither `exit_time` nor `survival`"),
        (lambda: plots.arrhenius({"x": xr.Dataset()}), "curve 'x' has no `mean_exit_time`"),
        (lambda: plots.phases(xr.Dataset()), "has no `spinodal`, `binodal`"),
        (lambda: plots.splitting_cost({"x": xr.Dataset()}), "table 'x' has no `cost`, `barrier_over_temperature`"),
        (lambda: plots.ratio_extrapolation(xr.Dataset()), "the table has no `x`, `ratio`, `ratio_error`"),
        (lambda: plots.error_budget(xr.Dataset()), r"Make it with `compare\(system=chain"),
        (lambda: plots.grokking({"x": xr.DataArray(np.zeros(3), dims="step")}), "curve 'x' has dimensions"),
    ],
)
def test_bad_data_is_refused_before_a_figure_is_made(draw, message):
    with pytest.raises(InvalidParameterError, match=message):
        draw()


def test_importing_plots_does_not_import_matplotlib():
    code = "import sys, kramers_grok.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
