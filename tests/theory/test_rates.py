"""Asymptotic rates against exact integrals and published values."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import sympy
from scipy.integrate import quad

from kramers_grok.core.barrier import Barrier
from kramers_grok.core.exceptions import InvalidParameterError, ValidityWarning
from kramers_grok.core.landscape import Landscape
from kramers_grok.theory import deep_linear as dl
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.rates import (
    VALIDITY_THRESHOLD,
    Well,
    arrhenius_rate,
    eyring_kramers_rate,
    kramers_rate,
    multiplicative_kramers_rate,
)

DOUBLE_WELL = Well(height=1.0, minimum_curvature=8.0, saddle_curvature=-4.0)  # (x² − 1)²


def mean_first_passage(slope_over_diffusion, diffusion, start, end, far):
    """Mean time from `start` to `end` by the double integral, on a fine trapezoidal grid."""
    x = np.linspace(far, end, 20001)
    step = x[1] - x[0]

    def primitive(f):
        return np.concatenate([[0.0], np.cumsum(0.5 * (f[1:] + f[:-1]) * step)])

    phi = primitive(slope_over_diffusion(x))
    phi -= phi[np.argmin(np.abs(x - start))]
    inner = primitive(np.exp(-phi) / diffusion(x))
    outer = primitive(np.exp(phi) * inner)
    return outer[-1] - outer[np.argmin(np.abs(x - start))]


def test_friction_of_the_double_well():
    rate = kramers_rate(DOUBLE_WELL, 0.25, friction=2.0, warn=False)
    assert rate.mean_time == pytest.approx(196.2, abs=0.1)
    # Large friction is the overdamped motion on the time scale γ.
    heavy = kramers_rate(DOUBLE_WELL, 0.05, friction=1e9)
    assert heavy.value * 1e9 == pytest.approx(kramers_rate(DOUBLE_WELL, 0.05).value, rel=1e-12)
    # Without friction it is transition-state theory: the frequency of the well.
    free = kramers_rate(DOUBLE_WELL, 0.05, friction=0.0)
    assert free.value == pytest.approx(math.sqrt(8) / (2 * math.pi) * math.exp(-20), rel=1e-12)


def test_overdamped_rate_has_a_correction_of_first_order():
    errors = []
    for ratio in (20.0, 40.0):
        exact = mean_first_passage(
            lambda x, b=ratio: 4 * b * x * (x**2 - 1), lambda x, b=ratio: np.full_like(x, 1 / b), -1.0, 1.0, -2.2
        )
        errors.append(exact * kramers_rate(DOUBLE_WELL, 1 / ratio).value - 1)
    assert 0 < errors[1] < errors[0] < 0.05
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)


def test_multiplicative_rate_against_the_exact_time():
    def diffusion(x):
        return 0.03 * (1 + 0.3 * np.sin(x) + 0.2 * x**2)

    def slope(x):
        return 4 * x * (x**2 - 1) / diffusion(x)

    difference = quad(slope, -1, 0)[0]
    exact = mean_first_passage(slope, diffusion, -1.0, 1.0, -2.2)
    arguments = {"potential_difference": difference, "minimum_diffusion": diffusion(-1.0)}
    rate = multiplicative_kramers_rate(DOUBLE_WELL, saddle_diffusion=diffusion(0.0), **arguments)
    assert exact * rate.value == pytest.approx(1, abs=1 / difference)
    # Negative control: without the square root of the diffusions' ratio it fails.
    wrong = multiplicative_kramers_rate(DOUBLE_WELL, saddle_diffusion=diffusion(-1.0), **arguments)
    assert abs(exact * wrong.value - 1) > 1 / difference


@pytest.mark.parametrize("depth", [3, 4, 6])
@pytest.mark.parametrize("friction", [None, 0.7])
def test_chain_has_the_closed_form(depth, friction):
    decay = 0.5 * float(dl.binodal(depth, 1.0))
    barrier = DeepLinearChain(depth, 1.0, decay).barrier()
    temperature = barrier.height / 25
    along = abs(float(dl.saddle_curvature(depth, 1.0, decay)))
    growth = along if friction is None else math.sqrt(friction**2 / 4 + along) - friction / 2
    closed = 2 ** ((depth - 1) / 2) * math.sqrt(decay / along) * growth / (2 * math.pi) * math.exp(-25)
    assert eyring_kramers_rate(barrier, temperature, friction=friction).value == pytest.approx(closed, rel=1e-9)


@pytest.mark.parametrize(
    ("ratio", "exact", "excess"), [(4, 778.1, 1.105), (6, 5548, 1.067), (8, 40218, 1.046), (10, 294031, 1.035)]
)
def test_chain_is_close_to_the_three_dimensional_solution(ratio, exact, excess):
    barrier = DeepLinearChain(3, 1.0, 0.25).barrier()
    rate = eyring_kramers_rate(barrier, barrier.height / ratio, warn=False)
    assert exact * rate.value == pytest.approx(excess, abs=1e-3)


def test_mode_uses_kramers_and_agrees_with_eyring():
    barrier = DeepLinearChain(4, 1.0, 0.1).mode.barrier()
    temperature = barrier.height / 30
    assert kramers_rate(barrier, temperature).value == eyring_kramers_rate(barrier, temperature).value
    assert kramers_rate(barrier, temperature).kind == "Kramers"
    with pytest.raises(InvalidParameterError, match=r"4 coordinates, expected 1.*\n.*eyring_kramers_rate"):
        kramers_rate(DeepLinearChain(4, 1.0, 0.1).barrier(), temperature)


def test_validity_is_carried_and_warned_about():
    with pytest.warns(ValidityWarning, match=r"ΔF/T = 4 is below 10.*exit_time") as caught:
        rate = kramers_rate(DOUBLE_WELL, 0.25)
    assert caught[0].filename == __file__
    assert (rate.valid, rate.barrier_over_temperature) == (False, 4.0)
    assert "T/ΔF" in rate.note
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kramers_rate(DOUBLE_WELL, 0.25, warn=False) == rate
        good = arrhenius_rate(VALIDITY_THRESHOLD, 1.0, prefactor=2.0)
    assert good.valid
    assert good.note == ""
    for call in (
        lambda: arrhenius_rate(1.0, 1.0, prefactor=1.0),
        lambda: eyring_kramers_rate(DOUBLE_WELL, 1.0),
        lambda: multiplicative_kramers_rate(
            DOUBLE_WELL, potential_difference=1.0, minimum_diffusion=1.0, saddle_diffusion=1.0
        ),
    ):
        with pytest.warns(ValidityWarning) as caught:
            call()
        assert caught[0].filename == __file__


def test_a_barrier_that_is_never_crossed():
    rate = kramers_rate(DOUBLE_WELL, 1e-4)
    assert (rate.value, rate.mean_time) == (0.0, math.inf)


X, Y = sympy.symbols("x y", real=True)
EGG_BOX = Landscape((X**2 - 1) ** 2 + (Y**2 - 1) ** 2, (X, Y), (X,))
RING = Landscape((X**2 + Y**2 - 1) ** 2, (X, Y), (X,))


@pytest.mark.parametrize(
    ("landscape", "minimum", "saddle", "words"),
    [
        (EGG_BOX, [1.0, 1.0], [0.0, 0.0], "has 2 negative eigenvalues, expected 1"),
        (EGG_BOX, [1.0, 1.0], [-1.0, 1.0], "has 0 negative eigenvalues, expected 1"),
        (EGG_BOX, [0.0, 1.0], [0.0, 1.0], "is no minimum"),
        (RING, [1.0, 0.0], [0.0, 0.0], "zero mode"),
    ],
)
def test_only_index_one_saddles_have_a_rate(landscape, minimum, saddle, words):
    barrier = Barrier(landscape, np.array(minimum), np.array(saddle), np.array(minimum), height=20.0)
    with pytest.raises(InvalidParameterError, match=words):
        eyring_kramers_rate(barrier, 1.0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: kramers_rate(DOUBLE_WELL, 0.0), "without noise nothing escapes"),
        (lambda: kramers_rate(DOUBLE_WELL, 0.1, friction=-1.0), "friction"),
        (lambda: Well(1.0, 8.0, 4.0), "top of a barrier is a maximum"),
        (lambda: Well(1.0, -8.0, -4.0), "minimum_curvature"),
        (
            lambda: multiplicative_kramers_rate(
                DOUBLE_WELL, potential_difference=20.0, minimum_diffusion=0.0, saddle_diffusion=1.0
            ),
            "absorbing",
        ),
    ],
)
def test_refusals(call, words):
    with pytest.raises(InvalidParameterError, match=words):
        call()
