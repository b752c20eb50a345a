"""What a study exports is drawn as it is: trees whose nodes have a dimension for each parameter."""

from __future__ import annotations

import itertools
from typing import Any

import matplotlib
import numpy as np
import pytest
import xarray as xr

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import kramers_grok as kg
from kramers_grok import plots
from kramers_grok.analysis import BUDGET_COLUMNS
from kramers_grok.analysis.cost import with_cost
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.schema import describe
from kramers_grok.theory.mode_tables import free_energy_table
from kramers_grok.theory.phases import FeatureSpectrum

DECAYS, RATIOS, STEPS = (0.2, 0.3), (3.0, 4.0, 5.0), (0.05, 0.1)
N = 40


def legend(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def cells(lr: tuple[float, ...] | None) -> xr.Dataset:
    """Scalars of all cells, each a variable of all dimensions, as an export holds them."""
    coords: dict[str, Any] = {"depth": [3], "weight_decay": list(DECAYS), "barrier_over_temperature": list(RATIOS)}
    if lr is not None:
        coords["lr"] = list(lr)
    shape = tuple(len(v) for v in coords.values())
    barrier = np.array([kg.Mode(3, 1.0, decay).barrier().height for decay in DECAYS]).reshape(1, 2, 1)
    barrier, ratio = (
        barrier.reshape(1, 2, 1, *[1] * (len(shape) - 3)),
        np.reshape(RATIOS, (1, 1, 3, *[1] * (len(shape) - 3))),
    )
    temperature = np.broadcast_to(barrier / ratio, shape)
    tau = np.broadcast_to(np.exp(ratio) / barrier, shape)
    columns = {
        "temperature": temperature, "barrier": np.broadcast_to(barrier, shape), "mean_exit_time": tau,
        "lower": 0.9 * tau, "upper": 1.1 * tau, "standard_error": 0.05 * tau, "predicted_mean": 1.01 * tau,
        "asymptotic_time": 0.9 * tau, "total_error": 0.1 * tau, "replica_steps": 1e3 * tau,
        "horizon": 2 * tau, **{name: np.full(shape, 0.02 * k) * tau for k, name in enumerate(BUDGET_COLUMNS)},
    }  # fmt: skip
    ds = xr.Dataset({name: (tuple(coords), v.copy()) for name, v in columns.items()}, coords=coords)
    for name in ds.variables:
        ds[name].attrs = describe(str(name))
    ds["status"] = (ds["barrier"].dims, np.full(shape, "finished", dtype=object))
    return ds


def with_runs(ds: xr.Dataset, padded: int = 0) -> xr.Dataset:
    """Exit times of every cell, padded with NaN to the longest as an export pads them."""
    mean = ds["mean_exit_time"].values
    quantiles = -np.log1p(-(np.arange(N) + 0.5) / N)
    times = np.concatenate([mean[..., None] * quantiles, np.full((*mean.shape, padded), np.nan)], axis=-1)
    horizon = ds["horizon"].values[..., None]
    escaped = np.where(np.isnan(times), np.nan, times < horizon)
    dims = (*ds["mean_exit_time"].dims, "replica")
    return ds.assign(exit_time=(dims, np.minimum(times, horizon), describe("exit_time")), escaped=(dims, escaped))


def tree() -> xr.DataTree:
    theory = cells(None)
    t = np.linspace(0, 3, 11) * theory["mean_exit_time"].values[..., None]
    dims = (*theory["barrier"].dims, "time_number")
    curves = {
        "time": (dims, t, describe("time")),
        "survival": (dims, np.exp(-t / t[..., 10:] * 3), describe("survival")),
    }
    theory = theory[["temperature", "barrier", "asymptotic_time"]].assign(exact_time=theory["mean_exit_time"], **curves)
    nodes = {"/theory": theory, "/langevin": with_runs(cells(None), 3), "/sgd": with_runs(cells(STEPS))}
    about = xr.Dataset({"seconds": ("cell", [1.0])})
    return xr.DataTree.from_dict(nodes | {"/comparison": xr.Dataset(), "/provenance": about})


# ---------------------------------------------------------------- Arrhenius plots


def test_arrhenius_of_a_tree_has_a_series_for_each_system_and_learning_rate() -> None:
    ax = plots.arrhenius(tree())
    assert legend(ax) == [
        "theory, exact", "theory, asymptotic", "predicted for each run", "langevin: λ = 0.2", "langevin: λ = 0.3",
        *(f"sgd: λ = {decay}, η = {lr}" for decay, lr in itertools.product(DECAYS, STEPS)),
    ]  # fmt: skip
    lines = [line for line in ax.get_lines() if len(line.get_xdata()) == 3 and line.get_linestyle() != "None"]
    assert len(lines) == 4
    # What was predicted of a system has the colour of its points
    points = [c.lines[0] for c in ax.containers]
    assert {line.get_color() for line in lines} == {p.get_color() for p in points}
    assert len({p.get_marker() for p in points}) == len(points) == 6


def test_arrhenius_of_a_node_by_hand() -> None:
    node = tree()["sgd"]
    assert len(plots.arrhenius(node, by=["lr"]).containers) == 2
    one = plots.arrhenius(node, by=(), against="barrier_over_temperature")
    assert one.get_xlabel() == "barrier over temperature ΔF/T"
    (points,) = (c.lines[0] for c in one.containers)
    assert sorted(points.get_xdata()) == sorted(RATIOS * 4)
    with pytest.raises(InvalidParameterError, match=r"`by` names 'width', expected some of the dimensions"):
        plots.arrhenius(node, by=["width"])
    with pytest.raises(InvalidParameterError, match="`against` = 'colour'"):
        plots.arrhenius(node, against="colour")  # type: ignore[arg-type]


def test_cells_without_an_answer_are_left_out_and_all_of_them_are_an_error() -> None:
    ds = tree()["langevin"].to_dataset()
    answers = ["mean_exit_time", "lower", "upper"]
    there = ds["barrier_over_temperature"] < 5
    some = ds.assign({name: ds[name].where(there) for name in answers})
    ax = plots.arrhenius({"langevin": some})
    assert [len(c.lines[0].get_xdata()) for c in ax.containers] == [2, 2]
    none = ds.assign({name: ds[name].where(False) for name in answers})
    none["status"] = xr.full_like(ds["status"], "diverged")
    with pytest.raises(
        InvalidParameterError, match=r"no cell of langevin has a mean exit time \(status: \['diverged'\]\)"
    ):
        plots.arrhenius({"langevin": none})


def test_one_system_has_black_theory_and_engines_of_their_own_colour() -> None:
    one = {
        name: node.to_dataset().isel(weight_decay=0)
        for name, node in tree().children.items()
        if node.sizes.get("depth")
    }
    ax = plots.arrhenius({"theory": one["theory"], "langevin": one["langevin"], "sgd": one["sgd"].isel(lr=0)})
    assert [line.get_color() for line in ax.get_lines()[:2]] == ["black", "black"]
    assert [c.lines[0].get_color() for c in ax.containers] == ["#0072B2", "#D55E00"]
    assert [c.lines[0].get_marker() for c in ax.containers] == ["o", "s"]


# ---------------------------------------------------------------- survival curves


def test_survival_of_selected_cells_with_the_predicted_curve() -> None:
    where = {"weight_decay": 0.2, "barrier_over_temperature": 4.0}
    nodes = {name: tree()[name].to_dataset().sel(where) for name in ("theory", "langevin", "sgd")}
    ax = plots.survival(nodes)
    counts = f"({int((-np.log1p(-(np.arange(N) + 0.5) / N) < 2).sum())}/{N} escaped)"
    # Padding is nobody: 40 replicas of 43 places
    assert legend(ax) == [f"langevin {counts}", f"sgd: η = 0.05 {counts}", f"sgd: η = 0.1 {counts}", "theory"]
    predicted = ax.get_lines()[-1]
    assert predicted.get_linestyle() == "--"
    np.testing.assert_allclose(predicted.get_ydata()[[0, -1]], [1.0, np.exp(-3)])


def test_survival_without_a_curve_draws_the_runs_own_prediction() -> None:
    node = tree()["langevin"].to_dataset().sel(weight_decay=0.2)
    ax = plots.survival(node)
    assert legend(ax)[-1] == "exponential of the predicted mean"
    assert [text.split(" (")[0] for text in legend(ax)[:-1]] == [f"run: ΔF/T = {r:g}" for r in RATIOS]
    assert "exponential" not in " ".join(legend(plots.survival(node.drop_vars("predicted_mean"))))


def test_too_many_survival_curves_are_refused() -> None:
    with pytest.raises(
        InvalidParameterError, match=r"18 measured and 6 predicted curves, expected at most 12.*\n.*sel"
    ):
        plots.survival(tree())


def test_runs_of_splitting_alone_have_no_curve() -> None:
    node = tree()["langevin"].to_dataset().drop_vars(["exit_time", "escaped"])
    with pytest.raises(InvalidParameterError, match=r"no survival curve to draw: splitting has a mean exit time only"):
        plots.survival({"splitting": node})


# ---------------------------------------------------------------- budget and cost


def test_error_budget_of_a_node_has_a_group_for_each_cell() -> None:
    node = tree()["sgd"].to_dataset().sel(weight_decay=0.2)
    node["total_error"][0, 0, 0] = np.nan  # a diverged cell
    ax = plots.error_budget(node)
    texts = [text.get_text() for text in ax.get_xticklabels()]
    assert texts == [f"ΔF/T = {r:g}, η = {lr}" for r, lr in itertools.product(RATIOS, STEPS)][1:]
    with pytest.raises(InvalidParameterError, match="no arm of the table has a total error"):
        plots.error_budget(node.assign(total_error=node["total_error"].where(False)))


def test_rows_of_a_comparison_are_called_after_what_varies() -> None:
    rows = tree()["sgd"].to_dataset().stack(row=("depth", "weight_decay", "barrier_over_temperature", "lr"))
    rows = rows.isel(row=[0, 1, 2]).reset_index("row").reset_coords()
    engines = ["langevin", "sgd", "sgd"]
    rows = rows.assign(engine=("row", engines), lr=("row", [np.nan, 0.05, 0.1]))
    texts = [text.get_text() for text in plots.error_budget(rows).get_xticklabels()]
    assert texts == ["langevin, ΔF/T = 3", "sgd, ΔF/T = 3, η = 0.05", "sgd, ΔF/T = 4, η = 0.1"]


def test_cost_of_the_cells_that_were_split() -> None:
    node = tree()["langevin"].to_dataset().sel(weight_decay=0.2, depth=3)
    method = np.array(["brute force", "splitting", "splitting"], dtype=object)
    node = node.assign(method=("barrier_over_temperature", method), dt=0.1)
    cost = with_cost(node)
    assert cost["barrier_over_temperature"].values.tolist() == [4.0, 5.0]
    # Relative error 5 % after 1000 τ steps: a quarter of them for 10 %
    tau = node["mean_exit_time"].values[1:]
    np.testing.assert_allclose(cost["cost"], 250 * tau)
    np.testing.assert_allclose(cost["brute_force_cost"], tau / 0.1 / 0.01)
    ax = plots.splitting_cost({"chain": node})
    assert sorted(legend(ax)) == ["brute force", "chain"]
    repeated = with_cost(node.assign(level=("repeat", np.zeros(9))))
    np.testing.assert_allclose(repeated["cost_error"], 0.5)
    ours = cost.assign_coords()
    assert with_cost(ours) is ours


# ---------------------------------------------------------------- landscapes and phases


def test_landscape_draws_a_curve_for_each_decay_and_only_states_that_exist() -> None:
    mode = kg.Mode(depth=3, singular_value=1.0, weight_decay=0.25)
    ax = plots.landscape(free_energy_table(mode, [0.25, 0.6]))
    assert legend(ax) == ["λ = 0.25", "λ = 0.6", "unlearned", "saddle", "learned"]
    marks = [line.get_marker() for line in ax.get_lines() if len(line.get_xdata()) == 1]
    assert marks == ["o", "X", "s", "o"]  # beyond the spinodal only the unlearned state is left
    assert legend(plots.landscape(mode))[0].startswith("unlearned: a = 0, F = 0.5")
    with pytest.raises(InvalidParameterError, match=r"`data` is float.*\n.*free_energy_table"):
        plots.landscape(0.25)  # type: ignore[arg-type]


def test_phase_diagram_against_the_teachers_or_the_datas_spectrum() -> None:
    teacher = FeatureSpectrum.from_teacher(np.linspace(0.5, 2, 10)).table(3)
    ax = plots.phase_diagram(teacher)
    assert (ax.get_xlabel(), ax.get_xscale()) == ("singular value σ [order parameter]", "linear")
    lines = {line.get_label(): line for line in ax.get_lines()}
    x, y = lines["spinodal"].get_data()
    np.testing.assert_allclose(y, kg.Mode(3, 1.0, 0.1).spinodal() * np.asarray(x) ** (4 / 3))
    # Autoencoder: σ = 1, and the data's spectrum takes its place
    data = FeatureSpectrum((1.0, 1.0, 1.0), (10.0, 1.0, 0.01)).table(3)
    ax = plots.phase_diagram(data)
    assert (ax.get_xlabel().split(" [")[0], ax.get_xscale()) == ("input variance q", "log")
    assert plots.phase_diagram(data, against="feature").get_xlabel() == "feature"
    with pytest.raises(InvalidParameterError, match="neither `singular_value` nor `input_variance` varies"):
        plots.phase_diagram(FeatureSpectrum((1.0, 1.0), (1.0, 1.0)).table(3))


def test_a_continuous_onset_has_one_line_and_no_metastable_region() -> None:
    ax = plots.phase_diagram(FeatureSpectrum.from_teacher([0.5, 1.0, 2.0]).table(2))
    assert legend(ax) == ["unlearned only", "learned is the ground state", "onset"]


def test_figures_of_several_panels_fit() -> None:
    with plots.styled():
        figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    plots.arrhenius(tree(), axes[0])
    plots.error_budget(tree()["sgd"], axes[1])
    figure.canvas.draw()
    boxes = [ax.get_tightbbox() for ax in axes]
    assert boxes[0].x1 < boxes[1].x0  # the legend beside the first does not cover the second
