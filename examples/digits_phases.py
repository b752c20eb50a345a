"""
Phases of the digits
====================

A deep linear autoencoder of scikit-learn's digits learns one principal component after the other, each by a first-order
transition. At every weight decay the network can sit in as many metastable states as there are components it could
learn, plus one.

``python examples/digits_phases.py --out digits.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import kramers_grok as kg

DEPTH = 3

# %%
# The spectrum of real data
# -------------------------
# Centred pixels between 0 and 1. Each eigenvalue q of their covariance is a feature with σ = 1, whose spinodal and
# binodal are proportional to q.

images = kg.autoencoding(kg.digits() / 16).x
features = kg.FeatureSpectrum.autoencoder(images)

# %%
# Which states there are
# ----------------------
# The stable ones are the *ordered* ones: the first r components learned, the others not. From each the network can
# escape to the next, over a barrier that grows with the weight decay.


def states(weight_decay: float) -> list[tuple[int, float, float | None]]:
    """Features learned, energy and barrier to the next feature, for every metastable state."""
    modes = features.modes(DEPTH, weight_decay)
    rows = []
    for phase in features.phases(DEPTH, weight_decay):
        following = modes[len(phase.learned)] if len(phase.learned) < features.rank else None
        trapped = following is not None and weight_decay < following.spinodal()
        rows.append((len(phase.learned), phase.energy, following.barrier().height if trapped else None))
    return rows


def counts() -> xr.Dataset:
    """Number of metastable states just below every feature's spinodal."""
    spinodals = np.sort(features.spinodals(DEPTH))
    decay = np.append(spinodals * (1 - 1e-9), 2 * spinodals[-1])
    number = [features.number_of_states(DEPTH, float(value)) for value in decay]
    return xr.Dataset({"n_states": ("weight_decay", number)}, coords={"weight_decay": decay})


def main(out: Path | None = None) -> dict[str, float]:
    """Print the phases at one weight decay, draw them for all; return what was printed."""
    spinodals = features.spinodals(DEPTH)
    print(f"{features.rank} features; spinodals {spinodals[0]:.4g}, {spinodals[1]:.4g}, {spinodals[2]:.4g}, …")
    decay = 0.5 * float(features.binodals(DEPTH)[0])
    rows = states(decay)
    ground = min(rows, key=lambda row: row[1])
    print(f"at λ = {decay:.4f}: {len(rows)} metastable states, the deepest has learned {ground[0]}")
    for learned, energy, height in rows:
        ahead = "nothing more to learn" if height is None else f"barrier to the next {height:.3e}"
        print(f"  {learned} learned: energy {energy:.5f}, {ahead}")
    figure, ax = plt.subplots(figsize=(6.0, 4.2), layout="constrained")
    kg.plots.phases(xr.merge([features.table(DEPTH), counts()], combine_attrs="drop_conflicts"), ax, max_features=30)
    ax.axvline(decay, color="grey", ls=":", lw=1)
    if out is not None:
        figure.savefig(out, dpi=160)
    return {
        "n_features": features.rank,
        "spinodal": float(spinodals[0]),
        "weight_decay": decay,
        "n_states": len(rows),
        "learned_by_the_deepest": ground[0],
        "barrier": float(rows[0][2] or np.nan),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
