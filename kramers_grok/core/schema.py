"""Names, units and shape of results: what an escape-time data set must hold.

One run of one engine is one `xarray.Dataset` with the dimension ``replica``:
``exit_time`` (the horizon where a replica did not leave) and ``escaped`` (False =
censored at the horizon), scalar coordinates for what was set, provenance in ``attrs``.
A run of splitting has no exit times: it holds an estimate of their mean, from independent repeats.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.vocabulary import VARIABLES, Variable, describe

__all__ = [
    "ENGINES",
    "ESTIMATE",
    "PROVENANCE",
    "VARIABLES",
    "Variable",
    "canonical_json",
    "describe",
    "exit_dataset",
    "package_version",
    "provenance",
    "validate_exit_dataset",
    "validate_run",
    "validate_splitting_dataset",
]

ENGINES = ("theory", "langevin", "sgd")
PROVENANCE = ("kramers_grok_version", "numpy_version", "torch_version", "seed", "dtype", "device", "configuration")
# What is set for a run; where it differs between replicas the data set holds several runs.
SETTINGS = ("temperature", "lr", "batch_size", "weight_decay", "noise_std", "dt")
ESTIMATE = ("mean_exit_time", "lower", "upper", "standard_error")


@functools.cache
def package_version(distribution: str = "kramers_grok") -> str:
    """Return the installed version of a distribution, or "unknown" when it runs from a bare checkout."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _plain(value: Any) -> Any:
    """Turn a configuration value into what JSON knows, the same text on every machine."""
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, float):
        # JSON has no NaN or infinity; as text they still tell two configurations apart.
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    raise InvalidParameterError(
        f"configuration holds a {type(value).__name__}, which has no text that is the same on every "
        "machine.\n"
        "Use numbers, strings, lists, mappings, numpy arrays or dataclasses of these, e.g. `float(value)`."
    )


def canonical_json(configuration: Any) -> str:
    """Return a configuration as JSON text that depends on its content only (sorted keys, plain numbers).

    Raises
    ------
    InvalidParameterError
        If it holds an object without a machine-independent text.

    Examples
    --------
    >>> canonical_json({"lr": np.float64(0.1), "batch_size": (1, 4)})
    '{"batch_size": [1, 4], "lr": 0.1}'
    """
    return json.dumps(_plain(configuration), sort_keys=True, ensure_ascii=False, allow_nan=False)


def provenance(*, seed: int, dtype: str, device: str, configuration: Mapping[str, Any]) -> dict[str, str]:
    """Return the attributes that say where a result comes from, all as text (seeds exceed int64)."""
    return {
        "kramers_grok_version": package_version(),
        "numpy_version": np.__version__,
        "torch_version": package_version("torch"),
        "seed": str(checks.seed(seed)),
        "dtype": str(dtype),
        "device": str(device),
        "configuration": canonical_json(configuration),
    }


def _variable(name: str, value: Any) -> xr.Variable:
    """Label one value: a DataArray keeps its own attributes, everything else takes the vocabulary's."""
    if isinstance(value, xr.DataArray | xr.Variable):
        variable = value.variable if isinstance(value, xr.DataArray) else value
        labelled = variable.copy()
        if not {"units", "long_name"} <= set(variable.attrs):
            labelled.attrs = describe(name) | variable.attrs
        return labelled
    if isinstance(value, tuple):
        return xr.Variable(value[0], np.asarray(value[1]), describe(name))
    data = np.asarray(value)
    if data.ndim > 1:
        raise InvalidParameterError(
            f"`{name}` has shape {data.shape}: only the first axis is known to be the replica.\n"
            f'Name the others: `{name}=(("replica", "coordinate"), values)`.'
        )
    return xr.Variable(("replica",) if data.ndim else (), data, describe(name))


def exit_dataset(
    exit_time: ArrayLike,
    escaped: ArrayLike,
    *,
    horizon: float,
    coords: Mapping[str, Any],
    seed: int,
    dtype: str,
    device: str,
    configuration: Mapping[str, Any],
    extra_vars: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Put the exit times of one run into a labelled, validated data set.

    Parameters
    ----------
    exit_time : array, shape (replica,)    [time]
        Exit times; the horizon for a replica that did not leave.
    escaped : array of bool, shape (replica,)
        False = censored at the horizon.
    horizon : float    [time]
        Time at which the run stopped watching.
    coords : mapping
        What was set: ``engine`` and anything else of `VARIABLES`, a scalar or one value for each replica
        (a DataArray brings its own units and long name).
    seed : int
        Key of the counter-based noise, kept as text.
    dtype, device : str
        Precision and device of the run.
    configuration : mapping
        Everything needed to repeat the run; stored as JSON.
    extra_vars : mapping, optional
        More variables: an array of shape (replica,), a pair (dims, array), or a DataArray.

    Returns
    -------
    xarray.Dataset
        With ``exit_time`` and ``escaped`` along ``replica``.

    Raises
    ------
    InvalidParameterError
        Where `validate_exit_dataset` would, or for an unknown name.

    Examples
    --------
    >>> ds = exit_dataset([1.5, 4.0], [True, False], horizon=4.0, coords={"engine": "sgd", "lr": 0.1},
    ...                   seed=0, dtype="float64", device="cpu", configuration={"lr": 0.1})
    >>> ds.exit_time.attrs["units"], float(ds.horizon), ds.attrs["seed"]
    ('time', 4.0, '0')
    """
    labelled = {name: _variable(name, value) for name, value in coords.items()}
    horizon = checks.positive("horizon", horizon, "nothing can escape in no time")
    labelled["horizon"] = _variable("horizon", horizon)
    extra = {name: _variable(name, value) for name, value in (extra_vars or {}).items()}
    ds = xr.Dataset(
        {
            "exit_time": ("replica", np.asarray(exit_time, dtype=np.float64), describe("exit_time")),
            "escaped": ("replica", np.array(escaped), describe("escaped")),
            **extra,
        },
        coords=labelled,
        attrs=provenance(seed=seed, dtype=dtype, device=device, configuration=configuration),
    )
    return _checked(ds)


def _boolean(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return `escaped` as bool; some writers keep booleans as 0/1 integers."""
    if values.dtype == np.bool_:
        return values
    if not np.isin(values, (0, 1)).all():
        raise InvalidParameterError(
            f"`escaped` holds {np.unique(values)[:4]}, expected booleans: True = escaped, False = censored.\n"
            "Use `exit_time < horizon` to make them."
        )
    return values.astype(np.bool_)


def _check_times(times: NDArray[np.float64], escaped: NDArray[np.bool_], horizon: float) -> None:
    """Raise for times that are not a number, negative, or on the wrong side of the horizon."""
    bad = np.flatnonzero(~np.isfinite(times))
    if bad.size:
        raise InvalidParameterError(
            f"`exit_time` is NaN or infinite for {bad.size} replica(s), the first is number {bad[0]}: "
            "a replica that did not leave is censored at the horizon, one that diverged is an error.\n"
            "Use `exit_time=np.where(escaped, exit_time, horizon)`."
        )
    if (times < 0).any():
        raise InvalidParameterError(
            f"`exit_time` has {(times < 0).sum()} negative value(s): times count from the start.\n"
            "Subtract the start: `exit_time - start_time`."
        )
    wrong = np.flatnonzero(~escaped & (np.abs(times - horizon) > 1e-9 * horizon))
    if wrong.size:
        raise InvalidParameterError(
            f"{wrong.size} censored replica(s) have an exit time other than horizon={horizon:g}, the "
            "first is "
            f"number {wrong[0]} with {times[wrong[0]]:g}: all replicas must be watched up to one common "
            "horizon.\n"
            "Use `exit_time=np.where(escaped, exit_time, horizon)`."
        )
    late = np.flatnonzero(escaped & (times > horizon * (1 + 1e-9)))
    if late.size:
        raise InvalidParameterError(
            f"{late.size} escaped replica(s) left after horizon={horizon:g}, the first is number "
            f"{late[0]} at "
            f"{times[late[0]]:g}: what happens after the horizon is not seen.\n"
            "Mark them as censored: `escaped = exit_time < horizon`."
        )


def validate_exit_dataset(ds: xr.Dataset) -> xr.Dataset:
    """Check the escape-time data set of one run and return it cleaned: dtypes, labels, censored time = horizon exactly.

    A setting that is the same for all replicas becomes a scalar coordinate.

    Raises
    ------
    InvalidParameterError
        Missing variable or horizon, wrong dimensions, no replica, a NaN or negative time, a censored
        time other than the horizon, an escape after it; a setting that differs between replicas.

    Examples
    --------
    >>> ds = exit_dataset([1.5, 4.0], [True, False], horizon=4.0, coords={"engine": "sgd", "lr": [0.1, 0.1]},
    ...                   seed=0, dtype="float64", device="cpu", configuration={})
    >>> ds.lr.dims, float(validate_exit_dataset(ds).lr)
    (('replica',), 0.1)
    """
    return _checked(_one_setting(ds))


def _one_setting(ds: xr.Dataset) -> xr.Dataset:
    """Raise where a setting differs between replicas: times of different processes have no common law."""
    for name in SETTINGS:
        if name not in ds.coords or ds[name].dims != ("replica",) or not ds.sizes["replica"]:
            continue
        values = np.unique(ds[name].values)
        if len(values) > 1:
            raise InvalidParameterError(
                f"`{name}` differs between replicas, from {values[0]:g} to {values[-1]:g}, expected one value: a mean "
                "over different settings is nobody's escape time.\n"
                f'Take one at a time: `for value, one in ds.groupby("{name}"): ...`.'
            )
        ds = ds.assign_coords({name: ((), values[0], ds[name].attrs)})
    return ds


def _checked(ds: xr.Dataset) -> xr.Dataset:
    """Check times, censoring and labels, whatever was set."""
    missing = [name for name in ("exit_time", "escaped", "horizon") if name not in ds.variables]
    if missing:
        raise InvalidParameterError(
            f"the data set has no `{'`, `'.join(missing)}`, it holds {sorted(map(str, ds.variables))}: "
            "censoring "
            "cannot be told from escape without them.\n"
            "Make it with `kramers_grok.core.schema.exit_dataset(exit_time, escaped, horizon=..., ...)`."
        )
    for name in ("exit_time", "escaped"):
        if ds[name].dims != ("replica",):
            raise InvalidParameterError(
                f"`{name}` has dimensions {ds[name].dims}, expected ('replica',): one data set is one run.\n"
                "Select one run first, e.g. `ds.sel(temperature=T)`."
            )
    if ds.sizes["replica"] == 0:
        raise InvalidParameterError("`exit_time` is empty: there is no replica to learn from.\nUse n_replicas >= 1.")
    horizon = checks.positive("horizon", ds["horizon"].values.item(), "nothing can escape in no time")
    times = np.asarray(ds["exit_time"].values, dtype=np.float64)
    escaped = _boolean(ds["escaped"].values)
    _check_times(times, escaped, horizon)
    cleaned = np.minimum(times, horizon)
    cleaned[~escaped] = horizon
    out = ds.assign(
        exit_time=("replica", cleaned, describe("exit_time") | ds["exit_time"].attrs),
        escaped=("replica", escaped, describe("escaped") | ds["escaped"].attrs),
    )
    return _labelled(out)


def validate_splitting_dataset(ds: xr.Dataset) -> xr.Dataset:
    """Check the result of a splitting run and return it labelled.

    It holds the scalars ``mean_exit_time``, ``lower``, ``upper``, ``standard_error`` [time] and the dimension
    ``repeat`` of the independent repeats behind them; no ``exit_time``, since no replica lives through a whole escape.

    Raises
    ------
    InvalidParameterError
        Missing or non-scalar estimates, no repeats, a mean that is not positive and finite, an interval that
        does not hold it, a negative standard error.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"mean_exit_time": 9.0, "lower": 7.0, "upper": 11.0, "standard_error": 1.0, "cost": ("repeat", [5, 6])}
    ... )
    >>> validate_splitting_dataset(ds).mean_exit_time.attrs["units"]
    'time'
    """
    missing = [name for name in ESTIMATE if name not in ds.variables]
    if missing or "repeat" not in ds.dims:
        raise InvalidParameterError(
            f"the splitting result lacks {missing or 'the dimension `repeat`'}, it holds "
            f"{sorted(map(str, ds.variables))}: its error comes from independent repeats.\n"
            "Make it with `splitting(process, target=..., seed=...)`."
        )
    several = [name for name in ESTIMATE if ds[name].ndim]
    if several:
        raise InvalidParameterError(
            f"`{several[0]}` has dimensions {ds[several[0]].dims}, expected none: one data set is one run.\n"
            "Select one run first, e.g. `ds.sel(temperature=T)`."
        )
    mean, lower, upper, error = (float(ds[name]) for name in ESTIMATE)
    checks.positive("mean_exit_time", mean, "no escape was reached otherwise", "Use more replicas or repeats.")
    if not (lower <= mean <= upper and error >= 0.0):
        raise InvalidParameterError(
            f"`mean_exit_time` = {mean:g} has the interval [{lower:g}, {upper:g}] and the standard error {error:g}, "
            "expected lower <= mean <= upper and an error >= 0.\nUse at least two repeats."
        )
    return _labelled(ds.copy())


def validate_run(ds: xr.Dataset) -> xr.Dataset:
    """Check one run, of first passages (`validate_exit_dataset`) or of splitting (`validate_splitting_dataset`)."""
    splitting = "exit_time" not in ds.variables and "mean_exit_time" in ds.variables
    return validate_splitting_dataset(ds) if splitting else validate_exit_dataset(ds)


def _labelled(ds: xr.Dataset) -> xr.Dataset:
    """Give every variable of the vocabulary its labels, where it has none of its own."""
    for name in map(str, ds.variables):
        if name in VARIABLES:
            ds[name].attrs = describe(name) | ds[name].attrs
    return ds
