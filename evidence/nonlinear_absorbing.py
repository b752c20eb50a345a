"""Evidence: which symmetric states of nonlinear networks minibatches can leave.

Run with ``make evidence NAME=nonlinear_absorbing``: minutes. Finished cells are kept, so the same command resumes, and
the small ``evidence/nonlinear_absorbing/table.nc`` is committed.

``state``: states by activation function, the set that minibatches cannot leave around each, its growth rate on the full
batch, under weak and under strong noise, and what becomes of whole networks that start 1e-6 off it. ``map``: the growth
rate beside states whose units are alike against η/B, whole networks again, and whether the state itself lasts.
``pair``: beside the unlearned state of one hidden layer, one input and one output, where the exponent is a mean
logarithm. ``law``: from the unlearned state, is something learned, and by which law? Growth rates come from pairs of
trajectories under the same batches (`transverse_growth`), whole networks are plain SGD under others: the two share
model, data and step, and no run.

Data: 512 samples, 8 whitened inputs and 8 outputs, singular values 2 and 1, labels with noise that the inputs do not
explain; for the laws 256 samples, 2 inputs. Batches are drawn with replacement, D = 3 but where it says 2.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from rich.progress import Progress
from scipy.optimize import minimize
from torch import Tensor

import kramers_grok as kg
from kramers_grok.analysis.law_choice import choose_law
from kramers_grok.analysis.laws import ExitTimes
from kramers_grok.core.exceptions import DivergedError, ValidityWarning
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.sampling import FullBatch
from kramers_grok.dynamics.transverse import transverse_growth
from kramers_grok.landscape.symmetries.invariant_sets import InvariantSet, invariant_set
from kramers_grok.models.activations import GELU, Activation, Identity, Quadratic, ReLU, Softplus, Tanh
from kramers_grok.models.data import FiniteData
from kramers_grok.plots.laws import law_table
from kramers_grok.studies.files.store import Store, write_netcdf
from kramers_grok.studies.running.cells import Cell, execute, one_thread

Array = NDArray[np.float64]
ACTIVATIONS: dict[str, Activation] = {
    "linear": Identity(), "tanh": Tanh(), "GELU": GELU(), "ReLU": ReLU(), "softplus": Softplus(),
    "quadratic": Quadratic(),
}  # fmt: skip
LR, DECAY = 0.05, 0.1
AMPLITUDE = 1e-6
WEAK, STRONG = 64, 4  # batch sizes
LASTING = 0.25  # of the function that the state has learned
LEFT = 0.2  # distance from the set that counts as having left, in units of the state's norm
TIME = 400.0


def task(inputs: int, values: Sequence[float], label_noise: float, n_samples: int, *, even: bool = False) -> FiniteData:
    """White inputs, label noise that they and a constant do not explain; labels even in the inputs if asked."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n_samples, inputs))
    x = np.linalg.qr(x - x.mean(axis=0))[0] * n_samples**0.5
    clean = np.square(x[:, :1]) - 1 if even else x[:, : len(values)] * values
    clean = np.pad(clean, ((0, 0), (0, 0 if even else inputs - len(values))))
    noise = label_noise * rng.normal(size=clean.shape)
    noise -= noise.mean(axis=0)
    return kg.finite(x, clean + noise - x @ (x.T @ noise) / n_samples)


WIDE = {"inputs": 8, "values": (2.0, 1.0), "label_noise": 3.0, "n_samples": 512}
SMALL = {"inputs": 2, "values": (1.5, 1.0), "label_noise": 0.5, "n_samples": 256}


def network(config: Mapping[str, Any], given: Mapping[str, Any]) -> kg.MLP:
    """The network of a row."""
    quadratic = config["activation"] == "quadratic"
    data = task(given["inputs"], given["values"], given["label_noise"], given["n_samples"], even=quadratic)
    hidden = (int(config["width"]),) * int(config.get("hidden_layers", 1 if quadratic else 2))
    activation = ACTIVATIONS[str(config["activation"])]
    decay = float(config["weight_decay"])
    return kg.MLP.from_data(data, hidden, activation, weight_decay=decay, biases=bool(config["biases"]))


# ---------------------------------------------------------------- states


def zero(network: kg.MLP) -> Array:
    """All weights 0."""
    return np.zeros(network.n_parameters)


def alike(network: kg.MLP) -> Array:
    """All hidden units alike, along the first feature."""
    return _written(network, lambda layer, first, last: layer.copy_(_pattern(layer, first, last)))


def one_used(network: kg.MLP) -> Array:
    """One unit of each hidden layer used, all weights of the others 0."""

    def write(layer: Tensor, first: bool, last: bool) -> None:
        layer[:, 0, 0] = 1.2

    return _written(network, write)


def rank_one(network: kg.MLP) -> Array:
    """Every layer of rank one, its units unlike: multiples of one another."""

    def write(layer: Tensor, first: bool, last: bool) -> None:
        above, below = (1.0 + 0.5 * torch.arange(n, dtype=layer.dtype) for n in layer.shape[1:])
        above, below = (v / v.norm() for v in (above, below))
        layer[:] = 1.2 * torch.outer(
            torch.eye(len(above))[0] if last else above, torch.eye(len(below))[0] if first else below
        )

    return _written(network, write)


def dead_on_data(network: kg.MLP) -> Array:
    """One unit of the only hidden layer switched off on every sample by its bias."""
    theta = torch.as_tensor(one_used(network))[None].clone()
    network.layers(theta)[0][:, 1, 0] = 0.5
    network.bias_vectors(theta)[0][:, 1] = -4.0
    return theta[0].numpy()


def _written(network: kg.MLP, write: Callable[[Tensor, bool, bool], Any]) -> Array:
    theta = torch.zeros(1, network.n_parameters, dtype=torch.float64)
    layers = network.layers(theta)
    for index, layer in enumerate(layers):
        write(layer, index == 0, index == len(layers) - 1)
    return theta[0].numpy()


def _pattern(layer: Tensor, first: bool, last: bool) -> Tensor:
    pattern = torch.zeros_like(layer)
    rows = slice(0, 1) if last else slice(None)
    columns = slice(0, 1) if first else slice(None)
    pattern[:, rows, columns] = 1.0 if first or last else 0.7
    return pattern


STATES: dict[str, Callable[[kg.MLP], Array]] = {
    "unlearned": zero, "one unit used": one_used, "units alike": alike, "rank one": rank_one,
    "dead on the data": dead_on_data,
}  # fmt: skip


def settled(model: kg.MLP, start: Array) -> InvariantSet:
    """The set through a start, around the point where full-batch descent within it ends."""
    around = invariant_set(model, start, seed=0)
    if not around.dimension or not around.codimension:
        return around
    basis = torch.as_tensor(around.basis)

    def restricted(coordinates: Array) -> tuple[float, Array]:
        theta = (basis @ torch.as_tensor(coordinates))[None]
        return model.energy(theta).item(), (model.gradient(theta)[0] @ basis).numpy()

    found = minimize(restricted, around.basis.T @ around.point, jac=True, method="L-BFGS-B",
                     options={"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-16, "gtol": 1e-10})  # fmt: skip
    # Symmetric to rounding only: what rounding broke is not to be taken for another set.
    return invariant_set(model, around.basis @ found.x, seed=0, tolerance=1e-8)


# ---------------------------------------------------------------- cells


def exponent(
    process: kg.SGD, around: InvariantSet, *, seed: int, n_steps: int = 3000, burn_in: int | None = None
) -> dict[str, float]:
    """Growth rate, its error, and the background's norm over the state's; NaN where it cannot be measured."""
    if not around.codimension:
        return dict.fromkeys(("growth_rate", "growth_rate_error", "background_norm"), np.nan)
    still = isinstance(process.sampler, FullBatch)
    n_steps, replicas = (256, 8) if still else (n_steps, 16)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ValidityWarning)
            found = transverse_growth(process, around, n_steps=n_steps, n_replicas=replicas, seed=seed, burn_in=burn_in)
    except DivergedError:
        return dict.fromkeys(("growth_rate", "growth_rate_error", "background_norm"), np.nan)
    return {
        "growth_rate": float(found.growth_rate[0]),
        "growth_rate_error": float(found.growth_rate_error[0]),
        "background_norm": float(found.background_norm.mean()),
    }


def whole(process: kg.SGD, around: InvariantSet, *, seed: int, amplitude: float = AMPLITUDE) -> dict[str, float]:
    """Of 16 networks that start off the set: how many leave it, and the largest distance at the end."""
    n, size = 16, max(float(np.linalg.norm(around.point)), 1.0)
    start = around.point + amplitude * np.random.default_rng(seed).normal(size=(n, around.n_parameters))
    state = process.start(n, seed=seed + 1, point=start)  # other batches than those of the growth rate
    left, gone = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    distance = np.zeros(n)
    for _ in range(40):
        state, _record = process.advance(state, int(TIME / LR / 40))
        gone |= ~torch.isfinite(state.theta).all(dim=1).numpy()
        distance = around.distance(state.theta)
        with np.errstate(invalid="ignore"):
            left |= (distance > LEFT * size) & ~gone
    far = float(distance[~gone].max()) if not gone.all() else np.nan
    return {"n_left": int(left.sum()), "n_gone": int(gone.sum()), "distance": far}


def state(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """One state: its set, its growth rate, and whole networks."""
    model = network(config, WIDE)
    start = STATES[str(config["state"])](model)
    # Weights into a dead unit decay, and what decays has no state to settle in: a short look from the start.
    brief = config["state"] == "dead on the data"
    around = invariant_set(model, start, seed=0) if brief else settled(model, start)
    process = kg.SGD(model, model.data, lr=LR, device="cpu")  # type: ignore[arg-type]
    length = {"n_steps": 512, "burn_in": 0} if brief else {}
    values: dict[str, Any] = {
        "dimension": around.dimension, "codimension": around.codimension, "order": around.order, "noise": around.noise,
    }  # fmt: skip
    still = exponent(process, around, seed=seed, **length)
    values |= {"growth_rate": [still["growth_rate"]], "growth_rate_error": [still["growth_rate_error"]]}
    values |= {"n_left": [], "n_gone": [], "stays": []}
    for size in (WEAK, STRONG):
        noisy = process.replace(batch_size=size)
        for name, value in exponent(noisy, around, seed=seed, **length).items():
            values.setdefault(name, []).append(value)
        # Without a set there is nothing to leave, and no run: −1.
        found = whole(noisy, around, seed=seed) if around.codimension else {"n_left": -1, "n_gone": -1}
        exact = whole(noisy, around, seed=seed, amplitude=0.0) if around.codimension else {"distance": np.nan}
        values["n_left"].append(found["n_left"])
        values["n_gone"].append(found["n_gone"])
        values["stays"].append(exact["distance"])
    along = {"growth_rate": "noise_level", "growth_rate_error": "noise_level", "n_left": "batch", "n_gone": "batch",
             "stays": "batch", "background_norm": "batch"}  # fmt: skip
    return xr.Dataset({name: (along[name], value) if name in along else ((), value) for name, value in values.items()})


def point(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Growth rate beside units that are alike at one batch size, whole networks, and how many backgrounds last."""
    model = network(config, WIDE)
    around, size = settled(model, alike(model)), int(config["batch"])
    process = kg.SGD(model, model.data, lr=LR, batch_size=size or None, device="cpu")  # type: ignore[arg-type]
    found = exponent(process, around, seed=seed) | whole(process, around, seed=seed)
    # In the set, at the end of as long a run: between the function of the unlearned state, 0, and that of this one, 1.
    measured = model.between(settled(model, zero(model)).point, around.point)
    state = process.start(16, seed=seed + 2, point=around.point)
    inside = torch.as_tensor(around.basis @ around.basis.T)
    for _ in range(20):
        state, _record = process.advance(state, 190)
        state = replace(state, theta=state.theta @ inside)
    m = measured.order_parameters(state.theta)[:, 0].numpy()
    return xr.Dataset(found | {"n_lasting": int((m > LASTING).sum()), "order_parameter": float(m.mean())})


def pair(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Growth rate beside an unlearned state that the full batch leaves, beside the mean logarithm, and networks."""
    data, size = task(1, (1.0,), 4.0, 512), int(config["batch"])
    decay = float(config["weight_decay"])
    model = kg.MLP.from_data(data, (4,), Tanh(), weight_decay=decay)
    process = kg.SGD(model, data, lr=LR, batch_size=size or None, device="cpu")
    around = invariant_set(model, zero(model), seed=0)
    k = (data.x * data.y)[:, 0]
    rng = np.random.default_rng(seed)
    means = np.array([k.mean()]) if not size else k[rng.integers(k.size, size=(200_000, size))].mean(axis=1)
    exact = max(np.log(np.abs(1 - LR * decay + sign * LR * means)).mean() / LR for sign in (1, -1))
    return xr.Dataset(
        exponent(process, around, seed=seed) | whole(process, around, seed=seed) | {"mean_logarithm": float(exact)}
    )


def escape(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Exit times from the unlearned state: half way to the state whose units are alike, as a function on the data."""
    model = network(config, SMALL)
    low = settled(model, zero(model)).point
    high = settled(model, 1.2 * alike(model)).point
    size, heat = int(config["batch"]), float(config["noise_variance"])
    noise = kg.per_sample(variance=heat) if heat and size else None
    process = kg.SGD(model.between(low, high), model.data, lr=0.1, batch_size=size or None, noise=noise, device="cpu")  # type: ignore[arg-type]
    n = 40
    start = low + 1e-3 * np.random.default_rng(1).normal(size=(n, low.size))
    horizon = float(config["horizon"]) if size else 200.0
    run = kg.first_passage(process, target=kg.Region(0.5), n_replicas=n, max_time=horizon, seed=seed, start=start)
    return run[["exit_time", "escaped"]].reset_coords(drop=True)


# ---------------------------------------------------------------- what is asked


@dataclass(frozen=True)
class Row:
    """A network, the state it starts in, and the batch sizes of the laws."""

    activation: str
    state: str = "unlearned"
    biases: bool = False
    width: int = 2
    weight_decay: float = DECAY
    shallow: bool = False
    batches: tuple[int, ...] = ()
    noise_variance: float = 0.0
    horizon: float = 1000.0

    @property
    def key(self) -> dict[str, Any]:
        """What a cell is known by."""
        names = ("activation", "biases", "width", "weight_decay")
        return {name: getattr(self, name) for name in names} | ({"hidden_layers": 1} if self.shallow else {})

    @property
    def name(self) -> str:
        """In words."""
        return (
            self.activation
            + (", biases" if self.biases else "")
            + (", per-sample noise" if self.noise_variance else "")
        )


NAMES = ("linear", "tanh", "GELU", "ReLU", "softplus")
ROWS = (
    *(Row(name) for name in (*NAMES, "quadratic")), Row("tanh", biases=True),
    *(Row(name, "one unit used") for name in NAMES), Row("tanh", "one unit used", biases=True),
    *(Row(name, "units alike") for name in NAMES if name != "ReLU"), Row("tanh", "units alike", biases=True),
    *(Row(name, "rank one") for name in ("linear", "tanh")), Row("ReLU", "dead on the data", biases=True, shallow=True),
)  # fmt: skip
MAPPED = ("tanh", "GELU", "softplus")
MAP_BATCHES = (0, 64, 32, 16, 8, 4, 2)
PAIR_BATCHES, PAIR_DECAY = (0, 64, 32, 16, 8, 4, 2, 1), 0.9
FEW, MANY = (0, 1, 2, 4, 8), (0, 4, 6, 8, 10, 12, 14, 16)
LAWS = (
    *(Row(name, width=3, weight_decay=0.1, batches=FEW) for name in ("linear", "GELU", "ReLU")),
    Row("quadratic", width=3, weight_decay=0.05, batches=FEW),
    Row("tanh", biases=True, width=3, batches=FEW),
    Row("tanh", width=3, weight_decay=0.2, batches=FEW),
    Row("softplus", width=3, weight_decay=0.06, batches=MANY),
    Row("tanh", width=3, weight_decay=0.2, batches=(0, 2, 3, 4, 5, 6), noise_variance=0.02),
)


def cells() -> dict[str, list[Cell]]:
    """All cells, by kind of question."""
    common = {"lr": LR, "time": TIME, "amplitude": AMPLITUDE}
    states = [Cell("state", row.key | common | {"state": row.state}, state, cost=6e3) for row in ROWS]
    mapped = [Cell("map", Row(name).key | common | {"batch": b}, point, cost=1e3 + 40.0 * (b or 512))
              for name in MAPPED for b in MAP_BATCHES]  # fmt: skip
    laws = [Cell("law", row.key | {"batch": b, "noise_variance": row.noise_variance, "horizon": row.horizon}, escape,
                 cost=row.horizon * (4 + (b or 50))) for row in LAWS for b in row.batches]  # fmt: skip
    pairs = [Cell("pair", common | {"weight_decay": PAIR_DECAY, "batch": b}, pair, cost=1e3) for b in PAIR_BATCHES]
    return {"state": states, "map": mapped, "pair": pairs, "law": laws}


# ---------------------------------------------------------------- tables


def states_table(found: Sequence[xr.Dataset]) -> xr.Dataset:
    """All states along one dimension."""
    table = xr.concat(found, "row").assign_coords(
        batch=("batch", [WEAK, STRONG], {"units": "samples", "long_name": "batch size"}),
        noise_level=("noise_level", [0.0, LR / WEAK, LR / STRONG], describe("lr_over_batch")),
    )
    table["activation"] = ("row", [row.activation + (", biases" if row.biases else "") for row in ROWS])
    table["state"] = ("row", [row.state for row in ROWS])
    return table


def map_table(found: Sequence[xr.Dataset]) -> xr.Dataset:
    """Growth rates along activation functions and batch sizes."""
    shape = (len(MAPPED), len(MAP_BATCHES))
    variables = {
        str(name): (("activation", "condition"), np.reshape([float(ds[name]) for ds in found], shape))
        for name in found[0]
    }
    ratio = [LR / b if b else 0.0 for b in MAP_BATCHES]
    return xr.Dataset(
        variables, coords={"activation": list(MAPPED), "lr_over_batch": ("condition", ratio, describe("lr_over_batch"))}
    )


def pair_table(found: Sequence[xr.Dataset]) -> xr.Dataset:
    """Growth rates along batch sizes."""
    variables = {str(name): ("condition", [float(ds[name]) for ds in found]) for name in found[0]}
    ratio = [LR / b if b else 0.0 for b in PAIR_BATCHES]
    return xr.Dataset(variables, coords={"lr_over_batch": ("condition", ratio, describe("lr_over_batch"))})


def law_tables(found: Sequence[xr.Dataset]) -> dict[str, xr.Dataset]:
    """One data set for each row of the law table; the choice is noted in its attributes."""
    results, tables = iter(found), {}
    for row in LAWS:
        runs = [next(results) for _ in row.batches]
        both = ("condition", "replica")
        tables[row.name] = xr.Dataset(
            {
                "exit_time": (both, [r.exit_time.values for r in runs], describe("exit_time")),
                "escaped": (both, [r.escaped.values for r in runs], describe("escaped")),
                "lr_over_batch": ("condition", [0.1 / b if b else 0.0 for b in row.batches], describe("lr_over_batch")),
            }
        )
    return tables


def chosen(tables: Mapping[str, xr.Dataset]) -> str:
    """The law of each row as a Markdown table."""
    choices = {
        name: choose_law(ExitTimes.of(t.lr_over_batch, t.exit_time, t.escaped), seed=0) for name, t in tables.items()
    }
    for name, choice in choices.items():
        tables[name].attrs |= {"verdict": choice.verdict, "reason": choice.reason, "misfit": choice.misfit}
        print(f"{name}: {choice.verdict}: {choice.reason}; misfit {choice.misfit:.2f}")
    return law_table(choices, {row.name: {"λ": f"{row.weight_decay:g}"} for row in LAWS})


def main() -> None:
    """Compute what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/nonlinear_absorbing")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    store = Store(args.out, {"lr": LR, "weight_decay": DECAY}, name="nonlinear_absorbing")
    groups = cells()
    flat = [cell for group in groups.values() for cell in group]
    with Progress() as bar, ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        task_id = bar.add_task("cells", total=len(flat))
        runs = iter(execute(store, flat, seed=0, executor=pool, finished=lambda _: bar.advance(task_id)))
    results = {kind: [next(runs) for _ in group] for kind, group in groups.items()}
    laws = law_tables(results["law"])
    tree = xr.DataTree.from_dict({
        "/states": states_table(results["state"]), "/map": map_table(results["map"]),
        "/pair": pair_table(results["pair"]),
        **{f"/laws/{name}": table for name, table in laws.items()},
    })  # fmt: skip
    tree.attrs = {"law_table": chosen(laws), "lr": LR, "weight_decay": DECAY, "amplitude": AMPLITUDE, "time": TIME}
    for name in laws:
        tree[f"laws/{name}"].attrs = laws[name].attrs
    write_netcdf(tree, f"{args.out}/table.nc")
    print(tree.attrs["law_table"])


if __name__ == "__main__":
    main()
