"""The shape of results: labels, provenance, validation."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.schema import (
    PROVENANCE,
    VARIABLES,
    canonical_json,
    describe,
    exit_dataset,
    package_version,
    validate_exit_dataset,
    validate_run,
    validate_splitting_dataset,
)


def make(times=(1.0, 2.0, 5.0), escaped=(True, True, False), horizon=5.0, **kwargs):
    settings = {"coords": {"engine": "langevin", "temperature": 0.1}, "seed": 2**64 - 1, "dtype": "float64"}
    settings |= {"device": "cpu", "configuration": {"dt": 0.1}} | kwargs
    return exit_dataset(times, escaped, horizon=horizon, **settings)


def test_every_variable_is_labelled_and_typed():
    ds = make(extra_vars={"max_score": [0.1, 0.2, 0.3]})
    assert ds.exit_time.dtype == np.float64
    assert ds.escaped.dtype == np.bool_
    assert set(ds.coords) == {"engine", "temperature", "horizon"}
    for name in ds.variables:
        assert ds[name].attrs == describe(name)


def test_provenance_is_text_and_keeps_a_64_bit_seed():
    attrs = make().attrs
    assert set(attrs) == set(PROVENANCE)
    assert all(isinstance(value, str) for value in attrs.values())
    assert int(attrs["seed"]) == 2**64 - 1
    assert json.loads(attrs["configuration"]) == {"dt": 0.1}


def test_units_do_not_look_like_calendar_times():
    # xarray decodes "seconds", "days since …" into timedelta and datetime when it reads a file.
    for variable in VARIABLES.values():
        assert " since " not in variable.units
        assert variable.units not in {"seconds", "minutes", "hours", "days", "s", "milliseconds"}


def test_netcdf_round_trip_is_identical(tmp_path):
    ds = make()
    ds.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "run.nc", engine="h5netcdf") as back:
        xr.testing.assert_identical(validate_exit_dataset(back.load()), ds)


def test_integer_flags_become_booleans_and_rounded_horizons_exact():
    ds = make(times=[1.0, 2.0, 5.0 * (1 - 1e-12)], escaped=[1, 1, 0])
    assert ds.escaped.values.tolist() == [True, True, False]
    assert ds.exit_time.values[2] == 5.0


def test_a_foreign_variable_brings_its_own_labels():
    own = xr.DataArray(3.0, attrs={"units": "nats", "long_name": "surprise"})
    assert make(coords={"surprise": own}).surprise.attrs["units"] == "nats"
    with pytest.raises(InvalidParameterError, match=r"`surprise` is not a known variable.*\n.*DataArray"):
        make(coords={"surprise": 3.0})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"times": [1.0, np.nan, 5.0]}, r"NaN or infinite for 1 replica\(s\), the first is number 1"),
        ({"times": [1.0, 2.0, 4.0]}, r"1 censored replica.*horizon=5.*number 2 with 4"),
        ({"times": [1.0, 6.0, 5.0]}, r"1 escaped replica.*after horizon=5.*number 1 at 6"),
        ({"times": [-1.0, 2.0, 5.0]}, r"1 negative value"),
        ({"escaped": [0, 2, 0]}, r"`escaped` holds \[0 2\]"),
        ({"times": [], "escaped": []}, r"`exit_time` is empty"),
        ({"horizon": 0.0}, r"`horizon` = 0.0, expected a finite number > 0"),
        ({"horizon": np.inf}, r"`horizon` = inf"),
        ({"seed": -1}, r"`seed` = -1"),
        ({"extra_vars": {"max_score": np.zeros((3, 2))}}, r"`max_score` has shape \(3, 2\)"),
        ({"configuration": {"f": object()}}, r"configuration holds a object"),
    ],
)
def test_bad_data_is_refused_by_message(kwargs, message):
    with pytest.raises(InvalidParameterError, match=message):
        make(**kwargs)


def test_missing_variables_and_wrong_dimensions():
    with pytest.raises(InvalidParameterError, match=r"has no `escaped`"):
        validate_exit_dataset(make().drop_vars("escaped"))
    with pytest.raises(InvalidParameterError, match=r"has no `horizon`"):
        validate_exit_dataset(make().drop_vars("horizon"))
    with pytest.raises(InvalidParameterError, match=r"expected \('replica',\)"):
        validate_exit_dataset(make().expand_dims("run"))


def test_validation_does_not_change_its_input():
    ds = make()
    ds.exit_time.attrs = {}
    validate_exit_dataset(ds)
    assert ds.exit_time.attrs == {}


@dataclass(frozen=True)
class Setting:
    lr: float
    widths: tuple[int, ...]


def test_canonical_json_depends_on_content_only(tmp_path):
    one = canonical_json({"b": np.float64(0.1), "a": np.arange(2), "s": Setting(0.1, (2, 3))})
    two = canonical_json({"s": Setting(0.1, (2, 3)), "a": [0, 1], "b": 0.1})
    assert one == two
    assert json.loads(one)["s"] == {"type": "Setting", "lr": 0.1, "widths": [2, 3]}
    assert canonical_json(np.inf) == '"inf"'
    assert canonical_json([True, None, tmp_path, np.bool_(False)]) == f'[true, null, "{tmp_path}", false]'


def test_unknown_distribution_has_a_version_all_the_same():
    assert package_version("surely-not-installed") == "unknown"


def splitting(**changes):
    values = {"mean_exit_time": 9.0, "lower": 7.0, "upper": 11.0, "standard_error": 1.0}
    along = {"probability": ("repeat", np.array([0.1, 0.2]))}
    return xr.Dataset(values | along | changes, coords={"temperature": 0.1})


def test_a_splitting_result_is_labelled_and_left_alone():
    ds = splitting()
    clean = validate_splitting_dataset(ds)
    assert clean.equals(ds)
    assert not ds.mean_exit_time.attrs
    for name in ("mean_exit_time", "lower", "temperature", "probability"):
        assert clean[name].attrs == describe(name)
    assert validate_run(ds).identical(clean)
    assert validate_run(make()).identical(make())


def test_the_splitting_result_of_the_library_is_one(tmp_path):
    import kramers_grok as kg
    from kramers_grok.escape.splitting import splitting as run

    mode = kg.Mode(depth=3, singular_value=1.0, weight_decay=0.25)
    process = kg.Langevin(mode, temperature=mode.barrier().height / 5, dt=0.2)
    ds = run(process, target=kg.beyond(mode.barrier()), n_replicas=64, n_repeats=8, seed=0)
    assert validate_run(ds).identical(ds)
    ds.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "run.nc", engine="h5netcdf") as back:
        xr.testing.assert_identical(validate_run(back.load()), ds)
    configuration = json.loads(ds.attrs["configuration"])
    assert configuration["bridge"] is False
    assert configuration["engine"] == "langevin"


@pytest.mark.parametrize(
    ("ds", "message"),
    [
        (splitting().drop_vars("lower"), r"lacks \['lower'\]"),
        (splitting().drop_dims("repeat"), "lacks the dimension `repeat`"),
        (splitting().expand_dims("temperature"), r"`mean_exit_time` has dimensions \('temperature',\)"),
        (splitting(mean_exit_time=np.inf), "`mean_exit_time` = inf"),
        (splitting(lower=10.0), r"interval \[10, 11\]"),
        (splitting(standard_error=-1.0), "standard error -1"),
        (splitting(standard_error=np.nan), "standard error nan"),
    ],
)
def test_a_splitting_result_that_is_none(ds, message):
    with pytest.raises(InvalidParameterError, match=message):
        validate_splitting_dataset(ds)


def test_different_settings_are_different_runs() -> None:
    """A sweep in one ensemble is a result, but no analysis averages over it; its groups are runs of one setting."""
    rates = [0.1, 0.1, 0.2, 0.2]
    ds = exit_dataset(
        [1.0, 2.0, 3.0, 4.0], [True] * 4, horizon=4.0, seed=0,
        coords={"engine": "sgd", "lr": rates, "weight_decay": [0.25] * 4},
         dtype="float64", device="cpu", configuration={},
    )  # fmt: skip
    assert ds.lr.dims == ("replica",)
    with pytest.raises(InvalidParameterError, match=r"`lr` differs between .* from 0.1 to 0.2.*\n.*groupby"):
        validate_exit_dataset(ds)
    groups = {value: validate_run(one) for value, one in ds.groupby("lr")}
    assert [float(one.lr) for one in groups.values()] == [0.1, 0.2]
    assert all(one.weight_decay.ndim == 0 for one in groups.values())
    assert groups[0.2].exit_time.values.tolist() == [3.0, 4.0]
    assert groups[0.2].lr.attrs["units"] == "time/step"
