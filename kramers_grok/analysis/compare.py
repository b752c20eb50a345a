"""Theory, Langevin and SGD side by side, with their differences in standard errors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from kramers_grok.analysis.budget import BUDGET_COLUMNS, error_budget
from kramers_grok.analysis.hypotheses import exponentiality_test, ks_test, logrank_test
from kramers_grok.analysis.ladder import System
from kramers_grok.analysis.predicted import predicted_dataset, predicted_survival
from kramers_grok.analysis.survival import Estimate, PredictedExit, SurvivalFunction, estimate
from kramers_grok.core.exceptions import InvalidParameterError, TooFewEscapesError
from kramers_grok.core.region import Region
from kramers_grok.core.schema import VARIABLES, describe, package_version, validate_run
from kramers_grok.theory.minibatch import MinibatchNoise, PathNoise

__all__ = ["compare", "exit_time_table", "summary"]

_NUMBERS = ("mean_exit_time", "lower", "upper", "standard_error", "n_escaped", "n_replicas")
_BUDGET = ("asymptotic_time", "predicted_time", "numerical_error", "total_error", *BUDGET_COLUMNS)
_TESTS = ("difference_se", "ks_p_value", "logrank_p_value", "exponentiality_p_value")


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
    """P-values of one run; NaN where there is no prediction, no exit times (splitting) or too little to judge."""
    row = dict.fromkeys(_TESTS, math.nan)
    if "exit_time" not in ds.variables:
        return row
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
    present = {name for row in rows.values() for name in row}
    names = [name for name in (*_NUMBERS, *_TESTS, *_BUDGET) if name in present]
    columns = {name: np.array([rows[e].get(name, math.nan) for e in engines], dtype=np.float64) for name in names}
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
    system: System | None = None,
    target: Region | None = None,
    start: ArrayLike | None = None,
    minibatch: Mapping[str, MinibatchNoise | PathNoise] | None = None,
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
    system, target, start
        As in `error_budget`; with them the table says where each arm's difference to the asymptotic formula comes
        from, in columns that sum to ``total_error``.
    minibatch : mapping of MinibatchNoise or PathNoise, optional
        Noise of an arm's data, by the arm's name.
    **runs : Dataset
        Runs by name, e.g. ``langevin=..., sgd=...``, as made by `first_passage` or by `splitting`. An arm of
        splitting has no exit times and so no tests.

    Returns
    -------
    xarray.DataTree
        A group for theory and each run as given, and ``table`` along ``engine``: mean exit time with
        interval, counts, difference to the theory in standard errors, p-values of count and KS, log-rank
        and exponentiality, all pairwise differences, and the budget. Writes to netCDF as it is.

    Raises
    ------
    InvalidParameterError
        No run, a run called "table", data that `validate_run` refuses, or only one of `system` and `target`.

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
    if (system is None) != (target is None):
        raise InvalidParameterError(
            f"compare() got the {'target' if system is None else 'system'} alone: a budget needs both.\n"
            "Use `compare(system=chain, target=beyond(chain.barrier()), ...)`, or leave both out."
        )
    clean = {name: validate_run(ds) for name, ds in runs.items()}
    groups: dict[str, xr.Dataset] = {}
    rows: dict[str, dict[str, float]] = {}
    survival: SurvivalFunction | None = None
    if theory is not None:
        if isinstance(theory, xr.Dataset):
            groups["theory"] = theory
        else:
            horizon = max((float(ds["horizon"]) for ds in clean.values() if "horizon" in ds.coords), default=0.0)
            groups["theory"] = predicted_dataset(theory, until=horizon)
        if "survival" in groups["theory"].variables:
            survival = predicted_survival(groups["theory"])
        rows["theory"] = _theory_row(groups["theory"])
    for name, ds in clean.items():
        groups[name] = ds
        rows[name] = _row(name, estimate(ds, confidence, burn_in=burn_in, min_escapes=min_escapes))
        rows[name] |= _test_row(ds, survival, burn_in, min_escapes)
    methods: dict[str, str] = {}
    if system is not None and target is not None:
        for name, ds in clean.items():
            budget = error_budget(
                system, ds, target=target, start=start, minibatch=(minibatch or {}).get(name),
                confidence=confidence, burn_in=burn_in, min_escapes=min_escapes,
            )  # fmt: skip
            rows[name] |= {column: float(budget[column]) for column in _BUDGET}
            methods[name] = str(budget.attrs["time_step_method"])
    table = _table(rows)
    table.attrs = {"confidence": confidence, "burn_in": burn_in, "shared": shared or "not stated"}
    if methods:
        table.attrs["time_step_method"] = json.dumps(methods, sort_keys=True, ensure_ascii=False)
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
    clean = [validate_run(ds) for ds in runs]
    if not clean:
        raise InvalidParameterError("`runs` is empty, expected at least one run.\nUse `exit_time_table([ds])`.")
    rows = [_row("", estimate(ds, confidence, burn_in=burn_in, min_escapes=min_escapes)) for ds in clean]
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
        value = {name: float(row[name]) for name in (*_NUMBERS, *_TESTS) if name in row}
        n = int(value["n_replicas"])
        lines.append(
            [
                str(engine),
                f"{value['mean_exit_time']:.5g}",
                f"[{value['lower']:.5g}, {value['upper']:.5g}]",
                f"{int(value['n_escaped'])}/{n}" if n else "-",
                *(_cell(value.get(name, math.nan)) for name in _TESTS),
            ]
        )
    units, shared = VARIABLES["mean_exit_time"].units, tree.attrs.get("shared", "not stated")
    text = [_aligned(lines), f"times in [{units}]; shared between arms: {shared}"]
    if "total_error" in table:
        text += ["", _budget_text(table)]
    return "\n".join(text)


def _budget_text(table: xr.Dataset) -> str:
    """Lines of the budget: the difference to the asymptotic time in percent of it, and its parts."""
    names = ["total_error", *BUDGET_COLUMNS]
    lines = [["engine", "asymptotic", *(name.removesuffix("_error").replace("_", " ") for name in names), "s.e."]]
    for engine in table["engine"].values:
        row = table.sel(engine=engine)
        base = float(row["asymptotic_time"])
        if math.isnan(base):
            continue
        shares = (100 * float(row[name]) / base for name in (*names, "standard_error"))
        lines.append([str(engine), f"{base:.5g}", *("-" if math.isnan(x) else f"{x:+.3g}" for x in shares)])
    lines[1:] = [[*line[:-1], line[-1].removeprefix("+")] for line in lines[1:]]
    return f"{_aligned(lines)}\nmeasured minus asymptotic and its parts, in % of the asymptotic time"


def _cell(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def _aligned(lines: list[list[str]]) -> str:
    """Text of a table with columns of equal width."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)
