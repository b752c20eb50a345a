"""Chains side by side are chains: energies, gradients, states, and paths in every engine."""

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.dynamics.langevin import Fused, Langevin
from kramers_grok.models.base import BatchModel, SymbolicModel
from kramers_grok.models.data import finite
from kramers_grok.models.deep_linear import ChainModel
from kramers_grok.models.diagonal import DiagonalNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain

Array = NDArray[np.float64]
SIGMA, Q, DECAY = np.array([1.4, 2.0, 0.8]), np.array([0.7, 1.0, 1.6]), 0.15
NETWORK = DiagonalNetwork(4, SIGMA, weight_decay=DECAY, input_variances=Q)
CHAINS = [ChainModel(DeepLinearChain(4, s, DECAY, q)) for s, q in zip(SIGMA, Q, strict=True)]


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def test_a_diagonal_network_is_its_chains() -> None:
    theta = normal(0, 6, 12)
    parts = theta.split(4, dim=1)
    assert isinstance(NETWORK, BatchModel)
    torch.testing.assert_close(NETWORK.energy(theta), sum(c.energy(p) for c, p in zip(CHAINS, parts, strict=True)))
    for name in ("gradient", "order_parameters"):
        together = torch.cat([getattr(c, name)(p) for c, p in zip(CHAINS, parts, strict=True)], dim=1)
        torch.testing.assert_close(getattr(NETWORK, name)(theta), together, rtol=1e-12, atol=1e-12)
    assert NETWORK.mode(1) == CHAINS[1].chain.mode


def test_the_batch_gradient_is_autograd_of_the_batch_loss() -> None:
    """Inputs correlated, labels any: sample by sample with the map diag(m)."""
    theta = normal(0, 5, 12).requires_grad_(True)
    x, y = normal(1, 5, 7, 3) @ normal(2, 3, 3), normal(3, 5, 7, 3)
    m = theta.reshape(5, 3, 4).prod(dim=2)
    loss = 0.5 * ((y - x * m.unsqueeze(1)) ** 2).sum(dim=2).mean(dim=1) + 0.5 * DECAY * (theta**2).sum(dim=1)
    (expected,) = torch.autograd.grad(loss.sum(), theta)
    xx, yx = x.transpose(1, 2) @ x / 7, y.transpose(1, 2) @ x / 7
    torch.testing.assert_close(NETWORK.batch_gradient(theta, xx, yx), expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(NETWORK.data_gradient(theta, xx, yx), expected - DECAY * theta, rtol=1e-11, atol=1e-11)
    # population moments shared by all replicas
    xx, yx = (torch.from_numpy(m)[None] for m in (np.diag(Q), np.diag(Q * SIGMA)))
    torch.testing.assert_close(NETWORK.batch_gradient(theta, xx, yx), NETWORK.gradient(theta), rtol=1e-12, atol=1e-12)


def test_the_landscape_is_the_models() -> None:
    symbolic, theta = SymbolicModel(NETWORK.landscape), normal(4, 5, 12)
    for name in ("energy", "gradient", "order_parameters"):
        torch.testing.assert_close(
            getattr(symbolic, name)(theta), getattr(NETWORK, name)(theta), rtol=1e-12, atol=1e-12
        )


def test_every_set_of_features_is_a_minimum() -> None:
    """2^K of them, by the Hessian of the landscape; and nothing else has the count."""
    assert NETWORK.number_of_states() == 8
    for count in range(4):
        for chosen in itertools.combinations(range(3), count):
            theta = NETWORK.ordered_state(chosen)
            assert float(NETWORK.gradient(theta[None]).abs().max()) < 1e-12
            assert np.linalg.eigvalsh(NETWORK.landscape.hessian_at(theta.numpy()))[0] > 0.01
            learned = NETWORK.order_parameters(theta[None])[0] > 0
            assert learned.nonzero().squeeze(1).tolist() == list(chosen)
    assert DiagonalNetwork(3, [2.0, 0.1], weight_decay=0.1).number_of_states() == 2
    assert DiagonalNetwork(2, [2.0, 1.0], weight_decay=0.1).number_of_states() == 1


def test_compiled_paths_are_torchs() -> None:
    def end(compiled: bool) -> Tensor:
        process = Langevin(NETWORK, temperature=0.02, dt=0.05, integrator=Fused(compiled=compiled), device="cpu")
        return process.advance(process.start(20, seed=3, point=np.full(12, 0.5)), 40)[0].theta

    torch.testing.assert_close(end(True), end(False), rtol=1e-10, atol=1e-12)


def test_a_network_from_data() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3))
    y = x * [2.0, 1.0, 0.5] + 0.1 * rng.normal(size=(50, 3))
    network = DiagonalNetwork.from_data(finite(x, y), 3, weight_decay=0.1)
    np.testing.assert_allclose(network.input_variances, (x**2).mean(axis=0))
    np.testing.assert_allclose(network.singular_values, (x * y).mean(axis=0) / (x**2).mean(axis=0))
    with pytest.raises(InvalidParameterError, match=r"3 inputs and 2 outputs.*\n.*DeepLinearNetwork"):
        DiagonalNetwork.from_data(finite(x, y[:, :2]), 3, weight_decay=0.1)
    with pytest.raises(InvalidParameterError, match=r"mean x·y = -.* along an axis"):
        DiagonalNetwork.from_data(finite(x, -y), 3, weight_decay=0.1)


def test_dtypes_are_kept() -> None:
    narrow = torch.full((2, 12), 0.9, dtype=torch.float32)
    for name in ("energy", "gradient", "order_parameters"):
        value = getattr(NETWORK, name)(narrow)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), getattr(NETWORK, name)(narrow.double()), rtol=1e-5, atol=1e-5)


def test_bad_diagonal_networks() -> None:
    for keywords, message in (
        ({"input_variances": [1.0, 1.0]}, r"`input_variances` has shape \(2,\), expected one number or one for each"),
        ({"input_variances": -1.0}, "`input_variance` = -1.0"),
        ({"weight_decay": 0.0}, "`weight_decay` = 0.0"),
        ({"depth": 1}, "`depth` = 1"),
        ({"singular_values": [1.0, 0.0, 1.0]}, "`singular_value` = 0.0"),
    ):
        arguments = {"depth": 3, "singular_values": SIGMA, "weight_decay": 0.1} | keywords
        with pytest.raises(InvalidParameterError, match=message):
            DiagonalNetwork(**arguments)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match=r"variances from 0\.7 to 1\.6"):
        _ = NETWORK.input_variance
    assert DiagonalNetwork(3, [1.0, 2.0], weight_decay=0.1).input_variance == 1.0
    with pytest.raises(InvalidParameterError, match="`features` = 3"):
        NETWORK.ordered_state([3])
