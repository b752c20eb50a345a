"""
Forgetting, and what a diffusion misses
=======================================

Between binodal and spinodal a learned feature is metastable, and the noise of minibatches does not vanish there: SGD
forgets it by noise alone. Its diffusion limit, a stochastic differential equation with SGD's own mean and covariance at
every point, forgets it 1.4 times sooner. Neither is a failure of the simulation: both take their own exact times. Rare
events see every cumulant of the per-sample gradient, and a diffusion has two.

``python examples/forgetting.py --out forgetting.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import kramers_grok as kg
from kramers_grok.analysis import predicted_dataset
from kramers_grok.dynamics.minibatch_sde import Minibatches
from kramers_grok.theory.diffusion_limit import diffusion_limit_departure
from kramers_grok.theory.discrete_chain import discrete_exit, sgd_exit_time
from kramers_grok.theory.exit_times import Interval, ModeDynamics
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise

LR, BATCH, LABEL_NOISE = 0.1, 16, 0.5
N_REPLICAS = 1000

chain = kg.DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.44)
target = kg.beyond(chain.forgetting_barrier())
learned = chain.mode.learned_amplitude()

# %%
# SGD and its diffusion limit
# ---------------------------
# The step of the equation is the learning rate, so that one step of either has the same mean and covariance.

sgd = kg.SGD(chain, kg.teacher(label_noise=LABEL_NOISE), lr=LR, batch_size=BATCH)
diffusion = kg.Langevin(chain, temperature=0.0, dt=LR, minibatch=Minibatches.of(sgd))

# %%
# Exact times
# -----------
# All layers get the same gradient, so a balanced chain stays balanced and both are walks in one coordinate.

noise = MinibatchNoise(LR / BATCH, GaussianResidualVariance(chain.singular_value, 1.0, LABEL_NOISE))
ends = Interval(chain.depth**0.5 * learned, lower=float(chain.mode.coordinate(target.threshold)))
exact = {
    "diffusion limit": discrete_exit(ModeDynamics(chain.mode, 0.0, 0.0, noise).process, ends, step=LR),
    "SGD": sgd_exit_time(chain.mode, lr=LR, batch_size=BATCH, label_noise=LABEL_NOISE, target=target),
}


def main(out: Path | None = None) -> dict[str, float]:
    """Print and draw both; return the distances from the exact times in errors, and the ratios."""
    figure, ax = plt.subplots(figsize=(5.6, 4.0), layout="constrained")
    runs, found = {}, {}
    for seed, (name, process) in enumerate({"diffusion limit": diffusion, "SGD": sgd}.items()):
        theory = exact[name]
        runs[name] = kg.first_passage(
            process, target=target, n_replicas=N_REPLICAS, max_time=8 * theory.mean, seed=seed,
            start=np.full(chain.depth, learned),
        )  # fmt: skip
        mean = kg.mean_exit_time(runs[name])
        found[f"z, {name}"] = (mean.value - theory.mean) / mean.standard_error
        found[f"mean, {name}"] = mean.value
        print(f"{name}: {mean.value:.0f} ± {mean.standard_error:.0f}, exact {theory.mean:.0f}")
        runs[f"{name}, exact"] = predicted_dataset(theory, until=4 * theory.mean)
    law = diffusion_limit_departure(chain.mode, label_noise=LABEL_NOISE, lr_over_batch=LR / BATCH, exact=False)
    found["ratio"] = found["mean, SGD"] / found["mean, diffusion limit"]
    found["exact ratio"] = exact["SGD"].mean / exact["diffusion limit"].mean
    found["quasi-potential"] = law.exponential
    print(
        f"SGD over its diffusion limit: measured {found['ratio']:.2f}, exact {found['exact ratio']:.3f}, from the "
        f"quasi-potential alone {law.exponential:.3f}"
    )
    kg.plots.survival(runs, ax)
    ax.set_xlim(0, 4 * exact["SGD"].mean)
    ax.legend(frameon=False, fontsize="small")
    if out is not None:
        figure.savefig(out, dpi=160)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
