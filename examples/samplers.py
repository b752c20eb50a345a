"""
The sampler is part of the noise
================================

Three ways to cut batches from the same samples, at one learning rate and batch size, make three temperatures around the
same minimum. Shuffled epochs, PyTorch's default, are the coldest: what an epoch pushes it takes back by its end.

``python examples/samplers.py --out samplers.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import kramers_grok as kg
from kramers_grok.core.samplers import ShuffledEpochs, WithoutReplacement, WithReplacement
from kramers_grok.dynamics.stationary import hessian_modes, stationary_temperature
from kramers_grok.theory.samplers import epoch_factors, sampler_factor

N, BATCH, REPLICAS, RATES = 64, 8, 600, (0.01, 0.04)
rng = np.random.default_rng(0)
x = rng.normal(size=N)
data = kg.finite(x, x + 0.15 * rng.normal(size=N))
chain = kg.DeepLinearChain.from_data(x, data.y[:, 0], depth=3, weight_decay=0.1)

# %%
# Around the learned state
# ------------------------
# It is balanced, three equal weights; noise acts along the direction in which all of them grow.

minimum = np.full(3, chain.mode.learned_amplitude())
process = kg.SGD(chain, data, lr=0.02, batch_size=BATCH)
curvature, direction = (values[-1] for values in hessian_modes(process, minimum))
samplers = {"with replacement": WithReplacement(), "without": WithoutReplacement(), "shuffled epochs": ShuffledEpochs()}


# %%
# Within an epoch
# ---------------
# Shuffled epochs, followed step by step.


def variances(shuffled: kg.SGD) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the replicas after each step of an epoch, and its standard error."""
    state, _ = shuffled.advance(shuffled.start(4 * REPLICAS, seed=3, point=minimum), 60 * shuffled.period)
    squares = []
    for _ in range(shuffled.period):
        state, _ = shuffled.advance(state, 1)
        along = (state.theta.numpy() - minimum) @ direction
        squares.append((along - along.mean()) ** 2)
    return np.mean(squares, axis=1), np.std(squares, axis=1) / np.sqrt(4 * REPLICAS)


def main(out: Path | None = None) -> dict[str, float]:
    """Print and draw temperatures; return measured over predicted ones, and the errors of those ratios."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.8), layout="constrained")
    numbers: dict[str, float] = {}
    case, taus = {"n_samples": N, "batch_size": BATCH, "curvature": curvature}, np.geomspace(0.06, 3, 60)
    for name, sampler in samplers.items():
        curve = [sampler_factor(sampler, **case, lr=t * BATCH / N / curvature) for t in taus]
        (line,) = left.plot(taus, curve, label=name)
        for seed, lr in enumerate(RATES):
            own = process.replace(lr=lr, sampler=sampler)
            run = stationary_temperature(
                own, minimum, direction, n_steps=int(4 / lr), n_replicas=REPLICAS, seed=seed, confidence=0.6827
            ).isel(seen=0, direction=0)
            ratio, factor = float(run.stationary_temperature_ratio), float(run.sampler_factor)
            error = float(run.stationary_temperature_upper / run.stationary_temperature - 1) * ratio
            tau = lr * curvature * N / BATCH
            left.errorbar(tau, ratio * factor, 2 * error * factor, fmt="o", color=line.get_color())
            numbers |= {f"ratio, {name}, {lr:g}": ratio, f"error, {name}, {lr:g}": error}
            print(f"{name}, lr = {lr:g}: measured / predicted = {ratio:.3f} ± {error:.3f}, factor {factor:.3f}")
            if sampler == ShuffledEpochs():
                reference = float(run.predicted_stationary_temperature) / factor / curvature
                measured, spread = (v / reference for v in variances(own))
                expected = epoch_factors(N, BATCH, lr=lr, curvature=curvature)
                steps = range(1, len(expected) + 1)
                (arch,) = right.plot(steps, expected, label=f"λτ = {tau:.2g}")
                right.errorbar(steps, measured, 2 * spread, fmt="o", ms=4, color=arch.get_color())
                numbers[f"epoch, {lr:g}"] = float(np.abs(measured / expected - 1).max())
    left.plot(taus, taus / 3, ":", color="0.5", label="λτ/3")
    left.set(xlabel="λτ, an epoch's time in relaxation times", ylabel="T over T with replacement")
    left.set(xscale="log", yscale="log", ylim=(0.01, 1.5))
    right.set(xlabel="step of the shuffled epoch", ylabel="variance over that with replacement", ylim=(0, None))
    left.legend(frameon=False, fontsize="small")
    right.legend(frameon=False, fontsize="small")
    if out is not None:
        figure.savefig(out, dpi=160)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
