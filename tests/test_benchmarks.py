"""The benchmarks still run, refuse to time what is wrong, and their committed results make the table that is shown.

Times are not asserted. Peers that are not installed are left out, so nothing here needs them.
"""

import importlib
import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def quiet(line: str) -> None:
    """Say nothing."""


# ---------------------------------------------------------------- the same equations as the library


def test_gradients_are_those_of_the_landscape(load: Load) -> None:
    points = np.random.default_rng(0).normal(size=(5, 3))
    for arena in load("arenas").mode_and_chain():
        x = points[:, : arena.dimension]
        landscape = arena.system.landscape
        np.testing.assert_allclose(np.stack(arena.gradient(*x.T), axis=1), landscape.gradient_at(x), rtol=1e-12)
        np.testing.assert_allclose(arena.order_parameter(*x.T), landscape.order_parameters_at(x)[:, 0], rtol=1e-12)


def test_the_matrix_networks_gradient_is_the_librarys(load: Load) -> None:
    arenas = load("arenas")
    arena = arenas.NetworkArena()
    theta = np.random.default_rng(0).normal(size=(4, arena.network.n_parameters))
    slopes, product = arenas.network_gradient(arenas.split(theta), arenas.TEACHER, arena.decay)
    tensor = torch.from_numpy(theta)
    np.testing.assert_allclose(arenas.joined(slopes), arena.network.gradient(tensor).numpy(), rtol=1e-10, atol=1e-12)
    m = arena.network.order_parameters(tensor)[:, arena.target.feature].numpy()
    np.testing.assert_allclose(product[:, 0, 0], m, rtol=1e-10)

    np.testing.assert_allclose(arena.energy(theta), arena.network.energy(tensor).numpy(), rtol=1e-12)


@pytest.mark.parametrize("tanh", [False, True])
def test_the_training_gradient_is_that_of_the_loss(load: Load, tanh: bool) -> None:
    arenas, reference = load("arenas"), load("reference")
    arena = arenas.Training(tanh=tanh)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3, arena.batch_size, 8))
    layers = [torch.from_numpy(w).requires_grad_() for w in arenas.split(arena.start(3))]
    signal = torch.from_numpy(x)
    for number, w in enumerate(layers):
        signal = signal @ w.mT
        signal = torch.tanh(signal) if tanh and number < 2 else signal
    loss = 0.5 * (signal - torch.from_numpy(y)).square().sum(dim=2).mean(dim=1).sum()
    (loss + 0.5 * arena.decay * sum(w.square().sum() for w in layers)).backward()
    slopes = reference.training_gradient(arena, [w.detach().numpy() for w in layers], x, y)
    for w, slope in zip(layers, slopes, strict=True):
        assert w.grad is not None
        np.testing.assert_allclose(slope, w.grad.numpy(), rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- right, then fast


def test_a_wrong_contestant_is_not_timed(load: Load) -> None:
    """Half the temperature moves the mean by some ten standard errors; the right one passes the same check."""
    escape, timing, arenas = load("escape"), load("timing"), load("arenas")
    peers = load("torch_peers")
    mode = arenas.mode_and_chain()[0]
    plan, part = timing.Plan(n_check=600, quick=True), timing.Part("p", "the mode", "replica-step")
    cold = escape.Contestant("cold loop", lambda a: peers.EscapeLoop(replace(a, ratio=2 * a.ratio)))
    with pytest.raises(timing.WrongContestant, match="cold loop is wrong in the mode"):
        part.check(escape.check_time(mode, cold, plan), quiet)
    assert not part.checks
    part.check(escape.check_time(mode, escape.Contestant("torch loop", peers.EscapeLoop), plan), quiet)
    assert part.checks[0]["contestant"] == "torch loop"


def test_a_network_without_label_noise_is_not_timed(load: Load) -> None:
    training, timing, arenas, reference = load("training"), load("timing"), load("arenas"), load("reference")
    peers = load("torch_peers")
    arena = arenas.Training()
    known = {1: reference.train(arena, 1000, 1, np.random.default_rng(7))}
    part = timing.Part("p", "training", "replica-step")
    clean = training.Contestant("clean", lambda a: peers.Batched(replace(a, label_noise=0.0)))
    with pytest.raises(timing.WrongContestant, match="the first step's squared length"):
        training.check(clean, arena, known, timing.QUICK, part, quiet)
    training.check(training.Contestant("noisy", peers.Batched), arena, known, timing.QUICK, part, quiet)
    assert len(part.checks) == 1


def test_rounds_are_interleaved_and_ratios_paired(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by hand: one call takes 1 s and the other 3 s, and every round takes ten times as long as the last."""
    timing = load("timing")
    now, order = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: 2 * now[0])

    def racer(name: str, seconds: float) -> Any:
        slow = itertools.count(-1)  # the first call of a fixed amount warms up

        def call(n: int) -> None:
            order.append(name)
            now[0] += n * seconds * 10 ** max(next(slow), 0)

        return timing.Racer(name, call, scale=2.0, fixed=4)

    plan = timing.Plan(rounds=3)
    rows = timing.race("sprint", [racer("a", 1.0), racer("b", 3.0)], plan, quiet)["contestants"]
    assert order == ["a", "b"] + 3 * ["a", "b"]
    assert [row["ratio"] for row in rows] == [1.0, 3.0]
    assert rows[0]["seconds"] == pytest.approx([0.5, 5.0, 50.0])
    assert (rows[1]["median"], rows[1]["best"], rows[1]["cores_used"]) == (15.0, 1.5, 2.0)


def test_studies_are_timed_by_the_files_they_keep(load: Load) -> None:
    studies, timing = load("studies"), load("timing")
    parts = studies.parts(1)
    for name, groups in (("store", 2), ("many", 2)):
        title, unit, function = parts[name]
        part = timing.Part(name, title, unit)
        function(part, timing.QUICK, lambda _: True, quiet)
        assert len(part.groups) == groups
        assert all(c["median"] > 0 for group in part.groups for c in group["contestants"])
        assert [check["z"] for check in part.checks] == [0.0]
    assert [c["name"] for c in part.groups[0]["contestants"]][1] == "status"


def test_a_study_that_does_not_finish_is_not_timed(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    studies, executors = load("studies"), importlib.import_module("kramers_grok.studies.running.executors")

    def fail(config: Any, *, seed: int) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(studies, "products", fail)
    with pytest.raises(RuntimeError, match="0 of 2 cells finished"):
        studies._on(executors.InProcess, (("repeats", 1),), 2)


def test_a_peer_that_is_not_installed_is_left_out(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    escape, timing = load("escape"), load("timing")
    real = importlib.import_module

    def without_jax(name: str) -> ModuleType:
        if name.endswith(("jax_peers", "diffrax_peers")):
            raise ModuleNotFoundError("No module named 'jax'", name="jax")
        return real(name)

    monkeypatch.setattr(escape, "import_module", without_jax)
    part = timing.Part("p", "a part", "replica-step")
    names = [one.name for one in escape.contestants(1, part, lambda name: True, quiet)]
    assert names[0] == "kramers_grok"
    assert not any("JAX" in name or "diffrax" in name for name in names)
    assert part.left_out[0] == {"name": "JAX loop", "why": "jax is not installed"}


# ---------------------------------------------------------------- the command


def test_quick(load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main, report = load("__main__").main, load("report")
    out = tmp_path / "results.json"
    arguments = ["--quick", "--threads", "1", "--out", str(out), "--contestants", "torch loop"]
    main([*arguments, "--only", "escape-mode", "imports"])
    results = report.load(out)
    assert list(results["parts"]) == ["escape-mode", "imports"]
    names = [c["name"] for c in results["parts"]["escape-mode"]["groups"][0]["contestants"]]
    assert names == ["torch loop", "torch loop, single-precision noise"]
    assert results["parts"]["escape-mode"]["setting"]["quick"]
    printed = capsys.readouterr().out
    assert "A smoke test" in printed
    assert "torch loop, single-precision noise" in printed
    # Only what is missing is measured, and the rest stays.
    main([*arguments, "--only", "escape-mode", "sgd-tanh", "--missing"])
    again = report.load(out)
    assert list(again["parts"]) == ["escape-mode", "sgd-tanh", "imports"]
    assert again["parts"]["escape-mode"] == results["parts"]["escape-mode"]


def test_a_part_that_does_not_exist_is_named(load: Load) -> None:
    with pytest.raises(SystemExit, match=r"no part is called escape-torus; there are escape-mode, "):
        load("__main__").main(["--only", "escape-torus"])


# ---------------------------------------------------------------- what is shown


@pytest.fixture
def results(load: Load) -> dict[str, Any]:
    report = load("report")
    loaded: dict[str, Any] = report.load(report.RESULTS)
    return loaded


def test_the_committed_results_are_whole(results: dict[str, Any], load: Load) -> None:
    assert list(results["parts"]) == list(load("run").parts(1))
    for name, part in results["parts"].items():
        assert {"date", "processor", "cores", "threads", "versions", "commit"} <= part["setting"].keys()
        assert not part["setting"]["quick"], name
        assert all(abs(check["z"]) < load("timing").LARGEST for check in part["checks"])
        for group in part["groups"]:
            for c in group["contestants"]:
                assert c["median"] == pytest.approx(np.median(c["seconds"]), rel=1e-3)
                reference = np.array(group["contestants"][0]["seconds"])
                assert c["ratio"] == pytest.approx(np.median(np.array(c["seconds"]) / reference), rel=1e-3)


def test_tables_hold_what_was_measured(results: dict[str, Any], load: Load) -> None:
    report = load("report")
    for name, part in results["parts"].items():
        text = report.table(results, name)
        for group in part["groups"]:
            assert group["label"] in text or name == "memory"
            assert all(c["name"] in text for c in group["contestants"])
    group = results["parts"]["escape-mode"]["groups"][0]
    ours, peer, factor = report.ahead(group)
    best = {side: min(c["median"] for c in group["contestants"] if c["ours"] is side) for side in (True, False)}
    assert math.isclose(factor, best[False] / best[True], rel_tol=0.5)  # rounds are paired, so not to the digit
    assert ours in report.headlines(results)
    assert peer in report.headlines(results)


def test_the_figure_names_everybody(results: dict[str, Any], load: Load) -> None:
    fig = load("report").figure(results)
    shown = {text.get_text() for ax in fig.axes for text in ax.get_yticklabels()}
    assert {"kramers_grok", "torch loop", "torch.optim, one replica at a time"} <= shown


# ---------------------------------------------------------------- the ratios that are tracked


def test_a_ratio_that_fell_is_named(load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracked = load("tracked")

    def record(numpy: float) -> str:
        entries = [("test_numpy_sum", numpy), ("test_library_sum", 1.0), ("test_library_alone", 1.0)]
        listed = [{"group": name.split("_")[-1], "name": name, "stats": {"min": t}} for name, t in entries]
        return json.dumps({"benchmarks": listed})

    new, kept = tmp_path / "new.json", tmp_path / "kept.json"
    new.write_text(record(8.0), encoding="utf-8")
    assert tracked.main([str(new), "--keep", str(kept)]) == 0
    assert json.loads(kept.read_text(encoding="utf-8")) == {"sum": 8.0}
    new.write_text(record(6.0), encoding="utf-8")
    assert tracked.main([str(new), "--against", str(kept)]) == 0
    new.write_text(record(4.0), encoding="utf-8")
    assert tracked.main([str(new), "--against", str(kept)]) == 1
    assert "slower than before, relative to numpy: sum" in capsys.readouterr().out


def test_no_step_is_faster_than_its_noise(results: dict[str, Any], load: Load) -> None:
    floors = load("report").drawing(results)
    assert {floor.noise for floor in floors} == {"double", "single"}
    for floor in floors:
        assert 1 < floor.ours < floor.peer, floor
