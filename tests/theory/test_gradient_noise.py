"""Gradient noise of the chain against sample covariances, and conversions between noise and temperature."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.gradient_noise import (
    EmpiricalResidualVariance,
    GaussianResidualVariance,
    effective_temperature,
    finite_population_factor,
    gradient_covariance,
    gradient_direction,
    minibatch_share,
    noise_variance_for,
)

CHAIN = DeepLinearChain(3, 1.0, 0.25)


def per_sample_gradients(weights, x, y):
    """Gradients of ½(y − Πa·x)² by central differences, shape (sample, layer)."""
    columns = []
    for l in range(len(weights)):
        ends = []
        for sign in (1, -1):
            moved = weights.copy()
            moved[l] += sign * 1e-5
            ends.append(0.5 * (y - moved.prod() * x) ** 2)
        columns.append((ends[0] - ends[1]) / 2e-5)
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("weights", [[0.5, -0.7, 1.1], [0.0, 0.7, 1.1, -0.3]])
def test_covariance_of_a_data_set(weights):
    rng = np.random.default_rng(0)
    weights, x = np.array(weights), rng.normal(size=100)
    y = 0.8 * x + 0.3 * rng.normal(size=100)
    sample = np.cov(per_sample_gradients(weights, x, y).T, bias=True)
    np.testing.assert_allclose(
        gradient_covariance(weights, EmpiricalResidualVariance(x, y)), sample, rtol=1e-6, atol=1e-9
    )


def test_gaussian_variance_is_the_limit_of_many_samples():
    # 4e5 samples: the sample variance of these fourth-order products is known to about 1 %.
    rng = np.random.default_rng(1)
    x = np.sqrt(1.7) * rng.normal(size=400_000)
    y = 0.9 * x + 0.4 * rng.normal(size=x.size)
    m = np.array([-0.3, 0.0, 0.5, 0.9, 1.4])
    predicted = GaussianResidualVariance(0.9, 1.7, 0.4)(m)
    np.testing.assert_allclose(EmpiricalResidualVariance(x, y)(m), predicted, rtol=0.05)
    # Negative control: a variance of y − m x alone is far away.
    assert np.abs(np.var(y) / predicted[1] - 1) > 0.3


def test_empirical_variance_has_no_cancellation():
    rng = np.random.default_rng(2)
    x = 1e3 + rng.normal(size=50)
    auto = EmpiricalResidualVariance(x)
    assert (auto.vertex, auto.floor) == (1.0, 0.0)
    m = np.array([0.0, 1 - 1e-7, 1.0])
    np.testing.assert_allclose(auto(m), (1 - m) ** 2 * np.var(x**2), rtol=1e-9)
    signs = EmpiricalResidualVariance([1.0, -1.0], [1.0, 0.0])  # x² does not vary: c is a constant
    assert signs([0.0, 2.0]).tolist() == [0.25, 0.25]


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=6))
def test_direction_is_the_gradient_of_the_product(weights):
    expected = [np.prod(weights[:l] + weights[l + 1 :]) for l in range(len(weights))]
    np.testing.assert_allclose(gradient_direction(weights), expected, rtol=1e-12, atol=1e-300)


def test_batches_of_points():
    points = np.random.default_rng(3).normal(size=(4, 2, 3))
    c = GaussianResidualVariance(1.0)
    covariance = gradient_covariance(points, c)
    assert covariance.shape == (4, 2, 3, 3)
    np.testing.assert_allclose(covariance[1, 0], gradient_covariance(points[1, 0], c), rtol=1e-13)


@given(st.floats(1e-6, 1), st.integers(1, 512), st.floats(1e-6, 10))
def test_temperature_and_noise_are_inverse(lr, batch_size, temperature):
    variance = noise_variance_for(temperature, lr, batch_size)
    assert effective_temperature(lr, batch_size, variance) == pytest.approx(temperature, rel=1e-12)


def test_finite_population():
    assert finite_population_factor(1797, 1) == 1.0
    assert finite_population_factor(64, 8) == 56 / 63
    assert finite_population_factor(1, 1) == 0.0
    # The mean of 3 of 6 numbers drawn without replacement, over all 20 batches.
    from itertools import combinations

    numbers = np.array([0.3, -1.0, 2.0, 0.7, 5.0, -0.2])
    means = [np.mean(batch) for batch in combinations(numbers, 3)]
    assert np.var(means) == pytest.approx(np.var(numbers) / 3 * finite_population_factor(6, 3))


def test_share_at_minimum_and_saddle():
    c = GaussianResidualVariance(1.0, label_noise=0.1)
    barrier = CHAIN.barrier()
    assert minibatch_share(CHAIN, barrier.minimum, 1.0, residual_variance=c) == 0.0
    share = minibatch_share(CHAIN, barrier.saddle, 0.5, residual_variance=c, population_factor=0.9)
    a = CHAIN.saddle_amplitude()
    assert share == pytest.approx(float(c(a**3)) * 3 * a**4 * 0.9 / 0.5, rel=1e-12)
    # Along the Hessian's own unstable direction it is the same, across it there is none.
    _, vectors = np.linalg.eigh(barrier.landscape.hessian_at(barrier.saddle))
    along, across = (
        minibatch_share(CHAIN, barrier.saddle, 0.5, residual_variance=c, direction=d, population_factor=0.9)
        for d in (5 * vectors[:, 0], vectors[:, 1])
    )
    assert along == pytest.approx(share, rel=1e-9)
    assert across == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: effective_temperature(0.0, 1, 1.0), "lr"),
        (lambda: effective_temperature(0.1, 0, 1.0), "batch_size"),
        (lambda: noise_variance_for(-1.0, 0.1, 1), "temperature"),
        (lambda: finite_population_factor(4, 5), "cannot hold a sample twice"),
        (lambda: GaussianResidualVariance(0.0), "singular_value"),
        (lambda: GaussianResidualVariance(1.0, label_noise=-1.0), "label_noise"),
        (lambda: EmpiricalResidualVariance([1.0, 2.0], [1.0]), "one target for each input"),
        (lambda: EmpiricalResidualVariance([]), "at least one element"),
        (
            lambda: minibatch_share(CHAIN, [1.0, 1.0], 1.0, residual_variance=GaussianResidualVariance(1.0)),
            r"shape \(3,\)",
        ),
        (
            lambda: minibatch_share(CHAIN, np.ones(3), 0.0, residual_variance=GaussianResidualVariance(1.0)),
            "noise_variance",
        ),
        (
            lambda: minibatch_share(
                CHAIN, np.ones(3), 1.0, residual_variance=GaussianResidualVariance(1.0), direction=np.zeros(3)
            ),
            "length > 0",
        ),
    ],
)
def test_refusals(call, words):
    with pytest.raises(InvalidParameterError, match=words):
        call()
