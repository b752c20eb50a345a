"""Settings of the test suite proper."""

import importlib.util
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, settings

from kramers_grok.core.schema import canonical_json, describe, exit_dataset
from kramers_grok.dynamics import threads
from kramers_grok.studies.escape.study import EscapeStudy
from kramers_grok.studies.files.netcdf import read_netcdf
from kramers_grok.studies.running.cells import Cell

# Derandomised: a red build is red again when it is looked at. No deadline: the first example may compile a kernel.
settings.register_profile(
    "kramers_grok",
    derandomize=True,
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("kramers_grok")


@pytest.fixture(scope="session", autouse=True)
def _threads_for_little_work() -> Iterator[None]:
    """Whoever asks for threads gets them: tests that compare numbers of threads have little work."""
    before, threads.LEAST_WORK = threads.LEAST_WORK, 0
    yield
    threads.LEAST_WORK = before


@pytest.fixture(scope="session")
def check_labels() -> Callable[[xr.DataTree], None]:
    """Every variable of a file says its unit and what it is."""

    def check(tree: xr.DataTree) -> None:
        for node in tree.subtree:
            for variable in node.dataset.data_vars.values():
                assert {"units", "long_name"} <= set(variable.attrs), (tree.name, variable.name)

    return check


# ---------------------------------------------------------------- evidence: its scripts and committed results

EVIDENCE = Path(__file__).parents[1] / "evidence"


@pytest.fixture(scope="session")
def evidence_script() -> Callable[[str], ModuleType]:
    """Script of an evidence run by its name, as a module."""

    @cache
    def script(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"evidence_{name}", EVIDENCE / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return script


@pytest.fixture(scope="session")
def evidence_tree() -> Callable[[str], xr.DataTree]:
    """Committed results of an evidence run, with all their groups."""

    @cache
    def tree(name: str) -> xr.DataTree:
        found = read_netcdf(EVIDENCE / name / "table.nc")
        return xr.DataTree(found) if isinstance(found, xr.Dataset) else found

    return tree


@pytest.fixture(scope="session")
def evidence_table(evidence_tree: Callable[[str], xr.DataTree]) -> Callable[..., xr.Dataset]:
    """``evidence_table(name, group)``: one group of the committed results, the uppermost if none is named."""

    @cache
    def table(name: str, group: str = "/") -> xr.Dataset:
        return evidence_tree(name)[group].to_dataset()

    return table


# ---------------------------------------------------------------- a browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium (`tests/browser.py`); without one the test is skipped, or fails where one is required."""
    spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    binary = module.find_chromium()
    if binary is None:
        if os.environ.get("KRAMERS_GROK_BROWSER") == "required":
            pytest.fail("no Chromium here, which KRAMERS_GROK_BROWSER=required asks for")
        pytest.skip("no Chromium here")
    started = module.Browser(binary, tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


# ---------------------------------------------------------------- studies without simulations

HEIGHT = 0.008  # of every barrier
MADE: dict[str, Any] = {
    "title": "Made up",
    "question": "Do they agree?",
    "system": {"kind": "chain", "depth": 3, "weight_decay": 0.25},
    "noise": {"barrier_over_temperature": [3.0, 4.0, 5.0]},
    "sgd": {"lr": [0.05, 0.1], "batch_size": 16},
    "run": {"replicas": 256},
}


def made_cell(cell: Cell, factor: float = 1.0, *, status: str = "finished") -> xr.Dataset:
    """What a cell of an escape study holds, with exponential times of mean `factor` times the predicted one."""
    ratio = float(cell.config["noise"]["barrier_over_temperature"])
    mean, seed = 30.0 * math.exp(ratio), sum(map(ord, canonical_json(cell.config)))
    common = {"barrier": HEIGHT, "barrier_over_temperature": ratio, "asymptotic_time": 0.9 * mean}
    about = {"host": "a host", "started": "2026-01-01T00:00:00+00:00", "seconds": 1.5, "status": status}
    temperature = {"temperature": ((), HEIGHT / ratio, describe("temperature"))}
    if cell.name == "theory":
        time = mean * np.geomspace(1e-3, 10, 50 + int(ratio))
        values = common | {"exact_time": mean, "relative_error": 1e-6, "valid": False}
        ds = xr.Dataset({k: ((), v, describe(k) if k != "valid" else {}) for k, v in values.items()}, temperature)
        curve = xr.DataArray(np.exp(-time / mean), {"time": time}, ["time"], attrs=describe("survival"))
        return ds.assign(survival=curve).assign_attrs(about)
    n, horizon = int(cell.config["run"]["replicas"] or 256), 10 * mean
    times = np.random.default_rng(seed).exponential(factor * mean, n)
    escaped = times < horizon
    coords = {"engine": cell.name, "temperature": HEIGHT / ratio, "dt": 0.1}
    ds = exit_dataset(
        np.minimum(times, horizon), escaped, horizon=horizon, coords=coords, seed=seed, dtype="float64", device="cpu",
        configuration=cell.config,
    )  # fmt: skip
    r = int(escaped.sum())
    found = float(np.minimum(times, horizon).sum()) / max(r, 1)
    error = found / math.sqrt(max(r, 1))
    values = common | {
        "mean_exit_time": found, "lower": found - 1.96 * error, "upper": found + 1.96 * error, "standard_error": error,
        "n_escaped": r, "n_replicas": n, "predicted_mean": mean, "predicted_relative_error": 1e-6,
        "ratio": found / mean, "ratio_error": error / mean, "difference_se": (found - mean) / error, "ks_p_value": 0.5,
        "precision": 1.96 * error / found, "precision_reached": True, "replica_steps": 1e4 * n,
        "total_error": found - 0.9 * mean, "asymptotic_error": 0.1 * mean, "time_step_error": 0.0,
        "monitoring_error": 0.0, "minibatch_error": 0.0, "statistical_error": found - mean, "unexplained_error": 0.0,
    }  # fmt: skip
    known = status == "finished"
    return ds.assign({k: ((), v if known else np.nan) for k, v in values.items()}).assign_attrs(
        about, method="brute force", prediction="exact", notes=""
    )


@pytest.fixture(scope="session")
def made() -> Callable[..., tuple[EscapeStudy, dict[str, xr.Dataset]]]:
    """Make an escape study and the results of its cells, without a simulation.

    ``made(factors={"sgd": 1.2}, **sections)``: measured over predicted mean time of each engine (or a function of the
    cell), and changes to the declaration.
    """

    def make(factors: Mapping[str, Any] | None = None, **changes: Any) -> tuple[EscapeStudy, dict[str, xr.Dataset]]:
        study = EscapeStudy.from_declaration(MADE | changes)
        results = {}
        for cell in study.cells():
            factor = (factors or {}).get(cell.name, 1.0)
            results[canonical_json(cell.config)] = made_cell(cell, factor(cell) if callable(factor) else factor)
        return study, results

    return make
