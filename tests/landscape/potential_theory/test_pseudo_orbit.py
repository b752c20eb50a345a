"""The slice across a pseudo-orbit: volumes, Jacobian and gradients against what knows nothing of it."""

import math

import numpy as np
import pytest

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.landscape.potential_theory.pseudo_orbit import (
    SOFT_SHARE,
    PseudoOrbit,
    SoftMode,
    soft_modes,
    soft_text,
)
from kramers_grok.landscape.surface import Surface
from kramers_grok.landscape.symmetries.symmetry import symmetry_of
from kramers_grok.landscape.symmetries.units import UnitLayer, hidden_layers
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.orbits import log_orbit_volume
from kramers_grok.theory.saddles import MatrixNetwork

RNG = np.random.default_rng(5)


def orbit_of(widths: tuple[int, ...], rank: int = 0) -> PseudoOrbit:
    values = tuple(1.0 - 0.3 * k for k in range(min(widths[0], widths[-1])))
    point = MatrixNetwork(widths, values, weight_decay=0.2).saddle(rank).theta
    return PseudoOrbit(hidden_layers(widths, rotates=True), point)


@pytest.mark.parametrize(
    ("widths", "rank"), [((1, 2, 2, 1), 0), ((1, 3, 2, 1), 0), ((2, 3, 2, 2), 1), ((1, 2, 3, 2, 1), 0)]
)
def test_volume_is_the_orbit_volume(widths: tuple[int, ...], rank: int) -> None:
    # Radians times the Jacobian at the reference: the orbit's volume in weights, known in closed form.
    orbit = orbit_of(widths, rank)
    network = MatrixNetwork(widths, tuple(1.0 - 0.3 * k for k in range(min(widths[0], widths[-1]))), weight_decay=0.2)
    assert network.saddle(rank).n_zero_modes == orbit.dimension
    at_reference = orbit.jacobian(orbit.slice_of_point[None])[0]
    assert math.isclose(orbit.log_volume + math.log(at_reference), network.saddle(rank).log_orbit_volume, rel_tol=1e-9)
    assert math.isclose(float(orbit.closeness(0 * orbit.slice_of_point[None])[0]), 1.0, rel_tol=1e-12)


def test_a_circle_has_the_measure_of_polar_coordinates() -> None:
    # Two units of two weights each: θ is a 2 × 2 matrix, the reference has one row.
    orbit = PseudoOrbit((UnitLayer(np.array([[0, 1], [2, 3]])),), np.array([0.6, 0.0, 0.0, 0.0]))
    assert orbit.dimension == 1
    assert orbit.used == (1,)
    assert math.isclose(math.exp(orbit.log_volume), 2 * 2 * math.pi / 2)  # |O(2)| over the two signs of O(1)
    xi = RNG.normal(size=(50, 3)) * 0.1
    first = orbit.points(xi)[:, 0]
    assert np.allclose(orbit.jacobian(xi), first, rtol=1e-12)
    assert np.allclose(orbit.closeness(xi), first / 0.6, rtol=1e-12)


def test_integral_over_the_tube_is_that_in_weight_space() -> None:
    # ∫ e^{−θ²/2s²} over all matrices, by the slice: no shape of the energy is used, the Jacobian alone decides.
    orbit = PseudoOrbit((UnitLayer(np.array([[0, 1], [2, 3]])),), np.array([1.0, 0.0, 0.0, 0.0]))
    s, n = 0.5, 400_000
    xi = s * np.random.default_rng(0).normal(size=(n, 3)) - orbit.reference @ orbit.normals
    # θ = (r, x; 0, y) in some order: with r > 0 each matrix has one such representative for each sign of its second row
    whole = math.exp(orbit.log_volume) * np.mean(orbit.jacobian(xi)) * (2 * math.pi * s**2) ** 1.5
    assert abs(whole / (2 * math.pi * s**2) ** 2 - 1) < 5 / math.sqrt(n)


def test_gradients_against_differences() -> None:
    orbit = orbit_of((1, 3, 2, 1))
    size = orbit.normals.shape[1]
    xi = 0.02 * RNG.normal(size=(3, size))
    step = 1e-6
    for axis in range(size):
        e = step * np.eye(size)[axis]
        slope = (np.log(orbit.jacobian(xi + e)) - np.log(orbit.jacobian(xi - e))) / (2 * step)
        assert np.allclose(slope, orbit.log_jacobian_gradient(xi)[:, axis], atol=1e-7)
    # The gradient of a function of ξ alone: perpendicular to every rotation of the point.
    slope = RNG.normal(size=xi.shape)
    whole = slope @ orbit.normals.T + orbit.along(xi, slope) @ orbit.tangents.T
    moved = np.einsum("aij,nj->nai", orbit._frame[0], orbit.points(xi))
    assert np.abs(np.einsum("nai,ni->na", moved, whole)).max() < 1e-12
    # … and moving along it changes ξ at the rate ‖∇‖².
    velocity, _ = orbit.velocity(xi, orbit.along(xi, slope), slope)
    assert np.allclose((velocity * slope).sum(axis=1), (whole**2).sum(axis=1), rtol=1e-12)


def test_rotations_are_even_and_undone() -> None:
    orbit = orbit_of((1, 3, 2, 1))
    turns = orbit.rotations(RNG.normal(size=(4000, orbit.n_normals)))
    for turn in turns:
        assert np.abs(turn.mean(axis=0)).max() < 5 / math.sqrt(4000)
        assert np.allclose(turn @ np.swapaxes(turn, 1, 2), np.eye(turn.shape[1]), atol=1e-12)
    theta = RNG.normal(size=(4000, orbit.point.size))
    assert np.allclose(orbit.rotated(turns, orbit.rotated(turns, theta), back=True), theta, atol=1e-12)


def test_modes_of_exact_and_broken_rotations() -> None:
    network = DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=0.25)
    point = network.theory.saddle(0).theta
    modes = soft_modes(Surface(network), symmetry_of(network).softened.layers, point)
    assert [mode.curvature for mode in modes] == [0.0, 0.0]
    radius = math.sqrt(2) * network.theory.barrier().saddle_amplitude
    # A hidden layer's rotation turns one amplitude in the layer below it and one above.
    assert np.allclose([mode.radius for mode in modes], radius, rtol=1e-12)
    assert not soft_text("saddle", modes, 1e-3)  # exact ones are zero modes, and counted as such
    assert SoftMode(0.0, 1.0).share(1.0) == math.inf


def test_soft_text_speaks_above_a_quarter_of_the_radius() -> None:
    radius, temperature = 0.36, 1e-3
    edge = temperature / (SOFT_SHARE * radius) ** 2
    assert not soft_text("saddle", [SoftMode(1.01 * edge, radius)], temperature)
    (text,) = soft_text("saddle", [SoftMode(0.99 * edge, radius)], temperature)
    assert "soft mode at the saddle" in text
    assert "without bound" in soft_text("minimum", [SoftMode(-0.01, radius)], temperature)[0]


def test_the_state_without_weights_has_no_orbit() -> None:
    orbit = PseudoOrbit(hidden_layers((1, 2, 2, 1)), 1e-14 * RNG.normal(size=8), scale=0.3)
    assert orbit.dimension == 0
    assert orbit.log_volume == 0
    assert np.array_equal(orbit.normals, np.eye(8))


def test_rotations_of_two_layers_together_are_refused() -> None:
    # A middle layer that is a multiple of the identity, and nothing else: turning both layers leaves it alone.
    point = np.zeros(8)
    point[2:6] = 0.5 * np.eye(2).ravel()
    with pytest.raises(InvalidParameterError, match="several layers together"):
        PseudoOrbit(hidden_layers((1, 2, 2, 1)), point)


def test_the_used_directions_survive_small_ones() -> None:
    point = MatrixNetwork((1, 3, 3, 1), (1.0,), weight_decay=0.2).saddle(0).theta + 0.01 * RNG.normal(size=15)
    orbit = PseudoOrbit(hidden_layers((1, 3, 3, 1)), point)
    assert orbit.used == (1, 1)
    assert np.allclose(orbit.points(orbit.slice_of_point[None])[0] - point, 0, atol=0.03)
    assert log_orbit_volume((3, 3), (1.0,), (0,)) > 0
