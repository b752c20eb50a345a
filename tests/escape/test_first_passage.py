"""First passage: exact means, honest censoring, the same replicas whatever the bookkeeping, and divergence reported.

Statistical tests: seeds are fixed, each p-value is tested at 1e-5 (|z| < 4.42).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from kramers_grok.core import rng
from kramers_grok.core.exceptions import DivergedError, InvalidParameterError
from kramers_grok.core.landscape import Landscape
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region, beyond
from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics.langevin import Fused, Langevin, TorchSDE
from kramers_grok.dynamics.process import Process, Watch
from kramers_grok.dynamics.sampling import ShuffledEpochs
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape import first_passage as module
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.models.data import finite, population, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

Array = NDArray[np.float64]
ALPHA = 1e-5
X = sympy.Symbol("x", real=True)
HARMONIC = Landscape(X**2 / 2, (X,), (X,))
FLAT = Landscape(sympy.Integer(0), (X,), (sympy.Abs(X),))
CHAIN = DeepLinearChain(3, 1.3, 0.25, 0.8)
START = [0.7, 0.4, 0.6]


def z_score(ds: xr.Dataset, mean: float) -> float:
    """Distance of the mean exit time from `mean` in standard errors; everyone must have left."""
    assert bool(ds.escaped.all())
    times = ds.exit_time.values
    return float((times.mean() - mean) / (times.std() / len(times) ** 0.5))


def critical() -> float:
    return float(stats.norm.isf(ALPHA / 2))


# ---------------------------------------------------------------- exact times


def test_ornstein_uhlenbeck() -> None:
    """dx = −x dt + √0.2 dW from 0 to 0.5: mean 5.2406924.

    4096 replicas give it to 1.6 %, so 7 % would be seen. Left: the step's 0.6 % (its temperature is 0.5 % too high).
    Without the bridge the target looks √(2T dt)·0.58 = 0.026 further away, 14 % late: the negative control.
    """
    process = Langevin(HARMONIC, temperature=0.1, dt=0.01)
    arguments: dict[str, Any] = {"target": Region(0.5), "n_replicas": 4096, "max_time": 200.0, "seed": 1}
    assert abs(z_score(first_passage(process, **arguments), 5.2406924)) < critical()
    assert z_score(first_passage(process, bridge=False, **arguments), 5.2406924) > critical()
    colder = Langevin(HARMONIC, temperature=0.08, dt=0.01)
    assert z_score(first_passage(colder, **arguments), 5.2406924) > critical()


def brownian_survival(t: Array) -> Array:
    """Probability that Brownian motion with 𝒟 = ½ from 0 stays in (−1, 1)."""
    k = np.arange(40)[:, None]
    odd = (2 * k + 1) * np.pi
    return np.asarray((4 / odd * (-1.0) ** k * np.exp(-(odd**2) * t / 8)).sum(axis=0))


def test_brownian_motion_out_of_an_interval() -> None:
    """No force, both ends: mean 1, the exact law of the times by KS, either side with probability ½.

    4096 replicas: the mean to 1.3 %, the law to 3.6 % (5e-3 of it is the clock's half step). Watched at steps only, the
    interval looks 12 % wider in squares.
    """
    for integrator in (Fused(compiled=False), Fused()):
        process = Langevin(FLAT, temperature=0.5, dt=0.01, integrator=integrator)
        arguments: dict[str, Any] = {"target": Region(1.0), "n_replicas": 4096, "max_time": 15.0, "seed": 2}
        ds = first_passage(process, **arguments)
        assert abs(z_score(ds, 1.0)) < critical()
        assert stats.kstest(ds.exit_time.values, lambda t: 1 - brownian_survival(t)).pvalue > ALPHA
        late = first_passage(process, bridge=False, **arguments)
        assert z_score(late, 1.0) > critical()
        assert stats.kstest(late.exit_time.values, lambda t: 1 - brownian_survival(t)).pvalue < ALPHA


def test_an_even_mode_leaves_on_both_sides() -> None:
    """At even depth m = a^D is large on either side. 1000 replicas: a share of 0.57 instead of ½ would be seen."""
    mode = Mode(4, 1.0, 0.2)
    process = Langevin(mode, temperature=mode.barrier().height / 2, dt=0.2)
    target = beyond(mode.barrier())
    state, record = process.advance(process.start(1000, seed=3), 4000, Watch(target))
    escaped = state.theta[record.hit_step >= 0, 0]
    assert len(escaped) > 900
    right = int((escaped > 0).sum())
    assert stats.binomtest(right, len(escaped)).pvalue > ALPHA
    assert target.contains(process.order_parameters(escaped[:, None])[:, 0].numpy()).all()


def test_forgetting() -> None:
    """From the learned state down to the unlearned one, with weight decay between binodal and spinodal."""
    mode = Mode(3, 1.0, 0.44)
    assert mode.binodal() < mode.weight_decay < mode.spinodal()
    barrier = mode.forgetting_barrier()
    target = beyond(barrier)
    assert not target.above
    process = Langevin(mode, temperature=barrier.height, dt=0.1)
    ds = first_passage(process, target=target, n_replicas=64, max_time=2e3, seed=0, start=barrier.minimum)
    assert bool(ds.escaped.all())
    assert ds.max_score.min() < 0  # scores are −m
    assert json.loads(ds.attrs["configuration"])["above"] is False


# ---------------------------------------------------------------- censoring


def test_those_who_stay_are_censored_at_the_horizon() -> None:
    process = Langevin(HARMONIC, temperature=0.1, dt=0.01)
    ds = first_passage(process, target=Region(0.5), n_replicas=500, max_time=2.0, seed=1)
    escaped = ds.escaped.values
    assert 0 < escaped.sum() < 500
    assert float(ds.horizon) == pytest.approx(2.0, rel=1e-12)
    assert (ds.exit_time.values[~escaped] == float(ds.horizon)).all()
    assert (ds.exit_time.values[escaped] <= float(ds.horizon)).all()
    # who left is known to have been far, who stayed to have been near
    assert (ds.max_score.values[~escaped] < 0.5).all()
    longer = first_passage(process, target=Region(0.5), n_replicas=500, max_time=4.0, seed=1)
    later = longer.exit_time.values
    np.testing.assert_array_equal(later[escaped], ds.exit_time.values[escaped])
    assert (later[~escaped] >= 2.0 - 0.005).all()


def test_the_horizon_is_rounded_up_to_steps() -> None:
    process = Langevin(HARMONIC, temperature=0.0, dt=0.3)
    for max_time, horizon in ((0.3, 0.3), (0.31, 0.6), (0.6, 0.6), (30.0, 30.0)):
        ds = first_passage(process, target=Region(0.5), n_replicas=2, max_time=max_time, seed=0)
        assert float(ds.horizon) == pytest.approx(horizon, rel=1e-12)
        assert not ds.escaped.any()
        assert (ds.max_score == 0).all()


@pytest.mark.parametrize(("bridge", "shift"), [(False, 0.0), (True, 0.5)])
def test_exit_times_are_the_hits_of_one_long_advance(bridge: bool, shift: float) -> None:
    """A crossing counts at its step; with a bridge, which may see it anywhere in the step, half a step earlier."""
    process, watch = Langevin(CHAIN, temperature=0.02, dt=0.1), Watch(Region(1.0), bridge=bridge)
    ds = first_passage(
        process, target=watch.region, n_replicas=50, max_time=3.0, seed=4, start=[0.5, 0.5, 0.5], bridge=bridge
    )
    _, record = process.advance(process.start(50, seed=4, point=[0.5, 0.5, 0.5]), 30, watch)
    hits = record.hit_step.numpy()
    assert 0 < (hits >= 0).sum() < 50
    np.testing.assert_array_equal(ds.escaped, hits >= 0)
    np.testing.assert_allclose(ds.exit_time, np.where(hits >= 0, (hits - shift) * 0.1, 3.0), rtol=1e-12)
    np.testing.assert_array_equal(ds.max_score, record.best)


# ---------------------------------------------------------------- bookkeeping makes no difference

CHAIN_PAIR = np.linalg.qr(np.random.default_rng(1).normal(size=(11, 2)))[0] * 11**0.5
CHAIN_X = CHAIN_PAIR[:, 0] * 0.8**0.5
CHAIN_DATA = finite(CHAIN_X, 1.3 * CHAIN_X + 0.6 * CHAIN_PAIR[:, 1])
NETWORK = DeepLinearNetwork((2, 3, 3, 2), [1.5, 0.9], weight_decay=0.2)


def sgd(n_threads: int = 1) -> SGD:
    return SGD(CHAIN, CHAIN_DATA, lr=0.15, batch_size=4, sampler=ShuffledEpochs(), noise=per_sample(variance=0.8),
               n_threads=n_threads)  # fmt: skip


def runs(process: Process, **arguments: Any) -> xr.Dataset:
    """Forty replicas for 15 units of time; the default target is one that part of them reach."""
    size = process.start(1, seed=0).theta.shape[1]
    start = START if size == 3 else np.random.default_rng(0).normal(size=size) * 0.3
    settings: dict[str, Any] = {"n_replicas": 40, "max_time": 15.0, "seed": 4, "start": start}
    if "target" not in arguments:
        state = process.start(40, seed=4, point=start)
        best = process.advance(state, int(15 / process.dt), Watch(Region(1e9)))[1].best
        settings["target"] = Region(float(best.quantile(0.6)))
    return first_passage(process, **(settings | arguments))


PROCESSES: dict[str, Process] = {
    "langevin": Langevin(CHAIN, temperature=0.1, dt=0.1),
    "torchsde": Langevin(CHAIN, temperature=0.1, dt=0.1, integrator=TorchSDE("euler")),
    "network": Langevin(NETWORK, temperature=0.05, dt=0.1),
    "sgd": sgd(),
    "sgd network": SGD(NETWORK, teacher(label_noise=0.3), lr=0.1, batch_size=5, noise=per_sample(variance=0.5)),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_exit_times_do_not_depend_on_the_bookkeeping(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    process = PROCESSES[name]
    compiled = getattr(process, "_kernel", None) is not None  # else fewer cases: single steps and replicas take long
    whole = runs(process)
    assert 0 < int(whole.escaped.sum()) < 40
    for batch in (1, 7) if compiled else (27,):
        xr.testing.assert_identical(runs(process, replica_batch=batch), whole)
    fewer = runs(process, n_replicas=11)
    xr.testing.assert_equal(fewer, whole.isel(replica=slice(0, 11)))
    for first, last in ((1, 1), (5, 17)) if compiled else ((50, 50),):
        monkeypatch.setattr(module, "FIRST_CHUNK", first)
        monkeypatch.setattr(module, "LAST_CHUNK", last)
        xr.testing.assert_identical(runs(process), whole)
    assert (runs(process, seed=5).exit_time != whole.exit_time).any()


def test_exit_times_do_not_depend_on_threads() -> None:
    xr.testing.assert_identical(runs(sgd(n_threads=3)), runs(sgd()))
    threaded = Langevin(CHAIN, temperature=0.1, dt=0.1, integrator=Fused(n_threads=2))
    xr.testing.assert_identical(runs(threaded), runs(PROCESSES["langevin"]))


def test_progress_is_told() -> None:
    told: list[tuple[int, int, float]] = []
    ds = runs(sgd(), progress=lambda *seen: told.append(seen))
    escaped, totals, times = zip(*told, strict=True)
    assert set(totals) == {40}
    assert list(escaped) == sorted(escaped)
    assert escaped[-1] == int(ds.escaped.sum())
    assert times[-1] == pytest.approx(15.0, rel=1e-12)


# ---------------------------------------------------------------- what a result carries


def test_the_result_says_where_it_comes_from() -> None:
    ds = runs(sgd(), target=Region(1.0), extra={"n_samples": 11})
    assert ds.exit_time.dims == ds.escaped.dims == ds.max_score.dims == ("replica",)
    assert ds.exit_time.dtype == np.float64
    assert ds.escaped.dtype == np.bool_
    for variable in ds.variables.values():
        assert {"units", "long_name"} <= set(variable.attrs)
    assert ds.exit_time.attrs["units"] == "time"
    expected = {
        "lr": 0.15, "dt": 0.15, "batch_size": 4, "depth": 3, "singular_value": 1.3, "weight_decay": 0.25,
        "input_variance": 0.8, "target_threshold": 1.0, "horizon": 15.0, "n_samples": 11, "temperature": 0.15 * 0.8 / 8,
    }  # fmt: skip
    for name, value in expected.items():
        assert float(ds[name]) == pytest.approx(value, rel=1e-12)
    assert ds.engine == "sgd"
    assert ds.attrs["seed"] == "4"
    assert ds.attrs["dtype"] == "float64"
    assert ds.attrs["device"] == "cpu"
    configuration = json.loads(ds.attrs["configuration"])
    assert configuration["sampler"] == "ShuffledEpochs"
    assert (configuration["n_replicas"], configuration["bridge"], configuration["above"]) == (40, False, True)
    assert json.loads(runs(PROCESSES["langevin"]).attrs["configuration"])["bridge"] is True


def test_results_survive_a_file(tmp_path: Path) -> None:
    ds = runs(PROCESSES["langevin"], seed=2**64 - 1)
    ds.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "run.nc", engine="h5netcdf") as loaded:
        xr.testing.assert_identical(loaded.load(), ds)


# ---------------------------------------------------------------- refusals

NOT_STARTED = {"n_replicas": 4, "max_time": 10.0, "seed": 0, "target": Region(0.5)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_time": 0.0}, r"`max_time` = 0.0, expected a finite number > 0: replicas need time to escape.\nUse"),
        ({"max_time": -1.0}, "`max_time` = -1.0"),
        ({"max_time": np.nan}, "`max_time` = nan"),
        ({"max_time": np.inf}, "`max_time` = inf"),
        ({"max_time": 0.05}, "`max_time` = 0.05, expected at least one step, 0.1"),
        ({"n_replicas": 0}, "`n_replicas` = 0, expected an integer >= 1"),
        ({"n_replicas": 2.5}, "`n_replicas` = 2.5"),
        ({"replica_batch": 0}, "`replica_batch` = 0"),
        ({"seed": -1}, "`seed` = -1"),
        ({"seed": 2**64}, "`seed` = 18446744073709551616"),
        ({"start": [0.0, 0.0]}, r"`start` has shape \(2,\), expected \(3,\) or \(4, 3\)"),
        ({"start": np.zeros((3, 3))}, r"`start` has shape \(3, 3\)"),
        ({"start": [np.nan, 0.0, 0.0]}, "`start` = .*NaN"),
        ({"target": Region(0.5, feature=1)}, "`target.feature` = 1, expected 0 to 0: one for each order parameter"),
        ({"target": Region(-0.5)}, r"4 of 4 replicas start inside the target \(m above -0.5, start at m = 0\).*\nUse"),
        ({"target": Region(0.5, above=False)}, r"4 of 4 replicas start inside the target \(m below 0.5"),
        ({"start": [[0, 0, 0], [1, 1, 1], [0, 1, 1], [2, 1, 1]]}, r"2 of 4 replicas start inside .*start at m = 1\)"),
    ],
)
@pytest.mark.parametrize("process", [Langevin(CHAIN, temperature=0.1, dt=0.1), SGD(CHAIN, population(), lr=0.1)])
def test_refusals(process: Process, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        first_passage(process, **(NOT_STARTED | arguments))


# ---------------------------------------------------------------- divergence


def plain_divergence(lr: float, noise: float, starts: list[list[float]], seed: int, steps: int) -> dict[int, int]:
    """First step after which a chain's replica is not finite, by a plain loop of population SGD with noise."""
    first = {}
    for replica, start in enumerate(starts):
        a = np.array(start)
        for step in range(steps):
            xi = rng.normals(seed, Purpose.INJECTED, [replica], step, 3)[0]
            with np.errstate(over="ignore", invalid="ignore"):
                others = np.array([a[1] * a[2], a[0] * a[2], a[0] * a[1]])
                a = a - lr * (0.8 * (a[0] * a[1] * a[2] - 1.3) * others + 0.25 * a) + lr * noise * xi
            if not np.isfinite(a).all():
                first[replica] = step + 1
                break
    return first


HERE, FAR, BELOW = [0.1, 0.0, -0.1], [-3.0, 3.0, 3.0], [-2.2, 2.2, 2.2]
# With and without noise; replicas that first swing into the target, and replicas that never do
STARTS = [HERE, FAR, HERE, BELOW, [-3.0, -3.0, -3.0]]


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize("compiled", [True, False])
def test_divergence_is_reported_with_replicas_and_step(noise: float, above: bool, compiled: bool) -> None:
    lr, seed = 0.25, 6
    expected = plain_divergence(lr, noise, STARTS, seed, 60)
    assert sorted(expected) == [1, 3, 4]
    process = SGD(CHAIN, population(), lr=lr, noise=per_sample(std=noise), fused=compiled)
    target = Region(30.0) if above else Region(-30.0, above=False)
    with pytest.raises(
        DivergedError, match=r"3 replica\(s\) diverged \(numbers 1, 3, 4\), the first at step"
    ) as caught:
        first_passage(process, target=target, n_replicas=5, max_time=20.0, seed=seed, start=STARTS)
    assert caught.value.replicas == (1, 3, 4)
    assert caught.value.step == min(expected.values())
    assert "Use a smaller step, for instance 0.0625" in str(caught.value)


def test_a_hit_that_begins_a_blow_up_is_no_escape() -> None:
    """The replica enters the target at its first step, on its way to infinity."""
    process = SGD(CHAIN, population(), lr=0.25)
    starts = [HERE, [-3.0, 3.0, 3.0]]
    _, record = process.advance(process.start(2, seed=0, point=starts), 1, Watch(Region(0.5)))
    assert record.hit_step.tolist() == [-1, 1]
    with pytest.raises(DivergedError) as caught:
        first_passage(process, target=Region(0.5), n_replicas=2, max_time=1.0, seed=0, start=starts)
    assert caught.value.replicas == (1,)
    assert caught.value.step == plain_divergence(0.25, 0.0, starts, 0, 60)[1]


def test_a_divergence_late_in_a_run_is_found_at_its_step() -> None:
    """A pitchfork without a floor: F = x²/2 − x⁴/4 lets noise carry replicas to infinity, in a later chunk."""
    process = Langevin(Landscape(X**2 / 2 - X**4 / 4, (X,), (X**2 - 1e6,)), temperature=0.06, dt=0.05)
    with pytest.raises(DivergedError) as caught:
        first_passage(process, target=Region(1e300), n_replicas=12, max_time=500.0, seed=3)
    seen = {}
    for replica in range(12):
        x = 0.0
        for step in range(caught.value.step + 100):
            xi = float(rng.normals(3, Purpose.LANGEVIN, [replica], step, 1)[0, 0])
            try:
                x = x - 0.05 * (x - x**3) + (2 * 0.06 * 0.05) ** 0.5 * xi
            except OverflowError:
                x = np.inf
            if not np.isfinite(x):
                seen[replica] = step + 1
                break
    assert caught.value.step == min(seen.values())
    assert caught.value.step > 64
    assert min(seen, key=lambda r: seen[r]) in caught.value.replicas


def test_a_network_diverges_too() -> None:
    process = SGD(NETWORK, teacher(label_noise=0.3), lr=0.5, batch_size=2)
    start = np.random.default_rng(0).normal(size=NETWORK.n_parameters) * 3
    with pytest.raises(DivergedError, match="replica"):
        first_passage(process, target=Region(1e3), n_replicas=3, max_time=100.0, seed=0, start=start)


def test_a_lively_escape_is_no_divergence() -> None:
    """Large but stable steps are left alone: the check of the escaped does not cry wolf."""
    ds = runs(
        SGD(CHAIN, teacher(label_noise=0.5), lr=0.3, batch_size=8, noise=per_sample(variance=1.0)), max_time=300.0
    )
    assert bool(ds.escaped.any())
    assert torch.isfinite(torch.from_numpy(ds.max_score.values)).all()
