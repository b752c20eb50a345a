"""Theory, Langevin and SGD side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr

from kramers_grok.analysis import compare, exit_time_table, predicted_dataset, predicted_survival, summary
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.schema import exit_dataset

ALPHA = 1e-5


@dataclass(frozen=True)
class Exponential:
    """A prediction as theory makes them."""

    mean: float
    relative_error: float = 1e-6
    method: str = "closed form"
    temperature: float = 0.1

    def survival(self, t):
        return np.exp(-np.asarray(t) / self.mean)


def run(seed, n=2000, horizon=2.0, rate=1.0, engine="langevin", **coords):
    times = np.random.default_rng(seed).exponential(size=n) / rate
    return exit_dataset(
        np.minimum(times, horizon),
        times < horizon,
        horizon=horizon,
        coords={"engine": engine, "temperature": 0.1} | coords,
        seed=seed,
        dtype="float64",
        device="cpu",
        configuration={"engine": engine},
    )


@pytest.fixture(scope="module")
def tree():
    sgd = run(2, engine="sgd", lr=0.1, batch_size=4)
    sgd.attrs["with_replacement"] = True
    sgd.escaped.attrs["observed"] = np.bool_(True)
    return compare(theory=Exponential(1.0), langevin=run(1), sgd=sgd, wrong=run(3, rate=1.3), shared="nothing")


def test_groups_and_table(tree):
    assert set(tree.children) == {"theory", "langevin", "sgd", "wrong", "table"}
    table = tree["table"].to_dataset()
    assert table.engine.values.tolist() == ["theory", "langevin", "sgd", "wrong"]
    assert table.n_replicas.values.tolist() == [0, 2000, 2000, 2000]
    assert tree.attrs["shared"] == "nothing"
    langevin = table.sel(engine="langevin")
    expected = (langevin.mean_exit_time - 1.0) / np.hypot(langevin.standard_error, 1e-6)
    assert float(langevin.difference_se) == pytest.approx(float(expected))
    both = table.sel(engine=["langevin", "sgd"])
    z = float(np.diff(both.mean_exit_time)[0] / np.hypot(*both.standard_error.values))
    assert float(table.pairwise_difference_se.sel(engine="sgd", other="langevin")) == pytest.approx(z)
    assert np.isnan(table.difference_se.sel(engine="theory"))


def test_right_arms_agree_and_the_wrong_one_does_not(tree):
    table = tree["table"].to_dataset()
    for engine in ("langevin", "sgd"):
        row = table.sel(engine=engine)
        assert abs(float(row.difference_se)) < 4.5
        assert float(row.ks_p_value) > ALPHA
        assert float(row.logrank_p_value) > ALPHA
        assert float(row.exponentiality_p_value) > ALPHA
    wrong = table.sel(engine="wrong")
    assert float(wrong.difference_se) < -4.5
    assert float(wrong.ks_p_value) < ALPHA
    assert float(wrong.logrank_p_value) < ALPHA


def test_round_trip_keeps_values_types_and_attributes(tree, tmp_path):
    tree.to_netcdf(tmp_path / "tree.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "tree.nc", engine="h5netcdf") as opened:
        back = opened.load()
    assert back.attrs == tree.attrs
    for name, node in tree.children.items():
        ds, other = node.to_dataset(), back[name].to_dataset()
        xr.testing.assert_identical(other, ds)
        assert {v: other[v].dtype for v in other.data_vars} == {v: ds[v].dtype for v in ds.data_vars}
    assert back["sgd"].attrs["with_replacement"] == "true"
    assert back["langevin"].escaped.dtype == np.bool_
    assert back["langevin"].exit_time.attrs == {"units": "time", "long_name": "exit time"}
    assert int(back["langevin"].attrs["seed"]) == 1
    assert summary(back) == summary(tree)


def test_comparing_does_not_change_what_is_passed(tree):
    ds = run(1)
    ds.attrs["flag"] = True
    compare(langevin=ds)
    assert ds.attrs["flag"] is True


def test_summary_is_a_plain_table(tree):
    lines = summary(tree).splitlines()
    assert len(lines) == 6
    assert lines[0].split()[0] == "engine"
    assert lines[2].startswith("langevin")
    assert "/2000" in lines[2]
    assert lines[-1].endswith("nothing")


def test_theory_may_be_a_table_and_may_be_absent():
    table = compare(theory=predicted_dataset(Exponential(1.0)), langevin=run(1))["table"].to_dataset()
    direct = compare(theory=Exponential(1.0), langevin=run(1))["table"].to_dataset()
    assert float(table.ks_p_value[1]) == pytest.approx(float(direct.ks_p_value[1]), rel=1e-6)
    alone = compare(langevin=run(1))["table"].to_dataset()
    assert np.isnan(alone.ks_p_value).all()
    assert np.isnan(alone.difference_se).all()


def test_an_arm_where_nothing_escapes_stays_in_the_table():
    trapped = run(4, horizon=2.0, rate=1e-9)
    tree = compare(theory=Exponential(1.0), control=trapped)
    row = tree["table"].to_dataset().sel(engine="control")
    assert np.isinf(row.mean_exit_time)
    assert float(row.lower) == pytest.approx(4000 / np.log(20))
    assert np.isnan(row.difference_se)
    assert float(row.ks_p_value) < ALPHA
    assert "0/2000" in summary(tree)


def test_interpolated_survival_is_accurate_also_beyond_its_table():
    ds = predicted_dataset(Exponential(3.0), until=50.0)
    assert float(ds.time[-1]) == 50.0
    t = np.linspace(0, 120, 77)
    np.testing.assert_allclose(predicted_survival(ds)(t), np.exp(-t / 3), rtol=1e-9)
    # A curve with a lag (sum of two exponential times), which is not linear in ln S.
    grid = predicted_dataset(Exponential(1.0)).time.values
    lagged = (np.exp(-grid) - 0.05 * np.exp(-grid / 0.05)) / 0.95
    curve = predicted_survival(xr.Dataset({"survival": ("time", lagged)}, coords={"time": grid}))
    x = np.geomspace(1e-4, 9, 200)
    np.testing.assert_allclose(curve(x), (np.exp(-x) - 0.05 * np.exp(-x / 0.05)) / 0.95, atol=2e-4)


def test_exit_time_table_lines_up_runs():
    table = exit_time_table([run(1, lr=0.1), run(2, temperature=0.2), run(3, rate=1e-9)])
    assert table.sizes == {"run": 3}
    assert table.temperature.values.tolist() == [0.1, 0.2, 0.1]
    assert table.lr.values[0] == 0.1
    assert np.isnan(table.lr.values[1:]).all()
    assert table.engine.values.tolist() == ["langevin"] * 3
    assert np.isinf(table.upper.values[2])
    assert table.temperature.attrs["units"] == "loss"


def splitting_run(mean=1.0, error=0.05):
    values = {"mean_exit_time": mean, "standard_error": error}
    half = 2.1314495 * error / mean  # Student, 15 degrees of freedom
    values |= {"lower": mean * np.exp(-half), "upper": mean * np.exp(half)}
    return xr.Dataset(values | {"probability": ("repeat", np.full(16, 0.1))}, coords={"temperature": 0.1, "dt": 0.01})


def test_an_arm_of_splitting_has_an_estimate_and_no_tests(tmp_path):
    arm = splitting_run(1.2)
    tree = compare(theory=Exponential(1.0), langevin=run(1), splitting=arm)
    row = tree["table"].to_dataset().sel(engine="splitting")
    for name in ("mean_exit_time", "standard_error", "lower", "upper"):
        assert float(row[name]) == pytest.approx(float(arm[name]), rel=1e-6)
    for name in ("ks_p_value", "logrank_p_value", "exponentiality_p_value"):
        assert np.isnan(row[name])
    assert int(row.n_replicas) == int(row.n_escaped) == 0
    assert float(row.difference_se) == pytest.approx(0.2 / 0.05, rel=1e-3)
    assert summary(tree).splitlines()[3].split() == ["splitting", "1.2", "[1.098,", "1.3114]", "-", "4", "-", "-", "-"]
    # Another level than the one it was made with.
    wide = compare(splitting=arm, confidence=0.99)["table"].to_dataset()
    assert float(wide.lower[0]) < float(arm.lower)
    tree.to_netcdf(tmp_path / "tree.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "tree.nc", engine="h5netcdf") as opened:
        back = opened.load()
    assert summary(back) == summary(tree)
    xr.testing.assert_identical(back["splitting"].to_dataset(), tree["splitting"].to_dataset())


def test_exit_time_table_takes_both_kinds_of_run():
    table = exit_time_table([run(1), splitting_run(3.0)])
    assert float(table.mean_exit_time[1]) == 3.0
    assert table.n_replicas.values.tolist() == [2000, 0]
    assert np.isnan(table.horizon.values[1])


def test_bad_arguments():
    with pytest.raises(InvalidParameterError, match="expected at least one"):
        compare(theory=Exponential(1.0))
    with pytest.raises(InvalidParameterError, match="none called 'table'"):
        compare(table=run(1))
    with pytest.raises(InvalidParameterError, match="has no `escaped`"):
        compare(langevin=run(1).drop_vars("escaped"))
    with pytest.raises(InvalidParameterError, match="theory has no `survival"):
        predicted_survival(xr.Dataset())
    with pytest.raises(InvalidParameterError, match="`runs` is empty"):
        exit_time_table([])
