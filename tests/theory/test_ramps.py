"""Ramps of the weight decay: adiabatic and driven predictions against each other, exact limits and closed forms.

What compared results share: `adiabatic_ramp` the rates of `exit_time`, `driven_ramp` only the mode's free energy with
them; `spinodal_switching` nothing but the free energy with either. Simulations are compared in `tests/escape`.
"""

import numpy as np
import pytest

from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError
from kramers_grok.core.region import Region
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.driven import Driving, drive
from kramers_grok.theory.exit_times import exit_time
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise
from kramers_grok.theory.ramps import (
    Ramp,
    adiabatic_ramp,
    driven_ramp,
    ramp_loop,
    ramp_rates,
    ramp_start,
    ramp_target,
    spinodal_switching,
)
from kramers_grok.theory.rate_table import rate_table

MODE = Mode(3, 1.0, 0.25)
CHAIN = DeepLinearChain(3, 1.0, 0.25)
HEAT = 0.002


# ------------------------------------------------------------------------------------------ the driven equation


@pytest.mark.parametrize(("heat", "tolerance"), [(0.0015, 3e-4), (0.003, 3e-4)])
def test_a_mode_held_still_has_its_exact_survival(heat, tolerance):
    target = Region(0.3)
    exact = exit_time(MODE, temperature=heat, target=target)
    still = Driving.constant(MODE, temperature=heat, duration=2 * exact.mean, pieces=400)
    found = drive(MODE, still, target=target, start=0.0)
    assert found.survival == pytest.approx(exact.survival(found.times), abs=tolerance)


def test_a_closed_mode_keeps_its_probability_and_finds_boltzmanns_weights():
    still = Driving.constant(MODE, temperature=0.004, duration=2e5, pieces=300)
    found = drive(MODE, still, target=None, start=0.0)
    assert found.survival[-1] == pytest.approx(1.0, abs=1e-9)
    x = np.linspace(-1.0, 2.5, 40_001)
    m = (x / np.sqrt(3)) ** 3
    weight = np.exp(-(0.5 * (1 - m) ** 2 + 0.125 * x**2) / 0.004)
    expected = float(weight @ m / weight.sum())
    assert float(found.probability @ found.order_parameter) == pytest.approx(expected, abs=2e-3)


def test_minibatch_noise_and_step_enter_as_in_the_static_exit_time():
    # On the way to forgetting, where minibatch noise is strongest
    mode, target = Mode(3, 1.0, 0.43), Region(0.02, above=False)
    noise = MinibatchNoise(0.004, GaussianResidualVariance(1.0, 1.0, 0.5))
    exact = exit_time(mode, temperature=HEAT, target=target, step=0.05, monitored=True, minibatch=noise)
    without = exit_time(mode, temperature=HEAT, target=target, step=0.05, monitored=True).mean
    ones = np.ones(300)
    driving = Driving(2 * exact.mean / 300 * ones, 0.43 * ones, HEAT * ones, 0.05 * ones, 0.004 * ones)
    start = float(np.sqrt(3) * mode.learned_amplitude())
    found = drive(mode, driving, target=target, start=start, residual_variance=noise.residual_variance, monitored=True)
    assert found.survival == pytest.approx(exact.survival(found.times), abs=1e-3)
    assert abs(without / exact.mean - 1) > 0.1  # the noise left out would be seen


def test_driving_refuses_what_makes_no_sense():
    with pytest.raises(InvalidParameterError, match="shapes"):
        Driving(np.ones(2), np.ones(3), np.ones(2), np.ones(2), np.ones(2))
    with pytest.raises(InvalidParameterError, match="> 0"):
        Driving(np.ones(2), np.zeros(2), np.ones(2), np.ones(2), np.ones(2))
    still = Driving.constant(MODE, temperature=HEAT, duration=1.0, pieces=1)
    with pytest.raises(InvalidParameterError, match="mirror"):
        drive(Mode(4, 1.0, 0.2), still, target=Region(0.3), start=0.0)
    with pytest.raises(InvalidParameterError, match="in the target"):
        drive(MODE, still, target=Region(0.3), start=1.6)


# ------------------------------------------------------------------------------------------ tables of rates


def test_the_table_holds_exact_rates_of_mode_and_chain():
    target = Region(0.3)
    table = rate_table(
        CHAIN, target=target, temperatures=(0.002, 0.004), weight_decays=(0.22, 0.28), points=7, ratio_nodes=3
    )
    for heat, decay in ((0.0025, 0.25), (0.0037, 0.23)):
        exact = exit_time(DeepLinearChain(3, 1.0, decay), temperature=heat, target=target).rate
        mode = exit_time(Mode(3, 1.0, decay), temperature=heat, target=target).rate
        assert table(heat, decay) == pytest.approx(exact, rel=3e-3)
        assert table.over_mode(heat, decay) == pytest.approx(exact / mode, rel=3e-3)
    with pytest.raises(InvalidParameterError, match="temperature"):
        table(0.005, 0.25)


def test_the_chain_has_no_rate_beyond_its_spinodal():
    with pytest.raises(InvalidParameterError, match="spinodal"):
        rate_table(CHAIN, target=Region(0.01, above=False), temperatures=HEAT, weight_decays=(0.45, 0.5), points=4)


# ------------------------------------------------------------------------------------------ ramps


def test_slow_ramps_are_adiabatic_and_fast_ones_say_so():
    errors = []
    for rate in (1e-4, 1e-5, 1e-6):
        ramp = Ramp(0.42, 0.52, rate)
        law, moving = adiabatic_ramp(MODE, ramp, temperature=HEAT), driven_ramp(MODE, ramp, temperature=HEAT)
        errors.append(np.abs(law.survival(moving.times) - np.exp(moving.log_survival)).max())
        assert bool(law.warnings) == (rate > 1e-5)
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 1.5e-3


def test_the_disappearance_scales_as_garg_says():
    # Asymptotic in small T; the distance from the spinodal is 0.027 and 0.010
    for heat, rate, tolerance in ((0.002, 1e-6, 0.012), (0.0005, 1e-6, 0.008)):
        ramp = Ramp(0.43 if heat < 0.001 else 0.40, 0.49, rate)
        moving = driven_ramp(MODE, ramp, temperature=heat)
        mean, deviation = spinodal_switching(MODE, rate=rate, temperature=heat)
        distance = MODE.spinodal() - moving.mean_weight_decay
        assert MODE.spinodal() - mean == pytest.approx(distance, rel=tolerance + 0.01)
        assert deviation == pytest.approx(moving.standard_deviation, rel=0.03)
    with pytest.raises(InvalidParameterError, match="rate"):
        spinodal_switching(MODE, rate=1e-2, temperature=1e-4)


def test_slower_ramps_make_narrower_loops_and_heat_does_too():
    widths = [ramp_loop(MODE, rate=r, temperature=HEAT, low=0.05, high=0.52).width for r in (1e-4, 1e-5)]
    assert widths[0] > widths[1] + 0.03
    assert ramp_loop(MODE, rate=1e-5, temperature=2 * HEAT, low=0.05, high=0.52).width < widths[1] - 0.03


def test_the_chain_learns_earlier_than_its_mode_on_the_way_down():
    # Four saddles for one: twice the rate (both exits of a well count once), so λ is higher by half a spread
    ramp = Ramp(0.4, 0.05, 1e-4)
    chain, mode = (ramp_rates(s, ramp, temperature=HEAT, ratio_nodes=2) for s in (CHAIN, MODE))
    laws = [adiabatic_ramp(s, ramp, temperature=HEAT, rates=r) for s, r in ((CHAIN, chain), (MODE, mode))]
    assert laws[0].mean_weight_decay > laws[1].mean_weight_decay + 0.3 * laws[1].standard_deviation
    both = driven_ramp(CHAIN, ramp, temperature=HEAT, rates=chain)
    assert both.mean_weight_decay == pytest.approx(laws[0].mean_weight_decay, abs=2e-3)


def test_targets_stand_beyond_the_barrier_all_along():
    down, up = Ramp(0.45, 0.05, 1e-3), Ramp(0.36, 0.47, 1e-3)
    learn, forget = ramp_target(MODE, down), ramp_target(MODE, up)
    assert learn == Region(0.25)
    for decay in np.linspace(0.05, 0.47, 20):
        mode = Mode(3, 1.0, float(decay))
        assert mode.saddle_amplitude() ** 3 < learn.threshold < mode.learned_amplitude() ** 3
        if decay >= up.start:
            assert 0 < forget.threshold < mode.saddle_amplitude() ** 3
    assert not forget.above
    assert ramp_start(CHAIN, down).tolist() == [0.0] * 3
    assert ramp_start(MODE, up)[0] == pytest.approx(np.sqrt(3) * Mode(3, 1.0, 0.36).learned_amplitude())
    with pytest.raises(NoBarrierError):
        ramp_target(MODE, Ramp(0.48, 0.5, 1e-3))


def test_a_law_is_a_distribution():
    law = adiabatic_ramp(MODE, Ramp(0.4, 0.05, 1e-4), temperature=HEAT)
    grid = np.linspace(0.05, 0.4, 4001)
    assert np.trapezoid(law.density_at(grid), grid) == pytest.approx(1.0, abs=1e-3)
    assert np.trapezoid(grid * law.density_at(grid), grid) == pytest.approx(law.mean_weight_decay, abs=1e-4)
    assert law.survival_at(law.quantile(0.3)) == pytest.approx(0.7, abs=1e-6)
    assert law.ramp.weight_decay(law.mean) == pytest.approx(law.mean_weight_decay)
    short = adiabatic_ramp(MODE, Ramp(0.4, 0.24, 1e-4), temperature=HEAT)
    assert 0.1 < short.censored < 0.9
    with pytest.raises(InvalidParameterError, match="stay until"):
        short.quantile(0.99)


def test_where_nothing_leaves_there_is_no_law():
    with pytest.raises(InvalidParameterError, match="leaves on the way"):
        adiabatic_ramp(MODE, Ramp(0.4, 0.35, 1e-3), temperature=0.001)
    with pytest.raises(InvalidParameterError):
        Ramp(0.4, 0.4, 1e-3)
