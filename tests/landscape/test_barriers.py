import math

import numpy as np
import pytest
import sympy
import torch

from kramers_grok.core.barrier import AnyBarrier
from kramers_grok.core.exceptions import InvalidParameterError, UncertifiedError
from kramers_grok.core.landscape import Landscape
from kramers_grok.core.region import beyond
from kramers_grok.landscape.barriers import NumericalBarrier, escape_barrier, find_barrier
from kramers_grok.landscape.points import StationaryPoint, classify, find_minima, find_minimum
from kramers_grok.landscape.saddles import certify_saddle, refine_saddle
from kramers_grok.landscape.string import minimum_energy_path
from kramers_grok.models.base import SymbolicModel
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.mlp import MLP
from kramers_grok.theory.rates import eyring_kramers_rate

Widths = tuple[int, ...]
# Widths, singular values, weight decay, learned features before; backwards: one feature forgotten instead
CASES: list[tuple[Widths, list[float], float, int, bool]] = [
    ((1, 1, 1, 1), [1.0], 0.25, 0, False),
    ((1, 2, 3, 1), [1.0], 0.25, 0, False),
    ((1, 2, 2, 1), [1.0], 0.43, 1, True),
    ((1, 2, 2, 2, 1), [1.0], 0.2, 0, False),
    ((1, 2, 1, 2, 2, 1), [1.0], 0.1, 0, False),
    ((3, 2, 2, 2), [1.5, 1.0], 0.2, 0, False),
    ((2, 3, 3, 2), [2.0, 1.0], 0.2, 1, False),
    ((2, 2, 3, 2, 2), [1.5, 1.0], 0.15, 1, False),
]
RATE_ORDER = ("height", "negative_eigenvalue", "log_determinant_ratio", "log_volume_ratio", "trace_difference")


def found_barrier(network: DeepLinearNetwork, rank: int, backwards: bool) -> NumericalBarrier:
    """The barrier from minima that are found from starts beside the closed form's, which are then forgotten."""
    exact = network.theory.forgetting_barrier(rank) if backwards else network.theory.barrier(rank)
    rng = np.random.default_rng(7)
    ends = [
        find_minimum(network, network.embed(point) + 0.03 * torch.from_numpy(rng.normal(size=network.n_parameters)))
        for point in (exact.minimum, exact.destination)
    ]
    return find_barrier(network, *ends, n_paths=1)


@pytest.mark.parametrize(("widths", "values", "decay", "rank", "backwards"), CASES)
def test_agrees_with_closed_forms(
    widths: Widths, values: list[float], decay: float, rank: int, backwards: bool
) -> None:
    # Shared with the closed form: the loss (which the network's own tests compare) and, of the orbit's volume, the
    # volumes of Stiefel manifolds. Spectra, Gram determinants and zero modes are the search's own.
    teacher = np.linalg.qr(np.random.default_rng(1).normal(size=(widths[-1], widths[-1])))[0][:, : len(values)]
    matrix = (teacher * values) @ np.eye(len(values), widths[0])
    network = DeepLinearNetwork(widths, matrix, weight_decay=decay)
    exact = network.theory.forgetting_barrier(rank) if backwards else network.theory.barrier(rank)
    found = found_barrier(network, rank, backwards)
    for name in RATE_ORDER:
        assert getattr(found, name) == pytest.approx(
            getattr(exact, name) if hasattr(exact, name) else None, rel=1e-6, abs=1e-7
        ), name
    assert (found.minimum_zero_modes, found.saddle_zero_modes) == (exact.minimum_zero_modes, exact.saddle_zero_modes)
    np.testing.assert_allclose(found.saddle_spectrum, exact.saddle_spectrum, rtol=1e-6)
    assert found.feature == exact.feature
    heat = exact.height / 12
    rates = [eyring_kramers_rate(b, heat, step=0.1, warn=False).value for b in (found, exact)]
    assert rates[0] == pytest.approx(rates[1], rel=1e-6)
    for name in ("order_parameter_at_saddle", "order_parameter_at_destination"):
        assert getattr(found, name) == pytest.approx(getattr(exact, name), rel=1e-6)
    # Half of the arc length is half of the amplitude: all layers grow alike
    assert beyond(found).threshold == pytest.approx(beyond(exact).threshold, rel=1e-5)


def test_agreement_is_no_matter_of_tolerance() -> None:
    """The negative control: a weight decay off by 1e-4 is seen."""
    network, other = (DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=decay) for decay in (0.25, 0.250025))
    found, exact = found_barrier(network, 0, False), other.theory.barrier()
    for name in RATE_ORDER[:3]:
        assert getattr(found, name) != pytest.approx(getattr(exact, name), rel=1e-6, abs=1e-7)


def test_what_rates_ask_is_answered(small_tanh: MLP) -> None:
    learned, zero = find_minima(small_tanh, n_starts=4, seed=0)
    barrier: AnyBarrier = find_barrier(small_tanh, zero, learned, n_paths=1)
    # One unit of each hidden layer, with a sign each
    assert math.exp(barrier.log_volume_ratio) == pytest.approx(16)
    ends = (barrier.order_parameter_at_minimum, barrier.order_parameter_at_destination)
    assert ends == (pytest.approx(0, abs=1e-12), pytest.approx(1))
    assert 0 < barrier.order_parameter_at_saddle < beyond(barrier, 0.2).threshold < beyond(barrier).threshold < 1
    energy = [float(small_tanh.energy(torch.from_numpy(p)[None])) for p in (barrier.minimum, barrier.saddle)]
    assert barrier.height == pytest.approx(energy[1] - energy[0])
    # The rotation that tanh breaks is so soft that no parabola describes it
    assert any("soft mode at the saddle" in flag for flag in barrier.flags(barrier.height / 10))
    rate = eyring_kramers_rate(barrier, barrier.height / 20, warn=False)
    assert not rate.valid
    assert "curvature 0.00012" in rate.note


def test_the_path_of_a_barrier_goes_down_on_both_sides(small_tanh: MLP) -> None:
    learned, zero = find_minima(small_tanh, n_starts=4, seed=0)
    barrier = find_barrier(small_tanh, zero, learned, n_paths=1)
    path = barrier.path
    assert path.top == barrier.top
    assert (np.diff(path.energies[: barrier.top + 1]) > 0).all()
    assert (np.diff(path.energies[barrier.top :]) < 0).all()
    np.testing.assert_array_equal(path.images[[0, -1]], [barrier.minimum, barrier.destination])


# ---------------------------------------------------------------- planted failures


def test_a_symmetric_path_over_a_maximum_is_no_barrier(two_channels: SymbolicModel) -> None:
    straight = minimum_energy_path(two_channels, [-1.0, 0.0], [1.0, 0.0])
    assert straight.converged  # to a path on which nothing is wrong but its neighbours
    top = straight.images[straight.top]
    np.testing.assert_allclose(top, [0, 0], atol=0.05)
    with pytest.raises(UncertifiedError, match=r"has 2 negative eigenvalues .* expected exactly 1") as caught:
        refine_saddle(two_channels, top, [1.0, 0.0])
    assert caught.value.result.kind == "saddle of index 2"
    barrier = find_barrier(two_channels, [-1.0, 0.0], [1.0, 0.0])
    assert barrier.height == pytest.approx(0.75)
    assert math.exp(barrier.log_volume_ratio) == pytest.approx(2)  # both channels
    # k = 2 · |μ₋|/2π · √(det) e^{−ΔF/T} with spectra (8, 2) and (−2, 4)
    by_hand = 2 * 2 / (2 * np.pi) * np.sqrt(16 / 8) * np.exp(-0.75 / 0.05)
    assert eyring_kramers_rate(barrier, 0.05).value == pytest.approx(by_hand, rel=1e-6)


def test_the_lower_of_two_channels_is_taken(unequal_channels: SymbolicModel) -> None:
    barrier = find_barrier(unequal_channels, [-1.0, 0.0], [1.0, 0.0])
    above = refine_saddle(unequal_channels, [0.0, 0.7])
    assert barrier.saddle[1] < 0
    assert barrier.saddle_point.energy < above.energy
    # Over the other one no path has to go: it is a barrier as well, and says which
    assert find_barrier(unequal_channels, [-1.0, 0.0], [1.0, 0.0], saddle=[0.0, 0.7]).height > barrier.height


def test_a_saddle_between_other_states_is_refused(three_wells: SymbolicModel) -> None:
    left, middle, right = (find_minimum(three_wells, [x, 0.3]) for x in (-2.1, 0.1, 2.1))
    wrong = find_barrier(three_wells, middle, right).saddle
    with pytest.raises(UncertifiedError, match="does not lie between the two states") as caught:
        find_barrier(three_wells, left, middle, saddle=wrong)
    joined = {round(float(p.theta[0])) for p in (caught.value.result.minimum, caught.value.result.destination)}
    assert joined == {0, 2}


def test_a_path_through_another_state_is_refused(three_wells: SymbolicModel) -> None:
    left, middle, right = (find_minimum(three_wells, [x, 0.3]) for x in (-2.1, 0.1, 2.1))
    path = minimum_energy_path(three_wells, left, right)
    assert len(path.maxima) == 2
    assert len(path.minima) == 1
    with pytest.raises(UncertifiedError, match="escape_barrier"):
        find_barrier(three_wells, left, right)
    first = escape_barrier(three_wells, left, right)
    np.testing.assert_allclose(first.destination, middle.theta, atol=1e-8)


def test_no_stationary_point_is_no_saddle(two_channels: SymbolicModel) -> None:
    with pytest.raises(UncertifiedError, match=r"it is no stationary point.\nUse `refine_saddle"):
        certify_saddle(two_channels, [0.01, 0.7], [-1.0, 0.0], [1.0, 0.0])


def test_unexplained_zero_modes_are_refused(mexican_hat: SymbolicModel) -> None:
    with pytest.raises(UncertifiedError, match=r"1 zero modes, of which 1 belong to no known symmetry"):
        find_barrier(mexican_hat, [1.0, 0.0], [-1.0, 0.0])


def test_a_rotation_of_the_data_is_no_symmetry_that_is_known() -> None:
    """Two equal singular values: inputs and outputs can be turned together, which no list of hidden units shows."""
    network = DeepLinearNetwork((2, 2, 2, 2), [1.0, 1.0], weight_decay=0.25)
    exact = network.theory.barrier()
    with pytest.raises(UncertifiedError, match=r"3 zero modes, of which 1 belong to no known symmetry") as caught:
        find_barrier(network, exact.minimum, exact.destination, saddle=exact.saddle)
    assert caught.value.result.n_zero_modes == exact.saddle_zero_modes


def test_ends_that_are_one_state_are_refused(small_tanh: MLP) -> None:
    learned, _ = find_minima(small_tanh, n_starts=4, seed=0)
    first, second, third = (m[0] for m in small_tanh.layers(torch.from_numpy(learned.theta)[None]))
    turned = [first.flip(0), -second.flip(1), -third]  # units of layer 1 exchanged, signs of layer 2 changed
    copy = torch.cat([m.reshape(-1) for m in turned])
    with pytest.raises(InvalidParameterError, match="one state up to a symmetry"):
        find_barrier(small_tanh, learned, copy)
    with pytest.raises(InvalidParameterError, match="one state up to a symmetry"):
        find_barrier(small_tanh, learned, 1.01 * learned.theta)  # a start in the same basin


def test_an_end_that_is_a_saddle_is_refused(two_channels: SymbolicModel) -> None:
    saddle: StationaryPoint = classify(two_channels, [0.0, 0.5**0.5])
    with pytest.raises(InvalidParameterError, match=r"`destination` has 1 negative curvature\(s\)"):
        find_barrier(two_channels, [-1.0, 0.0], saddle)


@pytest.mark.parametrize("decay", [0.01, 0.03])
def test_a_barrier_too_narrow_for_the_images_is_found(decay: float) -> None:
    """Close to the zero state, at a hundredth of the way, with a height of 1e-5 of the range of energies."""
    network = DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=decay)
    exact = network.theory.barrier()
    found = find_barrier(network, exact.minimum, exact.destination, n_paths=1)
    assert found.height == pytest.approx(exact.height, rel=1e-6)
    back = find_barrier(network, exact.destination, exact.minimum, n_paths=1)
    assert back.height == pytest.approx(network.theory.forgetting_barrier(1).height, rel=1e-6)


def test_barriers_on_both_sides_of_a_deep_state_are_not_overlooked() -> None:
    # Wells at ∓1 in narrow barriers, and everything between them lower
    x = sympy.Symbol("x", real=True)
    wells = sum(sympy.exp(-400 * (x - side) ** 2) for side in (-1, 1))
    model = SymbolicModel(Landscape(3 * x**2 - 2 * wells + sympy.exp(8 * (x**2 - 2)), (x,), (x,)))
    left, middle = find_minimum(model, [-1.0]), find_minimum(model, [0.0])
    right = find_minimum(model, [1.0])
    assert abs(left.theta[0]) > 0.9
    with pytest.raises(UncertifiedError) as caught:
        find_barrier(model, left, right, n_images=9)
    joined = sorted(float(p.theta[0]) for p in (caught.value.result.minimum, caught.value.result.destination))
    assert min(map(abs, joined)) == pytest.approx(abs(middle.theta[0]), abs=1e-9)


def test_a_way_down_that_forks_leads_to_both_destinations() -> None:
    # On the line y = 0, which no gradient leaves, the way down behind the saddle becomes a ridge at x = 1.
    x, y = sympy.symbols("x y", real=True)
    energy = (x + 1) ** 2 * (x - 2) ** 2 / 4 + y**2 * (1 - x) + y**4 + 3 * y**3 / 10
    model = SymbolicModel(Landscape(energy, (x, y), (x,)))
    trap, up, down = (find_minimum(model, point) for point in ([-1.0, 0.0], [2.0, 0.5], [2.0, -0.5]))
    assert up.energy - down.energy > 0.1  # no symmetry makes them one
    barriers = [find_barrier(model, trap, end) for end in (up, down)]
    assert [barrier.forks for barrier in barriers] == [True, True]
    assert barriers[0].height == pytest.approx(barriers[1].height, rel=1e-9)
    np.testing.assert_allclose(barriers[0].destination, up.theta, atol=1e-7)
    np.testing.assert_allclose(barriers[1].destination, down.theta, atol=1e-7)
    assert not find_barrier(model, up, down).forks
