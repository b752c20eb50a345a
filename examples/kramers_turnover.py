"""
Kramers' turnover
=================

Friction slows a particle down, and it is also what feeds it the energy to cross a barrier. The escape time has a
minimum in between. SGD with momentum is such a particle: β and η choose the friction.

``python examples/kramers_turnover.py --out kramers_turnover.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import kramers_grok as kg
from kramers_grok.dynamics.underdamped import UnderdampedLangevin
from kramers_grok.theory.kramers_fokker_planck import Inertial, inertial_mean_exit
from kramers_grok.theory.momentum import HeavyBall
from kramers_grok.theory.quadrature import Interval
from kramers_grok.theory.turnover import InertialWell, energy_diffusion_rate, turnover_rate

mode = kg.Mode(depth=3, singular_value=1.0, weight_decay=0.25)
barrier = mode.barrier()
TEMPERATURE = barrier.height / 3
SOLVED = (0.1, 0.3, 1.0, 3.0, 10.0)
BORDER = 0.8  # arc length of the target's border, well past the top at 0.44
target = kg.Region(float(mode.landscape.order_parameters_at([BORDER])[0]))

# %%
# Formulas and the exact time
# ---------------------------
# Kramers' formula is right from moderate friction upwards, energy diffusion at the lowest; Mel'nikov and Meshkov's
# factor joins them. The exact mean time is a solution of the backward Kramers–Fokker–Planck equation.

frictions = np.geomspace(0.02, 10, 60)
well = InertialWell.of(barrier)
rates = {"Kramers": kg.kramers_rate, "energy diffusion": energy_diffusion_rate, "Mel'nikov–Meshkov": turnover_rate}


def times(rate: Any) -> list[float]:
    """Mean times by one formula."""
    return [rate(well, TEMPERATURE, friction=g, warn=False).mean_time for g in frictions]


def exact(friction: float) -> float:
    """Mean first-passage time past the barrier."""
    return inertial_mean_exit(Inertial(mode.landscape, TEMPERATURE, friction), Interval(0.0, upper=BORDER)).mean


# %%
# Simulations
# -----------
# Langevin dynamics with inertia, and SGD with momentum at the same temperature, in the particle's clock √η · step.


def simulate(process: kg.SGD | UnderdampedLangevin, clock: float, longest: float) -> tuple[float, float]:
    """Mean time and its standard error; a crossing seen at a step happened half a step before."""
    mean = kg.mean_exit_time(kg.first_passage(process, target=target, n_replicas=200, max_time=longest / clock, seed=0))
    return (mean.value - process.dt / 2) * clock, mean.standard_error * clock


def main(out: Path | None = None) -> dict[str, float]:
    """Print and draw times against friction; return distances from the exact times in standard errors."""
    figure, ax = plt.subplots(figsize=(5.8, 4.0), layout="constrained")
    numbers = {}
    for (name, rate), style in zip(rates.items(), ("--", ":", "-"), strict=True):
        ax.loglog(frictions, times(rate), style, color="0.4", label=name)
    ax.loglog(SOLVED, [exact(g) for g in SOLVED], "k_", ms=12, mew=2, label="exact")
    points: dict[str, list[tuple[float, float, float]]] = {"Langevin with inertia": [], "SGD with momentum": []}
    for momentum in (0.5, 0.9):
        ball = HeavyBall(lr=0.1, momentum=momentum)
        noise = kg.per_sample(variance=ball.noise_variance_for(TEMPERATURE, 8))
        sgd = kg.SGD(mode, kg.population(), lr=0.1, batch_size=8, optimizer=kg.Momentum(momentum), noise=noise)
        inertia = UnderdampedLangevin(mode, temperature=TEMPERATURE, friction=ball.friction, dt=0.5)
        time, runs = exact(ball.friction), ((inertia, 1.0), (sgd, ball.step / ball.lr))
        for (name, found), (process, clock) in zip(points.items(), runs, strict=True):
            mean, error = simulate(process, clock, 1.5 * time)
            found.append((ball.friction, mean, error))
            numbers[f"{name}, {momentum}"] = (mean - time) / error
            print(f"β = {momentum}, γ = {ball.friction:.2f}, {name}: {mean:.0f} ± {error:.0f}, exact {time:.0f}")
    for (name, found), marker in zip(points.items(), "os", strict=True):
        friction, mean, error = np.transpose(found)
        ax.errorbar(friction, mean, 2 * error, fmt=marker, ms=5, mfc="none", capsize=3, label=name)
    ax.set(xlabel="friction γ [1/time]", ylabel="mean time past the barrier [time]", ylim=(150, 1.5e4))
    ax.legend(frameon=False, fontsize="small", loc="upper center")
    if out is not None:
        figure.savefig(out, dpi=160)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
