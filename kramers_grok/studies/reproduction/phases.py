"""Phases of real data: scikit-learn's digits as a linear autoencoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.core.schema import describe
from kramers_grok.models.data import autoencoding, digits
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.running.cells import Cell
from kramers_grok.theory.phases import FeatureSpectrum

__all__ = ["NAME", "cells", "gather", "spectrum"]

NAME = "phases"


def spectrum() -> FeatureSpectrum:
    """Return the digits' spectrum: pixels centred and scaled to [0, 1]."""
    return FeatureSpectrum.autoencoder(autoencoding(digits() / 16).x)


def cells(settings: Settings, device: str) -> list[Cell]:
    """Return the one cell."""
    return [Cell("phases-digits", {"depth": settings.depth}, _compute)]


def gather(settings: Settings, results: Sequence[xr.Dataset]) -> xr.DataTree:
    """Return the spectrum, each feature's transitions, and the number of metastable states against λ."""
    return xr.DataTree(results[0], name=NAME)


def _compute(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    depth = int(config["depth"])
    features = spectrum()
    table = features.table(depth)
    # The number of states changes where a feature disappears: values just below every spinodal show it all.
    spinodals = np.sort(features.spinodals(depth))
    decay = np.append(spinodals * (1 - 1e-9), 1.2 * spinodals[-1])
    states = [features.number_of_states(depth, float(value)) for value in decay]
    counts = xr.Dataset(
        {"n_states": ("weight_decay", states, describe("n_states"))},
        coords={"weight_decay": ("weight_decay", decay, describe("weight_decay"))},
    )
    return xr.merge([table, counts], combine_attrs="drop_conflicts").assign_attrs(
        data="scikit-learn digits, 1797 images, pixels centred and scaled to [0, 1], linear autoencoder", depth=depth
    )
