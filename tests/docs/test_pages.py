"""Names, modules, commands and files that the pages of `docs/` speak of exist. `make docs` builds the pages."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import typer.main

import kramers_grok as kg
from kramers_grok.studies.reproduction import ARMS

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
# By path: two of them are called README.md.
TEXT = {
    str(page.relative_to(ROOT)): page.read_text(encoding="utf-8")
    for page in [*PAGES, ROOT / "README.md", ROOT / "benchmarks/README.md"]
}
CODE = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)

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


@each_page
def test_make_targets_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for command in re.findall(r"`make ([^`]+)`", TEXT[page]):
        words = [word for word in re.sub(r'"[^"]*"', "", command).split() if "=" not in word]
        assert set(words) <= targets, command


def test_every_page_can_be_reached() -> None:
    toctree = re.search(r"```\{toctree\}\n(.*?)```", TEXT["docs/index.md"], re.S)
    assert toctree
    assert {Path(page).stem for page in TEXT if page.startswith("docs/")} <= {*toctree[1].split(), "index"}


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
