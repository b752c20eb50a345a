import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn

from kramers_grok.core.exceptions import InvalidParameterError, UncertifiedError
from kramers_grok.landscape import flow
from kramers_grok.landscape.flow import follow
from kramers_grok.landscape.points import classify, find_minima, find_minimum
from kramers_grok.landscape.surface import Surface
from kramers_grok.models.activations import GELU
from kramers_grok.models.base import SymbolicModel
from kramers_grok.models.data import finite
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.mlp import MLP
from kramers_grok.models.module import ModuleModel


@pytest.mark.parametrize("limit", [flow.FLOW_LIMIT, 0], ids=["whole Hessians", "Krylov spaces"])
def test_the_flow_ends_where_a_stiff_integrator_does(
    small_tanh: MLP, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An optimiser's line search would end in another basin from some of these starts.
    monkeypatch.setattr(flow, "FLOW_LIMIT", limit)
    surface = Surface(small_tanh)
    rng = np.random.default_rng(3)
    ends = []
    for scale in (0.9, 0.9, 0.4, 0.4)[:: 2 if limit == 0 else 1]:
        start = scale * rng.normal(size=surface.size)
        ours = follow(surface, start, tolerance=1e-10)
        exact = solve_ivp(lambda _, x: -surface.gradient(x), (0, 500), start, method="LSODA", rtol=1e-6, atol=1e-9)
        assert ours.converged
        np.testing.assert_allclose(ours.end, exact.y[:, -1], atol=1e-4)
        ends.append(ours.end)
    # or every way would be right
    assert min(np.linalg.norm(a - b) for i, a in enumerate(ends) for b in ends[:i]) > 0.1


@pytest.mark.parametrize("limit", [flow.FLOW_LIMIT, 0])
def test_energy_falls_all_the_way(small_tanh: MLP, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "FLOW_LIMIT", limit)
    surface = Surface(small_tanh)
    way = follow(surface, np.full(surface.size, 0.7), tolerance=1e-10)
    assert (np.diff(surface.energies(way.points)) <= 1e-14).all()


def test_minimum_to_rounding_and_its_spectrum() -> None:
    network = DeepLinearNetwork((2, 3, 3, 2), [[0.0, 1.0], [2.0, 0.0]], weight_decay=0.1)
    state = network.theory.state(2)
    start = network.embed(state) + 0.05 * torch.from_numpy(np.random.default_rng(0).normal(size=network.n_parameters))
    found = find_minimum(network, start)
    assert found.kind == "minimum"
    assert found.gradient_norm <= 1e-10
    assert (found.n_zero_modes, found.n_unexplained) == (state.n_zero_modes, 0)
    np.testing.assert_allclose(found.spectrum, state.spectrum, rtol=1e-8)
    assert found.log_determinant == pytest.approx(np.log(state.spectrum).sum(), rel=1e-10)
    # Every zero mode is one of the rotations'
    moved = Surface(network).products(found.theta, found.zero_modes)
    assert np.abs(moved).max() < 1e-7


def test_a_symmetric_start_does_not_end_at_a_saddle(two_channels: SymbolicModel) -> None:
    # On the line x = 0 the flow ends at the saddle (0, 1/√2).
    found = find_minimum(two_channels, [0.0, 0.3])
    assert found.kind == "minimum"
    np.testing.assert_allclose(np.abs(found.theta), [1, 0], atol=1e-9)


def test_kinds(two_channels: SymbolicModel, mexican_hat: SymbolicModel) -> None:
    top, side = classify(two_channels, [0.0, 0.0]), classify(two_channels, [0.0, 0.5**0.5])
    assert (top.kind, side.kind) == ("saddle of index 2", "saddle")
    np.testing.assert_allclose(side.spectrum, [-2, 4])
    ring = find_minimum(mexican_hat, [0.3, 0.4])
    assert (ring.kind, ring.n_zero_modes, ring.n_unexplained) == ("degenerate", 1, 1)
    assert not ring.is_minimum


def test_a_zero_mode_of_a_module_without_weight_decay_is_unexplained() -> None:
    with torch.random.fork_rng(devices=[]):
        module = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    model = ModuleModel(module, data=finite([1.0, -1.0], [1.0, -1.0]), weight_decay=0.0)
    found = find_minimum(model, [0.5, 1.0])  # on the hyperbola of products 1
    assert found.theta.prod() == pytest.approx(1)
    assert found.kind == "degenerate"


def test_minima_of_a_network_count_once(small_tanh: MLP) -> None:
    found = find_minima(small_tanh, n_starts=12, seed=0)
    assert [point.kind for point in found] == ["minimum"] * 2
    assert found[0].energy < found[1].energy
    assert np.abs(found[1].theta).max() < 1e-9  # the zero state
    again = find_minima(small_tanh, n_starts=12, seed=0)
    assert [p.energy for p in again] == [p.energy for p in found]


class Kinked:
    """|θ| + θ/2: the minimum is where the gradient jumps."""

    n_parameters = 1

    def energy(self, theta: torch.Tensor) -> torch.Tensor:
        return (theta.relu() + (-theta).relu() + theta / 2).sum(dim=-1)

    def gradient(self, theta: torch.Tensor) -> torch.Tensor:
        return torch.sign(theta) + 0.5 + 0 * theta

    def order_parameters(self, theta: torch.Tensor) -> torch.Tensor:
        return theta


def test_at_a_kink_the_search_says_so() -> None:
    with pytest.raises(UncertifiedError, match=r"kink of the energy \(ReLU\)") as caught:
        find_minimum(Kinked(), np.array([0.3]))
    assert caught.value.result.gradient_norm == pytest.approx(1.5, abs=1.01)


def test_shapes_are_checked(small_tanh: MLP) -> None:
    with pytest.raises(InvalidParameterError, match=r"`start` has shape \(3, 10\), expected \(10,\)"):
        find_minimum(small_tanh, np.zeros((3, 10)))
    with pytest.raises(InvalidParameterError, match="`n_starts`"):
        find_minima(small_tanh, n_starts=0, seed=0)


def test_the_unlearned_state_is_found_once() -> None:
    # Its weights are 0 up to rounding, and no two roundings are copies of each other.
    x = np.random.default_rng(0).normal(size=(8, 2))
    gelu = MLP.from_data(finite(x, x[:, :1]), (2, 2), GELU(), weight_decay=0.3)
    found = find_minima(gelu, n_starts=12, seed=0, scale=0.5)
    assert [np.linalg.norm(point.theta) < 1e-6 for point in found].count(True) == 1
