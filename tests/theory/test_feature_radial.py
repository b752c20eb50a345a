"""Radial rates without white inputs: against the white theory, against Hessians of the whole network, and limits.

The simulations that test the rates themselves are in ``tests/studies/reproduction/test_hysteresis_arm.py``.
"""

from __future__ import annotations

import numpy as np
import pytest

from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError, ValidityWarning
from kramers_grok.theory.feature_network import FeatureNetwork
from kramers_grok.theory.feature_radial import feature_radial_rate, left_out
from kramers_grok.theory.radial import radial_rate
from kramers_grok.theory.rates import eyring_kramers_rate
from kramers_grok.theory.saddles import MatrixNetwork

Q = np.array([1.5, 1.0, 0.6])
SIGMA = np.array([1.1, 1.0, 0.9])


def network(hidden: tuple[int, int] = (3, 3), decay: float = 0.15) -> FeatureNetwork:
    return FeatureNetwork(np.diag(Q), np.diag(Q * SIGMA), hidden, decay)


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("widths", [(3, 4, 4, 3), (5, 3, 4, 3), (3, 4, 3, 4)])
def test_white_inputs_give_the_white_theory(rank: int, widths: tuple[int, ...]) -> None:
    """Terms of determinants are shared, what goes into them is not."""
    matrix = np.zeros((widths[-1], widths[0]))
    matrix[:3, :3] = np.diag([2.0, 1.4, 1.0])
    here = FeatureNetwork(0.8 * np.eye(widths[0]), 0.8 * matrix, widths[1:-1], 0.15)
    there = MatrixNetwork(widths, (2.0, 1.4, 1.0), 0.15, 0.8)
    heat = there.barrier(rank).height / 20
    ours, theirs = feature_radial_rate(here, heat, rank), radial_rate(there, heat, rank)
    assert ours.value == pytest.approx(theirs.value, rel=1e-9)
    assert ours.barrier_over_temperature == pytest.approx(theirs.barrier_over_temperature, rel=1e-9)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_at_low_temperature_it_is_eyring_kramers_of_the_whole_network(rank: int) -> None:
    """Determinants in closed form here, the complex-step Hessian of all weights there; the difference is of order T.

    So it extrapolates to 0. With the variances of the others set to the channel's own it would not, by 0.02 and more.
    """
    error = []
    for ratio in (150.0, 300.0, 600.0):  # ΔF/T
        there = network().barrier(rank)
        heat = there.height / ratio
        radial = feature_radial_rate(network(), heat, rank).value
        error.append(np.log(radial / eyring_kramers_rate(there, heat, warn=False).value))
    assert abs(2 * error[2] - error[1]) < 0.002
    assert abs(error[2]) < 0.6 * abs(error[1]) < 0.36 * abs(error[0]) + 1e-6
    white = FeatureNetwork(Q[rank] * np.eye(3), Q[rank] * np.diag(SIGMA), (3, 3), 0.15)
    heat = white.barrier(rank).height / 600.0
    wrong = feature_radial_rate(white, heat, rank).value / feature_radial_rate(network(), heat, rank).value
    assert abs(np.log(wrong)) > 0.02


def test_the_step_s_correction_is_the_whole_network_s() -> None:
    barrier = network().barrier(1)
    heat = barrier.height / 15
    rates = [feature_radial_rate(network(), heat, 1, step=h, warn=False).value for h in (0.0, 0.1)]
    expected = -0.05 * abs(barrier.saddle_spectrum[0])
    expected += 0.025 * (barrier.minimum_spectrum.sum() - barrier.saddle_spectrum.sum())
    assert np.log(rates[1] / rates[0]) == pytest.approx(expected, abs=1e-10)


def test_what_is_left_out_needs_other_unlearned_features() -> None:
    found = [left_out(network(), 0.001, rank) for rank in range(3)]
    assert found[2] == 0.0
    assert found[1] == pytest.approx(0.001 * (4 - 1) * (Q[2] * SIGMA[2]) ** 2 / (2 * 0.15**3), rel=1e-9)
    assert found[0] > found[1] > 0


def test_messages_and_limits() -> None:
    with pytest.raises(NoBarrierError, match=r"melted.*\nUse a lower temperature"):
        feature_radial_rate(network((12, 12)), network().barrier(0).height / 3, 0)
    with pytest.raises(NoBarrierError):
        feature_radial_rate(network(), 1e-3, 3)
    with pytest.raises(NoBarrierError):
        feature_radial_rate(network(decay=5.0), 1e-3, 0)
    with pytest.raises(InvalidParameterError, match="temperature"):
        feature_radial_rate(network(), 0.0, 0)
    with pytest.warns(ValidityWarning, match="simulation"):
        low = feature_radial_rate(network(), network().barrier(2).height / 1.5, 2)
    assert not low.valid
