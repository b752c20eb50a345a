"""Trap and release: what counts as a trap, what is recorded, and that only noise gets out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region, beyond
from kramers_grok.core.schema import validate_exit_dataset
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.protocols.trap import prepare_trap, release_seed, trap_and_release, without_noise
from kramers_grok.models.data import finite, population, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.diagonal import DiagonalNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.exit_times import exit_time

LOW, HIGH = 0.25, 0.6
CHAIN = DeepLinearChain(3, 1.0, LOW)
TARGET = beyond(CHAIN.barrier())
LEARNED = CHAIN.forgetting_barrier().minimum


def pair(ratio: float = 3.0) -> tuple[SGD, SGD]:
    """The chain above its spinodal, and released."""
    noise = per_sample(temperature=CHAIN.barrier().height / ratio)
    released = SGD(CHAIN, teacher(label_noise=0.1), lr=0.1, batch_size=16, noise=noise)
    return released.replace(model=DeepLinearChain(3, 1.0, HIGH)), released


def test_replicas_leave_the_trap_in_the_predicted_time_and_never_without_noise() -> None:
    """The mean of 512 near-exponential times: 4.5 standard errors are 1e-5, a temperature off by 10 % is 7 of them.

    Released replicas are spread as at the trap's weight decay, which shortens the mean by 3 %: part of the tolerance.
    """
    trapping, released = pair()
    mean = exit_time(CHAIN, temperature=released.temperature, target=TARGET, step=0.1, monitored=True).mean
    options: dict[str, Any] = {"trap_time": 60.0, "target": TARGET, "n_replicas": 512, "seed": 3, "start": LEARNED}
    result = trap_and_release(trapping, released, max_time=14 * mean, **options)
    assert bool(result.escaped.all())
    assert abs(float(result.exit_time.mean()) / mean - 1) < 4.5 / 512**0.5 + 0.03
    quiet = trap_and_release(trapping, without_noise(released), max_time=14 * mean, **options)
    assert not quiet.escaped.any()


def test_the_result_is_an_exit_dataset_that_knows_its_trap() -> None:
    trapping, released = pair()
    result = trap_and_release(
        trapping, released, trap_time=60.0, target=TARGET, n_replicas=8, max_time=50.0, seed=0, start=LEARNED
    )
    assert validate_exit_dataset(result).sizes["replica"] == 8
    assert float(result.trap_weight_decay) == HIGH
    assert float(result.weight_decay) == LOW
    assert float(result.trap_time) == pytest.approx(60.0)
    assert dict(result.trap_amplitude.sizes) == {"replica": 8, "layer": 3}
    assert dict(result.trap_order_parameter.sizes) == {"replica": 8, "feature": 1}
    for variable in result.variables.values():
        assert {"units", "long_name"} <= set(variable.attrs)


def test_amplitudes_are_thermal() -> None:
    """T/λ of every weight in the trap: 3 × 2048 squares of a normal number, 4.5 standard errors are 8 %."""
    trapping, _ = pair()
    trap = prepare_trap(trapping, trap_time=60.0, target=TARGET, n_replicas=2048, seed=1, start=LEARNED)
    expected = trapping.temperature / HIGH
    assert float(np.mean(trap.unused_amplitudes**2)) == pytest.approx(expected, rel=0.12)  # the data pull a little
    # The control: at another weight decay it is not
    assert abs(float(np.mean(trap.unused_amplitudes**2)) / (trapping.temperature / LOW) - 1) > 0.3


def test_a_network_keeps_its_strong_feature_and_shows_the_unused_direction_only() -> None:
    network = DeepLinearNetwork((2, 3, 3, 2), [3.0, 1.0], weight_decay=HIGH)
    process = SGD(network, population(), lr=0.05)
    start = DeepLinearNetwork((2, 3, 3, 2), [3.0, 1.0], weight_decay=0.2).ordered_state([0, 1]).numpy()
    target = Region(0.3, feature=1)
    trap = prepare_trap(process, trap_time=30.0, target=target, n_replicas=2, seed=0, start=start)
    assert trap.learned.tolist() == [True, False]
    assert trap.order_parameters[0, 0] == pytest.approx(network.mode(0).learned_amplitude() ** 3, rel=1e-6)
    longer = prepare_trap(process, trap_time=40.0, target=target, n_replicas=2, seed=0, start=start)
    # What is not learned decays as exp(−λt); channels of rank 1 would give no number for layers of one unit
    ratio = longer.unused_amplitudes / trap.unused_amplitudes
    assert ratio == pytest.approx(np.full((2, 3), np.exp(-HIGH * 10.0)), rel=0.15)


@pytest.mark.parametrize(
    "system", [Mode(3, 1.0, HIGH), DiagonalNetwork(3, [1.0], weight_decay=HIGH)], ids=["mode", "diagonal"]
)
def test_other_systems_have_amplitudes_too(system: Any) -> None:
    process = SGD(system, population(), lr=0.1)
    start = np.sqrt(3) * 0.9 * np.ones(1) if isinstance(system, Mode) else 0.9 * np.ones(3)
    trap = prepare_trap(process, trap_time=40.0, target=Region(0.3), n_replicas=1, seed=0, start=start)
    assert trap.unused_amplitudes.shape == (1, 3)
    assert trap.unused_amplitudes.max() < 1e-6


def test_a_learned_feature_is_no_trap() -> None:
    _, released = pair()
    with pytest.raises(InvalidParameterError, match=r"The trap is none: feature 0 is learned in 4 of 4 replicas"):
        prepare_trap(released, trap_time=60.0, target=TARGET, n_replicas=4, seed=0, start=LEARNED)


def test_moving_weights_are_no_trap() -> None:
    process = SGD(DeepLinearChain(3, 1.0, 0.5), population(), lr=0.1)
    with pytest.raises(InvalidParameterError, match=r"has not settled: the mean squared norm of layer 1 went from"):
        prepare_trap(process, trap_time=18.0, target=Region(0.6), n_replicas=2, seed=0, start=LEARNED)
    prepare_trap(process, trap_time=80.0, target=Region(0.6), n_replicas=2, seed=0, start=LEARNED)


def test_a_feature_that_does_not_exist() -> None:
    process = SGD(CHAIN, population(), lr=0.1)
    with pytest.raises(InvalidParameterError, match=r"target.feature"):
        prepare_trap(process, trap_time=10.0, target=Region(0.3, feature=1), n_replicas=1, seed=0)


def test_without_noise_keeps_finite_data_and_drops_their_batches() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 1))
    chain = DeepLinearChain.from_data(x, 2 * x, depth=3, weight_decay=0.2)
    quiet = without_noise(SGD(chain, finite(x, 2 * x), lr=0.05, batch_size=4, noise=per_sample(variance=0.1)))
    assert (quiet.batch_size, quiet.temperature) == (20, 0.0)
    ends = [quiet.advance(quiet.start(1, seed=s, point=[1.0, 1.0, 1.0]), 5)[0].theta for s in (0, 1)]
    assert torch.equal(*ends)


def test_release_draws_noise_of_its_own() -> None:
    seeds = {release_seed(s) for s in range(50)}
    assert len(seeds) == 50
    assert not seeds & set(range(50))
