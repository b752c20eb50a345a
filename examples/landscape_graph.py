"""
Many states: a graph of minima and saddles
==========================================

Where several minima trap, an escape leads through some of them, over one of several ways. Minima and saddles make a
graph, rates a Markov chain on it, and its mean times are those of the whole escape.

``python examples/landscape_graph.py --out landscape_graph.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import sympy

import kramers_grok as kg
from kramers_grok.core.landscape import Landscape
from kramers_grok.landscape.explore import explore
from kramers_grok.landscape.points import find_minima
from kramers_grok.models.base import SymbolicModel
from kramers_grok.plots.graphs import landscape_graph

# %%
# Two ways
# --------
# Two deep wells; between them a direct way over a high saddle, and a detour through a shallow well over lower ones
# (Metzner, Schütte & Vanden-Eijnden 2006). The cold process takes the detour, the hot one the wider direct way.

x, y = sympy.symbols("x y", real=True)
third = sympy.Rational(1, 3)
energy = 3 * sympy.exp(-(x**2) - (y - third) ** 2) - 3 * sympy.exp(-(x**2) - (y - 5 * third) ** 2)
energy += -5 * sympy.exp(-((x - 1) ** 2) - y**2) - 5 * sympy.exp(-((x + 1) ** 2) - y**2)
wells = SymbolicModel(Landscape(energy + x**4 / 5 + (y - third) ** 4 / 5, (x, y), (x,)))


def simulate(temperature: float, start: np.ndarray, border: float) -> kg.Estimate:
    """Mean time from one well to the other."""
    process = kg.Langevin(wells, temperature=temperature, dt=0.01, device="cpu")
    run = kg.first_passage(process, target=kg.Region(border), n_replicas=256, max_time=1e4, seed=1, start=start)
    return kg.mean_exit_time(run)


# %%
# A network
# ---------
# The tanh network is taught two features. It has the three states of the deep linear network of its widths, each with
# all its copies under exchanges of hidden units and changes of their signs: one state of the graph. At this weight
# decay the second feature costs more than it is worth.


def network() -> kg.MLP:
    """Two hidden layers of two units, taught a linear map of white inputs."""
    inputs = kg.linear_teacher_data(np.eye(2), n_samples=24, label_noise=0.0, seed=0, whiten=True).x
    return kg.MLP.from_data(kg.finite(inputs, inputs * [1.2, 0.9]), (2, 2), kg.Tanh(), weight_decay=0.2)


def main(out: Path | None = None) -> dict[str, float]:
    """Search both landscapes, print mean times and shares, draw the graphs; return what was printed."""
    graph = explore(wells, find_minima(wells, n_starts=12, seed=0))
    left, right = graph.states(kg.Region(-0.5, above=False))[0], graph.states(kg.Region(0.5))[0]
    numbers: dict[str, float] = {"states": graph.n_states, "saddles": graph.n_saddles}
    figure, (first, middle, last) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    temperatures = np.geomspace(0.1, 0.8, 25)
    times = [graph.mean_time(T, left, right) for T in temperatures]
    middle.semilogy(1 / temperatures, [t.value for t in times], label="Markov chain")
    middle.fill_between(1 / temperatures, [t.lower for t in times], [t.upper for t in times], alpha=0.25, lw=0)
    for T in (0.8, 0.6, 0.45):
        time, seen = graph.mean_time(T, left, right), simulate(T, graph.minima["theta"].values[left], 0.85)
        numbers |= {f"time_{T}": seen.value, f"lower_{T}": time.lower, f"upper_{T}": time.upper}
        print(f"T = {T}: simulated {seen.value:.4g} ± {seen.standard_error:.2g}, chain {time.value:.4g}")
        middle.errorbar(1 / T, seen.value, 2 * seen.standard_error, fmt="k*", label="simulated" if T == 0.8 else None)
    for T in (0.1, 0.8):
        shares = dict(zip(map(tuple, graph.ends.tolist()), graph.markov_chain(T).shares(left, right), strict=True))
        numbers[f"direct_{T}"] = abs(shares[min(left, right), max(left, right)])
        print(f"T = {T}: {numbers[f'direct_{T}']:.0%} of the crossings go directly")
    mlp = network()
    learned = explore(mlp, find_minima(mlp, n_starts=4, seed=0))
    numbers["network_states"] = learned.n_states
    print(f"tanh network: {learned.n_states} states, {np.exp(learned.minima['log_volume'].values).round()} copies")
    landscape_graph(graph, first).set_title("three wells")
    landscape_graph(learned, last).set_title("tanh network, two features")
    middle.set(xlabel="1/T [1/loss]", ylabel="mean time from well to well [time]", title="three wells")
    middle.legend(frameon=False)
    if out is not None:
        figure.savefig(out, dpi=160)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
