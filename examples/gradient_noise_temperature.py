"""
Temperature of the gradient noise
=================================

SGD's noise has another temperature in every direction. Along a feature that is not learned it is gated: it falls with
the fourth power of the feature's amplitude, down to the floor that noise on every sample's gradient makes. It is
η c/(2B), times (N − B)/(N − 1) for batches drawn without replacement: measured from batches, and predicted without.

``python examples/gradient_noise_temperature.py --out temperature.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import kramers_grok as kg
from kramers_grok.dynamics.noise_temperature import gradient_noise_temperature
from kramers_grok.dynamics.sampling import WithoutReplacement, WithReplacement
from kramers_grok.models.data import linear_teacher_data
from kramers_grok.models.deep_linear import DeepLinearNetwork

LR, N_BATCHES = 0.1, 1000
network = DeepLinearNetwork((4, 4, 4, 4), [2.0, 1.0], weight_decay=0.05)

# %%
# A trap, and a way out of it
# ---------------------------
# Feature 0 is learned. Feature 1 stands at amplitude a in all three layers; the direction is the one in which a grows.

trap = network.ordered_state([0]).numpy()
way_out = network.ordered_state([0, 1]).numpy() - trap
way_out /= np.linalg.norm(way_out)


def with_amplitude(a: float) -> np.ndarray:
    """Weights of the trap with amplitude a of feature 1."""
    return trap + np.sqrt(3) * a * way_out


# %%
# Three processes
# ---------------
# Minibatches of an endless stream; the same with noise on every sample's gradient; minibatches of 60 samples.

data = linear_teacher_data([2.0, 1.0, 0.0, 0.0], n_samples=60, label_noise=0.3, seed=0)
from_data = DeepLinearNetwork.from_data(data, (4, 4), weight_decay=0.05)
online = kg.SGD(network, kg.teacher(label_noise=0.3), lr=LR, batch_size=8)
with_floor = online.replace(noise=kg.per_sample(variance=1e-3))
finite = kg.SGD(from_data, data, lr=LR, batch_size=8)


def main(out: Path | None = None) -> dict[str, float]:
    """Print and draw temperatures; return measured over predicted ones, and how fast the gate closes."""
    numbers: dict[str, float] = {}
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.8), layout="constrained")

    def draw(ax: plt.Axes, name: str, xs: np.ndarray, processes: list[kg.SGD], points: list[np.ndarray]) -> np.ndarray:
        runs = [
            gradient_noise_temperature(p, point, way_out, n_batches=N_BATCHES, seed=seed).isel(direction=0)
            for seed, (p, point) in enumerate(zip(processes, points, strict=True))
        ]
        names = "noise_temperature", "noise_temperature_lower", "noise_temperature_upper", "predicted_noise_temperature"
        t, low, high, theory = (np.array([float(run[name]) for run in runs]) for name in names)
        (line,) = ax.plot(xs, theory, label=name)
        ax.errorbar(xs, t, [t - low, high - t], fmt="o", ms=3, color=line.get_color())
        for x, ratio in zip(xs, t / theory, strict=True):
            numbers[f"ratio, {name}, {x:g}"] = float(ratio)
            print(f"{name}, {x:g}: measured / predicted = {ratio:.3f}")
        return theory

    amplitudes = np.geomspace(0.02, 0.9, 8)
    points = [with_amplitude(a) for a in amplitudes]
    theory = draw(left, "minibatches of 8", amplitudes, [online] * 8, points)
    numbers["gate"] = float(np.log(theory[1] / theory[0]) / np.log(amplitudes[1] / amplitudes[0]))
    floor = draw(left, "and noise on each sample", amplitudes, [with_floor] * 8, points)
    numbers["floor"] = float(floor[0] / with_floor.temperature)
    left.set(xlabel="amplitude of the unlearned feature", ylabel="temperature T [loss]", xscale="log", yscale="log")
    sizes = np.array([2, 4, 8, 15, 30, 55])
    for sampler in (WithReplacement(), WithoutReplacement()):
        processes = [finite.replace(batch_size=int(b), sampler=sampler) for b in sizes]
        draw(right, type(sampler).__name__, sizes, processes, [with_amplitude(0.7)] * 6)
    right.set(xlabel="batch size B, of 60 samples", ylabel="temperature T [loss]", xscale="log", yscale="log")
    right.set_xticks(sizes, [str(b) for b in sizes])
    right.minorticks_off()
    for ax in (left, right):
        ax.legend(frameon=False, fontsize="small")
    if out is not None:
        figure.savefig(out, dpi=160)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
