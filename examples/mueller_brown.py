"""
Müller and Brown's potential
============================

Three wells, two saddles and a bent valley: the potential on which methods for saddles have been tried since 1979. Its
stationary points are found, and mean times from well to well are simulated, solved for, and predicted by rates.

``python examples/mueller_brown.py --out mueller_brown.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import sympy
from scipy import sparse

import kramers_grok as kg
from kramers_grok.landscape.explore import explore
from kramers_grok.landscape.points import find_minima
from kramers_grok.models.base import SymbolicModel
from kramers_grok.plots.style import look

STEP, SPACING, TEMPERATURES, SIMULATED = 2e-5, 0.025, np.array([10.0, 14.0, 20.0, 28.0]), (20.0, 28.0)
STRENGTHS, CENTRES = (-200, -100, -170, 15), ((1, 0), (0, 0.5), (-0.5, 1.5), (-1, 1))
SHAPES = (-1, 0, -10), (-1, 0, -10), (-6.5, 11, -6.5), (0.7, 0.6, 0.7)
x, y = sympy.symbols("x y", real=True)
energy = 0
for strength, (a, b, c), (p, q) in zip(STRENGTHS, SHAPES, CENTRES, strict=True):
    energy += strength * sympy.exp(a * (x - p) ** 2 + b * (x - p) * (y - q) + c * (y - q) ** 2)
model = SymbolicModel(kg.Landscape(energy, (x, y), (x, y)))
# States are numbered by their energy: 0 on the left, 1 on the right.
WAYS = {"right to left": (1, 0, kg.Region(1.2, feature=1)), "left to right": (0, 1, kg.Region(0.4, feature=0))}

# %%
# The exact time
# --------------
# The backward equation on a grid: rates between neighbours that keep detailed balance, and no way out of the target.


def exact_time(temperature: float, start: np.ndarray, target: kg.Region) -> float:
    """Mean time from a point into the target; nodes more than 20 T above the higher saddle are left out."""
    grid = np.stack(np.meshgrid(np.arange(-1.8, 1.3, SPACING), np.arange(-0.6, 2.3, SPACING), indexing="ij"), -1)
    height = model.landscape.energy_at(grid)
    kept = height < -40.66 + 20 * temperature
    number = np.where(kept, np.cumsum(kept).reshape(kept.shape) - 1, -1)
    flow = sparse.csr_matrix((kept.sum(),) * 2)
    for axis in (0, 1):
        here, there = (np.take(number, range(s, number.shape[axis] - 1 + s), axis).ravel() for s in (0, 1))
        here, there = (ends[(here >= 0) & (there >= 0)] for ends in (here, there))
        for begin, end in ((here, there), (there, here)):
            rate = np.exp((height[kept][begin] - height[kept][end]) / (2 * temperature))
            flow += temperature / SPACING**2 * sparse.csr_matrix((rate, (begin, end)), shape=flow.shape)
    generator = flow - sparse.diags(np.asarray(flow.sum(axis=1)).ravel())
    free = np.flatnonzero(grid[kept][:, target.feature] < target.threshold)
    nearest = np.argmin(((grid[kept][free] - start) ** 2).sum(axis=1))
    return float(sparse.linalg.spsolve(generator.tocsc()[free][:, free], -np.ones(free.size))[nearest])


def main(out: Path | None = None) -> dict[str, float]:
    """Print points and times and draw them; return energies, times and distances in standard errors."""
    graph = explore(model, find_minima(model, n_starts=12, seed=0))
    energies = np.append(graph.minima.energy, graph.saddles.energy).tolist()
    numbers = dict(zip(("left", "right", "middle", "high saddle", "low saddle"), energies, strict=True))
    print(", ".join(f"{name} {value:.3f}" for name, value in numbers.items()))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
    plane = np.stack(np.meshgrid(np.linspace(-1.6, 1.2, 140), np.linspace(-0.4, 2.1, 125), indexing="ij"), -1)
    left.contour(*np.moveaxis(plane, -1, 0), model.landscape.energy_at(plane), range(-140, 60, 15), cmap="Greys_r")
    for name, points, mark in (("minimum", graph.minima, "o"), ("saddle", graph.saddles, "X")):
        left.plot(*points.theta.values.T, mark, ms=8, label=name, mec="black")
    left.set(xlabel="x", ylabel="y", title="minima (●) and saddles (✖); contours 15 apart")
    for seed, (name, (begin, end, target)) in enumerate(WAYS.items()):
        start, own = graph.minima.theta.values[begin], look(seed)
        exact = {T: exact_time(T, start, target) for T in TEMPERATURES.tolist()}
        right.semilogy(1 / TEMPERATURES, list(exact.values()), color=own.colour, label=f"{name}, exact")
        rates = [graph.mean_time(T, begin, end).value for T in TEMPERATURES]
        right.semilogy(1 / TEMPERATURES, rates, "--", color=own.colour, label="by rates over saddles")
        for T in SIMULATED:
            langevin = kg.Langevin(model, temperature=T, dt=STEP, device="cpu")
            run = kg.first_passage(langevin, target=target, start=start, n_replicas=256, max_time=40.0, seed=seed)
            mean = kg.mean_exit_time(run)
            numbers[f"exact_{name}_{T:g}"] = exact[T]
            numbers[f"z_{name}_{T:g}"] = (mean.value - exact[T]) / mean.standard_error
            print(f"T = {T:g}, {name}: {mean.value:.3f} ± {mean.standard_error:.3f}, exact {exact[T]:.3f}")
            right.errorbar(1 / T, mean.value, 2 * mean.standard_error, capsize=3, **own.points())
    right.set(xlabel="1/T [1/energy]", ylabel="mean time from well to well [time]")
    right.legend(fontsize="small")
    if out is not None:
        figure.savefig(out, dpi=160)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
