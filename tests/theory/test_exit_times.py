"""Exact exit times in one dimension: quadrature, distribution, time step, the mode."""

import pickle
import warnings
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kramers_grok.core.exceptions import InvalidParameterError, ValidityWarning
from kramers_grok.core.region import Region, beyond
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.exit_times import (
    Diffusion,
    Interval,
    MinibatchNoise,
    ModeDynamics,
    discrete_mean_exit,
    exit_curve,
    exit_time,
    lr_over_batch_for,
    mean_exit,
    minibatch_mode_exit_time,
    splitting_probability,
    temperature_for,
)
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.time_step import ModifiedEquation, monitoring_shift

MODE = Mode(depth=3, singular_value=1.0, weight_decay=0.25)
HEIGHT = MODE.barrier().height


def double_well(temperature, scale=1.0):
    """V = scale · (x² − 1)²."""
    return Diffusion(lambda x: -4 * scale * x * (x**2 - 1), temperature)


def free(diffusion):
    return Diffusion(lambda x: 0 * x, diffusion)


def mp_mean(phi, diffusion, wall, start, target, panels=25):
    """∫dy e^Φ(y) ∫dz e^−Φ(z)/𝒟(z) for an upper target, in mpmath's arithmetic, composite Gauss rules."""
    nodes, weights = np.polynomial.legendre.leggauss(16)

    def integral(function, low, high):
        middle, half = (low + high) / 2, (high - low) / 2
        return half * mp.fsum(w * function(middle + half * x) for x, w in zip(nodes, weights, strict=True))

    def weight(z):
        return mp.exp(-phi(z)) / diffusion(z)

    edges = [mp.mpf(e) for e in wall]
    inner = mp.fsum(integral(weight, low, high) for low, high in pairwise(edges))
    step, total = (mp.mpf(target) - mp.mpf(start)) / panels, mp.mpf(0)
    for number in range(panels):
        low, below = start + number * step, inner
        total += integral(
            lambda y, low=low, below=below: mp.exp(phi(y)) * (below + integral(weight, low, y)), low, low + step
        )
        inner += integral(weight, low, low + step)
    return total


# ------------------------------------------------------------------------------------------ golden numbers


@pytest.mark.parametrize(
    ("temperature", "scale", "target", "expected"),
    [
        (1 / 3, 1.0, 0.0, 12.698350),
        (1 / 5, 1.0, 0.0, 90.475940),
        (1 / 3, 1.0, 1.0, 26.640088),
        (1 / 5, 1.0, 1.0, 182.417673),
        (0.05, 0.25, 0.0, 361.903760),
        (0.05, 0.25, 1.0, 729.670692),
    ],
)
def test_double_well_golden(temperature, scale, target, expected):
    result = mean_exit(double_well(temperature, scale), Interval(-1.0, upper=target))
    assert result.mean == pytest.approx(expected, abs=6e-7)
    assert result.relative_error < 1e-12


def test_ornstein_uhlenbeck_golden():
    assert mean_exit(Diffusion(lambda x: -x, 0.1), Interval(0.0, upper=0.5)).mean == pytest.approx(5.2406924, abs=6e-8)


def test_brownian_motion_closed_forms():
    for x in (-0.9, 0.0, 0.3):
        result = mean_exit(free(0.25), Interval(x, lower=-1.0, upper=1.0))
        assert result.mean == pytest.approx((1 - x**2) / 0.5, rel=1e-12)
        assert result.probability_upper == pytest.approx((1 + x) / 2, rel=1e-12)
    curve = exit_curve(free(0.25), Interval(0.0, lower=-1.0, upper=1.0))
    mean, variance = curve.moments()
    assert np.sqrt(variance) / mean == pytest.approx(np.sqrt(2 / 3), rel=1e-5)


def test_wall_reflects():
    # From a wall at 0 to L: L²/2𝒟
    assert mean_exit(free(0.25), Interval(0.0, upper=2.0, wall=0.0)).mean == pytest.approx(8.0, rel=1e-12)
    assert mean_exit(free(0.25), Interval(1.0, lower=0.0, wall=1.0)).mean == pytest.approx(2.0, rel=1e-12)


# ------------------------------------------------------------------------------------------ mpmath


@pytest.mark.parametrize("ratio", [5, 60])
def test_double_well_against_mpmath(ratio):
    with mp.workdps(25):
        exact = mp_mean(
            lambda x: ratio * (x**2 - 1) ** 2, lambda x: mp.mpf(1) / ratio, np.linspace(-2.5, -1, 31), -1.0, 0.0
        )
    result = mean_exit(double_well(1 / ratio), Interval(-1.0, upper=0.0))
    assert result.log_mean == pytest.approx(float(mp.log(exact)), abs=1e-11)


def test_state_dependent_noise_against_mpmath():
    # 𝒟 = T(1 + x²), b = −x: Φ = ln(1 + x²)/2T, known in closed form
    temperature = 0.05
    with mp.workdps(25):
        exact = mp_mean(
            lambda x: mp.log(1 + x**2) / (2 * mp.mpf(0.05)),
            lambda x: mp.mpf(0.05) * (1 + x**2),
            -np.append(np.geomspace(100, 0.25, 60), 0.0),
            0.0,
            1.0,
        )
    process = Diffusion(lambda x: -x, lambda x: temperature * (1 + x**2))
    assert mean_exit(process, Interval(0.0, upper=1.0)).mean == pytest.approx(float(exact), rel=1e-10)


def test_no_overflow_at_enormous_barriers():
    result = mean_exit(double_well(1 / 2000), Interval(-1.0, upper=0.0))
    # Kramers: π/√(V″V″)·… → ln τ − ΔV/T → ln(2π/√(8·4)/2), corrections O(T)
    assert result.log_mean - 2000 == pytest.approx(np.log(np.pi / np.sqrt(32)), abs=1e-3)


# ------------------------------------------------------------------------------------------ properties


@settings(max_examples=8)
@given(st.floats(2, 40), st.floats(-1.2, 0.2), st.floats(0.25, 0.9))
def test_mirror_image(ratio, start, target):
    process = Diffusion(lambda x: -4 * x * (x**2 - 1) - 0.3, lambda x: (1 + 0.5 * x**2) / ratio)
    mirror = Diffusion(lambda x: -(-4 * -x * (x**2 - 1) - 0.3), lambda x: (1 + 0.5 * x**2) / ratio)
    right = mean_exit(process, Interval(start, upper=target)).log_mean
    left = mean_exit(mirror, Interval(-start, lower=-target)).log_mean
    assert left == pytest.approx(right, abs=1e-10)


@settings(max_examples=8)
@given(st.floats(0.1, 10), st.floats(0.1, 10))
def test_mean_scales_with_mobility_and_length(mobility, length):
    reference = mean_exit(double_well(0.1), Interval(-1.0, upper=0.8)).mean
    scaled = Diffusion(
        lambda x: -4 * mobility * length * (x / length) * ((x / length) ** 2 - 1), 0.1 * mobility * length**2
    )
    result = mean_exit(scaled, Interval(-length, upper=0.8 * length)).mean
    assert result * mobility == pytest.approx(reference, rel=1e-10)


@settings(max_examples=8)
@given(st.floats(-0.95, -0.3), st.floats(-0.2, 0.2))
def test_mean_is_additive_in_targets(start, middle):
    # Strong Markov: every path to the end passes the middle
    process = double_well(0.07)
    whole = mean_exit(process, Interval(start, upper=0.9)).mean
    parts = (
        mean_exit(process, Interval(start, upper=middle)).mean + mean_exit(process, Interval(middle, upper=0.9)).mean
    )
    assert parts == pytest.approx(whole, rel=1e-10)


@settings(max_examples=8)
@given(st.floats(-0.7, 0.7), st.floats(0.02, 2.0))
def test_two_sided_exit_against_one_sided(start, temperature):
    # τ(x → b) = τ(x → a or b) + P(a first) τ(a → b)
    process = double_well(temperature)
    both = mean_exit(process, Interval(start, lower=-0.8, upper=0.9))
    one = mean_exit(process, Interval(start, upper=0.9)).mean
    rest = (1 - both.probability_upper) * mean_exit(process, Interval(-0.8, upper=0.9)).mean
    assert both.mean + rest == pytest.approx(one, rel=1e-9)
    assert splitting_probability(process, start, -0.8, 0.9) == pytest.approx(both.probability_upper, abs=1e-12)


# ------------------------------------------------------------------------------------------ distribution


def test_survival_of_brownian_motion():
    mean = mean_exit(free(0.5), Interval(0.0, lower=-1.0, upper=1.0)).mean
    curve = exit_curve(free(0.5), Interval(0.0, lower=-1.0, upper=1.0))
    t = np.array([0.02, 0.1, 0.3, 1.0, 3.0, 8.0])
    k = 2 * np.arange(200) + 1
    weights = 4 / np.pi / k * (-1.0) ** np.arange(200)
    decay = np.exp(-np.outer(t, k**2 * np.pi**2 / 8))
    np.testing.assert_allclose(curve.survival(t), decay @ weights, atol=1e-5)
    np.testing.assert_allclose(curve.density(t), decay @ (weights * k**2 * np.pi**2 / 8), atol=1e-4)
    assert curve.moments()[0] == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("start", [-1.0, -0.2, 0.3])
def test_tail_and_mean_agree_without_being_matched(start):
    # The tail's rate is set by the exact mean; the integrated equation knows the rate independently
    curve = exit_curve(double_well(0.2), Interval(start, upper=0.8))
    own_rate = -curve.derivatives[-1, 1] / curve.derivatives[-1, 0]
    assert own_rate == pytest.approx(curve.tail_rate, rel=1e-6)


def test_survival_at_a_high_barrier():
    process = double_well(1 / 60)
    mean = mean_exit(process, Interval(-1.0, upper=0.8)).mean
    curve = exit_curve(process, Interval(-1.0, upper=0.8))
    assert curve.survival(np.array(mean)) == pytest.approx(np.exp(-1), rel=1e-9)
    # From the top half of the paths fall to the other side at once
    top = exit_curve(process, Interval(0.0, upper=0.8))
    assert top.survival(np.array(100.0)) == pytest.approx(0.5, abs=1e-4)


def test_exit_time_object():
    result = exit_time(MODE, temperature=HEIGHT / 5, target=Region(0.1))
    t = np.linspace(0, 20 * result.mean, 20001)
    survival = result.survival(t)
    assert survival[0] == 1
    assert (np.diff(survival) <= 0).all()
    assert np.trapezoid(survival, t) == pytest.approx(result.mean, rel=1e-4)
    assert np.trapezoid(result.density(t), t) == pytest.approx(1, rel=1e-4)
    for p in (1e-3, 0.1, 0.5, 0.99):
        assert result.survival(result.quantile(p)) == pytest.approx(1 - p, abs=1e-9)
    assert result.rate == 1 / result.mean
    assert result.standard_deviation == pytest.approx(result.mean, rel=0.05)
    assert pickle.loads(pickle.dumps(result)).survival(result.mean) == result.survival(result.mean)
    with pytest.raises(InvalidParameterError, match="`p` = 1"):
        result.quantile(1.0)


# ------------------------------------------------------------------------------------------ time step


def modified(step, temperature=0.2):
    return ModifiedEquation(
        lambda x: 4 * x * (x**2 - 1), lambda x: 12 * x**2 - 4, lambda x: 24 * x, temperature, step
    ).process


@pytest.mark.parametrize(("target", "ratios"), [(0.8, (0.97563, 0.98959, 0.99535)), (0.0, (1.14322, 1.11147, 1.08267))])
def test_discrete_chain_golden(target, ratios):
    interval = Interval(-1.0, upper=target)
    exact = mean_exit(double_well(0.2), interval).mean
    for step, ratio in zip((0.02, 0.01, 0.005), ratios, strict=True):
        result = discrete_mean_exit(double_well(0.2), interval, step)
        assert result.mean / exact == pytest.approx(ratio, abs=6e-6)
        assert result.relative_error < 1e-9


def test_modified_equation_with_monitoring_has_second_order():
    errors = []
    steps = np.array([0.02, 0.01, 0.005, 0.0025])
    for step in steps:
        process = modified(step)
        border = 0.8 + monitoring_shift(float(process.diffusion_at(np.array([0.8]))[0]), step)
        theory = mean_exit(process, Interval(-1.0, upper=border)).mean
        errors.append(theory / discrete_mean_exit(double_well(0.2), Interval(-1.0, upper=0.8), step).mean - 1)
    order, constant = np.polyfit(np.log(steps), np.log(errors), 1)
    assert order == pytest.approx(2, abs=0.05)
    assert np.exp(constant) == pytest.approx(39, abs=4)  # relative error 39 h² for curvatures up to 8


def test_without_the_correction_the_error_is_of_first_order():
    # Negative control: the continuous time is off by 2.4 % at h = 0.02, and by about half of that at half the step
    steps = np.array([0.005, 0.0025])
    exact = mean_exit(double_well(0.2), Interval(-1.0, upper=0.8)).mean
    errors = [1 - discrete_mean_exit(double_well(0.2), Interval(-1.0, upper=0.8), h).mean / exact for h in steps]
    assert np.log2(errors[0] / errors[1]) < 1.3


def test_mode_step_leaves_an_error_of_second_order():
    temperature, target = HEIGHT / 5, Region(0.1)
    interval = Interval(0.0, upper=float(MODE.coordinate(0.1)))
    errors = []
    for step in (0.1, 0.05):
        chain = discrete_mean_exit(ModeDynamics(MODE, temperature).process, interval, step).mean
        theory = exit_time(MODE, temperature=temperature, target=target, step=step, monitored=True).mean
        errors.append(theory / chain - 1)
    assert errors[0] == pytest.approx(0.06 * 0.1**2, rel=0.05)  # about (λh)²
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)


def test_discrete_chain_rejects_a_wall():
    with pytest.raises(InvalidParameterError, match="jumps over a wall"):
        discrete_mean_exit(free(1.0), Interval(0.5, upper=1.0, wall=0.0), 0.01)
    with pytest.raises(InvalidParameterError, match="solved as a dense matrix"):
        discrete_mean_exit(free(1.0), Interval(0.0, lower=-1.0, upper=1.0), 1e-9)


# ------------------------------------------------------------------------------------------ the mode


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_mode_derivatives(depth):
    dynamics = ModeDynamics(Mode(depth, 1.3, 0.2, 0.7), 0.01)
    x, h = np.linspace(-1.5, 2.5, 9), 1e-5
    landscape = dynamics.mode.landscape
    np.testing.assert_allclose(dynamics.slope(x), landscape.gradient_at(x[:, None])[:, 0], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(dynamics.curvature(x), landscape.hessian_at(x[:, None])[:, 0, 0], rtol=1e-12)
    numeric = (dynamics.curvature(x + h) - dynamics.curvature(x - h)) / (2 * h)
    np.testing.assert_allclose(dynamics.third(x), numeric, rtol=1e-6, atol=1e-6)


def test_mode_at_even_depth_has_two_exits():
    mode = Mode(depth=4, singular_value=1.0, weight_decay=0.2)
    target, temperature = beyond(mode.barrier()), mode.barrier().height / 8
    both = exit_time(mode, temperature=temperature, target=target).mean
    process = ModeDynamics(mode, temperature).process
    border = float(mode.coordinate(target.threshold))
    half = mean_exit(process, Interval(0.0, upper=border, wall=0.0)).mean
    assert both == pytest.approx(half, rel=1e-10)


@settings(max_examples=8)
@given(st.floats(0.2, 5), st.floats(0.3, 3))
def test_mode_rescales_with_the_input_variance(variance, weight_decay_share):
    # k(q, λ, T) = q k(1, λ/q, T/q)
    decay = 0.15 * weight_decay_share
    unit = exit_time(Mode(3, 1.0, decay), temperature=0.01, target=Region(0.6)).mean
    scaled = exit_time(Mode(3, 1.0, decay * variance, variance), temperature=0.01 * variance, target=Region(0.6)).mean
    assert scaled * variance == pytest.approx(unit, rel=1e-9)


def test_kramers_limit():
    # ΔF/T = 200: the well's curvature λ, the top's from the spectrum, to O(T/ΔF)
    barrier = MODE.barrier()
    result = exit_time(MODE, temperature=HEIGHT / 200, target=Region(0.2))
    prefactor = np.sqrt(0.25 * abs(barrier.negative_eigenvalue)) / (2 * np.pi)
    assert result.mean * prefactor * np.exp(-200) == pytest.approx(1, abs=0.02)


# ------------------------------------------------------------------------------------------ minibatch noise


def test_gaussian_residual_variance_by_moments():
    # E over Gauss-Hermite nodes of (rx)² − (E rx)², r = (σ−m)x + s n
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    weights = weights / weights.sum()
    q, sigma, noise, m = 1.7, 1.2, 0.4, 0.3
    x, n = np.meshgrid(np.sqrt(q) * nodes, nodes)
    product, w = ((sigma - m) * x + noise * n) * x, np.outer(weights, weights)
    variance = (w * product**2).sum() - (w * product).sum() ** 2
    assert GaussianResidualVariance(sigma, q, noise)(m) == pytest.approx(variance, rel=1e-12)


def test_forgetting_under_minibatch_noise_in_the_amplitude():
    # Independent: the equation in a itself, Φ' = F'(a)/D / 𝒟(a), by mpmath
    eps, decay, noise, target = 0.1 / 16, 0.44, 0.5, 0.001
    mode = Mode(3, 1.0, decay)
    result = minibatch_mode_exit_time(mode, label_noise=noise, lr_over_batch=eps, target=Region(target, above=False))

    def drift(a):
        return -(decay * a - (1 - a**3) * a**2)

    def diffusion(a):
        return eps / 2 * a**4 * (2 * (1 - a**3) ** 2 + noise**2)

    learned = mode.learned_amplitude()
    in_amplitude = mean_exit(Diffusion(drift, diffusion), Interval(learned, lower=target ** (1 / 3)))
    assert result.mean == pytest.approx(in_amplitude.mean, rel=1e-9)
    assert result.mean == pytest.approx(1873.0251663, rel=1e-9)
    survival = result.survival(np.array([0.5, 1.0, 2.0]) * result.mean)
    np.testing.assert_allclose(survival, np.exp(-np.array([0.5, 1.0, 2.0])), atol=0.02)


def test_learning_by_minibatch_noise_alone_never_happens():
    with pytest.raises(InvalidParameterError, match="absorbed there and the mean time to learn is infinite"):
        minibatch_mode_exit_time(MODE, label_noise=0.5, lr_over_batch=0.01, target=Region(0.1))
    # The same seen by the quadrature, on the amplitude started exactly at 0 and above it
    process = ModeDynamics(MODE, 0.0, 0.0, MinibatchNoise(0.01, GaussianResidualVariance(1.0, label_noise=0.5))).process
    with pytest.raises(InvalidParameterError, match=r"diverges"):
        mean_exit(process, Interval(0.0, upper=0.8))
    with pytest.raises(InvalidParameterError, match=r"diverges|not confined"):
        mean_exit(process, Interval(0.3, upper=0.8))


def test_injected_noise_makes_it_finite_and_weak_minibatch_noise_is_linear():
    temperature, target = HEIGHT / 6, Region(0.1)
    plain = exit_time(MODE, temperature=temperature, target=target).mean
    shift = [
        minibatch_mode_exit_time(
            MODE, label_noise=0.1, lr_over_batch=eps, target=target, injected_temperature=temperature
        ).mean
        / plain
        - 1
        for eps in (1e-6, 2e-6)
    ]
    assert shift[1] / shift[0] == pytest.approx(2, rel=1e-3)


# ------------------------------------------------------------------------------------------ inverse


@settings(max_examples=8)
@given(st.floats(2, 40))
def test_temperature_for_inverts(ratio):
    temperature = HEIGHT / ratio
    mean = exit_time(MODE, temperature=temperature, target=Region(0.1)).mean
    assert temperature_for(MODE, mean, Region(0.1)) == pytest.approx(temperature, rel=1e-8)


def test_temperature_for_forgetting():
    mode = Mode(3, 1.0, 0.44)
    target = beyond(mode.forgetting_barrier())
    temperature = temperature_for(mode, 1e4, target)
    assert exit_time(mode, temperature=temperature, target=target).mean == pytest.approx(1e4, rel=1e-8)


def test_lr_over_batch_with_minibatch_noise():
    residual = GaussianResidualVariance(1.0, label_noise=0.1)
    ratio = lr_over_batch_for(MODE, 2e4, Region(0.1), noise_variance=0.5, residual_variance=residual)
    mean = exit_time(MODE, temperature=0.25 * ratio, target=Region(0.1), minibatch=MinibatchNoise(ratio, residual)).mean
    assert mean == pytest.approx(2e4, rel=1e-8)


def test_no_temperature_is_fast_enough():
    mode = Mode(3, 1.0, 0.44)
    with pytest.raises(InvalidParameterError, match="Ask for a longer time"):
        temperature_for(mode, 1e-9, Region(1e-3), start=-1.0)


# ------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("interval", "match"),
    [
        ({"start": 0.0}, "without an exit there is no exit time"),
        ({"start": 0.0, "upper": -1.0}, "lies outside"),
        ({"start": 0.0, "lower": -1.0, "upper": 1.0, "wall": 2.0}, "both ends absorb"),
        ({"start": 0.0, "upper": 1.0, "wall": 0.5}, "between start"),
        ({"start": float("nan"), "upper": 1.0}, "`start` = nan"),
    ],
)
def test_interval_errors(interval, match):
    with pytest.raises(InvalidParameterError, match=match):
        Interval(**interval)


def test_unconfined_processes():
    with pytest.raises(InvalidParameterError, match="not confined"):
        mean_exit(free(1.0), Interval(0.0, upper=1.0))
    with pytest.raises(InvalidParameterError, match="not confined"):
        mean_exit(Diffusion(lambda x: x, 1.0), Interval(0.0, upper=1.0))


def test_mode_errors():
    with pytest.raises(InvalidParameterError, match="without noise nothing leaves a minimum"):
        exit_time(MODE, temperature=0.0, target=Region(0.1))
    with pytest.raises(InvalidParameterError, match="`temperature` = -1"):
        exit_time(MODE, temperature=-1.0, target=Region(0.1))
    with pytest.raises(InvalidParameterError, match="already lies in the target"):
        exit_time(MODE, temperature=0.01, target=Region(-0.1))
    with pytest.raises(InvalidParameterError, match="already lies in the target"):
        exit_time(MODE, temperature=0.01, target=Region(0.1), start=1.5)
    with pytest.raises(InvalidParameterError, match="every rate names its target"):
        exit_time(MODE, temperature=0.01, target=0.1)
    with pytest.raises(InvalidParameterError, match="Mode or a DeepLinearChain"):
        exit_time("mode", temperature=0.01, target=Region(0.1))
    with pytest.raises(InvalidParameterError, match="never negative"):
        exit_time(Mode(4, 1.0, 0.2), temperature=0.01, target=Region(-0.1, above=False))


def test_target_before_the_top_warns():
    with pytest.warns(ValidityWarning, match="before the barrier's top"):
        result = exit_time(MODE, temperature=HEIGHT / 4, target=Region(0.01))
    assert len(result.warnings) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert exit_time(MODE, temperature=HEIGHT / 4, target=Region(0.1)).warnings == ()


def test_large_step_warns():
    with pytest.warns(ValidityWarning, match="first order only"):
        exit_time(MODE, temperature=HEIGHT / 4, target=Region(0.1), step=1.0)
