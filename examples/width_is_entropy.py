"""
Width is entropy
================

The same barrier, the same temperature, and a network twice as wide escapes ten times sooner: the saddle is an orbit of
rotations of the hidden layers, and its volume counts. Where the orbit is no longer much larger than the thermal width
the Gaussian saddle of the whole network fails; the radial free energy, energy minus T times the logarithm of the
volume, holds until the trap melts, and simulated times pass that point without noticing.

``python examples/width_is_entropy.py --out width.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import kramers_grok as kg
from kramers_grok.theory.radial import critical_width, radial_rate
from kramers_grok.theory.radial_phases import width_temperature_diagram
from kramers_grok.theory.saddles import MatrixNetwork

RATIO = 8.0  # barrier over temperature, the same for all widths
SIMULATED = {2: 256, 3: 512, 4: 1024, 5: 1024, 6: 1024}  # width: replicas
STEP = 0.1


def theory(width: int) -> MatrixNetwork:
    """Three layers of weights with scalar ends and two hidden layers of one width."""
    return MatrixNetwork((1, width, width, 1), (1.0,), weight_decay=0.25)


barrier = theory(2).barrier()
temperature = barrier.height / RATIO

# %%
# Escape times at one barrier
# ---------------------------
# Langevin dynamics in all h² + 2h weights. Nothing is fitted; a step of 0.1 makes times about one per cent longer.


def simulated(width: int, n_replicas: int) -> tuple[float, float]:
    """Mean escape time and its standard error."""
    network = kg.DeepLinearNetwork((1, width, width, 1), [1.0], weight_decay=0.25)
    langevin = kg.Langevin(network, temperature=temperature, dt=STEP)
    target = kg.beyond(network.mode(0).barrier())
    run = kg.first_passage(langevin, target=target, n_replicas=n_replicas, max_time=3e4, seed=width)
    mean = kg.mean_exit_time(run)
    return mean.value, mean.standard_error


def main(out: Path | None = None) -> dict[str, float]:
    """Print and draw measured and predicted times; return the predictions over the measured times."""
    melting = critical_width(theory(2), temperature)
    numbers: dict[str, float] = {"critical_width": melting}
    trapped = [h for h in (1, *SIMULATED) if h < melting]
    radial = {h: radial_rate(theory(h), temperature, warn=False).mean_time for h in trapped}
    gaussian = {
        h: kg.eyring_kramers_rate(theory(h).barrier(), temperature, warn=False).mean_time for h in (1, *SIMULATED)
    }
    print(f"ΔF/T = {RATIO:g}: the trap melts at a width of {melting:.2f}")
    measured = {}
    for h, n in SIMULATED.items():
        time, error = measured[h] = simulated(h, n)
        numbers |= {f"time_{h}": time, f"error_{h}": error / time, f"gaussian_{h}": gaussian[h] / time}
        text = f"h = {h}: simulated {time:.1f} ± {error:.1f}, Gaussian saddle {gaussian[h]:.1f}"
        if h in radial:
            numbers[f"radial_{h}"] = radial[h] / time
            text += f", radial free energy {radial[h]:.1f}"
        print(text)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    points = np.array([(h, *measured[h]) for h in SIMULATED]).T
    left.errorbar(points[0], points[1], points[2], fmt="o", color="#0072B2", mfc="white", label="Langevin")
    left.plot(list(radial), list(radial.values()), "k-", label="radial free energy")
    left.plot(list(gaussian), list(gaussian.values()), "k--", label="Gaussian saddle (Eyring–Kramers)")
    left.axvline(melting, color="#D55E00", lw=1, label="entropic spinodal")
    left.set(yscale="log", xlabel="hidden width h", ylabel=kg.plots.label("mean_exit_time"))
    left.legend(frameon=False, fontsize="small", loc="lower left")
    heats = barrier.height / np.geomspace(3, 40, 24)
    diagram = width_temperature_diagram(theory(2), widths=range(1, 17), temperatures=heats)
    kg.plots.width_temperature(diagram, right)
    right.axhline(temperature, color="black", lw=0.8, ls=":")
    if out is not None:
        figure.savefig(out, dpi=160)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
