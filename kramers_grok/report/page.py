"""One self-contained page for a study: the answer first, then what it rests on. It loads nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2
import markupsafe

from kramers_grok.core.schema import package_version
from kramers_grok.report.pictures import Picture
from kramers_grok.report.text import clean, tied

__all__ = ["NAME", "Finding", "Page", "Part", "Table", "render"]

NAME = "report.html"


@dataclass(frozen=True)
class Finding:
    """One line of the answer; `anchor` is the part of the page that it stands for."""

    topic: str
    verdict: str
    text: str
    anchor: str = ""


@dataclass(frozen=True)
class Table:
    """Columns and rows of text; the first column names the row."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Part:
    """A part with an answer of its own: its figure, and its numbers as HTML that was made safe."""

    title: str
    anchor: str
    answer: str
    details: markupsafe.Markup
    figure: Picture | None = None
    open: bool = False


@dataclass(frozen=True)
class Page:
    """All that the template shows. Text is escaped there, wherever it comes from."""

    kind: str
    title: str
    headline: str
    complete: bool
    command: str
    question: str = ""
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    figures: Sequence[Picture] = ()
    table: Table | None = None
    parts: Sequence[Part] = ()
    configuration: Sequence[tuple[str, str]] = ()
    declaration: str = ""
    provenance: Sequence[tuple[str, str]] = ()
    version: str = field(default_factory=package_version)

    @property
    def state(self) -> str:
        """What the page's answer is, for its colour: complete, incomplete or wrong."""
        verdicts = {finding.verdict for finding in self.findings}
        if verdicts & {"disagree", "not as predicted"}:
            return "wrong"
        return "complete" if self.complete and "too little to say" not in verdicts else "incomplete"


def render(page: Page) -> str:
    """Return a page as HTML.

    Examples
    --------
    >>> html = render(Page("escape", "<script>", "They agree.", True, "kramers-grok study run study.toml"))
    >>> "<script>" in html, "&lt;script&gt;" in html
    (False, True)
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kramers_grok.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters["tied"] = tied
    return environment.get_template("page.html.j2").render(page=page)


def _shown(value: Any) -> Any:
    """Every text on the page loses what is not seen; markup made by us is left alone."""
    return clean(value) if type(value) is str else value
