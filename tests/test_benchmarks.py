"""The benchmark scripts still run, and refuse to time what is wrong. Their times are not asserted."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("bench_escape", monkeypatch)


def test_the_gradients_written_by_hand_are_those_of_the_landscape(bench: ModuleType) -> None:
    points = np.random.default_rng(0).normal(size=(5, 3))
    for arena in bench.arenas():
        x = points[:, : arena.dimension]
        landscape = arena.system.landscape
        tensor = bench.torch.from_numpy(x)
        np.testing.assert_allclose(arena.gradient(tensor).numpy(), landscape.gradient_at(x), rtol=1e-12)
        m = landscape.order_parameters_at(x)[:, 0]
        np.testing.assert_allclose(arena.order_parameter(tensor).numpy(), m, rtol=1e-12)


@pytest.mark.slow
def test_quick(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["--quick"])
    printed = capsys.readouterr().out
    for name in ("compiled kernel", "plain torch loop", "our torch path", "our torchsde adapter", "torchsde.sdeint"):
        assert printed.count(name) >= 4


def test_a_wrong_contestant_is_not_timed(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """A forgotten √2 in the noise moves the mean by far more than the limit."""
    chain = bench.arenas()[1]
    wrong = replace(chain, temperature=chain.temperature / 2)
    player = bench.Contestant("cold loop", bench.plain_loop(wrong), bridge=False)
    with pytest.raises(SystemExit, match="cold loop is wrong in the chain"):
        bench.check(chain, [player], bench.Plan(n_check=400))


def test_the_generators_can_be_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rng = load("bench_rng", monkeypatch)
    monkeypatch.setattr(rng, "ROUNDS", 1)
    monkeypatch.setattr(sys, "argv", ["bench_rng.py", "64"])
    rng.main()
    assert "ns/normal" in capsys.readouterr().out
