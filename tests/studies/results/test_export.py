"""Finished cells as one labelled tree: selection, what is missing, padding, files."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from kramers_grok.core.exceptions import InvalidParameterError, KramersGrokError
from kramers_grok.core.schema import canonical_json, validate_run
from kramers_grok.studies.escape.study import EscapeStudy
from kramers_grok.studies.files.store import read_netcdf
from kramers_grok.studies.results import export
from kramers_grok.studies.running.cells import Cell

Made = tuple[EscapeStudy, dict[str, xr.Dataset]]
Make = Callable[..., Made]


def tree_of(made: Made, without: Callable[[Cell], bool] = lambda cell: False, **options: Any) -> xr.DataTree:
    study, results = made
    return export.gather(
        study.cells(),
        lambda cell: None if without(cell) else results[canonical_json(cell.config)],
        declaration=study.declaration(),
        **options,
    )


def cell_of(study: EscapeStudy, engine: str, ratio: float, lr: float = 0.05) -> Cell:
    for cell in study.cells():
        right = cell.config["noise"]["barrier_over_temperature"] == ratio
        if cell.name == engine and right and cell.config.get("sgd", {}).get("lr", lr) == lr:
            return cell
    raise AssertionError("no such cell")


def test_every_cell_is_found_by_its_parameters(made: Make) -> None:
    study, results = made()
    tree = tree_of((study, results))
    for cell in study.cells():
        settings = export.parameters(cell.config)
        where = {dim: settings[dim] for dim in map(str, tree[cell.name]["status"].dims)}
        one = tree[cell.name].sel(where)
        own = results[canonical_json(cell.config)]
        for name, variable in own.data_vars.items():
            if not variable.ndim and str(name) not in where:
                assert float(one[name]) == float(variable), name
    # One value in the declaration, and yet selectable
    short = tree["sgd"].sel(lr=0.05)
    assert set(short["status"].dims) == {"depth", "weight_decay", "barrier_over_temperature", "batch_size"}
    assert {"depth", "weight_decay"} <= set(tree["theory"]["status"].dims)
    assert float(tree["sgd"]["singular_value"]) == 1.0  # not varied: a scalar


def test_the_root_says_what_was_asked(made: Make, check_labels: Callable[[xr.DataTree], None]) -> None:
    tree = tree_of(made())
    assert tree.attrs["title"] == "Made up"
    assert tree.attrs["question"] == "Do they agree?"
    assert tree.attrs["answer"].startswith("Theory agrees with Langevin dynamics and with SGD.")
    assert tree.attrs["n_cells"] == tree.attrs["n_done"] == 12
    assert EscapeStudy.from_declaration(_json(tree.attrs["declaration"])).declaration() == made()[0].declaration()
    check_labels(tree)


def _json(text: str) -> Any:
    import json

    return json.loads(text)


def test_cells_that_are_not_there_are_missing_values(made: Make) -> None:
    full, part = tree_of(made()), tree_of(made(), without=lambda c: c.config["noise"]["barrier_over_temperature"] > 3.5)
    assert part.attrs["n_done"] == 4
    for engine in ("theory", "langevin", "sgd"):
        group = part[engine].to_dataset()
        there = group.sel(barrier_over_temperature=[3.0])
        gone = group.sel(barrier_over_temperature=[4.0, 5.0])
        assert (gone["status"] == export.MISSING).all()
        assert (there["status"] == export.FINISHED).all()
        assert np.isnan(gone["barrier"]).all()
        same = full[engine].to_dataset().sel(barrier_over_temperature=[3.0])
        for name in ("barrier", "mean_exit_time", "exact_time", "exit_time"):
            if name in same:
                np.testing.assert_array_equal(there[name].values, same[name].values)
    rows = part["comparison"].to_dataset()
    assert rows.sizes["row"] == 9
    assert int(np.isfinite(rows["mean_exit_time"]).sum()) == 3
    assert set(rows["status"].values) == {export.FINISHED, export.MISSING}


def test_nothing_done_is_a_tree_too(made: Make) -> None:
    tree = tree_of(made(), without=lambda c: True)
    assert tree.attrs["n_done"] == 0
    assert (tree["sgd"]["status"] == export.MISSING).all()
    assert tree["comparison"].sizes["row"] == 9


def test_cells_without_an_answer_say_why(made: Make) -> None:
    study, results = made()
    worst = cell_of(study, "sgd", 5.0)
    key = canonical_json(worst.config)
    results[key] = xr.Dataset(
        {"mean_exit_time": np.nan, "n_escaped": 0}, attrs={"status": "diverged", "status_message": "3 of 256 at step 7"}
    )
    one = tree_of((study, results))["sgd"].sel(barrier_over_temperature=5.0, lr=0.05).to_dataset().squeeze()
    assert one["status"].item() == "diverged"
    assert one["status_message"].item() == "3 of 256 at step 7"
    assert np.isnan(one["mean_exit_time"])
    assert np.isnan(one["predicted_mean"])
    assert np.isnan(one["exit_time"]).all()


def test_runs_come_back_without_their_padding(made: Make) -> None:
    study, results = made(run={"replicas": [32, 64]})
    tree = tree_of((study, results))
    assert tree["langevin"].sizes["replica"] == 64
    for cell in study.cells():
        if cell.name == "theory":
            continue
        settings = export.parameters(cell.config)
        where = {dim: settings[dim] for dim in map(str, tree[cell.name]["status"].dims)}
        run, own = export.run_of(tree[cell.name], **where), results[canonical_json(cell.config)]
        assert run.sizes["replica"] == cell.config["run"]["replicas"]
        np.testing.assert_array_equal(run["exit_time"].values, own["exit_time"].values)
        np.testing.assert_array_equal(run["escaped"].values, own["escaped"].values)
        validate_run(run)
    curve = export.run_of(tree["theory"], barrier_over_temperature=4.0)
    own = results[canonical_json(cell_of(study, "theory", 4.0).config)]
    np.testing.assert_array_equal(curve["time"].values, own["time"].values)
    np.testing.assert_array_equal(curve["survival"].values, own["survival"].values)


def test_a_run_needs_one_cell(made: Make) -> None:
    tree = tree_of(made())
    with pytest.raises(InvalidParameterError, match=r"2 dimension\(s\) have several values left .*barrier_over_temp"):
        export.run_of(tree["sgd"])
    with pytest.raises(InvalidParameterError, match=r"`lr` = 0.07, expected a value of the grid, the nearest is 0.0?5"):
        export.run_of(tree["sgd"], lr=0.07, barrier_over_temperature=3.0)


def test_splitting_has_repeats_and_no_replicas(made: Make) -> None:
    study, results = made()
    cell = cell_of(study, "langevin", 5.0)
    key = canonical_json(cell.config)
    scalars = {"mean_exit_time": 4400.0, "lower": 4000.0, "upper": 4900.0, "standard_error": 200.0}
    repeats = {"probability": ("repeat", np.linspace(0.1, 0.2, 16))}
    results[key] = xr.Dataset(
        {**scalars, **repeats, "n_replicas": 0, "n_escaped": 0}, attrs={"status": "finished", "method": "splitting"}
    )
    tree = tree_of((study, results))
    run = export.run_of(tree["langevin"], barrier_over_temperature=5.0)
    assert "exit_time" not in run
    assert run.sizes["repeat"] == 16
    validate_run(run)
    other = export.run_of(tree["langevin"], barrier_over_temperature=4.0)
    assert "probability" not in other
    assert other.sizes["replica"] == 256
    rows = tree["comparison"].to_dataset()
    assert rows["method"].values.tolist().count("splitting") == 1
    assert rows["n_repeats"].values[rows["method"].values == "splitting"].tolist() == [16.0]


def test_temperatures_of_a_given_noise_are_a_dimension() -> None:
    study = EscapeStudy(
        system={"kind": "chain", "depth": [3, 4], "weight_decay": 0.25},
        noise={"std": 0.3},
        sgd={"lr": [0.05, 0.1], "batch_size": [8, 16]},
    )
    tree = export.gather(study.cells(), lambda cell: xr.Dataset({"mean_exit_time": 1.0}), declaration={})
    assert tree["langevin"].sizes["temperature"] == 3
    assert tree["langevin"]["mean_exit_time"].notnull().all()
    assert tree["sgd"]["mean_exit_time"].notnull().all()
    assert dict(tree["sgd"].sizes) == {"depth": 2, "weight_decay": 1, "lr": 2, "batch_size": 2}
    assert float(tree["sgd"]["noise_std"]) == 0.3


def test_the_order_of_cells_does_not_matter(made: Make) -> None:
    study, results = made()
    cells = study.cells()
    shuffled = [cells[i] for i in np.random.default_rng(0).permutation(len(cells))]
    one, other = (
        export.gather(order, lambda c: results[canonical_json(c.config)], declaration=study.declaration())
        for order in (cells, shuffled)
    )
    for engine in ("theory", "langevin", "sgd"):
        xr.testing.assert_identical(
            one[engine].to_dataset(), other[engine].to_dataset()[list(one[engine].to_dataset().data_vars)]
        )


def test_what_would_not_fit_into_memory_stays_in_the_cells(made: Make, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"would take more than .* GiB: they are\s+left out"):
        tree = tree_of(made(), memory_limit=1000.0)
    assert "exit_time" not in tree["sgd"]
    assert "mean_exit_time" in tree["sgd"]
    assert "they are in the cells' files" in tree.attrs["left_out"]
    export.write(tree, tmp_path / "study.nc")


def test_netcdf_gives_back_the_same(made: Make, tmp_path: Path) -> None:
    tree = tree_of(made(), without=lambda c: c.name == "sgd" and c.config["sgd"]["lr"] == 0.1)
    path = export.write(tree, tmp_path / "study.nc")
    again = read_netcdf(path)
    assert isinstance(again, xr.DataTree)
    assert again.attrs == tree.attrs
    for node in tree.subtree:
        for name, variable in node.to_dataset().variables.items():
            np.testing.assert_array_equal(again[node.path].to_dataset()[name].values, variable.values)
    selected = again["sgd"].sel(lr=0.05)
    assert (selected["status"] == export.FINISHED).all()


def test_zarr_is_optional(made: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(KramersGrokError, match=r"asks for zarr, which is not installed.*\n.*pip install zarr"):
        export.write(tree_of(made()), tmp_path / "study.zarr")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InvalidParameterError, match=r"expected a name that ends in \.nc or \.zarr"):
        export.write(tree_of(made()), tmp_path / "study.csv")


def test_zarr_gives_back_the_same(made: Make, tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    tree = tree_of(made())
    for _ in range(2):  # the second replaces the first
        export.write(tree, tmp_path / "study.zarr")
    again = xr.open_datatree(tmp_path / "study.zarr", engine="zarr").load()
    np.testing.assert_array_equal(again["sgd"]["exit_time"].values, tree["sgd"]["exit_time"].values)
    (tmp_path / "other.zarr").mkdir()
    (tmp_path / "other.zarr" / "letter.txt").write_text("mine")
    with pytest.raises(InvalidParameterError, match="what is there is something else"):
        export.write(tree, tmp_path / "other.zarr")


def test_provenance_names_each_cell(made: Make) -> None:
    tree = tree_of(made(), without=lambda c: c.name == "theory")
    origin = tree["provenance"].to_dataset()
    assert origin.sizes["cell"] == 12
    assert int(origin["done"].sum()) == 9
    done = origin.isel(cell=np.flatnonzero(origin["done"]))
    assert set(done["host"].values) == {"a host"}
    assert all(name.startswith(("sgd-", "langevin-")) for name in done["cell"].values)
    assert math.isclose(float(origin["seconds"].sum()), 9 * 1.5)
