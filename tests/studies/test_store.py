"""Cells are written whole or not at all, once, and never over anything."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import textwrap
import uuid

import numpy as np
import pytest
import xarray as xr

from kramers_grok.core.exceptions import InvalidParameterError, KramersGrokError, StudyConflictError
from kramers_grok.studies.store import Store, cell_seed, content_hash, read_netcdf, write_netcdf

STUDY = {"depth": 3, "temperatures": [0.1, 0.2], "seed": 0}


def result(value=1.0):
    return xr.Dataset({"y": ("x", np.full(3, value)), "flag": ("x", [True, False, True])}, attrs={"ok": True})


def never():
    raise AssertionError("computed again")


def snapshot(directory):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(directory.rglob("*")) if p.is_file()}


def test_resume_loads_instead_of_computing(tmp_path):
    first = Store(tmp_path / "out", STUDY, name="demo").cell("langevin", {"T": 0.1}, result)
    before = snapshot(tmp_path)
    store = Store(tmp_path / "out", STUDY, name="demo")
    again = store.cell("langevin", {"T": np.float64(0.1)}, never)
    xr.testing.assert_identical(first, again)
    xr.testing.assert_identical(again, result())
    assert again.attrs == {"ok": True}
    assert again.flag.dtype == np.bool_
    assert snapshot(tmp_path) == before
    assert len(store.finished()) == 1
    assert store.has("langevin", {"T": 0.1})
    assert not store.has("sgd", {"T": 0.1})


def test_cells_differ_by_name_and_content(tmp_path):
    store = Store(tmp_path, STUDY, name="demo")
    values = [("a", {"T": 1.0}), ("a", {"T": 2.0}), ("b", {"T": 1.0})]
    for number, (name, config) in enumerate(values):
        store.cell(name, config, lambda number=number: result(number))
    for number, (name, config) in enumerate(values):
        assert float(store.cell(name, config, never).y[0]) == number


def test_a_failing_computation_leaves_nothing(tmp_path):
    store = Store(tmp_path, STUDY, name="demo")
    with pytest.raises(ZeroDivisionError):
        store.cell("a", {}, lambda: 1 / 0)
    with pytest.raises(InvalidParameterError, match="computed a int, expected an xarray"):
        store.cell("a", {}, lambda: 3)
    assert list((tmp_path / "cells").iterdir()) == []
    assert float(store.cell("a", {}, result).y[0]) == 1.0


def test_killed_while_writing_loses_only_that_cell(tmp_path):
    """A process killed after its temporary file is written, before the rename, is as if it never ran."""
    script = f"""
        import os
        import xarray as xr
        from kramers_grok.studies import store as module

        s = module.Store({str(tmp_path)!r}, {STUDY!r}, name="demo")
        s.cell("done", {{}}, lambda: xr.Dataset({{"y": 1}}))
        module._publish = lambda temporary, final: os._exit(9)
        s.cell("lost", {{}}, lambda: xr.Dataset({{"y": 2}}))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == 9
    assert len(list((tmp_path / "cells").glob(".*.tmp"))) == 1
    store = Store(tmp_path, STUDY, name="demo")
    assert list((tmp_path / "cells").glob(".*.tmp")) == []  # its process is gone
    assert len(store.finished()) == 1
    assert int(store.cell("done", {}, never).y) == 1
    assert int(store.cell("lost", {}, lambda: xr.Dataset({"y": 3})).y) == 3


def test_leftovers_of_other_machines_and_of_the_living_are_left_alone(tmp_path):
    store = Store(tmp_path, STUDY, name="demo")
    other = tmp_path / "cells" / f".another-host.1.{uuid.uuid4().hex}.tmp"
    other.write_bytes(b"half")
    from kramers_grok.studies.store import _temporary

    own = _temporary(tmp_path / "cells")
    own.write_bytes(b"half")
    Store(tmp_path, STUDY, name="demo")
    assert other.exists()
    assert own.exists()
    assert store.finished() == []


def test_killed_before_the_manifest_can_start_again(tmp_path):
    (tmp_path / f".host.1.{uuid.uuid4().hex}.tmp").write_bytes(b"{")
    Store(tmp_path, STUDY, name="demo")


def test_another_study_is_refused_and_nothing_changes(tmp_path):
    store = Store(tmp_path / "out", STUDY, name="demo")
    store.cell("a", {}, result)
    before = snapshot(tmp_path)
    with pytest.raises(StudyConflictError, match=r"holds another study.*\n.*`depth` is 3 there, you asked for 4") as e:
        Store(tmp_path / "out", STUDY | {"depth": 4}, name="demo")
    assert "another --out" in str(e.value)
    with pytest.raises(StudyConflictError, match="it is a 'demo' study, you asked for 'other'"):
        Store(tmp_path / "out", STUDY, name="other")
    with pytest.raises(StudyConflictError, match="`extra` is None there, you asked for 1"):
        Store(tmp_path / "out", STUDY | {"extra": 1}, name="demo")
    assert snapshot(tmp_path) == before


def test_a_directory_with_anything_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    before = snapshot(tmp_path)
    with pytest.raises(StudyConflictError, match=r"not empty and holds no study \(thesis.tex\)"):
        Store(tmp_path, STUDY, name="demo")
    with pytest.raises(StudyConflictError, match="is a file"):
        Store(tmp_path / "thesis.tex", STUDY, name="demo")
    assert snapshot(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_summary_without_its_cells_is_made_anew(tmp_path):
    """A clone of the repository has the tables of `make evidence` and nothing else of them."""
    (tmp_path / "table.nc").write_bytes(b"a summary")
    store = Store(tmp_path, STUDY, name="demo")
    store.cell("a", {}, result)
    assert (tmp_path / "table.nc").read_bytes() == b"a summary"
    assert Store(tmp_path, STUDY, name="demo").has("a", {})
    (tmp_path / "study.json").unlink()  # cells without a manifest are nobody's
    with pytest.raises(StudyConflictError, match=r"holds no study \(cells\)"):
        Store(tmp_path, STUDY, name="demo")


@pytest.mark.parametrize("text", ["", "[]", "{}", "not json"])
def test_a_foreign_manifest_is_refused(tmp_path, text):
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(StudyConflictError, match="not the manifest of a study"):
        Store(tmp_path, STUDY, name="demo")
    assert (tmp_path / "study.json").read_text() == text


def test_manifest_can_be_read_by_people(tmp_path):
    manifest = json.loads(Store(tmp_path, STUDY, name="demo").manifest.read_text())
    assert manifest["study"] == STUDY
    assert manifest["name"] == "demo"
    assert set(manifest) == {"format", "name", "hash", "kramers_grok_version", "study"}


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_a_damaged_cell_is_named(tmp_path, keep):
    store = Store(tmp_path, STUDY, name="demo")
    store.cell("a", {}, result)
    (path,) = store.finished()
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(KramersGrokError, match=r"cannot be read(.|\n)*Delete it") as caught:
        store.cell("a", {}, never)
    assert path.name in str(caught.value)


def _race(directory, barrier, number, queue):
    store = Store(directory, STUDY, name="demo")

    def compute():
        barrier.wait(timeout=60)  # both are computing before either writes
        return result(number)

    queue.put(float(store.cell("a", {"T": 1}, compute).y[0]))


def test_two_processes_racing_for_a_cell_agree(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_race, args=(tmp_path, barrier, i, queue)) for i in (1, 2)]
    for process in processes:
        process.start()
    seen = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert seen[0] == seen[1]  # the first file stays; the second process reads it
    assert [p.suffix for p in (tmp_path / "cells").iterdir()] == [".nc"]


def test_trees_and_every_attribute_survive(tmp_path):
    attrs = {"flag": False, "none": None, "list": [1, 2], "map": {"a": True}, "text": "json:no", "n": 3, "x": 0.5}
    tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), "/run": result(), "/run/part": result(2.0)})
    back = Store(tmp_path, STUDY, name="demo").cell("tree", {}, lambda: tree)
    assert isinstance(back, xr.DataTree)
    assert back.attrs == attrs
    xr.testing.assert_identical(back, tree)
    assert tree.attrs == attrs
    write_netcdf(xr.Dataset(attrs=attrs), tmp_path / "plain.nc")
    plain = read_netcdf(tmp_path / "plain.nc")
    assert isinstance(plain, xr.Dataset)
    assert plain.attrs == attrs


def test_write_netcdf_replaces_whole_files_only(tmp_path):
    path = tmp_path / "arm.nc"
    write_netcdf(result(1.0), path)
    write_netcdf(result(2.0), path)
    assert float(read_netcdf(path).y[0]) == 2.0
    with pytest.raises(Exception, match=r"unable to|cannot|serializ|dtype"):
        write_netcdf(xr.Dataset({"y": ("x", [object(), {}])}), path)
    assert float(read_netcdf(path).y[0]) == 2.0
    assert [p.name for p in tmp_path.iterdir()] == ["arm.nc"]


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_netcdf(tmp_path / "no.nc")


def test_cell_names_become_file_names(tmp_path):
    store = Store(tmp_path, STUDY, name="demo")
    for name in ("", "../up", "a b", ".hidden"):
        with pytest.raises(InvalidParameterError, match="expected letters, digits"):
            store.cell(name, {}, result)


def test_seeds_come_from_content():
    seeds = {cell_seed(seed, {"T": T}) for seed in range(10) for T in range(100)}
    assert len(seeds) == 1000
    assert all(0 <= s < 2**64 for s in seeds)
    assert max(seeds) > 2**63
    assert cell_seed(0, {"a": 1, "b": 2}) == cell_seed(0, {"b": 2, "a": np.int64(1)})
    # Fixed for all time: resumed studies depend on it.
    assert content_hash({"T": 0.1}) == content_hash({"T": np.float64(0.1)})
    with pytest.raises(InvalidParameterError, match="`seed`"):
        cell_seed(-1, {})
