"""
The chain's own exit time
=========================

A simulation takes steps, and its exit times are those of a discrete chain. They too have an exact solution, for walks
in any potential of one coordinate and for SGD with true minibatches in one mode, whose diffusion limit is 40 % off.

``python examples/discrete_chain.py --out discrete_chain.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import sympy

import kramers_grok as kg
from kramers_grok.theory.discrete_chain import discrete_exit, sgd_exit_time
from kramers_grok.theory.exit_times import minibatch_mode_exit_time
from kramers_grok.theory.quadrature import Diffusion, Interval, mean_exit
from kramers_grok.theory.time_step import ModifiedEquation, monitoring_shift

TEMPERATURE, START = 0.2, -1.0
TARGETS = {"at the top": 0.0, "at 0.8 beyond": 0.8}

x = sympy.Symbol("x", real=True)
well = kg.Landscape((x**2 - 1) ** 2, (x,), (x,))
slope, curvature, third = (sympy.lambdify(x, sympy.diff(well.energy, x, n)) for n in (1, 2, 3))
process = Diffusion(lambda p: -slope(p), TEMPERATURE)

# %%
# Three answers for one step
# --------------------------
# The chain's own integral equation is exact. The modified equation, with the target moved by what a walk overshoots, is
# right to first order in the step: enough below h = 0.01 here, 9 % off at the top at h = 0.045.


def exact(h: float, border: float, bridge: bool = False) -> float:
    """Mean exit time of the discrete chain."""
    return discrete_exit(process, Interval(START, upper=border), step=h, bridge=bridge).mean


def first_order(h: float, border: float) -> float:
    """Mean exit time of the modified equation."""
    equation = ModifiedEquation(slope, curvature, third, TEMPERATURE, h)
    shift = monitoring_shift(float(equation.diffusion(np.array([border]))[0]), h)
    return mean_exit(equation.process, Interval(START, upper=border + shift)).mean


def simulate(h: float, border: float, horizon: float) -> Any:
    """Estimate of the mean exit time from a walk that is seen at its steps only."""
    langevin, crowd = kg.Langevin(well, temperature=TEMPERATURE, dt=h), {"n_replicas": 16384, "start": [START]}
    run = kg.first_passage(langevin, target=kg.Region(border), max_time=horizon, seed=1, bridge=False, **crowd)
    return kg.mean_exit_time(run)


# %%
# SGD
# ---
# Minibatch noise alone makes a learned feature forget. Rare events see more of it than its variance.

MODE, FORGOTTEN = kg.Mode(depth=3, singular_value=1.0, weight_decay=0.44), kg.Region(0.02, above=False)


def main(out: Path | None = None) -> dict[str, float]:
    """Print and draw ratios to the continuous time; return distances from the exact ones in standard errors."""
    sgd = sgd_exit_time(MODE, lr=0.1, batch_size=16, label_noise=0.5, target=FORGOTTEN).mean
    limit = minibatch_mode_exit_time(MODE, lr_over_batch=0.1 / 16, label_noise=0.5, target=FORGOTTEN).mean
    print(f"SGD forgets after {sgd:.1f}, its diffusion limit after {limit:.1f}: {sgd / limit:.4f}")
    numbers = {"sgd": sgd, "limit": limit}
    figure, ax = plt.subplots(figsize=(5.6, 4.2), layout="constrained")
    grid = np.linspace(0.067, 0.212, 14) ** 2
    for (name, border), colour in zip(TARGETS.items(), ("tab:red", "tab:blue"), strict=True):
        continuous = mean_exit(process, Interval(START, upper=border)).mean
        ax.plot(grid, [exact(h, border) / continuous for h in grid], color=colour, label=f"target {name}: exact")
        ax.plot(grid, [exact(h, border, True) / continuous for h in grid], ":", color=colour, label="exact, bridged")
        ax.plot(grid, [first_order(h, border) / continuous for h in grid], "--", color=colour, label="first order")
        for h in (0.04, 0.02, 0.01):
            mean, predicted = simulate(h, border, 20 * continuous), exact(h, border)
            numbers[f"z_{name}_{h:g}"] = (mean.value - predicted) / mean.standard_error
            numbers[f"ratio_{name}_{h:g}"] = ratio = predicted / continuous
            print(f"{name}, h = {h:g}: exact {ratio:.5f} × continuous, simulated {mean.value / continuous:.4f}")
            ax.errorbar(h, mean.value / continuous, 2 * mean.standard_error / continuous, fmt="o", ms=4, color=colour)
    ax.axhline(1, color="black", lw=0.8)
    ax.set(xlim=(0, 0.047), xlabel="step h [time]", ylabel="mean exit time / continuous")
    ax.legend(frameon=False, fontsize="small", ncols=2)
    if out is not None:
        figure.savefig(out, dpi=160)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
