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


def test_a_repeat_that_died_out_counts_and_one_without_entries_does_not() -> None:
    """Half of the repeats with p = 0 double the mean time of the others; repeats without entries change nothing."""
    n = 16
    dead = np.arange(n) % 2 == 0
    one, many = np.ones(n), np.full(n, 10.0)
    alive = combine(Repeats(0 * one, one, many, 2 * one, np.full(n, 0.01)), 0.95)
    assert alive.value == pytest.approx(200.0)
    half = combine(Repeats(0 * one, one, many, 2 * one, np.where(dead, 0.0, 0.01)), 0.95)
    assert half.value == pytest.approx(400.0)
    assert half.standard_error > 0.2 * half.value
    nobody = np.where(dead, np.nan, 0.01)
    absent = combine(Repeats(0 * one, one, np.where(dead, 0.0, 10.0), np.where(dead, np.nan, 2.0), nobody), 0.95)
    assert absent.value == pytest.approx(200.0)
    # A repeat counts by its entries
    uneven = combine(Repeats(0 * one, one, np.where(dead, 30.0, 10.0), 2 * one, np.where(dead, 0.0, 0.01)), 0.95)
    assert uneven.value == pytest.approx(800.0)
