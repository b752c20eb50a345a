"""Diagnosis of a trap: each cause on a chain that has it, and the errors.

Shared with what is tested elsewhere: the engine and the choice of laws. New here is that runs, control and growth rate
are put together rightly, so each case is one where another verdict would be wrong by physics.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import kramers_grok as kg
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.escape.protocols.trap import without_noise
from kramers_grok.studies import diagnosis
from kramers_grok.studies.diagnosis import diagnose
from kramers_grok.theory.gradient_noise import GaussianResidualVariance

CHAIN = kg.DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
TARGET = kg.beyond(CHAIN.barrier())
SMALL = np.full(3, 1e-3)


def test_isotropic_noise_gives_arrhenius_with_about_the_barrier() -> None:
    """The slope against B/η is that of the exact times, minibatches and step included: no simulation has part in them.

    At 4.5 standard errors chance breaks it with probability 7e-6. They are below 3 % of the barrier, so a temperature
    wrong by 20 % is seen; and the control, the same line for another g², fails.
    """
    variance, batches = 4 * 2 * (CHAIN.barrier().height / 2) / 0.1, np.array([4, 6, 8, 10, 12])  # ΔF/T = 2 to 6
    sgd = kg.SGD(CHAIN, kg.teacher(label_noise=0.1), lr=0.1, batch_size=4, noise=kg.per_sample(variance=variance))
    found = diagnose(
        sgd, target=TARGET, start=np.zeros(3), batch_sizes=batches.tolist(), n_replicas=512, max_time=1e4, seed=0
    )
    assert found.verdict == "arrhenius"
    assert found.growth is None
    assert not found.runs[0].escaped.any()
    c = GaussianResidualVariance(1.0, label_noise=0.1)
    exact = [
        kg.exit_time(CHAIN, temperature=0.1 * variance / (2 * b), target=TARGET, step=0.1, monitored=True,
                     minibatch=kg.MinibatchNoise(0.1 / b, c)).mean
        for b in batches
    ]  # fmt: skip
    predicted = np.polyfit(batches / 0.1, np.log(exact), 1)[0]
    fit = found.choice.fit
    error = (fit.upper["barrier"] - fit.lower["barrier"]) / (2 * 1.96)
    assert error < 0.03 * predicted
    assert abs(fit.parameters["barrier"] - predicted) < 4.5 * error
    assert abs(fit.parameters["barrier"] - 1.2 * predicted) > 4.5 * error


def test_what_the_full_batch_does_too_is_deterministic() -> None:
    """AdamW rescales tiny gradients, so that the chain leaves without noise; plain descent from there does not."""
    adamw = kg.SGD(CHAIN, kg.teacher(label_noise=0.1), lr=0.01, batch_size=4, optimizer=kg.AdamW())
    case = {"target": TARGET, "start": SMALL, "batch_sizes": [2, 4, 8], "n_replicas": 16, "max_time": 4.0, "seed": 0}
    found = diagnose(adamw, **case)
    assert (found.verdict, bool(found.runs[0].escaped.all())) == ("deterministic", True)
    plain = diagnose(adamw.replace(optimizer=kg.GradientDescent()), **case)
    assert plain.verdict == "absorbing"
    assert "absorbing" in str(plain)


def test_absorbing_needs_a_falling_growth_rate_as_well() -> None:
    """No escape by a short horizon says nothing if unused directions grow."""
    network = kg.DeepLinearNetwork((2, 2, 2, 2), [2.0, 1.0], weight_decay=0.1)
    sgd = kg.SGD(network, kg.teacher(label_noise=0.1), lr=0.05, batch_size=8)
    start = network.ordered_state([0]).numpy()
    case = {"target": kg.Region(0.5, feature=1), "batch_sizes": [8, 16], "n_replicas": 8, "max_time": 5.0, "seed": 0}
    found = diagnose(sgd, start=start, growth_steps=300, **case)
    assert found.verdict == "absorbing"
    assert found.growth is not None
    grows = found.growth.assign(verdict=xr.DataArray("escapable"), growth_rate=abs(found.growth.growth_rate))
    verdict, reason = diagnosis._verdict(found.choice, grows, sgd)
    assert verdict == "undecided"
    assert "horizon" in reason
    assert diagnosis._verdict(replace(found.choice, verdict="growth"), None, sgd)[0] == "instability"


def test_the_control_has_no_noise_left() -> None:
    data = kg.linear_teacher_data([1.0], n_samples=16, label_noise=0.5, seed=0)
    model = kg.DeepLinearChain.from_data(data.x[:, 0], data.y[:, 0], depth=3, weight_decay=0.1)
    noisy = kg.SGD(model, data, lr=0.1, batch_size=2, sampler=kg.ShuffledEpochs(), noise=kg.per_sample(variance=0.1))
    still = without_noise(noisy)
    runs = [still.advance(still.start(4, seed=seed, point=[0.5] * 3), 20)[0].theta for seed in (0, 1)]
    assert (runs[0] == runs[1]).all()
    assert (runs[0] == runs[0][0]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"batch_sizes": [4]}, "at least two"), ({"batch_sizes": [4, 4]}, "at least two"), ({"lr": [0.1, 0.2]}, "`lr`")],
)
def test_bad_input_is_named(changes: dict[str, object], message: str) -> None:
    sgd = kg.SGD(CHAIN, kg.teacher(label_noise=0.1), lr=changes.pop("lr", 0.1), batch_size=4)
    case = {"target": TARGET, "start": SMALL, "batch_sizes": [2, 4], "n_replicas": 2, "max_time": 1.0, "seed": 0}
    with pytest.raises(InvalidParameterError, match=message):
        diagnose(sgd, **(case | changes))
