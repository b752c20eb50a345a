"""The derivations in `theory/` run from top to bottom, and only their last cell, the contract, knows the package."""

import importlib.util
import linecache
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def load(name: str) -> ModuleType:
    """Load a module of `docs/`, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


executed, theory = load("executed"), load("chapters")
CHAPTERS: list[Path] = theory.chapters()

each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)


def run(cell: Any, namespace: dict[str, Any]) -> None:
    # Lets a traceback (pytest's too) quote the cell's own lines.
    linecache.cache[cell.filename] = (
        len(cell.source),
        None,
        cell.source.splitlines(keepends=True),
        cell.filename,
    )
    exec(compile(cell.source, cell.filename, "exec"), namespace)


def test_there_are_chapters() -> None:
    assert CHAPTERS, "no theory/NN_*.md was found"
    assert executed.chapters() == CHAPTERS, "what the documentation builds"


@each_chapter
def test_chapter_is_a_notebook_without_outputs(chapter: Path) -> None:
    text = chapter.read_text(encoding="utf-8")
    header = re.match(r"\A---\n(.*?)\n---\n", text, re.S)
    assert header, "a chapter starts with the header that makes it a notebook"
    assert "file_format: mystnb" in header[1] or "format_name: myst" in header[1]
    assert "kernelspec" in header[1]
    assert len(theory.FENCE.findall(text)) == text.count("{code-cell}"), "a code cell is not closed"


@each_chapter
def test_chapter_has_its_parts(chapter: Path) -> None:
    parts = re.findall(r"^## (.+)$", chapter.read_text(encoding="utf-8"), re.M)
    assert parts[:2] == ["Claim", "Assumptions"]
    assert parts[-1] == "Contract"
    assert len(parts) > 3, "between the assumptions and the contract stands the derivation"


@each_chapter
def test_only_the_contract_imports_the_package(chapter: Path) -> None:
    *derivation, contract = theory.cells(chapter)
    assert "kramers_grok" in contract.packages, f"{contract.filename} is the last one, and no contract"
    assert "assert" in contract.source
    for cell in derivation:
        assert not cell.forbidden, f"{cell.filename} may import what it has to derive"


def test_every_module_of_the_theory_is_derived() -> None:
    held = theory.held_by()
    assert len(held) > 50
    missing = [module for module, chapters in held.items() if not chapters]
    assert not missing, "no chapter's contract imports them: derive what they hold"
    assert all(f"`{module.removeprefix('kramers_grok.')} <" in theory.table() for module in held)


@each_chapter
def test_chapter_holds(chapter: Path) -> None:
    if executed.read(chapter) is not None:
        return  # the documentation that was built of this very checkout ran it, with every warning an error
    namespace: dict[str, Any] = {"__name__": f"theory.{chapter.stem}"}
    for cell in theory.cells(chapter):
        run(cell, namespace)


BROKEN = """\
# A chapter

```{code-cell} ipython3
:tags: [remove-input]

x = 1
```

```{code-cell} ipython3
---
tags: [hide-input]
---
import kramers_grok.core as core
assert x == 2
```
"""


def test_a_wrong_chapter_fails_where_it_is_wrong() -> None:
    first, second = theory.cells_of(BROKEN, "theory/broken.md")
    assert first.packages == set()
    assert second.packages == {"kramers_grok"}
    namespace: dict[str, Any] = {}
    run(first, namespace)
    with pytest.raises(AssertionError) as failure:
        run(second, namespace)
    last = failure.traceback[-1]
    assert str(last.path).endswith("theory/broken.md cell 2")
    assert last.lineno + 1 == BROKEN.splitlines().index("assert x == 2") + 1


@pytest.mark.parametrize(
    "source",
    [
        "import kramers_grok",
        "from kramers_grok.theory import rates",
        "from helper import rate  # which may import it",
        "from . import helper",
        "import importlib\nrates = importlib.import_module('kramers_grok.theory.rates')",
        "import subprocess",
        "import sys\nrates = sys.modules['kramers_grok.theory.rates']",
        "rates = __import__('kramers_grok').theory.rates",
        "exec(text)",
        "def late():\n    from kramers_grok.theory.rates import kramers_rate",
    ],
)
def test_a_derivation_that_could_see_the_package_is_refused(source: str) -> None:
    """Negative control, also through a helper."""
    assert theory.Cell("a cell", source).forbidden


def test_a_derivation_may_use_its_tools() -> None:
    source = "import math\nimport numpy as np\nfrom scipy.optimize import brentq\nimport sympy as sp, mpmath"
    assert not theory.Cell("a cell", source).forbidden


def test_what_a_contract_holds_is_read_off_its_imports() -> None:
    cell = theory.Cell("a cell", "from kramers_grok.theory import rates\nfrom kramers_grok.theory.orbits import f")
    assert {"kramers_grok.theory.rates", "kramers_grok.theory.orbits"} <= cell.imported
    assert "kramers_grok.theory.saddles" not in cell.imported
