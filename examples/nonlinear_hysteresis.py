"""
Hysteresis of a nonlinear network
=================================

A network of tanh units is taken slowly up in weight decay and down again. It loses its features one by one, as a deep
linear network does, but earlier: its units saturate, all features share them, and so the weakest is shifted most. The
self-consistent gain of the units says by how much. Without noise nothing comes back.

``python examples/nonlinear_hysteresis.py --out nonlinear_hysteresis.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr

import kramers_grok as kg
from kramers_grok.escape.protocols import Settling, hysteresis_loop, stable_lr
from kramers_grok.models.data import linear_teacher_data
from kramers_grok.theory.mode_states import spinodal
from kramers_grok.theory.nonlinear_features import gain_spinodals

TEACHER = (1.6, 1.1)

# %%
# From one minimum to the next
# ----------------------------
# Gradient descent is slow along directions that tanh leaves nearly flat, so a quasi-Newton iteration finishes every
# stretch, unless an order parameter leaves its leash: jumps are passed by plain descent. The Hessian certifies the last
# minimum before each.


def loop(hidden: int) -> xr.Dataset:
    """Sweep a network with two hidden layers up from its learned state, and down again."""
    data = linear_teacher_data(TEACHER, n_samples=96, label_noise=0.0, seed=0, whiten=True)
    linear = spinodal(3, TEACHER)
    decays = np.geomspace(0.6 * linear[1], 1.02 * linear[0], 24)
    network = kg.MLP.from_data(data, (hidden, hidden), kg.Tanh(), weight_decay=float(decays[0]))
    # The linear network's learned state, its hidden layers turned at random: features spread over the units.
    first, second = (np.linalg.qr(np.random.default_rng(i).standard_normal((hidden, hidden)))[0] for i in range(2))
    w1, w2, w3 = (w[0].numpy() for w in network.linear.layers(network.linear.ordered_state(range(2))[None]))
    start = np.concatenate([w.ravel() for w in (first @ w1, second @ w2 @ first.T, w3 @ second.T)])
    descent = kg.SGD(network, data, lr=1e-3, fused=False)
    descent = descent.replace(lr=stable_lr(descent, torch.from_numpy(start)))
    settling = Settling(quasi_newton=True, tolerance=1e-4, certify_every=0, bisections=4, kick=1e-3)
    return hysteresis_loop(descent, decays, start=start, seed=0, settling=settling)


def main(out: Path | None = None) -> dict[str, float]:
    """Print where features are lost, draw the loop; return what was printed."""
    found, linear = loop(8), spinodal(3, TEACHER)
    predicted = gain_spinodals(lambda z: 1 - np.tanh(z) ** 2, TEACHER, (8, 8))
    numbers = {"returned": float(found.returned.max())}
    for k in range(len(TEACHER)):
        at = float(found.after[k])
        print(
            f"σ = {TEACHER[k]}: lost at λ = {at:.4f}, {at / linear[k]:.3f} of the linear spinodal, "
            f"{predicted[k] / linear[k]:.3f} predicted; m on the way down {float(found.returned[k]):.0e}"
        )
        numbers |= {f"linear_{k}": at / linear[k], f"gain_{k}": at / predicted[k]}
    figure, ax = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    kg.plots.hysteresis_loop(found, ax)
    for k, (at, ends) in enumerate(zip(predicted, linear, strict=True)):
        ax.axvline(at, color="black", ls=":", lw=1.2, label=None if k else "predicted, with saturation")
        ax.axvline(ends, color="grey", ls="-.", lw=1.0, label=None if k else "spinodal of the linear network")
    ax.legend(fontsize="x-small")
    if out is not None:
        figure.savefig(out, dpi=160)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
