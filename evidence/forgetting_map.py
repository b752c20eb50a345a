"""Evidence: where the diffusion limit of minibatch SGD may be trusted, and where one dimension stops.

Run with ``make evidence NAME=forgetting_map``. Finished cells are kept, so the same command resumes; the small
``evidence/forgetting_map/table.nc`` is committed. All of it is learned → forgotten by minibatch noise alone, D = 3,
σ = 1:

- ``/map``: SGD's mean time over its diffusion limit's against λ, s and ε = η/B, from the laws at small ε;
- ``/exact``: the same from the exact chain and the exact diffusion, at some points;
- ``/simulated``: runs of SGD with true minibatches, and of Langevin dynamics with minibatch noise, beside exact means;
- ``/dimensions``: networks of several inputs and outputs over the exact time of their one mode;
- ``/imbalance``: their layers' imbalance in a learned state that stays.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import xarray as xr
from rich.progress import Progress

import kramers_grok as kg
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.minibatch_sde import Minibatches
from kramers_grok.studies.files.store import Store, write_netcdf
from kramers_grok.studies.running.cells import Cell, execute, one_thread
from kramers_grok.theory.action_cumulants import GaussianCumulants
from kramers_grok.theory.diffusion_limit import diffusion_limit_departure
from kramers_grok.theory.discrete_chain import discrete_exit
from kramers_grok.theory.exit_times import Interval, ModeDynamics, minibatch_mode_exit_time, sgd_exit_time
from kramers_grok.theory.extra_dimensions import dimension_factors, noise_imbalance
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.large_deviations import forgetting_laws
from kramers_grok.theory.minibatch import MinibatchNoise

DEPTH = 3
DECAYS = (0.397, 0.40, 0.405, 0.41, 0.415, 0.42, 0.425, 0.43, 0.435, 0.44, 0.445, 0.45, 0.455, 0.46, 0.465, 0.469)
NOISES = (0.125, 0.25, 0.5, 1.0, 2.0)
RATIOS = tuple(float(e) for e in 0.1 * 2.0 ** -np.arange(0.0, 9.1, 0.5))
EXACT_ACTIONS = (2.0, 6.0)  # S'/ε of the exact points
EXACT_DECAYS, EXACT_NOISES = (0.41, 0.44, 0.46), (0.25, 1.0)
LARGEST_STEP = 0.05
# λ, s, ε, B of the runs; the fourth number 0 is Langevin dynamics with dt = 0.1
RUNS = (
    (0.44, 0.5, 0.1 / 16, 16),
    (0.44, 0.5, 0.1 / 16, 4),
    (0.44, 0.5, 0.1 / 16, 0),
    (0.41, 0.25, 0.025, 2),
    (0.41, 0.25, 0.025, 0),
    (0.46, 1.0, 0.1 / 64, 32),
    (0.46, 1.0, 0.1 / 64, 0),
)
N_REPLICAS = 2048
# d, h, o and B of networks that forget; η = 0.1, λ = 0.44, s = 0.5
SHAPES = (
    *((d, 1, 1, 8) for d in (1, 4, 8, 16, 32)),
    (1, 1, 32, 8),
    (8, 3, 8, 8),
    (16, 1, 1, 12),
)
N_NETWORKS = 200
# d, o and B of networks that stay; η = 0.05, λ = 0.2, s = 1
STEADY = tuple((d, o, b) for d, o in ((2, 1), (8, 1), (32, 1), (1, 8), (8, 8)) for b in (40, 10, 2))


def target_of(mode: kg.Mode) -> kg.Region:
    """Beyond the barrier of forgetting."""
    return kg.beyond(mode.forgetting_barrier())


def exact(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Both exact times at one point of the map; nothing is random."""
    mode = kg.Mode(DEPTH, 1.0, config["weight_decay"])
    laws = forgetting_laws(mode, GaussianCumulants.of(mode, label_noise=config["label_noise"]))
    ratio = laws.diffusion.action / config["action_over_ratio"]
    batch = max(1, int(LARGEST_STEP / ratio))
    found = diffusion_limit_departure(mode, label_noise=config["label_noise"], lr_over_batch=ratio, batch_size=batch)
    values = {
        "lr_over_batch": ratio,
        "batch_size": batch,
        "departure": found.exact,
        "asymptotic_departure": found.asymptotic,
        "exponential_departure": found.exponential,
        "diffusion_time": found.diffusion_time,
    }
    return xr.Dataset(dict(config) | values)


def simulate(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Escapes of one run beside the exact mean of the same chain of steps."""
    decay, noise, ratio, batch = (config[k] for k in ("weight_decay", "label_noise", "lr_over_batch", "batch_size"))
    chain = kg.DeepLinearChain(DEPTH, 1.0, decay)
    mode, target = chain.mode, target_of(chain.mode)
    data = kg.teacher(label_noise=noise)
    process: Any
    if batch:
        process = kg.SGD(chain, data, lr=ratio * batch, batch_size=batch)
        predicted = sgd_exit_time(mode, lr=ratio * batch, batch_size=batch, label_noise=noise, target=target).mean
    else:
        process = kg.Langevin(chain, temperature=0.0, dt=0.1, minibatch=Minibatches(data, ratio))
        noisy = ModeDynamics(mode, 0.0, 0.0, MinibatchNoise(ratio, GaussianResidualVariance(1.0, 1.0, noise)))
        ends = Interval(DEPTH**0.5 * mode.learned_amplitude(), lower=float(mode.coordinate(target.threshold)))
        predicted = discrete_exit(noisy.process, ends, step=0.1).mean
    diffusion = minibatch_mode_exit_time(mode, label_noise=noise, lr_over_batch=ratio, target=target).mean
    start = np.full(DEPTH, mode.learned_amplitude())
    run = kg.first_passage(
        process, target=target, n_replicas=config["n_replicas"], max_time=12 * predicted, seed=seed, start=start
    )
    return result(config, run, predicted, {"diffusion_time": diffusion, "dt": process.dt})


def result(
    config: Mapping[str, Any], run: xr.Dataset, predicted: float, extra: Mapping[str, float] | None = None
) -> xr.Dataset:
    """One row: measured mean, its error and the exact mean of one mode."""
    mean = kg.mean_exit_time(run)
    return xr.Dataset(
        dict(config)
        | {
            "mean_exit_time": mean.value,
            "standard_error": mean.standard_error,
            "n_escaped": int(run.escaped.sum()),
            "predicted_time": predicted,
        }
        | dict(extra or {})
    )


def network_of(inputs: int, hidden: int, outputs: int, decay: float) -> kg.DeepLinearNetwork:
    """One feature of strength 1 in a network of several inputs and outputs."""
    matrix = np.zeros((outputs, inputs))
    matrix[0, 0] = 1.0
    return kg.DeepLinearNetwork((inputs, hidden, hidden, outputs), matrix, weight_decay=decay)


def dimension(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """A network forgets; beside it the exact time of its one mode."""
    decay, noise, lr, batch = (config[k] for k in ("weight_decay", "label_noise", "lr", "batch_size"))
    network = network_of(config["n_inputs"], config["width"], config["n_outputs"], decay)
    mode = network.mode(0)
    target = target_of(mode)
    predicted = sgd_exit_time(mode, lr=lr, batch_size=batch, label_noise=noise, target=target).mean
    process = kg.SGD(network, kg.teacher(label_noise=noise), lr=lr, batch_size=batch)
    run = kg.first_passage(
        process, target=target, n_replicas=config["n_replicas"], max_time=2 * predicted, seed=seed,
        start=network.ordered_state([0]).numpy(),
    )  # fmt: skip
    shape = {"n_inputs": config["n_inputs"], "n_outputs": config["n_outputs"]}
    factor = dimension_factors(mode, label_noise=noise)(**shape)
    balance = noise_imbalance(mode, label_noise=noise, lr_over_batch=lr / batch, lr=lr, **shape)
    return result(config, run, predicted, {"predicted_factor": factor, "predicted_imbalance": balance.relative})


def imbalance(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Time averages in a learned state, from 16 relaxation times on."""
    decay, noise, lr, batch = (config[k] for k in ("weight_decay", "label_noise", "lr", "batch_size"))
    network = network_of(config["n_inputs"], 1, config["n_outputs"], decay)
    process = kg.SGD(network, kg.teacher(label_noise=noise), lr=lr, batch_size=batch)
    settle = int(8 / (decay * lr))
    state = process.start(config["n_replicas"], seed=seed, point=network.ordered_state([0]).numpy())
    state, _ = process.advance(state, settle)
    layers, m = [], []
    for _ in range(100):
        state, _ = process.advance(state, 10)
        squares = [w.square().sum(dim=(1, 2)).numpy() for w in network.layers(state.theta)]
        layers.append(np.stack([squares[0] - squares[1], squares[2] - squares[1]]))
        m.append(process.order_parameters(state.theta)[:, 0].numpy())
    each = np.mean(layers, axis=0)  # (side, replica)
    shape = {"n_inputs": config["n_inputs"], "n_outputs": config["n_outputs"]}
    mode = network.mode(0)
    balance = noise_imbalance(mode, label_noise=noise, lr_over_batch=lr / batch, lr=lr, **shape)
    a2 = mode.learned_amplitude() ** 2
    root = config["n_replicas"] ** 0.5
    return xr.Dataset(
        dict(config)
        | {
            "first": each[0].mean() / a2,
            "first_error": each[0].std(ddof=1) / root / a2,
            "last": each[1].mean() / a2,
            "last_error": each[1].std(ddof=1) / root / a2,
            "predicted_first": balance.first / a2,
            "predicted_last": balance.last / a2,
            "order_parameter": np.mean(m) / mode.learned_amplitude() ** DEPTH,
            "lost": float((np.array(m[-1]) < 0.3 * mode.learned_amplitude() ** DEPTH).mean()),
        }
    )


def cells() -> dict[str, list[Cell]]:
    """All cells of every table."""
    points = [(d, s, r) for d in EXACT_DECAYS for s in EXACT_NOISES for r in EXACT_ACTIONS]
    forget = {"lr": 0.1, "weight_decay": 0.44, "label_noise": 0.5, "n_replicas": N_NETWORKS}
    stay = {"lr": 0.05, "weight_decay": 0.2, "label_noise": 1.0, "n_replicas": 200}
    return {
        "exact": [
            Cell("exact", {"weight_decay": d, "label_noise": s, "action_over_ratio": r}, exact, cost=3)
            for d, s, r in points
        ],
        "simulated": [
            Cell(
                "simulated",
                {"weight_decay": d, "label_noise": s, "lr_over_batch": e, "batch_size": b, "n_replicas": N_REPLICAS},
                simulate,
                cost=15 if b else 8,
            )
            for d, s, e, b in RUNS
        ],
        "dimensions": [
            Cell(
                "dimensions",
                {"n_inputs": d, "width": h, "n_outputs": o, "batch_size": b} | forget,
                dimension,
                cost=d / 4 + b,
            )
            for d, h, o, b in SHAPES
        ],
        "imbalance": [
            Cell("imbalance", {"n_inputs": d, "n_outputs": o, "batch_size": b} | stay, imbalance, cost=d / 10)
            for d, o, b in STEADY
        ],
    }


def asymptotic_map() -> xr.Dataset:
    """SGD over its diffusion limit on the whole grid, from the laws at small ε (batches of 1)."""
    shape = (len(DECAYS), len(NOISES), len(RATIOS))
    departure, action = np.empty(shape), np.empty(shape)
    for i, decay in enumerate(DECAYS):
        for j, noise in enumerate(NOISES):
            mode = kg.Mode(DEPTH, 1.0, decay)
            laws = forgetting_laws(mode, GaussianCumulants.of(mode, label_noise=noise))
            departure[i, j] = [laws.sgd.log_mean(e, 1) - laws.diffusion.log_mean(e) for e in RATIOS]
            action[i, j] = laws.diffusion.action / np.array(RATIOS)
    dims = ("weight_decay", "label_noise", "lr_over_batch")
    return xr.Dataset(
        {
            "log_departure": (dims, departure, {"units": "1", "long_name": "ln of SGD's over the diffusion's time"}),
            "action_over_ratio": (dims, action, {"units": "1", "long_name": "barrier S'/ε of the diffusion limit"}),
        },
        coords={
            "weight_decay": ("weight_decay", list(DECAYS), describe("weight_decay")),
            "label_noise": ("label_noise", list(NOISES), describe("label_noise")),
            "lr_over_batch": ("lr_over_batch", list(RATIOS), describe("lr_over_batch")),
        },
    )


def gathered(rows: Sequence[xr.Dataset]) -> xr.Dataset:
    """One table of many rows."""
    return xr.concat(rows, dim="run")


def main() -> None:
    """Compute what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/forgetting_map")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    groups = cells()
    every = [cell for group in groups.values() for cell in group]
    store = Store(args.out, {"depth": DEPTH, "singular_value": 1.0}, name="forgetting_map")
    with Progress() as bar, ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        task = bar.add_task("cells", total=len(every))
        found = execute(store, every, seed=0, executor=pool, finished=lambda _: bar.advance(task))
    by_cell = dict(zip(map(id, every), found, strict=True))
    tables = {name: gathered([by_cell[id(cell)] for cell in group]) for name, group in groups.items()}
    tables["map"] = asymptotic_map()
    write_netcdf(xr.DataTree.from_dict({f"/{k}": v for k, v in tables.items()}), f"{args.out}/table.nc")
    for name in groups:
        print(name, tables[name].to_dataframe().to_string(), sep="\n")


if __name__ == "__main__":
    main()
