"""What minibatches add to a radial escape: limits in which another formula knows it."""

from __future__ import annotations

import numpy as np
import pytest

from kramers_grok.core.exceptions import NoBarrierError
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise, minibatch_log_factor
from kramers_grok.theory.radial import RadialFreeEnergy
from kramers_grok.theory.radial_minibatch import radial_minibatch_log_factor
from kramers_grok.theory.saddles import MatrixNetwork

RESIDUAL = GaussianResidualVariance(1.0, 1.0, 0.1)


def factors(widths: tuple[int, ...], ratio: float, share: float = 1.0) -> tuple[float, float]:
    """Along the radial path and along the mode's; per-sample noise of variance 0.65, minibatches times `share`."""
    network = MatrixNetwork(widths, (1.0,), weight_decay=0.25)
    T = network.barrier().height / ratio
    noise = MinibatchNoise(share * 2 * T / 0.65, RESIDUAL)
    return radial_minibatch_log_factor(RadialFreeEnergy(network, T), noise), minibatch_log_factor(
        network.mode(0), T, noise
    )


@pytest.mark.parametrize("widths", [(1, 1, 1, 1), (1, 1, 1, 1, 1)])
def test_without_entropy_it_is_the_modes(widths: tuple[int, ...]) -> None:
    """One unit a layer: the path is the balanced one. What is shared: c(m) alone; path and integral are other code."""
    radial, mode = factors(widths, 12.0)
    assert mode > 0.02
    assert radial == pytest.approx(mode, abs=3e-4)


def test_towards_zero_temperature_the_exponents_agree() -> None:
    ratios = [radial / mode for radial, mode in (factors((1, 8, 8, 1), x) for x in (24.0, 100.0, 640.0, 4000.0))]
    assert np.all(np.diff(ratios) > 0)
    assert ratios[0] < 0.25  # the wide trap's barrier is mostly entropy there
    assert ratios[-1] == pytest.approx(1.0, abs=0.02)


def test_it_is_linear_in_a_small_share() -> None:
    small, smaller = (factors((1, 4, 4, 1), 20.0, share)[0] for share in (1e-2, 1e-3))
    assert small == pytest.approx(10 * smaller, rel=2e-3)
    assert factors((1, 4, 4, 1), 20.0, 0.0)[0] == 0.0


def test_a_melted_trap_has_none() -> None:
    with pytest.raises(NoBarrierError, match="melted"):
        factors((1, 8, 8, 1), 12.0)
