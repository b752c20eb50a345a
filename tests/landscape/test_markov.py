"""Escape through a chain of states."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.landscape.markov import MarkovChain


def random_chain(seed: int, n: int = 7, links: int = 14, **errors: float) -> MarkovChain:
    rng = np.random.default_rng(seed)
    ends = np.array([rng.choice(n, 2, replace=False) for _ in range(links)])
    sizes = {"capacity_errors": links, "weight_errors": n}
    given = {name: np.full(sizes[name], value) for name, value in errors.items()}
    return MarkovChain(ends, rng.normal(size=links), rng.normal(size=n), **given)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_times_and_committors_solve_their_linear_equations(seed: int) -> None:
    chain = random_chain(seed)
    rates = chain.rates()
    np.testing.assert_allclose(rates.sum(axis=1), 0, atol=1e-12)
    balance = chain.occupations()[:, None] * rates
    np.testing.assert_allclose(balance, balance.T, rtol=1e-12, atol=1e-15)
    rest = [0, 1, 2, 3, 4]
    expected = np.linalg.solve(-rates[np.ix_(rest, rest)], np.ones(5))
    times = chain.mean_times([5, 6])
    np.testing.assert_allclose(times[rest], expected, rtol=1e-12)
    assert times[5] == times[6] == 0
    rest = [1, 2, 3, 4, 5]
    expected = np.linalg.solve(-rates[np.ix_(rest, rest)], rates[rest, 6])
    committor = chain.committor(0, 6)
    np.testing.assert_allclose(committor[rest], expected, rtol=1e-12)
    assert committor[[0, 6]].tolist() == [0, 1]


def test_nothing_is_lost_where_rates_differ_by_hundreds_of_powers_of_ten() -> None:
    """A linear solver would subtract e^0 from e^0 here: a birth–death chain has a closed form."""
    weights, capacities = [0.0, -300.0, 20.0, -250.0, 40.0], [-400.0, -350.0, -500.0, -380.0]
    chain = MarkovChain([[i, i + 1] for i in range(4)], capacities, weights)
    parts = [w - c for k, c in enumerate(capacities) for w in weights[: k + 1]]
    exact = np.logaddexp.reduce(parts)
    assert math.log(chain.mean_time(0, 4).value) == pytest.approx(exact, rel=1e-14)
    assert MarkovChain([[0, 1]], [-2000.0], [0.0, 0.0]).mean_time(0, 1).value == math.inf


def test_two_wells_of_one_dimension() -> None:
    """The continuous process at low temperature: exact capacity and weights against the exact mean time."""
    temperature = 0.05

    def potential(x: float) -> float:
        return (x * x - 1) ** 2 + 0.1 * x

    resistance = quad(lambda x: math.exp(potential(x) / temperature), -1, 1)[0] / temperature
    weights = [quad(lambda x: math.exp(-potential(x) / temperature), *side)[0] for side in ((-3, 0), (0, 3))]
    chain = MarkovChain([[0, 1]], [-math.log(resistance)], np.log(weights))
    # ∫ dy e^{U/T} ∫_{-3}^{y} dz e^{-U/T}/T, the second integral being the left well's weight where the first counts
    assert chain.mean_time(0, 1).value == pytest.approx(resistance * weights[0], rel=1e-12)


def test_states_that_are_never_reached() -> None:
    chain = MarkovChain([[0, 1], [2, 2]], [0.0, 5.0], [0.0, 0.0, 0.0])
    assert chain.mean_times(1).tolist() == [1.0, 0.0, math.inf]
    assert chain.mean_time(2, 1).value == math.inf
    np.testing.assert_array_equal(chain.committor(0, 1), [0.0, 1.0, np.nan])
    half = MarkovChain([[0, 1], [1, 2]], [0.0, -np.inf], [0.0, 0.0, 0.0])
    assert half.mean_times(2).tolist() == [math.inf, math.inf, 0.0]
    fork = MarkovChain([[0, 1]], [0.0], [0.0, 0.0, 0.0])
    assert fork.mean_times([1, 2]).tolist() == [1.0, 0.0, 0.0]


def test_interval_holds_the_effect_of_every_error() -> None:
    chain = random_chain(3, capacity_errors=0.2, weight_errors=0.1)
    time = chain.mean_time(0, [6])
    assert time.lower < time.value < time.upper
    assert math.log(time.upper / time.value) == pytest.approx(math.log(time.value / time.lower))
    rng = np.random.default_rng(0)
    for _ in range(50):  # errors together, at their ends
        moved = MarkovChain(
            chain.ends,
            np.asarray(chain.log_capacities) + math.log(1.2) * rng.choice([-1, 1], 14),
            np.asarray(chain.log_weights) + math.log(1.1) * rng.choice([-1, 1], 7),
        )
        # to first order: the second order of changes of 20 % is some percent
        assert time.lower / 1.05 < moved.mean_time(0, 6).value < time.upper * 1.05
    exact = random_chain(3).mean_time(0, 6)
    assert exact.lower == exact.value == exact.upper == time.value
    one = MarkovChain([[0, 1]], [0.0], [0.0, 0.0], capacity_errors=[0.5])
    assert one.mean_time(0, 1).upper == pytest.approx(1.5)
    assert one.mean_time(0, 1).lower == pytest.approx(1 / 1.5)


def test_shares_of_the_ways() -> None:
    """Kirchhoff: two ways side by side, one of them through a state between."""
    chain = MarkovChain([[0, 1], [0, 2], [1, 2], [1, 3]], np.log([1.0, 4.0, 4.0, 9.0]), [0.0, 5.0, -3.0, 1.0])
    np.testing.assert_allclose(chain.shares(0, 1), [1 / 3, 2 / 3, -2 / 3, 0.0], atol=1e-12)
    random = random_chain(4)
    flux, ends = random.shares([0, 1], 6), np.asarray(random.ends)
    for state in (2, 3, 4, 5):
        assert flux[ends[:, 1] == state].sum() == pytest.approx(flux[ends[:, 0] == state].sum(), abs=1e-12)
    with pytest.raises(InvalidParameterError, match="Nothing leads"):
        MarkovChain([[0, 1]], [0.0], [0.0, 0.0, 0.0]).shares(0, 2)


def test_what_is_no_chain_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="expected \\(saddle, 2\\)"):
        MarkovChain([[0, 1]], [0.0, 1.0], [0.0, 0.0])
    with pytest.raises(InvalidParameterError, match="below 2"):
        MarkovChain([[0, 2]], [0.0], [0.0, 0.0])
    with pytest.raises(InvalidParameterError, match="not finite"):
        MarkovChain([[0, 1]], [math.nan], [0.0, 0.0])
    with pytest.raises(InvalidParameterError, match="capacity_errors"):
        MarkovChain([[0, 1]], [0.0], [0.0, 0.0], capacity_errors=[-1.0])
    chain = MarkovChain([[0, 1]], [0.0], [0.0, 0.0])
    with pytest.raises(InvalidParameterError, match="number of a state"):
        chain.mean_time(0, [])
    with pytest.raises(InvalidParameterError, match="share states"):
        chain.committor([0, 1], 1)
