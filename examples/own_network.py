"""
A network of your own
=====================

Any small ``torch.nn.Module`` with any differentiable loss: where it is trapped, the saddle that it leaves over, how
long that takes, and the same network simulated. Nothing is fitted.

``python examples/own_network.py --out own_network.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import kramers_grok as kg

# %%
# What you bring
# --------------
# A module, a loss and data. The module is tried out first: one that is random, or lets the samples of a batch see each
# other, is refused by name.

with torch.random.fork_rng():  # modules draw their first weights from torch's global generator
    net = nn.Sequential(
        nn.Linear(2, 2, bias=False), nn.Tanh(), nn.Linear(2, 2, bias=False), nn.Tanh(), nn.Linear(2, 1, bias=False)
    )
x = np.random.default_rng(0).normal(size=(24, 2))
data = kg.finite(x, np.tanh(2 * x[:, :1] - x[:, 1:]))
model = kg.ModuleModel(net, data=data, weight_decay=0.1, loss=nn.SmoothL1Loss())

# %%
# What you ask
# ------------
# Minima, the barrier between two of them, and the mean escape time. The saddle comes with a certificate: its gradient
# is below 1e-10, it has exactly one negative curvature, and one descent ends in each minimum. Escape is watched in
# function space, where permuted units make no difference.


def main(out: Path | None = None) -> dict[str, float]:
    """Find, predict, simulate; print all of it and draw the barrier and the survival of the trapped networks."""
    learned, trap = kg.find_minima(model, n_starts=12, seed=0)[:2]  # the lowest first
    barrier = kg.find_barrier(model, trap, learned)
    temperature = barrier.height / 6
    predicted = kg.capacity_rate(barrier, temperature, seed=0)
    harmonic = kg.eyring_kramers_rate(barrier, temperature, warn=False)
    run = kg.first_passage(
        kg.Langevin(barrier.model, temperature=temperature, dt=0.8),
        target=kg.beyond(barrier), start=barrier.minimum, n_replicas=256, max_time=3 * predicted.mean_time, seed=0,
    )  # fmt: skip
    measured = kg.mean_exit_time(run)
    saddle = barrier.saddle_spectrum
    print(f"trapped at {trap.energy:.5f}, learned at {learned.energy:.5f}, barrier {barrier.height:.3e}")
    print(f"the saddle's curvatures: {saddle[0]:.3g} and {saddle[1]:.2g}, {saddle[2]:.2g}, {saddle[3]:.2g}, …")
    print(f"predicted {predicted.mean_time:.0f} ± {predicted.mean_time * predicted.relative_error:.0f}, "
          f"simulated {measured.value:.0f} ± {measured.standard_error:.0f}")  # fmt: skip
    print(
        f"the harmonic formula says {harmonic.mean_time:.2g}, and why not to believe it:", *harmonic.flags, sep="\n  "
    )
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.8), layout="constrained")
    above = barrier.path.energies - trap.energy
    near = above > -barrier.height
    left.plot(barrier.path.arc_length[near], above[near])
    left.set(xlabel="arc length from the trap [weight]", ylabel="energy above the trap [loss]")
    exponential = run.assign(predicted_mean=predicted.mean_time)
    kg.plots.survival({"simulated": exponential}, right)
    if out is not None:
        figure.savefig(out, dpi=150)
    difference = measured.value - predicted.mean_time
    return {
        "predicted": predicted.mean_time,
        "simulated": measured.value,
        "harmonic": harmonic.mean_time,
        "negative curvatures": int((saddle < 0).sum()),
        "gradient": barrier.saddle_point.gradient_norm,
        "z": difference / np.hypot(measured.standard_error, predicted.mean_time * predicted.relative_error),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
