"""Data sources: shapes, second moments, and refusals."""

import sys
from typing import Any

import numpy as np
import pytest

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.models.data import OnlineTeacher, Population, autoencoding, digits, finite, population, teacher

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
