"""Modular addition, small: the late jump comes by itself, at a time that minibatches do not change; zero is a trap.

Exit times are tested against exponential ones: a false alarm about an escape has probability 1e-5. Sixteen times whose
logarithms scatter by 0.2, as measured, are refused at that level practically always; of a rate that is right the test
says nothing else.
"""

from functools import cache

import numpy as np
import pytest
import torch
import xarray as xr

import kramers_grok as kg
from kramers_grok.analysis.censored import ExitTimes
from kramers_grok.analysis.hypotheses import exponentiality_test
from kramers_grok.analysis.law_choice import choose_law
from kramers_grok.models.activations import Quadratic
from kramers_grok.models.data import FiniteData, modular_addition
from kramers_grok.models.mlp import MLP

TRAIN, TEST = modular_addition(11, 0.8, seed=0)
REPLICAS, ALARM = 16, 1e-5


@cache
def network(seen: FiniteData = TEST) -> MLP:
    """m is 0 for the zero function and 1 for the labels of the pairs that are looked at."""
    mlp = MLP.from_data(TRAIN, (48,), Quadratic(), weight_decay=4e-3)
    return mlp.between_functions(0.0 * seen.y, seen.y, data=seen)


def starts(scale: float) -> np.ndarray:
    return scale * np.random.default_rng(1).normal(size=(REPLICAS, network().n_parameters))


@cache
def delays(batch_size: int | None) -> xr.Dataset:
    process = kg.SGD(network(), TRAIN, lr=1.0 if batch_size is None else 0.5, batch_size=batch_size)
    return kg.first_passage(
        process, target=kg.Region(0.5), n_replicas=REPLICAS, max_time=2500.0, seed=3, start=starts(0.2)
    )


def test_the_order_parameter_is_that_of_pairs_never_seen() -> None:
    theta = torch.from_numpy(starts(0.2))
    outputs = network().forward(theta, torch.from_numpy(TEST.x)[None]).numpy()
    m = (outputs * TEST.y).sum(axis=(1, 2)) / (TEST.y**2).sum()
    np.testing.assert_allclose(network().order_parameters(theta).numpy()[:, 0], m, atol=1e-12)


def test_test_pairs_are_learned_long_after_the_train_pairs() -> None:
    """Without any noise, in every replica."""
    process = kg.SGD(network(TRAIN), TRAIN, lr=1.0)
    train = kg.first_passage(
        process, target=kg.Region(0.5), n_replicas=REPLICAS, max_time=2500.0, seed=3, start=starts(0.2)
    )
    assert bool(train.escaped.all() & delays(None).escaped.all())
    assert float((delays(None).exit_time / train.exit_time).min()) > 3


def test_the_delay_is_no_escape() -> None:
    """Neither its scatter nor its dependence on the noise is that of one."""
    sizes = (None, 16, 8, 4)
    runs = [delays(size) for size in sizes]
    for run in runs:
        assert exponentiality_test(run).p_value < ALARM
    noise = [0.0 if size is None else 0.5 / size for size in sizes]
    choice = choose_law(ExitTimes.of_runs(runs, x=noise), seed=0)
    assert choice.verdict == "deterministic"
    assert choice.noise_free == 1.0
    # Over a factor of 4 in the noise the same times to 20 %; an Arrhenius law with one barrier height at B = 4 has e³.
    logs = [float(np.log(run.exit_time).mean()) for run in runs]
    assert np.ptp(logs) < 0.2


def test_zero_weights_are_a_trap() -> None:
    """The control: in the same network, times of an escape that needs noise pass the test that the delays fail."""
    fallen = kg.first_passage(
        kg.SGD(network(TRAIN), TRAIN, lr=1.0), target=kg.Region(0.5), n_replicas=REPLICAS, max_time=2000.0, seed=3,
        start=starts(0.02),
    )  # fmt: skip
    assert not fallen.escaped.any()
    noisy = kg.SGD(network(TRAIN), TRAIN, lr=8.0, noise=kg.per_sample(temperature=1.2e-6))
    left = kg.first_passage(noisy, target=kg.Region(0.015), n_replicas=24, max_time=3e4, seed=3)
    assert left.escaped.sum() >= REPLICAS
    assert exponentiality_test(left, burn_in=1000.0).p_value > ALARM  # after four relaxation times


@pytest.mark.parametrize("batch_size", [1, 8])
def test_minibatches_alone_never_leave_zero(batch_size: int) -> None:
    """No sample has a gradient there: quadratic units are absorbing."""
    process = kg.SGD(network(), TRAIN, lr=1.0, batch_size=batch_size)
    state, _ = process.advance(process.start(4, seed=0), 50)
    assert not state.theta.any()
