"""
A study that can be killed
==========================

A theory-against-simulation study is a grid: here temperatures and batch sizes, each point simulated by SGD and by
Langevin dynamics until its mean escape time is known to 10 %. Declared once, it runs on Dask workers here
and on a cluster without change; finished points are files that no later run touches; and it ends as one labelled tree.

``python examples/study_with_dask.py --out study.png``
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from dask.distributed import Client, LocalCluster

import kramers_grok as kg


def declared(**changes: Any) -> kg.EscapeStudy:
    """Any value may be a list or a range: their product is the grid."""
    sgd = {"lr": 0.1, "batch_size": [8, 32], "label_noise": 0.1} | changes
    return kg.EscapeStudy(
        question="Does a trapped chain escape at the predicted rate, whatever the batch size?",
        system={"kind": "chain", "depth": 3, "singular_value": 1.0, "weight_decay": 0.25},
        noise={"barrier_over_temperature": {"start": 3, "stop": 5, "step": 1}},
        langevin={"dt": 0.1},
        sgd=sgd,
        run={"precision": 0.1, "max_replicas": 4096},
    )


# %%
# Run, extend, never repeat
# -------------------------
# The second declaration has one batch size more. Its run computes the new cells only: the others are found on disk,
# each named by what it holds and checked against its checksum.


def study(directory: Path) -> list[int]:
    """Run the study on Dask, then a larger one in the same directory; return the numbers of cells computed."""
    computed = []
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,  # type: ignore[no-untyped-call]
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        for declaration in (declared(), declared(batch_size=[8, 16, 32])):
            result = kg.run_study(declaration, directory, executor=client.get_executor())
            computed.append(len(result.outcomes))
            print(f"{result.n_cells} cells, {computed[-1]} of them computed now")
    return computed


# %%
# One tree
# --------
# Groups theory, langevin and sgd, with the grid's parameters as coordinates. The verdict states the statistics.


def main(out: Path | None = None) -> dict[str, float]:
    """Run the study, print the answer, draw its times; return distances from theory."""
    with tempfile.TemporaryDirectory() as folder:
        computed = study(Path(folder))
        tree = kg.read_study(folder)
    print(tree["sgd"].to_dataset().sel(lr=0.1)["mean_exit_time"].squeeze().round(0).values)
    print(kg.judge(tree).headline)
    figure, axes = plt.subplots(1, 2, figsize=(9.4, 4.2), layout="constrained")
    kg.plots.arrhenius(tree, axes[0])
    kg.plots.survival(tree.sel(barrier_over_temperature=5.0), axes[1])
    axes[1].locator_params(axis="x", nbins=5)
    if out is not None:
        figure.savefig(out, dpi=160)
    z = np.concatenate([tree[engine]["difference_se"].values.ravel() for engine in ("langevin", "sgd")])
    return {f"z_{i}": float(value) for i, value in enumerate(z)} | {"cells": computed[0], "added": computed[1]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)
