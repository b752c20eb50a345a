"""What a straight line through an Arrhenius plot says of the barrier."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

import kramers_grok as kg
from kramers_grok.analysis import (
    arrhenius_fit,
    compare_prefactors,
    free_power_fit,
    prefactor_power,
    straight_line_misreading,
)
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.theory.saddles import MatrixNetwork

ALPHA = 1e-5
CHAIN = kg.DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
BARRIER = MatrixNetwork((1, 4, 4, 1), (1.0,), weight_decay=0.25).barrier()
T = BARRIER.height / np.linspace(20.0, 40.0, 6)
LAW = T**3.0 * np.exp(BARRIER.height / T)


def test_power_is_half_the_extra_zero_modes():
    for widths, singular_values, rank, zero_modes in (
        ((1, 1, 1, 1), (1.0,), 0, 0),
        ((1, 2, 2, 1), (1.0,), 0, 2),
        ((1, 2, 3, 1), (1.0,), 0, 3),
        ((1, 2, 2, 2, 1), (1.0,), 0, 3),
        ((2, 3, 3, 2), (1.2, 1.0), 1, 2),
    ):
        barrier = MatrixNetwork(widths, singular_values, weight_decay=0.25).barrier(rank)
        assert prefactor_power(barrier) == zero_modes / 2
    assert prefactor_power(CHAIN.barrier()) == prefactor_power(CHAIN.mode.barrier()) == 0


def test_misreading_of_the_law_itself():
    result = straight_line_misreading(BARRIER, T)
    assert result.with_power == pytest.approx(BARRIER.height, rel=1e-9)
    assert abs(result.remaining) < 1e-9 * BARRIER.height
    # n₀ = 6: 3 T of the barrier is lost, at T about ΔF/30 a tenth of it. By hand, with numpy's own fit:
    slope = np.polyfit(1 / T, np.log(LAW), 1)[0]
    assert result.apparent_barrier == pytest.approx(slope, rel=1e-9)
    assert result.relative == pytest.approx(-0.1, rel=0.05)
    assert result.leading_order == pytest.approx(-3 / np.mean(1 / T))
    # The leading order is that of a narrow range …
    narrow = straight_line_misreading(BARRIER, T[0] * np.array([0.999, 1.0, 1.001]))
    assert narrow.difference == pytest.approx(narrow.leading_order, rel=1e-4)
    # … and over a wide one the exact number differs from it.
    wide = straight_line_misreading(BARRIER, T[0] * np.geomspace(0.1, 1, 6))
    assert abs(wide.difference / wide.leading_order - 1) > 0.01


def test_weights_move_the_line():
    hot = straight_line_misreading(BARRIER, T, relative_error=np.where(T > np.median(T), 0.01, 1.0))
    cold = straight_line_misreading(BARRIER, T, relative_error=np.where(T > np.median(T), 1.0, 0.01))
    # n₀T/2 is larger where it is hotter.
    assert hot.difference < cold.difference < 0
    same = straight_line_misreading(BARRIER, T, relative_error=0.3)
    assert same.difference == pytest.approx(straight_line_misreading(BARRIER, T).difference, rel=1e-9)


@pytest.mark.parametrize("system", [CHAIN.mode, CHAIN])
def test_exact_laws_have_a_slope_of_their_own(system):
    """Even without zero modes the exact curve's slope is not ΔF: its corrections in T/ΔF bend it."""
    barrier = system.barrier()
    temperatures = barrier.height / np.array([4.0, 6.0, 8.0])
    target = kg.beyond(barrier)
    result = straight_line_misreading(
        barrier, temperatures, mean=lambda t: kg.exit_time(system, temperature=t, target=target).mean
    )
    assert result.leading_order == 0
    assert result.apparent_barrier == result.with_power
    # τk = 1 + c T/ΔF with c ≈ 0.4 falls with 1/T: the slope is too small by about c T (T/ΔF) ~ 1 to 2 %.
    assert -0.03 < result.relative < -0.005
    tabulated = [kg.exit_time(system, temperature=t, target=target).mean for t in temperatures]
    assert straight_line_misreading(barrier, temperatures, mean=tabulated) == result


def test_data_prefer_the_right_power_and_only_it_covers_the_barrier():
    rng = np.random.default_rng(1)
    covered = {"straight": 0, "with_power": 0}
    likelihood = []
    for _ in range(400):
        measured = LAW * np.exp(0.02 * rng.normal(size=T.size))
        result = compare_prefactors(T, measured, 0.02 * measured, prefactor_power=3.0)
        for name, (low, high) in (
            ("straight", result.straight_interval),
            ("with_power", result.with_power_interval),
        ):
            covered[name] += low <= BARRIER.height <= high
        likelihood.append(result.log_likelihood_difference)
        assert result.barrier_difference == pytest.approx(result.with_power.barrier - result.straight.barrier)
    assert scipy.stats.binomtest(covered["with_power"], 400, 0.95).pvalue > ALPHA
    assert covered["straight"] == 0
    # R² does not warn of a slope that is wrong by a tenth; the likelihood does.
    assert result.straight.r_squared > 0.999
    assert min(likelihood) > 3


def test_free_power_finds_both_and_says_how_badly():
    rng = np.random.default_rng(2)
    wide = BARRIER.height / np.geomspace(5.0, 80.0, 8)
    law = wide**3.0 * np.exp(BARRIER.height / wide)
    pulls = []
    for _ in range(500):
        fit = free_power_fit(wide, law * np.exp(0.02 * rng.normal(size=8)), 0.02 * law)
        pulls.append([(fit.barrier - BARRIER.height) / fit.barrier_standard_error,
                      (fit.power - 3.0) / fit.power_standard_error])  # fmt: skip
    for column in np.transpose(pulls):
        assert scipy.stats.kstest(column, "norm").pvalue > ALPHA
    np.testing.assert_allclose(free_power_fit(wide, law, 0.02 * law).predict(wide), law, rtol=1e-8)
    narrow = free_power_fit(T, LAW, 0.02 * LAW)
    assert abs(narrow.correlation) > 0.98
    fixed = arrhenius_fit(T, LAW, 0.02 * LAW, prefactor_power=3.0)
    assert narrow.barrier_standard_error > 5 * fixed.barrier_standard_error


def test_refusals():
    with pytest.raises(InvalidParameterError, match="expected at least 3"):
        free_power_fit([0.1, 0.2, 0.2], [3.0, 2.0, 2.0], [0.1, 0.1, 0.1])
    with pytest.raises(InvalidParameterError, match="expected at least 2"):
        straight_line_misreading(BARRIER, [0.1])
    with pytest.raises(InvalidParameterError, match="`mean`"):
        straight_line_misreading(BARRIER, T, mean=[np.nan] * 6)
    with pytest.raises(InvalidParameterError, match="`confidence`"):
        compare_prefactors(T, LAW, LAW, prefactor_power=3.0, confidence=95)
