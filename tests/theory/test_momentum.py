"""Heavy balls in quadratic wells: closed form, Lyapunov equation and the optimizer itself.

What the compared results share: the closed form and the Lyapunov equation share the recursion they solve; the third,
the package's own optimizer step by step, shares nothing with them but β, δ and η.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.dynamics.optimizers import AdamW, GradientDescent, Momentum
from kramers_grok.theory.momentum import HeavyBall, heavy_ball

OPTIMIZERS = {
    "heavy ball": Momentum(0.8),
    "dampened": Momentum(0.8, dampening=0.5),
    "Nesterov": Momentum(0.8, nesterov=True),
    "descent": GradientDescent(),
}
HESSIAN = np.array([[1.0, 0.6], [0.6, 2.0]])
NOISE = np.array([[1.0, -0.3], [-0.3, 0.5]])  # does not commute with the Hessian


@given(
    lr=st.floats(1e-3, 1.0), momentum=st.floats(0.0, 0.99), dampening=st.floats(0.0, 0.9), nesterov=st.booleans(),
    share=st.floats(0.02, 0.98),
)  # fmt: skip
def test_closed_form_is_the_lyapunov_equation(
    lr: float, momentum: float, dampening: float, nesterov: bool, share: float
) -> None:
    ball = HeavyBall(lr, momentum, 0.0 if nesterov else dampening, nesterov)
    k = share * ball.stability_limit
    exact = ball.stationary_covariance([[k]], [[0.3]])[0, 0] * k / ball.temperature(0.3)
    assert ball.temperature_factor(k) == pytest.approx(exact, rel=1e-6)
    with pytest.raises(InvalidParameterError, match="unstable"):
        ball.stationary_covariance([[ball.stability_limit * 1.001]], [[1.0]])


def test_heavy_ball_factor() -> None:
    ball = HeavyBall(0.2, 0.6, 0.25)
    k = np.array([0.1, 1.0, 7.0])
    np.testing.assert_allclose(ball.temperature_factor(k), 1 / (1 - 0.15 * k / 3.2), rtol=1e-12)


def test_nesterov_damps_steep_directions() -> None:
    """By 1 + ηβk/(1 − β) for β near 1: its friction gains ηβk/h."""
    ball = HeavyBall(1e-5, 0.999, nesterov=True)
    k = np.array([1.0, 10.0, 100.0])
    np.testing.assert_allclose(ball.temperature_factor(k), 1 / (1 + 1e-5 * k / 0.001), rtol=5e-3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_optimizer_has_this_covariance(optimizer: Momentum | GradientDescent) -> None:
    """30,000 replicas: each of three entries is known to about 1 %; |z| < 4.9 for a false alarm of 1e-6 each.

    Control: without the correction for finite η the same numbers must fail.
    """
    n, lr = 30_000, 0.3
    rng = np.random.default_rng(7)
    root = np.linalg.cholesky(NOISE)
    hessian = torch.from_numpy(HESSIAN)
    theta = torch.zeros(n, 2, dtype=torch.float64)
    state = optimizer.init(theta)
    for _ in range(120):  # the slowest direction forgets e^-30 and more
        noise = torch.from_numpy(rng.normal(size=(n, 2)) @ root.T)
        theta, state = optimizer.step(theta, theta @ hessian + noise, state, lr, 0.0)
    exact = heavy_ball(optimizer, lr).stationary_covariance(HESSIAN, NOISE)
    measured = (theta.T @ theta / n).numpy()
    error = np.sqrt((np.outer(np.diag(exact), np.diag(exact)) + exact**2) / n)
    assert np.abs((measured - exact) / error).max() < 4.9
    small = HeavyBall(1e-6, heavy_ball(optimizer, lr).momentum)
    limit = small.stationary_covariance(HESSIAN, NOISE) * heavy_ball(optimizer, lr).long_run_lr / small.long_run_lr
    assert np.abs((measured - limit) / error).max() > 6


def test_temperature_and_its_inverse() -> None:
    ball = HeavyBall(0.01, 0.9, dampening=0.9)
    assert ball.long_run_lr == pytest.approx(0.01)  # dampening δ = β gives back the learning rate
    assert ball.temperature(ball.noise_variance_for(0.002, 8), 8) == pytest.approx(0.002)
    plain = HeavyBall(0.01, 0.0)
    assert plain.temperature(0.5, 4) == pytest.approx(0.01 * 0.5 / 8)


def test_errors() -> None:
    with pytest.raises(InvalidParameterError, match="`momentum`"):
        HeavyBall(0.1, 1.0)
    with pytest.raises(InvalidParameterError, match="looks ahead"):
        HeavyBall(0.1, 0.9, dampening=0.1, nesterov=True)
    with pytest.raises(InvalidParameterError, match="no stationary state"):
        HeavyBall(0.1, 0.9).temperature_factor(1e3)
    with pytest.raises(InvalidParameterError, match="coupled decay"):
        heavy_ball(AdamW(), 0.1)
    with pytest.raises(InvalidParameterError, match="two square ones"):
        HeavyBall(0.1, 0.9).stationary_covariance(np.eye(2), np.eye(3))
