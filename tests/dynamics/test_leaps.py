"""Kernels that leap over steps where nothing happens find what kernels find that look at every step.

A call of one step at a time follows every replica of a mode (steps that share a counter of the noise are not taken
together then), so the comparison is with the same expressions and without the shortcut.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region
from kramers_grok.dynamics import blocks, kernel_engine
from kramers_grok.dynamics.langevin import Fused, Langevin
from kramers_grok.dynamics.minibatch_sde import Minibatches
from kramers_grok.dynamics.process import OrderParameter, Process, Record, State, Watch, select
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import teacher
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

MODE, CHAIN = Mode(3, 1.0, 0.25), DeepLinearChain(3, 1.0, 0.25)
HEIGHT = MODE.barrier().height
REPLICAS, STEPS = 1300, 250  # two blocks, the second one not full
SINGLE = Fused(noise=torch.float32)
NORMALS = {"double": Fused(), "single": SINGLE}
WATCHES = {
    "bridge": Watch(Region(0.05), bridge=True),
    "bridge and floor": Watch(Region(0.05), bridge=True, floor=-0.02),
    "steps": Watch(Region(0.05)),
    "below": Watch(Region(-0.002, above=False), bridge=True),
    "a score and a level": Watch(Region(0.2), score=OrderParameter(), level=0.04, floor=-0.02),
}


def langevin(system: Mode | DeepLinearChain, integrator: Fused, temperature: float = HEIGHT / 2) -> Langevin:
    return Langevin(system, temperature=temperature, dt=0.1, integrator=integrator, device="cpu")


def run(process: Process, watch: Watch, chunks: list[int], state: State | None = None) -> tuple[State, Record]:
    """Advance in several calls; those who have left stay where they are."""
    state = process.start(REPLICAS, seed=4) if state is None else state
    theta, streams = state.theta.clone(), state.streams
    hit, fell = (torch.full((state.n_replicas,), -1) for _ in range(2))
    best = torch.full((state.n_replicas,), -torch.inf, dtype=torch.float64)
    numbers = torch.arange(state.n_replicas)
    for steps in chunks:
        state, record = process.advance(state, steps, watch)
        theta[numbers] = state.theta
        hit[numbers], fell[numbers] = record.hit_step, record.fell_step
        best[numbers] = torch.maximum(best[numbers], record.best)
        stay = torch.nonzero((record.hit_step < 0) & (record.fell_step < 0))[:, 0]
        numbers, state = numbers[stay], select(state, stay)
    return replace(state, theta=theta, streams=streams), Record(hit, best, fell)


def assert_identical(one: tuple[State, Record], other: tuple[State, Record]) -> None:
    assert torch.equal(one[0].theta, other[0].theta)
    assert torch.equal(one[1].hit_step, other[1].hit_step)
    assert torch.equal(one[1].fell_step, other[1].fell_step)
    assert torch.equal(one[1].best, other[1].best)


@pytest.mark.parametrize("normals", NORMALS)
@pytest.mark.parametrize("watch", WATCHES)
def test_leaps_find_what_single_steps_find(watch: str, normals: str) -> None:
    process = langevin(MODE, NORMALS[normals])
    leapt = run(process, WATCHES[watch], [STEPS])
    assert_identical(leapt, run(process, WATCHES[watch], [1] * STEPS))
    assert_identical(leapt, run(process, WATCHES[watch], [3, 50, 2, 101, 94]))
    left = int((leapt[1].hit_step >= 0).sum())
    assert REPLICAS // 20 < left < REPLICAS


def test_crossings_between_steps_that_are_overlooked_would_be_noticed() -> None:
    """Negative control: what leaps could miss is what differs here."""
    process, watch = langevin(MODE, SINGLE), WATCHES["bridge"]
    with pytest.raises(AssertionError):
        assert_identical(run(process, replace(watch, bridge=False), [STEPS]), run(process, watch, [STEPS]))


@pytest.mark.parametrize("system", [MODE, CHAIN])
def test_the_torch_loop_walks_the_same_paths_on_single_precision_noise(system: Mode | DeepLinearChain) -> None:
    watch = Watch(Region(0.03), bridge=True, floor=-0.05)
    compiled, looped = (
        run(langevin(system, Fused(compiled=c, noise=torch.float32)), watch, [STEPS]) for c in (True, False)
    )
    assert torch.equal(compiled[1].hit_step, looped[1].hit_step)
    assert torch.equal(compiled[1].fell_step, looped[1].fell_step)
    torch.testing.assert_close(compiled[0].theta, looped[0].theta, rtol=1e-10, atol=1e-12)
    assert int((compiled[1].hit_step >= 0).sum()) > 50


@pytest.mark.parametrize("system", [MODE, CHAIN])
def test_single_precision_paths_do_not_depend_on_batch_or_threads(system: Mode | DeepLinearChain) -> None:
    watch = Watch(Region(0.03), bridge=True)
    process = langevin(system, SINGLE)
    whole = run(process, watch, [STEPS])
    assert_identical(whole, run(langevin(system, replace(SINGLE, n_threads=3)), watch, [STEPS]))
    some = torch.arange(3, REPLICAS, 37)
    state, record = run(process, watch, [STEPS], select(process.start(REPLICAS, seed=4), some))
    assert torch.equal(state.theta, whole[0].theta[some])
    assert torch.equal(record.hit_step, whole[1].hit_step[some])


def test_single_precision_moves_hardly_any_escape() -> None:
    """The numbers are the same to 1e-6: nearly every replica escapes at the very same step."""
    watch = Watch(Region(0.19), bridge=True)
    wide, narrow = (run(langevin(MODE, n), watch, [3000])[1] for n in (Fused(), SINGLE))
    assert int((wide.hit_step >= 0).sum()) > 0.6 * REPLICAS
    assert float((wide.hit_step == narrow.hit_step).double().mean()) > 0.995
    warmer = run(langevin(MODE, SINGLE, HEIGHT / 1.9), watch, [3000])[1]
    assert float((wide.hit_step == warmer.hit_step).double().mean()) < 0.5


def test_batches_are_drawn_for_all_steps_of_a_leap() -> None:
    """SGD of a mode: four steps share the noise's counter, each with a batch of its own."""
    sgd = SGD(MODE, teacher(label_noise=0.6), lr=0.15, batch_size=4, noise=per_sample(variance=0.4), device="cpu")
    watch = Watch(Region(0.3), floor=-0.2)
    assert_identical(run(sgd, watch, [60]), run(sgd, watch, [1] * 60))


def test_padded_lanes_hold_nobody() -> None:
    """Blocks are filled up to whole vectors: with few replicas nothing else may show."""
    process, watch = langevin(MODE, SINGLE), WATCHES["bridge"]
    whole = run(process, watch, [STEPS])
    for n in (1, blocks.LANES - 1, blocks.LANES, blocks.LANES + 1):
        state, record = run(process, watch, [STEPS], process.start(n, seed=4))
        assert torch.equal(state.theta, whole[0].theta[:n])
        assert torch.equal(record.hit_step, whole[1].hit_step[:n])


def test_nobody_watched_has_no_score() -> None:
    process = langevin(MODE, SINGLE)
    _, record = process.advance(process.start(5, seed=1), 16)
    assert bool((record.best == -torch.inf).all())
    assert bool((record.hit_step == -1).all())


def test_marks() -> None:
    """Who is gone, who is within reach: a border behind, or ahead and near; not a number counts as near."""
    distance = np.array([2.0, 0.5, -3.0, np.nan, np.inf, 2.0])
    where, mark = np.array([0, 1, 2, 3, 4, -1]), np.empty(6)
    blocks.mark_lanes(mark, where, distance, 1.0, 6)
    assert mark.tolist() == [0, 1, 1, 1, 0, -1]
    blocks.mark_lanes(mark, where, distance, -1.0, 6)
    assert mark.tolist() == [0, 0, 0, 0, 0, -1]


def test_precision_is_validated_and_told() -> None:
    with pytest.raises(
        InvalidParameterError, match=r"`noise` = torch.float16, expected torch.float32 or torch.float64"
    ):
        Fused(noise=torch.float16)
    minibatch: Any = Minibatches(teacher(label_noise=0.5), lr_over_batch=0.01)
    with pytest.raises(InvalidParameterError, match=r"Fused\(noise=torch.float32\) with minibatch noise"):
        Langevin(MODE, temperature=0.0, dt=0.1, integrator=SINGLE, minibatch=minibatch)
    assert langevin(MODE, Fused()).describe()["integrator"] == "Fused()"
    assert langevin(MODE, SINGLE).describe()["integrator"] == "Fused(noise=torch.float32)"


def test_the_engine_calls_by_address() -> None:
    assert kernel_engine.moments_address() == kernel_engine.moments_address() != 0
