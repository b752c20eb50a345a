"""Data sources: shapes, second moments, and refusals."""

import sys
from typing import Any

import numpy as np
import pytest
from scipy import stats

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.models.data import (
    OnlineTeacher,
    Population,
    autoencoding,
    digits,
    finite,
    linear_teacher_data,
    modular_addition,
    population,
    subsample,
    teacher,
    whitened,
)
from kramers_grok.models.deep_linear import DeepLinearNetwork

RNG = np.random.default_rng(0)


def test_vectors_become_columns() -> None:
    data = finite([1.0, 2.0, 3.0], [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert data.x.shape == (3, 1)
    assert data.y.shape == (3, 2)
    assert data.n_samples == 3


def test_covariances_are_second_moments_over_n() -> None:
    x, y = RNG.normal(size=(7, 3)) + 1.0, RNG.normal(size=(7, 2))
    data = finite(x, y)
    xx = sum(np.outer(row, row) for row in x) / 7
    yx = sum(np.outer(b, a) for a, b in zip(x, y, strict=True)) / 7
    np.testing.assert_allclose(data.input_covariance, xx, rtol=1e-13)
    np.testing.assert_allclose(data.cross_covariance, yx, rtol=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([], [], r"`x` = .*shape \(0,\).*at least one element"),
        ([1.0, np.nan], [1.0, 2.0], r"`x` = .*1 NaN or infinite"),
        ([1.0, 2.0], [1.0, np.inf], r"`y` = .*1 NaN or infinite"),
        ([1.0, 2.0], [1.0], r"`x` has 2 samples and `y` has 1, expected as many labels as inputs"),
        (np.ones((2, 2, 2)), np.ones(2), r"`x` has shape \(2, 2, 2\), expected \(sample,\) or \(sample, dimension\)"),
        (1.0, 1.0, r"`x` has shape \(\)"),
        (["cat"], [1.0], "`x` = .*expected an array of numbers"),
    ],
)
def test_bad_data_are_refused(x: Any, y: Any, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        finite(x, y)


def test_autoencoding_learns_its_input() -> None:
    x = RNG.normal(size=(5, 2)) + 3.0
    centred = autoencoding(x)
    np.testing.assert_allclose(centred.x.mean(axis=0), 0.0, atol=1e-15)
    assert (centred.x == centred.y).all()
    np.testing.assert_allclose(centred.input_covariance, np.cov(x.T, bias=True), rtol=1e-12)
    assert (autoencoding(x, center=False).x == x).all()
    with pytest.raises(InvalidParameterError, match="`x`"):
        autoencoding([[np.nan]])


def test_online_sources() -> None:
    assert teacher(label_noise=0) == OnlineTeacher(0.0)
    assert population() == Population()
    for bad in (-0.1, np.nan):
        with pytest.raises(InvalidParameterError, match=r"`label_noise` = .*>= 0"):
            teacher(label_noise=bad)


def test_the_digits() -> None:
    """Centred, their covariance starts 178.9, 163.6, 141.7, 101.0, 69.5."""
    pytest.importorskip("sklearn")
    images = digits()
    assert images.shape == (1797, 64)
    assert images.dtype == np.float64
    assert (images.min(), images.max()) == (0.0, 16.0)
    covariance = autoencoding(images).input_covariance
    spectrum = np.linalg.eigvalsh(covariance)[::-1]
    np.testing.assert_allclose(spectrum[:5], [178.9, 163.6, 141.7, 101.0, 69.5], atol=0.06)


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'kramers_grok\[data\]'"):
        digits()


def test_subsamples_are_samples_without_repetition() -> None:
    data = finite(np.arange(20.0), np.arange(20.0) ** 2)
    part = subsample(data, 8, seed=1)
    assert part.n_samples == len(np.unique(part.x)) == 8
    assert (part.y == part.x**2).all()
    # nested under one seed, another set under another, all of them in the end
    np.testing.assert_array_equal(subsample(data, 5, seed=1).x, part.x[:5])
    assert (subsample(data, 8, seed=2).x != part.x).any()
    assert sorted(subsample(data, 20, seed=1).x[:, 0].tolist()) == list(range(20))
    with pytest.raises(InvalidParameterError, match=r"`n_samples` = 21, expected at most 20"):
        subsample(data, 21, seed=1)


def test_every_sample_is_as_likely() -> None:
    """Each of 10 is among 3 in 3/10 of 4000 draws: χ² with 9 degrees of freedom (variance 7/9 of independent)."""
    data = finite(np.arange(10.0), np.arange(10.0))
    counts = np.zeros(10)
    for seed in range(4000):
        counts[subsample(data, 3, seed=seed).x[:, 0].astype(int)] += 1
    chi2 = ((counts - 1200) ** 2).sum() / 1200 * 9 / 7
    assert stats.chi2.sf(chi2, 9) > 1e-5
    assert stats.chi2.cdf(chi2, 9) > 1e-5


def test_whitened_inputs_are_white() -> None:
    x = RNG.normal(size=(30, 4)) @ RNG.normal(size=(4, 4))
    flat = np.concatenate([x, x[:, :1] + x[:, 1:2], np.zeros((30, 1))], axis=1)  # rank 4 in 6 columns
    for given in (x, flat):
        white = whitened(given)
        np.testing.assert_allclose(white.T @ white / 30, np.eye(4), atol=1e-12)
        # the same space: the given inputs are linear in the whitened ones
        np.testing.assert_allclose(white @ (white.T @ given / 30), given, atol=1e-10)
    with pytest.raises(InvalidParameterError, match="`x` = 'all zeros'"):
        whitened(np.zeros((3, 2)))


def test_samples_of_a_linear_teacher() -> None:
    matrix = RNG.normal(size=(2, 3))
    data = linear_teacher_data(matrix, n_samples=4000, label_noise=0.5, seed=3)
    assert (data.x.shape, data.y.shape) == ((4000, 3), (4000, 2))
    noise = data.y - data.x @ matrix.T
    assert stats.kstest(data.x.ravel(), "norm").pvalue > 1e-5
    assert stats.kstest(noise.ravel() / 0.5, "norm").pvalue > 1e-5
    assert stats.kstest(noise.ravel() / 0.55, "norm").pvalue < 1e-5
    # a smaller set is the beginning; noise of another strength is the same noise
    fewer = linear_teacher_data(matrix, n_samples=10, label_noise=1.0, seed=3)
    np.testing.assert_array_equal(fewer.x, data.x[:10])
    np.testing.assert_allclose(fewer.y - fewer.x @ matrix.T, 2 * noise[:10])
    diagonal = linear_teacher_data([2.0, 0.5], n_samples=5, label_noise=0.0, seed=0)
    np.testing.assert_allclose(diagonal.y, diagonal.x * [2.0, 0.5])


def test_whitened_samples_make_a_white_network() -> None:
    data = linear_teacher_data([2.0, 1.0, 0.5], n_samples=8, label_noise=0.3, seed=4, whiten=True)
    np.testing.assert_allclose(data.input_covariance, np.eye(3), atol=1e-12)
    network = DeepLinearNetwork.from_data(data, (3, 3), weight_decay=0.05)
    assert network.is_white
    np.testing.assert_allclose(network.theory.singular_values, np.linalg.svd(data.cross_covariance)[1])
    np.testing.assert_allclose(network.teacher_matrix, data.cross_covariance, rtol=1e-10)
    with pytest.raises(InvalidParameterError, match=r"`n_samples` = 2, expected at least 3.*\n.*whiten=False"):
        linear_teacher_data([2.0, 1.0, 0.5], n_samples=2, label_noise=0.3, seed=4, whiten=True)
    with pytest.raises(InvalidParameterError, match="`matrix` = array of shape"):
        linear_teacher_data(np.ones((2, 2, 2)), n_samples=2, label_noise=0.3, seed=4)


@pytest.mark.parametrize("p", [2, 5, 11])
def test_modular_addition(p: int) -> None:
    train, test = modular_addition(p, 0.6, seed=2, center=False)
    assert train.n_samples == round(0.6 * p * p)
    x, y = (np.concatenate([getattr(part, name) for part in (train, test)]) for name in "xy")
    a, b, total = x[:, :p].argmax(axis=1), x[:, p:].argmax(axis=1), y.argmax(axis=1)
    assert len(set(zip(a.tolist(), b.tolist(), strict=True))) == p * p  # all pairs, each once
    assert ((a + b) % p == total).all()
    assert (x.sum(axis=1) == 2).all()
    assert (y.sum(axis=1) == 1).all()
    assert set(np.unique(np.concatenate([x, y], axis=1))) == {0.0, 1.0}
    # centred labels: no linear map of the inputs knows anything of the sum
    centred = modular_addition(p, 0.6, seed=2)
    labels = np.concatenate([part.y for part in centred])
    np.testing.assert_allclose(labels, y - 1 / p, atol=1e-15)
    np.testing.assert_allclose(labels.T @ x, 0.0, atol=1e-12)


def test_splits_of_modular_addition() -> None:
    few, many = (modular_addition(7, fraction, seed=4).train for fraction in (0.3, 0.7))
    np.testing.assert_array_equal(few.x, many.x[: few.n_samples])
    assert not np.array_equal(few.x, modular_addition(7, 0.3, seed=5).train.x)
    few_pairs = "expected at least half a pair of 25"
    for p, fraction, message in (
        (1, 0.5, "`p` = 1, expected an integer >= 2"),
        (5, 1.0, "`train_fraction` = 1.0"),
        (5, 0.01, f"`train_fraction` = 0.01, {few_pairs}"),
        (5, 0.99, f"`train_fraction` = 0.99, {few_pairs}"),
    ):
        with pytest.raises(InvalidParameterError, match=message):
            modular_addition(p, fraction, seed=0)
