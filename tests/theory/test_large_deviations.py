"""SGD's own quasi-potential against quadrature over the samples, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.large_deviations import forgetting_actions

MODE = Mode(3, 1.0, 0.44)


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


def test_errors() -> None:
    with pytest.raises(InvalidParameterError, match="label_noise"):
        forgetting_actions(MODE, label_noise=0.0)
    with pytest.raises(NoBarrierError, match="λ_spinodal"):
        forgetting_actions(Mode(3, 1.0, 0.5), label_noise=0.5)
