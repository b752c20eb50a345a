"""Barriers of networks whose inputs are not white, against the white theory, autograd-free Hessians and simulations."""

from __future__ import annotations

import numpy as np
import pytest

from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.feature_network import FeatureNetwork
from kramers_grok.theory.rates import eyring_kramers_rate
from kramers_grok.theory.saddles import MatrixNetwork

Q = np.array([1.5, 1.0, 0.25])
DECAY = 0.0625


def samples(n: int = 6, variances: np.ndarray = Q, seed: int = 0) -> np.ndarray:
    """Inputs whose second moments are exactly diag(variances)."""
    left, _, _ = np.linalg.svd(np.random.default_rng(seed).normal(size=(n, len(variances))), full_matrices=False)
    return np.asarray(np.sqrt(n) * left * np.sqrt(variances))


def autoencoder(hidden: tuple[int, ...] = (3, 3), decay: float = DECAY) -> FeatureNetwork:
    return FeatureNetwork(np.diag(Q), np.diag(Q), hidden, decay)


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("widths", [(3, 4, 4, 3), (5, 3, 4, 3)])
def test_white_inputs_give_the_white_theory(rank: int, widths: tuple[int, ...]) -> None:
    """Blocks in closed form there, the Hessian of the whole network here; orbits are shared."""
    matrix = np.zeros((widths[-1], widths[0]))
    matrix[:3, :3] = np.diag([2.0, 1.0, 0.5])
    ours = FeatureNetwork(np.eye(widths[0]), matrix, widths[1:-1], 0.15).barrier(rank)
    theirs = MatrixNetwork(widths, (2.0, 1.0, 0.5), 0.15).barrier(rank)
    assert ours.height == pytest.approx(theirs.height, rel=1e-12)
    for name in ("minimum_spectrum", "saddle_spectrum", "minimum_order_parameters", "saddle_order_parameters"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9, atol=1e-12)
    assert ours.log_volume_ratio == pytest.approx(theirs.log_volume_ratio, abs=1e-12)
    assert (ours.spare_units, ours.trap_widening) == (theirs.spare_units, pytest.approx(theirs.trap_widening))


def test_one_feature_without_others_is_the_chain() -> None:
    network = FeatureNetwork([[0.25]], [[0.25]], (1, 1), DECAY)
    assert network.log_slowing(0) == pytest.approx(0.0, abs=1e-12)
    chain = DeepLinearChain(3, 1.0, DECAY, 0.25)
    for temperature in (1e-4, 1e-9):  # the second one underflows
        rate = eyring_kramers_rate(network.barrier(0), 1e-4, warn=False)
        assert rate.value == pytest.approx(eyring_kramers_rate(chain.barrier(), 1e-4, warn=False).value, rel=1e-10)
        assert network.log_slowing(0, temperature=temperature) == pytest.approx(0.0, abs=1e-10)


def test_results_do_not_depend_on_the_basis_of_the_data() -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    x = samples()
    turned = FeatureNetwork(turn @ np.diag(Q) @ turn.T, turn @ np.diag(Q) @ turn.T, (3, 3), DECAY)
    assert turned.log_slowing(2) == pytest.approx(autoencoder().log_slowing(2), abs=1e-9)
    assert turned.heating(2, x @ turn.T, x @ turn.T) == pytest.approx(autoencoder().heating(2, x, x), rel=1e-6)


def test_heating_is_that_of_the_simulated_network() -> None:
    """Measured with 128 replicas each by a loop of its own: 1.04 ± 0.13 at B = 5, 1.63 ± 0.20 at B = 2 (η = 0.2)."""
    x = samples()
    temperature = autoencoder().mode(2).barrier().height / 3
    factors = [np.exp(0.2 / batch * (6 - batch) / 5 * autoencoder().heating(2, x, x) / temperature) for batch in (5, 2)]
    assert factors == pytest.approx([1.051, 1.640], abs=1e-3)


def test_a_learning_time_is_the_product_of_its_parts() -> None:
    x = samples()
    temperature = autoencoder().mode(2).barrier().height / 3
    plain = autoencoder().learning_time(2, temperature=temperature, step=0.2)
    heated = autoencoder().learning_time(2, temperature=temperature, step=0.2, data=(x, x), lr_over_batch=0.02)
    assert plain.heating == 1.0
    assert heated.slowing == plain.slowing
    assert heated.heating > 1.05
    assert heated.mean == pytest.approx(heated.chain * heated.slowing * heated.heating)
    assert plain.mean == pytest.approx(1252.0, rel=0.01)  # 1257 ± 111 measured with 128 replicas


def test_no_next_feature_and_features_that_couple() -> None:
    with pytest.raises(NoBarrierError, match="there is no next"):
        autoencoder().barrier(3)
    with pytest.raises(NoBarrierError, match="weight_decay"):
        autoencoder(decay=0.2).barrier(2)
    with pytest.raises(InvalidParameterError, match="not white and do not share"):
        FeatureNetwork([[1.0, 0.3], [0.3, 0.5]], [[1.0, 0.0], [0.0, 0.5]], (2, 2), 0.1)
    with pytest.raises(InvalidParameterError, match="at least two widths"):
        FeatureNetwork(np.eye(2), np.eye(2), (2,), 0.1)
