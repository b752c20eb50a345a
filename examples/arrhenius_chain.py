"""
Arrhenius law of a trapped chain
================================

How long does a three-layer chain stay in the state that has learned nothing? From the barrier in closed form to three
escape times that no parameter was fitted to: the exact solution, Langevin dynamics, and SGD with true minibatches.

``python examples/arrhenius_chain.py --out arrhenius.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import kramers_grok as kg
from kramers_grok.analysis import exit_time_table
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise

RATIOS = (2.5, 3.5, 4.5)  # barrier over temperature
STEP = 0.1  # of Langevin dynamics, and the learning rate of SGD
LABEL_NOISE = 0.1
N_REPLICAS = 512

chain = kg.DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
barrier = chain.mode.barrier()
target = kg.beyond(barrier)  # half-way from the top to the learned state: who is there does not come back

# %%
# Three routes to the same number
# -------------------------------
# Every sample's gradient carries Gaussian noise of the same variance g² at all temperatures, so T = η g² / 2B is set by
# the batch size alone. Theory solves a Fokker-Planck equation in the three weights; for a run it includes, to first
# order, the run's step, for SGD also that it is seen at its steps only and what the minibatches add.

NOISE_VARIANCE = 16 * barrier.height / STEP


def runs(ratio: float) -> dict[str, tuple[kg.Langevin | kg.SGD, float]]:
    """Processes and predicted mean times at one temperature."""
    batch = round(8 * ratio)
    data, noise = kg.teacher(label_noise=LABEL_NOISE), kg.per_sample(variance=NOISE_VARIANCE)
    langevin = kg.Langevin(chain, temperature=barrier.height / ratio, dt=STEP)
    sgd = kg.SGD(chain, data, lr=STEP, batch_size=batch, noise=noise)
    residual = GaussianResidualVariance(chain.singular_value, chain.input_variance, LABEL_NOISE)
    minibatch = MinibatchNoise(STEP / batch, residual)
    for_langevin = kg.exit_time(chain, temperature=langevin.temperature, target=target, step=STEP)
    for_sgd = kg.exit_time(
        chain, temperature=sgd.temperature, target=target, step=STEP, monitored=True, minibatch=minibatch
    )
    return {"langevin": (langevin, for_langevin.mean), "sgd": (sgd, for_sgd.mean)}


def main(out: Path | None = None) -> dict[str, float]:
    """Print and draw measured and predicted times; return each measured time's distance from theory in errors."""
    numbers: dict[str, float] = {"barrier": barrier.height}
    temperatures = barrier.height / np.array(RATIOS)
    exact = [kg.exit_time(chain, temperature=float(T), target=target).mean for T in temperatures]
    measured: dict[str, list[xr.Dataset]] = {"langevin": [], "sgd": []}
    for ratio, time in zip(RATIOS, exact, strict=True):
        print(f"ΔF/T = {ratio:g}: exact, continuous time {time:.1f}")
        for seed, (name, (process, predicted)) in enumerate(runs(ratio).items()):
            run = kg.first_passage(process, target=target, n_replicas=N_REPLICAS, max_time=10 * time, seed=seed)
            mean = kg.mean_exit_time(run)
            z = numbers[f"{name}_{ratio:g}"] = (mean.value - predicted) / mean.standard_error
            print(f"  {name}: {mean.value:.1f} ± {mean.standard_error:.1f}, predicted {predicted:.1f}: {z:+.2f} errors")
            measured[name].append(run)
    theory = xr.Dataset({"mean_exit_time": ("run", exact)}, coords={"temperature": ("run", temperatures)})
    curves = {"exact": theory, **{name: exit_time_table(found) for name, found in measured.items()}}
    figure, ax = plt.subplots(figsize=(5.6, 4.4), layout="constrained")
    kg.plots.arrhenius(curves, ax, gradient_noise_variance=NOISE_VARIANCE)
    if out is not None:
        figure.savefig(out, dpi=160)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
