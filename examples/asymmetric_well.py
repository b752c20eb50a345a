r"""
A tilted double well
====================

The textbook's second exercise: :math:`(x^2-1)^2 + \kappa x`. Tilting it makes one way easier and the other harder; at
equilibrium the ratio of the two mean times is that of the times spent on either side.

``python examples/asymmetric_well.py --out asymmetric_well.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import sympy

import kramers_grok as kg
from kramers_grok.theory.quadrature import Diffusion, Interval, mean_exit
from kramers_grok.theory.rates import Well, kramers_rate

TEMPERATURE, STEP = 0.25, 0.002
TILTS = (0.0, 0.2, 0.4)
N_REPLICAS = 1024
x = sympy.Symbol("x", real=True)

# %%
# Wells, barriers, exact times
# ----------------------------
# Stationary points are the three real roots of V′. The exact time from one minimum to the other is a quadrature; half
# of it would be the time to the top.


class Tilted:
    """The double well at one tilt."""

    def __init__(self, tilt: float) -> None:
        energy = (x**2 - 1) ** 2 + sympy.Float(tilt) * x
        self.landscape = kg.Landscape(energy, (x,), (x,))
        self.energy, self.slope, self.curvature = (sympy.lambdify(x, sympy.diff(energy, x, n)) for n in range(3))
        self.left, self.top, self.right = sorted(np.roots([4, 0, -4, tilt]).real)

    def time(self, start: float, end: float) -> float:
        """Exact mean time from one minimum to the other."""
        process = Diffusion(lambda p: -self.slope(p), TEMPERATURE)
        interval = Interval(start, upper=end) if end > start else Interval(start, lower=end)
        return mean_exit(process, interval).mean

    def kramers(self, start: float) -> float:
        """Mean time by Kramers' formula."""
        height = self.energy(self.top) - self.energy(start)
        well = Well(height, self.curvature(start), self.curvature(self.top))
        return kramers_rate(well, TEMPERATURE, warn=False).mean_time  # at ΔV/T of 4, drawn to see what is left out

    def simulated(self, start: float, end: float, seed: int) -> kg.Estimate:
        """Mean time of Langevin dynamics, crossings between two steps included."""
        langevin = kg.Langevin(self.landscape, temperature=TEMPERATURE, dt=STEP)
        target = kg.Region(end, above=end > start)
        run = kg.first_passage(langevin, target=target, start=[start], n_replicas=N_REPLICAS, max_time=5e3, seed=seed)
        return kg.mean_exit_time(run)


def main(out: Path | None = None) -> dict[str, float]:
    """Print and draw the times of both ways against the tilt; return exact ones and distances in standard errors."""
    numbers: dict[str, float] = {}
    figure, ax = plt.subplots(figsize=(5.8, 4.2), layout="constrained")
    tilts = np.linspace(TILTS[0], TILTS[-1], 17)
    wells = [Tilted(float(tilt)) for tilt in tilts]
    ways = (("left to right", "left", "right", "o", "tab:red"), ("right to left", "right", "left", "s", "tab:blue"))
    for seed, (name, begin, end, marker, colour) in enumerate(ways):
        exact = [well.time(getattr(well, begin), getattr(well, end)) for well in wells]
        ax.semilogy(tilts, exact, color=colour, label=f"{name}, exact")
        ax.semilogy(tilts, [well.kramers(getattr(well, begin)) for well in wells], "--", color=colour, label="Kramers")
        for tilt in TILTS:
            well = Tilted(tilt)
            start, finish = getattr(well, begin), getattr(well, end)
            mean, time = well.simulated(start, finish, seed), well.time(start, finish)
            numbers |= {f"{name}_{tilt}": time, f"z_{name}_{tilt}": (mean.value - time) / mean.standard_error}
            print(f"κ = {tilt}, {name}: {mean.value:.2f} ± {mean.standard_error:.2f}, exact {time:.2f}")
            ax.errorbar(tilt, mean.value, 2 * mean.standard_error, fmt=marker, ms=5, capsize=3, color=colour)
    ax.set(xlabel="tilt κ [energy/length]", ylabel="mean time from minimum to minimum [time]")
    ax.legend(frameon=False, ncols=2, fontsize="small")
    if out is not None:
        figure.savefig(out, dpi=160)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
