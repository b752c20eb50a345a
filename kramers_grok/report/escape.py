"""The page of a study of escapes over a grid."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.report import escape_figures
from kramers_grok.report.page import Finding, Page, Table
from kramers_grok.report.pictures import draw
from kramers_grok.report.text import shortened, toml
from kramers_grok.studies.results.export import MISSING
from kramers_grok.studies.results.verdicts import Verdicts, judge

__all__ = ["page", "table"]

MOST_ROWS = 200
_ENGINES = {"langevin": "Langevin", "sgd": "SGD"}
_SECTIONS = {
    "": "study", "system": "system", "noise": "noise", "langevin": "Langevin dynamics", "sgd": "SGD", "run": "run"
}  # fmt: skip


def page(
    tree: xr.DataTree, *, command: str, provenance: list[tuple[str, str]], verdicts: Verdicts | None = None
) -> Page:
    """Return the page of an exported escape study.

    Parameters
    ----------
    tree : DataTree
        From `kramers_grok.studies.results.export.gather`.
    command : str
        What runs the declaration again.
    provenance : list of (str, str)
        Names and values.
    verdicts : Verdicts, optional
        From `judge`, if at hand.
    """
    verdicts = verdicts or judge(tree)
    declaration = json.loads(str(tree.attrs.get("declaration", "{}")))
    problems: list[str] = []
    try:
        wanted = list(escape_figures.figures(tree))
    except Exception as error:  # data of another version, or foreign
        wanted = []
        problems.append(f"There are no figures ({type(error).__name__}: {error}).")
    drawn = [draw(make, alt=alt, caption=caption, problems=problems) for make, alt, caption in wanted]
    return Page(
        kind="Study of escape times",
        title=shortened(str(tree.attrs.get("title", "")) or "Escape times", 400),
        question=shortened(str(tree.attrs.get("question", "")), 1000),
        headline=verdicts.headline,
        complete=verdicts.complete,
        findings=[Finding(f.topic, f.verdict, f.text) for f in verdicts.findings],
        notes=[verdicts.tests, verdicts.shared],
        warnings=[shortened(warning, 600) for warning in (*verdicts.warnings, *problems)],
        figures=[picture for picture in drawn if picture is not None],
        table=table(tree["comparison"].to_dataset()),
        configuration=_configuration(declaration),
        declaration=toml(declaration),
        command=command,
        provenance=provenance,
    )


def _configuration(declaration: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The declaration, one line for each key."""
    rows = []
    sections: dict[str, Any] = {"": {k: v for k, v in declaration.items() if not isinstance(v, Mapping)}}
    sections |= {k: v for k, v in declaration.items() if isinstance(v, Mapping)}
    for section, values in sections.items():
        for key, value in values.items():
            if key in ("title", "question", "kind") or value is None:
                continue
            shown = ", ".join(map(_plain, value)) if isinstance(value, list) else _plain(value)
            rows.append((f"{_SECTIONS.get(section, section)}: {key.replace('_', ' ')}", shortened(shown)))
    return rows


def _plain(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


# ------------------------------------------------------------------ the table


def table(rows: xr.Dataset) -> Table | None:
    """Return the comparison as text, one row for each simulation; nothing if nothing was to be simulated."""
    n = rows.sizes.get("row", 0)
    if not n:
        return None
    varied = [name for name in _VARIED if name in rows and _several(rows[name].values)]
    columns = ["engine", *(_VARIED[name] for name in varied), "T", "ΔF/T", "mean time [95 %]", "predicted",
               "measured / predicted", "deviation [s.e.]", "KS p", "escaped", "method", "status"]  # fmt: skip
    confidence = set(_numbers(rows, "run_confidence").tolist())
    if len(confidence) == 1 and math.isfinite(level := confidence.pop()):
        columns = [name.replace("95 %", f"{100 * level:g} %") for name in columns]
    shown = [_row(rows.isel(row=i), varied) for i in range(min(n, MOST_ROWS))]
    note = "Times in the simulation's unit (learning rate × steps); s.e.: standard errors; KS: p-value of the survival "
    note += "curve against the predicted one. A dash: not known."
    if n > MOST_ROWS:
        note += f" The first {MOST_ROWS} of {n} rows; all are in the group “comparison” of the export."
    return Table("Measured beside predicted, one row for each simulation.", columns, shown, note)


_VARIED = {
    "system": "system", "depth": "D", "width": "h", "singular_value": "σ", "weight_decay": "λ", "lr": "η",
    "batch_size": "B", "label_noise": "s", "dt": "dt", "integrator": "integrator", "noise_std": "g", "seed": "seed",
    "run_method": "asked for", "run_replicas": "replicas", "run_precision": "precision wanted",
    "run_max_replicas": "most replicas", "run_horizon": "horizon", "run_confidence": "confidence",
}  # fmt: skip


def _several(values: Any) -> bool:
    """Whether a setting has more than one value, where it is set at all."""
    shown = {str(v) for v in values.tolist() if v != "" and not (isinstance(v, float) and math.isnan(v))}
    return len(shown) > 1


def _row(row: xr.Dataset, varied: list[str]) -> list[str]:
    value = {str(name): row[name].values.item() for name in row.data_vars}

    def number(name: str, form: str = ".4g") -> str:
        return _number(value.get(name, math.nan), form)

    interval = "–"
    if value.get("mean_exit_time", math.nan) == value.get("mean_exit_time"):
        interval = f"{number('mean_exit_time')} [{number('lower')}, {number('upper')}]"
    ratio = number("ratio", ".3f")
    if ratio != "–":
        ratio += f" ± {number('ratio_error', '.3f')}"
    replicas = value.get("n_replicas", math.nan)
    escaped = f"{number('n_escaped', '.0f')} of {replicas:.0f}" if replicas > 0 else "–"
    cells = [_number(value[n]) for n in varied]
    return [
        _ENGINES.get(str(value["engine"]), str(value["engine"])), *cells,
        number("temperature"), number("barrier_over_temperature", ".3g"), interval,
        number("predicted_mean"), ratio, number("difference_se", "+.2f"), number("ks_p_value", ".2g"), escaped,
        str(value.get("method", "")) or "–", str(value.get("status", MISSING)),
    ]  # fmt: skip


def _number(value: Any, form: str = ".6g") -> str:
    if not isinstance(value, int | float):
        return str(value) or "–"
    return "–" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:{form}}"


def _numbers(rows: xr.Dataset, name: str) -> Any:
    return np.asarray(rows[name].values, dtype=np.float64) if name in rows else np.array([])
