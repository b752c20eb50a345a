"""
Noise, or the optimizer?
========================

A network has learned its strongest feature and none of the others: the weights of all unused directions are 1e-6. What
lets it out? Each optimizer trains it on the full batch and on minibatches of the same data. What happens on the full
batch is deterministic; only the difference is the noise's doing.

``python examples/adaptive_optimizers.py --out optimizers.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import kramers_grok as kg
from kramers_grok.dynamics.optimizers import Adam, AdamW, GradientDescent
from kramers_grok.models.data import linear_teacher_data

BATCH, N_REPLICAS, N_STEPS = 8, 16, 700
TEACHER = [2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]

# %%
# Data and the collapsed state
# ----------------------------
# Inputs are whitened, so that the network's theory holds for these samples exactly, label noise included. The start is
# the stationary state of one feature, with a small random number added to every weight.

data = linear_teacher_data(TEACHER, n_samples=256, label_noise=1.0, seed=0, whiten=True)
target = kg.Region(0.5, feature=1)  # the second feature, half learned


def collapsed(network: kg.DeepLinearNetwork) -> np.ndarray:
    """One row of weights for each replica."""
    small = 1e-6 * np.random.default_rng(0).normal(size=(N_REPLICAS, network.n_parameters))
    return network.ordered_state([0]).numpy() + small


# %%
# Four optimizers
# ---------------
# Learning rate and weight decay of each. With a large ε Adam no longer rescales the tiny gradients, and only the noise
# is left to help.

SETUPS = {
    "gradient descent": (GradientDescent(), 0.02, 0.02),
    "Adam, decay in the gradient": (Adam(), 0.003, 0.02),
    "AdamW": (AdamW(), 0.003, 0.1),
    "AdamW, ε = 1e-3": (AdamW(eps=1e-3), 0.003, 0.1),
}


def main(out: Path | None = None) -> dict[str, float]:
    """Print and draw who learns the second feature and when; return the counts."""
    figure, axes = plt.subplots(1, len(SETUPS), figsize=(11.0, 2.8), sharex=True, sharey=True, layout="constrained")
    counts: dict[str, float] = {}
    for ax, (name, (optimizer, lr, decay)) in zip(axes, SETUPS.items(), strict=True):
        network = kg.DeepLinearNetwork.from_data(data, (6, 6), weight_decay=decay)
        for batch, label, width in ((None, "full batch", 3.0), (BATCH, f"batches of {BATCH}", 1.2)):
            process = kg.SGD(network, data, lr=lr, batch_size=batch, optimizer=optimizer)
            run = kg.first_passage(
                process, target=target, n_replicas=N_REPLICAS, max_time=N_STEPS * lr, seed=0, start=collapsed(network)
            )
            left = int(run.escaped.sum())
            steps = np.sort(run.exit_time.values[run.escaped.values] / lr)
            counts[f"{name}, {label}"] = left
            print(f"{name:28} {label:13} {left:2} of {N_REPLICAS} learned the second feature within {N_STEPS} steps")
            shares = np.concatenate([[0], np.arange(1, left + 1), [left]]) / N_REPLICAS
            ax.step(np.concatenate([[0], steps, [N_STEPS]]), shares, where="post", lw=width, label=label)
        ax.set_title(name, fontsize="medium")
        ax.set_xlabel("step")
    axes[0].set(ylabel="share that has learned", ylim=(-0.03, 1.03))
    axes[0].legend(frameon=False, fontsize="small", loc="center")
    if out is not None:
        figure.savefig(out, dpi=160)
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
