r"""Hysteresis: a sweep up, the sweep back, and what lies between them beside its prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.protocols.settling import Settling
from kramers_grok.escape.protocols.sweep import sweep
from kramers_grok.theory.hysteresis import predicted_loop

__all__ = ["hysteresis_area", "hysteresis_loop"]


def hysteresis_loop(
    process: SGD, weight_decays: ArrayLike, *, start: ArrayLike, seed: int, settling: Settling | None = None
) -> xr.Dataset:
    """Sweep the weight decay up from a learned state and down again, and put the prediction beside it.

    Parameters
    ----------
    process : SGD
        As in `kramers_grok.escape.protocols.sweep.sweep`.
    weight_decays : array_like, shape (n,)
        Values of the way up, rising [loss/weight²].
    start, seed, settling
        As in `sweep`; the way back begins where the way up ended, with whatever amplitudes are left there.

    Returns
    -------
    xarray.Dataset
        ``up`` and ``down`` (weight_decay, feature): order parameters, NaN at values of bisections that only one way
        visited. ``certified``, ``settled``, ``steps``, ``curvature`` of the way up, and ``down_settled``. Along
        ``feature``: ``jump``, ``before``, ``after``, ``area``, and ``returned``, the largest m of the way down below
        the λ at which the feature was lost. With a model that knows its features also ``predicted_up``,
        ``predicted_down`` and ``predicted_area`` (features that the network cannot hold at the start count as not
        there), and the coordinate ``spinodal``.

    Raises
    ------
    InvalidParameterError, DivergedError
        As in `sweep`.

    Examples
    --------
    >>> from kramers_grok.models.data import population
    >>> from kramers_grok.models.deep_linear import DeepLinearNetwork
    >>> network = DeepLinearNetwork((2, 2, 2, 2), [2.0, 1.0], weight_decay=0.4)
    >>> descent = SGD(network, population(), lr=0.1)
    >>> loop = hysteresis_loop(descent, [0.45, 0.47, 0.48, 0.5], start=network.ordered_state([0, 1]), seed=0)
    >>> loop.jump.round(2).values.tolist(), bool(loop.returned[1] < 1e-6)
    ([nan, -0.29], True)
    """
    decays = checks.finite_array("weight_decays", weight_decays, ndim=1)
    up = sweep(process, decays, start=start, seed=seed, settling=settling)
    down = sweep(process, decays[::-1], start=up.theta.values, seed=seed, settling=settling)
    back = down[["order_parameter", "settled"]].rename(order_parameter="down", settled="down_settled")
    ways = xr.merge(
        [up.drop_vars(["theta", "gradient_norm", "n_zero_modes"]).rename(order_parameter="up"), back.drop_vars("lr")],
        join="outer", compat="override", combine_attrs="override",
    )  # fmt: skip
    for name in ("settled", "certified", "down_settled"):
        ways[name] = ways[name].fillna(False).astype(bool)
    lost = ways.after.where(np.isfinite(ways.after), -np.inf)
    there = np.abs(ways.down).where(ways.weight_decay < lost).max("weight_decay")
    ways["returned"] = there.assign_attrs(units="1", long_name="largest m on the way back")
    ways["area"] = hysteresis_area(up, down)
    return _with_prediction(process, ways)


def _with_prediction(process: SGD, ways: xr.Dataset) -> xr.Dataset:
    if "spinodal" not in ways.coords:
        return ways
    model: Any = process.model
    predicted = predicted_loop(model.spectrum, model.depth, ways.weight_decay.values)
    # A feature that the start does not hold is not on the way up, whatever its spinodal.
    strong = np.abs(ways.up.isel(weight_decay=0)) > 0.05 * np.abs(ways.up.isel(weight_decay=0)).max()
    strong = strong.drop_vars("weight_decay")
    ways["predicted_up"] = predicted.up.where(strong, 0.0)
    ways["predicted_down"] = predicted.down.where(strong, 0.0)
    ways["predicted_area"] = predicted.area.where(strong, 0.0)
    for name in ("predicted_up", "predicted_down"):
        ways[name].attrs = describe("order_parameter") | {"long_name": name.replace("_", " ")}
    ways["predicted_area"].attrs = {"units": "loss/weight²", "long_name": "predicted area of the hysteresis loop"}
    return ways


def hysteresis_area(up: xr.Dataset, down: xr.Dataset) -> xr.DataArray:
    r"""Area between a sweep upwards and one downwards, :math:`\int (m_{up} - m_{down})\,d\lambda` of each feature.

    By the trapezoidal rule on the sweeps' own values, over the range that both cover: a jump counts as half way
    through its step.

    Parameters
    ----------
    up, down : Dataset
        From `sweep`, with the same features.

    Returns
    -------
    DataArray, dims (feature,)
        [order parameter · loss/weight²].

    Raises
    ------
    InvalidParameterError
        If features differ, or the ranges do not overlap.
    """
    if up.sizes["feature"] != down.sizes["feature"]:
        raise InvalidParameterError(
            f"`up` has {up.sizes['feature']} features and `down` {down.sizes['feature']}, expected two sweeps of one "
            "network.\nUse the result of `sweep` for both."
        )
    sorted_up, sorted_down = up.sortby("weight_decay"), down.sortby("weight_decay")
    x, y = sorted_up.weight_decay.values, sorted_down.weight_decay.values
    low, high = max(x[0], y[0]), min(x[-1], y[-1])
    if not low < high:
        raise checks.invalid(
            "down", checks.Described(f"sweep from {y[0]:g} to {y[-1]:g}"), f"one that overlaps {x[0]:g} to {x[-1]:g}",
            "the loop is what two branches enclose",
        )  # fmt: skip
    grid = np.unique(np.concatenate([x, y]).clip(low, high))
    m_up, m_down = sorted_up.order_parameter.values, sorted_down.order_parameter.values
    between = [np.interp(grid, x, a) - np.interp(grid, y, b) for a, b in zip(m_up.T, m_down.T, strict=True)]
    area = np.trapezoid(np.array(between), grid, axis=1)
    labels = {"units": "loss/weight²", "long_name": "area of the hysteresis loop"}
    return xr.DataArray(area, dims="feature", coords={"feature": up.feature}, name="area", attrs=labels)
