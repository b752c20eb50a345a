"""Hysteresis and staircase: sweeps in weight decay, teacher and digits; what returns with noise, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.core.schema import describe
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.protocols import Settling, hysteresis_loop, stable_lr
from kramers_grok.models.data import FiniteData, autoencoding, digits, population
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.studies.reproduction import returns
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.reproduction.stairs import principal_components
from kramers_grok.studies.running.cells import Cell

__all__ = ["NAME", "cells", "digits_loop", "gather", "principal_components", "teacher_loop"]

NAME = "hysteresis"
STEP = 0.003  # relative step in λ
COARSE_STEP = 0.01  # followed by bisections
TEACHER = (1.6, 1.3, 1.0, 0.8)
COMPLEXITY = tuple(1.5 * 0.9**k for k in range(6))
N_DIGITS = 10
SPREAD = 1e-3  # of the random weights that are added to the start, and at every value for the teacher
SAFE = 0.75  # of the largest stable learning rate


def cells(settings: Settings, device: str) -> list[Cell]:
    """Return sweeps (teacher at D = 3 and as a control at D = 2, digits), returns with noise, and complexity."""
    step = 2 * COARSE_STEP if settings.quick else STEP
    bisections = 4 if settings.quick else 0
    n_digits = 3 if settings.quick else N_DIGITS
    key = {"step": step, "bisections": bisections}
    teachers = range(1, 3) if settings.quick else range(1, len(COMPLEXITY) + 1)
    dimensions = (1, 2) if settings.quick else (1, 2, 4, 8)
    made = [
        Cell("hysteresis-teacher", key | {"depth": 3, "teacher": TEACHER}, _teacher, 12),
        Cell(
            "hysteresis-teacher",
            {
                "step": 3 * COARSE_STEP if settings.quick else COARSE_STEP,
                "bisections": 0,
                "depth": 2,
                "teacher": TEACHER[:2],
            },
            _teacher,
            4,
        ),
        Cell("hysteresis-digits", key | {"n_features": n_digits, "hidden": n_digits}, _digits, 40),
    ]
    grid = {"step": COARSE_STEP, "bisections": 3, "lowest": 0.95}
    made += [
        Cell("hysteresis-complexity", grid | {"teacher": COMPLEXITY[:k], "of": max(teachers)}, _complexity, 3)
        for k in teachers
    ]
    made += [
        Cell("hysteresis-complexity", grid | {"dimension": d, "of": max(dimensions)}, _complexity, 3)
        for d in dimensions
    ]
    return made + returns.cells(settings, device)


def gather(settings: Settings, results: Sequence[xr.Dataset]) -> xr.DataTree:
    """Return the loops, area and jumps against features and dimension, and the returns."""
    teacher, control, pixels, *others = results
    complexity = [r for r in others if r.attrs.get("kind") == "complexity"]
    families = {
        name: xr.concat(
            [r for r in complexity if r.attrs["family"] == name], dim="n_features", combine_attrs="drop_conflicts"
        )
        for name in ("teacher", "digits")
    }
    tree = {"/teacher": teacher, "/control": control, "/digits": pixels}
    tree |= {f"/complexity_{name}": rows for name, rows in families.items()}
    tree |= {f"/return_{r.attrs['kind']}": r for r in others if r.attrs["kind"] != "complexity"}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs={"step": STEP}), **tree}, name=NAME)


def _grid(lowest: float, highest: float, step: float) -> np.ndarray:
    return np.geomspace(lowest, highest, int(np.ceil(np.log(highest / lowest) / np.log1p(step))) + 1)


def _loop(
    network: DeepLinearNetwork, data: Any, n: int, decays: np.ndarray, settling: Settling, seed: int
) -> xr.Dataset:
    start = network.ordered_state(range(n)).numpy()
    descent = SGD(network, data, lr=1e-3, fused=False)
    lr = stable_lr(descent, network.ordered_state(range(n)), SAFE)
    start = start + SPREAD * np.random.default_rng(seed).standard_normal(start.shape)
    loop = hysteresis_loop(descent.replace(lr=lr), decays, start=start, seed=seed, settling=settling)
    return loop.assign_attrs(n_parameters=network.n_parameters, widths=str(network.widths))


def teacher_loop(
    teacher: Sequence[float], *, depth: int, step: float, bisections: int, seed: int, lowest: float | None = None
) -> xr.Dataset:
    """Sweep a white teacher from `lowest` (0.9 of the weakest spinodal if not given) past the strongest and back.

    Weights are kicked by `SPREAD` at every value, so that nothing stays where it is only because it is 0. At D = 2
    every value is certified: there the state 0 is no minimum below the onset, and only curvature shows it.
    """
    n = len(teacher)
    widths = (n, *[n + 1] * (depth - 1), n)
    network = DeepLinearNetwork(widths, np.diag(teacher), weight_decay=1.0)
    spinodals = network.spectrum.spinodals(depth)
    low = lowest or 0.9 * float(spinodals[-1])
    network = DeepLinearNetwork(widths, np.diag(teacher), weight_decay=low)
    settling = Settling(
        certify_every=1 if depth == 2 else 0,
        bisections=bisections,
        scale=max(teacher) ** (1 / depth),
        kick=SPREAD,
    )
    return _loop(network, population(), n, _grid(low, 1.02 * float(spinodals[0]), step), settling, seed)


def digits_loop(
    data: FiniteData,
    n_features: int,
    *,
    hidden: int,
    step: float,
    bisections: int,
    seed: int,
    lowest: float | None = None,
) -> xr.Dataset:
    """Sweep a linear autoencoder of three layers on real data, full batch, with the strongest features learned."""
    network = DeepLinearNetwork.from_data(data, [hidden, hidden], weight_decay=1e-3)
    spinodals = network.spectrum.spinodals(3)
    low = lowest or 0.985 * float(spinodals[n_features - 1])
    network = DeepLinearNetwork.from_data(data, [hidden, hidden], weight_decay=low)
    settling = Settling(certify_every=0, bisections=bisections)
    return _loop(network, data, n_features, _grid(low, 1.01 * float(spinodals[0]), step), settling, seed)


def _teacher(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    arguments = {name: config[name] for name in ("depth", "step", "bisections")}
    return teacher_loop(config["teacher"], seed=seed, **arguments).assign_attrs(kind="loop")


def _digits(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    data = autoencoding(digits() / 16)
    loop = digits_loop(data, seed=seed, **{k: config[k] for k in ("n_features", "hidden", "step", "bisections")})
    return loop.isel(feature=slice(0, config["n_features"])).assign_attrs(
        kind="loop", data="scikit-learn digits, 1797 images of 64 pixels, centred, scaled to [0, 1], linear autoencoder"
    )


def _complexity(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Measure one loop's area and jumps; all of a family begin at the same λ, or their areas could not be compared."""
    steps = {"step": config["step"], "bisections": config["bisections"], "seed": seed}
    if "teacher" in config:
        largest = DeepLinearNetwork((config["of"],) * 4, np.diag(COMPLEXITY[: config["of"]]), weight_decay=0.1)
        low = config["lowest"] * float(largest.spectrum.spinodals(3)[-1])
        loop = teacher_loop(config["teacher"], depth=3, lowest=low, **steps)
    else:
        d, everything = config["dimension"], principal_components(config["of"])
        largest = DeepLinearNetwork.from_data(everything, [config["of"]] * 2, weight_decay=1e-3)
        low = config["lowest"] * float(largest.spectrum.spinodals(3)[-1])
        loop = digits_loop(principal_components(d), d, hidden=d + 1, lowest=low, **steps)
    return complexity_row(loop, "teacher" if "teacher" in config else "digits")


def complexity_row(loop: xr.Dataset, family: str) -> xr.Dataset:
    """Return total area and number of jumps of a loop, measured and predicted."""
    area = {"units": "loss/weight²", "long_name": "area of all hysteresis loops"}
    jumps = {"units": "1", "long_name": "number of jumps"}
    bracket = np.maximum(np.abs(loop.before / loop.spinodal - 1), np.abs(loop.after / loop.spinodal - 1))
    return xr.Dataset(
        {
            "area": ((), float(loop.area.sum()), area),
            "predicted_area": ((), float(loop.predicted_area.sum()), area | {"long_name": "predicted area"}),
            "n_jumps": ((), int(np.isfinite(loop.jump).sum()), jumps),
            "predicted_jumps": ((), int((loop.predicted_area > 0).sum()), jumps | {"long_name": "predicted jumps"}),
            "worst_bracket": ((), float(bracket.max()), {"units": "1", "long_name": "largest distance of a bracket"}),
        },
        coords={
            "n_features": ((), loop.sizes["feature"], {"units": "1", "long_name": "number of features K"}),
            "lowest": ((), float(loop.weight_decay.min()), describe("weight_decay")),
        },
        attrs={"kind": "complexity", "family": family},
    )
