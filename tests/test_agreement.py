"""Theory, Langevin and SGD against each other, with no fitted parameter.

What is shared, so that agreement is read rightly: Langevin and SGD share generator, compiled step and first passage
(each tested against plain Python loops elsewhere); the exact times share nothing with them but the landscape.

False alarms: every joint χ² and KS passes at p > 1e-3 for a right code; the seeds were fixed beforehand, so a failure
now is a change of the code, not chance. Power: with 4096 replicas a mean is known to 1.6 %, and a temperature wrong
by 20 % changes it by 50 % or more, which the negative controls show.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import xarray as xr

import kramers_grok as kg
from kramers_grok.analysis.arrhenius import compare_laws, slope_difference
from kramers_grok.analysis.hypotheses import chi_square_joint, ks_test
from kramers_grok.theory.exit_law import ExitTime
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise

N = 4096
LABEL_NOISE = 0.1
CHAIN = kg.DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
BARRIER = CHAIN.barrier()
TARGET = kg.beyond(BARRIER)


@dataclass(frozen=True)
class Point:
    """One run: ΔF/T, step and batch size (0: Langevin)."""

    ratio: float
    step: float
    batch_size: int = 0

    @property
    def temperature(self) -> float:
        return BARRIER.height / self.ratio


MODE = (Point(2.5, 0.1), Point(3.5, 0.1), Point(4.5, 0.2))
LANGEVIN = (Point(2.5, 0.1), Point(3.5, 0.2), Point(4.5, 0.1))
# Two learning rates and four batch sizes; ΔF/T = 3 is reached by two pairs with the same lr/batch.
SGD = (Point(3.0, 0.1, 24), Point(3.0, 0.05, 12), Point(4.0, 0.1, 32), Point(4.5, 0.05, 18))


def predicted(point: Point, system: object = CHAIN, temperature_factor: float = 1.0) -> ExitTime:
    noise = None
    if point.batch_size:
        residual = GaussianResidualVariance(1.0, 1.0, LABEL_NOISE)
        noise = MinibatchNoise(lr_over_batch=point.step / point.batch_size, residual_variance=residual)
    return kg.exit_time(
        system,
        temperature=point.temperature * temperature_factor,
        target=TARGET,
        step=point.step,
        monitored=bool(point.batch_size),
        minibatch=noise,
    )


@cache
def run(point: Point, mode: bool = False, seed: int = 20261122) -> xr.Dataset:
    if point.batch_size:
        process = kg.SGD(
            CHAIN,
            kg.teacher(label_noise=LABEL_NOISE),
            lr=point.step,
            batch_size=point.batch_size,
            noise=kg.per_sample(temperature=point.temperature),
        )
    else:
        system = CHAIN.mode if mode else CHAIN
        process = kg.Langevin(system, temperature=point.temperature, dt=point.step)
    horizon = 12 * kg.exit_time(CHAIN.mode, temperature=point.temperature, target=TARGET).mean
    return kg.first_passage(process, target=TARGET, n_replicas=N, max_time=horizon, seed=seed)


def joint_p(points: tuple[Point, ...], mode: bool = False, temperature_factor: float = 1.0) -> float:
    estimates = [kg.mean_exit_time(run(p, mode)) for p in points]
    system = CHAIN.mode if mode else CHAIN
    theory = [predicted(p, system, temperature_factor).mean for p in points]
    return chi_square_joint([e.value for e in estimates], theory, [e.standard_error for e in estimates]).p_value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("points", "mode"), [(MODE, True), (LANGEVIN, False), (SGD, False)], ids=["mode", "chain", "sgd"]
)
def test_mean_times_agree_with_the_exact_ones(points: tuple[Point, ...], mode: bool) -> None:
    assert joint_p(points, mode) > 1e-3
    assert joint_p(points, mode, temperature_factor=1.2) < 1e-10  # a temperature wrong by 20 % must fail
    assert joint_p(points, mode, temperature_factor=0.5) < 1e-10  # so must noise √T where √(2T) is meant


@pytest.mark.slow
@pytest.mark.parametrize(
    ("points", "mode"), [(MODE, True), (LANGEVIN, False), (SGD, False)], ids=["mode", "chain", "sgd"]
)
def test_survival_curves_agree_with_the_exact_ones(points: tuple[Point, ...], mode: bool) -> None:
    point = points[-1]
    system = CHAIN.mode if mode else CHAIN
    assert ks_test(run(point, mode), predicted(point, system).survival).p_value > 1e-3
    assert ks_test(run(point, mode), predicted(point, system, 1.2).survival).p_value < 1e-10


@pytest.mark.slow
def test_two_pairs_with_one_lr_over_batch_coincide() -> None:
    """T = lr·g²/(2B) depends on lr/batch only; the steps' own effects are divided out by theory."""
    first, second = SGD[0], SGD[1]
    a, b = (kg.mean_exit_time(run(p)) for p in (first, second))
    correction = predicted(first).mean / predicted(second).mean
    z = (a.value - correction * b.value) / np.hypot(a.standard_error, correction * b.standard_error)
    assert abs(z) < 3.3  # p = 1e-3


@pytest.mark.slow
def test_extrapolation_in_the_step_reaches_the_continuous_time() -> None:
    """Richardson on two steps, without the modified equation: an independent way to the same number.

    What is left is O(dt²), about (λ·dt)² = 2.5e-3 at the larger step, below the error of 0.06.
    """
    coarse, fine = Point(3.0, 0.2), Point(3.0, 0.1)
    a, b = kg.mean_exit_time(run(coarse)), kg.mean_exit_time(run(fine, seed=7))
    extrapolated = 2 * b.value - a.value
    error = np.hypot(2 * b.standard_error, a.standard_error)
    exact = kg.exit_time(CHAIN, temperature=fine.temperature, target=TARGET).mean
    assert error / exact < 0.06
    assert abs(extrapolated - exact) < 3.3 * error
    wrong = kg.exit_time(CHAIN, temperature=1.2 * fine.temperature, target=TARGET).mean
    assert abs(extrapolated - wrong) > 5 * error


def test_a_horizon_ignored_is_noticed() -> None:
    """Negative control: averaging censored times as if they were escapes fails, the censored estimate does not."""
    point = LANGEVIN[0]
    full = run(point)
    horizon = predicted(point).mean
    cut = full.copy()
    cut["escaped"] = full.escaped & (full.exit_time <= horizon)
    cut["exit_time"] = full.exit_time.clip(max=horizon)
    cut = cut.assign_coords(horizon=horizon)
    lag = 0.2 * horizon  # the way down from the barrier; beyond it the hazard is constant
    estimate = kg.mean_exit_time(cut, burn_in=lag)
    assert abs(estimate.value - horizon) < 3.3 * estimate.standard_error
    naive = float(cut.exit_time.mean())
    assert abs(naive - horizon) > 10 * estimate.standard_error


@pytest.mark.slow
def test_arrhenius_slope_and_law() -> None:
    """The slope agrees with the same fit of the predicted curve, and a power law is far less likely."""
    points = (*SGD, Point(2.5, 0.1, 20), Point(5.0, 0.1, 40))
    estimates = [kg.mean_exit_time(run(p)) for p in points]
    temperatures = [p.temperature for p in points]
    laws = compare_laws(temperatures, [e.value for e in estimates], [e.standard_error for e in estimates])
    theory = laws.arrhenius.refit([predicted(p).mean for p in points])
    assert abs(slope_difference(laws.arrhenius, theory).z) < 3.3
    assert laws.log_likelihood_difference > 10
    off = laws.arrhenius.refit([predicted(p, temperature_factor=1.2).mean for p in points])
    assert abs(slope_difference(laws.arrhenius, off).z) > 5
    # Negative control: data that follow a power law are recognised as such.
    powers = np.asarray(temperatures) ** -5.0
    assert compare_laws(temperatures, powers, 0.016 * powers).log_likelihood_difference < -10


def test_full_batch_descent_never_escapes() -> None:
    starts = np.random.default_rng(0).normal(scale=0.08, size=(64, 3))
    result = kg.first_passage(
        kg.SGD(CHAIN, kg.population(), lr=0.1), target=TARGET, n_replicas=64, max_time=5000.0, seed=0, start=starts
    )
    assert not result.escaped.any()
    # Control: the same starts with noise do escape.
    noisy = kg.Langevin(CHAIN, temperature=BARRIER.height / 2, dt=0.1)
    assert kg.first_passage(noisy, target=TARGET, n_replicas=64, max_time=5000.0, seed=0, start=starts).escaped.all()
