"""Growth rates from blocks of time: intervals hold the rate, drift and divergence are said."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from kramers_grok.core.exceptions import DivergedError, InvalidParameterError, ValidityWarning
from kramers_grok.dynamics.lyapunov import BLOCKS, BlockRates, check_finite, settling, warn_left_out

LEVEL = 0.95


def rates(rng: np.random.Generator, *, replicas: int = 12, own: float = 0.0, drift: float = 0.0) -> np.ndarray:
    """Blocks of two directions around −0.2 and 0.1; every replica may have a rate of its own for a long time."""
    noise = rng.normal(0, 0.05, (2, replicas, BLOCKS)) + rng.normal(0, own, (2, replicas, 1))
    return np.array([-0.2, 0.1])[:, None, None] + noise + drift * np.linspace(-1, 1, BLOCKS)


@pytest.mark.parametrize("own", [0.0, 0.2])
@pytest.mark.filterwarnings("default:The growth rate changed")  # 400 runs at a false alarm of 1e-4 each
def test_intervals_hold_both_rates_as_often_as_they_say(own: float) -> None:
    """A false alarm has probability 1e-5; intervals of half the width, the negative control, hold both in 60 %."""
    rng = np.random.default_rng(0)
    made = [BlockRates.of(rates(rng, own=own), LEVEL) for _ in range(400)]

    def held(share: float) -> int:
        reach = [share * (r.growth_rate_upper - r.growth_rate) for r in made]
        return sum(bool((np.abs(r.growth_rate - [-0.2, 0.1]) < w).all()) for r, w in zip(made, reach, strict=True))

    # The larger of two standard errors makes intervals wide rather than narrow.
    assert stats.binomtest(held(1.0), 400, LEVEL, alternative="less").pvalue > 1e-5
    assert stats.binomtest(held(0.5), 400, LEVEL, alternative="less").pvalue < 1e-5


def test_the_larger_error_counts() -> None:
    found = BlockRates.of(rates(np.random.default_rng(1), own=0.3), LEVEL)
    means = found.block_growth_rate.mean(axis=2), found.block_growth_rate.mean(axis=1)
    over_replicas, over_blocks = (a.std(axis=1, ddof=1) / a.shape[1] ** 0.5 for a in means)
    assert (over_replicas > 3 * over_blocks).all()
    np.testing.assert_allclose(found.growth_rate_error, over_replicas)
    names = {f"growth_rate{end}" for end in ("", "_error", "_lower", "_upper")}
    assert found.variables("layer").keys() == names | {"block_growth_rate"}


def test_drift_is_said() -> None:
    """Whatever its size against the scatter between blocks, which it is part of; a false alarm has probability 1e-4."""
    for drift in (0.1, 10.0):
        with pytest.warns(ValidityWarning, match="between the halves of the run"):
            BlockRates.of(rates(np.random.default_rng(2), drift=drift), LEVEL)
    BlockRates.of(np.full((1, 8, BLOCKS), -0.1), LEVEL)  # nothing random, nothing changes


def test_backgrounds_may_not_diverge() -> None:
    finite = np.ones(12, dtype=bool)
    finite[:3] = False
    check_finite(finite, 7, meaning="nothing", fix="Use less.")
    finite[3] = False
    with pytest.raises(DivergedError, match="4 of 12 backgrounds left the finite numbers by step 7: nothing") as error:
        check_finite(finite, 7, meaning="nothing", fix="Use less.")
    assert error.value.replicas == (0, 1, 2, 3)
    with pytest.warns(ValidityWarning, match="4 of 12 backgrounds stopped by step 7; they are left out"):
        warn_left_out(~finite, "stopped", 7)
    warn_left_out(np.zeros(12, dtype=bool), "stopped", 7)


def test_settling_takes_four_times_of_weight_decay() -> None:
    process: Any = SimpleNamespace(lr=0.1, weight_decay=0.2)
    assert settling(process, None) == 200
    assert settling(process, 0) == 0
    with pytest.raises(InvalidParameterError, match="without weight decay there is no time"):
        settling(SimpleNamespace(lr=0.1, weight_decay=0.0), None)  # type: ignore[arg-type]
