"""Each arm of the main job answers in a sentence that follows its data, whichever way they go."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from kramers_grok import report
from kramers_grok.report import words
from kramers_grok.report.arms import ARMS
from kramers_grok.studies.files.store import Store, write_netcdf
from kramers_grok.studies.reproduction.settings import Settings

MEAN = np.array([100.0, 300.0, 900.0])


def runs(factor: Any = 1.0, **more: Any) -> xr.Dataset:
    """Three runs with means of 400 escapes, `factor` times the predicted."""
    found = MEAN * factor * np.array([1.02, 0.97, 1.01])
    data = {"mean_exit_time": found, "standard_error": found / 20, "predicted_mean": MEAN} | more
    return xr.Dataset({name: ("run", np.broadcast_to(values, 3)) for name, values in data.items()})


def control(escaped: int = 0) -> xr.Dataset:
    return xr.Dataset({"escaped": ("replica", np.arange(64) < escaped)})


def tree(attrs: dict[str, Any] | None = None, **groups: xr.Dataset) -> xr.DataTree:
    nodes = {f"/{name.replace('__', '/')}": ds for name, ds in groups.items()}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs or {}), **nodes})


def arrhenius(good: bool) -> xr.DataTree:
    laws = xr.Dataset({"slope_difference_se": ("engine", [0.4]), "r_squared": ("engine", [0.995])}, {"engine": ["sgd"]})
    groups = {"langevin_chain": runs(), "langevin_mode": runs(), "sgd": runs(1 if good else 1.3)}
    return tree(laws=laws, control=control(), **groups)


def wide(good: bool) -> xr.DataTree:
    share = {"slope_over_barrier": ("curve", [0.4, 0.41])}
    line = runs(0.95 if good else 1.5, valid=[1.0, 1.0, 0.0], chain=1e4 * MEAN)
    return tree(line=line, laws=xr.Dataset(share, {"curve": ["measured", "predicted_mean"]}))


def forgetting(good: bool) -> xr.DataTree:
    rows = runs(ratio=1.4 if good else 1.05, ratio_error=0.05, batch_size=16)
    return tree(sgd=rows.assign_attrs(quasi_potential_ratio=1.408))


def minibatch(good: bool) -> xr.DataTree:
    predicted = ("batch_size", "start_amplitude"), [[0.0, 0.1, 0.3]] * 2
    measured = ("batch_size", "amplitude"), [[0.0, 0.31], [0.0 if good else 0.25, 0.28]]
    coords = {"amplitude": [0.001, 0.25], "start_amplitude": [0.001, 0.1, 0.25], "batch_size": [4, 8]}
    data = xr.Dataset({"predicted_fraction": predicted, "escaped_fraction": measured}, coords, {"n_replicas": 200})
    return tree(sgd=data)


def optimizers(good: bool) -> xr.DataTree:
    kinds = ["noise-driven" if good else "deterministic", "absorbing"]
    escaped = np.zeros((2, 2, 16), bool)
    escaped[0, int(good)] = True
    coords = {"optimizer": ["AdamW", "gradient descent"], "batch": ["full batch", "minibatch"]}
    data = {"attribution": ("optimizer", kinds), "escaped": (("optimizer", "batch", "replica"), escaped)}
    return tree(trap=xr.Dataset(data, coords, {"n_steps": 1000}))


def real_feature(good: bool) -> xr.DataTree:
    return tree(sgd=runs(1 if good else 0.7, share_saddle=0.04))


def phases(good: bool) -> xr.DataTree:
    data = {"n_states": ("weight_decay", [1, 3, 2] if good else [1, 2, 2]), "spinodal": ("feature", [0.3, 0.2])}
    return xr.DataTree(xr.Dataset(data, {"weight_decay": [0.4, 0.1, 0.25]}, {"depth": 3}))


def grokking(good: bool) -> xr.DataTree:
    rows = runs(1 if good else 1.4)
    return tree({"span": 9.0}, control=control(), **{f"run{i}": rows.isel(run=i) for i in range(3)})


def hysteresis(good: bool) -> xr.DataTree:
    spinodal = np.array([0.9, 0.5, 0.3])
    loop = xr.Dataset(
        {
            "before": ("feature", 0.999 * spinodal),
            "after": ("feature", 1.001 * spinodal if good else 1.001 * spinodal[::-1]),
            "returned": ("feature", [1e-18] * 3),
            "area": ("feature", [0.5, 0.2, 0.1]),
            "predicted_area": ("feature", [0.5, 0.2, 0.1]),
        },
        {"spinodal": ("feature", spinodal)},
    )
    stairs = xr.Dataset(attrs={"n_ordered": 46, "n_replicas": 48, "n_returned_without_noise": 0})
    flat = xr.Dataset({"jump": ("feature", [np.nan, np.nan])})
    return tree(teacher=loop, digits=loop, control=flat, return_stairs=stairs)


def states(good: bool) -> xr.DataTree:
    data = {"n_states": [2, 3], "predicted_states": [2, 3 if good else 4], "n_starts": [96, 96]}
    data |= {"n_uncertified": [0, 0], "n_index_agree": [2, 4], "n_sets": [2, 4]}
    return tree(table=xr.Dataset({name: ("search", values) for name, values in data.items()}))


def subsampling(good: bool) -> xr.DataTree:
    rows = runs(1 if good else 2.0, predicted_uncertainty=0.1)
    same = ("cell", [True, False])
    found = xr.Dataset({"measured": same, "predicted": same})
    return tree(gain__b2=rows.isel(run=0), gain__b3=rows.isel(run=1), control=control(), map=found)


def ramp(good: bool) -> xr.DataTree:
    p = {"driven_p_value": ("ramp_rate", [0.3, 0.8 if good else 1e-6]), "wrong_p_value": ("ramp_rate", [1e-9, 1e-8])}
    part = xr.Dataset(p | {"adiabatic_valid": ("ramp_rate", [True, False])})
    widths = {
        "width": ("ramp_rate", [0.1]),
        "driven_width": ("ramp_rate", [0.101]),
        "width_error": ("ramp_rate", [0.01]),
    }
    return tree({"wrong": 1.2}, down=part, up=part, loops=xr.Dataset(widths))


def schedules(good: bool) -> xr.DataTree:
    steps = np.array([3900.0, 1400.0, 1500.0])
    data = {"mean_steps": steps * (1 if good else 0.5), "predicted_mean_steps": steps, "mean_steps_error": steps / 40}
    names = ["constant, final", "constant, peak", "designed: lr"]
    return tree(schedules=xr.Dataset({k: ("schedule", v) for k, v in data.items()}, {"schedule": names}))


# What the arm says when its data hold, and when they do not
EXPECTED: dict[str, tuple[Callable[[bool], xr.DataTree], bool | None, bool | None, str, str]] = {
    "arrhenius": (
        arrhenius,
        True,
        False,
        "Theory, Langevin and SGD agree without a fitted",
        "Theory disagrees with SGD:",
    ),
    "wide": (wide, True, False, "SGD in wide layers follows", "SGD in wide layers does not follow"),
    "forgetting": (
        forgetting,
        True,
        False,
        "diffusion limit fails: a learned",
        "no departure from the diffusion limit",
    ),
    "minibatch": (minibatch, True, False, "the trap absorbs: 0 of 400 escape", "50 of 400 replicas escape from"),
    "optimizers": (optimizers, None, None, "Noise frees the collapsed state under AdamW", "Noise frees no optimizer"),
    "real_feature": (real_feature, True, False, "is learned at the predicted rate", "is not learned at the"),
    "phases": (phases, None, None, "have 3 metastable states at λ = 0.1", "have 2 metastable states at λ = 0.1"),
    "grokking": (grokking, True, False, "drops is the predicted escape time", "drops is not the predicted escape time"),
    "hysteresis": (
        hysteresis,
        True,
        False,
        "Hysteresis is as predicted: features are lost weakest",
        "not as predicted",
    ),
    "states": (states, True, False, "as many metastable states as predicted (2 of 2", "other numbers of metastable"),
    "subsampling": (subsampling, True, False, "falls late, as predicted", "falls late, not as predicted"),
    "ramp": (ramp, True, False, "decay follow the theory with lag: smallest KS p = 1", "decay do not follow"),
    "control": (schedules, True, False, "mean times agree with the predicted", "mean times depart from the predicted"),
}


def test_every_arm_is_asked() -> None:
    assert set(EXPECTED) == set(ARMS)


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("good", [True, False])
def test_an_answer_follows_its_data(name: str, good: bool) -> None:
    make, holds, fails, said, otherwise = EXPECTED[name]
    answer = ARMS[name].answer(make(good))
    assert answer.holds is (holds if good else fails)
    assert (said if good else otherwise) in answer.text
    assert (otherwise if good else said) not in answer.text
    assert answer.text.endswith(".")


def test_controls_that_escape_are_not_passed_over() -> None:
    escaped = arrhenius(True)
    escaped["control"] = xr.DataTree(control(3))
    answer = ARMS["arrhenius"].answer(escaped)
    assert answer.holds is False
    assert "full-batch descent leaves in 3 of 64" in answer.text


def test_runs_without_an_answer_are_no_agreement() -> None:
    nothing = words.measured(runs(np.nan))
    assert not nothing.agrees
    assert nothing.text == "no run has an answer"


def results(out: Path, good: dict[str, bool]) -> Path:
    """A directory of the main job, with the files of some arms."""
    Store(out, Settings.make(seed=3, quick=True).as_mapping(), name="reproduce")
    shutil.rmtree(out / "cells")
    for name, right in good.items():
        write_netcdf(EXPECTED[name][0](right), out / f"{name}.nc")
    return out


@pytest.mark.filterwarnings("ignore")  # the made-up data have no figures, which is what the page must bear
def test_the_page_of_the_job_counts_what_holds(tmp_path: Path) -> None:
    out = results(tmp_path / "results", dict.fromkeys(EXPECTED, True) | {"states": False})
    page = report.write_page(out).read_text(encoding="utf-8")
    assert "What was predicted was measured in 10 of 11 arms, but not in: Number of metastable states." in page
    assert "2 more describe without a test." in page
    assert 'class="answer wrong"' in page
    assert page.count('class="part"') == 13
    assert "kramers-grok reproduce --out results --quick --seed 3" in page


@pytest.mark.filterwarnings("ignore")
def test_the_page_of_half_a_job_says_so_first(tmp_path: Path) -> None:
    out = results(tmp_path, {"states": True, "phases": True})
    (out / "control.nc").write_bytes(b"not netCDF <b>")
    page = report.write_page(out).read_text(encoding="utf-8")
    answer = page.split('<p class="headline">')[1]
    assert answer.startswith(
        "Not finished: 2 of 13 arms have results. So far, what was predicted was measured in 1 of 1"
    )
    assert "Arms without results: Arrhenius law, Wide layers" in page
    assert "control.nc" in page
    assert "<b>no" not in page
    assert {
        name: each.verdict for name, each in report.answers(results(tmp_path / "two", {"states": True})).items()
    } == {"states": "as predicted"}
