"""Studies of escapes: which cells a declaration makes, and which directories take it."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.schema import canonical_json
from kramers_grok.studies.escape.estimates import cell_key
from kramers_grok.studies.escape.study import EscapeStudy
from kramers_grok.studies.files.store import Store, content_hash
from kramers_grok.studies.schema.expansion import configurations
from kramers_grok.studies.schema.fields import FIELDS
from kramers_grok.studies.schema.text import template

SMALL: dict[str, Any] = {
    "system": {"kind": "chain", "depth": 3, "weight_decay": [0.2, 0.25]},
    "noise": {"barrier_over_temperature": [4, 5]},
    "sgd": {"lr": [0.05, 0.1], "batch_size": 8},
    "seed": [0, 1],
}


def study(**sections: Any) -> EscapeStudy:
    return EscapeStudy(**(SMALL | sections))


def by_engine(made: EscapeStudy) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for cell in made.cells():
        found.setdefault(cell.name, []).append(cell)
    return found


# ---------------------------------------------------------------- cells


def test_cells_are_the_product() -> None:
    cells = by_engine(study())
    assert {name: len(found) for name, found in cells.items()} == {"theory": 4, "langevin": 8, "sgd": 16}
    assert cells["theory"][0].config == {
        "engine": "theory",
        "system": {"kind": "chain", "depth": 3, "singular_value": 1.0, "weight_decay": 0.2},
        "noise": {"barrier_over_temperature": 4.0},
    }
    run = {"method": "auto", "replicas": 1024, "precision": None, "max_replicas": None, "horizon": 10.0}
    assert cells["sgd"][-1].config == {
        "engine": "sgd",
        "system": {"kind": "chain", "depth": 3, "singular_value": 1.0, "weight_decay": 0.25},
        "noise": {"barrier_over_temperature": 5.0},
        "sgd": {"lr": 0.1, "batch_size": 8, "label_noise": 0.1},
        "run": run | {"confidence": 0.95, "device": "cpu"},
        "seed": 1,
    }
    assert cells["langevin"][0].config["langevin"] == {"dt": 0.1, "integrator": "fused"}
    assert {(cell.resumable, cell.seed) for cell in cells["sgd"]} == {(True, 0), (True, 1)}
    assert {(cell.resumable, cell.seed) for cell in cells["theory"]} == {(False, 0)}
    assert all(cell.cost > 0 for found in cells.values() for cell in found)


def test_only_networks_have_a_width() -> None:
    cells = study(system={"kind": ["mode", "network"], "weight_decay": 0.2, "width": [2, 4]}).cells()
    shapes = {(c.config["system"]["kind"], c.config["system"].get("width")) for c in cells}
    assert shapes == {("mode", None), ("network", 2), ("network", 4)}


def test_std_makes_the_temperatures_of_the_others() -> None:
    batches = {"lr": [0.1, 0.05], "batch_size": [8, 4, 16]}
    cells = by_engine(study(noise={"std": [0.0, 0.5]}, sgd=batches, system={"weight_decay": 0.2}, seed=0))
    # 0.1/8 and 0.05/4 are one temperature, as are 0.1/16 and 0.05/8: four of six remain
    expected = [0.1 * 0.25 / (2 * b) for b in (8, 4, 16)] + [0.05 * 0.25 / 32]
    assert [c.config["noise"]["temperature"] for c in cells["theory"]] == pytest.approx(expected, rel=1e-11)
    assert [c.config["noise"] for c in cells["langevin"]] == [c.config["noise"] for c in cells["theory"]]
    assert len(cells["sgd"]) == 12
    assert {c.config["noise"]["std"] for c in cells["sgd"]} == {0.0, 0.5}


def test_one_precision_makes_another_run_section() -> None:
    run = study(run={"precision": 0.1}).cells()[-1].config["run"]
    assert (run["replicas"], run["precision"], run["max_replicas"]) == (None, 0.1, 65536)


def test_names_do_not_depend_on_how_numbers_are_written(tmp_path: Path) -> None:
    text = """
        seed = {keys}
        engines = ["sgd"]
        [system]
        weight_decay = {decays}
        [noise]
        std = {std}
        [sgd]
        lr = {lrs}
        batch_size = 8
    """
    ways = [
        {"keys": "[0, 1]", "decays": "[0.1, 0.2, 0.3]", "std": "1", "lrs": "0.1"},
        {"keys": "{start = 1, stop = 0, step = -1}", "decays": "{start = 0.1, stop = 0.3, num = 3}", "std": "1.0",
         "lrs": "1e-1"},
        {"keys": "[1.0, 0]", "decays": "{start = 0.1, stop = 0.3, step = 0.1}", "std": "+1e0", "lrs": "[0.10]"},
        {"keys": "[0b1, 0x0]", "decays": "[3e-1, 2e-1, 1e-1]", "std": "1.00", "lrs": "0.1_0"},
    ]  # fmt: skip
    names = []
    for i, way in enumerate(ways):
        file = tmp_path / f"{i}.toml"
        file.write_text(text.format(**way))
        names.append(sorted(map(cell_key, EscapeStudy.from_toml(file).cells())))
    assert len(names[0]) == 6
    assert names[1:] == names[:1] * 3


def test_names_of_cells_stay_from_version_to_version() -> None:
    # A change here orphans every finished cell of every study: it needs a good reason and a new format.
    cells = study().cells()
    assert cell_key(cells[0]) == "theory-6be071a312e26ce4"
    assert cell_key(cells[-1]) == "sgd-f01f05d3e6143467"


def test_keys_of_cells_are_names_of_files(tmp_path: Path) -> None:
    made = study()
    store = Store(tmp_path, made.declaration(), name=made.kind)
    assert all(store.path(cell.name, cell.config).stem == cell_key(cell) for cell in made.cells())


# ---------------------------------------------------------------- any valid declaration

_NUMBERS = st.sampled_from([0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.7, 1.0, 1e-3, 3e-5, 12.5])


def _many(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(values, st.lists(values, min_size=1, max_size=2, unique=True))


def _range() -> st.SearchStrategy[Any]:
    return st.builds(
        lambda start, more, num, spacing: {"start": start, "stop": start + more, "num": num, "spacing": spacing},
        _NUMBERS, st.sampled_from([0.01, 0.5]), st.integers(2, 3), st.sampled_from(["linear", "geometric"]),
    )  # fmt: skip


_REALS = st.one_of(_many(_NUMBERS), _range())


@st.composite
def declarations(draw: st.DrawFn) -> dict[str, Any]:
    """A valid declaration."""
    kinds = draw(_many(st.sampled_from(["mode", "chain", "network"])))
    system = {"kind": kinds, "depth": draw(_many(st.integers(2, 6))), "weight_decay": draw(_REALS)}
    if draw(st.booleans()):
        system["singular_value"] = draw(_REALS)
    if "network" in kinds:
        system["width"] = draw(_many(st.integers(1, 8)))
    noise = draw(st.sampled_from(["temperature", "barrier_over_temperature", "std"]))
    run = draw(st.sampled_from(["replicas", "precision", "nothing"]))
    return {
        "title": draw(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)),
        "engines": draw(st.lists(st.sampled_from(["theory", "langevin", "sgd"]), min_size=1, unique=True)),
        "seed": draw(_many(st.integers(0, 2**64 - 1))),
        "system": system,
        "noise": {noise: draw(_REALS)},
        "langevin": {"dt": draw(_many(_NUMBERS)), "integrator": draw(st.sampled_from(["fused", "torchsde"]))},
        "sgd": {
            "lr": draw(_REALS),
            "batch_size": draw(_many(st.integers(1, 512))),
            "label_noise": draw(_many(_NUMBERS)),
        },
        "run": {
            "replicas": {"replicas": draw(_many(st.integers(2, 4096))), "method": "splitting"},
            "precision": {"precision": draw(_many(st.sampled_from([0.05, 0.1]))), "confidence": 0.9},
            "nothing": {},
        }[run],
    }  # fmt: skip


def shuffled(draw: Any, value: Any) -> Any:
    """The same declaration with keys and lists in another order."""
    if isinstance(value, dict):
        return {key: shuffled(draw, value[key]) for key in draw(st.permutations(list(value)))}
    return draw(st.permutations(value)) if isinstance(value, list) else value


def names_of(made: EscapeStudy) -> list[str]:
    """Names of the cells' files, without what the cells will cost."""
    return [f"{c['engine']}-{content_hash({'name': c['engine'], 'config': c})}" for c in configurations(made.parsed)]


@settings(max_examples=200)
@given(st.data())
def test_valid_declarations_expand_the_same_however_they_are_ordered(data: Any) -> None:
    declaration = data.draw(declarations())
    before = copy.deepcopy(declaration)
    made = EscapeStudy.from_declaration(declaration)
    assert declaration == before
    names = names_of(made)
    assert len(set(names)) == len(names) > 0
    assert names == names_of(EscapeStudy.from_declaration(declaration))
    other = EscapeStudy.from_declaration(shuffled(data.draw, declaration))
    assert sorted(names_of(other)) == sorted(names)
    assert other.conflicts(made.declaration()) == []
    # What the directory keeps is JSON and rebuilds the study
    kept = json.loads(canonical_json(made.declaration()))
    assert EscapeStudy.from_declaration(kept) == made
    assert sorted(names_of(EscapeStudy.from_declaration(kept))) == sorted(names)


@settings(max_examples=30)
@given(st.data())
def test_costs_do_not_depend_on_the_order(data: Any) -> None:
    declaration = data.draw(declarations())
    cells, others = (
        {cell_key(cell): cell.cost for cell in EscapeStudy.from_declaration(d).cells()}
        for d in (declaration, shuffled(data.draw, declaration))
    )
    assert cells.keys() == others.keys()
    assert all(cells[key] == pytest.approx(others[key], rel=1e-9) and cells[key] > 0 for key in cells)


# ---------------------------------------------------------------- conflicts


def test_physical_parameters_may_change() -> None:
    held = study().declaration()
    changed = study(system={"kind": "mode", "weight_decay": 0.3}, noise={"temperature": 0.01}, seed=7, title="new")
    assert changed.conflicts(held) == []


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, {"replicas": 1024}, []),
        ({"replicas": 512}, {"replicas": [1024, 512]}, []),
        ({"replicas": 512}, {"replicas": 1024},
         ["`run.replicas` is 512 there, you asked for 1024; `run.replicas = [512, 1024]` would hold both"]),
        ({"replicas": 512}, {"precision": 0.1}, ["`run.replicas` is 512 there and not given here"]),
        ({"method": ["auto", "splitting"]}, {"method": "auto"},
         ["`run.method` is ['auto', 'splitting'] there, you asked for 'auto'; `run.method = ['auto', 'splitting']` "
          "would hold both"]),
        ({"horizon": 5}, {"confidence": 0.9}, ["`run.horizon` is 5.0 there, you asked for 10.0",
                                               "`run.confidence` is 0.95 there, you asked for 0.9"]),
    ],
)  # fmt: skip
def test_settings_of_the_run_must_remain(before: dict[str, Any], after: dict[str, Any], told: list[str]) -> None:
    found = study(run=after).conflicts(study(run=before).declaration())
    assert len(found) == len(told)
    assert all(text.startswith(start) for text, start in zip(found, told, strict=True))


@pytest.mark.parametrize("held", [{}, {"seed": 3}, {"system": 3}, study().declaration() | {"new_key": 1}])
def test_a_declaration_that_is_not_understood_conflicts(held: dict[str, Any]) -> None:
    (text,) = study().conflicts(held)
    assert text.startswith("its declaration is not understood: ")


# ---------------------------------------------------------------- the object


def test_from_toml_names_the_file_and_the_key(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(template().replace("lr = 0.1", "lr = -0.1"))
    with pytest.raises(InvalidParameterError, match=r"a\.toml': `sgd\.lr` = -0\.1, expected a number > 0"):
        EscapeStudy.from_toml(file)


def test_studies_are_equal_by_what_they_declare() -> None:
    assert study() == study(seed=[0, 1])
    assert study() != study(seed=[1])
    assert study() != "a study"
    assert repr(study()).startswith("EscapeStudy({'kind': 'escape'")
    assert eval(repr(study().declaration())) == study().declaration()


def test_keywords_are_the_schema() -> None:
    top = {field.name for field in FIELDS.values() if not field.section} - {"kind"}
    sections = {field.section for field in FIELDS.values() if field.section}
    assert EscapeStudy.__init__.__kwdefaults__.keys() | {"system", "noise"} == top | sections


SCRIPT = """
import sys
from kramers_grok.studies.escape.study import EscapeStudy
from kramers_grok.studies.escape.estimates import estimate
study = EscapeStudy(
    system={"kind": "network", "width": 4, "weight_decay": {"start": 0.01, "stop": 0.6, "num": 100}},
    noise={"barrier_over_temperature": {"start": 2, "stop": 12, "num": 100}}, engines=["langevin"],
)
cells = study.cells()
print(len(cells), len(estimate(cells, workers=4).text().splitlines()) > 1, "torch" in sys.modules)
"""


def test_planning_ten_thousand_cells_needs_no_torch_and_seconds() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["10000", "True", "False"]
