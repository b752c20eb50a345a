"""Cells are written whole or not at all, once, and never over anything."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from kramers_grok.core.exceptions import (
    DamagedFileError,
    DamagedFileWarning,
    InvalidParameterError,
    StudyConflictError,
)
from kramers_grok.studies.files import atomic
from kramers_grok.studies.files.store import Store, cell_seed, content_hash, read_netcdf, write_netcdf

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
        from kramers_grok.studies.files import atomic
        from kramers_grok.studies.files.store import Store

        s = Store({str(tmp_path)!r}, {STUDY!r}, name="demo")
        s.cell("done", {{}}, lambda: xr.Dataset({{"y": 1}}))
        atomic._publish = lambda temporary, final: os._exit(9)
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
    own = atomic._temporary(tmp_path / "cells")
    own.write_bytes(b"half")
    Store(tmp_path, STUDY, name="demo")
    assert other.exists()
    assert own.exists()
    assert store.finished() == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")
def test_leftovers_of_the_dead_whom_nobody_buried_are_removed(tmp_path):
    """In a container, killed workers may stay zombies for ever: their process exists, and writes nothing."""
    store = Store(tmp_path, STUDY, name="demo")
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        place = Path(f"/proc/{process.pid}/stat")
        while place.read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        name = atomic._temporary(store.path("a", {}).parent).name.replace(f".{os.getpid()}.", f".{process.pid}.")
        (tmp_path / "cells" / name).write_bytes(b"half")
        with store.lock():
            pass
        assert list((tmp_path / "cells").iterdir()) == []


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


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "not json", "3", "[" * 100_000, '{"name": 1, "study": 2, "format": 3}']
)
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
def test_a_damaged_cell_is_put_aside_and_computed_again(tmp_path, keep):
    store = Store(tmp_path, STUDY, name="demo")
    store.cell("a", {}, result)
    (path,) = store.finished()
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.warns(DamagedFileWarning, match=r"is damaged(.|\n)*computes it again") as caught:
        again = store.cell("a", {}, lambda: result(2.0))
    assert float(again.y[0]) == 2.0
    (kept,) = (tmp_path / "damaged").iterdir()
    assert kept.read_bytes() == content[: int(keep * len(content))]
    assert path.name in str(caught[0].message)
    assert str(kept) in str(caught[0].message)
    assert [(e["event"], e["cell"], e["file"]) for e in store.journal.read()] == [("damaged", path.stem, kept.name)]
    assert float(store.cell("a", {}, never).y[0]) == 2.0


def test_read_and_check_put_damaged_cells_aside(tmp_path):
    store = Store(tmp_path, STUDY, name="demo")
    for x in range(3):
        assert store.write("a", {"x": x}, result(x))
        assert not store.write("a", {"x": x}, result(-1.0))  # the first result stays
    for x in (0, 1):
        path = store.path("a", {"x": x})
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFileError, match="its end is missing") as caught:
        store.read("a", {"x": 0})
    assert caught.value.path == store.path("a", {"x": 0})
    assert caught.value.kept is not None
    assert caught.value.kept.exists()
    with pytest.warns(DamagedFileWarning, match="counts as not finished"):
        assert not store.check("a", {"x": 1})
    assert store.check("a", {"x": 2})
    assert not store.check("a", {"x": 3})
    assert [store.has("a", {"x": x}) for x in range(4)] == [False, False, True, False]
    assert store.finished_stems() == {store.path("a", {"x": 2}).stem}
    with pytest.raises(FileNotFoundError):
        store.read("a", {"x": 0})
    assert float(store.read("a", {"x": 2}).y[0]) == 2.0


def test_damage_to_the_same_cell_twice_keeps_both_files(tmp_path):
    store = Store(tmp_path, STUDY, name="demo")
    for content in (b"one", b"two"):
        store.path("a", {}).write_bytes(content)
        with pytest.raises(DamagedFileError):
            store.read("a", {})
    assert sorted(p.read_bytes() for p in (tmp_path / "damaged").iterdir()) == [b"one", b"two"]


def test_cells_of_older_versions_have_no_footer_and_are_read(tmp_path):
    store = Store(tmp_path, STUDY, name="demo")
    old = result().drop_vars("flag").assign_attrs(ok="json:true", netcdf_kind="dataset")
    old.to_netcdf(store.path("a", {}), engine="h5netcdf")
    assert store.check("a", {})
    xr.testing.assert_identical(store.read("a", {}), result().drop_vars("flag"))
    xr.testing.assert_identical(store.cell("a", {}, never), result().drop_vars("flag"))


def test_a_copy_that_another_program_made_of_an_export_is_read(tmp_path):
    """Whoever opens a table, changes it and saves it has a file of their own: no footer, and nothing is damaged."""
    write_netcdf(result(), tmp_path / "table.nc")
    with xr.open_dataset(tmp_path / "table.nc", engine="h5netcdf") as opened:
        (opened.load() * 2).assign_attrs(opened.attrs).to_netcdf(tmp_path / "mine.nc", engine="h5netcdf")
    assert float(read_netcdf(tmp_path / "mine.nc").y[0]) == 2.0


def test_files_are_read_by_other_libraries(tmp_path):
    store = Store(tmp_path, STUDY, name="demo")
    store.write("a", {}, result(3.0))
    with h5py.File(store.path("a", {})) as file:
        assert file["y"][0] == 3.0
    with xr.open_dataset(store.path("a", {}), engine="h5netcdf") as opened:
        assert float(opened.y[0]) == 3.0


def test_a_store_goes_to_other_processes(tmp_path):
    store = pickle.loads(pickle.dumps(Store(tmp_path, STUDY, name="demo", conflicts=lambda held: [])))
    assert store.write("a", {}, result())
    assert float(store.read("a", {}).y[0]) == 1.0


def test_an_extended_declaration_replaces_the_manifest_under_the_lock(tmp_path):
    def conflicts(held):
        return ["`depth` must stay"] if held["depth"] != 3 else []

    first = Store(tmp_path, STUDY, name="demo", conflicts=conflicts)
    first.write("a", {}, result())
    more = STUDY | {"temperatures": [0.1, 0.2, 0.3]}
    second = Store(tmp_path, more, name="demo", conflicts=conflicts)
    assert Store.manifest_of(tmp_path).study == STUDY  # asking changes nothing
    with second.lock():
        assert Store.manifest_of(tmp_path).study == more
    assert second.has("a", {})
    before = snapshot(tmp_path)
    with pytest.raises(StudyConflictError, match="holds another study; nothing was written:\n  - `depth` must stay"):
        Store(tmp_path, more | {"depth": 4}, name="demo", conflicts=lambda held: ["`depth` must stay"])
    with pytest.raises(StudyConflictError, match="`temperatures` is"):
        Store(tmp_path, STUDY, name="demo")  # without a rule, every difference is a conflict
    assert snapshot(tmp_path) == before


def test_a_manifest_that_changed_since_is_looked_at_again_under_the_lock(tmp_path):
    store = Store(tmp_path, STUDY, name="demo")
    other = {"name": "demo", "study": STUDY | {"depth": 7}, "format": "kramers_grok study 1"}
    (tmp_path / "study.json").write_text(json.dumps(other))
    with pytest.raises(StudyConflictError, match="`depth` is 7 there"), store.lock():
        raise AssertionError("locked another study")


def test_what_a_directory_holds_can_be_asked(tmp_path):
    with pytest.raises(StudyConflictError, match="holds no study"):
        Store.manifest_of(tmp_path)
    assert list(tmp_path.iterdir()) == []
    store = Store(tmp_path, STUDY, name="demo")
    found = Store.manifest_of(tmp_path)
    assert (found.name, found.study) == ("demo", STUDY)
    held = json.loads(store.manifest.read_text()) | {"format": "kramers_grok study 99"}
    store.manifest.write_text(json.dumps(held))
    with pytest.raises(StudyConflictError, match="format 'kramers_grok study 99'"):
        Store.manifest_of(tmp_path)
    with pytest.raises(StudyConflictError, match="holds no study"):
        Store.manifest_of(store.manifest)


def test_checkpoints_have_the_names_of_their_cells(tmp_path):
    store = Store(tmp_path, STUDY, name="demo")
    path = store.checkpoint_path("a", {"x": 1})
    assert path.parent == tmp_path / "checkpoints"
    assert path.parent.is_dir()
    assert path.name == store.path("a", {"x": 1}).stem


def test_checkpoints_of_finished_cells_are_removed(tmp_path):
    """A run may be killed between a cell's last step, its file, and the removal of its checkpoint."""
    store = Store(tmp_path, STUDY, name="demo")
    for x in (1, 2):
        store.checkpoint_path("a", {"x": x}).with_suffix(".run.first-passage.nc").write_bytes(b"progress")
    (tmp_path / "checkpoints" / "notes.txt").write_text("mine")
    store.write("a", {"x": 1}, result())
    with store.lock():
        left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
        assert left == {f"{store.path('a', {'x': 2}).stem}.run.first-passage.nc", "notes.txt"}
        store.write("a", {"x": 2}, result())
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["notes.txt"]


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
