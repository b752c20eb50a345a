"""Figures of the laws of escape show what the choice holds."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from kramers_grok.analysis.law_choice import choose_law
from kramers_grok.analysis.laws import ExitTimes
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.plots.laws import arrhenius_trap, escape_laws, law_table, median_times


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


X = np.array([0.5, 1.5, 2.0, 4.0, 8.0])


def threshold(horizon=50.0):
    """Times 1/(x − 1) by their quantiles, nothing below x = 1."""
    quantiles = (-np.log1p(-(np.arange(20) + 0.5) / 20)) ** (1 / 6)
    typical = np.where(X > 1, 1 / np.maximum(X - 1, 1e-12), 1e9)
    times = typical[:, None] * quantiles
    return ExitTimes.of(X, np.minimum(times, horizon), times < horizon)


@functools.cache
def chosen(horizon=50.0):
    return choose_law(threshold(horizon), seed=0, n_bootstrap=19)


def test_medians_are_those_of_the_replicas_and_limits_are_marked():
    times, limit = median_times(threshold())
    assert limit.tolist() == [True, False, False, False, False]
    assert times[0] == 50.0
    np.testing.assert_allclose(times[1:] * (X[1:] - 1), np.log(2) ** (1 / 6), rtol=0.02)


def test_escape_laws_draws_points_limits_and_the_best_law():
    choices = {"rows": chosen(), "still": chosen(1e-3)}
    ax = escape_laws(choices)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["rows: growth", "still: absorbing"]
    curve = max(ax.lines, key=lambda line: len(line.get_xdata()))
    x, y = curve.get_data()
    assert x.min() > choices["rows"].fit.parameters["threshold"] > 0.9
    np.testing.assert_allclose(y, choices["rows"].fit.median(x))
    relative = escape_laws(choices, relative=True)
    assert max(line.get_xdata().max() for line in relative.lines if len(line.get_xdata())) == 1.0
    with pytest.raises(InvalidParameterError, match="empty"):
        escape_laws({})


def test_arrhenius_trap_tells_r_squared_and_odds():
    ax = arrhenius_trap(chosen())
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "R² = 0." in texts[0]
    assert texts[1].startswith("growth law: likelier by e^")
    with pytest.raises(InvalidParameterError, match="at least 3"):
        arrhenius_trap(chosen(1e-3))


def test_the_table_has_a_line_for_each_row():
    choices = {"rows": chosen(), "still": chosen(1e-3)}
    lines = law_table(choices).splitlines()
    assert len(lines) == 4
    assert "| rows | 80 of 100 | growth | threshold" in lines[2]
    assert "nats behind" in lines[2]
    assert "| still | 0 of 100 | absorbing | rate <" in lines[3]
    lines = law_table(choices, {"rows": {"optimizer": "SGD"}, "still": {"sampler": "online"}}).splitlines()
    assert lines[0].startswith("| | optimizer | sampler | escaped |")
    assert lines[2].startswith("| rows | SGD | – | 80 of 100 |")
    assert lines[3].startswith("| still | – | online | 0 of 100 |")
