"""
First-order transition of one feature
=====================================

The free energy of one mode at four weight decays, and where its states exist: learned below the spinodal, the deeper
one below the binodal, and the unlearned one at every weight decay. With two layers the same transition is continuous.

``python examples/phase_diagram.py --out phase_diagram.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import kramers_grok as kg
from kramers_grok.plots.style import look
from kramers_grok.theory.mode_tables import free_energy_table

DEPTH, SIGMA = 3, 1.0
DEPTHS = (2, 3, 4, 6)

mode = kg.Mode(depth=DEPTH, singular_value=SIGMA, weight_decay=0.25)

# %%
# Free energies
# -------------
# Below the binodal the learned state is deeper, and a barrier keeps the network from it; at the binodal both are as
# deep; up to the spinodal the learned state can only be lost; above there is nothing to learn.

DECAYS = (0.6 * mode.binodal(), mode.binodal(), 0.5 * (mode.binodal() + mode.spinodal()), 1.1 * mode.spinodal())

# %%
# The diagram
# -----------
# Both borders are proportional to :math:`\sigma^{2-2/D}`: strong features stay learnable at a weight decay where weak
# ones are not. The order parameter says how first order the transition is: it jumps at the spinodal.

teacher = kg.FeatureSpectrum.from_teacher(np.linspace(0.02, 2.0, 60))


def order_parameter(depth: int, decays: np.ndarray) -> np.ndarray:
    """Learned m at each weight decay, NaN where there is no learned state."""
    found = np.full(decays.shape, np.nan)
    onset = kg.Mode(depth=depth, singular_value=SIGMA, weight_decay=1.0).spinodal()
    for place in np.flatnonzero(decays < onset):
        found[place] = kg.Mode(depth, SIGMA, float(decays[place])).learned_amplitude() ** depth
    return found


def main(out: Path | None = None) -> dict[str, float]:
    """Print the borders and the jumps, draw all three; return what was printed."""
    numbers = {"spinodal": mode.spinodal(), "binodal": mode.binodal()}
    table = free_energy_table(mode, DECAYS)
    energies = table.stationary_energy - table.stationary_energy.sel(state="unlearned")
    numbers["barrier at the binodal"] = float(energies.sel(state="saddle")[1])
    numbers["depth at the binodal"] = float(energies.sel(state="learned")[1])
    print(f"D = {DEPTH}: spinodal {mode.spinodal():.6f}, binodal {mode.binodal():.6f}")
    figure, (first, middle, last) = plt.subplots(1, 3, figsize=(13, 4.0), layout="constrained")
    kg.plots.landscape(table, first)
    kg.plots.phase_diagram(teacher.table(DEPTH), middle)
    for number, depth in enumerate(DEPTHS):
        border = kg.Mode(depth=depth, singular_value=SIGMA, weight_decay=1.0).spinodal()
        decays = border * np.append(np.linspace(1e-3, 0.99, 120), 1 - np.geomspace(1e-2, 1e-12, 40))
        m = order_parameter(depth, decays)
        last.plot(decays, m, label=f"D = {depth}", **look(number).line())
        last.plot([border, border], [m[-1], 0], ls=":", lw=1, color=look(number).colour)
        numbers[f"jump_{depth}"] = float(m[-1])
        print(f"D = {depth}: at λ = {border:.6f} the order parameter falls from {m[-1]:.6f} to 0")
    last.set(xlabel="weight decay λ [loss/weight²]", ylabel="order parameter m, learned state", ylim=(0, None))
    last.legend(frameon=False)
    if out is not None:
        figure.savefig(out, dpi=160)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
