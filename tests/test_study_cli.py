"""``kramers-grok study``: what the commands print, write, and end with."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from rich.console import Console
from typer.testing import CliRunner, Result

from kramers_grok.cli import app, progress
from kramers_grok.cli.common import Exit
from kramers_grok.cli.progress import BarProgress, LineProgress, Tally
from kramers_grok.core.exceptions import StudyInterrupted
from kramers_grok.studies.escape import cells as escape_cells
from kramers_grok.studies.files.netcdf import read_netcdf
from kramers_grok.studies.files.store import Store
from kramers_grok.studies.running import runner
from kramers_grok.studies.running.cells import Cell, Outcome
from kramers_grok.studies.running.runner import Plan, RunResult

DECLARATION = """
title = "A trapped [mode]"
engines = ["theory", "langevin"]
[system]
kind = "mode"
weight_decay = {weight_decay}
[noise]
barrier_over_temperature = {ratios}
[run]
replicas = 32
horizon = 3.0
"""


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "160", "TERM": "dumb"})


def lines_of(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def declare(path: Path, *, weight_decay: str = "0.25", ratios: str = "[2.0]") -> Path:
    path.write_text(DECLARATION.format(weight_decay=weight_decay, ratios=ratios))
    return path


def draw(config: Mapping[str, Any], *, seed: int, checkpoint: object = None) -> xr.Dataset:
    times = np.random.default_rng(seed).exponential(size=10)
    return xr.Dataset({"exit_time": ("replica", times), "escaped": ("replica", times < 1)})


@pytest.fixture
def stub_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells that take no time, for tests of everything around them."""
    monkeypatch.setattr(escape_cells, "simulate", draw)
    monkeypatch.setattr(escape_cells, "theory", draw)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Result]:
    """A study that was run from its file, to its page."""
    folder = tmp_path_factory.mktemp("study")
    file = declare(folder / "trapped mode.toml")
    out = folder / "out"
    return file, out, invoke("study", "run", file, "--out", out, "--workers", "1", "--json")


@pytest.mark.slow
def test_a_study_from_its_file_to_its_page(finished: tuple[Path, Path, Result]) -> None:
    file, out, result = finished
    assert result.exit_code == Exit.DONE, result.output
    lines = lines_of(result)
    assert [line["event"] for line in lines] == ["begin", "cell", "cell", "end", "done"]
    assert (lines[0]["cells"], lines[0]["done"], lines[-2]["finished"]) == (2, 0, 2)
    assert lines[-3]["progress"]["escaped"] + lines[-3]["progress"]["censored"] == 32
    assert (lines[-1]["exit_code"], lines[-1]["written"]) == (0, [str(out / "study.nc"), str(out / "report.html")])
    assert lines[-1]["answer"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "A trapped [mode]" in page
    assert "--out" in page  # the command that makes it again
    again = invoke("study", "run", file, "--out", out, "--workers", "1", "--no-products")
    assert again.exit_code == Exit.DONE
    assert f"2 of 2 cells are in {out} (2 finished)." in again.stdout
    assert "2 of 2 cells finished" in again.stderr


@pytest.mark.slow
def test_export_report_and_status_of_it(finished: tuple[Path, Path, Result]) -> None:
    _, out, _ = finished
    exported = invoke("study", "export", out, "--to", out / "again.nc")
    assert exported.exit_code == Exit.DONE, exported.output
    assert exported.stdout.strip() == str(out / "again.nc")
    assert exported.stderr == ""
    tree = read_netcdf(out / "again.nc")
    assert float(tree["langevin"]["n_replicas"].sel(weight_decay=0.25).squeeze()) == 32
    (out / "report.html").unlink()
    reported = invoke("study", "report", out, "--json")
    assert reported.exit_code == Exit.DONE
    assert lines_of(reported) == [
        {"event": "written", "path": str(out / "report.html"), "cells": 2, "missing": 0},
    ]
    assert (out / "report.html").exists()
    status = invoke("study", "status", out)
    assert status.exit_code == Exit.DONE
    assert "A trapped [mode]\n2 of 2 cells done: 2 finished\n" in status.stdout
    (line,) = lines_of(invoke("study", "status", out, "--json"))
    assert (line["complete"], line["n_finished"], line["running"]) == (True, 2, None)
    planned = invoke("study", "run", out.parent / "trapped mode.toml", "--out", out, "--dry-run", "--json")
    assert [line.get("finished") for line in lines_of(planned)] == [True, True, 2]


def test_a_dry_run_touches_nothing(tmp_path: Path) -> None:
    file, out = declare(tmp_path / "study.toml", weight_decay="[0.25, 0.6]", ratios="[3, 4]"), tmp_path / "out"
    result = invoke("study", "run", file, "--out", out, "--dry-run")
    assert result.exit_code == Exit.DONE, result.output
    header, *rows = result.stdout.splitlines()
    assert header.split()[:3] == ["cell", "weight_decay", "barrier_over_temperature"]
    assert sum(row.startswith(("theory", "langevin")) for row in rows) == 8
    assert "8 cells" in result.stdout
    assert not out.exists()
    lines = lines_of(invoke("study", "run", file, "--dry-run", "--json"))
    assert [line["event"] for line in lines] == ["cell"] * 8 + ["estimate"]
    assert lines[0]["config"]["system"]["weight_decay"] == 0.25
    assert lines[-1]["seconds"] > 0


def test_long_tables_are_cut_and_say_so(tmp_path: Path) -> None:
    file = declare(tmp_path / "study.toml", ratios="{start = 2, stop = 8, num = 40}")
    result = invoke("study", "run", file, "--dry-run")
    assert "… and 30 more (--json lists all)" in result.stdout


@pytest.mark.usefixtures("stub_cells")
def test_quiet_prints_nothing(tmp_path: Path) -> None:
    file = declare(tmp_path / "study.toml")
    result = invoke("study", "run", file, "--out", tmp_path / "out", "--workers", "1", "--quiet", "--no-products")
    assert (result.exit_code, result.output) == (Exit.DONE, "")


# ---------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = 3", "title"),
        ("[system]\nkind = 'triangle'", "triangle"),
        ("kind = 'sudoku'", "`kind` = 'sudoku', expected one of 'escape', 'reproduce'"),
        ("kind = 'reproduce'\nlr = -1", "`lr` = -1"),
        ("kind = 'reproduce'\nspeed = 3", "speed"),
        ("kind = 'reproduce'\narms = 'phases'", "`arms` = 'phases', expected a list"),
        ("= 3", "TOML"),
        (None, "does not exist"),
    ],
)
def test_a_file_that_declares_nothing_good(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "study.toml"
    if text is not None:
        file.write_text(text)
    result = invoke("study", "run", file, "--out", tmp_path / "out")
    assert result.exit_code == Exit.BAD_INPUT, result.output
    assert message in result.stderr.replace("\n", " ")
    assert not (tmp_path / "out").exists()
    (line,) = lines_of(invoke("study", "run", file, "--out", tmp_path / "out", "--json"))
    assert (line["event"], line["exit_code"]) == ("error", 2)


def test_out_is_needed(tmp_path: Path) -> None:
    result = invoke("study", "run", declare(tmp_path / "my study.toml"))
    assert result.exit_code == Exit.BAD_INPUT
    assert "--out 'my study'" in result.stderr


@pytest.mark.parametrize("command", ["status", "export", "report"])
def test_a_directory_without_a_study(tmp_path: Path, command: str) -> None:
    result = invoke("study", command, tmp_path / "nowhere")
    assert result.exit_code == Exit.BAD_INPUT
    assert "holds no study" in result.stderr.replace("\n", " ")


@pytest.mark.usefixtures("stub_cells")
def test_a_directory_of_another_study(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = declare(tmp_path / "first.toml")
    assert invoke("study", "run", first, "--out", out, "--workers", "1", "--no-products").exit_code == Exit.DONE
    other = tmp_path / "other.toml"
    other.write_text(first.read_text().replace("replicas = 32", "replicas = 64"))
    for more in ((), ("--dry-run",)):
        result = invoke("study", "run", other, "--out", out, *more)
        assert result.exit_code == Exit.BAD_INPUT
        assert "replicas" in result.stderr
    job = tmp_path / "job.toml"
    job.write_text("kind = 'reproduce'\narms = ['phases']")
    result = invoke("study", "run", job, "--out", out, "--dry-run")
    assert result.exit_code == Exit.BAD_INPUT
    assert "it is a 'escape' study" in result.stderr.replace("\n", " ")


@pytest.mark.usefixtures("stub_cells")
def test_cells_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: Mapping[str, Any], *, seed: int, checkpoint: object = None) -> xr.Dataset:
        raise RuntimeError("out of [luck]")

    monkeypatch.setattr(escape_cells, "simulate", fail)
    file, out = declare(tmp_path / "study.toml"), tmp_path / "out"
    result = invoke("study", "run", file, "--out", out, "--workers", "1")
    assert result.exit_code == Exit.FAILED
    assert "failed: RuntimeError: out of [luck]" in result.stderr
    assert "1 failed; the same command tries again." in result.stdout
    assert not (out / "study.nc").exists()
    assert "1 cell failed at its last try" in invoke("study", "status", out).stdout
    exported = invoke("study", "export", out, "--to", out / "half.nc")
    assert exported.exit_code == Exit.DONE, exported.output
    assert "1 of 2 cells is not finished" in exported.stderr


@pytest.mark.slow
def test_cells_without_an_answer(tmp_path: Path) -> None:
    file = declare(tmp_path / "study.toml", weight_decay="0.6")
    result = invoke("study", "run", file, "--out", tmp_path / "out", "--workers", "1", "--no-products")
    assert result.exit_code == Exit.WITHOUT_ANSWER, result.output
    assert "(2 no barrier)" in result.stdout
    again = invoke("study", "run", file, "--out", tmp_path / "out", "--workers", "1", "--no-products")
    assert again.exit_code == Exit.WITHOUT_ANSWER


@pytest.mark.usefixtures("stub_cells")
def test_a_directory_that_another_run_works_on(tmp_path: Path) -> None:
    file, out = declare(tmp_path / "study.toml"), tmp_path / "out"
    command = ("study", "run", file, "--out", out, "--workers", "1", "--no-products")
    assert invoke(*command).exit_code == Exit.DONE
    with Store.opened(out).lock():
        result = invoke(*command)
        assert "works on it since" in invoke("study", "status", out).stdout
    assert result.exit_code == Exit.LOCKED
    assert "is being worked on by process" in result.stderr.replace("\n", " ")


def test_interrupts_have_the_shells_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = declare(tmp_path / "study.toml")
    for error in (StudyInterrupted("Stopped as asked.\nThe same command goes on from there."), KeyboardInterrupt()):

        def stopped(*_: object, error: BaseException = error, **__: object) -> RunResult:
            raise error

        monkeypatch.setattr(runner, "run_study", stopped)
        result = invoke("study", "run", file, "--out", tmp_path / "out", "--workers", "1")
        assert result.exit_code == Exit.INTERRUPTED, result.output
        assert "Traceback" not in result.output


def test_new_prints_a_declaration_that_runs(tmp_path: Path) -> None:
    printed = invoke("study", "new")
    assert printed.exit_code == Exit.DONE
    file = tmp_path / "mine.toml"
    assert invoke("study", "new", "--to", file).exit_code == Exit.DONE
    assert invoke("study", "run", file, "--dry-run").exit_code == Exit.DONE
    written = file.read_text()
    refused = invoke("study", "new", "--to", file)
    assert refused.exit_code == Exit.BAD_INPUT
    assert file.read_text() == written


def test_start_up_needs_no_torch(tmp_path: Path) -> None:
    file = declare(tmp_path / "study.toml")
    script = f"""
import sys
from typer.testing import CliRunner
from kramers_grok.cli import app
from kramers_grok.studies.escape.study import EscapeStudy
from kramers_grok.studies.files.store import Store
study = EscapeStudy.from_toml({str(file)!r})
Store({str(tmp_path / "out")!r}, study.declaration(), name="escape")
for command in (["study", "run", {str(file)!r}, "--dry-run"], ["study", "status", {str(tmp_path / "out")!r}]):
    assert CliRunner().invoke(app, command).exit_code == 0
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


# ---------------------------------------------------------------- progress


def nothing(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    return xr.Dataset()


def plan(before: int = 0) -> Plan:
    cells = tuple(Cell("sgd", {"x": x}, nothing, cost=float(x)) for x in (1, 2, 3, 4))
    keys = tuple(f"sgd-{cell.config['x']}" for cell in cells)
    done = {key: Outcome("sgd", key, n_escaped=7, replica_steps=1e6) for key in keys[:before]}
    return Plan(Path("out"), cells, keys, done)


def test_the_tally_judges_by_cost() -> None:
    now = [100.0]
    tally = Tally(plan(before=1), clock=lambda: now[0])
    assert (tally.n_cells, tally.n_done, tally.rate, tally.seconds_left) == (4, 1, None, None)
    now[0] = 106.0
    tally.add(Outcome("sgd", "sgd-2", n_escaped=90, n_censored=10, replica_steps=6e6))
    assert tally.rate == 1e6  # of this run, not of the one before
    assert tally.seconds_left == pytest.approx(6 * (3 + 4) / 2)
    assert tally.text().startswith("1e+06 replica-steps/s, 97 escaped, 10 censored, ends about ")
    tally.add(Outcome("sgd", "sgd-3", "interrupted"))
    assert tally.n_done == 2
    tally.add(Outcome("sgd", "sgd-3", "diverged"))
    tally.add(Outcome("sgd", "sgd-4", "failed"))
    assert tally.seconds_left == 0
    assert tally.text().endswith("97 escaped, 10 censored, 1 diverged, 1 failed")


def test_plain_lines_keep_their_distance(capsys: pytest.CaptureFixture[str]) -> None:
    for interval, expected in ((1000.0, 2), (0.0, 5)):
        told = LineProgress(interval)
        asked = plan()
        told.begin(asked)
        for cell, key in zip(asked.cells, asked.keys, strict=True):
            told.cell(cell, Outcome("sgd", key))
        told.end(RunResult(asked.directory, 4, 0, (), {}))
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == expected
        assert lines[0] == "0 of 4 cells finished, in out"
        assert lines[-1].startswith("4/4 cells")


def test_the_bar_on_a_terminal() -> None:
    bar = BarProgress()
    screen = io.StringIO()
    bar.console.file = screen
    asked = plan(before=1)
    bar.begin(asked)
    bar.cell(asked.cells[1], Outcome("sgd", "sgd-2", n_escaped=9, replica_steps=1e5))
    bar.cell(asked.cells[2], Outcome("sgd", "sgd-3", "failed", "RuntimeError: out of [luck]"))
    bar.note("a worker died [9]")
    bar.end(RunResult(asked.directory, 4, 1, (), {}))
    text = screen.getvalue()
    assert "3/4" in text
    assert "16 escaped, 0 censored, 1 failed" in text
    assert "sgd-3 failed: RuntimeError: out of [luck]" in text
    assert "a worker died [9]" in text


def test_a_terminal_gets_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = []
    for terminal in (True, False):
        monkeypatch.setattr(progress, "Console", lambda terminal=terminal, **_: Console(force_terminal=terminal))
        with progress.listening(quiet=False, as_json=False) as listener:
            kinds.append(type(listener).__name__)
    assert kinds == ["BarProgress", "LineProgress"]
