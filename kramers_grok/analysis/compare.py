"""Theory, Langevin and SGD side by side, with their differences in standard errors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from kramers_grok.analysis.hypotheses import exponentiality_test, ks_test, logrank_test
from kramers_grok.analysis.survival import Estimate, PredictedExit, SurvivalFunction, mean_exit_time
from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError, TooFewEscapesError
from kramers_grok.core.schema import VARIABLES, describe, package_version, validate_exit_dataset

__all__ = ["compare", "exit_time_table", "predicted_dataset", "predicted_survival", "summary"]

_NUMBERS = ("mean_exit_time", "lower", "upper", "standard_error", "n_escaped", "n_replicas")
_TESTS = ("difference_se", "ks_p_value", "logrank_p_value", "exponentiality_p_value")


def predicted_dataset(theory: PredictedExit, times: ArrayLike | None = None, *, until: float = 0.0) -> xr.Dataset:
    """Tabulate a predicted exit time: its mean and its survival curve.

    Parameters
    ----------
    theory : PredictedExit
        Has ``mean`` and ``survival(t)``; ``temperature``, ``relative_error``, ``method`` are kept if there.
    times : array, shape (time,), optional    [time]
        Where to tabulate; by default 0 and 400 times from mean/1000 to the later of 10 means and `until`.
    until : float    [time]
        Last time that the default table must reach, e.g. the longest horizon.

    Returns
    -------
    xarray.Dataset
        ``mean_exit_time``, ``relative_error`` and ``survival(time)``.
    """
    mean = checks.positive("theory.mean", theory.mean)
    if times is None:
        last = max(10.0 * mean, until)
        grid = np.concatenate([[0.0], np.geomspace(1e-3 * mean, last, 400)])
        grid[-1] = last
    else:
        grid = checks.finite_array("times", times, ndim=1)
    survival = np.clip(np.asarray(theory.survival(grid), dtype=np.float64), 0.0, 1.0)
    error = getattr(theory, "relative_error", None)
    ds = xr.Dataset(
        {
            "mean_exit_time": ((), mean, describe("mean_exit_time")),
            "relative_error": ((), 0.0 if error is None else float(error), describe("relative_error")),
            "survival": ("time", survival, describe("survival")),
        },
        coords={"time": ("time", grid, describe("time")), "engine": ((), "theory", describe("engine"))},
        attrs={"kramers_grok_version": package_version(), "method": str(getattr(theory, "method", "unspecified"))},
    )
    temperature = getattr(theory, "temperature", None)
    if temperature is not None:
        ds = ds.assign_coords(temperature=((), float(temperature), describe("temperature")))
    return ds


def predicted_survival(ds: xr.Dataset) -> SurvivalFunction:
    """Return S(t) from a tabulated curve, linear in (t, ln S); after its last time it falls exponentially.

    Examples
    --------
    >>> t = np.linspace(0, 5, 11)
    >>> ds = xr.Dataset({"survival": ("time", np.exp(-t))}, coords={"time": t})
    >>> np.allclose(predicted_survival(ds)(np.array([0.1, 7.0])), np.exp([-0.1, -7.0]))
    True
    """
    if "survival" not in ds.variables or "time" not in ds.variables:
        raise InvalidParameterError(
            f"the theory has no `survival(time)`, it holds {sorted(map(str, ds.variables))}.\n"
            "Make it with `predicted_dataset(exit_time(...))`."
        )
    t = checks.finite_array("time", ds["time"].values, ndim=1)
    survival = checks.finite_array("survival", ds["survival"].values, ndim=1)
    # Beyond the last digits of S its logarithm is noise; there the slowest exponential takes over.
    good = survival > 1e-10
    t, log_survival = t[good], np.log(survival[good])
    tail = 0.0
    if t.size > 1:
        half = int(np.searchsorted(-log_survival, 0.5 * -log_survival[-1]))
        half = min(half, t.size - 2)
        tail = float((log_survival[-1] - log_survival[half]) / (t[-1] - t[half]))

    def curve(x: NDArray[np.float64]) -> NDArray[np.float64]:
        inside = np.interp(x, t, log_survival)
        beyond = np.maximum(x - t[-1], 0.0) * min(tail, 0.0)
        return np.asarray(np.exp(inside + beyond))

    return curve


def _plain_attrs(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Attributes as netCDF knows them: text and numbers; booleans, None and mappings as JSON text."""
    plain = {}
    for name, value in attrs.items():
        if isinstance(value, bool | np.bool_):
            value = json.dumps(bool(value))
        elif value is None or isinstance(value, Mapping):
            value = json.dumps(value, sort_keys=True)
        plain[name] = value
    return plain


def _estimate(ds: xr.Dataset, confidence: float, burn_in: float, min_escapes: int) -> Estimate:
    """Mean exit time; with too few escapes the partial one, whose interval says so."""
    try:
        return mean_exit_time(ds, confidence, burn_in=burn_in, min_escapes=min_escapes)
    except TooFewEscapesError as error:
        if not isinstance(error.result, Estimate):
            raise
        return error.result


def _row(name: str, e: Estimate) -> dict[str, float]:
    return {
        "mean_exit_time": e.value,
        "lower": e.lower,
        "upper": e.upper,
        "standard_error": e.standard_error,
        "n_escaped": e.n_escaped,
        "n_replicas": e.n,
    }


def _test_row(ds: xr.Dataset, survival: SurvivalFunction | None, burn_in: float, min_escapes: int) -> dict[str, float]:
    """P-values of one run; NaN where there is no prediction or too little to judge."""
    row = dict.fromkeys(_TESTS, math.nan)
    if survival is not None:
        row["ks_p_value"] = ks_test(ds, survival).p_value
        row["logrank_p_value"] = logrank_test(ds, survival).p_value
    try:
        row["exponentiality_p_value"] = exponentiality_test(ds, burn_in, min_escapes=min_escapes).p_value
    except TooFewEscapesError:
        pass
    return row


def _differences(mean: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pairwise (row − column) over the joint standard error; NaN where a mean or both errors are unknown."""
    with np.errstate(invalid="ignore", divide="ignore"):
        z = (mean[:, None] - mean[None, :]) / np.hypot(error[:, None], error[None, :])
    known = np.isfinite(mean) & np.isfinite(error)
    z[~(known[:, None] & known[None, :])] = np.nan
    np.fill_diagonal(z, 0.0)
    return z


def _table(rows: Mapping[str, Mapping[str, float]]) -> xr.Dataset:
    """Assemble rows to a labelled table along ``engine``, with the pairwise differences."""
    engines = list(rows)
    columns = {name: np.array([rows[e][name] for e in engines], dtype=np.float64) for name in (*_NUMBERS, *_TESTS)}
    z = _differences(columns["mean_exit_time"], columns["standard_error"])
    if "theory" in engines:
        columns["difference_se"] = z[:, engines.index("theory")].copy()
        columns["difference_se"][engines.index("theory")] = math.nan
    data: dict[str, Any] = {name: ("engine", values, describe(name)) for name, values in columns.items()}
    for name in ("n_escaped", "n_replicas"):
        data[name] = ("engine", columns[name].astype(np.int64), describe(name))
    data["pairwise_difference_se"] = (("engine", "other"), z, describe("pairwise_difference_se"))
    labels = np.array(engines, dtype=object)
    return xr.Dataset(
        data,
        coords={
            "engine": ("engine", labels, describe("engine")),
            "other": ("other", labels, {"units": "1", "long_name": "engine compared with"}),
        },
    )


def compare(
    *,
    theory: PredictedExit | xr.Dataset | None = None,
    shared: str = "",
    confidence: float = 0.95,
    burn_in: float = 0.0,
    min_escapes: int = 10,
    **runs: xr.Dataset,
) -> xr.DataTree:
    """Put a prediction and runs of any engines side by side.

    Parameters
    ----------
    theory : PredictedExit or Dataset, optional
        The predicted exit time, or its table from `predicted_dataset`.
    shared : str
        What the arms have in common besides the physics (noise, integrator, data): differences in
        standard errors mean something only between arms that share nothing.
    confidence : float
        Level of the intervals.
    burn_in : float    [time]
        Passed to `mean_exit_time` and `exponentiality_test`; the tests against theory use all times.
    min_escapes : int
        Below it an arm keeps its partial estimate and has no exponentiality test.
    **runs : Dataset
        Runs by name, e.g. ``langevin=..., sgd=...``, as made by `exit_dataset`.

    Returns
    -------
    xarray.DataTree
        A group for theory and each run as given, and ``table`` along ``engine``: mean exit time with
        interval, counts, difference to the theory in standard errors, p-values of count and KS, log-rank
        and exponentiality, and all pairwise differences. Writes to netCDF as it is.

    Raises
    ------
    InvalidParameterError
        No run, a run called "table", or data that `validate_exit_dataset` refuses.

    Examples
    --------
    >>> from kramers_grok.core.schema import exit_dataset
    >>> t = -np.log1p(-(np.arange(400) + 0.5) / 400)
    >>> run = exit_dataset(np.minimum(t, 2), t < 2, horizon=2.0, coords={"engine": "langevin"}, seed=0,
    ...                    dtype="float64", device="cpu", configuration={})
    >>> grid = np.linspace(0, 10, 101)
    >>> curve = ("time", np.exp(-grid))
    >>> theory = xr.Dataset({"mean_exit_time": 1.0, "survival": curve}, coords={"time": grid})
    >>> tree = compare(theory=theory, langevin=run)
    >>> sorted(tree.children), abs(float(tree["table"]["difference_se"].sel(engine="langevin"))) < 0.1
    (['langevin', 'table', 'theory'], True)
    """
    if not runs or "table" in runs:
        raise InvalidParameterError(
            f"compare() got the runs {sorted(runs)}, expected at least one and none called 'table'.\n"
            "Use `compare(theory=..., langevin=first_passage(...), sgd=first_passage(...))`."
        )
    clean = {name: validate_exit_dataset(ds) for name, ds in runs.items()}
    groups: dict[str, xr.Dataset] = {}
    rows: dict[str, dict[str, float]] = {}
    survival: SurvivalFunction | None = None
    if theory is not None:
        if isinstance(theory, xr.Dataset):
            groups["theory"] = theory
        else:
            horizon = max(float(ds["horizon"]) for ds in clean.values())
            groups["theory"] = predicted_dataset(theory, until=horizon)
        if "survival" in groups["theory"].variables:
            survival = predicted_survival(groups["theory"])
        rows["theory"] = _theory_row(groups["theory"])
    for name, ds in clean.items():
        groups[name] = ds
        rows[name] = _row(name, _estimate(ds, confidence, burn_in, min_escapes))
        rows[name] |= _test_row(ds, survival, burn_in, min_escapes)
    table = _table(rows)
    table.attrs = {"confidence": confidence, "burn_in": burn_in, "shared": shared or "not stated"}
    groups["table"] = table
    root = xr.Dataset(attrs={"kramers_grok_version": package_version(), "shared": shared or "not stated"})
    plain = {name: _portable(ds) for name, ds in groups.items()}
    return xr.DataTree.from_dict({"/": root, **{f"/{name}": ds for name, ds in plain.items()}})


def _portable(ds: xr.Dataset) -> xr.Dataset:
    """Copy with attributes that netCDF can hold."""
    out = ds.copy()
    out.attrs = _plain_attrs(out.attrs)
    for name in out.variables:
        out[name].attrs = _plain_attrs(out[name].attrs)
    return out


def _theory_row(ds: xr.Dataset) -> dict[str, float]:
    """Row of the theory: its numerical error stands where the runs have a statistical one."""
    mean = float(ds["mean_exit_time"])
    error = mean * float(ds["relative_error"]) if "relative_error" in ds.variables else 0.0
    row = dict.fromkeys((*_NUMBERS, *_TESTS), math.nan)
    interval = {"lower": mean - error, "upper": mean + error, "standard_error": error}
    return row | interval | {"mean_exit_time": mean, "n_escaped": 0, "n_replicas": 0}


def exit_time_table(
    runs: Iterable[xr.Dataset], confidence: float = 0.95, *, burn_in: float = 0.0, min_escapes: int = 10
) -> xr.Dataset:
    """Summarise several runs of one engine, e.g. at several temperatures, as one table along ``run``.

    Every scalar coordinate of the runs becomes a coordinate of the table (NaN or "" where a run lacks it).
    A run with too few escapes keeps its partial estimate: `upper` is inf where none escaped.

    Returns
    -------
    xarray.Dataset
        ``mean_exit_time``, ``lower``, ``upper``, ``standard_error``, ``n_escaped``, ``n_replicas``.
    """
    clean = [validate_exit_dataset(ds) for ds in runs]
    if not clean:
        raise InvalidParameterError("`runs` is empty, expected at least one run.\nUse `exit_time_table([ds])`.")
    rows = [_row("", _estimate(ds, confidence, burn_in, min_escapes)) for ds in clean]
    data: dict[str, Any] = {name: ("run", np.array([row[name] for row in rows]), describe(name)) for name in _NUMBERS}
    names = {str(n) for ds in clean for n, c in ds.coords.items() if c.ndim == 0}
    coords: dict[str, Any] = {}
    for name in sorted(names):
        present = [ds[name] for ds in clean if name in ds.coords]
        empty: Any = "" if present[0].dtype.kind in "OUST" else math.nan
        values = [ds[name].values.item() if name in ds.coords else empty for ds in clean]
        array = np.array(values, dtype=object) if isinstance(empty, str) else np.array(values)
        coords[name] = ("run", array, present[0].attrs)
    return xr.Dataset(data, coords=coords, attrs={"confidence": confidence, "burn_in": burn_in})


def summary(tree: xr.DataTree) -> str:
    """Return the table of a comparison as plain text, one line for each engine.

    Examples
    --------
    >>> from kramers_grok.core.schema import exit_dataset
    >>> run = exit_dataset(np.arange(1.0, 13.0), np.ones(12, bool), horizon=20.0, coords={}, seed=0,
    ...                    dtype="float64", device="cpu", configuration={})
    >>> print(summary(compare(langevin=run)).splitlines()[1].split()[:2])
    ['langevin', '6.5']
    """
    table = tree["table"].to_dataset()
    percent = 100 * float(table.attrs.get("confidence", 0.95))
    header = ["engine", "mean", f"{percent:g} % interval", "escaped", "Δ/s.e.", "p(KS)", "p(log-rank)", "p(exp.)"]
    lines = [header]
    for engine in table["engine"].values:
        row = table.sel(engine=engine)
        value = {name: float(row[name]) for name in (*_NUMBERS, *_TESTS)}
        n = int(value["n_replicas"])
        lines.append(
            [
                str(engine),
                f"{value['mean_exit_time']:.5g}",
                f"[{value['lower']:.5g}, {value['upper']:.5g}]",
                f"{int(value['n_escaped'])}/{n}" if n else "-",
                *("-" if math.isnan(value[name]) else f"{value[name]:.3g}" for name in _TESTS),
            ]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    units, shared = VARIABLES["mean_exit_time"].units, tree.attrs.get("shared", "not stated")
    return "\n".join([*text, f"times in [{units}]; shared between arms: {shared}"])
