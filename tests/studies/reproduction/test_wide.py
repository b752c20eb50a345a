"""Escape in wide layers: the entropy of the orbit is what the arm's prediction stands or falls with."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr

from kramers_grok.analysis.survival import mean_exit_time
from kramers_grok.core.schema import describe
from kramers_grok.studies.reproduction import wide
from kramers_grok.studies.reproduction.settings import Settings

RATIO, N, SEED = 18.0, 256, 4
CONFIG = {
    "widths": [1, 8, 8, 1],
    "lr": wide.FAST,
    "batch_size": wide.batch_for(RATIO, wide.FAST),
    "n_replicas": N,
    "cap": 1e9,
    "label_noise": 0.1,
}


@pytest.fixture(scope="module")
def run() -> xr.Dataset:
    """256 escapes of SGD with true minibatches from the trap of a network with eight units a layer."""
    return wide.measure(CONFIG, fused=False, device="cpu", seed=SEED)


def far(run: xr.Dataset, formula: str) -> float:
    """Logarithm of measured over predicted, in standard errors, beyond the 10 % that the radial rate may miss."""
    measured = mean_exit_time(run)
    distance = abs(math.log(measured.value / float(run[formula]))) - math.log(1 / 0.9)
    return distance / (measured.standard_error / measured.value)


def test_the_radial_rate_predicts_the_escape(run: xr.Dataset) -> None:
    """False alarm: 4.5 standard errors, below 1e-5. Power: a factor of 1.6 missing in the rate is found."""
    assert int(run["escaped"].sum()) > 0.99 * N
    assert far(run, "predicted_mean") < 4.5
    assert mean_exit_time(run).standard_error < 0.08 * mean_exit_time(run).value


@pytest.mark.parametrize("formula", ["eyring_kramers", "chain"])
def test_formulas_with_another_entropy_are_refused(run: xr.Dataset, formula: str) -> None:
    """Negative control: the orbit as a Gaussian ridge is 14 times too fast here, no orbit at all 4 million too slow."""
    assert far(run, formula) > 20


def test_the_straight_line_misreads_the_barrier(run: xr.Dataset) -> None:
    """No simulation: the slope of the prediction is below half of ΔF, that of three scalar weights is ΔF."""
    T = np.array([float(run["temperature"]) * RATIO / ratio for ratio in (16.0, 18.0, 20.0, 22.0)])
    rows = [wide.predictions(wide.WIDTHS, float(t), step=0.2) for t in T]
    columns = {name: ("run", [row[name] for row in rows]) for name in wide.COLUMNS}
    table = xr.Dataset(columns, coords={"temperature": ("run", T, describe("temperature"))})
    table["mean_exit_time"] = table["predicted_mean"]
    table["standard_error"] = 0.05 * table["predicted_mean"]
    laws = wide.line_fits(table)
    share = laws["slope_over_barrier"]
    assert float(share.sel(curve="measured")) == pytest.approx(float(share.sel(curve="predicted_mean")), rel=1e-9)
    assert float(share.sel(curve="predicted_mean")) < 0.5
    assert float(share.sel(curve="chain")) == pytest.approx(1.0, abs=1e-6)
    assert float(laws["slope_difference_se"].sel(curve="chain")) < -10


def test_equal_lr_over_batch_is_equal_to_the_digit() -> None:
    for ratio in (*wide.LINE, *wide.QUICK_LINE):
        rates = {lr / wide.batch_for(ratio, lr) for lr in (wide.SLOW, wide.LR, wide.FAST)}
        assert max(rates) == pytest.approx(min(rates), rel=1e-14)


def test_pairs_compare_what_differs_in_the_step_alone() -> None:
    columns = {
        "temperature": [1e-3, 1e-3, 2e-3],
        "lr": [0.1, 0.4, 0.4],
        "mean_exit_time": [100.0, 121.0, 50.0],
        "standard_error": [3.0, 4.84, 2.0],
        "predicted_mean": [100.0, 110.0, 50.0],
    }
    pairs = wide.step_pairs(xr.Dataset({name: ("run", values) for name, values in columns.items()}))
    assert pairs.sizes["pair"] == 1
    (row,) = pairs.to_dataframe().to_dict("records")
    assert (row["lr"], row["other_lr"]) == (0.4, 0.1)
    assert row["ratio"] == pytest.approx(1.21)
    assert row["ratio_error"] == pytest.approx(1.21 * 0.05)
    assert row["difference_se"] == pytest.approx(math.log(1.1) / 0.05)


def test_minibatches_and_the_step_are_in_the_prediction() -> None:
    """The first quickens, the second slows."""
    T = wide.network(wide.WIDTHS).theory.barrier().height / RATIO
    bare = wide.predictions(wide.WIDTHS, T, step=0.0)
    stepped = wide.predictions(wide.WIDTHS, T, step=0.4)
    noisy = wide.predictions(wide.WIDTHS, T, step=0.0, noise=wide.minibatch(0.4, CONFIG["batch_size"], 0.1))  # type: ignore[arg-type]
    assert bare["step_log_factor"] == bare["minibatch_log_factor"] == 0.0
    assert 1.02 < stepped["predicted_mean"] / bare["predicted_mean"] < 1.1
    assert 0.99 < noisy["predicted_mean"] / bare["predicted_mean"] < 1.0  # along the radial path, 1.3 T high
    assert 0.91 < noisy["eyring_kramers"] / bare["eyring_kramers"] < 0.94  # along the mode's, 18 T high
    assert bare["barrier_over_temperature"] == pytest.approx(RATIO)
    assert not bare["valid"]  # 1.3 T: below the 2 T where the formula stands by itself


def test_full_batch_descent_stays() -> None:
    settings = Settings.make(seed=0, quick=True)
    (cell,) = (cell for cell in wide.cells(settings, "cpu") if cell.name == "wide-control")
    found = cell.function(dict(cell.config) | {"n_replicas": 16}, seed=SEED)
    assert not found["escaped"].any()


def test_the_quick_job_compiles_nothing_and_is_short() -> None:
    quick, full = (wide.cells(Settings.make(seed=0, quick=q), "cpu") for q in (True, False))
    assert len(quick) < len(full)
    assert not any(cell.function.keywords.get("fused") for cell in quick)  # type: ignore[attr-defined]
    assert {tuple(cell.config["widths"]) for cell in full} == {wide.WIDTHS, wide.MATRIX}
    assert all(min(cell.config["widths"][1:-1]) >= 8 for cell in full)
