"""Attributions on planted processes: what a weight does by itself, by the data's noise only, or not at all."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats
from torch import Tensor

import kramers_grok as kg
from kramers_grok.analysis.exponents import exponent_fit
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.dynamics.optimizers import Adam, AdamW, Memory, Optimizer, Rate
from kramers_grok.models.data import FiniteData
from kramers_grok.studies.attribution import LEVEL, attribute, attribution, false_alarm_rate, near

CHAIN = kg.DeepLinearChain(2, 1.0, weight_decay=1.2)  # above the onset: 0 is the only state


@dataclass(frozen=True)
class Pushes:
    """Moves all weights up, whatever the gradient is."""

    def init(self, theta: Tensor) -> dict[str, Tensor]:
        return {}

    def step(
        self, theta: Tensor, gradient: Tensor, state: Memory, lr: Rate, weight_decay: Rate
    ) -> tuple[Tensor, Memory]:
        return theta + lr, state


def data(spread: float) -> FiniteData:
    """x = ±1 and labels that single samples miss by `spread`, in the mean by nothing."""
    x = np.tile([1.0, -1.0], 32)
    return kg.finite(x, x * (1.0 + spread * np.repeat([1.0, -1.0], 32)))


PLANTED: dict[str, tuple[Optimizer, float, float, str]] = {
    "deterministic": (Pushes(), 0.0, 0.0, "deterministic"),
    "noise": (Adam(), 12.0, 1e-2, "noise-driven"),
    "no noise": (Adam(), 0.0, 1e-2, "absorbing"),
    "exactly 0": (Adam(), 12.0, 0.0, "absorbing"),
}


@pytest.mark.parametrize(("optimizer", "spread", "amplitude", "cause"), PLANTED.values(), ids=PLANTED)
def test_planted_causes(optimizer: Optimizer, spread: float, amplitude: float, cause: str) -> None:
    process = kg.SGD(CHAIN, data(spread), lr=0.05, batch_size=1, optimizer=optimizer)
    found = attribution(
        process, state=[0.0, 0.0], amplitudes=[amplitude], target=kg.Region(0.1), n_replicas=24, max_steps=400, seed=0
    )
    assert found.attribution.values.tolist() == [cause]
    assert found.sizes == {"amplitude": 1, "batch": 2, "replica": 24}
    upper = float(found.fraction_upper.sel(batch="full batch")[0])
    assert (upper < 0.2) == (cause != "deterministic")


def test_false_alarms_are_counted_exactly() -> None:
    """By simulation too: at a high level, so that there is something to count. 20,000 tries: ± 2e-3."""
    n, level, share = 12, 0.1, 0.4
    rng = np.random.default_rng(0)
    full, minibatch = rng.binomial(n, share, size=(2, 20_000))
    alarms = {(f, m): attribute(f, m, n, level=level).cause == "noise-driven" for f in range(13) for m in range(13)}
    measured = np.mean([alarms[int(f), int(m)] for f, m in zip(full, minibatch, strict=True)])
    worst = false_alarm_rate(n, level=level)
    assert measured <= worst + 4.9 * np.sqrt(worst / 20_000)
    assert 0.02 < measured
    for replicas in (8, 16, 32, 64):
        assert false_alarm_rate(replicas) < LEVEL
    weights = np.outer(stats.binom.pmf(np.arange(13), n, share), stats.binom.pmf(np.arange(13), n, share))
    exact = sum(weights[f, m] for (f, m), alarm in alarms.items() if alarm)
    assert abs(measured - exact) < 4.9 * np.sqrt(exact / 20_000)


def test_starts_keep_what_is_learned() -> None:
    start = near([1.0, 0.0, 2.0], 1e-3, 5, seed=3)
    assert (start[:, [0, 2]] == [1.0, 2.0]).all()
    assert 0 < np.abs(start[:, 1]).max() < 1e-2


def test_errors() -> None:
    with pytest.raises(InvalidParameterError, match="`full`"):
        attribute(5, 0, 4)
    online = kg.SGD(CHAIN, kg.teacher(label_noise=0.1), lr=0.1, batch_size=2)
    with pytest.raises(InvalidParameterError, match="no full batch"):
        attribution(
            online, state=[0.0, 0.0], amplitudes=[0.1], target=kg.Region(0.3), n_replicas=4, max_steps=10, seed=0
        )


def test_what_adam_calls_small() -> None:
    """Without the rescaling of tiny gradients nothing would leave: full batches, ε above and below the gradient."""
    chain = kg.DeepLinearChain(2, 1.0, 0.05)
    x = np.ones(8)
    causes = []
    for optimizer in (AdamW(), AdamW(eps=1.0), Adam()):
        process = kg.SGD(chain, kg.finite(x, x), lr=0.01, batch_size=4, optimizer=optimizer)
        found = attribution(
            process, state=[0.0, 0.0], amplitudes=[1e-6], target=kg.Region(0.3), n_replicas=12, max_steps=120, seed=1
        )
        causes.append(str(found.attribution.values[0]))
    assert causes[0] == causes[2] != "absorbing"
    assert causes[1] == "absorbing"


# ---------------------------------------------------------------- exponents


def planted(law: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.geomspace(0.5, 8, 5)
    mean = 20 * x**-1.5 if law == "power" else np.exp(4 / x)
    times = mean[:, None] * np.random.default_rng(seed).exponential(size=(5, 200))
    horizon = 2 * np.median(times[1])
    return x, np.minimum(times, horizon), times < horizon


def test_a_planted_exponent_is_covered() -> None:
    """60 fits with 95 % intervals: at least 50 cover it (chance of fewer 6e-5)."""
    fits = [exponent_fit(*planted("power", seed)) for seed in range(60)]
    assert sum(f.lower < -1.5 < f.upper for f in fits) >= 50
    assert np.mean([f.upper - f.lower for f in fits]) < 0.8
    assert sum(f.p_value < 0.01 for f in fits) <= 6


def test_an_exponential_law_is_no_power_law() -> None:
    fit = exponent_fit(*planted("exponential", 0))
    assert fit.n_censored >= 1
    assert fit.p_value < 1e-4
    assert fit.local[0] < 2 * fit.local[-1] < 0
    assert fit.upper - fit.lower > 1


def test_exponent_errors() -> None:
    x, times, escaped = planted("power", 0)
    with pytest.raises(InvalidParameterError, match="expected 3"):
        exponent_fit(x, times, np.zeros_like(escaped))
    with pytest.raises(InvalidParameterError, match="shapes"):
        exponent_fit(x[:3], times, escaped)
    with pytest.raises(InvalidParameterError, match="logarithms"):
        exponent_fit(-x, times, escaped)
