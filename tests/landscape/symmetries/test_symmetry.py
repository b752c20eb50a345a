"""Symmetries: orbits counted and measured, copies recognised, proposals probed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.landscape.hessian import hessian
from kramers_grok.landscape.symmetries.symmetry import Symmetry, symmetry_of
from kramers_grok.landscape.symmetries.units import UnitLayer, hidden_layers
from kramers_grok.models.activations import GELU, Identity, Quadratic, ReLU, Tanh
from kramers_grok.models.chain import ChainModel
from kramers_grok.models.data import FiniteData, finite
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.mlp import MLP
from kramers_grok.models.module import ModuleModel
from kramers_grok.theory.deep_linear import DeepLinearChain

RNG = np.random.default_rng


def data(n_inputs: int = 2, n_outputs: int = 1) -> FiniteData:
    rng = RNG(5)
    return finite(rng.normal(size=(12, n_inputs)), rng.normal(size=(12, n_outputs)))


# ---------------------------------------------------------------- rotations

CASES = [((1, 2, 2, 1), (1.0,)), ((2, 3, 2, 2), (2.0, 1.0)), ((2, 1, 1, 2), (1.0,)), ((3, 4, 3, 5, 3), (3.0, 2.0, 1.0))]


@pytest.mark.parametrize(("widths", "values"), CASES)
def test_orbits_of_deep_linear_networks(widths: tuple[int, ...], values: tuple[float, ...]) -> None:
    """Against the closed forms, which know the volumes from Stiefel manifolds and pairs of channels."""
    network = DeepLinearNetwork(widths, values, weight_decay=0.05)
    symmetry, theory = symmetry_of(network), network.theory
    most = min(len(values), *widths[1:-1])
    points = [theory.state(r) for r in range(most + 1)] + [theory.saddle(r) for r in range(most)]
    for point in points:
        turned = symmetry.rotated(torch.from_numpy(point.theta)[None], symmetry.haar(1, seed=3))[0].numpy()
        for theta in (point.theta, turned):
            assert symmetry.log_orbit_volume(theta, scale=1.0) == pytest.approx(point.log_orbit_volume, abs=1e-9)
            zero = symmetry.zero_modes(theta)
            assert len(zero) == point.n_zero_modes
            if len(zero):
                np.testing.assert_allclose(zero @ zero.T, np.eye(len(zero)), atol=1e-12)
                curvature = hessian(network.gradient, torch.from_numpy(theta.copy())[None])[0].numpy() @ zero.T
                assert np.abs(curvature).max() < 1e-9
        assert symmetry.same_up_to(point.theta, turned)
        np.testing.assert_allclose(symmetry.closest(turned, point.theta), point.theta, atol=1e-10)
    for barrier in (
        *(theory.barrier(r) for r in range(most)),
        *(theory.forgetting_barrier(r + 1) for r in range(most)),
    ):
        found = symmetry.log_multiplicity(barrier.minimum, barrier.saddle)
        assert found == pytest.approx(barrier.log_volume_ratio, abs=1e-9)
        assert not symmetry.same_up_to(barrier.minimum, barrier.saddle)


def test_a_state_of_rounding_is_no_orbit() -> None:
    network = DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=0.25)
    symmetry, barrier = symmetry_of(network), network.theory.barrier()
    noise = 1e-13 * RNG(0).normal(size=network.n_parameters)
    assert symmetry.log_multiplicity(noise, barrier.saddle) == pytest.approx(barrier.log_volume_ratio, abs=1e-9)
    tanh = Symmetry(8, hidden_layers((1, 2, 2, 1), flips="odd"))
    saddle = np.arange(1.0, 9.0)
    assert math.exp(tanh.log_multiplicity(noise, saddle)) == pytest.approx(64)


def test_tangents_are_the_rotations_to_first_order() -> None:
    symmetry = symmetry_of(DeepLinearNetwork((2, 3, 2, 2), [2.0, 1.0], weight_decay=0.1))
    theta = torch.from_numpy(RNG(1).normal(size=(3, symmetry.n_parameters)))
    tangents = symmetry.tangents(theta)
    assert tangents.shape == (3, 4, symmetry.n_parameters)
    np.testing.assert_array_equal(symmetry.generators(theta[1].numpy()), tangents[1].numpy())
    angle = 1e-6
    for number, (layer, (i, j)) in enumerate([(0, (0, 1)), (0, (0, 2)), (0, (1, 2)), (1, (0, 1))]):
        turns = [torch.eye(h, dtype=torch.float64)[None].clone() for h in symmetry.widths]
        turns[layer][0, i, j], turns[layer][0, j, i] = math.sin(angle), -math.sin(angle)
        turns[layer][0, i, i] = turns[layer][0, j, j] = math.cos(angle)
        moved = (symmetry.rotated(theta, turns) - theta) / angle
        torch.testing.assert_close(moved, tangents[:, number], rtol=0, atol=1e-5)


def test_rotations_that_an_activation_breaks() -> None:
    mlp = MLP.from_data(data(), (3, 2), Tanh(), weight_decay=0.1, biases=True)
    symmetry = symmetry_of(mlp)
    theta = torch.from_numpy(RNG(2).normal(size=(5, mlp.n_parameters)))
    assert symmetry.tangents(theta).shape == (5, 0, mlp.n_parameters)
    soft = symmetry.softened
    turns = soft.haar(5, seed=0)
    for turn in turns:
        torch.testing.assert_close(turn @ turn.mT, torch.eye(turn.shape[1], dtype=turn.dtype).expand_as(turn))
    moved = soft.rotated(theta, turns)
    torch.testing.assert_close(moved.norm(dim=1), theta.norm(dim=1))
    assert ((mlp.energy(moved) - mlp.energy(theta)).abs() > 1e-3).all()
    small = 1e-3 * theta  # where the activation is linear
    torch.testing.assert_close(mlp.energy(soft.rotated(small, turns)), mlp.energy(small), rtol=0, atol=1e-10)
    linear = MLP.from_data(data(), (3, 2), Identity(), weight_decay=0.1, biases=True)
    torch.testing.assert_close(linear.energy(symmetry_of(linear).rotated(theta, turns)), linear.energy(theta))


# ---------------------------------------------------------------- permutations and signs


def elements(layers: tuple[UnitLayer, ...]) -> Iterator[list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]]:
    """All of the group, by brute force."""
    options = []
    for layer in layers:
        signs = product((1.0, -1.0) if layer.flips is not None else (1.0,), repeat=layer.width)
        turns = [np.array(s) for s in signs]
        options.append([(np.array(o), s) for o in permutations(range(layer.width)) for s in turns])
    yield from (list(chosen) for chosen in product(*options))


def images(symmetry: Symmetry, theta: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    found = []
    for element in elements(symmetry.layers):
        image = theta
        for layer, (order, signs) in zip(symmetry.layers, element, strict=True):
            image = layer.moved(image, order, signs)
        found.append(image)
    return found


@settings(max_examples=60)
@given(
    widths=st.sampled_from([(1, 2, 2, 1), (1, 3, 1), (2, 2, 1), (1, 3, 2, 1)]),
    flips=st.sampled_from([None, "odd", "even"]),
    biases=st.booleans(),
    weights=st.lists(st.integers(-1, 1), min_size=44, max_size=44),
)
def test_copies_are_counted_as_by_brute_force(
    widths: tuple[int, ...], flips: str | None, biases: bool, weights: list[int]
) -> None:
    """Weights −1, 0, 1: units that are alike, opposite, unused, or exchanged together with those of another layer."""
    layers = hidden_layers(widths, biases=biases, flips=flips)
    size = 1 + max(int(layer.members.max()) for layer in layers)
    low, top, other = (np.array(weights[k : k + size], dtype=float) for k in (0, 3, 6))
    symmetry = Symmetry(size, layers)
    low_images, top_images = images(symmetry, low), images(symmetry, top)
    different = {tuple(v) for v in low_images}  # in which 0 and −0 are equal
    assert math.exp(symmetry.log_orbit_volume(low, scale=1.0)) == pytest.approx(len(different))
    fixing = [np.array_equal(v, low) for v in low_images]
    both = [f and np.array_equal(v, top) for f, v in zip(fixing, top_images, strict=True)]
    expected = sum(fixing) / sum(both)
    assert math.exp(symmetry.log_multiplicity(low, top)) == pytest.approx(expected)
    assert symmetry.same_up_to(low, other) == any(np.array_equal(v, other) for v in low_images)
    nearest = min(float(np.linalg.norm(v - top)) for v in low_images)
    found = symmetry.closest(low, top)
    assert symmetry.same_up_to(found, low)
    if len(layers) == 1:  # one assignment problem; with more layers it is a search
        assert np.linalg.norm(found - top) == pytest.approx(nearest)


@pytest.mark.parametrize(
    ("activation", "kind"),
    [(Tanh(), "signs"), (GELU(), "order"), (ReLU(), "order"), (Quadratic(), "signs"), (Identity(), "rotations")],
)
def test_what_an_activation_allows(activation: Any, kind: str) -> None:
    mlp = MLP.from_data(data(), (3, 2), activation, weight_decay=0.1, biases=True)
    symmetry = symmetry_of(mlp)
    assert repr(symmetry) == f"Symmetry({mlp.n_parameters} parameters: 3 units ({kind}), 2 units ({kind}))"
    theta = RNG(3).normal(size=mlp.n_parameters)
    moved = np.stack([signs * theta[order] for order, signs in symmetry._finite_generators])
    energies = mlp.energy(torch.from_numpy(np.concatenate([theta[None], moved])))
    torch.testing.assert_close(energies, energies[:1].expand_as(energies))


def test_copies_are_recognised_and_brought_near() -> None:
    mlp = MLP.from_data(data(), (6, 5), Tanh(), weight_decay=0.1)
    symmetry, rng = symmetry_of(mlp), RNG(4)
    theta = rng.normal(size=mlp.n_parameters)
    copy = theta
    for layer in symmetry.layers:
        copy = layer.moved(copy, rng.permutation(layer.width), rng.choice([-1.0, 1.0], layer.width))
    assert symmetry.same_up_to(theta, copy)
    assert not symmetry.same_up_to(theta, copy + 1e-4 * rng.normal(size=len(copy)))
    swapped = copy.copy()
    swapped[[0, 1]] = swapped[[1, 0]]  # the same weights, another network
    assert not symmetry.same_up_to(theta, swapped)
    near = theta + 0.05 * rng.normal(size=len(theta))
    np.testing.assert_array_equal(symmetry.closest(copy, near), theta)
    assert symmetry.cluster([theta, near, copy, near, -theta + 1.0]).tolist() == [0, 1, 0, 1, 2]


def test_parameters_of_no_unit_have_to_agree() -> None:
    assert not Symmetry(2).same_up_to([1.0, 0.0], [-1.0, 0.0])
    assert math.exp(Symmetry(2).log_orbit_volume([1.0, 2.0])) == 1
    partly = Symmetry(5, hidden_layers((1, 2, 1), flips="odd"))
    assert partly.same_up_to([1.0, 2.0, 3.0, 4.0, 5.0], [-2.0, 1.0, -4.0, 3.0, 5.0])
    assert not partly.same_up_to([1.0, 2.0, 3.0, 4.0, 5.0], [-2.0, 1.0, -4.0, 3.0, -5.0])


def test_wide_layers_are_counted_without_a_list() -> None:
    symmetry = Symmetry(48, hidden_layers((2, 16, 1), flips="odd"))
    theta = RNG(6).normal(size=48)
    whole = math.lgamma(17) + 16 * math.log(2)
    assert symmetry.log_orbit_volume(theta) == pytest.approx(whole, rel=1e-12)
    assert symmetry.log_multiplicity(np.zeros(48), theta) == pytest.approx(whole, rel=1e-12)
    members = symmetry.layers[0].members
    theta[members[:12]] = 0.0
    theta[members[13]] = -theta[members[12]]
    alike = math.lgamma(13) + 12 * math.log(2) + math.log(2)
    assert symmetry.log_orbit_volume(theta) == pytest.approx(whole - alike, rel=1e-12)


# ---------------------------------------------------------------- other models


def test_coordinates_of_a_symbolic_landscape() -> None:
    chain = DeepLinearChain(depth=4, singular_value=1.0, weight_decay=0.2)
    symmetry, barrier = symmetry_of(ChainModel(chain)), chain.barrier()
    found = symmetry.log_multiplicity(barrier.minimum, barrier.saddle)
    assert math.exp(found) == pytest.approx(barrier.multiplicity)
    turned = barrier.saddle * [1.0, -1.0, -1.0, 1.0]
    assert symmetry.same_up_to(turned, barrier.saddle)
    assert not symmetry.same_up_to(turned * [1.0, 1.0, 1.0, -1.0], barrier.saddle)  # the mirror saddle: m < 0
    np.testing.assert_allclose(symmetry.closest(turned, barrier.saddle), barrier.saddle)


def test_maps_of_one_s_own() -> None:
    x = np.array([[1.0, 2.0], [2.0, 1.0], [-1.0, 0.5], [0.5, -1.0]])
    mlp = MLP.from_data(finite(x, x.sum(axis=1)), (2,), GELU(), weight_decay=0.1)
    inputs = np.array([1, 0, 3, 2, 4, 5])  # the data do not change if both inputs are exchanged
    symmetry = symmetry_of(mlp, maps=[(inputs, np.ones(6))])
    theta = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert math.exp(symmetry.log_orbit_volume(theta)) == pytest.approx(4)
    assert math.exp(symmetry.log_multiplicity(np.zeros(6), [1.0, 1.0, 2.0, 2.0, 3.0, 4.0])) == pytest.approx(2)
    assert symmetry.same_up_to(theta, theta[inputs])
    with pytest.raises(InvalidParameterError, match="changes the energy"):
        symmetry_of(mlp, maps=[(np.array([1, 0, 2, 3, 4, 5]), np.ones(6))])
    with pytest.raises(InvalidParameterError, match="permutation of 6"):
        symmetry_of(mlp, maps=[(np.array([0, 0, 2, 3, 4, 5]), np.ones(6))])


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.tanh(self.first(x))
        return self.last(seen + torch.tanh(self.inner(seen)))


class OfParameters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inward, self.outward = nn.Parameter(torch.zeros(2, 4)), nn.Parameter(torch.zeros(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.inward) ** 2 @ self.outward


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.last = nn.Parameter(torch.zeros(3, 2)), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(x @ self.weight.T) @ self.weight)


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.last = nn.Parameter(torch.zeros(3, 3)), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x)


MODULES = {
    "mlp": (lambda: [nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3), nn.GELU(), nn.Linear(3, 1)],
            "3 units (signs), 3 units (order)"),
    "linear": (lambda: [nn.Linear(2, 2, bias=False), nn.Linear(2, 3), nn.Linear(3, 1)],
               "2 units (rotations), 3 units (rotations)"),
    "linear, one unit": (lambda: [nn.Linear(2, 2), nn.Linear(2, 1), nn.Linear(1, 1)],
                         "2 units (rotations), 1 units (signs)"),
    "frozen normalisation": (lambda: [nn.Linear(2, 3), nn.BatchNorm1d(3).eval(), nn.Tanh(), nn.Linear(3, 1)],
                             "3 units (signs)"),
    "layer norm": (lambda: [nn.Linear(2, 3), nn.LayerNorm(3), nn.ReLU(), nn.Linear(3, 1)], "3 units (order)"),
    "convolution": (lambda: [nn.Unflatten(1, (1, 2)), nn.Conv1d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(3, 1)],
                    "3 units (signs)"),
    "residual": (lambda: [Residual()], "3 maps"),
    "units by themselves": (lambda: [nn.Linear(2, 1), nn.Tanh(), nn.Linear(1, 1), nn.Tanh(), nn.Linear(1, 1)],
                            "1 units (signs), 1 units (signs)"),
    "one of them": (lambda: [nn.Linear(2, 3, bias=False), nn.Tanh(), nn.Linear(3, 1), nn.Tanh(), nn.Linear(1, 1)],
                    "3 units (signs), 1 units (signs)"),
    "parameters": (lambda: [OfParameters()], "4 units (signs)"),
    "tied": (lambda: [Tied()], "3 units (signs)"),
    "unused": (lambda: [Unused()], "none"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_symmetries_of_a_module_are_proposed_and_probed(name: str) -> None:
    make, expected = MODULES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ModuleModel(nn.Sequential(*make()), data=data(), weight_decay=0.1)
    symmetry = symmetry_of(model)
    assert repr(symmetry) == f"Symmetry({model.n_parameters} parameters: {expected})"
    theta = RNG(7).normal(size=model.n_parameters)
    if "rotations" not in expected:
        counted = len(symmetry._orbit(theta[None], 1e-9))  # one by one
        assert math.exp(symmetry.log_orbit_volume(theta)) == pytest.approx(counted)
    moved = [theta] + [signs * theta[order] for order, signs in symmetry._finite_generators]
    energies = model.energy(torch.from_numpy(np.stack(moved)))
    torch.testing.assert_close(energies, energies[:1].expand_as(energies), rtol=1e-9, atol=0)


def test_the_same_network_in_two_ways() -> None:
    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Tanh(), nn.Linear(3, 1, bias=False))
    module, by_hand = (
        ModuleModel(net, data=data(), weight_decay=0.1),
        MLP.from_data(data(), (3,), Tanh(), weight_decay=0.1),
    )
    a, b = symmetry_of(module), symmetry_of(by_hand)
    for theta in (np.zeros(9), np.array([1.0, 1, 1, 1, 2, 2, 1, 1, 1]), RNG(8).normal(size=9)):
        assert a.log_orbit_volume(theta) == b.log_orbit_volume(theta)


def test_what_cannot_be_counted_is_said() -> None:
    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    symmetry = symmetry_of(ModuleModel(net, data=data(), weight_decay=0.1))
    with pytest.raises(InvalidParameterError, match="Merge linear layers"):
        symmetry.log_orbit_volume(np.ones(symmetry.n_parameters))
    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False))
    like = DeepLinearNetwork((1, 2, 1, 1), [1.0], weight_decay=0.1).theory.barrier()
    single = symmetry_of(ModuleModel(net, data=data(1), weight_decay=0.1))  # one unit that rotates has two signs
    assert single.log_multiplicity(like.minimum, like.saddle) == pytest.approx(like.log_volume_ratio, abs=1e-9)
    rotations = Symmetry(4, hidden_layers((1, 2, 1), rotates=True))
    with pytest.raises(InvalidParameterError, match="fingerprint"):
        rotations.same_up_to(np.ones(4), np.zeros(4))
    linear = symmetry_of(DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=0.1))
    no_stationary_point = np.array([0.0, 0, 1, 0, 0, 1, 0, 0])  # W₂ = 1 turns with both layers together
    with pytest.raises(InvalidParameterError, match="act together"):
        linear.log_orbit_volume(no_stationary_point)
    with pytest.raises(InvalidParameterError, match="without repetitions"):
        UnitLayer(np.array([[0, 1], [1, 2]]))
    with pytest.raises(InvalidParameterError, match=r"expected \(4,\)"):
        rotations.same_up_to(np.ones(3), np.ones(4))
