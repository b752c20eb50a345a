"""The free energy of a mode as a labelled table: curves for several weight decays, and their stationary points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from kramers_grok.core import checks
from kramers_grok.core.schema import describe
from kramers_grok.theory import mode_states
from kramers_grok.theory.deep_linear import Mode

__all__ = ["STATES", "free_energy_table"]

STATES = ("unlearned", "saddle", "learned")


def free_energy_table(
    mode: Mode, weight_decay: ArrayLike | None = None, *, highest: float | None = None, n_points: int = 400
) -> xr.Dataset:
    r"""Tabulate :math:`F(a) = \tfrac12 q(\sigma - a^D)^2 + \tfrac12 D\lambda a^2` and its stationary points.

    Parameters
    ----------
    mode : Mode
        Its own weight decay counts only where none is given.
    weight_decay : array_like, shape (weight_decay,), optional
        λ > 0 [loss/weight²].
    highest : float, optional
        Largest amplitude of the curves [weight]; 1.2 times the largest learned one, or :math:`\sigma^{1/D}` where no
        λ has a learned state.
    n_points : int
        Points of each curve.

    Returns
    -------
    xarray.Dataset
        ``free_energy`` (weight_decay, amplitude) [loss]; ``stationary_amplitude`` [weight] and ``stationary_energy``
        [loss] (weight_decay, state), NaN where λ is beyond the spinodal (and for the saddle at D = 2, where the
        onset is continuous); coordinates ``spinodal`` and ``binodal``.

    Raises
    ------
    InvalidParameterError
        For λ ≤ 0 or a `highest` that is not positive.

    Examples
    --------
    >>> table = free_energy_table(Mode(depth=3, singular_value=1.0, weight_decay=0.25), [0.25, 0.5])
    >>> table.stationary_amplitude.round(4).values.tolist()
    [[0.0, 0.2542, 0.8968], [0.0, nan, nan]]
    >>> float(table.stationary_energy.diff("state")[0, 0].round(6))     # the barrier
    0.007941
    """
    given = mode.weight_decay if weight_decay is None else weight_decay
    decays = np.atleast_1d(checks.finite_array("weight_decay", given))
    for decay in decays:
        checks.positive("weight_decay", decay, mode_states.DECAY_REASON, mode_states.DECAY_FIX)
    count = checks.positive_int("n_points", n_points, minimum=2)
    state = mode.depth, mode.singular_value, decays, mode.input_variance
    learned = np.atleast_1d(mode_states.learned_amplitude(*state))
    saddle = np.full_like(learned, np.nan) if mode.depth == 2 else np.atleast_1d(mode_states.saddle_amplitude(*state))
    if highest is None:
        found = learned[np.isfinite(learned)]
        highest = 1.2 * (float(found.max()) if found.size else mode.singular_value ** (1 / mode.depth))
    amplitude = np.linspace(0.0, checks.positive("highest", highest), count)
    modes = [replace(mode, weight_decay=float(decay)) for decay in decays]
    stationary = np.stack([np.zeros_like(learned), saddle, learned], axis=1)
    energies = np.stack([m.free_energy(row) for m, row in zip(modes, stationary, strict=True)])
    dims = ("weight_decay", "state")
    return xr.Dataset(
        {
            "free_energy": (
                ("weight_decay", "amplitude"),
                np.stack([m.free_energy(amplitude) for m in modes]),
                describe("free_energy"),
            ),
            "stationary_amplitude": (dims, stationary, describe("amplitude")),
            "stationary_energy": (dims, energies, describe("free_energy")),
        },
        coords={
            "weight_decay": ("weight_decay", decays, describe("weight_decay")),
            "amplitude": ("amplitude", amplitude, describe("amplitude")),
            "state": ("state", list(STATES), {"long_name": "stationary state"}),
            "depth": ((), mode.depth, describe("depth")),
            "singular_value": ((), mode.singular_value, describe("singular_value")),
            "input_variance": ((), mode.input_variance, describe("input_variance")),
            "spinodal": ((), mode.spinodal(), describe("spinodal")),
            "binodal": ((), mode.binodal(), describe("binodal")),
        },
    )
