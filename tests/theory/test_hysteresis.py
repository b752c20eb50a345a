"""The predicted loop: areas against quadrature, the bottleneck against its integral, races against exponentials."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from scipy.integrate import quad

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.theory.hysteresis import (
    bottleneck_time,
    first_probabilities,
    jump_size,
    loop_area,
    order_probability,
    predicted_loop,
)
from kramers_grok.theory.mode_states import learned_amplitude, spinodal
from kramers_grok.theory.phases import FeatureSpectrum


@pytest.mark.parametrize("depth", [3, 4, 7])
@pytest.mark.parametrize("lowest", [1e-3, 0.1])
def test_the_area_is_the_integral_of_the_branch(depth: int, lowest: float) -> None:
    sigma, q = 1.3, 2.0
    end = float(spinodal(depth, sigma, q))

    # Substituted λ = end − u²: the branch has a root at the fold.
    def integrand(u: float) -> float:
        return 2 * u * float(learned_amplitude(depth, sigma, max(end - u * u, lowest), q) ** depth) if u else 0.0

    expected = quad(integrand, 0.0, np.sqrt(end - lowest), epsabs=1e-11)[0]
    assert loop_area(depth, sigma, lowest, q) == pytest.approx(expected, rel=1e-8)


def test_the_area_of_a_whole_loop_scales_with_the_feature() -> None:
    assert loop_area(4, 2.0, 0.0, 3.0) == pytest.approx(3.0 * 2.0**2.5 * loop_area(4, 1.0))
    assert loop_area(4, 1.0) == pytest.approx(loop_area(4, 1.0, 1e-12), abs=1e-11)


def test_a_continuous_transition_leaves_no_loop() -> None:
    assert loop_area(2, 1.0, 0.1) == 0.0
    assert jump_size(2, 1.0) == 0.0
    loop = predicted_loop(FeatureSpectrum.from_teacher([2.0, 1.0]), 2, [0.1, 0.5, 3.0])
    assert (loop.up == loop.down).all()
    assert loop.n_jumps == 0
    assert loop.total_area == 0.0
    assert loop.up.values[0] == pytest.approx([1.9, 0.9])


def test_areas_and_jumps_add_up_over_features() -> None:
    teacher = [1.6, 1.3, 1.0, 0.8]
    decays = np.geomspace(0.2, 1.0, 50)
    loops = [predicted_loop(FeatureSpectrum.from_teacher(teacher[:k]), 3, decays) for k in range(1, 5)]
    assert [loop.n_jumps for loop in loops] == [1, 2, 3, 4]
    assert np.diff([loop.total_area for loop in loops]) == pytest.approx(loop_area(3, teacher[1:], 0.2))
    assert bool(loops[-1].stable.all())


def test_a_sweep_that_ends_early_sees_part_of_the_loop() -> None:
    loop = predicted_loop(FeatureSpectrum.from_teacher([1.0]), 3, [0.1, 0.4])
    assert loop.n_jumps == 0
    assert float(loop.jump[0]) == 0.0
    assert float(loop.area[0]) == pytest.approx(float(loop_area(3, 1.0, 0.1) - loop_area(3, 1.0, 0.4)))


@pytest.mark.parametrize("depth", [3, 5])
def test_the_bottleneck_is_the_flow_s_time_close_to_the_fold(depth: int) -> None:
    at = float(spinodal(depth, 1.0))
    fold = float(jump_size(depth, 1.0)) ** (1 / depth)
    ratios = []
    for excess in (1e-5, 1e-7):
        decay = at * (1 + excess)
        width = np.sqrt(excess)
        # da/dt = −a [λ − a^(D−2) (1 − a^D)], integrated outwards from the fold on the scale of the bottleneck.
        pieces = [fold * (1 + width * s) for s in (-1000, -100, -10, -1, 0, 1, 10, 100, 400)]
        pieces = [a for a in pieces if 0.3 * fold < a < 1.2 * fold]
        time = sum(
            quad(lambda a: 1 / (a * (decay - a ** (depth - 2) * (1 - a**depth))), low, high)[0]  # noqa: B023
            for low, high in pairwise(pieces)
        )
        ratios.append(time / float(bottleneck_time(depth, 1.0, decay)))
    assert abs(ratios[1] - 1) < 0.01
    assert abs(ratios[1] - 1) < abs(ratios[0] - 1)


def test_a_race_of_constant_rates() -> None:
    rates = np.array([3.0, 2.0, 1.0])
    survival = np.exp(-np.outer(rates, np.linspace(0.0, 40.0, 8001)))
    assert first_probabilities(survival) == pytest.approx(rates / rates.sum(), abs=1e-5)
    total = 0.0
    for order in permutations(range(3)):
        left = rates[list(order)]
        expected = np.prod([r / left[i:].sum() for i, r in enumerate(left)])
        found = order_probability(survival, order)
        assert found == pytest.approx(expected, abs=1e-4)
        total += found
    assert total == pytest.approx(1.0, abs=1e-4)


def test_a_race_that_is_not_exponential() -> None:
    """T₁ uniform on (0, 1), T₂ on (0, 2): the first comes first with probability 3/4, not 2/3."""
    t = np.linspace(0.0, 2.0, 2001)
    survival = np.array([np.clip(1 - t, 0, 1), 1 - t / 2])
    assert first_probabilities(survival) == pytest.approx([0.75, 0.25], abs=1e-9)


def test_errors_say_what_to_do() -> None:
    with pytest.raises(InvalidParameterError, match="above the spinodal"):
        bottleneck_time(3, 1.0, 0.4)
    with pytest.raises(InvalidParameterError, match="D >= 3"):
        bottleneck_time(2, 1.0, 2.0)
    with pytest.raises(InvalidParameterError, match="a sweep begins"):
        loop_area(3, 1.0, -0.1)
    with pytest.raises(InvalidParameterError, match="at least two"):
        predicted_loop(FeatureSpectrum.from_teacher([1.0]), 3, [0.1])
    with pytest.raises(InvalidParameterError, match="fall from 1"):
        first_probabilities([[0.9, 0.1], [1.0, 0.0]])
    with pytest.raises(InvalidParameterError, match="permutation"):
        order_probability([[1.0, 0.0], [1.0, 0.0]], (0, 0))
