"""Two stages: the interval is as honest as one of a fixed number of replicas, and the precision is mostly reached."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from kramers_grok.analysis.survival import Estimate, Sample, _mean
from kramers_grok.studies.escape.precision import (
    ASSURANCE,
    CLONES,
    PILOT_CLONES,
    PILOT_REPEATS,
    Goal,
    pilot_replicas,
    repeats_needed,
    replicas_needed,
)

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Array]

STUDIES = 4000
MOST = 10**6
# An interval of "95 %" from some 130 replicas holds the mean in 94.7 % of all studies, counted to ±0.35 %: a false
# alarm below 93 % has a chance of 1e-6, and an interval that holds in 92 % or less is found with 98 % or more.
FEWEST_COVERED = 0.93


def measured(times: Array, horizon: float, burn_in: float) -> Estimate:
    """What `mean_exit_time` makes of these times, without the data set around them."""
    sample = Sample(np.minimum(times, horizon), times < horizon, horizon)
    return _mean(sample, sample.after(burn_in), burn_in, 0.95)


def two_stages(draw: Draw, goal: Goal, horizon: float, burn_in: float, rng: np.random.Generator) -> Estimate:
    """The reported estimate."""
    first = pilot_replicas(goal)
    pilot = measured(draw(rng, first), horizon, burn_in)
    needed = replicas_needed(
        goal,
        relative_variance=pilot.n * (pilot.standard_error / pilot.value) ** 2,
        pilot_escapes=pilot.n_escaped,
        share=pilot.n_escaped / pilot.n,
    )
    return measured(draw(rng, needed), horizon, burn_in)


def peeking(times: Array, precision: float) -> tuple[Array, Array]:
    """What one must not do: look after every replica, and stop when the interval is narrow enough.

    Of times (study, replica), the ends of each study's interval: Student's of the logarithm, as above.
    """
    n = np.arange(1, times.shape[1] + 1)
    mean = times.cumsum(axis=1) / n
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.sqrt(((times**2).cumsum(axis=1) / n - mean**2) * n / (n - 1))
        w = special.stdtrit(n - 1, 0.975) * deviation / np.sqrt(n) / mean
    good = (np.sinh(w) <= precision) & (n >= 3)
    assert good.any(axis=1).all()
    stop = good.argmax(axis=1)[:, None]
    center, half = (np.take_along_axis(a, stop, axis=1)[:, 0] for a in (mean, w))
    return center * np.exp(-half), center * np.exp(half)


def width(found: Estimate) -> float:
    return (found.upper - found.lower) / (2 * found.value)


def exponential(rng: np.random.Generator, n: int) -> Array:
    return rng.exponential(size=n)


def after_a_lag(rng: np.random.Generator, n: int) -> Array:
    """A burn-in of 0.1 on average, in which nobody leaves, before an exponential law; the mean is 1."""
    return rng.gamma(4.0, 0.025, size=n).clip(max=0.3) + 0.9 * rng.exponential(size=n)


LAG = float(stats.gamma(4.0, scale=0.025).expect(lambda t: min(t, 0.3)))
LAWS: dict[str, tuple[Draw, float, float, float]] = {  # draw, mean, horizon, burn-in
    "exponential": (exponential, 1.0, math.inf, 0.0),
    "exponential, censored": (exponential, 1.0, 1.0, 0.0),
    "after a lag": (after_a_lag, LAG + 0.9, 10.0, 0.3),
    "after a lag, censored": (after_a_lag, LAG + 0.9, 1.5, 0.3),
}


@pytest.mark.parametrize("law", LAWS)
def test_intervals_hold_the_mean_as_often_as_they_say(law: str) -> None:
    draw, mean, horizon, burn_in = LAWS[law]
    goal, rng = Goal(0.2, 0.95, MOST), np.random.default_rng(7)
    found = [two_stages(draw, goal, horizon, burn_in, rng) for _ in range(STUDIES)]
    covered = np.mean([e.lower <= mean <= e.upper for e in found])
    assert FEWEST_COVERED < covered < 0.98
    # Reached in 90 % by design for exponential times; narrower laws and careful intervals do better
    reached = np.mean([width(e) <= goal.precision for e in found])
    assert ASSURANCE - 0.06 < reached <= 1.0


def test_naive_peeking_is_caught() -> None:
    """The negative control: looking and stopping, at a goal where it matters, does not pass the test above."""
    lower, upper = peeking(np.random.default_rng(7).exponential(size=(STUDIES, 150)), 0.5)
    assert np.mean((lower <= 1.0) & (upper >= 1.0)) < FEWEST_COVERED - 0.01


def test_the_pilot_is_small_and_about_best() -> None:
    """Expected replicas in all against the pilot's size: the rule lies within 2 % of the best."""
    goal = Goal(0.05, 0.95, MOST)

    def total(first: int) -> float:
        return first + replicas_needed(goal, relative_variance=1.0, pilot_escapes=first, share=1.0)

    own = pilot_replicas(goal)
    assert total(own) < 1.02 * min(total(n) for n in range(50, 1000, 10))
    assert own / total(own) < 0.1


def test_the_second_stage_grows_with_what_is_not_known() -> None:
    goal = Goal(0.1, 0.95, MOST)

    def needed(variance: float = 1.0, escapes: int = 60, share: float = 1.0) -> int:
        return replicas_needed(goal, relative_variance=variance, pilot_escapes=escapes, share=share)

    assert needed() > 1.2 * goal.replicas(math.inf)  # some to spare
    assert needed(variance=2.0) == pytest.approx(2 * needed(), rel=0.06)
    assert needed(escapes=20) > needed() > needed(escapes=1000)
    assert replicas_needed(Goal(5.0, 0.95, MOST), relative_variance=1.0, pilot_escapes=50, share=1.0) == 50


def test_no_pilot_without_room_for_it() -> None:
    least = Goal(0.05, 0.95, 0).replicas(math.inf)
    assert pilot_replicas(Goal(0.05, 0.95, int(least))) == 0
    assert pilot_replicas(Goal(0.05, 0.95, int(least) + 200)) > 0


def test_the_exponential_number_of_replicas() -> None:
    """(1.96/0.05)² for an interval that is symmetric in the logarithm."""
    assert Goal(0.05, 0.95, MOST).replicas(math.inf) == pytest.approx((1.959964 / math.asinh(0.05)) ** 2)


@pytest.mark.parametrize("variance", [30.0, 300.0])
def test_repeats_are_enough_by_design(variance: float) -> None:
    """Normal repeats: sample variances of both stages are χ²; the interval is Student's."""
    goal, rng = Goal(0.1, 0.95, MOST), np.random.default_rng(3)
    first = PILOT_REPEATS * PILOT_CLONES
    reached, covered = [], []
    for _ in range(2000):
        pilot = rng.normal(1.0, math.sqrt(variance / PILOT_CLONES) / 10, size=PILOT_REPEATS) * 10 - 9
        error = pilot.std(ddof=1) / math.sqrt(PILOT_REPEATS)
        repeats = repeats_needed(goal, relative_variance=first * error**2)
        run = rng.normal(1.0, math.sqrt(variance / CLONES), size=repeats)
        half = float(special.stdtrit(repeats - 1, 0.975)) * run.std(ddof=1) / math.sqrt(repeats)
        reached.append(half <= goal.precision)
        covered.append(abs(run.mean() - 1.0) <= half)
    assert ASSURANCE - 0.04 < np.mean(reached) <= 1.0
    assert np.mean(covered) > FEWEST_COVERED
