"""What a release carries: one version everywhere, a valid CITATION.cff, a changelog, and files for the archive."""

import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

import kramers_grok as kg

ROOT = Path(__file__).parents[2]
CITATION: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
CHANGES = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HEADING = re.compile(
    r"^## (?P<version>\d+\.\d+\.\d+) (?:\((?P<unreleased>unreleased)\)|– (?P<date>\d{4}-\d\d-\d\d))$", re.M
)


def test_one_version_everywhere() -> None:
    newest = HEADING.search(CHANGES)
    assert newest
    assert {newest["version"], CITATION["version"]} == {kg.__version__}  # `make wheel` compares the wheel's


def test_the_changelog_is_in_order() -> None:
    titles = re.findall(r"^## .*$", CHANGES, re.M)
    found = list(HEADING.finditer(CHANGES))
    assert [match[0] for match in found] == titles, "a title is `## 1.2.3 (unreleased)` or `## 1.2.3 – 2026-01-31`"
    versions = [tuple(map(int, match["version"].split("."))) for match in found]
    assert versions == sorted(set(versions), reverse=True)
    assert not any(match["unreleased"] for match in found[1:])
    days = [date.fromisoformat(match["date"]) for match in found if match["date"]]
    assert days == sorted(days, reverse=True)
    assert all(re.search(r"^- ", part, re.M) for part in HEADING.split(CHANGES)[4::4]), "a version without an entry"


def problems(citation: dict[str, Any]) -> list[str]:
    """What version 1.2.0 of the citation file format asks for, as far as this file uses it."""
    wrong = [f"{key} is missing" for key in ("cff-version", "message", "title", "authors") if not citation.get(key)]
    known = {
        "cff-version", "message", "type", "title", "abstract", "authors", "version", "date-released", "license",
        "keywords", "references", "url", "repository-code", "identifiers", "doi",
    }  # fmt: skip
    wrong += [f"{key} is no key" for key in set(citation) - known]
    if citation.get("cff-version") != "1.2.0":
        wrong.append("cff-version is not 1.2.0")
    if citation.get("type", "software") not in ("software", "dataset"):
        wrong.append("type")
    for person in [*citation.get("authors", ()), *(a for r in citation.get("references", ()) for a in r["authors"])]:
        if not ({"name"} <= set(person) <= {"name", "website"} or {"family-names", "given-names"} <= set(person)):
            wrong.append(f"author {person}")
    wrong += [f"reference {r}" for r in citation.get("references", ()) if not {"type", "title", "authors"} <= set(r)]
    if not all(isinstance(word, str) for word in citation.get("keywords", ())):
        wrong.append("keywords")
    return wrong


def test_the_citation_is_valid() -> None:
    assert not problems(CITATION)
    assert CITATION["title"] == kg.__name__
    assert CITATION["license"] == PROJECT["project"]["license"]
    released = HEADING.search(CHANGES)
    assert released
    assert str(CITATION.get("date-released") or "") == (released["date"] or "")


@pytest.mark.parametrize(
    ("key", "value"),
    [("authors", []), ("cff-version", "1.1.0"), ("authors", [{"nickname": "K"}]), ("titel", "x"), ("keywords", [1])],
)
def test_a_citation_that_is_not_valid_is_refused(key: str, value: Any) -> None:
    assert problems({**CITATION, key: value})


def test_the_archive_has_what_tests_and_documents_need() -> None:
    carried = {path.strip("/") for path in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]}
    needed = {"kramers_grok", "theory", "tests", "docs", "examples", "benchmarks", "evidence", "conftest.py",
              "constraints.txt", "Makefile", "CHANGELOG.md", "CITATION.cff"}  # fmt: skip
    assert carried == needed
    assert all((ROOT / name).exists() for name in carried)


def test_every_extra_that_make_installs_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    asked = {extra for line in re.findall(r"^EXTRAS-\w+ := (.*)$", makefile, re.M) for extra in line.split(",")}
    assert asked <= set(PROJECT["project"]["optional-dependencies"])


def test_dependencies_are_pinned() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in pins.splitlines() if "==" in line}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *(r for name in extras if name != "zarr" for r in extras[name])]
    names = {re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-") for requirement in wanted}  # type: ignore[index]
    assert names <= pinned, names - pinned
