"""Langevin dynamics with inertia: the step itself, its stationary law, its exit times against the exact equation.

What simulation and exact equation share: the potential, as one symbolic expression.
"""

import math
import warnings

import numpy as np
import pytest
import sympy
import torch
from numpy.typing import NDArray

import kramers_grok as kg
from kramers_grok.core.exceptions import InvalidParameterError, ValidityWarning
from kramers_grok.core.rng import Purpose, normals
from kramers_grok.dynamics.process import State, Watch, clone, select
from kramers_grok.dynamics.underdamped import AtRest, UnderdampedLangevin
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.kramers_fokker_planck import Inertial, inertial_mean_exit
from kramers_grok.theory.quadrature import Interval

X = sympy.Symbol("x", real=True)
DOUBLE_WELL = kg.Landscape((X**2 - 1) ** 2, (X,), (X,))
CHAIN = DeepLinearChain(3, 1.0, 0.25)


def test_one_step_is_baoab() -> None:
    """A loop of its own, with the same normal numbers."""
    h, gamma, heat = 0.3, 0.7, 0.02
    process = UnderdampedLangevin(CHAIN, temperature=heat, friction=gamma, dt=h)
    state = process.start(5, seed=3, point=[0.4, -0.2, 0.1])
    x = state.theta.numpy().copy()
    v = math.sqrt(heat) * normals(3, Purpose.VELOCITY, np.arange(5), 0, 3)

    def force(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return -CHAIN.landscape.gradient_at(p)

    kept = (1 - gamma * h / 2) / (1 + gamma * h / 2)
    for step in range(4):
        xi = normals(3, Purpose.UNDERDAMPED, np.arange(5), step, 3)
        v += h / 2 * force(x)
        x += h / 2 * v
        v = kept * v + math.sqrt(heat * (1 - kept**2)) * xi
        x += h / 2 * v
        v += h / 2 * force(x)
    moved, _ = process.advance(state, 4)
    np.testing.assert_allclose(moved.theta.numpy(), x, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(moved.buffers["velocity"].numpy(), v, rtol=1e-11, atol=1e-13)


def test_paths_follow_their_replica() -> None:
    process = UnderdampedLangevin(CHAIN, temperature=0.02, friction=0.3, dt=0.2)
    state, _ = process.advance(process.start(6, seed=0), 5)
    whole, _ = process.advance(state, 5)
    index = torch.tensor([4, 1])
    part, _ = process.advance(select(state, index), 5)
    assert torch.equal(part.theta, whole.theta[index])
    copies, _ = process.advance(clone(state, torch.tensor([0, 0]), torch.tensor([7, 8])), 5)
    assert not torch.equal(copies.theta[0], copies.theta[1])


def test_a_frozen_replica_keeps_its_velocity() -> None:
    process = UnderdampedLangevin(DOUBLE_WELL, temperature=0.3, friction=0.5, dt=0.05)
    watch = Watch(kg.Region(0.5))
    state, record = process.advance(process.start(64, seed=1, point=[0.3]), 60, watch)
    hit = record.hit_step >= 0
    assert hit.any()
    later, _ = process.advance(state, 0, watch)
    first = int(torch.nonzero(hit)[0])
    alone, _ = process.advance(process.start(64, seed=1, point=[0.3]), int(record.hit_step[first]), watch)
    assert torch.equal(later.buffers["velocity"][first], alone.buffers["velocity"][first])
    assert float(later.buffers["velocity"][first]) > 0  # it was on its way


def test_positions_are_exactly_thermal_in_a_quadratic_well() -> None:
    """At a step of 1.2/ω. The variance of 20,000 replicas is known to 1 %: |z| < 4.9.

    Control: the leapfrog's own error at this step, 1/(1 − h²ω²/4) = 1.56, must be seen.
    """
    well = kg.Landscape(2 * X**2, (X,), (X,))
    process = UnderdampedLangevin(well, temperature=0.1, friction=0.8, dt=0.6)
    state, _ = process.advance(process.start(20_000, seed=5), 60)
    square = state.theta.numpy() ** 2
    error = square.std() / math.sqrt(square.size)
    assert abs(square.mean() - 0.1 / 4) < 4.9 * error
    assert abs(square.mean() - 0.1 / 4 / (1 - 0.36)) > 6 * error


@pytest.mark.parametrize("friction", [0.5, 8.0])
def test_free_diffusion_is_exact_at_any_step(friction: float) -> None:
    """Without it escape at high friction would be too fast. 20,000 replicas: 1 %; |z| < 4.9.

    Control: the share e^(−γh) of the velocity, with its (γh/2) coth(γh/2), must be seen at the higher friction.
    """
    flat = kg.Landscape(sympy.Integer(0), (X,), (X,))
    process = UnderdampedLangevin(flat, temperature=0.2, friction=friction, dt=0.5)
    middle, _ = process.advance(process.start(20_000, seed=9), 40)
    end, _ = process.advance(middle, 200)
    square = ((end.theta - middle.theta) ** 2).numpy()
    # <Δx²> = 2 (T/γ) [t − (1 − e^(−γt))/γ]; at these steps the bracket's second term matters by 1 %, its error by less
    expected = 2 * 0.2 / friction * (100 - 1 / friction)
    error = square.std() / math.sqrt(square.size)
    assert abs(square.mean() - expected) < 4.9 * error
    wrong = 0.25 * friction / math.tanh(0.25 * friction)
    assert friction < 1 or abs(square.mean() - wrong * expected) > 6 * error


def test_starts() -> None:
    arguments = {"temperature": 0.3, "friction": 0.5, "dt": 0.1}
    state = UnderdampedLangevin(DOUBLE_WELL, **arguments).start(20_000, seed=0, point=[-1.0])
    assert abs(float(state.buffers["velocity"].var()) / 0.3 - 1) < 4.9 * math.sqrt(2 / 20_000)
    at_rest = UnderdampedLangevin(DOUBLE_WELL, velocities=AtRest(), **arguments).start(3, seed=0)
    assert not at_rest.buffers["velocity"].any()


def test_without_friction_the_energy_stays() -> None:
    process = UnderdampedLangevin(DOUBLE_WELL, temperature=0.3, friction=0.0, dt=0.01)
    state = process.start(32, seed=0, point=[-1.0])

    def energy(s: State) -> NDArray[np.float64]:
        return DOUBLE_WELL.energy_at(s.theta.numpy()) + s.buffers["velocity"].numpy()[:, 0] ** 2 / 2

    later, _ = process.advance(state, 1000)
    np.testing.assert_allclose(energy(later), energy(state), rtol=2e-3, atol=1e-3)


def test_exit_times_are_those_of_the_exact_equation() -> None:
    """Low friction, where energy must be gained: 1,500 replicas give 2.6 %; |z| < 4.9.

    Control: the same numbers refute Kramers' formula without depopulation, and the overdamped time.
    """
    heat, friction, step = 0.4, 0.15, 0.06
    process = UnderdampedLangevin(DOUBLE_WELL, temperature=heat, friction=friction, dt=step)
    run = kg.first_passage(process, target=kg.Region(0.6), start=[-1.0], n_replicas=1500, max_time=220.0, seed=2)
    mean = kg.mean_exit_time(run, min_escapes=10)
    exact = inertial_mean_exit(Inertial(DOUBLE_WELL, heat, friction), Interval(-1.0, upper=0.6)).mean
    # A crossing counts at the end of its step, half a step late
    assert abs(mean.value - step / 2 - exact) < 4.9 * mean.standard_error
    kramers = kg.kramers_rate(
        kg.Barrier(DOUBLE_WELL, np.array([-1.0]), np.zeros(1), np.ones(1), 1.0), heat, friction=friction, warn=False
    )
    assert abs(mean.value - kramers.mean_time) > 6 * mean.standard_error
    assert float(run.friction) == friction
    assert str(run.engine.values) == "underdamped"


def test_splitting_takes_it() -> None:
    """A barrier of 6 T: eight repeats of splitting against the exact equation; its own errors, |z| < 4.9."""
    mode = Mode(3, 1.0, 0.25)
    heat, target = mode.barrier().height / 6, float(mode.landscape.order_parameters_at([0.75])[0])
    process = UnderdampedLangevin(mode, temperature=heat, friction=0.3, dt=0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ValidityWarning)
        run = kg.splitting(process, target=kg.Region(target), n_replicas=64, n_repeats=8, seed=1)
    exact = inertial_mean_exit(Inertial(mode.landscape, heat, 0.3), Interval(0.0, upper=0.75)).mean
    assert abs(float(run.mean_exit_time) - exact) < 4.9 * float(run.standard_error)
    assert float(run.standard_error) < 0.4 * exact


def test_errors() -> None:
    with pytest.raises(InvalidParameterError, match=r"dt² · weight_decay < 4"):
        UnderdampedLangevin(CHAIN, temperature=0.1, friction=0.1, dt=4.0)
    with pytest.raises(InvalidParameterError, match="`friction`"):
        UnderdampedLangevin(CHAIN, temperature=0.1, friction=-0.1, dt=0.1)
    process = UnderdampedLangevin(CHAIN, temperature=0.1, friction=0.1, dt=0.1)
    with pytest.raises(InvalidParameterError, match="Brownian path"):
        process.advance(process.start(2, seed=0), 1, Watch(kg.Region(0.5), bridge=True))
    other = kg.Langevin(CHAIN, temperature=0.1, dt=0.1).start(2, seed=0)
    with pytest.raises(InvalidParameterError, match="without inertia"):
        process.advance(other, 1)
