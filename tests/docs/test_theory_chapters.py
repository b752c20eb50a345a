"""The derivations in `theory/` run from top to bottom, and only their last cell, the contract, knows the package."""

import ast
import importlib.util
import linecache
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "theory").glob("[0-9]*.md"))
FENCE = re.compile(r"^(?P<mark>`{3,})\{code-cell\}[^\n]*\n(?P<body>.*?)^(?P=mark)[ \t]*$", re.M | re.S)
OPTIONS = re.compile(r"\A(---\n.*?^---\n|(:[^\n]*\n)+)", re.M | re.S)


def load_record() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_executed", ROOT / "docs" / "executed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


executed = load_record()


@dataclass(frozen=True)
class Cell:
    """One code cell; `filename` names it in tracebacks, whose line numbers are those of the chapter."""

    filename: str
    source: str

    @property
    def imported(self) -> set[str]:
        """Top-level names of the packages that the cell imports."""
        names: set[str] = set()
        for node in ast.walk(ast.parse(self.source)):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").split(".")[0])
        return names

    def run(self, namespace: dict[str, Any]) -> None:
        # Lets a traceback (pytest's too) quote the cell's own lines.
        linecache.cache[self.filename] = (
            len(self.source),
            None,
            self.source.splitlines(keepends=True),
            self.filename,
        )
        exec(compile(self.source, self.filename, "exec"), namespace)


def cells_of(text: str, name: str) -> list[Cell]:
    cells = []
    for number, fence in enumerate(FENCE.finditer(text), start=1):
        body = OPTIONS.sub(lambda match: "\n" * match[0].count("\n"), fence["body"])
        padding = "\n" * text.count("\n", 0, fence.start("body"))
        cells.append(Cell(f"{name} cell {number}", padding + body))
    return cells


def chapter_cells(chapter: Path) -> list[Cell]:
    return cells_of(chapter.read_text(encoding="utf-8"), f"theory/{chapter.name}")


def test_there_are_chapters() -> None:
    assert CHAPTERS, "no theory/NN_*.md was found"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_chapter_is_a_notebook_without_outputs(chapter: Path) -> None:
    text = chapter.read_text(encoding="utf-8")
    header = re.match(r"\A---\n(.*?)\n---\n", text, re.S)
    assert header, "a chapter starts with the header that makes it a notebook"
    assert "file_format: mystnb" in header[1] or "format_name: myst" in header[1]
    assert "kernelspec" in header[1]
    assert len(FENCE.findall(text)) == text.count("{code-cell}"), "a code cell is not closed"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_only_the_contract_imports_the_package(chapter: Path) -> None:
    *derivation, contract = chapter_cells(chapter)
    assert "kramers_grok" in contract.imported, f"{contract.filename} is the last one, and no contract"
    assert "assert" in contract.source
    for cell in derivation:
        assert "kramers_grok" not in cell.imported, f"{cell.filename} imports what it has to derive"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_chapter_holds(chapter: Path) -> None:
    if executed.read(chapter) is not None:
        return  # the documentation that was built of this very checkout ran it, with every warning an error
    namespace: dict[str, Any] = {"__name__": f"theory.{chapter.stem}"}
    for cell in chapter_cells(chapter):
        cell.run(namespace)


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
    first, second = cells_of(BROKEN, "theory/broken.md")
    assert first.imported == set()
    assert second.imported == {"kramers_grok"}
    namespace: dict[str, Any] = {}
    first.run(namespace)
    with pytest.raises(AssertionError) as failure:
        second.run(namespace)
    last = failure.traceback[-1]
    assert str(last.path).endswith("theory/broken.md cell 2")
    assert last.lineno + 1 == BROKEN.splitlines().index("assert x == 2") + 1
