"""Rungs of a numerical barrier, and the budgets and comparisons that take one."""

import math

import numpy as np
import pytest

import kramers_grok as kg
from kramers_grok.analysis.budget import BUDGET_COLUMNS, error_budget
from kramers_grok.analysis.compare import compare
from kramers_grok.analysis.ladder import Setting, ladder
from kramers_grok.analysis.numerical_ladder import numerical_ladder
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.region import Region, beyond
from kramers_grok.core.schema import exit_dataset
from kramers_grok.landscape.barriers import find_barrier
from kramers_grok.landscape.numerical_barrier import NumericalBarrier
from kramers_grok.landscape.potential_theory.capacity import capacity_rate
from kramers_grok.landscape.potential_theory.path_noise import path_log_factor
from kramers_grok.models.activations import Identity
from kramers_grok.models.base import SymbolicModel
from kramers_grok.models.data import linear_teacher_data
from kramers_grok.models.mlp import MLP
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.gradient_noise import GaussianResidualVariance, finite_population_factor
from kramers_grok.theory.minibatch import MinibatchNoise, PathNoise

CHAIN = DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)


@pytest.fixture(scope="module")
def barrier() -> NumericalBarrier:
    known = CHAIN.barrier()
    return find_barrier(SymbolicModel(CHAIN.landscape), known.minimum, known.destination, n_paths=1)


@pytest.fixture(scope="module")
def on_data() -> NumericalBarrier:
    """The same chain as a network of single units, on data."""
    data = linear_teacher_data([[1.0]], n_samples=16, label_noise=0.3, seed=1, whiten=True)
    network = MLP.from_data(data, (1, 1), Identity(), weight_decay=0.25)
    known = network.linear.theory.barrier()
    return find_barrier(network, known.minimum, known.destination, n_paths=1)


def test_rungs_against_the_exact_ones_of_the_chain(barrier: NumericalBarrier) -> None:
    # Three dimensions, solved on a grid, in the step's first order: nothing shared but the energy.
    for fraction in (0.5, 0.15):
        target = Region(CHAIN.barrier().order_parameter_beyond(fraction))
        setting = Setting(barrier.height / 8, step=0.1, bridged=False)
        mine, exact = numerical_ladder(barrier, setting, target), ladder(CHAIN, setting, target)
        assert math.isclose(mine.asymptotic, exact.asymptotic, rel_tol=3e-3)
        tolerance = 4.4 * mine.relative_error + (0.002 if fraction == 0.5 else 0.02)
        for name in ("continuous", "stepped", "watched"):
            assert math.isclose(getattr(mine, name), getattr(exact, name), rel_tol=tolerance), (name, fraction)
        assert math.isclose(mine.stepped / mine.continuous, exact.stepped / exact.continuous, rel_tol=2e-3)
        assert 0 < mine.relative_error < 0.01
        assert mine.best == mine.made == mine.watched


def test_ladder_takes_a_barrier(barrier: NumericalBarrier) -> None:
    setting = Setting(barrier.height / 8, step=0.0, bridged=True)
    mine = ladder(barrier, setting, beyond(barrier))
    given = capacity_rate(barrier, setting.temperature, seed=5, n_samples=2**10, n_blocks=4)
    other = numerical_ladder(barrier, setting, beyond(barrier), rate=given)
    assert mine.continuous == mine.stepped == mine.watched
    assert mine.continuous != other.continuous
    assert other.relative_error == given.relative_error


def test_targets_off_the_path_are_refused(barrier: NumericalBarrier) -> None:
    setting = Setting(barrier.height / 8, step=0.0, bridged=True)
    for target in (Region(5.0), Region(0.1, above=False), Region(0.1, feature=1), Region(-1.0)):
        with pytest.raises(InvalidParameterError, match="the path from the trap"):
            numerical_ladder(barrier, setting, target)
    silent = numerical_ladder(barrier, Setting(0.0, step=0.1, bridged=True), Region(0.1))
    assert math.isnan(silent.best)
    assert "without a temperature" in silent.notes[0]


def test_noise_of_the_wrong_kind_is_refused(barrier: NumericalBarrier) -> None:
    closed = MinibatchNoise(0.01, GaussianResidualVariance(1.0))
    with pytest.raises(InvalidParameterError, match="PathNoise"):
        numerical_ladder(barrier, Setting(1e-3, 0.1, True, minibatch=closed), Region(0.1))
    with pytest.raises(InvalidParameterError, match="MinibatchNoise"):
        ladder(CHAIN, Setting(1e-3, 0.1, True, minibatch=PathNoise(0.01)), Region(0.1))


def made_run(mean: float, configuration: dict[str, object], **coords: float | str) -> "kg.xr.Dataset":  # type: ignore[name-defined]
    times = -mean * np.log1p(-(np.arange(400) + 0.5) / 400)
    return exit_dataset(
        times,
        times < 1e9,
        horizon=1e9,
        coords=coords,
        seed=0,
        dtype="float64",
        device="cpu",
        configuration=configuration,
    )


def test_budget_sums_up(barrier: NumericalBarrier) -> None:
    heat, target = barrier.height / 8, beyond(barrier)
    rungs = ladder(barrier, Setting(heat, step=0.1, bridged=False), target)
    run = made_run(1.1 * rungs.best, {"bridge": False, "engine": "langevin"}, temperature=heat, dt=0.1)
    budget = error_budget(barrier, run, target=target)
    assert math.isclose(float(budget["total_error"]), sum(float(budget[name]) for name in BUDGET_COLUMNS), rel_tol=1e-9)
    assert math.isclose(float(budget["statistical_error"]) / rungs.best, 0.1, abs_tol=0.01)
    assert math.isclose(float(budget["numerical_error"]), rungs.relative_error * rungs.best)
    table = compare(system=barrier, target=target, langevin=run)["table"]
    assert float(table["predicted_time"].sel(engine="langevin")) == rungs.best


def test_batches_of_the_own_data_are_known(on_data: NumericalBarrier) -> None:
    heat, target = on_data.height / 8, beyond(on_data)
    coords = {"temperature": heat, "dt": 0.02, "lr": 0.02, "batch_size": 4.0, "engine": "sgd"}
    quiet = ladder(on_data, Setting(heat, step=0.02, bridged=False), target).best
    factors = {"WithReplacement": 1.0, "WithoutReplacement": float(finite_population_factor(16, 4))}
    for sampler, factor in factors.items():
        run = made_run(quiet, {"bridge": False, "engine": "sgd", "sampler": sampler}, **coords)
        budget = error_budget(on_data, run, target=target)
        quicker = math.exp(path_log_factor(on_data, heat, PathNoise(0.02 / 4 * factor)))
        assert quicker > 1.005
        assert math.isclose(float(budget["predicted_time"]) * quicker, quiet, rel_tol=1e-12)
    shuffled = made_run(quiet, {"bridge": False, "engine": "sgd", "sampler": "ShuffledEpochs"}, **coords)
    budget = error_budget(on_data, shuffled, target=target)
    assert math.isnan(float(budget["minibatch_error"]))
    assert float(budget["unexplained_error"]) != 0
