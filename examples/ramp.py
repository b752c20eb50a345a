"""
The width of a hysteresis loop
==============================

Weight decay is moved down until the network learns, and up until it forgets. Without noise it forgets at the spinodal
and never learns again; with noise every replica leaves at a weight decay of its own. Its distribution is predicted from
the exact escape rates, with nothing fitted, and so is the width of the loop.

``python examples/ramp.py --out ramp.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import kramers_grok as kg
from kramers_grok.analysis.loop_width import hysteresis_width
from kramers_grok.escape.protocols import ramp as run_ramp
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.ramps import Ramp, adiabatic_ramp, driven_ramp, ramp_rates

LR, BATCH, TEMPERATURE, RATE = 0.1, 64, 0.003, 3e-4
mode = kg.Mode(depth=3, singular_value=1.0, weight_decay=0.25)  # a ramp replaces the weight decay
ramps = {"learned, on the way down": Ramp(0.40, 0.03, RATE), "forgotten, on the way up": Ramp(0.37, 0.56, RATE)}

# %%
# SGD with minibatches, and noise on every sample's gradient
# ----------------------------------------------------------
# The per-sample variance makes the temperature, T = lr · variance / (2 · batch); the minibatches add their own noise.

VARIANCE = 2 * TEMPERATURE * BATCH / LR
process = kg.SGD(
    mode, kg.teacher(label_noise=0.1), lr=LR, batch_size=BATCH, noise=kg.per_sample(variance=VARIANCE), device="cpu"
)
conditions = {
    "temperature": TEMPERATURE,
    "step": LR,
    "monitored": True,
    "noise_variance": VARIANCE,
    "residual_variance": GaussianResidualVariance(1.0, label_noise=0.1),
}


# %%
# Predicted and measured
# ----------------------
# *Adiabatic*: the rate is that of the weight decay of the moment. *Driven*: the Fokker-Planck equation with moving
# weight decay, which also knows that the well needs time to follow.


def main(out: Path | None = None) -> dict[str, float]:
    """Ramp both ways; return deviations in standard errors, and the loop's width, measured and predicted."""
    numbers: dict[str, float] = {}
    runs, laws = {}, {}
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for ax, (name, ramp) in zip(axes, ramps.items(), strict=True):
        runs[name] = run_ramp(process, ramp, n_replicas=600, seed=3)
        laws[name] = driven_ramp(mode, ramp, **conditions)
        slow = adiabatic_ramp(mode, ramp, temperature=TEMPERATURE, rates=ramp_rates(mode, ramp, **conditions))
        at = runs[name].weight_decay_at_exit.values
        grid = np.linspace(at.min() - 0.02, at.max() + 0.02, 300)
        ax.hist(at, bins=30, density=True, alpha=0.3, color="C1", label="SGD")
        ax.plot(grid, laws[name].density_at(grid), "C0", label="driven")
        ax.plot(grid, slow.density_at(grid), "C0--", lw=1, label="adiabatic")
        ax.set(title=name, xlabel="weight decay λ at the escape [loss/weight²]")
        error = at.std(ddof=1) / at.size**0.5
        numbers[f"deviation {name}"] = float((at.mean() - laws[name].mean_weight_decay) / error)
        print(f"{name}: λ = {at.mean():.4f} ± {error:.4f}, predicted {laws[name].mean_weight_decay:.4f}")
    axes[1].axvline(mode.spinodal(), color="black", lw=0.8, label="spinodal")
    for ax in axes:
        ax.legend(frameon=False, fontsize="small")
    axes[0].set_ylabel("probability density [weight²/loss]")
    down, up = ramps
    width = hysteresis_width(runs[up], runs[down])
    predicted = laws[up].mean_weight_decay - laws[down].mean_weight_decay
    numbers |= {"width": width.value, "predicted width": predicted}
    print(f"width of the loop: {width.value:.4f} ({width.lower:.4f} to {width.upper:.4f}), predicted {predicted:.4f}")
    if out is not None:
        figure.savefig(out, dpi=150)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=None)
    numbers = main(parser.parse_args().out)
