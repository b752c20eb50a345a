"""The estimate from independent repeats: means, and errors that are the scatter of repeated estimates."""

import numpy as np
import pytest

from kramers_grok.escape.splitting_estimate import Repeats, combine


def test_the_estimate_and_its_error() -> None:
    """The delta method against the scatter of 4000 repeated estimates, at a low barrier where every part counts."""
    generator = np.random.default_rng(0)
    n = 16

    def draw() -> Repeats:
        entries = generator.poisson(30, n).astype(np.float64)
        common = generator.normal(size=n)
        return Repeats(
            20 + common + generator.normal(size=n),
            np.clip(0.6 + 0.05 * generator.normal(size=n), 0, 1),
            entries,
            np.where(entries > 0, 5 + 0.3 * common, np.nan),
            np.where(entries > 0, 0.1 * generator.gamma(10, 0.1, n), np.nan),
        )

    estimates = [combine(draw(), 0.9) for _ in range(4000)]
    values = np.array([e.value for e in estimates])
    assert values.mean() == pytest.approx(20 + 0.6 * 5 / 0.1, rel=0.01)
    # The spread of 4000 is known to 1.1 %; the delta method is of first order in errors of 6 %
    errors = np.array([e.standard_error / e.value for e in estimates])
    assert np.sqrt((errors**2).mean()) == pytest.approx(np.log(values).std(), rel=0.06)
    covered = np.mean([e.lower < 50 < e.upper for e in estimates])
    assert covered == pytest.approx(0.9, abs=0.025)
