"""What a study is expected to take: predicted escapes against theory, work against runs, words."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.studies.escape.estimates import Estimate, cell_key, duration, estimate, size
from kramers_grok.studies.escape.outlook import n_parameters, outlook
from kramers_grok.studies.escape.plan import plan_for
from kramers_grok.studies.escape.setup import Setup
from kramers_grok.studies.escape.study import EscapeStudy
from kramers_grok.studies.running.cells import Cell
from kramers_grok.theory.deep_linear import spinodal
from kramers_grok.theory.minibatch import minibatch_log_factor
from kramers_grok.theory.radial import radial_rate
from kramers_grok.theory.rates import eyring_kramers_rate
from kramers_grok.theory.saddles import MatrixNetwork


def system(kind: str, depth: int = 3, sigma: float = 1.0, share: float = 0.5, **more: Any) -> dict[str, Any]:
    """A system at a share of its spinodal weight decay."""
    decay = float(share * spinodal(depth, sigma))
    return {"kind": kind, "depth": depth, "singular_value": sigma, "weight_decay": decay, **more}


def config(engine: str, moves: Mapping[str, Any], noise: Mapping[str, Any], **run: Any) -> dict[str, Any]:
    full: dict[str, Any] = {"engine": engine, "system": dict(moves), "noise": dict(noise)}
    if engine == "langevin":
        full["langevin"] = {"dt": 0.1, "integrator": "fused"}
    if engine == "sgd":
        full["sgd"] = {"lr": 0.1, "batch_size": 50, "label_noise": 0.1}
    if engine != "theory":
        usual = {"method": "auto", "replicas": 1024, "precision": None, "max_replicas": None, "horizon": 10.0}
        full |= {"run": usual | {"confidence": 0.95} | run, "seed": 0}
    return full


def nothing(config: Mapping[str, Any], *, seed: int) -> Any:
    raise NotImplementedError


def estimated(configs: list[dict[str, Any]], **options: Any) -> Estimate:
    return estimate([Cell(c["engine"], c, nothing) for c in configs], **options)


# ---------------------------------------------------------------- outlook

SYSTEMS = [
    system("mode"),
    system("mode", depth=4, sigma=1.6),
    system("chain", sigma=0.7),
    system("chain", depth=5, share=0.8),
    system("network", width=3, sigma=1.5),
    system("network", width=2, depth=4, sigma=0.6),
    system("network", width=1, share=0.3),
]


@pytest.mark.parametrize("moves", SYSTEMS, ids=lambda s: f"{s['kind']}-{s['depth']}")
def test_outlook_is_the_theory_s_own_leading_order(moves: dict[str, Any]) -> None:
    low = 8.0 if moves["kind"] == "network" else 4.0  # below, width melts the trap
    configs = [config(e, moves, {"barrier_over_temperature": x}) for e in ("theory", "sgd") for x in (low, 15.0)]
    ahead = outlook(configs)
    for i, one in enumerate(configs):
        setup = Setup(one)
        rate = eyring_kramers_rate(setup.barrier, setup.temperature, warn=False)
        if moves["kind"] == "network":  # the radial free energy knows what width does
            rate = radial_rate(setup.system.theory, setup.temperature, warn=False)
        expected = rate.mean_time
        if setup.minibatch is not None:
            mode = setup.system.mode if moves["kind"] == "chain" else setup.system
            mode = setup.system.theory.mode() if moves["kind"] == "network" else mode
            expected *= math.exp(-minibatch_log_factor(mode, setup.temperature, setup.minibatch))
        assert ahead.mean[i] == pytest.approx(expected, rel=1e-9)
        assert ahead.temperature[i] == pytest.approx(setup.temperature, rel=1e-12)


def test_parameters_that_move() -> None:
    assert n_parameters(system("mode", depth=5)) == 1
    assert n_parameters(system("chain", depth=5)) == 5
    assert n_parameters(system("network", depth=4, width=3)) == MatrixNetwork((1, 3, 3, 3, 1), (1.0,), 0.1).n_parameters


def test_networks_between_the_anchors() -> None:
    # 200 weight decays share the rates of 16
    moves = [system("network", width=4, sigma=1.3, share=float(s)) for s in np.linspace(0.02, 0.95, 200)]
    found = outlook([config("theory", m, {"barrier_over_temperature": 9.0}) for m in moves]).mean
    for i in (0, 7, 100, 199):
        alone = outlook([config("theory", moves[i], {"barrier_over_temperature": 9.0})]).mean[0]
        assert found[i] == pytest.approx(alone, rel=0.05)


def test_what_stands_in_the_way_is_said() -> None:
    noise = {"barrier_over_temperature": 5.0}
    steep = config("langevin", system("mode"), noise)
    steep["langevin"]["dt"] = 2.0 / steep["system"]["weight_decay"]
    configs = [
        config("langevin", system("mode"), noise),
        config("langevin", system("mode", share=1.01), noise),
        config("theory", {**system("chain", depth=3), "depth": 2}, {"temperature": 0.1}),
        steep,
        config("sgd", system("chain"), {"std": 0.0}),
    ]
    assert outlook(configs).status == ["", "no barrier", "no barrier", "diverged", "not predicted"]


def test_numbers_from_one_end_of_floating_point_to_the_other() -> None:
    extremes = (1e-30, 1e-8, 1.0, 1e8, 1e30)  # the largest and smallest that a declaration takes
    noises: list[dict[str, float]] = [{"temperature": 1e-30}, {"temperature": 1e30}, {"std": 1e30}]
    noises += [{"barrier_over_temperature": 1e-30}, {"barrier_over_temperature": 1e30}]
    for kind in ("mode", "chain"):
        for depth in (3, 4, 64):
            moves = [
                {"kind": kind, "depth": depth, "singular_value": s, "weight_decay": w}
                for s, w in itertools.product(extremes, extremes)
            ]
            found = estimated([config("sgd", m, noise) for m in moves for noise in noises])
            assert all(e.seconds > 0 and math.isfinite(e.seconds) and math.isfinite(e.memory) for e in found.expected)
            assert found.text()


def test_a_network_too_large_to_plan_for_is_taken_as_a_chain() -> None:
    noise = {"barrier_over_temperature": 9.0}
    large, chain = outlook(
        [config("theory", system("network", width=4096), noise), config("theory", system("chain"), noise)]
    ).mean
    assert large == chain


# ---------------------------------------------------------------- work


@pytest.mark.parametrize("moves", [system("chain", depth=4), system("network", width=3)], ids=["chain", "network"])
def test_the_method_is_the_one_that_will_be_chosen(moves: dict[str, Any]) -> None:
    chosen = set()
    for engine in ("langevin", "sgd"):
        for x in (2.0, 5.0, 8.0, 11.0, 16.0):
            one = config(engine, moves, {"barrier_over_temperature": x})
            (expected,) = estimated([one]).expected
            assert expected.method == plan_for(Setup(one), one["run"]).method
            chosen.add(expected.method)
    assert chosen == {"brute force", "splitting"}


def test_replicas_for_a_precision() -> None:
    noise = {"barrier_over_temperature": 5.0}

    def replicas(**run: Any) -> float:
        return estimated([config("langevin", system("mode"), noise, replicas=None, **run)]).expected[0].replicas

    at_five = replicas(precision=0.05, max_replicas=10**6)
    assert at_five == pytest.approx(1.4 * (1.96 / 0.05) ** 2, rel=1e-3)
    assert replicas(precision=0.1, max_replicas=10**6) == pytest.approx(at_five / 4)
    assert replicas(precision=0.05, max_replicas=1000) == 1000


def test_work_is_what_runs_take() -> None:
    from kramers_grok.studies.escape.cells import simulate

    configs = [
        config("langevin", system("mode"), {"barrier_over_temperature": 4.0}, method="brute force", replicas=128),
        config("langevin", system("mode"), {"barrier_over_temperature": 12.0}, method="splitting", replicas=64),
        config("sgd", system("network", width=2), {"barrier_over_temperature": 14.0}, method="splitting", replicas=64),
    ]
    for one, expected in zip(configs, estimated(configs).expected, strict=True):
        steps = float(simulate(one, seed=3).replica_steps)
        assert 0.5 < expected.replica_steps / steps < 2, (one["engine"], expected, steps)


# ---------------------------------------------------------------- the whole


def study() -> EscapeStudy:
    return EscapeStudy(
        system={"weight_decay": [0.2, 0.25, 0.6]}, noise={"barrier_over_temperature": [4, 6]},
        sgd={"lr": 0.1, "batch_size": 8},
    )  # fmt: skip


def test_workers_share_the_work_but_not_a_cell() -> None:
    cells = study().cells()
    one, two, many = (estimate(cells, workers=n) for n in (1, 2, 100))
    assert one.work == two.work == many.work
    longest = max(e.seconds for e in one.expected)
    assert one.seconds == pytest.approx(one.work, abs=6)
    assert two.seconds == pytest.approx(one.work / 2, abs=6)
    assert many.seconds == pytest.approx(longest, abs=6)
    assert one.memory < two.memory < many.memory


def test_finished_cells_count_no_more_and_correct_the_others() -> None:
    cells = study().cells()
    before = estimate(cells)
    slow = [i for i, c in enumerate(cells) if c.name == "langevin" and not before.expected[i].status]
    measured = {cell_key(cells[i]): 10 * before.expected[i].seconds for i in slow[:2]}
    after = estimate(cells, measured=measured)
    assert sum(after.finished) == 2
    assert after.corrections == {"langevin, chain": pytest.approx(10.0)}
    for i, cell in enumerate(cells):
        factor = 10 if cell.name == "langevin" else 1
        assert after.expected[i].seconds == pytest.approx(factor * before.expected[i].seconds)
    assert "2 of them finished" in after.text()
    assert "corrected by the cells that are finished" in after.text()


def test_nothing_is_learned_from_cells_that_had_nothing_to_do() -> None:
    cells = study().cells()
    without = [c for c, e in zip(cells, estimate(cells).expected, strict=True) if e.status]
    found = estimate(cells, measured={cell_key(c): 1.0 for c in without})
    assert found.corrections == {}
    assert sum(found.finished) == len(without) == 6


def test_words() -> None:
    found = estimate(study().cells(), workers=2)
    text = found.text()
    assert text.startswith("18 cells; about ")
    assert "with 2 workers" in text
    assert "good to a factor of about 3" in text
    assert "6 cells: no barrier at these parameters" in text
    everything = {cell_key(c): 1.0 for c in found.cells}
    assert estimate(found.cells, measured=everything).text() == "18 cells, 18 of them finished: nothing to compute."
    mapping = found.as_mapping()
    assert json.loads(json.dumps(mapping)) == mapping
    assert mapping["cells"] == 18
    assert mapping["expected"] == {"no barrier": 6, "diverged": 0, "not predicted": 0}


def test_long_cells_are_named() -> None:
    long = EscapeStudy(
        system={"weight_decay": 0.2}, noise={"barrier_over_temperature": 14}, engines=["langevin"],
        run={"method": "brute force"},
    )  # fmt: skip
    assert "The longest cell takes about" in estimate(long.cells()).text()


def test_workers_are_counted_in_whole_numbers() -> None:
    with pytest.raises(InvalidParameterError, match="workers"):
        estimate([], workers=0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (119, "119 s"), (150, "2.5 min"), (7300, "2 h"), (864_000, "10 days"), (1e12, "1e+07 days")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("amount", "text"), [(1e6, "1 MB"), (2.46e9, "2.5 GB"), (3e12, "3,000 GB")])
def test_sizes(amount: float, text: str) -> None:
    assert size(amount) == text


def test_a_melted_trap_has_no_predicted_time() -> None:
    melted = config("langevin", system("network", depth=4, width=8), {"barrier_over_temperature": 10.0})
    assert math.isinf(outlook([melted]).mean[0])
    assert estimated([melted]).expected[0].method == "brute force"
