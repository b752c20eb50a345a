"""Spinodals of nonlinear networks: limits in which they are known, and what may be told apart.

The three predictions share the linear spinodal only in `saturation_shift`; the others find their folds by following a
minimum. Wide layers make them meet.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.theory.mode_states import spinodal
from kramers_grok.theory.nonlinear_features import (
    chain_spinodal,
    gain,
    gain_spinodals,
    saturation_shift,
    slope_factor,
)

SIGMA = (1.6, 1.0)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def tanh_slope(z: np.ndarray) -> np.ndarray:
    return np.asarray(1 - np.tanh(z) ** 2)


def gelu(z: np.ndarray) -> np.ndarray:
    return np.asarray(z * ndtr(z))


def gelu_slope(z: np.ndarray) -> np.ndarray:
    return np.asarray(ndtr(z) + z * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi))


def test_linear_units_have_the_linear_spinodals() -> None:
    linear = spinodal(3, SIGMA)
    np.testing.assert_allclose(gain_spinodals(np.ones_like, SIGMA, (4, 4)), linear, rtol=4e-4)
    assert chain_spinodal(lambda z: z, np.ones_like, NODES, 1.6 * NODES, weights=WEIGHTS) == pytest.approx(
        linear[0], rel=4e-4
    )
    # A slope other than 1 multiplies them.
    half = gain_spinodals(lambda z: np.full_like(z, 0.5), SIGMA, (4, 4))
    np.testing.assert_allclose(half, slope_factor(3, 0.5) * linear, rtol=4e-4)


@pytest.mark.parametrize("variance", [0.0, 0.3, 4.0])
def test_the_gain_of_gelu_is_one_half_whatever_the_variance(variance: float) -> None:
    assert gain(gelu_slope, variance) == pytest.approx(0.5, abs=1e-12)


def test_first_order_in_one_over_width_is_what_the_gain_tends_to() -> None:
    """The difference falls by 16 from one width to four times that, and both shifts are far from 0."""
    apart = []
    for width in (16, 64):
        first = saturation_shift(SIGMA, (width, width))
        whole = gain_spinodals(tanh_slope, SIGMA, (width, width)) / spinodal(3, SIGMA) - 1
        apart.append(whole - first)
    assert (apart[0] > 0.01).all()
    np.testing.assert_allclose(apart[0] / apart[1], 16, rtol=0.4)  # folds are found to 2e-4, of differences of 1e-3
    assert saturation_shift(SIGMA, (64, 64))[1] < -0.03


def test_one_feature_alone_agrees_with_the_exact_chain_in_wide_layers() -> None:
    for width, within in ((16, 3e-3), (64, 6e-4)):
        exact = chain_spinodal(np.tanh, tanh_slope, NODES, NODES, units=(width, width), weights=WEIGHTS)
        (approximate,) = gain_spinodals(tanh_slope, [1.0], (width, width))
        assert approximate == pytest.approx(exact, rel=within)
        assert exact < (1 - 0.5 / width) * spinodal(3, 1.0)


def test_gelu_alone_bends_to_one_side() -> None:
    """Half of the inputs' variance, a slope near 1: above the paired units' fold, near that of ReLU, which is ½."""
    linear = float(spinodal(3, 1.6))
    half = chain_spinodal(gelu, gelu_slope, NODES, 1.6 * NODES, weights=WEIGHTS)
    assert slope_factor(3, 0.5) * linear < half
    assert half == pytest.approx(0.5125 * linear, rel=1e-3)  # found independently, by another search


def test_what_cannot_be_predicted_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="at least two hidden layers"):
        gain_spinodals(tanh_slope, SIGMA, (4,))
    with pytest.raises(InvalidParameterError, match="numbers > 0"):
        saturation_shift([1.0, 0.0], (4, 4))
    with pytest.raises(InvalidParameterError, match="slope"):
        slope_factor(3, 0.0)
