"""
Modular addition: a late jump that is no escape
===============================================

A small network learns a + b modulo 11 from three quarters of all pairs. It knows the pairs that it was shown long
before the others: the canonical curve of grokking. Is the delay the time of an escape over a barrier? Then it would be
exponential over replicas, change by factors with the noise, and never end without.

``python examples/modular_addition.py --out modular_addition.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import kramers_grok as kg
from kramers_grok.analysis.censored import ExitTimes
from kramers_grok.analysis.hypotheses import exponentiality_test
from kramers_grok.analysis.law_choice import choose_law
from kramers_grok.dynamics.observables import Loss
from kramers_grok.dynamics.tracing import trace
from kramers_grok.models.activations import Quadratic
from kramers_grok.models.data import modular_addition
from kramers_grok.models.mlp import MLP

N_REPLICAS = 12
BATCHES = {"all pairs": None, "B = 16": 16, "B = 8": 8, "B = 4": 4}

# %%
# Task, network and order parameter
# ---------------------------------
# m compares the network's function with the labels on the *test* pairs: 0 for zero, 1 for the labels.

train, test = modular_addition(11, 0.75, seed=0)
network = MLP.from_data(train, (48,), Quadratic(), weight_decay=3e-3)
network = network.between_functions(0 * test.y, test.y, data=test)
start = 0.2 * np.random.default_rng(0).normal(size=(N_REPLICAS, network.n_parameters))


def main(out: Path | None = None) -> dict[str, float]:
    """Print delays, their scatter and the law, and draw curves and survival."""
    descent = kg.SGD(network, train, lr=1.0)  # full batches: no noise at all
    steps = np.unique(np.geomspace(1, 6000, 60).astype(int))
    losses = Loss(train, "train_loss"), Loss(test, "test_loss")
    curve = trace(descent, descent.start(4, seed=0, point=start[:4]), steps, losses)[1]

    # %%
    # Delays with and without noise
    # -----------------------------
    runs = {}
    for name, batch in BATCHES.items():
        process = descent if batch is None else kg.SGD(network, train, lr=0.5, batch_size=batch)
        runs[name] = kg.first_passage(
            process, target=kg.Region(0.5), n_replicas=N_REPLICAS, max_time=6000.0, seed=1, start=start
        )
        shape = exponentiality_test(runs[name])
        print(f"{name:9s}: median delay {float(runs[name].exit_time.median()):.0f}, {shape.note}, "
              f"p = {shape.p_value:.1g} if it were an escape")  # fmt: skip
    noise = [0.0 if batch is None else 0.5 / batch for batch in BATCHES.values()]
    choice = choose_law(ExitTimes.of_runs(runs.values(), x=noise), seed=0)
    print(f"law of the delay: {choice.verdict} ({choice.reason})")

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    kg.plots.train_and_test(curve, axes[0]).set_title("full batches, 4 random starts")
    for name, run in runs.items():
        times = np.concatenate([[0.0], np.sort(run.exit_time.values)])
        axes[1].step(times / times[1:].mean(), np.linspace(1, 0, times.size), where="post", label=name)
    grid = np.linspace(0, 3, 60)
    axes[1].plot(grid, np.exp(-grid), "k--", lw=1, label="an escape")
    axes[1].set(xlabel="delay over its mean", ylabel="test pairs not learned yet", title="who is still waiting")
    axes[1].legend(frameon=False)
    if out is not None:
        figure.savefig(out, dpi=150)
    medians = [float(run.exit_time.median()) for run in runs.values()]
    return {
        "learned without noise": float(runs["all pairs"].escaped.mean()),
        "deterministic": float(choice.verdict == "deterministic"),
        "change with the noise": max(medians) / min(medians),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    numbers = main(parser.parse_args().out)
