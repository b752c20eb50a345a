"""Number of metastable states: search from many starts, and the index of the states that are none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
import xarray as xr

from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.protocols import certify, find_states, full_gradient, predicted_index, random_starts
from kramers_grok.models.data import population
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.diagonal import DiagonalNetwork
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.running.cells import Cell

__all__ = ["NAME", "cells", "gather", "network", "subsets"]

NAME = "states"
STRENGTHS = (1.4, 1.2, 1.0, 0.85)  # singular values of the white teacher, variances of the autoencoder
# c² of the second feature over that of the first, and q likewise: each is stable beside the other unlearned.
OTHER = ((1.0, 2.5**0.5 / 3), (1.0, 3.0))
DECAYS = {"white": 0.15, "autoencoder": 0.2, "diagonal": 0.15, "other": 0.15}
LABELS = {
    "white": "white inputs",
    "autoencoder": "autoencoder",
    "diagonal": "diagonal network",
    "other": "inputs neither white nor equal to the targets",
}
LR = 0.05


def cells(settings: Settings, device: str) -> list[Cell]:
    """Return one cell for each family and number of features."""
    most, n = (2, 96) if settings.quick else (4, 768)
    made = []
    for family in ("white", "autoencoder", "diagonal"):
        for k in range(1, most + 1):
            starts = n * (4 if family == "diagonal" and k == 4 else 1)
            made.append(Cell("states-search", {"family": family, "n_features": k, "n_starts": starts}, _search, k * k))
    made.append(Cell("states-search", {"family": "other", "n_features": 2, "n_starts": n // 3}, _search, 4))
    return made


def gather(settings: Settings, results: Sequence[xr.Dataset]) -> xr.DataTree:
    """Return the counts in one table, each search, and the indices of all sets of features."""
    columns = ("n_states", "predicted_states", "n_starts", "n_uncertified", "n_index_agree", "n_sets")
    table = xr.Dataset(
        {
            name: ("search", [int(r.attrs[name]) for r in results], {"units": "1", "long_name": name.replace("_", " ")})
            for name in columns
        },
        coords={
            "family": ("search", [str(r.attrs["family"]) for r in results]),
            "n_features": ("search", [r.sizes["feature"] for r in results]),
        },
    )
    nodes = {f"/{r.attrs['family']}_{r.sizes['feature']}": r for r in results}
    return xr.DataTree.from_dict({"/": xr.Dataset(), "/table": table, **nodes}, name=NAME)


def network(family: str, n_features: int) -> DeepLinearNetwork | DiagonalNetwork:
    """Return a network of one of the families, below all its spinodals."""
    k, decay = n_features, DECAYS[family]
    strengths = np.array(STRENGTHS[:k])
    if family == "diagonal":
        return DiagonalNetwork(3, strengths, weight_decay=decay)
    hidden = max(k + 1, 2)
    widths = (k, hidden, hidden, k)
    if family == "white":
        return DeepLinearNetwork(widths, np.diag(strengths), weight_decay=decay)
    teacher, variances = (np.eye(k), strengths) if family == "autoencoder" else (np.diag(OTHER[0]), np.array(OTHER[1]))
    return DeepLinearNetwork(widths, teacher, weight_decay=decay, input_covariance=np.diag(variances))


def subsets(n_features: int) -> Iterator[tuple[int, ...]]:
    """Generate all sets of features, smallest first."""
    for size in range(n_features + 1):
        yield from combinations(range(n_features), size)


def _search(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    family, k = str(config["family"]), int(config["n_features"])
    model = network(family, k)
    descent = SGD(model, population(), lr=LR, fused=False)
    found = find_states(descent, starts=random_starts(model, config["n_starts"], seed=seed), seed=seed)
    sets = list(subsets(k))
    points = torch.stack([model.ordered_state(s) for s in sets])
    examined = certify(full_gradient(descent), model, points)
    if isinstance(model, DeepLinearNetwork):
        predicted = model.spectrum.number_of_states(model.depth, model.weight_decay)
        indices = [predicted_index(model.spectrum, model.depth, model.weight_decay, s) for s in sets]
    else:
        predicted, indices = model.number_of_states(), [0] * len(sets)
    is_learned = np.array([[f in s for f in range(k)] for s in sets])
    labels = {"units": "1", "long_name": "unstable directions"}
    found["set_learned"] = (("set", "feature"), is_learned, {"units": "1", "long_name": "feature is learned"})
    found["index"] = ("set", examined.index, labels | {"long_name": "unstable directions, from the Hessian"})
    found["predicted_index"] = ("set", indices, labels | {"long_name": "unstable directions, predicted"})
    found["set_zero_modes"] = ("set", examined.n_zero_modes, {"units": "1", "long_name": "zero modes"})
    return found.assign_attrs(
        family=family,
        n_states=found.sizes["state"],
        predicted_states=predicted,
        n_sets=len(sets),
        n_index_agree=int((examined.index == np.array(indices)).sum()),
    )
