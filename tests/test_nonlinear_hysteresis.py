"""The committed table of `make evidence NAME=nonlinear_hysteresis` holds what its page says.

Loops are read, not made again: nothing here happens by chance. Predictions of one case are made anew.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

from kramers_grok.studies.store import read_netcdf

EVIDENCE = Path(__file__).parents[1] / "evidence"
BRACKET = 0.004  # relative, of the loops


@cache
def script() -> ModuleType:
    """The evidence's script as a module."""
    spec = importlib.util.spec_from_file_location("evidence_nonlinear", EVIDENCE / "nonlinear_hysteresis.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@cache
def table(group: str) -> xr.Dataset:
    found = read_netcdf(EVIDENCE / "nonlinear_hysteresis" / "table.nc")
    return found[group].to_dataset()


def features(case: str) -> xr.Dataset:
    rows = table("features")
    return rows.isel(row=rows.case.values == case)


def n_jumps(case: str) -> int:
    return int((table("jumps").case.values == case).sum())


def test_the_table_holds_every_case() -> None:
    assert list(dict.fromkeys(table("features").case.values)) == list(script().CASES)


@pytest.mark.parametrize("case", ["teacher-identity-8", "classify-white-identity-10", "autoencode-identity-10"])
def test_linear_units_lose_uncoupled_features_at_their_spinodals(case: str) -> None:
    rows = features(case)
    assert bool((abs(rows.after / rows.linear - 1) < BRACKET).all())
    assert bool((rows.before < rows.linear * (1 + 1e-4)).all())
    assert n_jumps(case) == rows.sizes["row"]


@pytest.mark.parametrize("case", ["teacher-tanh-8", "teacher-tanh-16"])
def test_shared_saturation_shifts_the_weakest_most(case: str) -> None:
    rows = features(case)
    shift = (rows.after / rows.linear).values
    assert (np.diff(shift) < 0).all()  # strongest first
    assert n_jumps(case) == rows.sizes["row"]
    # The gain leaves less than a third of the linear prediction's departure; the last feature's chain is exact.
    left, whole = (np.log((rows.after / rows[key]).values) for key in ("gain", "linear"))
    assert np.abs(left).max() < np.abs(whole).max() / 3
    last = rows.isel(row=0)
    assert float(last.after) == pytest.approx(float(last.chain_low), rel=0.02)


def test_wider_layers_are_closer_to_linear() -> None:
    narrow, middle, wide = (features(f"teacher-tanh-{h}") for h in (4, 8, 16))
    for one, other in ((narrow, middle), (middle, wide)):
        left, right = (one.after / one.linear).values, (other.after / other.linear).values
        assert ((left < right) | np.isnan(left)).all()  # NaN: too weak for 4 units, and not there at the start
        assert (right < 1).all()


def test_a_feature_of_gelu_comes_in_two_halves() -> None:
    """Twice as many jumps as singular values, all behind the slope's prediction, and around the folds of halves."""
    rows = features("teacher-gelu-12")
    assert n_jumps("teacher-gelu-12") == 2 * rows.sizes["row"]
    assert bool((rows.after > 1.2 * rows.slope).all())
    assert bool((abs(np.log(rows.after / rows.chain_high)) < 0.2).all())


def test_nothing_returns_from_zero() -> None:
    rows = table("features")
    reached = np.isfinite(rows.after.values)
    assert reached.mean() > 0.8
    assert float((rows.returned / rows.sigma).values[reached].max()) < 1e-3


def test_predictions_are_those_of_today() -> None:
    module, case = script(), "classify-white-identity-10"
    anew = module.predict({"case": case}, seed=0)
    for name in ("linear", "slope", "gain", "chain_low"):
        np.testing.assert_allclose(anew[name].values, features(case)[name].values, rtol=5e-4)  # folds are found to 2e-4
