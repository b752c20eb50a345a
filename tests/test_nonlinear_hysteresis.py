"""The committed table of `make evidence NAME=nonlinear_hysteresis` holds what its page says.

Loops are read, not made again: nothing here happens by chance. Predictions of one case are made anew.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

BRACKET = 0.004  # relative, of the loops


Rows = Callable[[str], xr.Dataset]
NAME = "nonlinear_hysteresis"


@pytest.fixture(scope="module")
def script(evidence_script: Callable[[str], ModuleType]) -> ModuleType:
    return evidence_script(NAME)


@pytest.fixture(scope="module")
def table(evidence_table: Callable[..., xr.Dataset]) -> Rows:
    return lambda group: evidence_table(NAME, group)


@pytest.fixture(scope="module")
def features(table: Rows) -> Rows:
    """Rows of a case."""
    rows = table("features")
    return lambda case: rows.isel(row=rows.case.values == case)


@pytest.fixture(scope="module")
def n_jumps(table: Rows) -> Callable[[str], int]:
    """Number of jumps of a case."""
    return lambda case: int((table("jumps").case.values == case).sum())


def test_the_table_holds_every_case(script: ModuleType, table: Rows) -> None:
    assert list(dict.fromkeys(table("features").case.values)) == list(script.CASES)


@pytest.mark.parametrize("case", ["teacher-identity-8", "classify-white-identity-10", "autoencode-identity-10"])
def test_linear_units_lose_uncoupled_features_at_their_spinodals(
    case: str, features: Rows, n_jumps: Callable[[str], int]
) -> None:
    rows = features(case)
    assert bool((abs(rows.after / rows.linear - 1) < BRACKET).all())
    assert bool((rows.before < rows.linear * (1 + 1e-4)).all())
    assert n_jumps(case) == rows.sizes["row"]


@pytest.mark.parametrize("case", ["teacher-tanh-8", "teacher-tanh-16"])
def test_shared_saturation_shifts_the_weakest_most(case: str, features: Rows, n_jumps: Callable[[str], int]) -> None:
    rows = features(case)
    shift = (rows.after / rows.linear).values
    assert (np.diff(shift) < 0).all()  # strongest first
    assert n_jumps(case) == rows.sizes["row"]
    # The gain leaves less than a third of the linear prediction's departure; the last feature's chain is exact.
    left, whole = (np.log((rows.after / rows[key]).values) for key in ("gain", "linear"))
    assert np.abs(left).max() < np.abs(whole).max() / 3
    last = rows.isel(row=0)
    assert float(last.after) == pytest.approx(float(last.chain_low), rel=0.02)


def test_wider_layers_are_closer_to_linear(features: Rows) -> None:
    narrow, middle, wide = (features(f"teacher-tanh-{h}") for h in (4, 8, 16))
    for one, other in ((narrow, middle), (middle, wide)):
        left, right = (one.after / one.linear).values, (other.after / other.linear).values
        assert ((left < right) | np.isnan(left)).all()  # NaN: too weak for 4 units, and not there at the start
        assert (right < 1).all()


def test_a_feature_of_gelu_comes_in_two_halves(features: Rows, n_jumps: Callable[[str], int]) -> None:
    """Twice as many jumps as singular values, all behind the slope's prediction, and around the folds of halves."""
    rows = features("teacher-gelu-12")
    assert n_jumps("teacher-gelu-12") == 2 * rows.sizes["row"]
    assert bool((rows.after > 1.2 * rows.slope).all())
    assert bool((abs(np.log(rows.after / rows.chain_high)) < 0.2).all())


def test_nothing_returns_from_zero(table: Rows) -> None:
    rows = table("features")
    reached = np.isfinite(rows.after.values)
    assert reached.mean() > 0.8
    assert float((rows.returned / rows.sigma).values[reached].max()) < 1e-3


def test_predictions_are_those_of_today(script: ModuleType, features: Rows) -> None:
    case = "classify-white-identity-10"
    anew = script.predict({"case": case}, seed=0)
    for name in ("linear", "slope", "gain", "chain_low"):
        np.testing.assert_allclose(anew[name].values, features(case)[name].values, rtol=5e-4)  # folds are found to 2e-4
