"""
Minibatch noise is gated
========================

Two networks in the same trap at the same learning rate and batch size. One has only the noise of its minibatches, a
product of the other layers' weights that vanishes where nothing is learned: it never leaves. The other has noise on
every sample's gradient as well, and escapes as Kramers says.

``python examples/minibatch_is_gated.py --out gated.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import kramers_grok as kg
from kramers_grok.analysis import predicted_dataset
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise

LR, BATCH = 0.1, 16
LABEL_NOISE = 0.5
N_REPLICAS = 1024

chain = kg.DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
barrier = chain.barrier()
target = kg.beyond(barrier)
start = np.full(chain.depth, 0.1)  # the weight of every layer; the barrier's top is at 0.25
temperature = barrier.height / 3

# %%
# Two kinds of noise
# ------------------
# The prediction for the second network includes the minibatches' noise, which matters on top of the barrier.

data = kg.teacher(label_noise=LABEL_NOISE)
minibatches_only = kg.SGD(chain, data, lr=LR, batch_size=BATCH)
with_per_sample = kg.SGD(chain, data, lr=LR, batch_size=BATCH, noise=kg.per_sample(temperature=temperature))
minibatch = MinibatchNoise(LR / BATCH, GaussianResidualVariance(chain.singular_value, 1.0, LABEL_NOISE))
theory = kg.exit_time(
    chain, temperature=temperature, target=target, start=start, step=LR, monitored=True, minibatch=minibatch
)

# %%
# What becomes of them
# --------------------
# In the trap each step of the first network multiplies its weights by 1 − ηλ, and by nothing else.


def sizes(process: kg.SGD, times: np.ndarray) -> np.ndarray:
    """Median over replicas of the root-mean-square weight at each time."""
    state, medians = process.start(N_REPLICAS, seed=1, point=start), []
    for time in times:
        state, _ = process.advance(state, round(time / LR) - state.step)
        medians.append(float(state.theta.square().mean(dim=1).sqrt().median()))
    return np.array(medians)


def main(out: Path | None = None) -> dict[str, float]:
    """Print and draw what becomes of both; return counts, rates and the distance from theory in errors."""
    horizon = 8 * theory.mean
    processes = {"minibatches only": minibatches_only, "with per-sample noise": with_per_sample}
    runs = {
        name: kg.first_passage(p, target=target, start=start, n_replicas=N_REPLICAS, max_time=horizon, seed=seed)
        for seed, (name, p) in enumerate(processes.items())
    }
    for name, run in runs.items():
        print(f"{name}: {int(run.escaped.sum())} of {N_REPLICAS} escaped by t = {horizon:.0f}")
    mean = kg.mean_exit_time(runs["with per-sample noise"])
    z = (mean.value - theory.mean) / mean.standard_error
    times = np.linspace(0, 100, 21)
    gated, thermal = sizes(minibatches_only, times), sizes(with_per_sample, times)
    decay = float(np.polyfit(times[10:], np.log(gated[10:]), 1)[0])
    expected = float(np.log1p(-LR * chain.weight_decay) / LR)
    print(f"minibatches only: the weights decay at rate {decay:.6f}; ln(1 − ηλ)/η = {expected:.6f}")
    print(f"with per-sample noise: {mean.value:.0f} ± {mean.standard_error:.0f}, predicted {theory.mean:.0f}: {z:+.2f}")
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.8), layout="constrained")
    left.semilogy(times, gated, "o-", ms=3, label="minibatches only")
    left.semilogy(times, thermal, "o-", ms=3, label="with per-sample noise")
    left.set(xlabel="time η · step [time]", ylabel="median weight (r.m.s. over layers)")
    left.legend(frameon=False, fontsize="small")
    kg.plots.survival({**runs, "theory": predicted_dataset(theory, until=horizon)}, right)
    right.legend(frameon=False, fontsize="small", loc="upper right", bbox_to_anchor=(1, 0.95))
    if out is not None:
        figure.savefig(out, dpi=160)
    escaped = {f"escaped, {name}": float(run.escaped.sum()) for name, run in runs.items()}
    return {**escaped, "decay": decay, "expected_decay": expected, "z": z}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
