"""First passage where replicas or steps have learning rates of their own: one horizon, the same replicas.

Both sides of each comparison share the process's steps, tested elsewhere; the bookkeeping of times is written out here.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from kramers_grok.core.exceptions import DivergedError, InvalidParameterError
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region
from kramers_grok.core.schedules import Cosine, Linear, Piecewise
from kramers_grok.dynamics.process import Watch
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape import first_passage as module
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.models.data import population, teacher
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

CHAIN = DeepLinearChain(3, 1.3, 0.25, 0.8)
START = [0.7, 0.4, 0.6]
TARGET = Region(1.0)
N, MAX_TIME = 40, 3.0
RATES = np.linspace(0.03, 0.2, N)


def sgd(**changes: Any) -> SGD:
    given: dict[str, Any] = {"lr": 0.1, "batch_size": 4, "noise": per_sample(variance=0.3)} | changes
    return SGD(CHAIN, teacher(label_noise=0.5), **given)


def run(process: SGD, max_time: float = MAX_TIME, **more: Any) -> xr.Dataset:
    given: dict[str, Any] = {"target": TARGET, "n_replicas": N, "seed": 4, "start": START} | more
    return first_passage(process, max_time=max_time, **given)


def test_one_horizon_for_all_learning_rates() -> None:
    ds = run(sgd(lr=RATES))
    assert float(ds.horizon) == MAX_TIME
    times, escaped = ds.exit_time.values, ds.escaped.values
    assert 5 < escaped.sum() < N - 5
    for i, lr in enumerate(RATES):
        alone = run(sgd(lr=float(lr)), 2 * MAX_TIME)
        seen = bool(alone.escaped[i]) and float(alone.exit_time[i]) <= MAX_TIME
        assert escaped[i] == seen
        assert times[i] == (pytest.approx(float(alone.exit_time[i]), rel=1e-12) if seen else MAX_TIME)
    assert (ds.max_score.values[~escaped] < TARGET.threshold).all()  # nothing after the horizon was seen
    assert (ds.max_score.values[escaped] >= TARGET.threshold).all()


def test_under_a_schedule_the_clock_is_the_sum() -> None:
    process = sgd(lr=Cosine(0.3, 0.01, 80))
    ds = run(process, MAX_TIME)
    record = process.advance(process.start(N, seed=4, point=START), 300, Watch(TARGET))[1]
    clock = np.concatenate([[0.0], np.cumsum(Cosine(0.3, 0.01, 80)(np.arange(300)))])
    hits = record.hit_step.numpy()
    expected = np.where(hits >= 0, clock[hits], np.inf)
    np.testing.assert_array_equal(ds.escaped.values, expected <= MAX_TIME)
    np.testing.assert_allclose(ds.exit_time.values, np.minimum(expected, MAX_TIME), rtol=1e-12)
    assert 5 < ds.escaped.sum() < N - 5
    assert ((expected > MAX_TIME) & np.isfinite(expected)).any()  # some hit later: censored
    late = run(process, MAX_TIME, bridge=True).exit_time.values
    middle = 0.5 * (clock[hits] + clock[hits - 1])
    both = np.isclose(late, middle) & (expected <= MAX_TIME)
    assert both.sum() > 5  # half a step earlier where the bridge found the same crossing


@pytest.mark.parametrize("lr", [RATES, Piecewise((0.4, 0.05), (9,))], ids=["replicas", "schedule"])
def test_exit_times_do_not_depend_on_the_bookkeeping(lr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    process, at_once = sgd(lr=lr), run(sgd(lr=lr))
    xr.testing.assert_equal(run(process, replica_batch=7), at_once)
    monkeypatch.setattr(module, "FIRST_CHUNK", 3)
    monkeypatch.setattr(module, "LAST_CHUNK", 5)
    xr.testing.assert_equal(run(process), at_once)
    plain = run(process.on_torch())
    np.testing.assert_array_equal(plain.escaped, at_once.escaped)
    np.testing.assert_allclose(plain.exit_time, at_once.exit_time, rtol=1e-12)


def test_equal_numbers_give_the_same_result_as_one() -> None:
    one, many = run(sgd(lr=0.1)), run(sgd(lr=[0.1] * N))
    np.testing.assert_array_equal(many.escaped, one.escaped)
    np.testing.assert_allclose(many.exit_time, one.exit_time, rtol=1e-12)


def test_what_differs_is_a_coordinate_along_replica(tmp_path: Path) -> None:
    ds = run(sgd(lr=RATES, weight_decay=np.linspace(0.2, 0.3, N), noise=per_sample(temperature=np.linspace(0, 0.1, N))))
    for name in ("lr", "dt", "weight_decay", "temperature", "noise_std"):
        assert ds[name].dims == ("replica",)
    np.testing.assert_array_equal(ds.lr, RATES)
    np.testing.assert_allclose(ds.temperature, np.linspace(0, 0.1, N), atol=1e-15)
    assert ds.batch_size.ndim == 0
    assert json.loads(ds.attrs["configuration"])["lr"] == "one for each replica"
    ds.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "run.nc", engine="h5netcdf") as again:
        np.testing.assert_array_equal(again.lr, RATES)
    scheduled = run(sgd(weight_decay=Linear(0.2, 0.3, 50)))
    assert json.loads(scheduled.attrs["configuration"])["weight_decay_schedule"].startswith("Linear(start=0.2")
    assert "weight_decay" not in scheduled.coords


def test_a_sweep_of_temperatures_in_one_ensemble() -> None:
    """Hotter escapes sooner, as Arrhenius has it: ΔF/T = 2 and 8, up to about the mean time of the hotter ones.

    60 replicas each, Fisher's test at 1e-5. Expected are about 38 escapes against fewer than 3; were the temperatures
    alike, the counts would be too.
    """
    mode = Mode(3, 1.0, 0.25)
    temperatures = np.repeat(mode.barrier().height / np.array([2.0, 8.0]), 60)
    process = SGD(mode, population(), lr=0.1, noise=per_sample(temperature=temperatures))
    ds = first_passage(process, target=Region(0.5), n_replicas=120, max_time=300.0, seed=0)
    hot, cold = ds.escaped.values.reshape(2, 60).sum(axis=1)
    assert stats.fisher_exact([[hot, 60 - hot], [cold, 60 - cold]], alternative="greater").pvalue < 1e-5
    alike = first_passage(process.replace(noise=per_sample(temperature=[temperatures[0]] * 120)), target=Region(0.5),
                          n_replicas=120, max_time=300.0, seed=0)  # fmt: skip
    a, b = alike.escaped.values.reshape(2, 60).sum(axis=1)
    assert stats.fisher_exact([[a, 60 - a], [b, 60 - b]]).pvalue > 1e-5


def test_refusals() -> None:
    with pytest.raises(InvalidParameterError, match=r"`max_time` = 0.02, expected at least one step of every"):
        run(sgd(lr=RATES), 0.02)
    with pytest.raises(InvalidParameterError, match=r"`max_time` = 10.0, expected a time that is.*\n.*end at 0"):
        run(sgd(lr=Linear(0.1, 0.0, 50)), 10.0)
    with pytest.raises(InvalidParameterError, match="`n_replicas` = 40, expected 3"):
        run(sgd(lr=[0.1, 0.2, 0.3]))


def test_a_divergence_says_which_step_was_too_large() -> None:
    process = SGD(CHAIN, population(), lr=[0.1, 0.1, 1.0])
    with pytest.raises(DivergedError, match=r"numbers 2\).*the step 1 is too large"):
        first_passage(process, target=Region(1e3), n_replicas=3, max_time=100.0, seed=0, start=[2.0, 2.0, 2.0])
