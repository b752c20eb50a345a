"""One small data set for each public figure, and the figure drawn from it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pytest
import xarray as xr

matplotlib.use("Agg")

import kramers_grok as kg
from kramers_grok import plots
from kramers_grok.analysis import BUDGET_COLUMNS
from kramers_grok.core.schema import exit_dataset
from kramers_grok.theory.mode_tables import free_energy_table
from kramers_grok.theory.phases import FeatureSpectrum

Array = np.ndarray[Any, np.dtype[np.float64]]


def run(tau: float, horizon: float = 2.0) -> xr.Dataset:
    times = np.random.default_rng(0).exponential(tau, size=60)
    settings: dict[str, Any] = {"seed": 0, "dtype": "float64", "device": "cpu", "configuration": {}}
    return exit_dataset(np.minimum(times, horizon), times < horizon, horizon=horizon, coords={}, **settings)


def table(heat: Array, factor: float) -> xr.Dataset:
    tau = factor * np.exp(0.5 / heat)
    columns = {"mean_exit_time": tau, "lower": 0.9 * tau, "upper": 1.1 * tau, "predicted_mean": tau}
    return xr.Dataset({k: ("temperature", v) for k, v in columns.items()}, coords={"temperature": heat})


def arrhenius() -> dict[str, xr.Dataset]:
    heat = np.array([0.1, 0.2, 0.4])
    lines = {f"law {k}": table(heat, k)[["mean_exit_time"]] for k in (1.1, 1.2, 1.3)}
    return lines | {name: table(heat, k) for k, name in enumerate(("langevin", "sgd", "splitting", "other"), start=1)}


def survival() -> dict[str, xr.Dataset]:
    t = np.linspace(0, 2, 20)
    law = xr.Dataset({"survival": ("time", np.exp(-t)), "mean_exit_time": 1.0}, coords={"time": t})
    return {"langevin": run(1.0), "sgd": run(0.9), "another": run(0.5), "theory": law, "theory: slow": law}


def budget() -> xr.Dataset:
    columns = {name: ("engine", [10.0, -10.0]) for name in BUDGET_COLUMNS}
    more = {"total_error": 50.0, "standard_error": 5.0, "asymptotic_time": 100.0}
    totals = {name: ("engine", [value, value]) for name, value in more.items()}
    return xr.Dataset(columns | totals, coords={"engine": ["langevin", "sgd"]})


def loop() -> xr.Dataset:
    decay, spinodal = np.linspace(0.1, 0.5, 30), np.linspace(0.45, 0.15, 8)
    up = np.where(decay[:, None] < spinodal, np.linspace(2, 1, 8), 0.0)
    columns = {"up": up, "down": 0.01 * up, "predicted_up": up}
    data: dict[str, Any] = {name: (("weight_decay", "feature"), v) for name, v in columns.items()}
    features = {"jump": -np.ones(8), "before": spinodal - 0.01, "after": spinodal + 0.01, "spinodal": spinodal}
    return xr.Dataset(data | {n: ("feature", v) for n, v in features.items()}, coords={"weight_decay": decay})


def stairs() -> xr.Dataset:
    decay = np.linspace(0.5, 0.1, 20)
    share = 1 / (1 + np.exp((decay - np.array([[0.4], [0.3], [0.2]])) / 0.01))
    names = ("returned", "predicted_lower", "predicted_upper")
    return xr.Dataset({n: (("feature", "weight_decay"), share) for n in names}, coords={"weight_decay": decay})


def families() -> dict[str, xr.Dataset]:
    columns = {"area": [1.0, 2.0, 2.5], "predicted_area": [1.0, 2.0, 2.5], "n_jumps": [1, 2, 3]}
    one = xr.Dataset({n: ("n_features", v) for n, v in columns.items()}, coords={"n_features": [1, 2, 3]})
    return {"teacher": one, "digits": one}


def losses() -> xr.Dataset:
    time = np.geomspace(0.1, 100, 40)
    loss = np.where(time < np.array([1.0, 3.0, 9.0, 20.0])[:, None, None], 1.0, np.full((1, 3, 1), 0.1))
    dims = ("lr_over_batch", "replica", "time")
    return xr.Dataset({"loss": (dims, loss)}, coords={"time": time, "lr_over_batch": [0.1, 0.2, 0.3, 0.4]})


def train_and_test() -> xr.Dataset:
    one = losses().isel(lr_over_batch=0)
    means = {f"{name}_predicted": one["loss"].mean("replica") for name in ("train", "test")}
    return xr.Dataset({"train_loss": one["loss"], "test_loss": 2 * one["loss"], **means})


def verdicts() -> xr.Dataset:
    flags = (("samples_per_input", "weight_decay"), np.array([[True, False], [False, True]]))
    coords = {"samples_per_input": [1.0, 2.0], "weight_decay": [0.01, 0.1]}
    return xr.Dataset({"measured": flags, "predicted": flags}, coords=coords)


def choice() -> xr.Dataset:
    noise, fine, laws = np.array([0.0, 1.0, 2.0, 4.0, 8.0]), np.geomspace(1, 8, 50), ["arrhenius", "power", "growth"]
    curves = np.stack([np.exp(3 / fine), 20 / fine**2, 9 / fine])
    data = {
        "median_exit_time": ("noise", np.array([50.0, 20.0, 4.5, 2.1, 1.5])),
        "lower_limit": ("noise", np.array([True, True, False, False, False])),
        "longest_time": ("noise", np.full(5, 50.0)),
        "fitted_median": (("law", "curve_noise"), curves),
        "akaike_weight": ("law", np.array([0.9, 0.1, 0.0])),
        "log_likelihood": ("law", np.array([-10.0, -12.0, -900.0])),
    }
    attrs = {"verdict": "arrhenius", "best": "arrhenius", "misfit": 0.01}
    return xr.Dataset(data, coords={"noise": noise, "curve_noise": fine, "law": laws}, attrs=attrs)


def cost() -> dict[str, xr.Dataset]:
    x = np.array([10.0, 15.0, 20.0])
    columns = {"cost": 7 * x**2, "cost_error": np.full(3, 0.3), "brute_force_cost": np.exp(x)}
    one = xr.Dataset({n: ("run", v) for n, v in columns.items()}, coords={"barrier_over_temperature": ("run", x)})
    return {"mode": one, "chain": 2 * one.assign_coords(), "matrix": one}


def ratios() -> xr.Dataset:
    x = np.tile(1 / np.array([10.0, 13.0, 18.0, 26.0, 40.0]), (5, 1))
    data = {"x": x, "ratio": 1 + x * np.arange(5)[:, None], "ratio_error": np.full((5, 5), 0.01)}
    cases = {"case": [f"case {k}" for k in range(5)]}
    return xr.Dataset({name: (("case", "point"), v) for name, v in data.items()}, coords=cases)


def ramps() -> xr.Dataset:
    decay = np.linspace(0.4, 0.2, 40)
    law = np.stack([np.exp(-np.exp((at - decay) * 80)) for at in (0.32, 0.3, 0.28)])
    left = np.stack([np.linspace(at - 0.02, at + 0.02, 25) for at in (0.32, 0.3, 0.28)])
    one, each = ("ramp_rate", "position"), ("ramp_rate", "replica")
    data = {"driven_survival": (one, law), "adiabatic_survival": (one, law**1.2)}
    measured = {"weight_decay_at_exit": (each, left), "escaped": (each, left > 0)}
    return xr.Dataset(data | measured, coords={"weight_decay": ("position", decay), "ramp_rate": [1e-4, 1e-3, 1e-2]})


def loops() -> xr.Dataset:
    names = ("width", "width_error", "driven_width", "adiabatic_width")
    width = np.array([[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]])
    coords = {"temperature": [0.1, 0.2, 0.3], "ramp_rate": [1e-4, 1e-3]}
    return xr.Dataset({name: (("temperature", "ramp_rate"), width) for name in names}, coords=coords)


def schedules() -> xr.Dataset:
    step, tau = np.arange(100), np.arange(10, 90, 10)[:, None]
    left = np.broadcast_to(np.linspace(1, 90, 30), (8, 30))
    data = {"predicted_survival": (("schedule", "step"), np.exp(-step / tau))}
    each = ("schedule", "replica")
    measured = {"learn_step": (each, left), "escaped": (each, left > 0)}
    return xr.Dataset(data | measured, coords={"step": step, "schedule": [f"schedule {k}" for k in range(8)]})


def diagram() -> xr.Dataset:
    width, heat = np.array([2, 4, 8]), np.array([0.01, 0.02, 0.04])
    barrier = np.array([[9.0, 5.0, 2.0], [5.0, 2.0, 0.5], [2.0, np.nan, np.nan]])
    data = {"radial_barrier_over_temperature": (("width", "temperature"), barrier)}
    more = {"melted": (("width", "temperature"), np.isnan(barrier)), "critical_width": ("temperature", [9.0, 8.5, 3.0])}
    labels = {"units": "1", "long_name": "radial barrier over T"}
    ds = xr.Dataset(data | more, coords={"width": width, "temperature": heat})
    ds["radial_barrier_over_temperature"].attrs = labels
    return ds


def departure() -> xr.Dataset:
    coords = {"weight_decay": [0.4, 0.43, 0.46], "label_noise": [0.5, 1.0], "lr_over_batch": [0.02, 0.01, 0.005]}
    action = np.broadcast_to([1.0, 6.0, 20.0], (3, 2, 3))
    return xr.Dataset({"log_departure": (tuple(coords), 0.1 * action), "action_over_ratio": (tuple(coords), action)},
                      coords=coords)  # fmt: skip


def dimensions() -> xr.Dataset:
    columns = {"mean_exit_time": [100.0, 50.0, 80.0, 40.0], "standard_error": [5.0, 3.0, 4.0, 2.0],
               "predicted_time": [100.0] * 4, "predicted_factor": [1.0, 0.5, 0.8, 0.4],
               "n_inputs": [1, 16, 1, 16], "n_outputs": [1, 1, 8, 8]}  # fmt: skip
    return xr.Dataset({name: ("run", values) for name, values in columns.items()})


def path(shift: float = 0.0) -> xr.Dataset:
    way = np.linspace(-1.0, 1.0, 21)
    data = {
        "free_energy": ("arc_length", shift + 0.1 * (1 - way**2)),
        "order_parameter": ("arc_length", 0.5 * (1 + way)),
    }
    states = {
        "state_energy": ("state", shift + np.array([0.0, 0.1, 0.0])),
        "state_arc_length": ("state", [-1.0, 0.0, 1.0]),
    }
    return xr.Dataset(data | states, coords={"arc_length": way})


def graph() -> xr.DataTree:
    def table(dim: str, energies: list[float], m: list[float]) -> xr.Dataset:
        return xr.Dataset({"energy": (dim, energies), "order_parameter": ((dim, "feature"), np.array(m)[:, None])})

    saddles = table("saddle", [0.8, 1.2], [0.7, 0.2]).assign(ends=(("saddle", "end"), [[0, 1], [1, 2]]))
    return xr.DataTree.from_dict({"minima": table("state", [0.0, 0.5, 1.0], [1.0, 0.5, 0.0]), "saddles": saddles})


MODE = kg.Mode(depth=3, singular_value=1.0, weight_decay=0.25)

# Figure, its data, and further arguments
FIGURES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "arrhenius": (arrhenius, {"gradient_noise_variance": 1.0}),
    "arrhenius_trap": (choice, {}),
    "diffusion_departure": (departure, {"label_noise": 1.0}),
    "energy_path": (lambda: {name: path(0.1 * k) for k, name in enumerate("abcd")}, {}),
    "error_budget": (budget, {}),
    "escape_laws": (lambda: {name: choice() for name in "abcd"}, {}),
    "extra_dimensions": (dimensions, {}),
    "grokking": (losses, {}),
    "grokking_map": (verdicts, {}),
    "hysteresis_loop": (loop, {}),
    "landscape": (lambda: free_energy_table(MODE, [0.15, 0.25, 0.35, 0.45, 0.5], n_points=30), {}),
    "landscape_graph": (graph, {}),
    "law_choice": (choice, {}),
    "learning_curves": (schedules, {}),
    "loop_area": (families, {}),
    "loop_width": (loops, {}),
    "phase_diagram": (lambda: FeatureSpectrum.from_teacher(np.linspace(0.1, 2, 30)).table(3), {}),
    "phases": (lambda: FeatureSpectrum.from_teacher([2.0, 1.0, 0.5]).table(3), {}),
    "ramp_escapes": (ramps, {}),
    "ratio_extrapolation": (ratios, {}),
    "returns": (stairs, {}),
    "splitting_cost": (cost, {}),
    "staircase": (loop, {}),
    "survival": (survival, {}),
    "train_and_test": (train_and_test, {}),
    "width_temperature": (diagram, {}),
}
of_every_figure = pytest.mark.parametrize("name", FIGURES)


def draw(name: str, ax: Any = None) -> Any:
    make, more = FIGURES[name]
    return getattr(plots, name)(make(), ax=ax, **more)


@functools.cache
def drawn(name: str) -> Any:
    """The figure, for those who only look."""
    return draw(name)
