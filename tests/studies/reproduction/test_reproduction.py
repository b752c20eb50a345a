"""The main job on a tiny grid: files, resumption, independence of threads, figures and summary.

The arms that take minutes even on a tiny grid are left to tests of their own, which ask the same of their files.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from kramers_grok import report
from kramers_grok.core.exceptions import InvalidParameterError, KramersGrokError, StudyConflictError
from kramers_grok.studies.files.store import Store
from kramers_grok.studies.reproduction import ARMS, Settings, reproduce
from kramers_grok.studies.reproduction.study import Reproduction
from kramers_grok.studies.running.cells import one_thread
from kramers_grok.studies.running.runner import run_study, status
from kramers_grok.studies.running.study import Study, declared, study_from

TINY = Settings(
    seed=3,
    quick=True,
    n_replicas=48,
    n_control=24,
    ratios=(1.5, 2.0, 2.5),
    pairs=((0.2, 32),),
    control_time=300.0,
)


OWN_TESTS = ("subsampling", "optimizers", "ramp", "control")
SHORT = [name for name in ARMS if name not in OWN_TESTS]


class Listener:
    """Counts the cells that were reported."""

    def __init__(self) -> None:
        self.expected: dict[str, int] = {}
        self.finished: dict[str, int] = {}

    def arm(self, name: str, n_cells: int) -> None:
        self.expected[name] = n_cells
        self.finished[name] = 0

    def cell(self, arm: str) -> None:
        self.finished[arm] += 1


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Listener, dict[str, xr.DataTree]]:
    out = tmp_path_factory.mktemp("job") / "results"
    listener = Listener()
    return out, listener, reproduce(out, settings=TINY, arms=SHORT, reporter=listener)


@pytest.mark.slow
def test_every_arm_ends_as_a_labelled_file(
    results: tuple[Path, Listener, dict[str, xr.DataTree]], check_labels: Callable[[xr.DataTree], None]
) -> None:
    out, listener, trees = results
    assert list(listener.expected) == SHORT == list(trees)
    assert listener.finished == listener.expected
    for name in SHORT:
        with xr.open_datatree(out / f"{name}.nc", engine="h5netcdf") as tree:
            check_labels(tree)


@pytest.mark.slow
def test_measured_times_agree_with_predicted_ones(results: tuple[Path, Listener, dict[str, xr.DataTree]]) -> None:
    trees = results[2]
    z = np.concatenate(
        [trees["arrhenius"][g]["difference_se"].values for g in ("langevin_mode", "langevin_chain", "sgd")]
        + [trees["real_feature"]["sgd"]["difference_se"].values]
    )
    # 12 differences; 4.5 standard errors of a mean of 48 near-exponential times: about 1e-4 altogether.
    assert np.abs(z).max() < 4.5
    assert not trees["arrhenius"]["control"]["escaped"].any()
    minibatch = trees["minibatch"]["sgd"]
    assert float(minibatch["escaped_fraction"].sel(amplitude=1e-3).max()) == 0.0
    assert float(minibatch["escaped_fraction"].sel(amplitude=0.25).min()) > 0.05  # the control: close to the barrier


@pytest.mark.slow
def test_the_same_call_resumes_on_another_executor(results: tuple[Path, Listener, dict[str, xr.DataTree]]) -> None:
    """Cells that are lost are computed again, to the bit, in other processes; the others are left alone."""
    out, _, trees = results
    cells = {p: p.stat().st_mtime_ns for p in (out / "cells").iterdir()}
    kinds = ("langevin-chain", "arrhenius-sgd", "grokking", "real-feature")
    lost = [next(p for p in sorted(cells) if kind in p.name) for kind in kinds]
    for path in lost:
        path.unlink()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=one_thread) as pool:
        again = reproduce(out, settings=TINY, arms=SHORT, executor=pool)
    for path, time in cells.items():
        assert path.exists()
        assert (path.stat().st_mtime_ns == time) == (path not in lost)
    for name, tree in trees.items():
        xr.testing.assert_identical(tree, again[name])


@pytest.mark.slow
def test_another_study_is_refused_untouched(results: tuple[Path, Listener, dict[str, xr.DataTree]]) -> None:
    out = results[0]
    before = sorted(p.name for p in out.iterdir())
    with pytest.raises(StudyConflictError, match="`seed` is 3 there, you asked for 4"):
        reproduce(out, settings=Settings(seed=4, quick=True))
    assert sorted(p.name for p in out.iterdir()) == before


def test_an_arm_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="`arms` = 'arrenius', expected one of phases, arrhenius"):
        reproduce(tmp_path / "results", settings=TINY, arms=["arrenius"])
    assert not (tmp_path / "results").exists()


# ---------------------------------------------------------------- as a study


def test_it_is_a_study_that_its_declaration_rebuilds() -> None:
    for study in (Reproduction(TINY), Reproduction(TINY, arms=("phases", "ramp"), device="cpu")):
        assert isinstance(study, Study)
        assert study_from(study.kind, json.loads(json.dumps(study.declaration()))) == study
    short = declared({"kind": "reproduce", "quick": True, "seed": 7, "arms": ["phases"], "lr": 0.2})
    assert isinstance(short, Reproduction)
    assert (short.settings.n_replicas, short.settings.seed, short.settings.lr) == (256, 7, 0.2)
    assert {cell.seed for cell in short.cells()} == {7}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quick": 1}, "`quick` = 1"),
        ({"seed": -1}, "`seed` = -1"),
        ({"arms": ["fases"]}, "`arms` = 'fases'"),
        ({"arms": "phases"}, "`arms` = 'phases', expected a list"),
        ({"device": 3}, "`device` = 3"),
        ({"ratios": []}, r"`ratios` = \[\]"),
        ({"ratios": [2.0, float("nan")]}, "`ratios` = nan"),
        ({"pairs": [[0.1]]}, "`pairs`"),
        ({"n_replicas": 2.5}, "`n_replicas` = 2.5"),
        ({"speed": 3}, "speed, expected one of seed, quick"),
    ],
)
def test_a_bad_declaration_is_explained(given: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        Reproduction.from_declaration(given)


def test_run_status_and_gather_of_some_arms(tmp_path: Path) -> None:
    study = Reproduction(TINY, arms=("phases", "forgetting"))
    result = run_study(replace(study, chosen=("phases",)), tmp_path)
    assert result.n_finished == 1
    found = status(tmp_path)
    assert (found.kind, found.n_finished, found.complete) == ("reproduce", 1, False)
    tree = study.gather(Store.opened(tmp_path))
    assert list(tree.children) == ["phases"]
    assert tree.attrs["unfinished_arms"] == ["forgetting"]
    assert Reproduction(TINY).conflicts(study.declaration()) == []  # arms may be added
    (reason,) = Reproduction(replace(TINY, lr=0.3)).conflicts(study.declaration())
    assert reason == "`lr` is 0.1 there, you asked for 0.3"


def test_cells_that_fail_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of luck")

    cell = ARMS["phases"].cells(TINY, "cpu")[0]
    monkeypatch.setattr(ARMS["phases"], "cells", lambda settings, device: [replace(cell, function=fail)])
    with pytest.raises(KramersGrokError, match=r"1 of 1 cells failed(.|\n)*RuntimeError: out of luck"):
        reproduce(tmp_path, settings=TINY, arms=["phases"])
    assert not (tmp_path / "phases.nc").exists()


@pytest.mark.slow
def test_figures_and_summary_come_from_the_files(results: tuple[Path, Listener, dict[str, xr.DataTree]]) -> None:
    out, _, trees = results
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = report.draw(out)
    assert {p.name for p in paths} == {f"{name}.{kind}" for name in SHORT for kind in ("png", "svg")}
    assert all(p.stat().st_size > 5000 for p in paths)
    text = report.summary(out)
    first = trees["arrhenius"]["sgd"].isel(run=0)
    assert f"| {float(first.mean_exit_time):.1f} [" in text
    assert "0 of 24 replicas escaped" in text
    assert "0.991" in text
    answers = report.answers(out)
    assert list(answers) == [name for name in report.ARMS if name in SHORT]
    assert all(answer.text.endswith(".") for answer in answers.values())
    page = report.write_page(out).read_text(encoding="utf-8")
    assert all(answer.holds is not None or answer.verdict == "described" for answer in answers.values())
    assert page.count("<img") == len(SHORT)
    assert "could not be drawn" not in page
    assert "not what this version writes" not in page
