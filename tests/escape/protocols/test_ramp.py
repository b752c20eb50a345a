"""Ramps under SGD: measured laws against predicted ones, with what must fail beside what must hold.

Simulation and prediction share the mode's free energy and the definition of temperature and target, nothing else. Each
statistical test is held at a false-alarm rate of 1e-5. Power: with 400 replicas a mean λ is known to 5 % of the law's
width, and a temperature wrong by 20 % moves it by 30 to 60 % of that width.
"""

import numpy as np
import pytest
import xarray as xr

from kramers_grok.analysis.hypotheses import ks_test
from kramers_grok.analysis.loop_width import hysteresis_width
from kramers_grok.core.exceptions import InvalidParameterError, TooFewEscapesError
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region
from kramers_grok.core.schedules import Linear
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.protocols.ramp import ramp as run_ramp
from kramers_grok.models.data import population, teacher
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.ramps import Ramp, driven_ramp

FALSE_ALARM = 1e-5
MODE = Mode(3, 1.0, 0.25)
HEAT, LR, BATCH, LABEL_NOISE = 0.003, 0.1, 64, 0.1
VARIANCE = 2 * HEAT * BATCH / LR
NOISY = SGD(
    MODE, teacher(label_noise=LABEL_NOISE), lr=LR, batch_size=BATCH, noise=per_sample(variance=VARIANCE), device="cpu"
)
STILL = SGD(MODE, population(), lr=LR, device="cpu")
RAMPS = {"down": Ramp(0.4, 0.03, 5e-4), "up": Ramp(0.37, 0.56, 5e-4)}


def predicted(ramp, factor=1.0):
    """Law at `factor` times the temperature, with everything that the runs have: step, borders, minibatches."""
    return driven_ramp(
        MODE,
        ramp,
        temperature=factor * HEAT,
        step=LR,
        monitored=True,
        noise_variance=VARIANCE,
        residual_variance=GaussianResidualVariance(1.0, 1.0, LABEL_NOISE),
    )


@pytest.fixture(scope="module")
def runs():
    return {name: run_ramp(NOISY, ramp, n_replicas=1000, seed=11) for name, ramp in RAMPS.items()}


@pytest.mark.parametrize("direction", ["down", "up"])
def test_the_measured_law_is_the_predicted_one_and_no_other(runs, direction):
    run, ramp = runs[direction], RAMPS[direction]
    assert ks_test(run, predicted(ramp).survival).p_value > FALSE_ALARM
    assert ks_test(run, predicted(ramp, 1.3).survival).p_value < FALSE_ALARM
    assert ks_test(run, predicted(ramp, 0.7).survival).p_value < FALSE_ALARM


def test_the_loop_has_its_predicted_width(runs):
    found = hysteresis_width(runs["up"], runs["down"], confidence=1 - FALSE_ALARM)
    laws = {name: predicted(ramp) for name, ramp in RAMPS.items()}
    width = laws["up"].mean_weight_decay - laws["down"].mean_weight_decay
    # The predicted step correction is of first order: 1 % of the width is allowed for it
    assert found.lower - 0.01 * width < width < found.upper + 0.01 * width
    assert 0 < found.value < MODE.spinodal()


def test_a_slower_ramp_makes_a_narrower_loop(runs):
    slow = {
        name: run_ramp(NOISY, Ramp(ramp.start, ramp.stop, ramp.rate / 5), n_replicas=300, seed=12)
        for name, ramp in RAMPS.items()
    }
    wide, narrow = hysteresis_width(runs["up"], runs["down"]), hysteresis_width(slow["up"], slow["down"])
    error = np.hypot(wide.standard_error, narrow.standard_error)
    assert narrow.value < wide.value - 5 * error


@pytest.mark.parametrize("rate", [1e-3, 1e-4])
def test_without_noise_the_feature_goes_at_its_spinodal_and_never_returns(rate):
    up = run_ramp(STILL, Ramp(0.37, 0.52, rate), n_replicas=1, seed=0)
    late = float(up.weight_decay_at_exit[0]) - MODE.spinodal()
    # The passage through the fold takes a time that goes as rate^(-1/3): λ is late by rate^(2/3)
    assert 0.5 < late / rate ** (2 / 3) < 4
    down = run_ramp(STILL, Ramp(0.4, 0.03, rate), n_replicas=1, seed=0, start=[0.05], settling_time=0.0)
    assert not bool(down.escaped[0])
    assert float(down.weight_decay_at_exit[0]) == pytest.approx(0.03)


def test_lambda_at_the_exit_is_the_one_of_that_step(runs):
    for name, ramp in RAMPS.items():
        run, table = runs[name], ramp.schedule(LR)
        left = run.escaped.values
        steps = np.rint(run.exit_time.values[left] / LR).astype(int) - 1
        assert run.weight_decay_at_exit.values[left] == pytest.approx(table(steps), rel=1e-12)
        assert float(run.ramp_rate) == ramp.rate


def test_mode_and_balanced_start_of_the_chain_are_accepted_and_the_rest_is_refused():
    chain = SGD(DeepLinearChain(3, 1.0, 0.25), population(), lr=LR, device="cpu")
    lost = run_ramp(chain, Ramp(0.4, 0.55, 2e-3), n_replicas=2, seed=0)
    assert lost.escaped.all()
    with pytest.raises(InvalidParameterError, match="one number"):
        run_ramp(NOISY.replace(lr=Linear(0.1, 0.05, 10)), RAMPS["down"], n_replicas=2, seed=0)
    with pytest.raises(InvalidParameterError, match="settled"):
        run_ramp(NOISY, Ramp(0.02, 0.01, 1e-3), n_replicas=50, seed=0, target=Region(0.25))


def test_a_width_needs_nearly_all_replicas():
    run = xr.Dataset({"weight_decay_at_exit": ("replica", [0.4, 0.5]), "escaped": ("replica", [True, False])})
    with pytest.raises(TooFewEscapesError, match="99 %"):
        hysteresis_width(run, run)
