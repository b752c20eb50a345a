"""Features of second moments: bases, ties, and when they exist."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.theory.features import features_of
from kramers_grok.theory.phases import FeatureSpectrum


def orthogonal(n: int, seed: int) -> np.ndarray:
    return np.asarray(np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0])


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_they_decompose_the_covariance(outputs: int, inputs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    root, yx = rng.normal(size=(inputs, inputs)), rng.normal(size=(outputs, inputs))
    found = features_of(root @ root.T, yx)
    assert found.rank == min(outputs, inputs)
    np.testing.assert_allclose(
        found.left[:, : found.rank] * found.covariances @ found.right[: found.rank], yx, atol=1e-10
    )
    for basis in (found.left, found.right):
        np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-12)
    np.testing.assert_allclose(found.inputs, found.right @ root @ root.T @ found.right.T, atol=1e-10)
    ordered = found.by_strength(3)
    strength = ordered.input_variances * ordered.singular_values ** (4 / 3)
    assert (np.diff(strength) <= 1e-12 * strength.max()).all()
    np.testing.assert_allclose(
        ordered.left[:, : found.rank] * ordered.covariances @ ordered.right[: found.rank], yx, atol=1e-10
    )


def test_ties_take_the_inputs_axes() -> None:
    """c = (2, 2, 1): the singular vectors of the first two are arbitrary, Σ_xx says which; U turns with V."""
    u, v = orthogonal(3, 0), orthogonal(3, 1)
    xx, yx = v @ np.diag([4.0, 0.5, 1.0]) @ v.T, u @ np.diag([2.0, 2.0, 1.0]) @ v.T
    found = features_of(xx, yx)
    assert found.worst_correlation[0] < 1e-10
    np.testing.assert_allclose(sorted(found.input_variances), [0.5, 1.0, 4.0])
    np.testing.assert_allclose(found.left * found.covariances @ found.right, yx, atol=1e-12)
    # Negative control: as the decomposition leaves them they are correlated
    _, _, vt = np.linalg.svd(yx)
    assert np.abs(vt @ xx @ vt.T - np.diag(np.diag(vt @ xx @ vt.T))).max() > 0.1
    # the smaller variance is the stronger of the two
    np.testing.assert_allclose(found.by_strength(3).input_variances[:2], [0.5, 4.0])


def test_correlations_that_couple_features() -> None:
    xx = np.array([[1.0, 0.3], [0.3, 2.0]])
    coupled = features_of(xx, np.diag([2.0, 1.0]))
    assert coupled.worst_correlation[0] == pytest.approx(0.3 / 2**0.5)
    with pytest.raises(InvalidParameterError, match=r"modes 0 and 1 have correlation 0\.212"):
        coupled.require_shared(1e-6)
    with pytest.raises(InvalidParameterError, match="do not share"):
        FeatureSpectrum.from_moments(xx, np.diag([2.0, 1.0]))
    # directions that the targets ignore may do what they like
    ignored = np.eye(3)
    ignored[1:, 1:] = xx
    assert FeatureSpectrum.from_moments(ignored, np.diag([2.0, 0.0, 0.0])).singular_values == (2.0,)
    with pytest.raises(InvalidParameterError, match=r"`sigma_xx` has shape \(2, 2\) and `sigma_yx` \(1, 3\)"):
        FeatureSpectrum.from_moments(xx, np.ones((1, 3)))


def test_moments_say_what_samples_say() -> None:
    x = orthogonal(6, 2)[:, :3] * [3.0, 2.0, 1.0]
    y = x @ np.diag([1.0, 2.0, 0.5])
    one, other = FeatureSpectrum.from_data(x, y), FeatureSpectrum.from_moments(x.T @ x / 6, y.T @ x / 6)
    assert one == other
    np.testing.assert_allclose(one.singular_values, [1.0, 2.0, 0.5])
