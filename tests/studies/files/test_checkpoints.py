"""Checkpoints as files: when they are due, what is read back, and what is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from kramers_grok.core.exceptions import StudyInterrupted, StudyWriteError
from kramers_grok.studies.files import checkpoints
from kramers_grok.studies.files.checkpoints import FileCheckpoint

STATE = xr.Dataset({"theta": ("row", np.arange(3.0))}, attrs={"facts": "{}"})


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(checkpoints, "time", clock)
    return clock


def test_a_state_comes_back(tmp_path: Path) -> None:
    FileCheckpoint(tmp_path / "folder" / "sgd-0123").save("run.splitting", STATE)
    held = FileCheckpoint(tmp_path / "folder" / "sgd-0123").load("run.splitting")
    xr.testing.assert_identical(held, STATE)


def test_nothing_is_nothing(tmp_path: Path) -> None:
    assert FileCheckpoint(tmp_path / "folder" / "sgd-0123").load("run") is None


def test_the_last_save_counts_and_there_is_one_file(tmp_path: Path) -> None:
    checkpoint = FileCheckpoint(tmp_path / "sgd-0123")
    checkpoint.save("run", STATE)
    checkpoint.save("run", STATE + 1)
    held = checkpoint.load("run")
    assert held is not None
    assert held.theta.values.tolist() == [1.0, 2.0, 3.0]
    assert [path.name for path in tmp_path.iterdir()] == ["sgd-0123.run.nc"]


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_flipped_bit_counts_as_nothing(tmp_path: Path, place: float) -> None:
    checkpoint = FileCheckpoint(tmp_path / "cell")
    checkpoint.save("run", STATE)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    assert checkpoint.load("run") is None
    checkpoint.save("run", STATE)
    assert checkpoint.load("run") is not None


@pytest.mark.parametrize("size", [0, 10, 1000])
def test_half_a_file_counts_as_nothing(tmp_path: Path, size: int) -> None:
    checkpoint = FileCheckpoint(tmp_path / "cell")
    checkpoint.save("run", STATE)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:size])
    assert checkpoint.load("run") is None


def test_another_version_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = FileCheckpoint(tmp_path / "cell")
    checkpoint.save("run", STATE)
    monkeypatch.setattr(checkpoints, "package_version", lambda: "another")
    assert checkpoint.load("run") is None


def test_it_is_due_after_a_while_and_not_before(tmp_path: Path, clock: Clock) -> None:
    checkpoint = FileCheckpoint(tmp_path / "cell", every=60.0)
    assert not checkpoint.due()
    clock.now += 59.0
    assert not checkpoint.due()
    clock.now += 2.0
    assert checkpoint.due()
    checkpoint.save("run", STATE)
    assert not checkpoint.due()


def test_saves_that_take_long_are_rarer(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save of 10 seconds comes every 200: a twentieth of the time."""
    checkpoint = FileCheckpoint(tmp_path / "cell", every=60.0)

    def slow(data: xr.Dataset, path: Path) -> None:
        clock.now += 10.0

    monkeypatch.setattr(checkpoints, "write_netcdf", slow)
    checkpoint.save("run", STATE)
    clock.now += 199.0
    assert not checkpoint.due()
    clock.now += 2.0
    assert checkpoint.due()


def test_a_stop_is_due_at_once_and_raised_after_the_save(tmp_path: Path, clock: Clock) -> None:
    stop = tmp_path / ".stop"
    checkpoint = FileCheckpoint(tmp_path / "cell", every=60.0, stop_file=stop)
    assert not checkpoint.due()
    stop.touch()
    assert not checkpoint.due()  # the disk is asked once a second
    clock.now += 1.5
    assert checkpoint.due()
    with pytest.raises(StudyInterrupted, match="state is on disk"):
        checkpoint.save("run", STATE)
    xr.testing.assert_identical(checkpoint.load("run"), STATE)


def test_clearing_takes_the_cell_s_states_and_no_others(tmp_path: Path) -> None:
    mine, other = FileCheckpoint(tmp_path / "sgd-0123"), FileCheckpoint(tmp_path / "sgd-01234")
    for checkpoint in (mine, other):
        checkpoint.save("pilot", STATE)
        checkpoint.save("run", STATE)
    mine.clear()
    mine.clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sgd-01234.pilot.nc", "sgd-01234.run.nc"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    checkpoint = FileCheckpoint(tmp_path / "cell")
    (tmp_path / "cell.run.nc").mkdir()  # no file can take this name
    with pytest.raises(StudyWriteError, match=r"cell\.run\.nc could not be written"):
        checkpoint.save("run", STATE)


def test_whoever_looks_after_cells_does_not_wait_for_torch() -> None:
    modules = "kramers_grok.studies.files.checkpoints, kramers_grok.studies.escape.precision"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
