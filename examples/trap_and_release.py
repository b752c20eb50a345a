"""
Trap and release
================

A network that has learned is taken above its spinodal, where it forgets, and brought back to a weight decay at which
the learned state is the better one. It stays trapped, for a time that η/B alone decides, or for ever without noise.

``python examples/trap_and_release.py --out trap.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import xarray as xr

import kramers_grok as kg
from kramers_grok.escape.protocols import trap_and_release, without_noise
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise

LR, LABEL_NOISE = 0.1, 0.1
BATCHES = (16, 32, 48)
LOW, HIGH = 0.25, 0.6
N_REPLICAS = 512

chain = kg.DeepLinearChain(depth=3, singular_value=1.0, weight_decay=LOW)
barrier = chain.barrier()
target = kg.beyond(barrier)
learned = chain.forgetting_barrier().minimum
noise = kg.per_sample(variance=2 * 8 * barrier.height / LR)  # ΔF/T = B/8

# %%
# The protocol
# ------------
# The trap is verified before the release: nothing learned is left, and the weights no longer move. How far they are
# from zero is recorded, because an escape by minibatches alone would depend on it.


def protocol(batch: int, *, full_batch: bool = False, horizon: float) -> xr.Dataset:
    """Trap and release at one batch size."""
    released = kg.SGD(chain, kg.teacher(label_noise=LABEL_NOISE), lr=LR, batch_size=batch, noise=noise)
    return trap_and_release(
        released.replace(model=kg.DeepLinearChain(3, 1.0, HIGH)),
        without_noise(released) if full_batch else released,
        trap_time=60.0, target=target, n_replicas=N_REPLICAS, max_time=horizon, seed=batch, start=learned,
    )  # fmt: skip


# %%
# Beside theory
# -------------
# The exact mean time includes the step and the minibatches' own noise. Nothing is fitted.


def main(out: Path | None = None) -> dict[str, float]:
    """Print measured beside predicted means and draw survival curves."""
    numbers: dict[str, float] = {}
    runs = {}
    print("  B   amplitude in the trap   mean time          predicted")
    for batch in BATCHES:
        minibatch = MinibatchNoise(LR / batch, GaussianResidualVariance(1.0, 1.0, LABEL_NOISE))
        temperature = 8 * barrier.height / batch
        predicted = kg.exit_time(
            chain, temperature=temperature, target=target, step=LR, monitored=True, minibatch=minibatch
        )
        run = runs[f"B = {batch}"] = protocol(batch, horizon=12 * predicted.mean)
        mean = kg.mean_exit_time(run)
        amplitude = float(np.sqrt((run.trap_amplitude**2).mean()))
        print(f"{batch:3d}   {amplitude:.4f}                  {mean.value:7.0f} ± {mean.standard_error:5.0f}   "
              f"{predicted.mean:7.0f}")  # fmt: skip
        numbers[f"ratio_{batch}"] = mean.value / predicted.mean
        numbers[f"z_{batch}"] = (mean.value - predicted.mean) / mean.standard_error
        numbers[f"amplitude_{batch}"] = amplitude / (temperature / HIGH) ** 0.5
    control = runs["full batch"] = protocol(BATCHES[-1], full_batch=True, horizon=1e4)
    numbers["escaped without noise"] = int(control.escaped.sum())
    print(f"full batch: {numbers['escaped without noise']} of {N_REPLICAS} escaped by t = {float(control.horizon):g}")
    ax = kg.plots.survival(runs)
    ax.set(xscale="log", yscale="linear", xlim=(1, 5e4), ylim=(-0.02, 1.05))
    if out is not None:
        ax.figure.savefig(out, dpi=150)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    numbers = main(parser.parse_args().out)
