"""Evidence: three ways to cut batches from the same data make three temperatures, and three lives of a learned state.

Run with ``make evidence NAME=samplers``. Finished cells are kept, so the same command resumes; the small
``evidence/samplers/table.nc`` is committed. Independent draws with and without replacement and shuffled epochs, at the
same η and B:

- the stationary temperature, curvature times variance, around the learned minimum of a chain on finite data, over η;
- the same around the learned minimum of a network on scikit-learn's digits (their 16 leading principal components),
  along eigendirections of its Hessian from the stiffest down;
- the time at which a chain between its binodal and its spinodal forgets, at fixed η/B, over the size of the data set.

Predicted temperatures use the Hessian, the per-sample gradients and the sampler's factor for a quadratic; predicted
times are the diffusion limit's exact ones with η/B times the factor: averaged over the steps, and at epoch ends. Beside
them stands the delay of an escape whose noise must sum to 0 within an epoch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
import xarray as xr
from rich.progress import Progress

import kramers_grok as kg
from kramers_grok.analysis.survival import estimate
from kramers_grok.core.samplers import Sampler, ShuffledEpochs, WithoutReplacement, WithReplacement
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.stationary import hessian_modes, stationary_temperature
from kramers_grok.escape.protocols.trap import without_noise
from kramers_grok.models.data import FiniteData, autoencoding, digits, finite
from kramers_grok.studies.files.store import Store, write_netcdf
from kramers_grok.studies.running.cells import Cell, execute, one_thread
from kramers_grok.theory.gradient_noise import EmpiricalResidualVariance
from kramers_grok.theory.samplers import forgetting_epoch_exponent, sampler_factor

SAMPLERS: dict[str, Sampler] = {
    "with replacement": WithReplacement(),
    "without replacement": WithoutReplacement(),
    "shuffled epochs": ShuffledEpochs(),
}
CHAIN_RATES = (0.01, 0.02, 0.04, 0.08)
CHAIN_SAMPLES, CHAIN_BATCH, CHAIN_DECAY, CHAIN_NOISE = 64, 16, 0.1, 0.15
DIGITS = {"components": 16, "hidden": 4, "weight_decay": 0.02, "lr": 0.02, "batch_size": 64}
N_DIRECTIONS, SOFTEST = 5, 0.4
FORGET_SAMPLES = (64, 256, 1024, 4096)
FORGET_DECAY, FORGET_NOISE, FORGET_RATE, FORGET_BATCH = 0.44, 0.5, 0.1, 16
HORIZON = {64: 30_000.0, 256: 20_000.0, 1024: 30_000.0, 4096: 15_000.0}
N_FORGET = 128


def scalar_data(n_samples: int, noise: float) -> FiniteData:
    """One input and one output whose second moments are exactly those of the teacher σ = q = 1."""
    rng = np.random.default_rng(0)
    x, e = rng.normal(size=(2, n_samples))
    x /= np.sqrt(np.mean(x**2))
    e -= np.mean(e * x) * x
    return finite(x, x + noise * e / np.sqrt(np.mean(e**2)))


def chain_of(data: FiniteData, weight_decay: float) -> kg.DeepLinearChain:
    """The chain of three weights whose population these data are."""
    return kg.DeepLinearChain.from_data(data.x[:, 0], data.y[:, 0], depth=3, weight_decay=weight_decay)


def minimum(process: kg.SGD, start: Any, lr: float, n_steps: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The end of descent."""
    descent = without_noise(process).replace(lr=lr, fused=False)
    return descent.advance(descent.start(1, seed=0, point=start), n_steps)[0].theta[0].numpy()


def chain_temperature(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Stationary temperature of the chain's balanced direction."""
    data = scalar_data(CHAIN_SAMPLES, CHAIN_NOISE)
    chain = chain_of(data, CHAIN_DECAY)
    process = kg.SGD(chain, data, lr=config["lr"], batch_size=CHAIN_BATCH, sampler=SAMPLERS[config["sampler"]])
    point = minimum(process, [chain.mode.learned_amplitude()] * 3, 0.1, 3000)
    stiffest = hessian_modes(process, point)[1][-1]
    return stationary_temperature(process, point, stiffest, n_steps=config["n_steps"], n_replicas=1000, seed=seed)


def digits_temperature(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Stationary temperatures of a network on digits, along directions of curvature spread evenly in its logarithm."""
    pixels = autoencoding(digits() / 16).x
    axes = np.linalg.svd(pixels, full_matrices=False)[2][: int(config["components"])]
    data = autoencoding(pixels @ axes.T)
    h = int(config["hidden"])
    network = kg.DeepLinearNetwork.from_data(data, (h, h), weight_decay=config["weight_decay"])
    sampler = SAMPLERS[config["sampler"]]
    process = kg.SGD(network, data, lr=config["lr"], batch_size=int(config["batch_size"]), sampler=sampler)
    point = minimum(process, network.ordered_state(range(h)), 0.2, 4000)
    curvatures, modes = hessian_modes(process, point)
    wanted = np.geomspace(curvatures[-1], SOFTEST, N_DIRECTIONS)
    chosen = [int(np.argmin(np.abs(np.log(np.maximum(curvatures, 1e-9) / w)))) for w in wanted]
    found = stationary_temperature(process, point, modes[chosen], n_steps=6000, n_replicas=48, seed=seed)
    return found.assign_attrs(gradient=float(network.gradient(torch.from_numpy(point)[None]).abs().max()))


def forgetting_time(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Time at which the learned state is lost."""
    n = int(config["n_samples"])
    data = scalar_data(n, FORGET_NOISE)
    chain = chain_of(data, FORGET_DECAY)
    barrier = chain.forgetting_barrier()
    process = kg.SGD(chain, data, lr=FORGET_RATE, batch_size=FORGET_BATCH, sampler=SAMPLERS[config["sampler"]])
    run = kg.first_passage(
        process, target=kg.beyond(barrier), n_replicas=int(config["n_replicas"]), max_time=config["horizon"], seed=seed,
        start=barrier.minimum,
    )  # fmt: skip
    row = estimate(run, min_escapes=1)
    names = {"mean_exit_time": row.value, "lower": row.lower, "upper": row.upper, "n_escaped": row.n_escaped}
    return xr.Dataset({name: ((), value, describe(name)) for name, value in names.items()})


def predicted_times(n_samples: int, name: str) -> tuple[float, float, float, float]:
    """The sampler's factor in the learned well, the diffusion limit's mean times with it, and ln of the epochs' delay.

    The times take the factor averaged over the steps, and at the ends of epochs.
    """
    data = scalar_data(n_samples, FORGET_NOISE)
    chain = chain_of(data, FORGET_DECAY)
    barrier = chain.forgetting_barrier()
    residual = EmpiricalResidualVariance(data.x[:, 0], data.y[:, 0])
    # Of the direction in which the layers move together; the two others have 2λ and no noise.
    curvature = float(chain.landscape.hessian_at(np.asarray(barrier.minimum)).sum() / 3)
    times, factors = [], []
    for ends in (False, True):
        factor = sampler_factor(
            SAMPLERS[name], n_samples=n_samples, batch_size=FORGET_BATCH, lr=FORGET_RATE, curvature=curvature,
            at_epoch_ends=ends,
        )  # fmt: skip
        noise = kg.MinibatchNoise(FORGET_RATE / FORGET_BATCH * factor, residual)
        with np.errstate(over="ignore"):
            law = kg.exit_time(chain.mode, temperature=0.0, target=kg.beyond(barrier), minibatch=noise)
        times.append(float(law.mean))
        factors.append(factor)
    independent = kg.MinibatchNoise(FORGET_RATE / FORGET_BATCH, residual)
    epoch = FORGET_RATE * n_samples / FORGET_BATCH
    delay = forgetting_epoch_exponent(chain.mode, independent, epoch=epoch)
    return factors[0], times[0], times[1], delay if isinstance(SAMPLERS[name], ShuffledEpochs) else 0.0


def main() -> None:
    """Compute what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/samplers")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    chain = [
        Cell("chain", {"sampler": name, "lr": lr, "n_steps": int(8 / lr)}, chain_temperature)
        for lr in CHAIN_RATES
        for name in SAMPLERS
    ]
    real = [Cell("digits", {"sampler": name, **DIGITS}, digits_temperature, cost=3.0) for name in SAMPLERS]
    times = [
        Cell(
            "forgetting",
            {"sampler": name, "n_samples": n, "horizon": HORIZON[n], "n_replicas": N_FORGET},
            forgetting_time,
            cost=2.0,
        )
        for n in FORGET_SAMPLES
        for name in SAMPLERS
    ]
    cells = [*chain, *real, *times]
    setting = {
        "chain": [CHAIN_SAMPLES, CHAIN_BATCH, CHAIN_DECAY, CHAIN_NOISE],
        "forgetting": [FORGET_RATE, FORGET_BATCH],
    }
    store = Store(args.out, setting, name="samplers")
    with Progress() as bar, ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        task = bar.add_task("cells", total=len(cells))
        found = execute(store, cells, seed=0, executor=pool, finished=lambda _: bar.advance(task))
    names = list(SAMPLERS)
    tables = {
        "chain": grid(found[: len(chain)], "lr", CHAIN_RATES).squeeze("direction", drop=True),
        "digits": xr.concat(found[len(chain) : len(chain) + len(real)], "sampler"),
        "forgetting": grid(found[len(chain) + len(real) :], "n_samples", FORGET_SAMPLES),
    }
    predicted = np.array([[predicted_times(n, name) for name in names] for n in FORGET_SAMPLES])
    label = "mean exit time of the diffusion limit, factor "
    columns = {
        "sampler_factor": describe("sampler_factor"),
        "predicted_by_average": {"units": "time", "long_name": label + "averaged over steps"},
        "predicted_by_epoch_end": {"units": "time", "long_name": label + "at epoch ends"},
        "epoch_exponent": {"units": "1", "long_name": "ln of the delay by epochs that sum to 0, first order"},
    }
    for index, (name, attrs) in enumerate(columns.items()):
        tables["forgetting"][name] = (("n_samples", "sampler"), predicted[:, :, index], attrs)
    tables["forgetting"]["horizon"] = ("n_samples", [HORIZON[n] for n in FORGET_SAMPLES], describe("horizon"))
    tables["forgetting"].attrs = {"n_replicas": N_FORGET, "weight_decay": FORGET_DECAY, "lr": FORGET_RATE}
    tables["chain"].attrs["n_samples"] = CHAIN_SAMPLES
    tables["digits"].attrs["n_samples"] = len(digits())
    for table in tables.values():
        table["sampler"] = ("sampler", names, {"units": "1", "long_name": "how batches are cut"})
    write_netcdf(xr.DataTree.from_dict({f"/{key}": table for key, table in tables.items()}), f"{args.out}/table.nc")
    report(tables)


def grid(rows: Sequence[xr.Dataset], name: str, values: Sequence[float]) -> xr.Dataset:
    """One row a value and sampler."""
    count = len(SAMPLERS)
    lines = [
        xr.concat([row.drop_vars(name, errors="ignore") for row in rows[i * count : (i + 1) * count]], "sampler")
        for i in range(len(values))
    ]
    joined = xr.concat(lines, name)
    joined[name] = (name, np.array(values), describe(name))
    return joined


def report(tables: Mapping[str, xr.Dataset]) -> None:
    """Print what was found."""
    with np.printoptions(precision=4, suppress=False, linewidth=150):
        for key in ("chain", "digits"):
            t = tables[key]
            for seen in t.seen.values:
                part = t.sel(seen=seen)
                print(key, seen, "measured/predicted\n", part.stationary_temperature_ratio.values)
                half = part.stationary_temperature_upper - part.stationary_temperature
                print(" ±\n", (half / part.predicted_stationary_temperature).values)
            factor = t.sampler_factor.values
            print(key, "factors", factor)
        t = tables["forgetting"]
        for name in ("mean_exit_time", "lower", "upper", "n_escaped", "predicted_by_average", "epoch_exponent"):
            print(name, "\n", t[name].values)


if __name__ == "__main__":
    main()
