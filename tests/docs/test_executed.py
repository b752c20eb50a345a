"""A record of what the documentation ran counts for the same text, package and libraries only."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module with a checkout of its own: a package of one file, one example."""
    spec = importlib.util.spec_from_file_location("executed_under_test", ROOT / "docs" / "executed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("kramers_grok", "docs", "examples"):
        (tmp_path / name).mkdir()
    (tmp_path / "kramers_grok" / "core.py").write_text("x = 1\n")
    (tmp_path / "docs" / "conf.py").write_text("")
    (tmp_path / "examples" / "one.py").write_text("numbers = {}\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "FOLDER", tmp_path / "executed")
    return module


def again(executed: ModuleType) -> Any:
    """What a later process reads."""
    executed._environment.cache_clear()
    return executed.read(executed.ROOT / "examples" / "one.py")


def test_a_record_is_read_as_it_was_written(executed: ModuleType) -> None:
    example = executed.ROOT / "examples" / "one.py"
    assert again(executed) is None
    executed.write(example, executed.fingerprint(example), {"numbers": {"z": 0.1 + 0.2}})
    assert again(executed) == {"numbers": {"z": 0.1 + 0.2}}


@pytest.mark.parametrize("changed", ["examples/one.py", "kramers_grok/core.py", "kramers_grok/new.py", "docs/conf.py"])
def test_another_text_or_package_has_none(executed: ModuleType, changed: str) -> None:
    example = executed.ROOT / "examples" / "one.py"
    executed.write(example, executed.fingerprint(example), {"numbers": {}})
    assert again(executed) is not None
    (executed.ROOT / changed).write_text("x = 2\n")
    assert again(executed) is None


def test_other_libraries_have_none(executed: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    example = executed.ROOT / "examples" / "one.py"
    executed.write(example, executed.fingerprint(example), {"numbers": {}})
    version = executed.importlib.metadata.version
    monkeypatch.setattr(executed.importlib.metadata, "version", lambda name: "0" if name == "scipy" else version(name))
    assert again(executed) is None


def test_what_changes_while_it_runs_is_not_kept(executed: ModuleType) -> None:
    example = executed.ROOT / "examples" / "one.py"
    mark = executed.fingerprint(example)
    (executed.ROOT / "kramers_grok" / "core.py").write_text("x = 2\n")
    executed.write(example, mark, {"numbers": {}})
    assert not executed.FOLDER.exists()


def test_a_broken_record_is_none(executed: ModuleType) -> None:
    example = executed.ROOT / "examples" / "one.py"
    executed.write(example, executed.fingerprint(example), {"numbers": {}})
    (path,) = executed.FOLDER.iterdir()
    path.write_text(json.dumps({"numbers": {}}))
    assert again(executed) is None
    path.write_text("{")
    assert again(executed) is None


def test_pages_show_their_figures(executed: ModuleType) -> None:
    """The gallery sets a backend without pictures for all processes; the kernels of pages set theirs again."""
    program = f"{executed.KERNEL_STARTUP}\nimport matplotlib\nprint(matplotlib.get_backend())"
    for text, backend in ((program, "inline"), ("import matplotlib\nprint(matplotlib.get_backend())", "agg")):
        told = subprocess.run(
            [sys.executable, "-c", text],
            env=os.environ | {"MPLBACKEND": "agg"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert backend in told.stdout


# ---------------------------------------------------------------- figures of pages


def cell(source: str, *data: str, kind: str = "code") -> dict[str, Any]:
    """A cell of an executed notebook with outputs of these types."""
    return {"cell_type": kind, "source": source, "outputs": [{"data": {name: "…"}} for name in data]}


DRAWING = (
    "ax = kg.plots.loop_area(x)",
    "x = 1\nplots.arrhenius(y);",
    "figure, (a, b) = plt.subplots(1, 2)",
    "plt.show()",
)


@pytest.mark.parametrize("source", DRAWING)
def test_a_page_whose_figure_is_not_shown_is_found(executed: ModuleType, source: str) -> None:
    shown = {"cells": [cell(source, "text/plain", "image/png"), cell("print(1)", "text/plain")]}
    assert executed.figures_missing(shown) == []
    lost = {"cells": [cell("print(1)"), cell(source, "text/plain")]}
    assert executed.figures_missing(lost) == [source.split("\n")[0]]


def test_what_draws_nothing_needs_no_figure(executed: ModuleType) -> None:
    quiet = ("def draw(ax):\n    plots.arrhenius(x, ax)", "import matplotlib.pyplot as plt", "plots = 3")
    cells = [*map(cell, quiet), cell("kg.plots.loop_area(x)", kind="markdown")]
    assert executed.figures_missing({"cells": cells}) == []
