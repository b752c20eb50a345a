"""Phases of real data: scikit-learn's digits as a linear autoencoder."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from kramers_grok.core.schema import describe
from kramers_grok.models.data import autoencoding, digits
from kramers_grok.theory.phases import FeatureSpectrum

if TYPE_CHECKING:
    from kramers_grok.studies.reproduction.job import Job
    from kramers_grok.studies.reproduction.settings import Settings

__all__ = ["NAME", "n_cells", "run", "spectrum"]

NAME = "phases"


def spectrum() -> FeatureSpectrum:
    """Return the digits' spectrum: pixels centred and scaled to [0, 1]."""
    return FeatureSpectrum.autoencoder(autoencoding(digits() / 16).x)


def n_cells(settings: Settings) -> int:
    """Return the number of cells."""
    return 1


def run(job: Job) -> xr.DataTree:
    """Compute the spectrum, each feature's transitions, and the number of metastable states against λ."""
    depth = job.settings.depth
    tree: xr.Dataset = job.cell("phases-digits", {"depth": depth}, partial(_compute, depth))
    return xr.DataTree(tree, name=NAME)


def _compute(depth: int, seed: int, progress: Any) -> xr.Dataset:
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
