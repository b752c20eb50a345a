"""What splitting costs, and how the cost grows."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from kramers_grok.analysis import cost_exponent, splitting_cost
from kramers_grok.core.exceptions import InvalidParameterError


def result(ratio, steps=1e6, error=0.2, mean=1e5, repeats=16):
    values = {"mean_exit_time": mean, "lower": mean * 0.5, "upper": mean * 2, "standard_error": error * mean}
    along = {"probability": ("repeat", np.full(repeats, 1e-3)), "replica_steps": steps}
    return xr.Dataset(values | along, coords={"temperature": 1.0 / ratio, "dt": 0.1})


def test_cost_is_that_of_the_error_wanted():
    table = splitting_cost([result(20.0), result(10.0, error=0.1)], barrier=1.0)
    np.testing.assert_allclose(table.barrier_over_temperature, [10.0, 20.0])
    np.testing.assert_allclose(table.cost, [1e6, 4e6])
    np.testing.assert_allclose(table.brute_force_cost, 100 * 1e5 / 0.1)
    np.testing.assert_allclose(table.cost_error, np.sqrt(2 / 15))
    assert table.cost.attrs["units"] == "steps"
    finer = splitting_cost([result(20.0)], barrier=1.0, relative_error=0.05)
    assert float(finer.cost[0]) == pytest.approx(4 * 4e6)
    assert finer.attrs["relative_error"] == 0.05


def test_exponent_and_its_error():
    rng = np.random.default_rng(1)
    ratios = np.array([10.0, 15.0, 20.0, 25.0, 30.0])
    pulls = []
    for _ in range(300):
        steps = 1e3 * ratios**2 * np.exp(np.sqrt(2 / 15) * rng.normal(size=5))
        fit = cost_exponent(splitting_cost(map(result, ratios, steps), barrier=1.0))
        pulls.append((fit.exponent - 2.0) / fit.standard_error)
    assert abs(np.mean(pulls)) < 4.5 / np.sqrt(300)
    assert np.std(pulls) == pytest.approx(1.0, abs=4.5 / np.sqrt(600))
    np.testing.assert_allclose(fit.predict([10.0]) / fit.predict([20.0]), 2**-fit.exponent)


def test_refusals():
    with pytest.raises(InvalidParameterError, match="`runs` is empty"):
        splitting_cost([], barrier=1.0)
    with pytest.raises(InvalidParameterError, match="lacks `replica_steps`"):
        splitting_cost([result(10.0).drop_vars("replica_steps")], barrier=1.0)
    with pytest.raises(InvalidParameterError, match="an exponent is a slope"):
        cost_exponent(splitting_cost([result(10.0), result(10.0)], barrier=1.0))
