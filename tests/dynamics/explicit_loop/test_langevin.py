"""Langevin dynamics walk the paths of a plain loop, whatever the integrator, the score, floor and level."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import sympy
import torch
from plain_loop import (
    INTEGRATORS,
    PARAMETERS,
    REPLICAS,
    SEED,
    STEPS,
    Array,
    Walk,
    chain_walk,
    compare,
    explicit,
    mode_walk,
)

from kramers_grok.core.landscape import Landscape
from kramers_grok.core.region import Region
from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics.langevin import Langevin
from kramers_grok.dynamics.process import Observed, OrderParameter, Watch
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

X, Y = sympy.symbols("x y", real=True)
DOUBLE_WELL = Landscape((X**2 - 1) ** 2 + 0.3 * X + X * Y / 4 + Y**2 / 2, (X, Y), (X, X + 0.5 * Y))


def double_well_walk() -> Walk:
    """Watches the second order parameter, x + y/2."""

    def gradient(z: Array, stream: int, step: int) -> Array:
        x, y = z
        return np.array([4 * x * (x * x - 1) + 0.3 + y / 4, x / 4 + y])

    return Walk(gradient, lambda z: z[0] + 0.5 * z[1], lambda z: 1.25**0.5)


# system, walk, start, temperature, dt, region
LANGEVIN = {
    "mode": (Mode(depth=3, **PARAMETERS), mode_walk(), np.array([0.6]), 0.05, 0.1, Region(0.25)),
    "mode, forgetting": (
        Mode(depth=3, **PARAMETERS), mode_walk(), np.array([1.4]), 0.05, 0.1, Region(0.3, above=False)
    ),
    "chain 3": (DeepLinearChain(3, **PARAMETERS), chain_walk(), np.full(3, 0.4), 0.1, 0.1, Region(0.2)),
    "chain 4": (DeepLinearChain(4, **PARAMETERS), chain_walk(), np.full(4, 0.5), 0.1, 0.1, Region(0.2)),
    "chain 3 from 0": (DeepLinearChain(3, **PARAMETERS), chain_walk(), np.zeros(3), 0.15, 0.1, Region(0.2)),
    "double well": (DOUBLE_WELL, double_well_walk(), np.array([-0.9, 0.1]), 0.4, 0.03, Region(0.0, feature=1)),
}  # fmt: skip


@pytest.mark.parametrize("bridge", [False, True])
@pytest.mark.parametrize("name", LANGEVIN)
def test_langevin(name: str, bridge: bool) -> None:
    system, walk, start, temperature, dt, region = LANGEVIN[name]
    watch, amplitude = Watch(region, bridge=bridge), (2 * temperature * dt) ** 0.5
    expected = explicit(walk, watch, start, lr=dt, amplitude=amplitude, purpose=Purpose.LANGEVIN)
    escaped = (expected.hits >= 0).sum()
    assert 0 < escaped < REPLICAS  # both kinds of end are seen
    for integrator in INTEGRATORS.values():
        compare(Langevin(system, temperature=temperature, dt=dt, integrator=integrator), watch, start, expected)


def test_a_bridge_sees_what_the_steps_do_not() -> None:
    system, _, start, temperature, dt, region = LANGEVIN["double well"]
    process = Langevin(system, temperature=temperature, dt=dt)
    hits = [
        process.advance(process.start(REPLICAS, seed=SEED, point=start), STEPS, Watch(region, bridge=bridge))[
            1
        ].hit_step
        for bridge in (False, True)
    ]
    at_steps, between = (torch.where(h < 0, STEPS + 1, h) for h in hits)
    assert (between <= at_steps).all()
    assert (between < at_steps).any()


def test_without_noise_it_is_gradient_descent() -> None:
    system, walk, start, _, dt, region = LANGEVIN["double well"]
    for bridge in (False, True):
        watch = Watch(region, bridge=bridge)
        expected = explicit(walk, Watch(region), start, lr=dt, amplitude=0.0, purpose=Purpose.LANGEVIN)
        assert (expected.hits == -1).all()
        for integrator in INTEGRATORS.values():
            compare(Langevin(system, temperature=0.0, dt=dt, integrator=integrator), watch, start, expected)


def test_another_temperature_walks_another_path() -> None:
    """Negative control: the comparison above notices a temperature wrong by one part in a million."""
    system, walk, start, temperature, dt, region = LANGEVIN["chain 3"]
    expected = explicit(walk, Watch(region), start, lr=dt, amplitude=(2 * temperature * dt) ** 0.5,
                        purpose=Purpose.LANGEVIN)  # fmt: skip
    warmer = Langevin(system, temperature=temperature * (1 + 1e-6), dt=dt)
    with pytest.raises(AssertionError):
        compare(warmer, Watch(region), start, expected)


# ---------------------------------------------------------------- floors, levels and scores of one's own


@dataclass(frozen=True)
class Norm:
    """Distance from the origin as a score."""

    scale: float = 1.0

    def values(self, observed: Observed, theta: torch.Tensor) -> torch.Tensor:
        return self.scale * theta.square().sum(dim=1)

    def expression(self, landscape: Landscape) -> sympy.Expr | None:
        return sympy.Float(self.scale) * sum(x**2 for x in landscape.coordinates)


class TorchOnly(Norm):
    """The same without an expression."""

    def expression(self, landscape: Landscape) -> sympy.Expr | None:
        return None


# region's own score: floor, level; score of one's own, growing with the distance from 0 (a target above) or falling
WATCHES = {
    "floor": lambda border, above: Watch(border, floor=0.05 if above else -1.3),
    "floor and level": lambda border, above: Watch(border, floor=0.05 if above else -1.3, level=0.2 if above else -0.5),
    "floor and bridge": lambda border, above: Watch(border, floor=0.05 if above else -1.3, bridge=True),
    "the order parameter": lambda border, above: Watch(
        border, floor=0.05 if above else -1.3, score=OrderParameter(sign=1.0 if above else -1.0)
    ),
    "norm": lambda border, above: Watch(border, floor=-2.8 if not above else 0.25, score=Norm(1.0 if above else -1.0)),
    "norm with a level": lambda border, above: Watch(
        border, floor=-2.8 if not above else 0.25, score=Norm(1.0 if above else -1.0), level=1.1 if above else -1.2
    ),
    "torch alone": lambda border, above: Watch(
        border, floor=-2.8 if not above else 0.25, score=TorchOnly(1.0 if above else -1.0), level=1.1 if above else -1.2
    ),
}


@pytest.mark.parametrize("name", ["mode", "mode, forgetting", "chain 3"])
@pytest.mark.parametrize("kind", WATCHES)
def test_floors_levels_and_scores(name: str, kind: str) -> None:
    system, walk, start, temperature, dt, region = LANGEVIN[name]
    watch, amplitude = WATCHES[kind](region, region.above), (2 * temperature * dt) ** 0.5
    score = None
    if isinstance(watch.score, OrderParameter):
        score = lambda x: watch.region.sign * walk.order(x)  # noqa: E731
    elif watch.score is not None:
        score = lambda x: watch.region.sign * float(x @ x)  # noqa: E731
    expected = explicit(walk, watch, start, lr=dt, amplitude=amplitude, purpose=Purpose.LANGEVIN, score=score)
    hits, falls = (expected.hits >= 0).sum(), (expected.falls >= 0).sum()
    assert hits > 0
    assert falls > 0
    for integrator in INTEGRATORS.values():
        compare(Langevin(system, temperature=temperature, dt=dt, integrator=integrator), watch, start, expected)


def test_another_floor_or_score_is_noticed() -> None:
    """Negative control: the comparison above sees a floor, a level and a score that are off by a percent."""
    system, walk, start, temperature, dt, region = LANGEVIN["chain 3"]
    watch = Watch(region, floor=0.25, score=Norm(), level=1.1)
    process = Langevin(system, temperature=temperature, dt=dt)
    expected = explicit(walk, watch, start, lr=dt, amplitude=(2 * temperature * dt) ** 0.5, purpose=Purpose.LANGEVIN,
                        score=lambda x: float(x @ x))  # fmt: skip
    compare(process, watch, start, expected)
    for change in ({"floor": 0.2}, {"level": 1.0}, {"score": Norm(1.01)}):
        with pytest.raises(AssertionError):
            compare(process, replace(watch, **change), start, expected)
