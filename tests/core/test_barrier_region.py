"""Spectra of barriers, and regions that begin beyond them."""

import numpy as np
import pytest
import sympy
import torch

from kramers_grok.core.barrier import Barrier
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.landscape import Landscape
from kramers_grok.core.region import Region, beyond
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.saddles import MatrixNetwork

X, Y = sympy.symbols("x y", real=True)
# minima at x = ±1 with Hessian diag(8, 3), saddle at 0 with diag(−4, 3); the order parameter is cubic in x
DOUBLE_WELL = Landscape((X**2 - 1) ** 2 + 3 * Y**2 / 2, (X, Y), (X**3, Y))


def double_well(start: float = -1.0) -> Barrier:
    return Barrier(DOUBLE_WELL, np.array([start, 0.0]), np.zeros(2), np.array([-start, 0.0]), height=1.0)


def test_spectra_of_the_double_well() -> None:
    barrier = double_well()
    assert barrier.coordinates == ("x", "y")
    assert barrier.multiplicity == 1
    np.testing.assert_allclose(barrier.minimum_spectrum, [3.0, 8.0], rtol=1e-14)
    np.testing.assert_allclose(barrier.saddle_spectrum, [-4.0, 3.0], rtol=1e-14)
    assert barrier.negative_eigenvalue == pytest.approx(-4.0, rel=1e-14)
    assert (barrier.order_parameter_at_minimum, barrier.order_parameter_at_saddle) == (-1.0, 0.0)
    assert barrier.order_parameter_at_destination == 1.0


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_spectra_of_the_chain(depth: int) -> None:
    """At 0: λ; at the saddle: D q a^(2D−2) − (D−2)λ once and 2λ the other D − 1 times."""
    chain = DeepLinearChain(depth=depth, singular_value=1.2, weight_decay=0.2, input_variance=0.8)
    barrier = chain.barrier()
    a = chain.saddle_amplitude()
    negative = depth * 0.8 * a ** (2 * depth - 2) - (depth - 2) * 0.2
    np.testing.assert_allclose(barrier.minimum_spectrum, [0.2] * depth, rtol=1e-13)
    np.testing.assert_allclose(barrier.saddle_spectrum, [negative] + [0.4] * (depth - 1), rtol=1e-11)
    assert barrier.negative_eigenvalue < 0
    assert barrier.order_parameter_at_saddle == pytest.approx(a**depth, rel=1e-13)
    energies = chain.landscape.energy_at([barrier.saddle, barrier.minimum])
    assert barrier.height == pytest.approx(float(energies[0] - energies[1]), rel=1e-10)


def test_regions_contain_what_has_passed_the_threshold() -> None:
    m = [[0.1, 0.2], [0.3, np.nan]]
    assert Region(0.2).contains(m).tolist() == [[False, True], [True, False]]
    assert Region(0.2, above=False).contains(m).tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("above", [True, False])
def test_scores_grow_towards_escape(above: bool) -> None:
    region = Region(-0.3, above=above)
    m = np.array([-1.0, -0.3, 0.5])
    assert ((region.score(m) >= region.sign * region.threshold) == region.contains(m)).all()
    assert torch.equal(region.score(torch.tensor(m)), torch.tensor(region.score(m)))


def test_a_region_is_a_finite_threshold_of_a_feature() -> None:
    region = Region(np.float32(0.5), feature=np.int64(2))
    assert region == Region(0.5, feature=2)
    assert type(region.threshold) is float
    with pytest.raises(InvalidParameterError, match="threshold"):
        Region(np.nan)
    with pytest.raises(InvalidParameterError, match=r"feature.*integer >= 0"):
        Region(0.1, feature=-1)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_beyond_goes_on_from_the_saddle_in_the_coordinates(fraction: float) -> None:
    for start, above in ((-1.0, True), (1.0, False)):
        region = beyond(double_well(start), fraction)
        assert region.threshold == pytest.approx(region.sign * fraction**3, rel=1e-14)
        assert (region.above, region.feature) == (above, 0)


@pytest.mark.parametrize("depth", [3, 4])
def test_beyond_in_both_directions_of_a_mode(depth: int) -> None:
    mode = Mode(depth=depth, singular_value=1.0, weight_decay=0.2)
    learning, forgetting = mode.barrier(), mode.forgetting_barrier()
    forth, back = beyond(learning), beyond(forgetting)
    assert forth.above
    assert not back.above
    assert back.threshold < learning.order_parameter_at_saddle < forth.threshold
    for barrier, region in ((learning, forth), (forgetting, back)):
        assert region.contains(barrier.order_parameter_at_destination)
        assert not region.contains(barrier.order_parameter_at_saddle)
        assert not region.contains(barrier.order_parameter_at_minimum)
    halfway = (mode.saddle_amplitude() + mode.learned_amplitude()) / 2
    assert forth.threshold == pytest.approx(halfway**depth, rel=1e-13)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.9])
def test_beyond_an_orbit_is_beyond_its_mode(fraction: float) -> None:
    """A network's region watches the barrier's feature, at the same border as the mode's."""
    network = MatrixNetwork((3, 4, 3, 3), (1.5, 1.2, 0.9), weight_decay=0.3, input_variance=0.8)
    for rank in (0, 1, 2):
        mode = network.mode(rank)
        for ours, theirs in (
            (network.barrier(rank), mode.barrier()),
            (network.forgetting_barrier(rank + 1), mode.forgetting_barrier()),
        ):
            region, expected = beyond(ours, fraction), beyond(theirs, fraction)
            assert region.feature == rank
            assert region.above == expected.above
            assert region.threshold == pytest.approx(expected.threshold, rel=1e-12)
            # the same point on the straight line between the weights
            theta = ours.saddle + fraction * (ours.destination - ours.saddle)
            model = DeepLinearNetwork((3, 4, 3, 3), [1.5, 1.2, 0.9], weight_decay=0.3, input_variance=0.8)
            m = model.order_parameters(torch.from_numpy(theta)[None])[0, rank]
            assert float(m) == pytest.approx(region.threshold, rel=1e-12)
            for name in ("minimum", "saddle", "destination"):
                m = model.order_parameters(torch.from_numpy(getattr(ours, name))[None])[0]
                np.testing.assert_allclose(m, getattr(ours, f"{name}_order_parameters"), rtol=1e-12, atol=1e-300)
                assert getattr(ours, f"order_parameter_at_{name}") == pytest.approx(float(m[rank]), rel=1e-12)


def test_what_an_orbit_says_of_itself() -> None:
    barrier = MatrixNetwork((2, 3, 2, 2), (1.2, 0.9), weight_decay=0.25).barrier(1)
    assert (barrier.depth, barrier.feature, barrier.degeneracy, barrier.spare_units) == (3, 1, 1, (1, 0))
    assert (barrier.minimum_zero_modes, barrier.saddle_zero_modes, barrier.extra_zero_modes) == (3, 4, 1)
    assert barrier.negative_eigenvalue == barrier.saddle_spectrum[0] < 0 < barrier.saddle_spectrum[1]
    assert barrier.saddle_amplitude == pytest.approx(Mode(3, 0.9, 0.25).saddle_amplitude(), rel=1e-13)
    points = Barrier(DOUBLE_WELL, np.array([-1.0, 0.0]), np.zeros(2), np.ones(2), height=1.0, multiplicity=3)
    assert (points.minimum_zero_modes, points.saddle_zero_modes, points.extra_zero_modes, points.feature) == (
        0,
        0,
        0,
        0,
    )
    assert points.log_volume_ratio == pytest.approx(np.log(3))


def test_features_that_share_a_singular_value_have_no_border() -> None:
    barrier = MatrixNetwork((3, 2, 2, 3), (1.2, 1.2, 0.9), weight_decay=0.25).barrier()
    with pytest.raises(InvalidParameterError, match=r"one of 2 with equal singular value.*any mixture.*\n.*score"):
        beyond(barrier)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, np.nan])
def test_a_border_at_the_ends_is_refused(fraction: float) -> None:
    with pytest.raises(InvalidParameterError, match=r"fraction.*0 is the barrier's top and 1 the state behind it"):
        beyond(double_well(), fraction)
