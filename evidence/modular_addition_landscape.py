"""The landscape of modular addition: what stands between memorising and generalising, and before the first unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.optimize
import torch
import xarray as xr

import kramers_grok as kg
from kramers_grok.core.exceptions import UncertifiedError
from kramers_grok.landscape.barriers import find_barrier
from kramers_grok.landscape.points import find_minimum
from kramers_grok.landscape.string import arc_length, evenly, minimum_energy_path
from kramers_grok.landscape.surface import Surface
from kramers_grok.models.activations import Quadratic
from kramers_grok.models.data import finite, modular_addition
from kramers_grok.models.mlp import MLP

IMAGES, SEEN = 21, 81
STRING_STEPS = 400
WAYS = ("flow", "straight line", "string")


def _network(config: Mapping[str, Any], data: Any, width: int) -> MLP:
    return MLP.from_data(data, (width,), Quadratic(), weight_decay=config["weight_decay"])


def _descent(mlp: MLP, start: np.ndarray, config: Mapping[str, Any], points: int) -> tuple[np.ndarray, np.ndarray]:
    """Times and weights along full-batch descent."""
    process = kg.SGD(mlp, mlp.required_data(), lr=config["lr"], device="cpu")
    state, seen = process.start(1, seed=0, point=start), []
    steps = np.unique(np.geomspace(1, config["time"] / config["lr"], points).astype(int))
    for step in steps:
        if step > state.step:
            state, _ = process.advance(state, int(step - state.step))
        seen.append(state.theta[0].numpy().copy())
    return steps * config["lr"], np.array(seen)


def _settled(surface: Surface, theta: np.ndarray) -> np.ndarray:
    """A minimum below a point that the flow has brought far down; a line search may leave the basin."""

    def both(x: np.ndarray) -> tuple[float, np.ndarray]:
        return surface.energy(x), surface.gradient(x)

    options = {"maxiter": 5_000, "maxfun": 6_000, "gtol": 1e-9, "ftol": 0.0, "maxcor": 50}
    return np.asarray(scipy.optimize.minimize(both, theta, jac=True, method="L-BFGS-B", options=options).x)


def path(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Energies from the memorising state down to the minimum that its flow ends in; the seed is not used.

    The memorising state is the last point of the descent from a random start at which nothing is known of the test
    pairs, m <= 0. ``taught`` is the minimum that the same train pairs leave of a network that was trained on all pairs.
    """
    split = modular_addition(config["p"], config["fraction"], seed=0)
    mlp = _network(config, split.train, config["width"])
    seen = mlp.between_functions(0.0 * split.test.y, split.test.y, data=split.test)
    surface, start = Surface(mlp), config["scale"] * np.random.default_rng(1).normal(size=mlp.n_parameters)
    time, flow = _descent(mlp, start, config, 90)
    m = seen.order_parameters(torch.from_numpy(flow))[:, 0].numpy()
    energy, slope = surface.energies(flow), np.linalg.norm(surface.gradients(flow), axis=1)
    at = int(np.flatnonzero(m <= 0)[-1])
    bottom = _settled(surface, flow[-1])
    everything = finite(*(np.concatenate(part) for part in zip(*((d.x, d.y) for d in split), strict=True)))
    taught = _descent(_network(config, everything, config["width"]), start, config, 2)[1][-1]
    points = {
        "memorising": flow[at],
        "bottom": bottom,
        "taught": _settled(surface, _descent(mlp, taught, config, 2)[1][-1]),
    }
    string = minimum_energy_path(mlp, flow[at], bottom, n_images=IMAGES, max_steps=STRING_STEPS)
    line = evenly(np.stack([flow[at], bottom]), SEEN)
    way = arc_length(flow[at:])
    # On the descent itself, not on chords between its points: those would cut its corners.
    falling = np.interp(np.linspace(0, way[-1], SEEN), way, energy[at:])
    along = np.array([falling, surface.energies(line), surface.energies(evenly(string.images, SEEN))])
    columns: dict[str, Any] = {
        "energy": (("way", "image"), along, {"units": "loss", "long_name": "energy F along the way"}),
        "rise": (
            "way",
            (along - along[:, :1]).max(axis=1),
            {"units": "loss", "long_name": "highest rise over the start"},
        ),
        "flow_energy": ("time", energy, {"units": "loss", "long_name": "energy F of the descent"}),
        "flow_slope": ("time", slope, {"units": "loss/weight", "long_name": "gradient norm of the descent"}),
        "flow_m": ("time", m, {"units": "1", "long_name": "m of the test pairs"}),
        "climbed": max(float(np.diff(energy).max()), 0.0),
        "memorised_at": float(time[at]),
        "memorising_accuracy": float(
            (mlp.outputs(torch.from_numpy(flow[at : at + 1])).argmax(-1).numpy() == split.train.y.argmax(1)).mean()
        ),
        "string_moved": string.moved,
    }
    for name, point in points.items():
        spectrum = np.linalg.eigvalsh(surface.hessian(point))
        columns[f"{name}_energy"] = surface.energy(point)
        columns[f"{name}_slope"] = float(np.linalg.norm(surface.gradient(point)))
        columns[f"{name}_lowest"] = float(spectrum[0])
        columns[f"{name}_index"] = float((spectrum < -1e-9).sum())
        columns[f"{name}_m"] = float(seen.order_parameters(torch.from_numpy(point[None]))[0, 0])
    return xr.Dataset(columns, coords={"way": list(WAYS), "time": ("time", time, {"units": "time"})})


def trap_barrier(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """The lowest barrier by which one hidden unit leaves zero, found and certified in a network of one unit.

    Units that are zero take no part: theirs is the same barrier in a network of any width.
    """
    train = modular_addition(config["p"], config["fraction"], seed=0).train
    mlp = _network(config, train, 1)
    rng, found = np.random.default_rng(0), []
    for _ in range(12):
        minimum = find_minimum(mlp, 0.5 * rng.normal(size=mlp.n_parameters), tolerance=1e-9)
        if np.linalg.norm(minimum.theta) > 0.1:
            try:
                found.append(find_barrier(mlp, np.zeros(mlp.n_parameters), minimum, tolerance=1e-9))
            except UncertifiedError:
                continue
    heights = sorted(barrier.height for barrier in found)
    return xr.Dataset({"height": ("saddle", heights, {"units": "loss"}), "lowest": heights[0], "n_found": len(heights)})
