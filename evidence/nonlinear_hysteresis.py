"""Evidence: hysteresis and staircases of nonlinear networks, on teacher data and on digits.

Run with ``make evidence NAME=nonlinear_hysteresis``. Every cell is one loop, up and down in weight decay, of a network
with three layers of weights; finished cells are kept, so the same command resumes, and the small
``evidence/nonlinear_hysteresis/table.nc`` is committed.

All samples are one batch and there is no noise. Between two jumps the minimum is followed by a quasi-Newton iteration
on a leash, jumps are passed by plain gradient descent, and the last point before each is certified as a minimum
(`Settling` with ``quasi_newton=True``). λ-steps of 4 %, each step with a jump halved four times; random kicks at every
value.

Predictions: ``linear``, the spinodals of the singular values of the input-output covariance (with the input variance
in each feature's own direction); ``slope``, times the activation's slope at 0; ``gain``, with units that saturate;
``chain``, one feature on its own with the whole activation function, the only one left at the end.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from rich.progress import Progress

import kramers_grok as kg
from kramers_grok.escape.protocols import Settling, hysteresis_loop, stable_lr
from kramers_grok.models.activations import GELU, Activation, Identity, Tanh
from kramers_grok.models.data import FiniteData, autoencoding, digits, finite, linear_teacher_data, whitened
from kramers_grok.models.mlp import MLP
from kramers_grok.studies.files.store import Store, write_netcdf
from kramers_grok.studies.running.cells import Cell, execute, one_thread
from kramers_grok.theory.mode_states import learned_amplitude, spinodal
from kramers_grok.theory.nonlinear_features import chain_spinodal, gain_spinodals, slope_factor

Array = NDArray[np.float64]

TEACHER = (1.6, 1.3, 1.0, 0.8)
N_SAMPLES = 256
N_IMAGES = 300
COMPONENTS = 5
ACTIVATIONS: dict[str, Activation] = {"identity": Identity(), "tanh": Tanh(), "gelu": GELU()}
#: Fractions of the weakest slope-corrected spinodal and multiples of the strongest at which a loop begins and ends.
LOWEST = {"identity": 0.9, "tanh": 0.5, "gelu": 0.8}
HIGHEST = {"identity": 1.05, "tanh": 1.05, "gelu": 1.6}
DIGITS_HIGHEST = 2.7  # for GELU, which holds features of digits longer
STEP = 0.04
BISECTIONS = 4
KICK = 1e-3
SAFE = 0.4  # of the largest stable learning rate at the start: curvatures differ along the way


@dataclass(frozen=True)
class Case:
    """One network and its task."""

    task: str
    activation: str
    hidden: int


CASES = {
    "teacher-identity-8": Case("teacher", "identity", 8),
    "teacher-tanh-4": Case("teacher", "tanh", 4),
    "teacher-tanh-8": Case("teacher", "tanh", 8),
    "teacher-tanh-16": Case("teacher", "tanh", 16),
    "teacher-gelu-8": Case("teacher", "gelu", 8),
    "teacher-gelu-12": Case("teacher", "gelu", 12),
    "tanh-teacher-tanh-8": Case("tanh-teacher", "tanh", 8),
    "classify-white-identity-10": Case("classify-white", "identity", 10),
    "classify-white-tanh-10": Case("classify-white", "tanh", 10),
    "classify-white-gelu-10": Case("classify-white", "gelu", 10),
    "classify-identity-10": Case("classify", "identity", 10),
    "classify-tanh-10": Case("classify", "tanh", 10),
    "classify-gelu-10": Case("classify", "gelu", 10),
    "autoencode-identity-10": Case("autoencode", "identity", 10),
    "autoencode-tanh-10": Case("autoencode", "tanh", 10),
    "autoencode-gelu-10": Case("autoencode", "gelu", 10),
}


@cache
def images() -> tuple[Array, Array]:
    """Principal components of some digits, pixels scaled to [0, 1], and one-hot labels; both centred."""
    from sklearn.datasets import load_digits

    pixels = digits() / 16
    chosen = np.random.default_rng(0).permutation(len(pixels))[:N_IMAGES]
    x = pixels[chosen] - pixels[chosen].mean(axis=0)
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    labels = np.eye(10)[np.asarray(load_digits().target)[chosen]]
    return np.asarray(x @ axes[:COMPONENTS].T), np.asarray(labels - labels.mean(axis=0))


@cache
def data_of(task: str) -> FiniteData:
    """Samples of a task."""
    if task == "teacher":
        return linear_teacher_data(TEACHER, n_samples=N_SAMPLES, label_noise=0.0, seed=1, whiten=True)
    if task == "tanh-teacher":
        x = linear_teacher_data(TEACHER, n_samples=N_SAMPLES, label_noise=0.0, seed=1, whiten=True).x
        return finite(x, np.tanh(x) * np.array([3.0, 2.4, 1.9, 1.5]))
    x, labels = images()
    if task == "autoencode":
        return autoencoding(x, center=False)
    if task == "classify":
        return finite(x / x.std(), labels)
    return finite(whitened(x), labels)


@dataclass(frozen=True)
class Features:
    """Singular vectors of the input-output covariance, strongest spinodal first, and the data along them."""

    left: Array  # (feature, output)
    right: Array  # (feature, input)
    variance: Array
    sigma: Array

    @classmethod
    def of(cls, data: FiniteData) -> Features:
        """Take them from a data set."""
        u, c, vt = np.linalg.svd(data.cross_covariance, full_matrices=False)
        kept = c > 1e-9 * c[0]
        u, c, vt = u.T[kept], c[kept], vt[kept]
        q = np.einsum("ki,ij,kj->k", vt, data.input_covariance, vt)
        order = np.argsort(-spinodal(3, c / q, q), kind="stable")
        return cls(u[order], vt[order], q[order], (c / q)[order])

    @property
    def spinodals(self) -> Array:
        """Linear prediction."""
        return np.asarray(spinodal(3, self.sigma, self.variance))


def numpy_of(activation: Activation) -> tuple[Any, Any]:
    """Value and derivative of an activation as functions of arrays."""

    def value(z: Array) -> Array:
        return np.asarray(activation.value(torch.from_numpy(np.asarray(z))).numpy())

    def derivative(z: Array) -> Array:
        t = torch.from_numpy(np.asarray(z))
        return np.asarray(activation.derivative(t, activation.value(t)).numpy())

    return value, derivative


def predict(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Return all predictions of a case, each along its features; nothing in them is drawn at random."""
    case = CASES[config["case"]]
    data, hidden = data_of(case.task), (case.hidden, case.hidden)
    features, (value, derivative) = Features.of(data), numpy_of(ACTIVATIONS[case.activation])
    factor = slope_factor(3, float(derivative(np.zeros(1))[0]))
    made = {"linear": features.spinodals, "slope": factor * features.spinodals}
    sigma, q = features.sigma, features.variance
    gains = made["slope"]
    if case.activation == "tanh":
        gains = gain_spinodals(derivative, sigma, hidden, input_variances=q)
    units = hidden if case.activation == "tanh" else (1, 1)
    inputs, targets = data.x @ features.right.T, data.y @ features.left.T
    halves = np.array([
        [chain_spinodal(value, derivative, sign * s, sign * y, units=units) for sign in (1, -1)]
        for s, y in zip(inputs.T, targets.T, strict=True)
    ])  # fmt: skip
    made |= {"gain": gains, "chain_low": halves.min(axis=1), "chain_high": halves.max(axis=1)}
    return xr.Dataset({name: ("feature", values) for name, values in made.items()})


def start_of(case: Case, features: Features, decay: float, slope: float, rng: np.random.Generator) -> Array:
    """Weights of the linear network's learned state, scaled for the slope, hidden layers turned at random."""
    h, k = case.hidden, features.sigma.size
    held = features.spinodals * slope ** (4 / 3) > decay
    bare = np.minimum(decay / slope ** (4 / 3), 0.999 * features.spinodals)
    a = np.where(held, learned_amplitude(3, features.sigma, bare, features.variance), 0.0) / slope ** (2 / 3)
    turns = [np.linalg.qr(rng.standard_normal((h, h)))[0][:, :k] for _ in range(2)]
    layers = [
        turns[0] @ np.diag(a) @ features.right,
        turns[1] @ np.diag(a) @ turns[0].T,
        features.left.T @ np.diag(a) @ turns[1].T,
    ]
    return np.concatenate([layer.ravel() for layer in layers])


def run(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Measure one loop."""
    case = CASES[config["case"]]
    data, activation = data_of(case.task), ACTIVATIONS[case.activation]
    features = Features.of(data)
    slope = float(activation.derivative(torch.zeros(1), activation.value(torch.zeros(1)))[0])
    factor = slope_factor(3, slope)
    ends = np.sort(features.spinodals) * factor
    longer = case.activation == "gelu" and "teacher" not in case.task
    high = (DIGITS_HIGHEST if longer else HIGHEST[case.activation]) * ends[-1]
    low = LOWEST[case.activation] * ends[0]
    decays = np.geomspace(low, high, int(np.ceil(np.log(high / low) / np.log1p(STEP))) + 1)
    rng = np.random.default_rng(seed)
    start = start_of(case, features, low, slope, rng)
    model = MLP.from_data(data, (case.hidden, case.hidden), activation, weight_decay=low)
    descent = kg.SGD(model, data, lr=1e-3)
    descent = descent.replace(lr=stable_lr(descent, torch.from_numpy(start), SAFE))
    scale = float((features.sigma[0] / slope**2) ** (1 / 3))
    settling = Settling(
        tolerance=1e-4, scale=scale, certify_every=0, bisections=BISECTIONS, kick=KICK * scale, quasi_newton=True,
        smallest_jump=0.1 * float(features.sigma.min()), smallest_share=0.1, max_steps=100_000,
    )  # fmt: skip
    loop = hysteresis_loop(descent, decays, start=start, seed=seed, settling=settling)
    kept = loop[["up", "down", "settled", "certified", "returned", "lr"]]
    return kept.assign_attrs(smallest_jump=settling.smallest_jump, n_parameters=model.n_parameters)


# ---------------------------------------------------------------- what the loops show


def order_of(case: Case) -> list[int]:
    """Where each feature of the model's order parameters stands among `Features`."""
    data = data_of(case.task)
    model = MLP.from_data(data, (case.hidden, case.hidden), ACTIVATIONS[case.activation], weight_decay=0.1)
    right = model.linear.singular_vectors[1]
    overlap = np.abs(Features.of(data).right @ right.T)
    return [int(i) for i in overlap.argmax(axis=1)]


def jumps_of(loop: xr.Dataset) -> list[dict[str, Any]]:
    """Jumps of the way up: which order parameter changed most, and between which values."""
    up = loop.up.dropna("weight_decay", how="all")
    m, decays = up.values, up.weight_decay.values
    certified = loop.certified.sel(weight_decay=decays).values
    found = []
    for i in range(len(decays) - 1):
        change = np.abs(m[i + 1] - m[i])
        larger = np.maximum(np.abs(m[i]), np.abs(m[i + 1]))
        # The brackets of jumps are narrow: bisections have told them from what changes fast.
        if not ((change > loop.attrs["smallest_jump"]) & (change > 0.1 * larger)).any():
            continue
        k = int(change.argmax())
        lost = np.flatnonzero((change > loop.attrs["smallest_jump"]) & (change > 0.1 * larger))
        found.append({
            "feature": k, "n_changed": lost.size, "before": decays[i], "after": decays[i + 1],
            "m_before": m[i, k], "m_after": m[i + 1, k], "certified": bool(certified[i]),
        })  # fmt: skip
    return found


def gather(names: list[str], loops: list[xr.Dataset], predicted: list[xr.Dataset]) -> xr.DataTree:
    """Jumps of all cases, curves of all cases, and predictions beside the λ at which each feature is gone."""
    jumps: list[dict[str, Any]] = []
    features: list[dict[str, Any]] = []
    curves: list[xr.Dataset] = []
    for name, loop, made in zip(names, loops, predicted, strict=True):
        case = CASES[name]
        ordered = loop.isel(feature=order_of(case))
        own = jumps_of(ordered)
        jumps += [{"case": name, **jump} for jump in own]
        up = ordered.up.dropna("weight_decay", how="all")
        for k in range(up.sizes["feature"]):
            m = np.abs(up.values[:, k])
            # Gone for good: after the last value with more than a tenth of the feature's fold.
            sigma = float(Features.of(data_of(case.task)).sigma[k])
            last = int(np.flatnonzero(m > 0.08 * sigma).max(initial=-1))
            at = up.weight_decay.values
            features.append({
                "case": name, "feature": k, "sigma": sigma,
                "before": at[last] if last >= 0 else np.nan,
                "after": at[last + 1] if 0 <= last < len(at) - 1 else np.nan,
                "n_jumps": sum(j["feature"] == k for j in own),
                "returned": float(np.abs(ordered.down.values[:, k][np.isfinite(ordered.down.values[:, k])]).max()),
                **{str(key): float(made[key][k]) for key in made.data_vars},
            })  # fmt: skip
        curves.append(
            xr.Dataset(
                {"up": (("point", "feature"), up.values), "weight_decay": ("point", up.weight_decay.values)},
                coords={"case": ("point", [name] * len(up))},
            )
        )
    widest = max(c.sizes["feature"] for c in curves)
    padded = [c.pad(feature=(0, widest - c.sizes["feature"])) for c in curves]
    tree = {
        "/jumps": _table(jumps, "jump"),
        "/features": _table(features, "row"),
        "/curves": xr.concat(padded, "point"),
    }
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs={"step": STEP, "bisections": BISECTIONS}), **tree})


UNITS = {"before": "loss/weight²", "after": "loss/weight²", "linear": "loss/weight²", "slope": "loss/weight²"}
UNITS |= {"gain": "loss/weight²", "chain_low": "loss/weight²", "chain_high": "loss/weight²"}


def _table(rows: list[dict[str, Any]], dim: str) -> xr.Dataset:
    columns = {
        key: (dim, [row[key] for row in rows], {"units": UNITS.get(key, "1"), "long_name": key.replace("_", " ")})
        for key in rows[0]
    }
    return xr.Dataset(columns)


def main() -> None:
    """Compute what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="evidence/nonlinear_hysteresis")
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    store = Store(args.out, {"step": STEP, "bisections": BISECTIONS, "kick": KICK}, name="nonlinear_hysteresis")
    cells = [Cell("loop", {"case": name}, run, CASES[name].hidden) for name in args.only]
    cells += [Cell("predict", {"case": name}, predict) for name in args.only]
    with Progress() as bar, ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        task = bar.add_task("loops and predictions", total=len(cells))
        execute(store, cells, seed=0, executor=pool, finished=lambda _: bar.advance(task))
    done = [n for n in CASES if all(store.has(kind, {"case": n}) for kind in ("loop", "predict"))]
    loops, predicted = (
        execute(store, [Cell(kind, {"case": n}, f) for n in done], seed=0)
        for kind, f in (("loop", run), ("predict", predict))
    )
    tree = gather(done, loops, predicted)
    write_netcdf(tree, f"{args.out}/table.nc")
    rows = tree["features"].to_dataset()
    for i in range(rows.sizes["row"]):
        r = rows.isel(row=i)
        print(
            f"{r.case.values!s:28} {int(r.feature)} gone at {float(r.after) / float(r.linear):.3f} of linear; slope "
            f"{float(r.slope / r.linear):.3f} gain {float(r.gain / r.linear):.3f} chain "
            f"{float(r.chain_low / r.linear):.3f}-{float(r.chain_high / r.linear):.3f}; jumps {int(r.n_jumps)}"
        )


if __name__ == "__main__":
    main()
