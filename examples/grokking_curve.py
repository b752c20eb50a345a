"""
A curve of grokking
===================

A linear autoencoder is trained on six samples of four white inputs. One direction is hardly in the sample: without it
the train error is low and the test error is high, and a barrier stands before it. Noise carries the network over, late,
and the test error falls to the train error. With many samples no direction is hidden.

``python examples/grokking_curve.py --out grokking.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import kramers_grok as kg
from kramers_grok.dynamics.observables import Loss, OrderParameters
from kramers_grok.dynamics.sampling import WithoutReplacement
from kramers_grok.dynamics.tracing import trace
from kramers_grok.models.data import finite
from kramers_grok.theory.feature_network import FeatureNetwork
from kramers_grok.theory.subsampling import GrokkingCriterion, Subsample

LR, BATCH, DECAY, NOISE = 0.15, 2, 0.0334, 0.0128
N_REPLICAS = 24
everything = finite(2 * np.eye(4), 2 * np.eye(4))  # second moments 1: the exact error over white inputs

# %%
# What the sample holds
# ---------------------
# Each direction of the inputs is a feature, with its own variance in the sample and its own barrier.


def task(n_samples: int) -> tuple[kg.SGD, Subsample, FeatureNetwork]:
    """Training on a sub-sample, and its theory."""
    x = np.random.default_rng(0).normal(size=(n_samples, 4))
    data = finite(x, x)
    network = kg.DeepLinearNetwork.from_data(data, (4, 4), weight_decay=DECAY)
    process = kg.SGD(
        network, data, lr=LR, batch_size=BATCH, sampler=WithoutReplacement(), noise=kg.per_sample(variance=NOISE)
    )
    theory = FeatureNetwork(data.input_covariance, data.cross_covariance, (4, 4), DECAY)
    return process, Subsample.of(x, x, teacher=np.eye(4), depth=3), theory


# %%
# Training from zero weights
# --------------------------


def curve(process: kg.SGD, time: float) -> xr.Dataset:
    """Train and test error of all replicas."""
    steps = np.unique(np.geomspace(1, time / LR, 90).astype(np.int64))
    losses = Loss(process.data, name="train_loss"), Loss(everything, name="test_loss")
    return trace(process, process.start(N_REPLICAS, seed=0), steps, [*losses, OrderParameters()])[1]


def main(out: Path | None = None) -> dict[str, float]:
    """Print the states and times, and draw the curves."""
    process, sample, theory = task(6)
    time = theory.learning_time(3, temperature=process.temperature, step=LR, data=(process.data.x, process.data.y),
                                lr_over_batch=LR / BATCH * 4 / 5)  # fmt: skip
    print("input variances in the sample:", sample.input_variances.round(3))
    for name, learned in (("trap", (0, 1, 2)), ("after", (0, 1, 2, 3))):
        train, test = sample.errors(sample.learned(learned, DECAY))
        print(f"{name:5s}: train error {train:.3f}, test error {test:.3f}")
    print(f"the last feature is learned after {time.mean:.0f} in the mean (± {time.relative_uncertainty:.0%})")
    few, many = curve(process, 3.5 * time.mean), curve(task(64)[0], 400.0)
    ends = few["time"].values, few["train_loss"].mean("replica").values, few["test_loss"].mean("replica").values
    numbers = {
        "exists": float(GrokkingCriterion().holds(*ends)),
        "exists with many": float(GrokkingCriterion().holds(many["time"].values, *(
            many[f"{k}_loss"].mean("replica").values for k in ("train", "test")))),
        "learned": float((few["order_parameter"].isel(time=-1, feature=3) > 0.3).mean()),
        "test": float(ends[2][-1]),
    }  # fmt: skip
    print(f"{numbers['learned']:.0%} have learned it by t = {ends[0][-1]:.0f}; test error {numbers['test']:.3f}")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharey=True)
    for ax, run, title in zip(axes, (few, many), ("6 samples", "64 samples"), strict=True):
        kg.plots.train_and_test(run, ax).set_title(title)
    if out is not None:
        figure.savefig(out, dpi=150)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    numbers = main(parser.parse_args().out)
