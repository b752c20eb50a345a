"""SGD's quasi-potential and its prefactor against exact chains, quadrature and sums over samples.

The laws share with the exact times the mode's stationary points and the sampling model, none of the numerics: the chain
solves an integral equation with the batches' densities, the diffusion is a nested quadrature.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.optimize import brentq

from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region, beyond
from kramers_grok.theory.action_cumulants import EmpiricalCumulants, GaussianCumulants, SampleCumulants
from kramers_grok.theory.action_line import ModeHamiltonian
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.exit_times import minibatch_mode_exit_time, sgd_exit_time
from kramers_grok.theory.large_deviations import (
    action_law,
    forgetting_actions,
    forgetting_laws,
    learning_laws,
    quasi_potential,
)

MODE = Mode(3, 1.0, 0.44)
GAUSSIAN = GaussianCumulants(1.0, label_noise=0.5)
TARGET = Region(0.05, above=False)  # far beyond the barrier's top at 0.13
SMALL = EmpiricalCumulants([1.0, -0.5, 2.0, 0.3, -1.4], [1.3, -0.2, 1.6, 0.9, -1.7])


def test_published_departure() -> None:
    assert forgetting_actions(MODE, label_noise=0.5).departure(0.1 / 16) == pytest.approx(1.4082, abs=5e-5)


def test_action_from_samples_instead_of_the_closed_form() -> None:
    """E exp(−p g) summed over a Gauss–Hermite grid of (x, n), the integral over a by the trapezoidal rule."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    x, n = np.meshgrid(nodes, nodes)
    probability = np.outer(weights, weights) / (2 * np.pi)

    def momentum(a: float) -> float:
        gradient = 0.44 * a - a**2 * ((1 - a**3) * x**2 + 0.5 * n * x)

        def hamiltonian(t: float) -> float:
            return float(np.log((probability * np.exp(t * gradient)).sum()))

        mean = (probability * gradient).sum()
        guess = -2 * mean / ((probability * gradient**2).sum() - mean**2)
        return float(brentq(hamiltonian, 0.3 * guess, 2 * guess))

    amplitudes = np.linspace(MODE.saddle_amplitude(), MODE.learned_amplitude(), 201)[1:-1]
    action = sum(momentum(a) for a in amplitudes) * (amplitudes[1] - amplitudes[0])
    assert forgetting_actions(MODE, label_noise=0.5).sgd == pytest.approx(action, rel=1e-4)


def test_rescaling_of_the_input_variance() -> None:
    """F = q F(q=1, λ/q): with s → s √q the gradient is q times as large, and so is 1/p; ε counts 1/q."""
    one = forgetting_actions(Mode(4, 0.8, 0.2, 1.0), label_noise=0.3)
    two = forgetting_actions(Mode(4, 0.8, 0.4, 2.0), label_noise=0.3 * 2**0.5)
    assert two.sgd == pytest.approx(one.sgd / 2, rel=1e-10)
    assert two.diffusion == pytest.approx(one.diffusion / 2, rel=1e-10)


def test_a_low_barrier_is_the_diffusion_limit() -> None:
    """Close to the spinodal p is small, and the first two cumulants are all."""
    near = Mode(3, 1.0, MODE.spinodal() * (1 - 1e-4))
    actions = forgetting_actions(near, label_noise=0.5)
    assert actions.sgd == pytest.approx(actions.diffusion, rel=0.01)
    far = forgetting_actions(MODE, label_noise=0.5)
    assert far.sgd != pytest.approx(far.diffusion, rel=0.01)


@pytest.mark.parametrize("samples", [GAUSSIAN, GAUSSIAN.two(), SMALL, SMALL.two()], ids=lambda s: type(s).__name__)
def test_cumulants_derivatives(samples: SampleCumulants) -> None:
    t, m, h = np.array([-0.7, 0.1, 0.4]), np.array([0.3, 0.8, 1.1]), 1e-5
    jet = samples.jet(t, m)
    up, down = samples.jet(t + h, m), samples.jet(t - h, m)
    right, left = samples.jet(t, m + h), samples.jet(t, m - h)
    np.testing.assert_allclose(jet.t, (up.value - down.value) / (2 * h), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(jet.m, (right.value - left.value) / (2 * h), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(jet.tt, (up.t - down.t) / (2 * h), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(jet.tm, (right.t - left.t) / (2 * h), rtol=1e-8, atol=1e-10)
    two = samples.two().jet(0 * t, m)
    exact = samples.jet(0 * t, m)
    np.testing.assert_allclose([two.t, two.tt, two.tm], [exact.t, exact.tt, exact.tm], rtol=1e-12)


def test_gaussian_limits_are_where_the_logarithm_ends() -> None:
    m = np.array([0.2, 1.0, 1.7])
    for cumulants in (GAUSSIAN, GaussianCumulants(1.0, 2.0, 0.01)):
        for limit in cumulants.limits(m):
            rest = 1 - 2 * limit * cumulants.input_variance * (1 - m)
            rest -= limit**2 * cumulants.input_variance * cumulants.label_noise**2
            np.testing.assert_allclose(rest / (1 + limit**2), 0, atol=1e-12)
    low, high = GaussianCumulants(1.0).limits(np.array([0.5]))
    assert np.isneginf(low[0])
    assert high[0] == pytest.approx(1.0)


def test_a_finite_data_set_is_the_mean_over_its_samples() -> None:
    x, y = np.array([1.0, -0.5, 2.0, 0.3, -1.4]), np.array([1.3, -0.2, 1.6, 0.9, -1.7])
    mode = Mode.from_data(x, y, depth=3, weight_decay=0.5)
    hamiltonian = ModeHamiltonian(mode, SMALL, noise_variance=0.05)
    path = quasi_potential(hamiltonian, *hamiltonian.forgetting())
    assert path.action > 0
    slope = np.sqrt(3) * (path.x / np.sqrt(3)) ** 2
    gradient = 0.5 * path.x[:, None] - slope[:, None] * (x * y - (path.x[:, None] / np.sqrt(3)) ** 3 * x**2)
    mean = np.mean(np.exp(-path.p[:, None] * gradient + 0.05 * path.p[:, None] ** 2 / 2), axis=1)
    np.testing.assert_allclose(mean, 1, atol=1e-11)
    assert (path.p < -1e-4).all()  # down, and not the trivial root


def test_the_way_down_is_free_and_the_way_back_is_not() -> None:
    hamiltonian = ModeHamiltonian(MODE, GAUSSIAN, 0.1)
    learned, saddle = hamiltonian.forgetting()
    there = quasi_potential(hamiltonian, learned, 0.0)
    assert there.action == pytest.approx(quasi_potential(hamiltonian, learned, saddle).action, rel=1e-10)
    assert quasi_potential(hamiltonian, saddle, learned).action == 0
    back = quasi_potential(hamiltonian, 0.0, learned)
    assert back.action == pytest.approx(quasi_potential(hamiltonian, 0.0, saddle).action, rel=1e-10)


def test_the_diffusion_law_is_the_small_noise_limit_of_quadrature() -> None:
    law = forgetting_laws(MODE, GAUSSIAN).diffusion
    excess = np.array(
        [
            minibatch_mode_exit_time(MODE, label_noise=0.5, lr_over_batch=e, target=TARGET).mean / law.mean(e) - 1
            for e in (0.1 / 64, 0.1 / 128)
        ]
    )
    assert 0 < excess[1] < 0.015
    assert excess[0] / excess[1] == pytest.approx(2, abs=0.15)  # linear in ε


@cache
def exact(lr_over_batch: float, batch_size: int) -> float:
    lr = batch_size * lr_over_batch
    return sgd_exit_time(MODE, lr=lr, batch_size=batch_size, label_noise=0.5, target=TARGET).mean


def test_the_sgd_law_is_the_small_noise_limit_of_the_exact_chain() -> None:
    """Negative control: the diffusion limit's action gives another slope."""
    laws = forgetting_laws(MODE, GAUSSIAN)
    ratio = (0.1 / 32, 0.1 / 64)
    times = np.array([exact(e, 32) for e in ratio])
    excess = times / [laws.sgd.mean(e, 32) for e in ratio] - 1
    assert 0 < excess[-1] < 0.025
    assert excess[0] / excess[1] == pytest.approx(2, abs=0.2)  # linear in ε
    wrong = times / [laws.diffusion.mean(e, 32) for e in ratio] - 1
    assert wrong[1] > wrong[0] + 0.1
    assert wrong[1] > 2


def test_batches_enter_the_prefactor_at_fixed_ratio() -> None:
    """B = 128 instead of 32 at the same ε: β shortens the time by 4.4 % as ε → 0, here extrapolated from two ε."""
    predicted = np.exp(96 * forgetting_laws(MODE, GAUSSIAN).sgd.batch_exponent)
    assert predicted < 0.96
    coarse, fine = (exact(e, 128) / exact(e, 32) for e in (0.1 / 32, 0.1 / 64))
    assert 2 * fine - coarse == pytest.approx(predicted, abs=0.005)


def test_learning_with_both_noises() -> None:
    mode = Mode(3, 1.0, 0.25)
    laws = learning_laws(mode, GAUSSIAN, noise_variance=0.05)
    assert laws.sgd.action < laws.diffusion.action  # large inputs push upwards more than Gaussian noise would
    excess = []
    for e in (0.02, 0.01):
        noise, target = per_sample(variance=0.05), beyond(mode.barrier())
        time = sgd_exit_time(mode, lr=40 * e, batch_size=40, label_noise=0.5, target=target, noise=noise).mean
        excess.append(time / laws.sgd.mean(e, 40) - 1)
    assert abs(excess[1]) < 0.02
    assert excess[0] / excess[1] == pytest.approx(2, abs=0.5)
    assert laws.departure(0.01, 20) == pytest.approx(laws.sgd.mean(0.01, 20) / laws.diffusion.mean(0.01))


def test_isotropic_noise_alone_has_kramers_law() -> None:
    """Perfect samples: xy − m x² with x = ±1 has no variance."""
    mode = Mode.from_data([1.0, -1.0], depth=3, weight_decay=0.25)
    laws = learning_laws(mode, EmpiricalCumulants([1.0, -1.0]), noise_variance=0.3)
    barrier = mode.barrier()
    for law in (laws.sgd, laws.diffusion):
        assert law.action == pytest.approx(2 * barrier.height / 0.3, rel=1e-10)
        curvatures = 0.25 * -barrier.saddle_spectrum[0]
        # H's rounding over the square of the nodes' distance from the ends: 1e-9
        assert law.prefactor == pytest.approx(2 * np.pi / curvatures**0.5, rel=1e-7)
        assert law.batch_exponent == pytest.approx(0, abs=1e-9)


def test_two_mirror_saddles_halve_the_time() -> None:
    mode = Mode(4, 1.0, 0.1)
    hamiltonian = ModeHamiltonian(mode, GAUSSIAN, 1.0)
    one = action_law(hamiltonian, *hamiltonian.learning())
    assert learning_laws(mode, GAUSSIAN, noise_variance=1.0).sgd.prefactor == pytest.approx(one.prefactor / 2)


def test_log_mean_goes_where_the_mean_overflows() -> None:
    law = forgetting_laws(MODE, GAUSSIAN).sgd
    assert law.log_mean(1e-5) == pytest.approx(law.action * 1e5 + np.log(law.prefactor))
    assert law.mean(0.01, 3) == pytest.approx(np.exp(law.log_mean(0.01, 3)))


def test_errors() -> None:
    with pytest.raises(InvalidParameterError, match="label_noise"):
        forgetting_actions(MODE, label_noise=0.0)
    with pytest.raises(NoBarrierError, match="λ_spinodal"):
        forgetting_actions(Mode(3, 1.0, 0.5), label_noise=0.5)
    with pytest.raises(InvalidParameterError, match="absorbing"):
        learning_laws(MODE, GAUSSIAN, noise_variance=0.0)
    with pytest.raises(InvalidParameterError, match="singular_value"):
        ModeHamiltonian(MODE, GaussianCumulants(1.1))
    hamiltonian = ModeHamiltonian(MODE, GAUSSIAN)
    with pytest.raises(InvalidParameterError, match="Swap them"):
        action_law(hamiltonian, *reversed(hamiltonian.forgetting()))
    with pytest.raises(InvalidParameterError, match="never happens"):
        quasi_potential(hamiltonian, *hamiltonian.learning())
    silent = ModeHamiltonian(Mode.from_data([1.0, -1.0], depth=3, weight_decay=0.25), EmpiricalCumulants([1.0, -1.0]))
    with pytest.raises(InvalidParameterError, match="never happens"):
        quasi_potential(silent, *silent.forgetting())
    barely = ModeHamiltonian(MODE, GAUSSIAN, 1e-8)
    assert (
        quasi_potential(barely, *barely.learning()).action
        > quasi_potential(ModeHamiltonian(MODE, GAUSSIAN, 1e-7), *barely.learning()).action
    )
    with pytest.raises(InvalidParameterError, match="within rounding"):
        action_law(barely, *barely.learning())
    with pytest.raises(InvalidParameterError, match="all zeros"):
        EmpiricalCumulants([0.0, 0.0])
