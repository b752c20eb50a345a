"""Compiled kernels of hyperparameters that change from step to step or differ between replicas.

The compiled loop is compared with the torch loop: they share the noise and the hyperparameters' tables, nothing of the
step itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region
from kramers_grok.core.rng import Purpose
from kramers_grok.core.schedules import Geometric, Linear, Piecewise, Schedule
from kramers_grok.dynamics import blocks, kernel_source, kernels
from kramers_grok.dynamics.kernels import Hyper, Kernel, Varying
from kramers_grok.dynamics.process import OrderParameter, Record, State, Watch
from kramers_grok.dynamics.sampling import BySamples, FullBatch, ShuffledEpochs, WithoutReplacement, WithReplacement
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import FiniteData, finite, population, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.diagonal import DiagonalNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

PARAMETERS = {"singular_value": 1.3, "weight_decay": 0.25, "input_variance": 0.8}
MODE, CHAIN = Mode(3, **PARAMETERS), DeepLinearChain(3, **PARAMETERS)
NETWORK = DeepLinearNetwork((1, 2, 2, 1), [1.3], weight_decay=0.25, input_variance=0.8)
MATRIX = DeepLinearNetwork((2, 2, 2), [1.3, 0.8], weight_decay=0.25, input_variance=0.8)
DIAGONAL = DiagonalNetwork(3, [1.3, 0.8], weight_decay=0.25, input_variances=[0.8, 1.1])
REPLICAS, STEPS, SEED = 60, 80, 2**35 + 3
MEMBERS = np.arange(REPLICAS)

LR, DECAY, BATCH = Linear(0.2, 0.05, 50), Geometric(0.1, 0.4, 60), Piecewise((2, 7, 4), (20, 30, 30))
EACH = {
    "lr": 0.05 + 0.002 * MEMBERS,
    "weight_decay": 0.4 - 0.005 * MEMBERS,
    "noise": per_sample(variance=0.2 + 0.02 * (MEMBERS % 7)),
}
CHANGES: dict[str, dict[str, Any]] = {
    "learning rate": {"lr": LR},
    "batch size": {"batch_size": BATCH},
    "weight decay": {"weight_decay": DECAY},
    "all in steps": {"lr": LR, "batch_size": BATCH, "weight_decay": DECAY},
    "a decay of its own": {"weight_decay": 0.1},
    "one for each": EACH,
    "both": EACH | {"weight_decay": DECAY, "batch_size": BATCH},
    "no noise": {"lr": LR, "weight_decay": EACH["weight_decay"], "noise": None},
}


def chain_data() -> FiniteData:
    """Eleven samples with second moments 0.8 and 0.8 · 1.3."""
    pair = np.linalg.qr(np.random.default_rng(2).normal(size=(11, 2)))[0] * 11**0.5
    x = pair[:, 0] * 0.8**0.5
    return finite(x, 1.3 * x + 0.6 * pair[:, 1])


ONLINE, DATA = teacher(label_noise=0.6), chain_data()
SYSTEMS: dict[str, tuple[Any, Any, Any]] = {
    "mode, online": (MODE, ONLINE, None),
    "chain, online": (CHAIN, ONLINE, None),
    "chain, population": (CHAIN, population(), None),
    "chain, with replacement": (CHAIN, DATA, WithReplacement()),
    "chain, without replacement": (CHAIN, DATA, WithoutReplacement()),
    "chain, epochs": (CHAIN, DATA, ShuffledEpochs()),
    "chain, full batch": (CHAIN, DATA, FullBatch()),
    "network, online": (NETWORK, ONLINE, None),
    "matrix, population": (MATRIX, population(), None),
    "diagonal, population": (DIAGONAL, population(), None),
}


def process(system: str, change: str) -> SGD:
    model, data, sampler = SYSTEMS[system]
    given: dict[str, Any] = {"lr": 0.15, "batch_size": 4, "noise": per_sample(variance=0.4)} | CHANGES[change]
    if isinstance(given["batch_size"], Schedule) and isinstance(sampler, FullBatch | ShuffledEpochs):
        given["batch_size"] = 4
    return SGD(model, data, sampler=sampler, device="cpu", **given)


def begin(sgd: SGD) -> State:
    size = sgd.model.n_parameters
    start = np.array([0.9]) if size == 1 else 0.6 + 0.1 * np.cos(np.arange(size))
    return sgd.start(REPLICAS, seed=SEED, point=start)


def watched(sgd: SGD) -> Watch:
    """A region that part of the replicas enter and a floor that others reach."""
    _, up = sgd.advance(begin(sgd), STEPS, Watch(Region(1e9)))
    _, down = sgd.advance(begin(sgd), STEPS, Watch(Region(-1e9, above=False)))
    return Watch(Region(float(up.best.quantile(0.6))), floor=float(-down.best.quantile(0.6)))


def assert_same(one: tuple[State, Record], other: tuple[State, Record]) -> None:
    assert torch.equal(one[1].hit_step, other[1].hit_step)
    assert torch.equal(one[1].fell_step, other[1].fell_step)
    torch.testing.assert_close(one[0].theta, other[0].theta, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(one[1].best, other[1].best, rtol=1e-10, atol=1e-12)
    assert set(one[0].buffers) == set(other[0].buffers)
    for name, buffer in one[0].buffers.items():
        assert torch.equal(buffer, other[0].buffers[name])


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_compiled_loop_walks_the_paths_of_the_torch_loop(system: str, change: str) -> None:
    sgd = process(system, change)
    assert sgd._kernel is not None
    watch = watched(sgd)
    assert sgd._kernel.takes(watch, varying=True)
    compiled, looped = (p.advance(begin(p), STEPS, watch) for p in (sgd, sgd.on_torch()))
    assert_same(compiled, looped)
    if CHANGES[change].get("noise", True) is not None:
        left = (compiled[1].hit_step >= 0) | (compiled[1].fell_step >= 0)
        assert 0 < int((compiled[1].hit_step >= 0).sum()) < REPLICAS
        assert bool((compiled[1].fell_step >= 0).any())
        assert int(left.sum()) > REPLICAS // 4  # others closed up on the way


def test_scores_of_ones_own_are_compiled_too() -> None:
    sgd = process("chain, online", "both")
    watch = Watch(Region(2.0), score=OrderParameter(), level=float(watched(sgd).region.threshold))
    ends = [p.advance(begin(p), STEPS, watch) for p in (sgd, sgd.on_torch())]
    assert_same(*ends)
    assert 0 < int((ends[0][1].hit_step >= 0).sum()) < REPLICAS


# ---------------------------------------------------------------- tables that do not vary


def constant(sgd: SGD, *, lr: float = 1.0, decay: float = 1.0, amplitude: float = 1.0, batch: int = 0) -> Varying:
    """Tables of one value, off by the given factors (and by `batch` samples)."""
    one, ones = np.ones(STEPS), np.ones(REPLICAS)
    strength = sgd.dt * (sgd.noise_variance / sgd.batch_size) ** 0.5
    return Varying(
        Hyper(one, sgd.dt * lr * ones),
        Hyper(0.25 * decay * one, ones),
        Hyper(strength * amplitude * one, ones),
        np.full(STEPS, sgd.batch_size + batch),
    )


def plain(system: str) -> SGD:
    model, data, sampler = SYSTEMS[system]
    noise = per_sample(variance=0.4)
    return SGD(model, data, lr=0.15, batch_size=4, sampler=sampler, noise=noise, device="cpu")


def varied(sgd: SGD, varying: Varying, watch: Watch | None, state: State | None = None) -> tuple[State, Record]:
    assert sgd._kernel is not None
    first = begin(sgd) if state is None else state
    return sgd._kernel.advance_varying(first, STEPS, watch, varying=varying, purpose=Purpose.INJECTED, n_threads=1)


@pytest.mark.parametrize("system", SYSTEMS)
def test_tables_of_one_value_make_the_paths_of_that_value(system: str) -> None:
    sgd = plain(system)
    watch = watched(sgd)
    assert_same(varied(sgd, constant(sgd), watch), sgd.advance(begin(sgd), STEPS, watch))


@pytest.mark.parametrize("off", [{"lr": 1 + 1e-6}, {"decay": 1 + 1e-6}, {"amplitude": 1 + 1e-6}, {"batch": 1}])
def test_a_value_that_is_slightly_off_is_noticed(off: dict[str, Any]) -> None:
    """Negative control of the comparisons."""
    sgd = plain("chain, online")
    watch = watched(sgd)
    with pytest.raises(AssertionError):
        assert_same(varied(sgd, constant(sgd, **off), watch), sgd.advance(begin(sgd), STEPS, watch))


def test_more_replicas_than_a_block_and_several_threads() -> None:
    """Factors follow their replicas through blocks, threads and gaps that close."""
    n = blocks.BLOCK + 300
    rates = np.linspace(0.05, 0.2, n)

    def make(n_threads: int, fused: bool = True) -> SGD:
        given: dict[str, Any] = {"noise": per_sample(variance=0.4), "n_threads": n_threads, "fused": fused}
        return SGD(CHAIN, ONLINE, lr=rates, batch_size=BATCH, device="cpu", **given)

    watch = Watch(Region(0.6), floor=0.05)
    ends = [
        p.advance(p.start(n, seed=SEED, point=np.full(3, 0.7)), STEPS, watch)
        for p in (make(1), make(3), make(1, fused=False))
    ]
    assert torch.equal(ends[0][0].theta, ends[1][0].theta)
    assert torch.equal(ends[0][1].hit_step, ends[1][1].hit_step)
    assert_same(ends[0], ends[2])
    assert int((ends[0][1].hit_step < 0).sum()) < n // 2


def test_noise_that_pauses_does_not_repeat_itself() -> None:
    """A mode draws four steps' noise at once: a step without noise must not leave old numbers behind."""
    amplitudes = np.tile([0.0, 0.0, 0.0, 0.0, 0.1, 0.0, 0.1], 12)[:STEPS]
    sgd = plain("mode, online")
    tables = constant(sgd)._replace(amplitude=Hyper(amplitudes, np.ones(REPLICAS)))
    whole, _ = varied(sgd, tables, None)
    assert sgd._kernel is not None
    state = begin(sgd)
    for step in range(STEPS):
        lr, decay, amplitude = (Hyper(h.table[step : step + 1], h.factor) for h in tables[:3])
        one = Varying(lr, decay, amplitude, tables.batch_size[:1])
        state, _ = sgd._kernel.advance_varying(state, 1, None, varying=one, purpose=Purpose.INJECTED, n_threads=1)
    assert torch.equal(state.theta, whole.theta)


def test_epochs_keep_their_length() -> None:
    sgd = plain("chain, epochs")
    tables = constant(sgd)
    with pytest.raises(InvalidParameterError, match="`batch_size` changes from 4 to 5 under shuffled epochs"):
        varied(sgd, tables._replace(batch_size=tables.batch_size + (np.arange(STEPS) > 40)), None)


# ---------------------------------------------------------------- what is compiled


def test_the_constant_kernel_knows_nothing_of_tables() -> None:
    spec = kernels.scalar_spec(CHAIN)
    varying = kernels.scalar_spec(CHAIN, kernel_source.DECAY)
    constant_text, _ = kernel_source.source(spec, 0, blocks.ONLINE)
    varying_text, _ = kernel_source.source(varying, 0, blocks.ONLINE, varying=True)
    for word in ("own[", "decay", "_now", "np.uint64(2)"):
        assert word not in constant_text
        assert word in varying_text


def test_one_kernel_serves_every_weight_decay() -> None:
    texts = set()
    for values in ((1.3, 0.25, 0.8), (0.7, 0.31, 1.9), (2.0, 0.5, 3.0)):
        spec = kernels.scalar_spec(DeepLinearChain(3, *values), kernel_source.DECAY)
        text, constants = kernel_source.source(spec, 0, blocks.ONLINE, varying=True)
        texts.add(text)
        assert values[1] not in constants
    assert len(texts) == 1


CANNOT: dict[str, Callable[[], bool]] = {
    "a landscape, whose decay cannot be told apart": lambda: Kernel(kernels.landscape_spec(MODE.landscape)).takes(
        None, varying=True
    ),
    "a bridge": lambda: bool(
        (kernel := plain("chain, online")._kernel) and kernel.takes(Watch(Region(1.0), bridge=True), varying=True)
    ),
}


@pytest.mark.parametrize("case", CANNOT)
def test_what_is_left_to_torch(case: str) -> None:
    assert not CANNOT[case]()


def test_networks_that_see_samples_are_left_to_torch() -> None:
    x = np.linalg.qr(np.random.default_rng(4).normal(size=(9, 2)))[0] * 3 * np.array([0.8, 1.1]) ** 0.5
    data = finite(x, x * [1.3, 0.8])
    from_data = DiagonalNetwork.from_data(data, 3, weight_decay=0.25)
    many = DiagonalNetwork(3, [1.0] * 27, weight_decay=0.1)
    for process in (
        SGD(DIAGONAL, ONLINE, lr=0.1, batch_size=3, device="cpu"),
        SGD(from_data, data, lr=0.1, batch_size=3, sampler=WithReplacement(), device="cpu"),
        SGD(CHAIN, ONLINE, lr=0.1, batch_size=3, sampler=BySamples(), device="cpu"),
        SGD(many, population(), lr=0.1, device="cpu"),
    ):
        assert process._kernel is None
