"""A disk that is full or read-only: a clear message, nothing half written, and the same command goes on."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from comparison import compare, files
from stub import Server, Sleepers

from kramers_grok.core.exceptions import StudyWriteError
from kramers_grok.studies.files.netcdf import read_netcdf, write_netcdf
from kramers_grok.studies.files.store import Store

DATA = xr.Dataset({"y": ("x", np.arange(500.0))})
TROUBLE = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO)


def fails(call: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a call to the system fail; a call to write takes a part of the content first, as a disk that fills up."""
    real: Callable[..., Any] = getattr(os, call)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if call == "open" and not args[1] & os.O_CREAT:
            return real(*args, **kwargs)
        if call == "write":
            real(args[0], bytes(args[1])[:100])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, wrapper)


@pytest.mark.parametrize("call", ["open", "write", "fsync", "link and replace"])
@pytest.mark.parametrize("number", TROUBLE, ids=errno.errorcode.get)
def test_a_cell_that_cannot_be_written(tmp_path: Path, call: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, {"seed": 0}, name="demo")
    store.write("a", {"x": 0}, DATA)
    before = files(tmp_path)
    with monkeypatch.context() as patch:
        for name in call.split(" and "):
            fails(name, number, patch)
        with pytest.raises(StudyWriteError, match=r"could not be written(.|\n)*same command again") as caught:
            store.write("a", {"x": 1}, DATA + 1.0)
        assert caught.value.path == store.path("a", {"x": 1})
        assert os.strerror(number) in str(caught.value)
    assert files(tmp_path) == before
    assert [p.name for p in (tmp_path / "cells").iterdir()] == list(before)
    assert store.write("a", {"x": 1}, DATA + 1.0)
    xr.testing.assert_identical(store.read("a", {"x": 1}), DATA + 1.0)


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_an_export_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.nc"
    write_netcdf(DATA, path)
    with monkeypatch.context() as patch:
        fails(call, errno.ENOSPC, patch)
        with pytest.raises(StudyWriteError, match="No space left"):
            write_netcdf(DATA + 1.0, path)
    xr.testing.assert_identical(read_netcdf(path), DATA)
    assert [p.name for p in tmp_path.iterdir()] == ["study.nc"]


def test_a_disk_that_takes_little_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:1000]))
    store = Store(tmp_path, {"seed": 0}, name="demo")
    store.write("a", {}, DATA)
    xr.testing.assert_identical(store.read("a", {}), DATA)


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, {"seed": 0}, name="demo")
    fails("link", errno.EPERM, monkeypatch)
    assert store.write("a", {}, DATA)
    assert not store.write("a", {}, DATA + 1.0)
    xr.testing.assert_identical(store.read("a", {}), DATA)
    assert len(list((tmp_path / "cells").iterdir())) == 1


def test_a_directory_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails("mkdir", errno.EROFS, monkeypatch)
    with pytest.raises(StudyWriteError, match=r"cannot be made \(Read-only file system\)"):
        Store(tmp_path / "out", {"seed": 0}, name="demo")


def test_a_run_whose_disk_fails_at_any_moment(
    server: Server, undisturbed: Callable[[Sleepers], Path], tmp_path: Path
) -> None:
    """From some call to the system on, all of them fail; once there is room again, the run goes on."""
    study = Sleepers(n_cells=2, milliseconds=0.5, seed=3)
    whole = undisturbed(study)
    ended: dict[str, int] = {}
    for number in range(1, 200):
        out = tmp_path / f"out-{number}"
        run = server.start(study, out, fails_from=number, errno=TROUBLE[number % len(TROUBLE)])
        assert run.wait()
        before = files(out)
        kind = "whole" if run.said.startswith("{'finished': 2}") else run.said.split(":")[0].split("\n")[0][:9]
        assert kind in ("whole", "StudyWrit", "{'failed'", "{'finishe"), run.said
        assert kind == "whole" or "same command again" in run.said or "another --out" in run.said, run.said
        ended[kind] = ended.get(kind, 0) + 1
        if number % 2:  # each other one, for time
            again = server.start(study, out)
            assert again.wait()
            assert again.said == f"{{'finished': 2}} before={len(before)}"
            assert before.items() <= files(out).items()
            compare(study, out, whole)
        if kind == "whole" and ended[kind] > 8:
            break
    assert min(ended.get(kind, 0) for kind in ("whole", "StudyWrit", "{'failed'", "{'finishe")) > 0


LIMITED = """
    import resource, signal, sys
    import numpy as np, xarray as xr
    from kramers_grok.core.exceptions import StudyWriteError
    from kramers_grok.studies.files.store import Store

    store = Store(sys.argv[1], {"seed": 0}, name="demo")
    store.write("small", {}, xr.Dataset({"y": ("x", np.arange(10.0))}))
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    try:
        store.write("large", {}, xr.Dataset({"y": ("x", np.arange(10_000.0))}))
    except StudyWriteError as error:
        print("refused:", error)
    store.write("small", {"x": 1}, xr.Dataset({"y": ("x", np.arange(10.0))}))
"""


def test_a_real_limit_of_the_operating_system(tmp_path: Path) -> None:
    """A quota on the size of files: the kernel stops the writer in the middle of a file."""
    assert resource.RLIMIT_FSIZE is not None
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN  # as Python starts: an error, not a death
    command = [sys.executable, "-c", textwrap.dedent(LIMITED), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "refused:" in done.stdout
    assert "File too large" in done.stdout
    store = Store.opened(tmp_path / "out")
    assert {stem.partition("-")[0] for stem in store.finished_stems()} == {"small"}
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 2
    assert store.check("small", {})


MOUNTED = """
    import subprocess, sys
    import numpy as np, xarray as xr
    from pathlib import Path
    from kramers_grok.core.exceptions import StudyWriteError
    from kramers_grok.studies.files.store import Store

    place = Path(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "none", str(place)], check=True)
    store, written = Store(place / "out", {"seed": 0}, name="demo"), 0
    try:
        for x in range(1000):
            with store.lock():
                written += store.write("a", {"x": x}, xr.Dataset({"y": ("x", np.arange(500.0))}))
    except StudyWriteError as error:
        print("full:", error)
    print("sound:", sum(store.check("a", {"x": x}) for x in range(1000)) == written > 3)
    print("only cells:", len(list((place / "out" / "cells").iterdir())) == written)
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    again = Store(place / "out", {"seed": 0}, name="demo")  # reading needs no writing
    print("read:", float(again.read("a", {"x": 0}).y.sum()))
    for attempt in (lambda: again.write("a", {"x": -1}, xr.Dataset()), lambda: again.lock().__enter__()):
        try:
            attempt()
        except StudyWriteError as error:
            print("read-only:", error)
"""


def test_a_real_disk_that_is_full_and_then_read_only(tmp_path: Path) -> None:
    """A file system of 160 kB of our own, where the system lets us mount one."""
    alone = [*([] if shutil.which("unshare") else pytest.skip("no unshare here")), "unshare", "-rm"]
    probe = [*alone, "mount", "-t", "tmpfs", "none", str(tmp_path)]
    if subprocess.run(probe, capture_output=True, timeout=60, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    command = [*alone, sys.executable, "-c", textwrap.dedent(MOUNTED), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("full:") and "No space left on device" in line for line in lines), lines
    assert "sound: True" in lines
    assert "only cells: True" in lines
    assert f"read: {sum(range(500)):.1f}" in lines
    read_only = [line for line in lines if line.startswith("read-only:")]
    assert len(read_only) == 2
    assert all("Read-only file system" in line for line in read_only)
