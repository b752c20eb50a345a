"""The samplers' factors against every order of small data sets, and against the limits that the text names."""

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.samplers import (
    ByMoments,
    FullBatch,
    Sampler,
    ShuffledEpochs,
    WithoutReplacement,
    WithReplacement,
)
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise
from kramers_grok.theory.samplers import (
    epoch_factors,
    forgetting_epoch_exponent,
    sampler_factor,
    stationary_variance,
)

Array = NDArray[np.float64]


def by_all_orders(slopes: Array, batch: int, lr: float, curvature: float) -> Array:
    """Stationary variance after each step of an epoch, from all N! orders, one by one."""
    n, rho = len(slopes) // batch, 1 - lr * curvature
    centred = slopes - slopes.mean()
    paths = []
    for order in permutations(range(len(slopes))):
        x, path = 0.0, []
        for step in range(n):
            x = rho * x - lr * centred[list(order[step * batch : (step + 1) * batch])].mean()
            path.append(x)
        paths.append(path)
    own = (np.array(paths) ** 2).mean(axis=0)
    before = own[-1] / (1 - rho ** (2 * n))
    return np.asarray(rho ** (2 * np.arange(1, n + 1)) * before + own)


@pytest.mark.parametrize(("n_samples", "batch"), [(2, 1), (6, 1), (6, 2), (6, 3), (7, 3), (5, 2), (4, 4)])
@pytest.mark.parametrize("step", [0.05, 0.7, 1.6])
def test_every_order_of_small_data_sets(n_samples: int, batch: int, step: float) -> None:
    """Left-over samples and steps that overshoot included; a factor off by N/(N − 1) would be seen."""
    slopes = np.random.default_rng(n_samples).normal(size=n_samples)
    lr, curvature = 0.2, step / 0.2
    exact = by_all_orders(slopes, batch, lr, curvature)
    reference = stationary_variance(slopes.var() / batch, lr=lr, curvature=curvature)
    factors = epoch_factors(n_samples, batch, lr=lr, curvature=curvature)
    np.testing.assert_allclose(factors, exact / reference, rtol=1e-11, atol=1e-13)


def test_with_replacement_is_the_sum_of_its_noise() -> None:
    """v = η² V Σ ρ^2k."""
    lr, curvature, noise = 0.1, 3.0, 0.7
    rho = 1 - lr * curvature
    direct = lr**2 * noise * sum(rho ** (2 * k) for k in range(200))
    assert stationary_variance(noise, lr=lr, curvature=curvature) == pytest.approx(direct, rel=1e-12)


def test_the_limits() -> None:
    """λτ/3 over all steps, (λτ)²/12 at the ends of epochs; N/(N − 1) where an epoch outlasts every memory."""
    for tau in (0.08, 0.02, 0.005):  # λτ with λ = 1, η = τ B/N
        case = {"n_samples": 4000, "batch_size": 10, "lr": tau / 400, "curvature": 1.0}
        average = sampler_factor(ShuffledEpochs(), **case)  # type: ignore[arg-type]
        at_end = sampler_factor(ShuffledEpochs(), **case, at_epoch_ends=True)  # type: ignore[arg-type]
        assert average == pytest.approx(tau / 3, rel=0.3 * tau + 0.02)
        assert at_end == pytest.approx(tau**2 / 12, rel=0.02)
    fast = epoch_factors(4000, 1, lr=0.5, curvature=1.0)
    assert np.abs(fast[100:] - 1).max() < 1e-3  # no step remembers another enough to notice that they sum to 0


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [(WithReplacement(), 1.0), (ByMoments(), 1.0), (FullBatch(), 0.0), (WithoutReplacement(), 18 / 23)],
)
def test_the_other_samplers(sampler: Sampler, expected: float) -> None:
    assert sampler_factor(sampler, n_samples=24, batch_size=6, lr=0.1, curvature=1.0) == pytest.approx(expected)


def test_the_delay_of_an_escape() -> None:
    """2L²/τ by adaptive quadrature in arc length."""
    mode = Mode(depth=3, singular_value=1.0, weight_decay=0.44)
    noise = MinibatchNoise(0.01, GaussianResidualVariance(1.0, label_noise=0.5))

    def slowness(x: float) -> float:
        a = x / 3**0.5
        return float((0.01 * (2 * (1 - a**3) ** 2 + 0.25) * 3 * a**4) ** -0.5)

    ends = [3**0.5 * a for a in (mode.saddle_amplitude(), mode.learned_amplitude())]
    length = quad(slowness, ends[0], ends[1])[0]
    for epoch in (5.0, 50.0):
        found = forgetting_epoch_exponent(mode, noise, epoch=epoch)
        assert found == pytest.approx(2 * length**2 / epoch, rel=1e-10)
    with pytest.raises(InvalidParameterError, match="`epoch` = 0"):
        forgetting_epoch_exponent(mode, noise, epoch=0.0)
    with pytest.raises(InvalidParameterError, match="without noise nothing escapes"):
        forgetting_epoch_exponent(mode, MinibatchNoise(0.0, GaussianResidualVariance(1.0)), epoch=1.0)


def test_refusals() -> None:
    with pytest.raises(InvalidParameterError, match="at most n_samples = 4"):
        epoch_factors(4, 5, lr=0.1, curvature=1.0)
    with pytest.raises(InvalidParameterError, match=r"lr · curvature < 2.*\n.*`lr=0.05`"):
        sampler_factor(WithReplacement(), n_samples=4, batch_size=2, lr=1.0, curvature=2.0)
    with pytest.raises(InvalidParameterError, match="`curvature` = 0"):
        epoch_factors(4, 2, lr=0.1, curvature=0.0)
    with pytest.raises(InvalidParameterError, match="`variance` = -1"):
        stationary_variance(-1.0, lr=0.1, curvature=1.0)
