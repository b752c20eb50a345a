"""The library against plain numpy, pair by pair: `make track` compares their times as ratios, here they agree.

Under ``--benchmark-disable`` every body runs once, as a test of what it returns; nothing is asserted about times.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import kramers_grok as kg

ROOT = Path(__file__).parents[1]
REPLICAS, STEPS = 4000, 200
SEED = 3


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.reference")


@pytest.fixture
def arenas(reference: ModuleType) -> dict[str, Any]:
    return {arena.name: arena for arena in reference.arenas.mode_and_chain()}


def escaped(hits: np.ndarray) -> float:
    """Share that escaped; between 1 and 99 % in these systems, or the comparison would say nothing."""
    share = float(np.isfinite(hits).mean())
    assert 0.01 < share < 0.99
    return share


def agree(share: float, expected: float) -> bool:
    """Two shares of so many replicas: 5 standard errors, a false alarm in 2e6."""
    return abs(share - expected) < 5 * (2 * expected * (1 - expected) / REPLICAS) ** 0.5


# From plain numpy with 100,000 replicas, other seeds; standard errors are a tenth of those here.
EXPECTED = {"mode": 0.0758, "chain": 0.1690}


@pytest.mark.parametrize("name", ["mode", "chain"])
def test_numpy_steps(reference: ModuleType, arenas: dict[str, Any], benchmark: Callable[..., Any], name: str) -> None:
    benchmark.group = f"steps of the {name}"
    arena = arenas[name]
    hits = benchmark(lambda: reference.escape(arena, REPLICAS, STEPS, np.random.default_rng(SEED)))
    assert agree(escaped(hits), EXPECTED[name])


@pytest.mark.parametrize("name", ["mode", "chain"])
def test_library_steps(arenas: dict[str, Any], benchmark: Callable[..., Any], name: str) -> None:
    benchmark.group = f"steps of the {name}"
    escape = importlib.import_module("benchmarks.ours").Escape(arenas[name], kg.Fused())
    hits = benchmark(lambda: escape(REPLICAS, STEPS, SEED))
    assert agree(escaped(hits), EXPECTED[name])
    assert not agree(escaped(hits), 2 * EXPECTED[name])  # the comparison has the power to tell such a difference


def test_numpy_training(reference: ModuleType, benchmark: Callable[..., Any]) -> None:
    benchmark.group = "SGD of the chain"
    state = benchmark(lambda: reference.chain_training(REPLICAS, STEPS, np.random.default_rng(SEED)))
    assert learned(state.T)


def test_library_training(benchmark: Callable[..., Any]) -> None:
    benchmark.group = "SGD of the chain"
    chain = kg.DeepLinearChain(3, 1.0, 0.1)
    sgd = kg.SGD(chain, kg.teacher(label_noise=0.5), lr=0.1, batch_size=8, device="cpu")
    start = np.full(3, 0.8)
    state = benchmark(lambda: sgd.advance(sgd.start(REPLICAS, seed=SEED, point=start), STEPS)[0])
    assert learned(state.theta.numpy())


def learned(theta: np.ndarray) -> bool:
    """Mean order parameter, from plain numpy with 100,000 replicas of another seed, to 5 standard errors."""
    m = theta.prod(axis=1)
    return bool(abs(m.mean() - LEARNED) < 5 * m.std() / REPLICAS**0.5)


LEARNED = 0.8923


def test_numpy_exact(reference: ModuleType, arenas: dict[str, Any], benchmark: Callable[..., Any]) -> None:
    benchmark.group = "exact exit time"
    mean = benchmark(lambda: reference.mean_exit_time(arenas["mode"].at(5.0)))
    assert mean == pytest.approx(exact(arenas), rel=1e-3)


def test_library_exact(arenas: dict[str, Any], benchmark: Callable[..., Any]) -> None:
    benchmark.group = "exact exit time"
    assert benchmark(lambda: exact(arenas)) > exact(arenas, ratio=4.0)


def exact(arenas: dict[str, Any], ratio: float = 5.0) -> float:
    """Mean exit time of the mode."""
    arena = arenas["mode"].at(ratio)
    return float(kg.exit_time(arena.system, temperature=arena.temperature, target=arena.target).mean)
