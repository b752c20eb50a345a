"""The derivations in the repository's folder `theory/`: their cells, and which modules their contracts hold to account.

A chapter derives and checks in all its cells but the last; the last one, the contract, imports the package.
"""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "kramers_grok"
# What a derivation may import: nothing that could lead to the package, by whatever way
ALLOWED = {"mpmath", "numpy", "scipy", "sympy"}
LOADERS = {"importlib", "pkgutil", "runpy", "subprocess", "zipimport", "multiprocessing", "os", "sys", "builtins"}
SHOWN = 3  # chapters that the table names: what is basic occurs in many later ones
CALLS = {"__import__", "compile", "eval", "exec"}

FENCE = re.compile(r"^(?P<mark>`{3,})\{code-cell\}[^\n]*\n(?P<body>.*?)^(?P=mark)[ \t]*$", re.M | re.S)
OPTIONS = re.compile(r"\A(---\n.*?^---\n|(:[^\n]*\n)+)", re.M | re.S)


@dataclass(frozen=True)
class Cell:
    """One code cell; `filename` names it in tracebacks, whose line numbers are those of the chapter."""

    filename: str
    source: str

    @property
    def imported(self) -> set[str]:
        """Names of all modules that the cell imports, with those that `from … import` may have meant."""
        names: set[str] = set()
        for node in ast.walk(ast.parse(self.source)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                home = "." * node.level + (node.module or "")
                names |= {home, *(f"{home}.{alias.name}" for alias in node.names)}
        return names

    @property
    def packages(self) -> set[str]:
        """Names of the packages that the cell imports from; '' for a relative import."""
        return {name.split(".")[0] for name in self.imported}

    @property
    def forbidden(self) -> set[str]:
        """What a derivation may not use: other packages than `ALLOWED`, helpers of the repository, loaders."""
        standard = set(sys.stdlib_module_names) - LOADERS
        names = {node.id for node in ast.walk(ast.parse(self.source)) if isinstance(node, ast.Name)}
        return (self.packages - ALLOWED - standard) | (names & CALLS)


def cells_of(text: str, name: str) -> list[Cell]:
    """Return the code cells of a MyST text."""
    cells = []
    for number, fence in enumerate(FENCE.finditer(text), start=1):
        body = OPTIONS.sub(lambda match: "\n" * match[0].count("\n"), fence["body"])
        padding = "\n" * text.count("\n", 0, fence.start("body"))
        cells.append(Cell(f"{name} cell {number}", padding + body))
    return cells


def cells(chapter: Path) -> list[Cell]:
    """Return the code cells of a chapter."""
    return cells_of(chapter.read_text(encoding="utf-8"), f"theory/{chapter.name}")


def chapters() -> list[Path]:
    """Return all chapters, in their order."""
    return sorted((ROOT / "theory").glob("[0-9]*.md"))


def theory_modules() -> list[str]:
    """Full names of the modules of the package's own `theory/`."""
    return sorted(
        f"{PACKAGE}.theory.{path.stem}" for path in (ROOT / PACKAGE / "theory").glob("*.py") if path.stem != "__init__"
    )


def held_by() -> dict[str, list[Path]]:
    """For every module of the package's `theory/`, the chapters whose contract imports from it."""
    contracts = {chapter: cells(chapter)[-1].imported for chapter in chapters()}
    return {module: [c for c, names in contracts.items() if module in names] for module in theory_modules()}


def table() -> str:
    """Make a table of the modules and the chapters that derive what they hold."""
    rows = ["| module | derived in |", "|---|---|"]
    for module, found in held_by().items():
        links = ", ".join(f"{{doc}}`/theory/{chapter.stem}`" for chapter in found[:SHOWN])
        rows.append(f"| {{py:mod}}`{module.removeprefix(PACKAGE + '.')} <{module}>` | {links} |")
    return "\n".join(rows) + "\n"
