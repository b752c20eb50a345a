"""
The cheapest way out
====================

A rare event takes the path of least action S, and a time e^{S/ε}. Left: Maier and Stein's field, where the way out is
no way back and leaves the axis of symmetry. Right: a feature that SGD forgets. SGD's minibatches are shot noise, whose
action is not that of its diffusion limit: the two times part ways, the more so the smaller ε = lr/batch.

``python examples/minimum_action.py --out action.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import kramers_grok as kg
from kramers_grok.theory.action_cumulants import GaussianCumulants
from kramers_grok.theory.exit_times import minibatch_mode_exit_time
from kramers_grok.theory.large_deviations import forgetting_laws
from kramers_grok.theory.minimum_action import DiffusionHamiltonian, minimum_action_path

# %%
# A field that is no gradient
# ---------------------------
# Noise of strength ε on ẋ = x − x³ − 10xy², ẏ = −(1 + x²)y. The straight path costs ½.


def field(points: np.ndarray) -> np.ndarray:
    """Maier and Stein's drift, shape (point, 2)."""
    x, y = points.T
    return np.stack([x - x**3 - 10 * x * y**2, -(1 + x**2) * y], axis=1)


path = minimum_action_path(DiffusionHamiltonian(field), start=[-1, 0], end=[0, 0])

# %%
# A feature forgotten by minibatch noise
# --------------------------------------
# Between binodal (λ = 0.397) and spinodal (0.472). Exact times: SGD's chain, and the diffusion of the same noise.

BATCH, LABEL_NOISE = 64, 0.5
mode = kg.Mode(depth=3, singular_value=1.0, weight_decay=0.44)
target = kg.Region(0.02, above=False)
laws = forgetting_laws(mode, GaussianCumulants.of(mode, label_noise=LABEL_NOISE))
ratios = 0.1 / np.array([16, 32, 64])
noise = {"label_noise": LABEL_NOISE, "target": target}


def main(out: Path | None = None) -> dict[str, float]:
    """Print and draw both; return the actions, and the exact times over the small-noise laws."""
    print(f"Maier–Stein: S = {path.action:.5f} ± {path.error:.5f}, 0.5 on the straight path")
    print(f"forgetting: S = {laws.sgd.action:.6f} for SGD, {laws.diffusion.action:.6f} in its diffusion limit")
    sgd = np.array([kg.sgd_exit_time(mode, lr=BATCH * e, batch_size=BATCH, **noise).mean for e in ratios])
    limit = np.array([minibatch_mode_exit_time(mode, lr_over_batch=e, **noise).mean for e in ratios])
    over_law = sgd / [laws.sgd.mean(e, BATCH) for e in ratios]
    limit_over_law = limit / [laws.diffusion.mean(e) for e in ratios]
    for e, ratio, *over in zip(ratios, sgd / limit, over_law, limit_over_law, strict=True):
        print(f"ε = 0.1/{0.1 / e:.0f}: SGD takes {ratio:.3f} times its limit's time; over the laws", np.round(over, 4))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.8), layout="constrained")
    x, y = np.meshgrid(np.linspace(-1.2, 1.2, 40), np.linspace(-0.45, 0.45, 30))
    flow = field(np.stack([x.ravel(), y.ravel()], axis=1)).T.reshape(2, *x.shape)
    left.streamplot(x, y, *flow, color="0.8", linewidth=0.7, arrowsize=0.7)
    for sign in (1, -1):
        left.plot(path.path[:, 0], sign * path.path[:, 1], "C3", label=f"S = {path.action:.4f}" if sign > 0 else None)
    left.plot([-1, 0], [0, 0], "C0--", label="straight: S = 0.5")
    left.plot([-1, 1], [0, 0], "ko", ms=5)
    left.plot([0], [0], "kx", ms=7)
    left.set(xlabel="x", ylabel="y", xlim=(-1.2, 1.2), ylim=(-0.45, 0.45))
    left.legend(loc="lower right", framealpha=1, fontsize="small")
    inverse = np.linspace(100, 700, 50)
    for name, law, times, colour in (
        ("SGD", laws.sgd, sgd, "C3"),
        ("diffusion limit", laws.diffusion, limit, "C0"),
    ):
        batch = BATCH if law is laws.sgd else None
        right.semilogy(1 / ratios, times, "o", color=colour, label=f"{name}, exact")
        right.semilogy(inverse, [law.mean(1 / i, batch) for i in inverse], color=colour, label=f"{name}, law")
    right.set(xlabel="1/ε = batch / learning rate", ylabel="mean time to forget [time]")
    right.legend(frameon=False, fontsize="small")
    if out is not None:
        figure.savefig(out, dpi=160)
    numbers = {"maier_stein": path.action, "sgd": laws.sgd.action, "diffusion": laws.diffusion.action}
    for i, e in enumerate(ratios):
        numbers |= {f"sgd_{0.1 / e:.0f}": over_law[i], f"limit_{0.1 / e:.0f}": limit_over_law[i]}
    return {**numbers, "departure": float(sgd[-1] / limit[-1])}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
