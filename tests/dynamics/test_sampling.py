"""Batches have the moments of batches, and each sampler its own noise.

Statistical tests: seeds are fixed, each p-value is tested at 1e-5 (|z| < 4.42); what would be seen is said at each.
"""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.dynamics.sampling import (
    BatchSource,
    ConstantSource,
    FiniteSource,
    FullBatch,
    Sampler,
    ScalarMomentSource,
    ShuffledEpochs,
    WithoutReplacement,
    WithReplacement,
    batch_source,
)
from kramers_grok.models.data import FiniteData, OnlineTeacher, finite, population
from kramers_grok.models.deep_linear import ChainModel, DeepLinearNetwork
from kramers_grok.models.diagonal import DiagonalNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain

Array = NDArray[np.float64]
ALPHA = 1e-5
LIKE = torch.empty(0, dtype=torch.float64)
Q, SIGMA, NOISE = 0.8, 1.3, 0.6
CHAIN = ChainModel(DeepLinearChain(3, SIGMA, 0.25, Q))


def moments(source: BatchSource, n: int, steps: int = 1, seed: int = 1) -> tuple[Array, Array]:
    """Σ̂_xx and Σ̂_yx of n replicas; shapes (step, replica, input, input) and (step, replica, output, input)."""
    streams, buffers = torch.arange(n), source.buffers(n)
    rows = []
    for step in range(steps):
        xx, yx, buffers = source.moments(seed, streams, step, buffers)
        rows.append((xx.expand(n, -1, -1).numpy(), yx.expand(n, -1, -1).numpy()))
    return np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows])


def worst_p(values: Array, expected: Array) -> float:
    """Smallest p-value of the means of `values` (sample, quantity) against `expected`, times their number."""
    spread = values.std(axis=0) / len(values) ** 0.5
    z = (values.mean(axis=0) - expected) / np.where(spread > 0, spread, 1)
    return float(2 * stats.norm.sf(np.abs(z)).min() * z.size)


# ---------------------------------------------------------------- online


def direct(n: int, batch: int, label_noise_factor: float = 1.0) -> tuple[Array, Array]:
    """Σ̂_xx and Σ̂_yx of n batches drawn sample by sample."""
    rng = np.random.default_rng(12)
    x = rng.normal(size=(n, batch)) * Q**0.5
    y = SIGMA * x + NOISE * label_noise_factor * rng.normal(size=(n, batch))
    return (x * x).mean(axis=1), (y * x).mean(axis=1)


@pytest.mark.parametrize("batch", [1, 2, 5, 32])
def test_scalar_batches_have_the_law_of_samples(batch: int) -> None:
    """KS at n = 20 000 sees distances of 1.7 %; a label noise without its 1/√B, or 10 % too strong, is seen."""
    n = 20_000
    xx, yx = (m[0, :, 0, 0] for m in moments(ScalarMomentSource(CHAIN, NOISE, batch, LIKE), n))
    direct_xx, direct_yx = direct(n, batch)
    assert stats.kstest(xx * batch / Q, stats.chi2(batch).cdf).pvalue > ALPHA
    assert stats.ks_2samp(xx, direct_xx).pvalue > ALPHA
    assert stats.ks_2samp(yx, direct_yx).pvalue > ALPHA
    # the labels' part is normal given Σ̂_xx, with variance s² Σ̂_xx / B, and independent of it
    part = (yx - SIGMA * xx) / (NOISE * (xx / batch) ** 0.5)
    assert stats.kstest(part, "norm").pvalue > ALPHA
    assert stats.pearsonr(part, xx).pvalue > ALPHA
    assert stats.kstest(part * 1.1, "norm").pvalue < ALPHA
    if batch > 1:
        wrong = SIGMA * xx + NOISE * xx**0.5 * part  # 1/√B forgotten
        assert stats.ks_2samp(wrong, direct_yx).pvalue < ALPHA


def test_steps_and_replicas_are_independent() -> None:
    """Correlations at n = 5000 are known to 1.4 %; 7 % would be seen."""
    xx, yx = moments(ScalarMomentSource(CHAIN, NOISE, 3, LIKE), 5001, steps=3)
    for m in (xx[..., 0, 0], yx[..., 0, 0]):
        assert stats.pearsonr(m[0], m[1]).pvalue > ALPHA
        assert stats.pearsonr(m[1], m[2]).pvalue > ALPHA
        assert stats.pearsonr(m[0, 1:], m[0, :-1]).pvalue > ALPHA
        assert stats.pearsonr(m[0], m[1] + 0.2 * m[0]).pvalue < ALPHA


# ---------------------------------------------------------------- finite data

N_SAMPLES, BATCH = 14, 4
X = np.random.default_rng(4).normal(size=N_SAMPLES) + 0.3
DATA = finite(X, X**3)
SAMPLERS = [WithReplacement(), WithoutReplacement(), ShuffledEpochs()]


def finite_source(sampler: Sampler, data: FiniteData = DATA, batch: int = BATCH) -> FiniteSource:
    return FiniteSource(data, batch, sampler, LIKE)


def indices(sampler: Sampler, n: int, steps: int) -> NDArray[np.int64]:
    """Shape (step, replica, batch)."""
    source, streams = finite_source(sampler), torch.arange(n)
    buffers, rows = source.buffers(n), []
    for step in range(steps):
        index, buffers = source.indices(1, streams, step, buffers)
        rows.append(index.numpy())
    return np.stack(rows)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_moments_are_those_of_the_samples_drawn(sampler: Sampler) -> None:
    index = indices(sampler, 9, 5)
    xx, yx = moments(finite_source(sampler), 9, steps=5)
    np.testing.assert_allclose(xx[..., 0, 0], (X**2)[index].mean(axis=-1), rtol=1e-14)
    np.testing.assert_allclose(yx[..., 0, 0], (X**4)[index].mean(axis=-1), rtol=1e-14)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_matrix_moments_are_those_of_the_samples_drawn(sampler: Sampler) -> None:
    rng = np.random.default_rng(0)
    data = finite(rng.normal(size=(N_SAMPLES, 3)), rng.normal(size=(N_SAMPLES, 2)))
    index = indices(sampler, 9, 5)
    xx, yx = moments(finite_source(sampler, data), 9, steps=5)
    x, y = data.x[index], data.y[index]
    np.testing.assert_allclose(xx, x.swapaxes(-1, -2) @ x / BATCH, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(yx, y.swapaxes(-1, -2) @ x / BATCH, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_mean_and_variance_of_a_batch(sampler: Sampler) -> None:
    """Mean: the full batch's. Variance: c/B with replacement, times (N − B)/(N − 1) without; c normalised by 1/N.

    At n = 40 000 the variance is known to 0.8 %; the factor is 0.77, and c normalised by 1/(N − 1) is 8 % more.
    """
    n = 40_000
    values = moments(finite_source(sampler), n)[0][0, :, 0, 0]
    mean, c = (X**2).mean(), (X**2).var()
    finite_population = (N_SAMPLES - BATCH) / (N_SAMPLES - 1)
    factor = 1.0 if isinstance(sampler, WithReplacement) else finite_population
    assert worst_p(values[:, None], np.array([mean])) > ALPHA
    squares = ((values - mean) ** 2)[:, None]
    assert worst_p(squares, np.array([factor * c / BATCH])) > ALPHA
    for wrong in (factor * N_SAMPLES / (N_SAMPLES - 1), finite_population if factor == 1.0 else 1.0):
        assert worst_p(squares, np.array([wrong * c / BATCH])) < ALPHA


def test_samples_repeat_only_with_replacement() -> None:
    def repeats(sampler: Sampler) -> bool:
        return bool((np.diff(np.sort(indices(sampler, 200, 3), axis=-1), axis=-1) == 0).any())

    assert [repeats(s) for s in SAMPLERS] == [True, False, False]


def test_an_epoch_sees_each_sample_once_and_drops_the_rest() -> None:
    per_epoch = N_SAMPLES // BATCH
    index = indices(ShuffledEpochs(), 50, 3 * per_epoch)
    epochs = index.reshape(3, per_epoch, 50, BATCH).transpose(0, 2, 1, 3).reshape(3, 50, per_epoch * BATCH)
    ordered = np.sort(epochs, axis=-1)
    assert (np.diff(ordered, axis=-1) > 0).all()
    assert ordered.min() == 0
    assert ordered.max() == N_SAMPLES - 1
    # a new order each epoch, another for each replica; what is dropped changes too
    assert (epochs[0] != epochs[1]).any(axis=-1).all()
    assert len({tuple(row) for row in epochs[0].tolist()}) == 50
    assert len({tuple(row) for row in ordered[:, 0].tolist()}) > 1


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [(WithReplacement(), 0.0), (WithoutReplacement(), 0.0), (ShuffledEpochs(), -1 / (N_SAMPLES - 1))],
    ids=["with", "without", "epochs"],
)
def test_batches_of_an_epoch_are_anticorrelated(sampler: Sampler, expected: float) -> None:
    """Covariance of two batches' means: −c/(N − 1) within an epoch, 0 between epochs and for independent draws.

    At n = 40 000 the covariance is known to 0.0010 c, and −c/13 = −0.077 c.
    """
    n = 40_000
    m = moments(finite_source(sampler), n, steps=4)[0][..., 0, 0]
    d, c = m - (X**2).mean(), (X**2).var()
    within, between = d[0] * d[1], d[2] * d[3]  # steps 0–2 are one epoch
    assert worst_p(np.stack([within, d[1] * d[2]], axis=1), np.full(2, expected * c)) > ALPHA
    assert worst_p(between[:, None], np.zeros(1)) > ALPHA
    other = -1 / (N_SAMPLES - 1) if expected == 0.0 else 0.0
    assert worst_p(within[:, None], np.array([other * c])) < ALPHA


def walk(sampler: Sampler, n: int, epochs: int, rate: float, lr: float) -> Array:
    """One linear parameter, w ← w − lr (rate·w + z̄), z̄ the batch's mean of zero-mean labels; the last epoch."""
    z = np.random.default_rng(6).normal(size=64)
    z -= z.mean()
    z /= z.std()
    source = finite_source(sampler, finite(np.ones(64), z), batch=8)
    w, buffers, streams, path = np.zeros(n), source.buffers(n), torch.arange(n), []
    for step in range(8 * epochs):
        _, yx, buffers = source.moments(2, streams, step, buffers)
        w = (1 - lr * rate) * w - lr * yx[:, 0, 0].numpy()
        path.append(w)
    return np.stack(path[-8:])


def shuffled_variances(rate: float, lr: float) -> Array:
    """Stationary variance after each batch of an epoch, exactly: c = 1, N = 64, B = 8."""
    batches, r = 8, 1 - lr * rate
    covariance = np.full((batches, batches), -1 / 63)
    np.fill_diagonal(covariance, 56 / 63 / 8)
    sums = []
    for done in range(1, batches + 1):
        weights = np.where(np.arange(batches) < done, lr * r ** (done - 1.0 - np.arange(batches)), 0.0)
        sums.append(float(weights @ covariance @ weights))
    start = sums[-1] / (1 - r ** (2 * batches))
    return np.array([r ** (2 * done) * start + own for done, own in zip(range(1, batches + 1), sums, strict=True)])


def test_slow_directions_feel_little_of_shuffled_noise() -> None:
    """With λτ = 0.08 (τ = ηN/B) the variance under shuffled epochs is about λτ/3 of that of independent draws.

    n = 4000 replicas: variances known to 2.3 % (kurtosis included), so one of 12 % is seen; the two samplers differ
    40-fold, so one taken for the other fails by far.
    """
    rate, lr, n = 0.5, 0.02, 4000
    independent = lr / 8 / (rate * (2 - lr * rate))
    exact = shuffled_variances(rate, lr)
    shuffled = walk(ShuffledEpochs(), n, 60, rate, lr) ** 2
    assert worst_p(shuffled.T, exact) > ALPHA
    assert worst_p(shuffled.T, exact * 1.2) < ALPHA
    assert worst_p(shuffled.T, np.full(8, independent)) < ALPHA
    assert exact.mean() / independent == pytest.approx(rate * lr * 64 / 8 / 3, rel=0.15)
    replaced = walk(WithReplacement(), n, 60, rate, lr)[-1] ** 2
    correlated = 1 - (1 - lr * rate) ** (2 * 8 * 60)  # not quite stationary yet
    assert worst_p(replaced[:, None], np.array([independent * correlated])) > ALPHA
    assert worst_p(replaced[:, None], np.array([independent * 56 / 63])) < ALPHA


# ---------------------------------------------------------------- which source, and refusals


def test_population_and_full_batch_never_change() -> None:
    source = batch_source(CHAIN, population(), 1, WithReplacement(), LIKE)
    xx, yx = moments(source, 2, steps=2)
    assert (xx == Q).all()
    np.testing.assert_allclose(yx, Q * SIGMA, rtol=1e-15)
    chain = ChainModel(DeepLinearChain.from_data(X, X**3, depth=3, weight_decay=0.1))
    full = batch_source(chain, DATA, N_SAMPLES, FullBatch(), LIKE)
    assert isinstance(full, ConstantSource)
    xx, yx = moments(full, 2, steps=2)
    np.testing.assert_allclose(xx, (X**2).mean(), rtol=1e-14)
    np.testing.assert_allclose(yx, (X**4).mean(), rtol=1e-14)
    assert source.buffers(3) == full.buffers(3) == {}


def test_an_online_teacher_has_no_full_batch() -> None:
    with pytest.raises(InvalidParameterError, match=r"no full batch.*\n.*population\(\)"):
        batch_source(CHAIN, OnlineTeacher(0.1), 4, FullBatch(), LIKE)


def test_only_shuffled_epochs_remember() -> None:
    assert finite_source(WithReplacement()).buffers(3) == {}
    assert finite_source(ShuffledEpochs()).buffers(3)["order"].shape == (3, N_SAMPLES)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_source_of_finite_data(sampler: Sampler) -> None:
    chain = ChainModel(DeepLinearChain.from_data(X, X**3, depth=3, weight_decay=0.1))
    source = batch_source(chain, DATA, BATCH, sampler, LIKE)
    assert isinstance(source, FiniteSource)
    assert source.sampler == sampler


def test_diagonal_networks_look_at_diagonals_only() -> None:
    """Correlated inputs are no contradiction to independent chains; another variance is."""
    x = np.random.default_rng(1).normal(size=(20, 2)) @ np.array([[1.0, 0.8], [0.0, 0.5]])
    data = finite(x, x * [2.0, 1.0])
    network = DiagonalNetwork.from_data(data, 3, weight_decay=0.1)
    xx, yx = moments(batch_source(network, data, 20, FullBatch(), LIKE), 1)
    np.testing.assert_allclose(xx[0, 0], x.T @ x / 20)
    np.testing.assert_allclose(yx[0, 0], (x * [2.0, 1.0]).T @ x / 20)
    wrong = DiagonalNetwork(3, network.singular_values, weight_decay=0.1)
    with pytest.raises(InvalidParameterError, match=r"input variance differs from the model's"):
        batch_source(wrong, data, 20, FullBatch(), LIKE)


def test_the_population_of_inputs_that_are_not_white() -> None:
    network = DeepLinearNetwork((2, 2, 2), [2.0, 1.0], weight_decay=0.1, input_covariance=[[2.0, 0.3], [0.3, 1.0]])
    xx, yx = moments(batch_source(network, population(), 1, WithReplacement(), LIKE), 1)
    np.testing.assert_allclose(xx[0, 0], [[2.0, 0.3], [0.3, 1.0]])
    np.testing.assert_allclose(yx[0, 0], [[4.0, 0.6], [0.3, 1.0]])
