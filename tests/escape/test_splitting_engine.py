"""The bookkeeping of splitting: noise, clones, labels, and errors that say what to do."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from kramers_grok.core.exceptions import DivergedError, InvalidParameterError, TooFewEscapesError, ValidityWarning
from kramers_grok.core.landscape import Landscape
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region, beyond
from kramers_grok.core.schema import PROVENANCE, describe
from kramers_grok.dynamics.langevin import Langevin
from kramers_grok.dynamics.process import Observed, Process, Record, State, Watch
from kramers_grok.dynamics.sampling import ShuffledEpochs
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape import splitting_engine, splitting_pilot
from kramers_grok.escape.splitting import splitting
from kramers_grok.escape.splitting_engine import Crowd, resample
from kramers_grok.models.data import finite
from kramers_grok.studies.files.store import read_netcdf, write_netcdf
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

MODE = Mode(3, 1.0, 0.25)
TARGET = Region(0.2)


def mode_at(ratio: float) -> Langevin:
    return Langevin(MODE, temperature=MODE.barrier().height / ratio, dt=0.1)


LANGEVIN = mode_at(4.0)


def epochs() -> SGD:
    """Shuffled epochs of four batches."""
    x = np.random.default_rng(0).normal(size=(32, 1))
    chain = DeepLinearChain.from_data(x, x, depth=3, weight_decay=0.25)
    noise = per_sample(temperature=chain.barrier().height / 4)
    return SGD(chain, finite(x, x), lr=0.1, batch_size=8, sampler=ShuffledEpochs(), noise=noise)


# ---------------------------------------------------------------- noise and clones


@dataclass
class Recorder:
    """Passes everything on and notes which noise was used: (stream, first step, last step)."""

    process: Process
    used: list[tuple[NDArray[np.int64], int, int]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.process, name)

    def advance(self, state: State, n_steps: int, watch: Watch | None = None) -> tuple[State, Record]:
        self.used.append((state.streams.numpy().copy(), state.step, state.step + n_steps))
        return self.process.advance(state, n_steps, watch)


@pytest.mark.parametrize("period", [1, 4])
def test_no_noise_is_used_twice(period: int) -> None:
    process = LANGEVIN if period == 1 else epochs()
    assert process.period == period
    recorder: Any = Recorder(process, [])
    splitting(recorder, target=TARGET, n_replicas=96, n_repeats=8, seed=0, levels=[0.0, 2e-3, 6e-3, 1.5e-2])
    last: dict[int, int] = {}
    for streams, begin, end in recorder.used:
        for stream in streams.tolist():
            assert last.get(stream, 0) <= begin
            last[stream] = end
    assert len(last) > 8 * 96 * 3


def test_systematic_resampling() -> None:
    """Members get their share of clones, within their repeat, whatever the order; a repeat without members has none."""
    repeat = torch.tensor([2, 0, 2, 2, 0])
    theta = torch.arange(5.0, dtype=torch.float64)[:, None]
    crowd = Crowd(theta, {"b": theta.clone()}, torch.zeros(5).long(), repeat, torch.arange(5))
    counts = torch.zeros(5)
    for number in range(400):
        clones = resample(crowd, 4, seed=0, number=number)
        assert clones.repeat.tolist() == [0] * 4 + [2] * 4
        assert torch.equal(repeat[clones.theta[:, 0].long()], clones.repeat)
        assert torch.equal(clones.theta, clones.buffers["b"])
        assert torch.equal(clones.theta[:, 0], clones.age.double())
        counts += torch.bincount(clones.theta[:, 0].long(), minlength=5)
    assert counts[[1, 4]].tolist() == [800, 800]  # 4/2 each, always
    # 4/3 each on average: one is 1, plus another with probability 1/3, so the mean of 400 is known to ± 0.024
    assert ((counts[[0, 2, 3]] / 400 - 4 / 3).abs() < 4.5 * 0.024).all()


def test_the_data_set(tmp_path: Path) -> None:
    calls: list[tuple[int, int, float]] = []
    ds = splitting(
        mode_at(12.0), target=Region(0.2), n_replicas=256, n_repeats=8, seed=11,
        progress=lambda *what: calls.append(what), extra={"label_noise": 0.5},
    )  # fmt: skip
    assert dict(ds.sizes) == {"repeat": 8, "level": len(ds.level)}
    assert set(PROVENANCE) <= set(ds.attrs)
    for name in map(str, ds.variables):
        assert ds[name].attrs == describe(name), name
    assert float(ds.temperature) == MODE.barrier().height / 12
    assert float(ds.label_noise) == 0.5
    assert float(ds.target_threshold) == 0.2 == float(ds.level[-1])
    assert float(ds.well_score) < float(ds.entry_score) < float(ds.level[0])
    assert float(ds.lower) < float(ds.mean_exit_time) < float(ds.upper)
    assert 0 < int(ds.pilot_steps) < int(ds.replica_steps)
    configuration = json.loads(ds.attrs["configuration"])
    assert (configuration["n_replicas"], configuration["above"]) == (256, True)
    assert [c[0] for c in calls] == list(range(1, len(ds.level) + 1))
    assert calls[-1][2] == pytest.approx(float(ds.probability.mean()))
    path = tmp_path / "run.nc"
    write_netcdf(ds, path)
    xr.testing.assert_identical(read_netcdf(path), ds)
    # Levels of one run can be given to another
    again = splitting(
        mode_at(12.0), target=Region(0.2), n_replicas=256, n_repeats=8, seed=12,
        levels=[float(ds.well_score), float(ds.entry_score), *ds.level.values[:-1].tolist()],
    )  # fmt: skip
    assert int(again.pilot_steps) == 0
    np.testing.assert_array_equal(again.level, ds.level)


# ---------------------------------------------------------------- errors


def test_what_cannot_be_asked() -> None:
    process = mode_at(8.0)
    target = beyond(MODE.barrier())
    with pytest.raises(InvalidParameterError, match="`n_repeats` = 7, expected an integer >= 8: the error bar"):
        splitting(process, target=target, seed=0, n_repeats=7)
    with pytest.raises(InvalidParameterError, match=r"start is inside the target .*beyond the barrier"):
        splitting(process, target=Region(0.1, above=False), seed=0)
    with pytest.raises(InvalidParameterError, match=r"`target\.feature` = 1, expected 0 to 0"):
        splitting(process, target=Region(0.1, feature=1), seed=0)
    with pytest.raises(InvalidParameterError, match=r"`levels` = .*, expected two or more increasing scores"):
        splitting(process, target=target, seed=0, levels=[0.0, 0.1, 0.05])
    with pytest.raises(InvalidParameterError, match=r"`success` = 1\.5"):
        splitting(process, target=target, seed=0, success=1.5)
    with pytest.raises(InvalidParameterError, match="the score does not tell the well's states apart"):
        splitting(Langevin(MODE, temperature=0.0, dt=0.1), target=target, seed=0, n_replicas=16, n_repeats=8)


class Flat:
    """A score that knows the well but nothing beyond it."""

    def values(self, observed: Observed, theta: Tensor) -> Tensor:
        return observed.order_parameters(theta)[:, 0].clamp_max(1e-3)

    def expression(self, landscape: Landscape) -> sympy.Expr | None:
        (m,) = landscape.order_parameters
        return sympy.Min(m, sympy.Float(1e-3))


def test_a_score_that_is_not_ordered() -> None:
    with pytest.raises(InvalidParameterError, match="the score does not grow on the way to the target"):
        splitting(mode_at(12.0), target=beyond(MODE.barrier()), seed=0, n_replicas=64, n_repeats=8, score=Flat())


def test_nobody_arrives() -> None:
    """The error carries what was measured and says at which level the climb ended."""
    with pytest.raises(TooFewEscapesError, match="got beyond level 1 of 2") as caught:
        splitting(mode_at(20.0), target=Region(0.2), seed=0, n_replicas=8, n_repeats=8, levels=[0.0, 1e-4, 2e-3])
    partial = caught.value.result
    assert float(partial.probability.max()) == 0.0
    assert "mean_exit_time" not in partial


def test_an_imprecise_interval_warns() -> None:
    with pytest.warns(ValidityWarning, match="carried by few of 8 repeats"):
        splitting(mode_at(20.0), target=Region(0.2), seed=3, n_replicas=16, n_repeats=8)


def test_a_leg_that_never_ends() -> None:
    """A trap between well and target: here the target lies where only a second, higher barrier leads."""
    process = mode_at(8.0)
    with pytest.raises(TooFewEscapesError, match="neither returned to the well nor went on within max_steps=2000"):
        splitting(process, target=Region(1.5), seed=0, n_replicas=256, n_repeats=8, max_steps=2000)


def test_divergence_is_reported() -> None:
    x = sympy.Symbol("x", real=True)
    cliff = Landscape(x**2 / 2 - x**4, (x,), (x,))
    process = Langevin(cliff, temperature=0.01, dt=0.1)
    with pytest.raises(DivergedError, match=r"diverged .*\n.*smaller step"):
        splitting(process, target=Region(2.0), seed=0, n_replicas=128, n_repeats=8)


def test_streams_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting_engine, "MAX_REPLICAS", 5000)
    with pytest.raises(InvalidParameterError, match="needs more than 5000 noise streams"):
        splitting(mode_at(8.0), target=Region(0.2), seed=0, n_replicas=64, n_repeats=8)


def test_no_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slope nothing settles."""
    x = sympy.Symbol("x", real=True)
    slope = Langevin(Landscape(0.1 * x, (x,), (x,)), temperature=0.01, dt=0.1)
    monkeypatch.setattr(splitting_pilot, "LONGEST_SETTLING", 4096)
    with pytest.raises(InvalidParameterError, match="is not in a metastable well"):
        splitting(slope, target=Region(5.0), seed=0, n_replicas=64, n_repeats=8)
