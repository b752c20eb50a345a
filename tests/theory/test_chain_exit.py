"""The chain of three weights: mean exit time and distribution from the three-dimensional solve."""

import numpy as np
import pytest
import scipy.sparse as sp

from kramers_grok.core.exceptions import InvalidParameterError, ValidityWarning
from kramers_grok.core.region import Region, beyond
from kramers_grok.theory.chain_exit import chain_exit_time
from kramers_grok.theory.chain_grid import build_chain_generator, canonical_points
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.exit_times import (
    MinibatchNoise,
    exit_time,
    temperature_for,
)
from kramers_grok.theory.gradient_noise import GaussianResidualVariance

CHAIN = DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
HEIGHT = CHAIN.barrier().height
TARGET = Region(0.1)
COARSE = (0.6, 0.45)


def solve(ratio, target=TARGET, **options):
    return chain_exit_time(CHAIN, temperature=HEIGHT / ratio, target=target, **options)


@pytest.mark.parametrize(("ratio", "expected"), [(4, 778.1), (6, 5548), (8, 40218), (10, 294031)])
def test_oracle(ratio, expected):
    result = solve(ratio)
    assert result.mean == pytest.approx(expected, rel=2e-4)
    assert result.relative_error < 1e-4


def test_extrapolation_error_is_honest():
    # The estimate of the default grids covers the distance to much finer ones
    default, fine = solve(5), solve(5, spacings=(0.33, 0.27, 0.22))
    assert abs(default.mean / fine.mean - 1) < default.relative_error
    coarse = solve(5, spacings=COARSE)
    assert abs(coarse.mean / fine.mean - 1) < coarse.relative_error


def test_eyring_kramers_limit():
    # (τk − 1) T/ΔF tends to a constant: the ratio to Eyring-Kramers is 1 + O(T/ΔF) up to ΔF/T = 30
    curvature = abs(CHAIN.barrier().negative_eigenvalue)
    excess = []
    for ratio in (15, 30):
        rate = 2 * np.sqrt(0.25 * curvature) / (2 * np.pi) * np.exp(-ratio)
        excess.append((solve(ratio, spacings=COARSE).mean * rate - 1) * ratio)
    assert 0.1 < excess[1] < 0.5
    assert excess[1] == pytest.approx(excess[0], rel=0.1)


def test_symmetry_of_the_start():
    reference = solve(5, start=[0.2, 0.1, -0.15], spacings=COARSE).mean
    for image in ([0.1, -0.15, 0.2], [-0.2, -0.1, -0.15], [-0.2, 0.1, 0.15], [-0.15, 0.2, 0.1]):
        assert solve(5, start=image, spacings=COARSE).mean == pytest.approx(reference, rel=1e-9)


def test_start_at_the_saddle_halves_the_time():
    saddle = CHAIN.saddle_amplitude()
    ratio = solve(8, start=np.full(3, saddle), target=Region(0.3)).mean / solve(8, target=Region(0.3)).mean
    assert ratio == pytest.approx(0.5, abs=0.1)


def test_canonical_points_are_orbit_representatives():
    points = np.array([[1, -3, 2], [3, 1, -2], [-3, -2, -1], [0, -2, 1]])
    expected = [[3, 2, -1], [3, 2, -1], [3, 2, -1], [2, 1, 0]]
    assert canonical_points(points).tolist() == expected


def test_generator_is_reversible():
    # Symmetric after scaling with the square root of Boltzmann weight times orbit size
    setting = solve(4, spacings=COARSE).law.setting
    generator, _ = build_chain_generator(setting.problem, 0.05, setting.anchor)
    points = np.zeros((generator.killing.size, 3), dtype=int)
    index = np.argwhere(generator.table >= 0)
    points[generator.table[tuple(index.T)]] = index - [0, 0, generator.offset]
    flips = np.array([[1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]])
    permutations = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
    orbits = [len({tuple(p[q] * f) for q in permutations for f in flips}) for p in points]
    weight = np.sqrt(orbits) * np.exp(
        -(setting.problem.energy(points * 0.05) - 0.5) / (2 * setting.problem.temperature)
    )
    symmetric = sp.diags(weight) @ generator.rates @ sp.diags(1 / weight)
    assert abs(symmetric - symmetric.T).max() < 1e-9 * abs(symmetric).max()


def test_survival():
    result = solve(5)
    t = np.linspace(0, 15 * result.mean, 20001)
    survival = result.survival(t)
    assert survival[0] == 1
    assert (np.diff(survival) <= 1e-9).all()
    assert np.trapezoid(survival, t) == pytest.approx(result.mean, rel=1e-4)
    # The tail's rate follows from the mean; the integrated equation knows it independently
    curve = result.curve
    assert -curve.derivatives[-1, 1] / curve.derivatives[-1, 0] == pytest.approx(curve.tail_rate, rel=1e-6)
    # Just after the start nothing has come across
    assert result.survival(5.0) > 0.999


def test_survival_of_a_start_at_the_saddle():
    result = solve(8, start=np.full(3, CHAIN.saddle_amplitude()), target=Region(0.3))
    assert result.survival(0.02 * result.mean) == pytest.approx(0.5, abs=0.1)


def test_forgetting():
    chain = DeepLinearChain(3, 1.0, 0.44)
    barrier = chain.forgetting_barrier()
    result = exit_time(chain, temperature=barrier.height / 12, target=beyond(barrier))
    spectra = barrier.minimum_spectrum, barrier.saddle_spectrum
    rate = np.sqrt(abs(np.prod(spectra[0])) / abs(np.prod(spectra[1]))) * abs(spectra[1][0]) / (2 * np.pi)
    assert result.mean * rate * np.exp(-12) == pytest.approx(1, abs=0.1)
    assert result.relative_error < 1e-4


# ------------------------------------------------------------------------------------------ step and minibatch


def simulate(temperature, step, threshold, replicas, seed, noise=None):
    """Euler-Maruyama of the chain from 0 by plain numpy: exit times watched at the steps."""
    rng = np.random.default_rng(seed)
    a, times, number = np.zeros((3, replicas)), [], 0
    while a.shape[1]:
        number += 1
        m = a.prod(axis=0)
        pull = 1 - m
        if noise is not None:
            pull = pull + np.sqrt(noise.lr_over_batch / step * noise.residual_variance(m)) * rng.standard_normal(m.size)
        others = np.stack([a[1] * a[2], a[0] * a[2], a[0] * a[1]])
        a = (
            a * (1 - 0.25 * step)
            + step * pull * others
            + np.sqrt(2 * temperature * step) * rng.standard_normal(a.shape)
        )
        inside = a.prod(axis=0) < threshold
        times += [number * step] * int((~inside).sum())
        a = a[:, inside]
    return np.array(times)


def test_minibatch_noise_against_simulation():
    # Full noise, ε = 0.5: it shortens the mean from 819 to 617 at this step. 4,096 replicas know it to 1.5 %, so
    # the negative control, no minibatch noise, is more than 20 standard errors away.
    step, noise = 0.4, MinibatchNoise(0.5, GaussianResidualVariance(1.0, label_noise=0.3))
    times = simulate(HEIGHT / 4, step, 0.1, 4096, seed=3, noise=noise)
    error = times.std() / 64
    theory = solve(4, step=step, monitored=True, minibatch=noise)
    assert abs(times.mean() - theory.mean) < 4.5 * error
    assert abs(times.mean() - solve(4, step=step, monitored=True).mean) > 10 * error


def test_step_against_simulation():
    step = 0.5
    times = simulate(HEIGHT / 4, step, 0.1, 8192, seed=5)
    error = times.std() / np.sqrt(times.size)
    theory = solve(4, step=step, monitored=True)
    assert theory.mean / solve(4).mean == pytest.approx(1.067, abs=0.003)
    assert abs(times.mean() - theory.mean) < 4.5 * error


def test_weak_minibatch_noise_is_linear():
    plain = solve(6, spacings=COARSE).mean
    shift = [
        solve(6, spacings=COARSE, minibatch=MinibatchNoise(eps, GaussianResidualVariance(1.0, label_noise=0.1))).mean
        / plain
        - 1
        for eps in (1e-5, 2e-5)
    ]
    assert shift[0] < 0
    assert shift[1] / shift[0] == pytest.approx(2, rel=0.01)


def test_minibatch_noise_without_strength_changes_nothing():
    plain = solve(6, spacings=COARSE).mean
    silent = solve(
        6, spacings=COARSE, minibatch=MinibatchNoise(0.0, GaussianResidualVariance(1.0, label_noise=0.1))
    ).mean
    assert silent == pytest.approx(plain, rel=1e-12)


def test_minibatch_noise_speeds_up_chain_and_mode_alike():
    noise = MinibatchNoise(0.01, GaussianResidualVariance(1.0, label_noise=0.1))
    temperature = HEIGHT / 10
    ratios = [
        exit_time(s, temperature=temperature, target=TARGET, minibatch=noise).mean
        / exit_time(s, temperature=temperature, target=TARGET).mean
        for s in (CHAIN, CHAIN.mode)
    ]
    assert ratios[0] == pytest.approx(ratios[1], rel=0.02)
    assert ratios[0] < 0.9


def test_small_steps_are_linear():
    plain = solve(6).mean
    shift = [solve(6, step=h).mean / plain - 1 for h in (0.01, 0.02)]
    assert shift[1] / shift[0] == pytest.approx(2, rel=0.02)


def test_target_past_the_barrier_does_not_feel_monitoring():
    ratio = solve(6, step=0.05, monitored=True, target=Region(0.2)).mean / solve(6, step=0.05, target=Region(0.2)).mean
    assert ratio == pytest.approx(1, abs=1e-4)


# ------------------------------------------------------------------------------------------ inverse and errors


def test_temperature_for():
    temperature = temperature_for(CHAIN, 5548.1, TARGET)
    assert HEIGHT / temperature == pytest.approx(6, rel=1e-4)


def test_errors():
    with pytest.raises(InvalidParameterError, match=r"affordable in three dimensions only[\s\S]*chain.mode"):
        exit_time(DeepLinearChain(4, 1.0, 0.2), temperature=0.01, target=TARGET)
    with pytest.raises(InvalidParameterError, match="without noise nothing crosses a barrier"):
        exit_time(CHAIN, temperature=0.0, target=TARGET)
    with pytest.raises(InvalidParameterError, match="contains the start, where m = 0"):
        solve(4, target=Region(-0.1))
    with pytest.raises(InvalidParameterError, match="contains the start, where m = 1"):
        solve(4, start=[1.0, 1.0, 1.0])
    with pytest.raises(InvalidParameterError, match="one weight for each layer"):
        solve(4, start=[0.0, 0.0])
    with pytest.raises(InvalidParameterError, match="above the spinodal"):
        exit_time(DeepLinearChain(3, 1.0, 0.6), temperature=0.01, target=Region(0.1, above=False))
    with pytest.warns(ValidityWarning, match="before the barrier's top"):
        exit_time(CHAIN, temperature=HEIGHT / 4, target=Region(0.01))
