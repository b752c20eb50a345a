"""Evidence: which low-rank states are absorbing under minibatch noise alone, and what floors do to "never".

Run with ``make evidence NAME=absorbing``. Finished cells are kept, so the same command resumes; the small
``evidence/absorbing/table.nc`` is committed. D = 3, teacher with singular values 2 and 1, the first feature learned.

``rate``: growth rates of the unused directions beside the fluctuating background, by an independent program;
``growth``: some of them by the package. ``learning``: whole networks from an amplitude of 1e-6 in every other weight,
until the second feature is half learned; they share with the growth rates the task, neither linearisation nor noise.
``batch``: 100 inputs and outputs, batches of 2 to 16 at one learning rate. ``amplitude``: against the amplitude at the
start, exactly 0 included, in a turned hidden basis too, where rounding is the only floor. ``floor``: a tiny additive
noise. ``jump``: from rank 2 down and from rank 1 up, on both sides of the second feature's binodal.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import xarray as xr
from absorbing_runs import growth_rates, learning_times
from absorbing_table import gather
from numpy.typing import NDArray
from rich.progress import Progress

import kramers_grok as kg
from kramers_grok.core.exceptions import DivergedError, InvalidParameterError, ValidityWarning
from kramers_grok.core.noise import activation_noise
from kramers_grok.dynamics.growth import growth_rate
from kramers_grok.dynamics.observables import Rank
from kramers_grok.dynamics.tracing import trace
from kramers_grok.studies.files.store import Store, write_netcdf
from kramers_grok.studies.running.cells import Cell, execute, one_thread

TEACHER = (2.0, 1.0)
AMPLITUDE = 1e-6
LEARNED = kg.Region(0.5, feature=1)
# ε d s² along each line of the map: what is alike in networks of different size and noise.
LOADS = (0.2, 0.35, 0.5, 0.7)
LINES = [(16, 0.02, 1.0), (33, 0.02, 1.0), (64, 0.02, 1.0),
         (33, 0.01, 1.0), (33, 0.04, 1.0), (33, 0.02, 0.7), (33, 0.02, 1.5)]  # fmt: skip
STEP = 0.04  # η is as near to it as whole batches allow
CHECKED = [(33, 0.01, 0.0082, 4), (100, 0.02, 0.0025, 8), (100, 0.02, 0.005, 4), (100, 0.02, 0.01, 2)]
# Escape against the amplitude at the start, above the threshold; against an added noise, below it.
GROWING, FADING = (
    {"n_inputs": d, "weight_decay": 0.02, "label_noise": 1.0, "lr_over_batch": ratio, "batch_size": size}
    for d, ratio, size in ((100, 0.01, 2), (33, 0.0135, 3))
)
STARTS = [*({"amplitude": amplitude} for amplitude in (1e-2, 1e-3, 1e-4, 1e-6, 1e-9, 1e-12, 0.0)),
          {"amplitude": 0.0, "turned": True}, {"amplitude": 0.0, "turned": True, "single": True}]  # fmt: skip
ADDED = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)  # standard deviation per √time
# Two inputs and outputs: the second feature's binodal is at 0.397, its spinodal at 0.472.
JUMP_WIDTHS, JUMP_LR, JUMP_BATCH, JUMP_LABEL, JUMP_REPLICAS = (2, 2, 2, 2), 0.1, 8, 0.5, 16
JUMP_DECAYS, JUMP_NOISE = (0.15, 0.44), 0.5
JUMP_STEPS = np.linspace(0, 4_000, 21).astype(int)


def network(d: int, hidden: int, weight_decay: float) -> kg.DeepLinearNetwork:
    """A network of three layers with as many outputs as inputs."""
    teacher = np.zeros(d)
    teacher[:2] = TEACHER
    return kg.DeepLinearNetwork((d, hidden, hidden, d), np.diag(teacher), weight_decay=weight_decay)


def batch_for(lr_over_batch: float) -> int:
    """Batch size for steps of about `STEP`."""
    return max(1, round(STEP / lr_over_batch))


def training(key: Mapping[str, Any], hidden: int, **arguments: Any) -> kg.SGD:
    """SGD of one setting.

    Activation noise of variance 0 makes it pass samples instead of d × d moments: ten times faster at d = 100.
    """
    model = network(int(key["n_inputs"]), hidden, float(key["weight_decay"]))
    size = int(key["batch_size"])
    return kg.SGD(
        model, kg.teacher(label_noise=float(key["label_noise"])), lr=float(key["lr_over_batch"]) * size,
        batch_size=size, device="cpu", activation_noise=activation_noise(variance=0.0), **arguments,
    )  # fmt: skip


def collapsed(config: Mapping[str, Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The first feature learned, small random weights elsewhere: layers, each of shape (replica, above, below).

    In a turned basis of the hidden units the unused ones are 0 up to rounding only.
    """
    d, h, n = int(config["n_inputs"]), int(config["width"]), int(config["n_replicas"])
    learned = kg.Mode(3, TEACHER[0], float(config["weight_decay"])).learned_amplitude()
    rng = np.random.default_rng(1)
    layers = [float(config["amplitude"]) * rng.normal(size=(n, *shape)) for shape in ((h, d), (h, h), (d, h))]
    for layer in layers:
        layer[:, 0, 0] = learned
    first, second, third = layers
    if config.get("turned"):
        a, b = (np.linalg.qr(rng.normal(size=(n, h, h)))[0] for _ in range(2))
        first, second, third = a @ first, b @ second @ a.swapaxes(1, 2), third @ b.swapaxes(1, 2)
    dtype = np.float32 if config.get("single") else np.float64
    return first.astype(dtype), second.astype(dtype), third.astype(dtype)


def growth(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Growth rates of one setting."""
    process = training(config, 2).replace(activation_noise=None)
    steps = int(float(config["time"]) / process.lr)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ValidityWarning)
            found = growth_rate(process, n_steps=steps, n_replicas=int(config["n_replicas"]), seed=seed)
    except (DivergedError, InvalidParameterError) as error:
        return xr.Dataset(attrs={"failed": type(error).__name__})
    return found.drop_vars("block_growth_rate")


def rate(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Growth rates of one setting by the independent program."""
    lr = float(config["lr_over_batch"]) * int(config["batch_size"])
    decay, d = float(config["weight_decay"]), int(config["n_inputs"])
    rates, means, finite = growth_rates(
        d,
        d,
        amplitude=kg.Mode(3, TEACHER[0], decay).learned_amplitude(),
        teacher=np.array(TEACHER),
        lr=lr,
        batch_size=int(config["batch_size"]),
        weight_decay=decay,
        label_noise=float(config["label_noise"]),
        settle=int(3 / (lr * decay)),
        n_steps=int(float(config["time"]) / lr),
        n_replicas=int(config["n_replicas"]),
        seed=seed,
    )
    return xr.Dataset(
        {
            "growth_rate": (("replica", "hidden_layer"), rates.mean(axis=2)),
            "mean": (("replica", "of"), means),
            "finite": ("replica", finite),
        }
    )


def outcome(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Whether networks trained by the package learn the second feature."""
    process = training(config, int(config["width"]))
    n = int(config["n_replicas"])
    start = np.concatenate([w.reshape(n, -1) for w in collapsed(config)], axis=1)
    run = kg.first_passage(process, target=LEARNED, n_replicas=n, max_time=config["time"], seed=seed, start=start)
    return run[["exit_time", "escaped"]].reset_coords(drop=True)


def learning(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Whether networks trained by the independent program learn the second feature."""
    lr = float(config["lr_over_batch"]) * int(config["batch_size"])
    n_steps = int(float(config["time"]) / lr)
    steps = learning_times(
        collapsed(config),
        teacher=np.array(TEACHER),
        lr=lr,
        batch_size=int(config["batch_size"]),
        weight_decay=float(config["weight_decay"]),
        label_noise=float(config["label_noise"]),
        added=float(config.get("added", 0.0)) * lr**0.5,
        n_steps=n_steps,
        threshold=LEARNED.threshold,
        seed=seed,
    )
    return xr.Dataset(
        {
            "exit_time": ("replica", np.where(steps > 0, steps, n_steps) * lr),
            "escaped": ("replica", steps > 0),
            "diverged": ("replica", steps == -2),
        }
    )


def jump(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Rank after a while, of a small network that starts with one or two features, with or without per-sample noise."""
    model = kg.DeepLinearNetwork(JUMP_WIDTHS, list(TEACHER), weight_decay=float(config["weight_decay"]))
    noise = kg.per_sample(variance=float(config["noise_variance"])) if config["noise_variance"] else None
    process = kg.SGD(
        model, kg.teacher(label_noise=JUMP_LABEL), lr=JUMP_LR, batch_size=JUMP_BATCH, noise=noise, device="cpu"
    )
    rank, rng = int(config["rank"]), np.random.default_rng(1)
    small = AMPLITUDE * rng.normal(size=(JUMP_REPLICAS, model.n_parameters))
    start = model.ordered_state(range(rank)).numpy() + small
    _, run = trace(process, process.start(JUMP_REPLICAS, seed=seed, point=start), JUMP_STEPS, [Rank(0.5)])
    return run[["effective_rank"]].reset_coords(drop=True)


def setting(
    d: int, weight_decay: float, label_noise: float, lr_over_batch: float, batch_size: int | None = None
) -> dict[str, Any]:
    """Key of a setting."""
    size = batch_for(lr_over_batch) if batch_size is None else batch_size
    return {
        "n_inputs": d, "weight_decay": weight_decay, "label_noise": label_noise, "lr_over_batch": lr_over_batch,
        "batch_size": size,
    }  # fmt: skip


def map_keys() -> list[dict[str, Any]]:
    """Settings over ε, d, λ and s."""
    return [setting(d, decay, s, load / (d * s**2)) for d, decay, s in LINES for load in LOADS]


def cells() -> dict[str, list[Cell]]:
    """All cells, by kind of question."""
    work = {"n_replicas": 8, "width": 3, "amplitude": AMPLITUDE, "time": 600.0}
    batches = [setting(100, 0.02, 1.0, 0.02 / size, size) for size in (2, 4, 8, 16)]
    known = [setting(d, decay, 1.0, ratio, size) for d, decay, ratio, size in CHECKED]
    more = {"n_replicas": 16, "width": 6, "amplitude": AMPLITUDE, "time": 500.0}
    floors = [{"added": added} for added in ADDED]
    jumps = [{"weight_decay": decay, "rank": rank, "noise_variance": g2}
             for decay in JUMP_DECAYS for rank, g2 in ((2, 0.0), (1, 0.0), (1, JUMP_NOISE))]  # fmt: skip
    return {
        "rate": _cells("rate", rate, [key | {"time": 150.0, "n_replicas": 12} for key in map_keys()]),
        "learning": _cells("learning", learning, [key | work for key in map_keys()]),
        "batch": _cells("learning", learning, [key | more for key in batches[:3]]),
        "package": _cells("outcome", outcome, [key | more for key in batches[3:]]),
        "growth": _cells("growth", growth, [key | {"time": 200.0, "n_replicas": 16} for key in known[::3]]),
        "check": _cells("rate", rate, [key | {"time": 200.0, "n_replicas": 16} for key in [*known, FADING]]),
        "amplitude": _cells("learning", learning, [GROWING | work | {"time": 1000.0} | start for start in STARTS]),
        "floor": _cells("learning", learning, [FADING | work | {"time": 1500.0} | floor for floor in floors]),
        "jump": [Cell("jump", key, jump, cost=2e4) for key in jumps],
    }


def _cells(name: str, function: Any, keys: list[dict[str, Any]]) -> list[Cell]:
    return [Cell(name, key, function, cost=key["n_inputs"] / key["lr_over_batch"] * key["n_replicas"]) for key in keys]


def finished(store: Store, cell: Cell) -> bool:
    """Whether a cell is in the store."""

    def missing() -> xr.Dataset:
        raise LookupError

    try:
        store.cell(cell.name, cell.config, missing)
    except LookupError:
        return False
    return True


def done(store: Store, groups: dict[str, list[Cell]]) -> dict[str, list[Cell]]:
    """Cells that are in the store; of the map only settings with both growth rate and outcome."""
    kept = {kind: [cell for cell in group if finished(store, cell)] for kind, group in groups.items()}
    pairs = [
        pair for pair in zip(groups["rate"], groups["learning"], strict=True) if all(finished(store, c) for c in pair)
    ]
    return kept | {"rate": [rate for rate, _ in pairs], "learning": [run for _, run in pairs]}


def main() -> None:
    """Compute what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/absorbing")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--partial", action="store_true", help="compute nothing, and write the table of what there is")
    args = parser.parse_args()
    store = Store(args.out, {"teacher": TEACHER, "amplitude": AMPLITUDE}, name="absorbing")
    groups = done(store, cells()) if args.partial else cells()
    flat = [cell for group in groups.values() for cell in group]
    with Progress() as bar, ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        task = bar.add_task("cells", total=len(flat))
        runs = execute(store, flat, seed=0, executor=pool, finished=lambda _: bar.advance(task))
    found = iter(runs)
    results = {kind: [next(found) for _ in group] for kind, group in groups.items()}
    table = gather(groups, results)
    write_netcdf(table, f"{args.out}/table.nc")
    print(table["map"].to_dataset()[["growth_rate", "n_learned"]])


if __name__ == "__main__":
    main()
