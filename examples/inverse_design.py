"""
Learning rate and batch size for a wanted delay
===============================================

Turned round: not how long a network stays trapped, but which learning rate lets it learn after a wanted number of
steps, for a batch size that the machine's memory has chosen. Theory answers without a trial run; SGD checks it.

``python examples/inverse_design.py --out inverse_design.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import brentq

import kramers_grok as kg
from kramers_grok.plots.style import look
from kramers_grok.theory.control import two_state_rates
from kramers_grok.theory.gradient_noise import GaussianResidualVariance

NOISE_VARIANCE, LABEL_NOISE = 4.0, 0.1  # of every sample's gradient, and of the labels
WANTED, BATCHES = (1000, 3000, 10_000), (64, 128)
N_REPLICAS = 512

chain = kg.DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
barrier = chain.mode.barrier()

# %%
# From a delay to a learning rate
# -------------------------------
# The mean number of steps is 1/ηk(T), T = ηg²/2B. It falls with η because steps are longer and because the walk is
# hotter; the second is Arrhenius' law, so a delay pins η down sharply. The rates hold the minibatches' own noise and,
# to first order, the step.

rates = two_state_rates(
    chain,
    noise_variance=NOISE_VARIANCE,
    temperatures=(barrier.height / 9, barrier.height / 1.6),
    step=0.1,
    residual_variance=GaussianResidualVariance(chain.singular_value, chain.input_variance, LABEL_NOISE),
)


def mean_steps(lr: float, batch_size: int) -> float:
    """Predicted mean number of steps to learn."""
    temperature = lr * NOISE_VARIANCE / (2 * batch_size)
    forward, _ = rates(temperature, chain.weight_decay, lr)
    return 1 / (lr * float(forward))


def design(steps: int, batch_size: int) -> float:
    """Learning rate with that mean delay."""
    to_lr = 2 * batch_size / NOISE_VARIANCE
    low, high = (temperature * to_lr for temperature in rates.forward.temperatures)
    return float(brentq(lambda lr: np.log(mean_steps(lr, batch_size) / steps), 1.001 * low, 0.999 * high))


def main(out: Path | None = None) -> dict[str, float]:
    """Print and draw designed settings and measured delays; return their distances in standard errors."""
    numbers: dict[str, float] = {}
    figure, ax = plt.subplots(figsize=(5.8, 4.4), layout="constrained")
    for number, batch in enumerate(BATCHES):
        own, measured = look(number), []
        for seed, steps in enumerate(WANTED):
            lr = design(steps, batch)
            data, noise = kg.teacher(label_noise=LABEL_NOISE), kg.per_sample(variance=NOISE_VARIANCE)
            sgd = kg.SGD(chain, data, lr=lr, batch_size=batch, noise=noise, device="cpu")
            horizon = 10 * lr * steps
            run = kg.first_passage(sgd, target=rates.target, n_replicas=N_REPLICAS, max_time=horizon, seed=seed)
            mean = kg.mean_exit_time(run)
            found, error = mean.value / lr, mean.standard_error / lr
            numbers |= {f"lr_{batch}_{steps}": lr, f"z_{batch}_{steps}": (found - steps) / error}
            print(f"B = {batch}, wanted {steps} steps: lr = {lr:.4f}, measured {found:.0f} ± {error:.0f}")
            measured.append((lr, found, 2 * error))
        curve = np.geomspace(measured[-1][0] * 0.95, measured[0][0] * 1.05, 40)
        ax.loglog(curve, [mean_steps(lr, batch) for lr in curve], label=f"predicted, B = {batch}", **own.line())
        ax.errorbar(*np.transpose(measured), capsize=3, label=f"SGD, B = {batch}", **own.points())
    for steps in WANTED:
        ax.axhline(steps, color="grey", lw=0.8, ls=":")
    ax.set(xlabel="learning rate [time/step]", ylabel="mean number of steps until learned")
    ax.legend()
    if out is not None:
        figure.savefig(out, dpi=160)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
