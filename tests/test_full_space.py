"""Rates of whole networks against splitting at a barrier of 40 T: the small case of `evidence/full_space.py`.

The two sides share the energy and the kernels' arithmetic of its gradient (tested against autograd elsewhere): the
prediction has no simulation in it and the simulation no spectrum, orbit or rate.

False alarms: 4.5 standard errors of ln τ, 7e-6 for each of the five cases. Power: the errors are 6 to 9 %, so the
limits are 0.33 to 0.47, and a rate wrong by a factor of 2 (0.69: half the saddles, or the tangents of two zero modes
too short by √2) lies at least 2.4 standard errors beyond them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kramers_grok as kg
from kramers_grok.theory.gradient_noise import GaussianResidualVariance

RATIO = 40.0
STEP = 0.1
# The formula is a leading order; its relative error at these widths is 0 to 1.3 T/ΔF.
LEADING_ORDER = 2 / RATIO
Z = 4.5

CASES: dict[str, dict[str, Any]] = {
    "chain of four weights": {"widths": (1, 1, 1, 1, 1)},
    "two hidden units": {"widths": (1, 2, 2, 1)},
    "unequal widths, four layers": {"widths": (1, 2, 1, 2, 1)},
    "from rank 1": {"widths": (2, 2, 2, 2), "singular_values": (1.6, 1.0), "rank": 1},
    "SGD with minibatches": {"widths": (1, 2, 2, 1), "sgd": True},
}


def measure(
    widths: tuple[int, ...], singular_values: tuple[float, ...] = (1.0,), rank: int = 0, sgd: bool = False
) -> tuple[float, float, float]:
    """ln(simulated / predicted) mean time, its standard error, and the temperature."""
    network = kg.DeepLinearNetwork(widths, singular_values, weight_decay=0.25)
    barrier = network.theory.barrier(rank)
    temperature = barrier.height / RATIO
    log_time = math.log(kg.eyring_kramers_rate(barrier, temperature, step=STEP, warn=False).mean_time)
    process: kg.Langevin | kg.SGD = kg.Langevin(network, temperature=temperature, dt=STEP)
    if sgd:
        batch_size = 300
        noise = kg.MinibatchNoise(STEP / batch_size, GaussianResidualVariance(1.0, 1.0, 0.1))
        log_time -= kg.minibatch_log_factor(network.mode(rank), temperature, noise)
        data = kg.teacher(label_noise=0.1)
        injected = kg.per_sample(temperature=temperature)
        process = kg.SGD(network, data, lr=STEP, batch_size=batch_size, noise=injected)
    run = kg.splitting(
        process,
        target=kg.beyond(barrier),
        start=network.embed(barrier.minimum),
        score=kg.ResidualFeature.of(network, rank) if rank else None,
        seed=11,
    )
    error = float(run.standard_error / run.mean_exit_time)
    return math.log(float(run.mean_exit_time)) - log_time, error, temperature


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_rates_of_whole_networks(case: str) -> None:
    difference, error, temperature = measure(**CASES[case])
    allowed = Z * error + LEADING_ORDER
    assert error < 0.15
    assert abs(difference) < allowed
    # Negative controls: twice or half the saddles (or √2 in each of two tangents), one zero mode missed
    for wrong in (math.log(2), -math.log(2), 0.5 * math.log(2 * np.pi * temperature)):
        assert abs(difference - wrong) > allowed
