"""
Hysteresis and staircase
========================

A trained network is taken slowly up in weight decay and down again, by full-batch gradient descent. Upwards it loses
one feature after the other, the weakest first, each at its predicted spinodal. Downwards none comes back: without noise
the trap holds at every weight decay. With two layers of weights there is no trap, and no hysteresis.

``python examples/hysteresis.py --out hysteresis.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import kramers_grok as kg
from kramers_grok.escape.protocols import Settling, hysteresis_loop, stable_lr

TEACHER = (1.6, 1.3, 1.0)

# %%
# A sweep that knows when it has arrived
# --------------------------------------
# At every value descent goes on until the gradient is small; a step in which something jumps is halved three times. The
# Hessian certifies the last minimum before each jump. Small random kicks at every value make sure that nothing stays
# where it is only because it is exactly 0.


def loop(depth: int, lowest: float) -> xr.Dataset:
    """Sweep up from the learned state, and down again."""
    n = len(TEACHER)
    network = kg.DeepLinearNetwork((n, *[n] * (depth - 1), n), np.diag(TEACHER), weight_decay=lowest)
    learned = network.ordered_state(range(n))
    descent = kg.SGD(network, kg.population(), lr=1e-3, fused=False)
    descent = descent.replace(lr=stable_lr(descent, learned))
    decays = np.geomspace(lowest, 1.03 * float(network.spectrum.spinodals(depth)[0]), 40)
    settling = Settling(certify_every=1 if depth == 2 else 0, bisections=3, kick=1e-3)
    return hysteresis_loop(descent, decays, start=learned.numpy(), seed=0, settling=settling)


def main(out: Path | None = None) -> dict[str, float]:
    """Print brackets and areas, draw both loops; return what was printed."""
    three, two = loop(3, 0.42), loop(2, 0.9)
    for k in range(len(TEACHER)):
        row = three.isel(feature=k)
        print(
            f"σ = {TEACHER[k]}: lost between λ = {float(row.before):.4f} and {float(row.after):.4f}, "
            f"spinodal {float(row.spinodal):.4f}; m on the way down {float(row.returned):.0e}"
        )
    print(f"D = 3: area {float(three.area.sum()):.4f}, predicted {float(three.predicted_area.sum()):.4f}")
    print(f"D = 2: area {float(two.area.sum()):.4f}, jumps {int(np.isfinite(two.jump).sum())}")
    figure, both = plt.subplots(1, 2, figsize=(11.0, 4.0), layout="constrained")
    for ax, data, depth in zip(both, (three, two), (3, 2), strict=True):
        kg.plots.hysteresis_loop(data, ax)
        ax.set_title(f"D = {depth}")
    if out is not None:
        figure.savefig(out, dpi=160)
    return {
        "area": float(three.area.sum()),
        "predicted_area": float(three.predicted_area.sum()),
        "area_of_two_layers": float(two.area.sum()),
        "n_jumps": int(np.isfinite(three.jump).sum()),
        "worst_bracket": float(np.abs(three.after / three.spinodal - 1).max()),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
