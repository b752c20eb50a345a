"""Pieces of the arms `hysteresis` and `states` on small cases, with controls."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from kramers_grok.studies.reproduction import returns, stairs
from kramers_grok.studies.reproduction.hysteresis import (
    complexity_row,
    digits_loop,
    principal_components,
    teacher_loop,
)
from kramers_grok.theory.hysteresis import order_probability

MEANS = np.array([1.0, 1.5, 2.5])


def race(shown: np.ndarray, n: int = 4000) -> dict[str, float]:
    """Race of exponential times with `MEANS`, compared with the survival of means `shown`."""
    times = np.random.default_rng(1).exponential(MEANS[:, None], size=(3, n))
    grid = np.concatenate([[0.0], np.geomspace(1e-3, 80.0, 4000)])
    survival = np.exp(-grid / shown[:, None])
    table = returns._race_table(times, np.ones_like(times, dtype=bool), survival, [1.0] * 3, shown.tolist())
    assert table.attrs["predicted_ordered"] == pytest.approx(order_probability(survival, range(3)))
    return {name: float(table.attrs[name]) for name in ("first_p_value", "ordered_p_value")}


def test_the_race_s_tests_accept_the_truth_and_refuse_other_rates() -> None:
    """False alarms 1e-5 each; at 4000 replicas a mean that is 20 % off is refused with near certainty."""
    assert min(race(MEANS).values()) > 1e-5
    wrong = race(MEANS * np.array([1.2, 1.0, 1.0]))
    assert wrong["first_p_value"] < 1e-5


def test_survival_on_stairs() -> None:
    rates = np.array([[0.0, 0.01, 0.02]])
    assert stairs.staircase_survival(rates, 100.0) == pytest.approx(np.exp([[0.0, -1.0, -3.0]]))


def test_the_first_feature_returns_on_the_predicted_stair_and_without_noise_none_does() -> None:
    """Mean of ln λ at the return: prediction's interval and 4 standard errors."""
    config = {
        "teacher": (1.4, 1.1),
        "hidden": 2,
        "stairs": (0.39, 0.34, 0.3),
        "n_replicas": 40,
        "temperature": 0.0012,
        "hold": 150.0,
        "lr": 0.1,
    }
    found = stairs.stairs("cpu", False, config, seed=3)
    assert found.attrs["n_returned_without_noise"] == 0
    assert found.attrs["n_ordered"] >= 36
    share = found.returned.values[0]
    low, high = found.predicted_lower.values[0], found.predicted_upper.values[0]
    error = 4 * np.sqrt(np.maximum(high * (1 - high), 0.02) / 40)
    assert (share > low - error).all()
    assert (share < high + error).all()
    assert share[-1] > 0.2  # something happens at all
    assert (found.returned.values[1] < 0.2).all()


SMALL = {
    "components": 2,
    "hidden": 2,
    "stairs": (0.235, 0.215, 0.195, 0.175),
    "n_replicas": 192,
    "temperature": 0.0012,
    "batch_size": 24,
    "lr": 0.3,
    "hold": 120.0,
}


@pytest.fixture(scope="module")
def pixels() -> xr.Dataset:
    pytest.importorskip("sklearn")
    return stairs.stairs("cpu", False, SMALL, seed=3)


def worst(counts: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Smallest exact probability of counts so far outside of an interval of probabilities."""
    n = SMALL["n_replicas"]
    return float(min(scipy.stats.binom.cdf(counts, n, low).min(), scipy.stats.binom.sf(counts - 1, n, high).min()))


def test_digits_components_return_on_the_predicted_stairs(pixels: xr.Dataset) -> None:
    """True minibatches of real images. False alarms 1e-5 for each of 8 shares, at the interval's end.

    The controls, a temperature 1.3 times too high, or too low, move a share by 0.2, 5 standard errors, and are refused.
    """
    counts = np.rint(pixels.returned.values * SMALL["n_replicas"])
    assert worst(counts, pixels.predicted_lower.values, pixels.predicted_upper.values) > 1e-5
    for wrong in (1.3, 1 / 1.3):
        other = stairs.Descent(SMALL | {"temperature": SMALL["temperature"] * wrong}).returned()  # type: ignore[operator]
        assert worst(counts, other[0], other[1]) < 1e-5


def test_digits_components_return_strongest_first(pixels: xr.Dataset) -> None:
    """Exceptions are a rate to leading exponential order: no more than three times it, plus 4.4 standard errors."""
    assert float(pixels.returned[0, -1]) > 0.5  # something happens at all
    assert (pixels.returned[0] >= pixels.returned[1]).all()
    bound = 3 * float(pixels.expected_swapped[0])
    assert int(pixels.n_swapped[0]) < bound + 4.4 * bound**0.5


def test_digits_return_nothing_without_injected_noise(pixels: xr.Dataset) -> None:
    """Neither full batch nor true minibatches alone, whose noise vanishes where nothing is learned."""
    assert pixels.attrs["n_returned_without_noise"] == 0
    assert pixels.attrs["n_returned_without_injected_noise"] == 0


def test_hysteresis_grows_with_the_number_of_features() -> None:
    steps = {"depth": 3, "step": 0.03, "bisections": 3, "seed": 0, "lowest": 0.45}
    rows = [complexity_row(teacher_loop(t, **steps), "teacher") for t in ((1.3,), (1.3, 1.0))]  # type: ignore[arg-type]
    areas = [float(r.area) for r in rows]
    assert areas[1] > 1.02 * areas[0]
    assert [int(r.n_jumps) for r in rows] == [1, 2]
    for row in rows:
        assert float(row.area) == pytest.approx(float(row.predicted_area), rel=0.02)
        assert float(row.worst_bracket) < 0.01


def test_real_data_lose_their_components_at_their_spinodals() -> None:
    pytest.importorskip("sklearn")
    loop = digits_loop(principal_components(2), 2, hidden=2, step=0.02, bisections=3, seed=0)
    assert (loop.before < loop.spinodal).all()
    assert (loop.spinodal < loop.after).all()
    assert (loop.after / loop.before - 1 < 0.01).all()
    assert float(loop.returned.max()) < 1e-6
