"""Names, modules, commands and files that the pages of `docs/` speak of exist. `make docs` builds the pages."""

import ast
import importlib
import pkgutil
import posixpath
import re
import shlex
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

import pytest
import typer.main

import kramers_grok as kg
from kramers_grok.studies.reproduction import ARMS

ROOT = Path(__file__).parents[2]
MADE = {"_build", "_generated", "api", "theory"}  # by the build; chapters of `theory/` have tests of their own
PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if not MADE & set(page.relative_to(ROOT / "docs").parts))
# By path: two of them are called README.md.
TEXT = {
    str(page.relative_to(ROOT)): page.read_text(encoding="utf-8")
    for page in [*PAGES, ROOT / "README.md", ROOT / "benchmarks/README.md"]
}
CODE = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
SHELL = re.compile(r"^```bash\n(.*?)^```$", re.M | re.S)
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.M | re.S)

each_page = pytest.mark.parametrize("page", TEXT)


@each_page
def test_names_of_the_library_exist(page: str) -> None:
    for name in set(re.findall(r"\bkg\.(\w+(?:\.\w+)*)", TEXT[page])):
        thing: object = kg
        for part in name.split("."):
            assert hasattr(thing, part), f"kg.{name}"
            thing = getattr(thing, part)


@each_page
def test_modules_named_exist(page: str) -> None:
    rooms = "core|theory|models|landscape|dynamics|escape|analysis|studies"
    for name in set(re.findall(rf"`~?(?:kramers_grok\.)?((?:{rooms})(?:\.\w+)+)`", TEXT[page])):
        try:
            importlib.import_module(f"kramers_grok.{name}")
        except ModuleNotFoundError:
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(f"kramers_grok.{module}"), attribute), name


@each_page
def test_code_is_python(page: str) -> None:
    for source in CODE.findall(TEXT[page]):
        if ">>>" not in source:
            ast.parse(source)


def shown(page: str, program: str) -> list[list[str]]:
    """Arguments of each call of a program in a page's blocks of shell commands."""
    lines = [line for body in SHELL.findall(TEXT[page]) for line in body.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line and Path(line[0]).name == program]


@each_page
def test_make_targets_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    calls = [re.sub(r'"[^"]*"', "", command).split() for command in re.findall(r"`make ([^`]+)`", TEXT[page])]
    for words in [*calls, *shown(page, "make")]:
        assert {word for word in words if "=" not in word} <= targets, words


@each_page
def test_commands_shown_exist(page: str) -> None:
    group = typer.main.get_command(importlib.import_module("kramers_grok.cli").app)
    for words in shown(page, "kramers-grok"):
        command, rest = group, list(words)
        while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
            command = command.commands[rest.pop(0)]
        known = {spelling for parameter in command.params for spelling in parameter.opts}
        assert {word.split("=")[0] for word in rest if word.startswith("--")} <= known | {"--help"}, words


def test_the_installation_is_the_pinned_one() -> None:
    """What a stranger types first: PyTorch at the version of the constraints, and extras of the project."""
    start = TEXT["docs/start_here.md"]
    assert "$(grep '^torch==' constraints.txt)" in start
    assert len(re.findall(r"^torch==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)) == 1
    extras = re.findall(r"^([a-z]+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"'\.\[(\w+)\]'", start)) <= set(extras)


def reachable(texts: Mapping[str, str]) -> set[str]:
    """Pages that tables of contents lead to from `docs/index.md`, followed all the way down."""
    found, ahead = set(), ["docs/index.md"]
    while ahead:
        page = ahead.pop()
        found.add(page)
        for body in TOCTREE.findall(texts[page]):
            for line in body.splitlines():
                entry = re.sub(r"^.*<(.+)>$", r"\1", line.strip())
                if not entry or entry.startswith(":"):
                    continue
                path = posixpath.normpath(posixpath.join(posixpath.dirname(page), entry)) + ".md"
                ahead += [other for other in texts if fnmatch(other, path) and other not in found]
    return found


def test_every_page_can_be_reached() -> None:
    pages = {page: text for page, text in TEXT.items() if page.startswith("docs/")}
    assert reachable(pages) == set(pages)


def test_a_page_that_no_table_of_contents_names_is_found_out() -> None:
    pages = {
        "docs/index.md": "```{toctree}\n:hidden:\n\nTheir title <part/index>\n```\n",
        "docs/part/index.md": "```{toctree}\n:glob:\n\ncase_*\n```\n[](lonely)\n",
        "docs/part/case_one.md": "",
        "docs/part/lonely.md": "",
    }
    assert set(pages) - reachable(pages) == {"docs/part/lonely.md"}


def test_every_arm_of_the_main_job_is_explained() -> None:
    described = set(re.findall(r"^## `(\w+)`", TEXT["docs/main_job.md"], re.M))
    assert described == set(ARMS)


def test_options_named_exist() -> None:
    commands = typer.main.get_command(importlib.import_module("kramers_grok.cli").app).commands  # type: ignore[attr-defined]
    known = {spelling for command in commands.values() for parameter in command.params for spelling in parameter.opts}
    assert set(re.findall(r"`(--[\w-]+)`", TEXT["docs/main_job.md"])) <= known


@pytest.mark.parametrize("name", [found.name for found in pkgutil.walk_packages(kg.__path__, "kramers_grok.")])
def test_every_module_says_what_it_is(name: str) -> None:
    """The table of modules in the documentation is made of these first lines."""
    first = (importlib.import_module(name).__doc__ or "").strip().split("\n")[0]
    assert len(first) > 10
