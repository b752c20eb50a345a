"""Turnover formulas against their limits, and against the exact equation, which shares only the potential with them."""

import math

import numpy as np
import pytest
import sympy
from scipy.integrate import quad

from kramers_grok.core.barrier import Barrier
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.landscape import Landscape
from kramers_grok.theory import kramers_fokker_planck
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.kramers_fokker_planck import Inertial, inertial_mean_exit, inertial_relaxation_rate
from kramers_grok.theory.quadrature import Diffusion, Interval, mean_exit
from kramers_grok.theory.rates import kramers_rate
from kramers_grok.theory.turnover import (
    InertialWell,
    depopulation_factor,
    energy_diffusion_rate,
    energy_diffusion_time,
    turnover_rate,
)

X = sympy.Symbol("x", real=True)
DOUBLE_WELL = Landscape((X**2 - 1) ** 2, (X,), (X,))
BARRIER = Barrier(DOUBLE_WELL, *(np.array([p]) for p in (-1.0, 0.0, 1.0)), height=1.0)


def test_depopulation_factor_is_its_integral() -> None:
    for delta in (0.01, 0.3, 1.0, 5.0):
        value, _ = quad(lambda s, d=delta: math.log(-math.expm1(-d * (s**2 + 0.25))) / (s**2 + 0.25), 0, math.inf)
        assert float(depopulation_factor(delta)) == pytest.approx(math.exp(value / math.pi), rel=1e-6)
    small = np.array([1e-6, 1e-4])
    # ζ(1/2)/√π = −0.82391…
    np.testing.assert_allclose(depopulation_factor(small) / small, 1 - 0.82391 * np.sqrt(small), atol=5e-5)
    assert float(depopulation_factor(200.0)) == pytest.approx(1.0, abs=1e-12)


def test_actions() -> None:
    well = InertialWell.of(BARRIER, returns=True)
    assert well.action == pytest.approx(8 / 3, rel=1e-12)
    assert well.return_action == pytest.approx(8 / 3, rel=1e-12)
    mode = Mode(depth=4, singular_value=1.0, weight_decay=0.2).barrier()
    two = InertialWell.of(mode)
    assert two.multiplicity == 2
    assert two.loss(0.01, 0.1) == pytest.approx(0.1 * two.action / 0.02)


def test_limits_of_the_friction() -> None:
    for well in (InertialWell.of(BARRIER), InertialWell.of(Mode(4, 1.0, 0.2).barrier())):
        heat = well.height / 12
        strong, weak = (turnover_rate(well, heat, friction=g * well.minimum_curvature**0.5).value for g in (30.0, 1e-9))
        assert strong == pytest.approx(
            kramers_rate(well, heat, friction=30 * well.minimum_curvature**0.5).value, rel=1e-9
        )
        low = energy_diffusion_rate(well, heat, friction=1e-9 * well.minimum_curvature**0.5).value
        assert weak == pytest.approx(low, rel=1e-3)
    there, staying = (InertialWell.of(BARRIER, returns=r) for r in (False, True))
    for friction, share in ((1e-9, 0.5), (100.0, 1.0)):  # of slow particles half come to rest on either side
        hops = turnover_rate(staying, 1 / 12, friction=friction).value
        assert hops == pytest.approx(share * turnover_rate(there, 1 / 12, friction=friction).value, rel=1e-3)


def test_energy_diffusion_in_a_harmonic_well() -> None:
    """I = 2πE/ω: the double integral has one dimension left, γτ = ∫ (e^s − 1)/s P(E < s T) ds."""
    well = Landscape(2 * X**2, (X,), (X,))
    top = math.sqrt(3 / 2)
    barrier = Barrier(well, np.zeros(1), np.array([top]), np.array([2 * top]), height=3.0)
    expected, _ = quad(lambda s: math.expm1(s) / s * math.erf(math.sqrt(s)), 0, 3.0 / 0.5)
    measured = energy_diffusion_time(barrier, 0.5, friction=0.1)
    assert measured == pytest.approx(expected / 0.1, rel=1e-6)


@pytest.mark.parametrize("heat", [0.25, 0.5])
def test_the_exact_equation_becomes_the_overdamped_one(heat: float) -> None:
    """At strong friction the time past the barrier is γ times the overdamped one, up to 1/γ² and the target's layer."""
    overdamped = mean_exit(Diffusion(lambda p: -4 * p * (p**2 - 1), heat), Interval(-1.0, upper=1.0)).mean
    errors = []
    for friction in (50.0, 200.0):
        exact = inertial_mean_exit(Inertial(DOUBLE_WELL, heat, friction), Interval(-1.0, upper=1.0))
        errors.append(exact.mean / friction / overdamped - 1)
    assert 0 < errors[1] < errors[0] < 0.02
    assert errors[1] < 0.006


def test_published_times() -> None:
    """β = 4, γ = 2: Kramers' formula says 196; a simulation of the first passage to the other minimum 217 ± 3."""
    well = Inertial(DOUBLE_WELL, 0.25, 2.0)
    assert kramers_rate(BARRIER, 0.25, friction=2.0, warn=False).mean_time == pytest.approx(196, abs=0.5)
    across = inertial_mean_exit(well, Interval(-1.0, upper=1.0))
    assert across.mean == pytest.approx(212.96, abs=0.1)
    assert abs(across.mean - 217) < 2 * 3
    top = inertial_mean_exit(well, Interval(-1.0, upper=0.0)).mean  # later than half: inertia carries it over
    assert 0.5 * across.mean < top < 0.85 * across.mean
    assert 2 / inertial_relaxation_rate(well, -2.2, 2.2) == pytest.approx(206.5, abs=0.5)


def test_formulas_approach_the_exact_time() -> None:
    """The error falls with T/ΔU; Kramers' formula alone does not come near at low friction."""
    mode = Mode(depth=3, singular_value=1.0, weight_decay=0.25)
    barrier = mode.barrier()
    target = 0.75  # past the top at 0.44, 10 T and more below it
    for friction in (0.03, 1.0):
        errors = []
        for ratio in (5.0, 10.0):
            heat = barrier.height / ratio
            exact = inertial_mean_exit(Inertial(mode.landscape, heat, friction), Interval(0.0, upper=target)).mean
            errors.append(exact * turnover_rate(barrier, heat, friction=friction, warn=False).value - 1)
        # About the turnover the next order is larger than at strong friction: 10 % and 6 % at ΔU/T = 5
        assert 0 < errors[1] < 0.7 * errors[0] < 0.7 * (0.12 if friction == 0.03 else 0.09)
        kramers = exact * kramers_rate(barrier, heat, friction=friction, warn=False).value - 1
        assert (kramers > 0.12) == (friction == 0.03)


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = DeepLinearChain(3, 1.0, 0.25)
    with pytest.raises(InvalidParameterError, match="3 coordinates"):
        turnover_rate(chain.barrier(), 0.001, friction=0.1)
    with pytest.raises(InvalidParameterError, match="`friction`"):
        turnover_rate(BARRIER, 0.1, friction=0.0)
    with pytest.raises(InvalidParameterError, match="`action`"):
        InertialWell(1.0, 8.0, -4.0)
    with pytest.raises(InvalidParameterError, match="2 barriers"):
        InertialWell(1.0, 8.0, -4.0, 2, action=1.0, return_action=1.0)
    with pytest.raises(InvalidParameterError, match="`loss`"):
        depopulation_factor([0.1, 0.0])
    with pytest.raises(InvalidParameterError, match="3 coordinates"):
        Inertial(chain.landscape, 0.1, 1.0)
    with pytest.raises(InvalidParameterError, match="does not confine"):
        inertial_mean_exit(Inertial(Landscape(X**3 - X, (X,), (X,)), 0.1, 1.0), Interval(0.6, upper=1.5))
    with pytest.raises(InvalidParameterError, match="T below the barrier"):
        inertial_mean_exit(Inertial(DOUBLE_WELL, 0.02, 1.0), Interval(-1.0, upper=1.0))
    monkeypatch.setattr(kramers_fokker_planck, "MOST_MODES", 64)
    with pytest.raises(InvalidParameterError, match="too low"):
        inertial_mean_exit(Inertial(DOUBLE_WELL, 0.25, 1e-7), Interval(-1.0, upper=0.5), tolerance=1e-6)
