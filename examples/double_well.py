"""
A potential of your own
=======================

The double well :math:`(x^2 - 1)^2` as a user writes it: one symbolic energy, from which come the exact mean
first-passage time and the compiled simulation. And what happens when a simulation only looks at its steps.

``python examples/double_well.py --out double_well.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import sympy

import kramers_grok as kg
from kramers_grok.theory.quadrature import Diffusion, Interval, mean_exit
from kramers_grok.theory.time_step import ModifiedEquation, discrete_mean_exit

TEMPERATURE = 1 / 3
STEPS = (0.01, 0.005, 0.0025)
N_REPLICAS = 8192

x = sympy.Symbol("x", real=True)
well = kg.Landscape((x**2 - 1) ** 2, (x,), (x,))  # energy, coordinates, order parameters
to_the_top, across = Interval(-1.0, upper=0.0), Interval(-1.0, upper=1.0)

# %%
# Exact times
# -----------
# Quadrature takes any drift and diffusion. A walk with step h samples a *modified* equation, to first order in h; seen
# at its steps only it is a discrete chain, whose own mean exit time is exact too.

slope, curvature, third = (sympy.lambdify(x, sympy.diff(well.energy, x, n)) for n in (1, 2, 3))
process = Diffusion(lambda p: -slope(p), TEMPERATURE)


def predict(h: float, interval: Interval, bridge: bool) -> float:
    """Mean exit time of a walk with step h, without a simulation."""
    if not bridge:
        return discrete_mean_exit(process, interval, h).mean
    return mean_exit(ModifiedEquation(slope, curvature, third, TEMPERATURE, h).process, interval).mean


# %%
# Simulations
# -----------
# With a Brownian bridge a crossing between two steps counts; without, the walk is caught late, by O(√h).


def simulate(h: float, interval: Interval, bridge: bool) -> Any:
    """Estimate of the mean exit time."""
    langevin = kg.Langevin(well, temperature=TEMPERATURE, dt=h)
    target = kg.Region(interval.upper)
    run = kg.first_passage(
        langevin, target=target, start=[-1.0], n_replicas=N_REPLICAS, max_time=400.0, seed=3, bridge=bridge
    )
    return kg.mean_exit_time(run)


def main(out: Path | None = None) -> dict[str, float]:
    """Print and draw measured and exact times; return the exact ones, biases and distances in standard errors."""
    exact = {name: mean_exit(process, interval).mean for name, interval in (("top", to_the_top), ("across", across))}
    print(f"exact: −1 → 0 in {exact['top']:.6f}, −1 → +1 in {exact['across']:.6f}")
    mean, predicted = simulate(0.005, across, bridge=True), predict(0.005, across, bridge=True)
    numbers = {**exact, "z_across": (mean.value - predicted) / mean.standard_error}
    print(f"−1 → +1, h = 0.005, bridge: {mean.value:.3f} ± {mean.standard_error:.3f}, predicted {predicted:.3f}")
    figure, ax = plt.subplots(figsize=(5.6, 4.0), layout="constrained")
    for bridge, colour, name in ((True, "tab:blue", "bridge"), (False, "tab:red", "seen at steps only")):
        predictions = [predict(h, to_the_top, bridge) for h in STEPS]
        means = [simulate(h, to_the_top, bridge) for h in STEPS]
        for h, mean, predicted in zip(STEPS, means, predictions, strict=True):
            numbers[f"z_{name}_{h:g}"] = (mean.value - predicted) / mean.standard_error
            numbers[f"bias_{name}_{h:g}"] = mean.value / exact["top"] - 1
            print(f"−1 → 0, h = {h:g}, {name}: {mean.value:.3f} ± {mean.standard_error:.3f}, predicted {predicted:.3f}")
        bars = [2 * mean.standard_error for mean in means]
        ax.errorbar(STEPS, [m.value for m in means], bars, fmt="o", ms=4, capsize=3, color=colour, label=name)
        ax.plot(STEPS, predictions, "--", color=colour, lw=1, label=f"{name}, predicted")
    ax.axhline(exact["top"], color="black", lw=1, label="exact, continuous time")
    ax.set(xlabel="step h [time]", ylabel="mean time from −1 to the top [time]", xlim=(0, 0.0105), ylim=(12, 15.4))
    ax.legend(frameon=False, fontsize="small", loc="upper left", ncols=2)
    if out is not None:
        figure.savefig(out, dpi=160)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
