"""Runs that are killed at a save and resumed give what undisturbed ones give, bit for bit."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region, beyond
from kramers_grok.dynamics.langevin import Fused, Langevin, TorchSDE
from kramers_grok.dynamics.optimizers import Adam, GradientDescent, Momentum
from kramers_grok.dynamics.process import Process
from kramers_grok.dynamics.sampling import ShuffledEpochs
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.checkpoint import load, pack, scoped, unpack
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.escape.splitting import splitting
from kramers_grok.models.data import finite, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

first_passage_module = importlib.import_module("kramers_grok.escape.first_passage")


class Killed(Exception):
    """The process is gone."""


class Memory:
    """Keeps copies, is always due, and is killed right after a save where asked to."""

    def __init__(self) -> None:
        self.files: dict[str, xr.Dataset] = {}
        self.saves = 0
        self.kill_at: int | None = None

    def load(self, name: str) -> xr.Dataset | None:
        held = self.files.get(name)
        return None if held is None else held.copy(deep=True)

    def due(self) -> bool:
        return True

    def save(self, name: str, data: xr.Dataset) -> None:
        self.files[name] = data.copy(deep=True)
        self.saves += 1
        if self.saves == self.kill_at:
            raise Killed


def assert_any_kill_is_harmless(run: Callable[[Any], xr.Dataset], fewest: int, *, one_by_one: bool = False) -> None:
    """Kill a run at its first save, what goes on at its next one, and so on until it is through.

    One by one, each save is also the only one at which the run is killed.
    """
    undisturbed = run(None)
    watched = Memory()
    xr.testing.assert_identical(run(watched), undisturbed)
    assert watched.saves >= fewest
    for k in range(1, watched.saves + 1) if one_by_one else ():
        memory = Memory()
        memory.kill_at = k
        with pytest.raises(Killed):
            run(memory)
        xr.testing.assert_identical(run(memory), undisturbed)
        assert memory.saves == watched.saves  # nothing is done twice
    memory = Memory()
    for k in range(1, watched.saves + 1):
        memory.kill_at = k
        with pytest.raises(Killed):
            run(memory)
    xr.testing.assert_identical(run(memory), undisturbed)
    assert memory.saves == watched.saves


# ---------------------------------------------------------------- brute force

CHAIN = DeepLinearChain(3, 1.3, 0.25, 0.8)
MODE = Mode(3, 1.0, 0.25)
NETWORK = DeepLinearNetwork((2, 3, 3, 2), [1.5, 0.9], weight_decay=0.5)
PAIR = np.linalg.qr(np.random.default_rng(1).normal(size=(11, 2)))[0] * 11**0.5
X = PAIR[:, 0] * 0.8**0.5
DATA = finite(X, 1.3 * X + 0.6 * PAIR[:, 1])
NOISE = per_sample(variance=0.8)


def trained(optimizer: GradientDescent | Momentum | Adam, lr: float) -> SGD:
    return SGD(CHAIN, DATA, lr=lr, batch_size=4, sampler=ShuffledEpochs(), optimizer=optimizer, noise=NOISE)


PROCESSES: dict[str, tuple[Process, float]] = {
    "mode": (Langevin(MODE, temperature=0.05, dt=0.1), 0.2),
    "chain": (Langevin(CHAIN, temperature=0.1, dt=0.1), 0.3),
    "noise in single precision": (
        Langevin(CHAIN, temperature=0.1, dt=0.1, integrator=Fused(noise=torch.float32)),
        0.3,
    ),
    "chain, torchsde": (Langevin(CHAIN, temperature=0.1, dt=0.1, integrator=TorchSDE("euler")), 0.3),
    "network": (Langevin(NETWORK, temperature=0.02, dt=0.1), 0.8),
    "network in single precision": (Langevin(NETWORK, temperature=0.02, dt=0.1, dtype=torch.float32), 0.8),
    "sgd, online": (SGD(CHAIN, teacher(label_noise=0.3), lr=0.1, batch_size=5, noise=NOISE), 0.4),
    "sgd, shuffled epochs": (trained(GradientDescent(), 0.15), 0.4),
    "sgd, momentum": (trained(Momentum(0.5, dampening=0.2), 0.1), 0.4),
    "sgd, Adam": (trained(Adam(), 0.1), 0.6),
    "sgd, many learning rates": (
        SGD(CHAIN, DATA, lr=np.linspace(0.1, 0.2, 30), batch_size=4, noise=NOISE),
        0.4,
    ),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_brute_force_goes_on_bit_for_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    process, border = PROCESSES[name]
    monkeypatch.setattr(first_passage_module, "FIRST_CHUNK", 12)
    monkeypatch.setattr(first_passage_module, "LAST_CHUNK", 40)

    def run(checkpoint: Any) -> xr.Dataset:
        return first_passage(
            process, target=Region(border), n_replicas=30, max_time=9.0, seed=4, replica_batch=17, checkpoint=checkpoint
        )

    assert 0 < int(run(None).escaped.sum()) < 30
    assert_any_kill_is_harmless(run, 6, one_by_one=name in ("mode", "chain"))


def test_nothing_is_saved_before_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    monkeypatch.setattr(memory, "due", lambda: False)
    run = {"target": Region(0.3), "n_replicas": 8, "seed": 0}
    first_passage(PROCESSES["chain"][0], **run, max_time=9.0, checkpoint=memory)
    splitting(well(8.0), target=beyond(MODE.barrier()), n_replicas=64, n_repeats=8, seed=0, checkpoint=memory)
    assert memory.saves == 0


# ---------------------------------------------------------------- splitting


def well(ratio: float) -> Langevin:
    return Langevin(MODE, temperature=MODE.barrier().height / ratio, dt=0.2)


def epochs(ratio: float) -> SGD:
    """Shuffled epochs of four batches with momentum: buffers of both, and phases that differ."""
    x = np.random.default_rng(0).normal(size=(32, 1))
    y = x + 0.1 * np.random.default_rng(1).normal(size=(32, 1))
    chain = DeepLinearChain.from_data(x, y, depth=3, weight_decay=0.25)
    noise = per_sample(variance=per_sample(temperature=chain.barrier().height / ratio).variance_for(0.2, 8))
    return SGD(chain, finite(x, y), lr=0.2, batch_size=8, sampler=ShuffledEpochs(), noise=noise)


@pytest.mark.filterwarnings("ignore:The mean exit time is known to")  # so few replicas
@pytest.mark.parametrize("kind", ["mode", "shuffled epochs"])
def test_splitting_goes_on_bit_for_bit(kind: str) -> None:
    process: Process = well(9.0) if kind == "mode" else epochs(3.0)

    def run(checkpoint: Any) -> xr.Dataset:
        return splitting(process, target=Region(0.2), n_replicas=32, n_repeats=8, seed=3, checkpoint=checkpoint)

    assert_any_kill_is_harmless(run, 8, one_by_one=kind == "mode")  # borders, loops and levels


@pytest.mark.filterwarnings("ignore:The mean exit time is known to")
def test_given_borders_go_on_too() -> None:
    pilot = splitting(well(9.0), target=Region(0.2), n_replicas=64, n_repeats=8, seed=3)
    levels = [float(pilot.well_score), float(pilot.entry_score), *pilot.level.values[:-1]]

    def run(checkpoint: Any) -> xr.Dataset:
        return splitting(
            well(9.0), target=Region(0.2), levels=levels, loops=4, n_replicas=64, n_repeats=8, seed=4,
            checkpoint=checkpoint,
        )  # fmt: skip

    assert_any_kill_is_harmless(run, 6)


# ---------------------------------------------------------------- what is kept


def test_a_state_of_another_run_is_refused() -> None:
    process, _ = PROCESSES["chain"]
    run = {"target": Region(0.3), "n_replicas": 8, "max_time": 9.0}
    memory = Memory()
    first_passage(process, **run, seed=0, checkpoint=memory)
    with pytest.raises(InvalidParameterError, match="state of another run"):
        first_passage(process, **run, seed=1, checkpoint=memory)
    first_passage(process, **run, seed=1, checkpoint=scoped(memory, "another"))


def test_a_corrupted_state_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the comparisons above: weights that are off in their ninth digit change the result."""
    process, border = PROCESSES["chain"]
    monkeypatch.setattr(first_passage_module, "FIRST_CHUNK", 12)

    def run(checkpoint: Any) -> xr.Dataset:
        return first_passage(process, target=Region(border), n_replicas=30, max_time=9.0, seed=4, checkpoint=checkpoint)

    memory = Memory()
    memory.kill_at = 1
    with pytest.raises(Killed):
        run(memory)
    arrays, facts = unpack(memory.load("first-passage"))
    arrays["theta"] *= 1 + 1e-9
    memory.save("first-passage", pack(arrays, facts))
    assert not run(memory).identical(run(None))


def test_packing_keeps_every_bit() -> None:
    arrays = {
        "with / and . in its name": torch.tensor([[1.0, -0.0], [np.inf, 5e-324]], dtype=torch.float64),
        "empty": torch.zeros((0, 3), dtype=torch.float32),
        "scalar": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "streams": torch.tensor([2**62, -1]),
    }
    facts = {"run": "x", "seed": str(2**64 - 1), "level": None, "best": -np.inf, "tenth": 0.1}
    memory = Memory()
    file = pack(arrays, facts).to_netcdf(engine="h5netcdf")
    memory.save("name", xr.open_dataset(file, engine="h5netcdf").load())
    found = load(memory, "name", "x")
    assert found is not None
    assert found[1] == facts
    assert list(found[0]) == list(arrays)
    for name, tensor in arrays.items():
        assert (found[0][name].dtype, found[0][name].shape) == (tensor.dtype, tensor.shape)
        assert found[0][name].numpy().tobytes() == tensor.numpy().tobytes()
