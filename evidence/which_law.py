"""Evidence: which law one trap obeys under each optimizer, noise and sampler.

Run with ``make evidence NAME=which_law``. One network (16 inputs and outputs, two hidden layers of 2 units, λ = 0.05)
has learned its first feature; every weight of the unused directions starts at 1e-6. Each row trains it in one way at
learning rates over batch sizes that span a decade, and notes when the second feature is half learned: beyond what a
turned first feature explains, for that grows too where nothing was learned. Finished cells are kept, so the same
command resumes; the small ``evidence/which_law/table.nc`` is committed, with the exit time of every replica.

Batch size 0 stands for the exact gradient: the control without noise. Near the end of the used channel's own stability
single replicas blow up: they count as watched until then, and are not escapes.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

import kramers_grok as kg
from kramers_grok.analysis.law_choice import LawChoice, choose_law
from kramers_grok.analysis.laws import ExitTimes
from kramers_grok.core.exceptions import DivergedError, ValidityWarning
from kramers_grok.core.noise import activation_noise
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.batching import Data
from kramers_grok.dynamics.optimizers import GradientDescent, Optimizer
from kramers_grok.dynamics.process import Record, State, Watch
from kramers_grok.dynamics.sampling import Sampler, ShuffledEpochs, WithoutReplacement, WithReplacement
from kramers_grok.models.data import FiniteData
from kramers_grok.plots.laws import arrhenius_trap, escape_laws, law_table
from kramers_grok.studies.files.store import Store, write_netcdf
from kramers_grok.studies.running.cells import Cell, execute, one_thread

INPUTS, WIDTH, WEIGHT_DECAY = 16, 2, 0.05
TEACHER = (2.0, 1.0, *[0.0] * (INPUTS - 2))
LABEL_NOISE = 4.0
N_SAMPLES = 512
AMPLITUDE = 1e-6
TARGET = kg.Region(0.5, feature=1)
BLOWN_UP = {"units": "1", "long_name": "blew up before it escaped"}
LARGEST = 40.0  # of the squared weights' sum: 5 in the trap, at most 20 in its fluctuations, then it runs away


@dataclass(frozen=True)
class Row:
    """One way of training.

    Attributes
    ----------
    name : str
    batches : tuple of int
        0 is the exact gradient.
    horizon : float    [time]
    optimizer : Optimizer
    lr : float
    sampler : Sampler, optional
        Of a finite data set; an online teacher if not given.
    label_noise, noise_variance, activation_variance : float
        s, g² and s_h².
    exact_gradient : bool
        The population's gradient at every batch size: noise comes from `noise_variance` alone.
    momentum : float
        μ: the long-run learning rate is η/(1 − μ).
    """

    name: str
    batches: tuple[int, ...]
    horizon: float
    optimizer: Optimizer = field(default_factory=GradientDescent)
    lr: float = 0.05
    sampler: Sampler | None = None
    label_noise: float = LABEL_NOISE
    noise_variance: float = 0.0
    activation_variance: float = 0.0
    exact_gradient: bool = False
    momentum: float = 0.0
    n_replicas: int = 40


FINE = (60, 25, 12, 10, 9, 8, 7, 6)
HEAT = 0.0075  # per-sample variance: ΔF/T = 2 at the smallest batch
WIDE = (20, 8, 6, 5, 4, 3, 2)
ROWS = (
    Row("minibatches", (0, *FINE), 1000.0, n_replicas=160),
    Row("minibatches, no label noise", (60, 20, 8, 6), 100.0, label_noise=0.0),
    Row("with replacement", (60, 10, 9, 8, 7, 6), 600.0, sampler=WithReplacement(), n_replicas=160),
    Row("without replacement", (60, 10, 9, 8, 7, 6), 600.0, sampler=WithoutReplacement(), n_replicas=160),
    Row("shuffled epochs", (60, 10, 8, 6, 5, 4), 600.0, sampler=ShuffledEpochs(), n_replicas=160),
    Row("momentum 0.9", (0, 60, 25, 16, 12, 10, 8, 7, 6), 30.0, kg.Momentum(0.9), lr=0.005, momentum=0.9),
    Row("isotropic, exact gradient", (0, 60, 18, 12, 10, 9, 8, 7, 6), 1.2e4,
        noise_variance=HEAT, label_noise=0.0, exact_gradient=True, n_replicas=160),
    Row("isotropic, minibatches", (12, 10, 8, 7, 6), 1000.0, noise_variance=HEAT, label_noise=0.0),
    Row("activation noise", WIDE, 600.0, label_noise=1.0, activation_variance=0.09, n_replicas=160),
    Row("the same without activation noise", (20, 6, 2), 100.0, label_noise=1.0),
    Row("Adam", (0, 1, 2, 4, 16, 64), 6.0, kg.Adam(), lr=0.001, label_noise=1.0),
    Row("AdamW", (0, 1, 4, 16, 64), 4.0, kg.AdamW(), lr=0.001, label_noise=1.0),
)  # fmt: skip


class Watched(kg.SGD):
    """Training whose second order parameter is what the network holds of the feature beyond the learned one.

    A replica that blows up is put to rest at 0, where it stays, and its time is noted in `blown_up` by its number.
    """

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.blown_up: dict[int, float] = {}

    def advance(self, state: State, n_steps: int, watch: Watch | None = None) -> tuple[State, Record]:
        """Advance, and put to rest what has blown up."""
        moved, record = super().advance(state, n_steps, watch)
        calm = moved.theta.square().sum(dim=1) < LARGEST  # false for NaN
        if bool(calm.all()):
            return moved, record
        for number in moved.streams[~calm].tolist():
            self.blown_up.setdefault(number, moved.step * self.dt)
        buffers = {
            name: torch.where(calm.reshape(-1, *[1] * (b.ndim - 1)), b, 0.0) if b.is_floating_point() else b
            for name, b in moved.buffers.items()
        }
        return replace(moved, theta=torch.where(calm[:, None], moved.theta, 0.0), buffers=buffers), record

    def order_parameters(self, theta: Tensor) -> Tensor:
        """M_11 and M_22 − M_21 M_12/M_11 of the map M between the two features; the teacher is diagonal."""
        first, middle, last = torch.split(theta, [WIDTH * INPUTS, WIDTH * WIDTH, INPUTS * WIDTH], dim=1)
        below = first.reshape(-1, WIDTH, INPUTS).narrow(2, 0, 2)
        above = last.reshape(-1, INPUTS, WIDTH).narrow(1, 0, 2)
        m = torch.bmm(torch.bmm(above, middle.reshape(-1, WIDTH, WIDTH)), below)
        m00, m01, m10, m11 = (m.select(1, i).select(1, j) for i in (0, 1) for j in (0, 1))
        # Without a first feature there is nothing that could turn, and nothing to divide by.
        turned = torch.where(m00 > 0.1, m01 * m10 / m00.clamp_min(0.1), m11)
        return torch.stack([m00, m11 - turned], dim=1)


def finite_data() -> FiniteData:
    """White inputs, and label noise that they do not explain: the full batch's gradient is the population's."""
    rng = np.random.default_rng(0)
    x = np.linalg.qr(rng.normal(size=(N_SAMPLES, INPUTS)))[0] * N_SAMPLES**0.5
    noise = LABEL_NOISE * rng.normal(size=(N_SAMPLES, INPUTS))
    noise -= x @ (x.T @ noise) / N_SAMPLES
    return kg.finite(x, x @ np.diag(TEACHER) + noise)


def network() -> kg.DeepLinearNetwork:
    """Return the network of all rows."""
    return kg.DeepLinearNetwork((INPUTS, WIDTH, WIDTH, INPUTS), np.diag(TEACHER), weight_decay=WEIGHT_DECAY)


def collapsed(n_replicas: int) -> NDArray[np.float64]:
    """Return the trap: the first feature learned, small random weights elsewhere."""
    learned = network().ordered_state([0]).numpy()
    small = AMPLITUDE * np.random.default_rng(1).normal(size=(n_replicas, learned.size))
    return np.asarray(np.where(learned == 0.0, small, learned))


def training(row: Row, batch: int) -> kg.SGD:
    """Return the process of one row at one batch size."""
    given: dict[str, Any] = {"lr": row.lr, "optimizer": row.optimizer, "device": "cpu"}
    if row.noise_variance and batch:
        given["noise"] = kg.per_sample(variance=row.noise_variance)
    if row.exact_gradient or not batch:
        return kg.SGD(network(), kg.population(), batch_size=max(batch, 1), **given)
    if row.activation_variance:
        given["activation_noise"] = activation_noise(variance=row.activation_variance)
    data: Data = finite_data() if row.sampler else kg.teacher(label_noise=row.label_noise)
    return Watched(network(), data, batch_size=batch, sampler=row.sampler, **given)


def run(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Wait for the escapes of one cell."""
    row = next(r for r in ROWS if r.name == config["row"])
    process, batch, n = training(row, int(config["batch"])), int(config["batch"]), row.n_replicas
    horizon = row.horizon if batch else min(row.horizon, 400.0)
    ds = kg.first_passage(process, target=TARGET, n_replicas=n, max_time=horizon, seed=seed, start=collapsed(n))
    blown = process.blown_up if isinstance(process, Watched) else {}
    lost = np.isin(np.arange(n), list(blown))
    until = np.array([min(float(ds.horizon), blown.get(i, np.inf)) for i in range(n)])
    ds["exit_time"] = ds.exit_time.copy(data=np.where(lost, until, ds.exit_time.values))
    ds["escaped"] = ds.escaped.copy(data=ds.escaped.values & ~lost)
    ds["blown_up"] = ("replica", lost, BLOWN_UP)
    ds["lr_over_batch"] = ((), row.lr / (1 - row.momentum) / batch if batch else 0.0, describe("lr_over_batch"))
    return ds


def growth(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Growth rate of the unused directions of the first row at one batch size: one unit, and no run of this script."""
    row, batch = ROWS[0], int(config["batch"])
    process = kg.SGD(network(), kg.teacher(label_noise=row.label_noise), lr=row.lr, batch_size=batch, device="cpu")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ValidityWarning)
            found = kg.growth_rate(process, n_steps=config["n_steps"], n_replicas=config["n_replicas"], seed=seed)
    except DivergedError:
        return xr.Dataset(attrs={"failed": "DivergedError"})
    names = ["growth_rate", "growth_rate_error"]
    return found[names].assign_attrs(verdict=str(found.verdict.item()), n_lost=found.attrs["n_lost"])


def growth_rates(cells: Sequence[Cell], found: Sequence[xr.Dataset]) -> xr.Dataset:
    """Growth rates against η/B; NaN where backgrounds diverge."""
    none = np.full(2, np.nan)
    variables = {
        name: (
            ("condition", "hidden_layer"),
            np.array([none if "failed" in ds.attrs else ds[name].values for ds in found]),
            describe(name),
        )
        for name in ("growth_rate", "growth_rate_error")
    }
    sizes = [int(cell.config["batch"]) for cell in cells]
    ratio = ("condition", [ROWS[0].lr / size for size in sizes], describe("lr_over_batch"))
    return xr.Dataset(variables | {"lr_over_batch": ratio, "batch_size": ("condition", sizes, describe("batch_size"))})


def tables(rows: Sequence[Row], found: Sequence[xr.Dataset]) -> xr.DataTree:
    """One group for each row: exit times of every replica at every batch size."""
    results = iter(found)
    groups = {}
    for row in rows:
        runs = [next(results) for _ in row.batches]
        both = ("condition", "replica")
        groups[f"/{row.name}"] = xr.Dataset(
            {
                "exit_time": (both, [r.exit_time.values / (1 - row.momentum) for r in runs], describe("exit_time")),
                "escaped": (both, [r.escaped.values for r in runs], describe("escaped")),
                "lr_over_batch": ("condition", [float(r.lr_over_batch) for r in runs], describe("lr_over_batch")),
                "batch_size": ("condition", list(row.batches), describe("batch_size")),
                "horizon": ("condition", [float(r.horizon) / (1 - row.momentum) for r in runs], describe("horizon")),
                "blown_up": (both, [r.blown_up.values for r in runs], BLOWN_UP),
            },
            attrs={
                "optimizer": repr(row.optimizer), "lr": row.lr, "noise_variance": row.noise_variance,
                "activation_variance": row.activation_variance, "momentum": row.momentum,
                "label_noise": 0.0 if row.exact_gradient else row.label_noise,
                "sampler": repr(row.sampler) if row.sampler else "online",
                "exact_gradient": int(row.exact_gradient),
            },
        )  # fmt: skip
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = {
        "weight_decay": WEIGHT_DECAY, "inputs": INPUTS, "width": WIDTH, "amplitude": AMPLITUDE,
        "barrier": float(network().theory.barrier(1).height), "n_samples": N_SAMPLES,
    }  # fmt: skip
    return tree


SHOWN = {
    "minibatches": "minibatches",
    "minibatches, no label noise": "no label noise",
    "shuffled epochs": "shuffled epochs",
    "isotropic, exact gradient": "isotropic noise",
    "activation noise": "activation noise",
    "Adam": "Adam",
    "AdamW": "AdamW",
}


def described(row: Row) -> dict[str, str]:
    """What is trained with what: the columns of the law table."""
    noise = [] if row.exact_gradient else ["minibatches"]
    noise += [f"labels {row.label_noise:g}"] if row.label_noise and not row.exact_gradient else []
    noise += ["every gradient"] if row.noise_variance else []
    noise += ["activations"] if row.activation_variance else []
    sampler = "–" if row.exact_gradient else "online" if row.sampler is None else type(row.sampler).__name__
    return {"optimizer": type(row.optimizer).__name__, "noise": ", ".join(noise), "sampler": sampler}


def chosen(tree: xr.DataTree) -> dict[str, LawChoice]:
    """Choose the law of each row, and note it in the tree."""
    choices = {}
    for name, node in tree.children.items():
        r = node.to_dataset()
        choice = choose_law(ExitTimes.of(r.lr_over_batch, r.exit_time, r.escaped), seed=0)
        choices[name] = choice
        node.attrs |= {"verdict": choice.verdict, "reason": choice.reason, "misfit": choice.misfit}
        print(f"{name}: {choice.verdict}: {choice.reason}; misfit {choice.misfit:.2f}")
    tree.attrs["law_table"] = law_table(choices, {row.name: described(row) for row in ROWS})
    print(tree.attrs["law_table"])
    return choices


def figure(choices: Mapping[str, LawChoice], path: str) -> None:
    """Draw the rows with their laws beside a threshold that lies on an Arrhenius line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn, (left, right) = plt.subplots(1, 2, figsize=(12.0, 4.6), layout="constrained", width_ratios=(1.5, 1))
    escape_laws({text: choices[name] for name, text in SHOWN.items()}, left, relative=True)
    left.set_title("one trap, seven ways of training", fontsize="medium")
    left.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    x = 1 + np.geomspace(0.1, 10, 9)
    scatter = np.random.default_rng(0).weibull(4.0, size=(x.size, 48))
    planted = ExitTimes.of(x, scatter / (x - 1)[:, None], np.full(scatter.shape, True))
    arrhenius_trap(choose_law(planted, seed=0), right)
    right.set_title("what R² cannot tell: a threshold, no barrier", fontsize="medium")
    drawn.savefig(path, dpi=150)


def main() -> None:
    """Compute what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/which_law")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--figure", default="docs/_static/which_law.png")
    parser.add_argument("--rows", nargs="*", help="only these, and no table")
    args = parser.parse_args()
    rows = [r for r in ROWS if not args.rows or r.name in args.rows]
    cells = [
        Cell(
            "law",
            {"row": row.name, "batch": b, "settings": replace(row, batches=()), "inputs": INPUTS},
            run,
            cost=row.horizon / row.lr,
        )
        for row in rows
        for b in row.batches
    ]
    rates = [
        Cell("growth", {"row": ROWS[0].name, "batch": b, "settings": replace(ROWS[0], batches=()), "inputs": INPUTS,
                        "n_steps": 10_000, "n_replicas": 48}, growth, cost=2e4)
        for b in ROWS[0].batches if b and not args.rows
    ]  # fmt: skip
    store = Store(args.out, {"weight_decay": WEIGHT_DECAY, "amplitude": AMPLITUDE}, name="which_law")
    with Progress() as bar, ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        task = bar.add_task("cells", total=len(cells) + len(rates))
        everything = execute(store, [*cells, *rates], seed=0, executor=pool, finished=lambda _: bar.advance(task))
    found, grown = everything[: len(cells)], everything[len(cells) :]
    for cell, ds in zip(cells, found, strict=True):
        left = ds.exit_time.values[ds.escaped.values]
        median = f", median of these {np.median(left):.4g}" if left.size else ""
        lost = int(ds.blown_up.sum())
        blown = f", {lost} blew up" if lost else ""
        print(f"{cell.config['row']:28} B = {cell.config['batch']:3}: {left.size} of {ds.sizes['replica']} by "
              f"t = {float(ds.horizon):.4g}{median}{blown}")  # fmt: skip
    if not args.rows:
        tree = tables(rows, found)
        choices = chosen(tree)
        tree["growth rates"] = xr.DataTree(growth_rates(rates, grown))
        write_netcdf(tree, f"{args.out}/table.nc")
        figure(choices, args.figure)


if __name__ == "__main__":
    main()
