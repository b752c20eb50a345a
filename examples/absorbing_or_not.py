"""
Absorbing, or not?
==================

A network has learned its strongest feature; everything else is tiny. Minibatches are the only noise: small ones let the
network leave, larger ones never. Which of the two is decided by the growth rates of the unused directions beside the
fluctuating background, one for each hidden layer. With the background held at rest the rates come out wrong.

``python examples/absorbing_or_not.py --out absorbing.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import kramers_grok as kg
from kramers_grok.dynamics.growth import growth_rate
from kramers_grok.theory.transverse_growth import frozen_growth_rate

D, LR, DECAY = 48, 0.034, 0.04
BATCHES = (2, 8)
AMPLITUDE, N_REPLICAS, TIMES = 1e-5, 6, np.linspace(0.0, 28.0, 11)

network = kg.DeepLinearNetwork((D, 2, 2, D), [2.0, 1.0, *[0.0] * (D - 2)], weight_decay=DECAY)
resting = network.mode(0).learned_amplitude()

# %%
# Whole networks
# --------------
# How far a network is from rank one: the second singular value of its first layer. (A small weight that only turns the
# used unit neither grows nor decays, and does not count.)


def amplitudes(process: kg.SGD) -> np.ndarray:
    """Median second singular value of W_1 at each time, from the state of one feature and random weights beside it."""
    small = AMPLITUDE * np.random.default_rng(0).normal(size=(N_REPLICAS, network.n_parameters))
    state = process.start(N_REPLICAS, seed=1, point=network.ordered_state([0]).numpy() + small)
    medians = []
    for time in TIMES:
        state, _ = process.advance(state, round(time / LR) - state.step)
        medians.append(torch.linalg.svdvals(network.layers(state.theta)[0])[:, 1].median().item())
    return np.array(medians)


# %%
# Growth rates
# ------------
# `growth_rate` follows a network of one unit with the linear equations of the unused ones; it knows nothing of the
# widths. The background needs some hundred steps to become as unbalanced as noise makes it.


def main(out: Path | None = None) -> dict[str, float]:
    """Print and draw growth rates beside whole networks; return them."""
    figure, axes = plt.subplots(1, len(BATCHES), figsize=(9.0, 3.6), sharey=True, layout="constrained")
    numbers: dict[str, float] = {}
    for ax, batch in zip(axes, BATCHES, strict=True):
        process = kg.SGD(network, kg.teacher(label_noise=1.0), lr=LR, batch_size=batch)
        found = growth_rate(process, n_steps=900, burn_in=900, n_replicas=16, seed=0)
        rate, error = float(found.growth_rate[0]), float(found.growth_rate_error[0])
        frozen = frozen_growth_rate(LR / batch * resting**2, D, DECAY)
        whole = amplitudes(process)
        late = slice(len(TIMES) // 2, None)
        slope = float(np.polyfit(TIMES[late], np.log(whole[late]), 1)[0])
        norms = ", ".join(f"{norm:.2f}" for norm in found.layer_norm.values)
        print(
            f"batches of {batch}: {found.verdict.item()}; both layers {found.growth_rate.values.round(3)} ± {error:.3f}"
        )
        print(f"  first layer of whole networks {slope:+.3f}; beside a background at rest {frozen:+.3f}")
        print(f"  norms of the layers {norms} instead of {resting:.2f} each")
        numbers |= {f"rate_{batch}": rate, f"error_{batch}": error, f"frozen_{batch}": frozen, f"slope_{batch}": slope}
        ax.semilogy(TIMES, whole, "o", label="whole networks")
        for value, style, label in ((rate, "-", "fluctuating background"), (frozen, ":", "background at rest")):
            ax.semilogy(TIMES, whole[3] * np.exp(value * (TIMES - TIMES[3])), style, label=label)
        ax.set(xlabel="time η · step [time]", title=f"batches of {batch}: {found.verdict.item()}", ylim=(1e-6, 1e-2))
    axes[0].set(ylabel="second singular value of $W_1$")
    axes[1].legend(frameon=False, fontsize="small", loc="upper left")
    if out is not None:
        figure.savefig(out, dpi=160)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
