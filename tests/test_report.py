"""The page of a study: the answer first, nothing from outside, readable on a phone, harmless whatever files say."""

from __future__ import annotations

import html.parser
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from kramers_grok import report
from kramers_grok.core.exceptions import StudyConflictError
from kramers_grok.core.schema import canonical_json
from kramers_grok.report import escape_figures, pictures, text
from kramers_grok.studies.escape.study import EscapeStudy
from kramers_grok.studies.files.store import Store
from kramers_grok.studies.results import export

Made = tuple[EscapeStudy, dict[str, xr.Dataset]]
Make = Callable[..., Made]

VISIBLE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'>{{ 7*7 }}{% raw %} $\\frac$ "
EVIL = VISIBLE + "\x00\x07\u202eabc"


def written(made: Made, out: Path, without: Callable[[Any], bool] = lambda cell: False) -> str:
    """The page of a study of which all cells are done but some."""
    study, results = made
    Store(out, study.declaration(), name=study.kind)
    tree = export.gather(
        study.cells(),
        lambda cell: None if without(cell) else results[canonical_json(cell.config)],
        declaration=study.declaration(),
    )
    path = report.write_page(out, tree=tree)
    assert path == out / "report.html"
    return path.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Finished:
    """A finished study whose title is hostile and has no place to break a line, and its page."""

    out: Path
    study: EscapeStudy
    results: dict[str, xr.Dataset]
    page: str


@pytest.fixture(scope="module")
def finished(made: Make, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    study, results = made(title=VISIBLE + "a_word_that_does_not_end_" * 6, question="Do they agree?")
    out = tmp_path_factory.mktemp("report") / "my study"
    return Finished(out, study, results, written((study, results), out))


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of a page's time goes into its figures."""
    monkeypatch.setattr(escape_figures, "figures", lambda tree: iter(()))


class Seen(html.parser.HTMLParser):
    """Elements, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


TAGS = {
    "html", "head", "meta", "link", "title", "style", "body", "main", "header", "section", "p", "h1", "h2", "h3", "h4",
    "dl", "div", "dt", "dd", "a", "span", "ul", "ol", "li", "figure", "img", "figcaption", "table", "caption", "thead",
    "tbody", "tr", "th", "td", "pre", "code", "details", "summary", "strong", "em", "hr",
}  # fmt: skip


def check_harmless(page: str) -> Seen:
    """No script, no handler, nothing loaded from anywhere."""
    seen = Seen(page)
    assert {tag for tag, _ in seen.elements} <= TAGS
    for tag, attrs in seen.elements:
        assert not [name for name in attrs if name.startswith("on") or name in ("srcset", "action", "background")]
        for name in ("src", "href"):
            assert re.match(r"#[a-z_]*$|data:", attrs.get(name) or "#"), (tag, attrs)
    assert any(attrs.get("content", "").startswith("default-src 'none';") for tag, attrs in seen.elements if attrs)
    return seen


# ---------------------------------------------------------------- a study of escapes


def test_the_answer_comes_first(finished: Finished) -> None:
    seen = check_harmless(finished.page)
    at = seen.texts.index("Study of escape times")
    assert seen.texts[at + 1].startswith(VISIBLE.strip())
    assert seen.texts[at + 2 : at + 4] == ["Do they agree?", "Answer"]
    assert seen.texts[at + 4].startswith("Theory agrees with Langevin dynamics and with SGD.")
    order = [finished.page.index(f'id="{name}"') for name in ("answer", "figures", "comparison", "again", "provenance")]
    assert order == sorted(order)
    images = [attrs for tag, attrs in seen.elements if tag == "img"]
    assert len(images) == 4
    assert all(attrs["alt"] and (attrs["src"] or "").startswith("data:image/") for attrs in images)


def test_the_answer_follows_the_data(made: Make, tmp_path: Path, no_figures: None) -> None:
    wrong = Seen(written(made({"sgd": 1.5}), tmp_path))
    assert "Theory disagrees with SGD, but theory agrees with Langevin dynamics." in wrong.text


def test_a_half_finished_study_has_a_page_that_says_so_first(made: Make, tmp_path: Path, no_figures: None) -> None:
    page = written(made(), tmp_path, without=lambda c: c.name == "sgd" and c.config["sgd"]["lr"] == 0.1)
    seen = check_harmless(page)
    assert seen.texts[seen.texts.index("Answer") + 1].startswith("Not finished: 9 of 12 cells are done. So far: Theory")
    assert "3 of 12 cells: not run." in seen.text
    assert 'class="answer incomplete"' in page


def test_a_study_that_has_not_begun_has_a_page(made: Make, tmp_path: Path) -> None:
    nothing = check_harmless(written(made(), tmp_path, without=lambda c: True))
    assert "There is nothing to say yet" in nothing.text
    assert not [tag for tag, _ in nothing.elements if tag == "img"]


def test_the_table_has_every_simulation(finished: Finished) -> None:
    body = finished.page.split("<tbody>")[1].split("</tbody>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", body, re.S)]
    head = re.findall(r'<th scope="col">(.*?)</th>', finished.page)
    assert len(rows) == 9
    assert head[:2] == ["engine", "η"]
    assert "integrator" not in head  # the same wherever it is set
    cell = finished.study.cells()[-1]
    own = finished.results[canonical_json(cell.config)]
    row = dict(zip(head, rows[-1], strict=True))
    assert row["η"] == f"{cell.config['sgd']['lr']:g}"
    assert row["mean time [95 %]"].startswith(f"{float(own.mean_exit_time):.4g} [")
    assert row["escaped"] == f"{int(own.n_escaped)} of 256"


def test_everything_needed_to_do_it_again_is_there(finished: Finished) -> None:
    seen = Seen(finished.page)
    declared = next(t for t in seen.texts if "[system]" in t)
    assert EscapeStudy.from_declaration(tomllib.loads(declared)) == finished.study
    assert "kramers-grok study run study.toml --out 'my study'" in seen.texts
    for fact in ("a host", "12 of 12 done", "18.0 s", "escape, hash "):
        assert fact in seen.text


def test_the_same_study_gives_the_same_page(finished: Finished, tmp_path: Path) -> None:
    """To the byte, from the cells' files as from a tree in memory."""
    out = tmp_path / "my study"
    store = Store(out, finished.study.declaration(), name="escape")
    for cell in finished.study.cells():
        store.write(cell.name, cell.config, finished.results[canonical_json(cell.config)])
    assert report.write_page(out).read_text(encoding="utf-8") == finished.page


def test_an_export_alone_has_a_page(made: Make, tmp_path: Path, no_figures: None) -> None:
    study, results = made()
    store = Store(tmp_path, study.declaration(), name="escape")
    tree = export.gather(study.cells(), lambda c: results[canonical_json(c.config)], declaration=study.declaration())
    export.write(tree, tmp_path / "study.nc")
    page = report.write_page(store.directory).read_text(encoding="utf-8")
    assert "Theory agrees with" in page
    assert "SHA-256 of study.nc" in page


def test_a_directory_without_a_study_has_no_page(tmp_path: Path) -> None:
    with pytest.raises(StudyConflictError, match="holds no study"):
        report.write_page(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_figure_that_cannot_be_drawn_is_a_warning(
    made: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib.pyplot as plt

    from kramers_grok.report import escape_figures

    def broken(*args: Any) -> Any:
        plt.figure()
        raise ValueError("<b>no</b>")

    monkeypatch.setattr(escape_figures, "figures", lambda tree: iter([(broken, "broken", "a <i>figure</i>")]))
    seen = check_harmless(written(made(), tmp_path))
    assert "The figure “a <i>figure</i>” could not be drawn (ValueError: <b>no</b>)." in seen.text
    assert "img" not in {tag for tag, _ in seen.elements}
    assert not plt.get_fignums()


def test_a_study_of_another_kind_has_a_plain_page(tmp_path: Path) -> None:
    Store(tmp_path, {"title": "<i>Squares</i>", "sides": [1, 2]}, name="squares")
    tree = xr.DataTree(xr.Dataset({"area": ("side", [1, 4])}))
    seen = check_harmless(report.write_page(tmp_path, tree=tree).read_text(encoding="utf-8"))
    assert "<i>Squares</i>" in seen.texts
    assert "Study of the kind “squares”" in seen.texts
    assert "there are no verdicts for its kind" in seen.text


def test_a_figure_that_was_saved_after_its_data_is_used_again(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    data, saved = tmp_path / "arm.nc", tmp_path / "arm.svg"
    figure, ax = plt.subplots(figsize=(9.0, 3.0))
    ax.plot([0, 1])
    assert pictures.drawn(saved, data, alt="", caption="") is None
    data.touch()
    figure.savefig(saved)
    found = pictures.drawn(saved, data, alt="a line", caption="")
    assert found is not None
    assert (found.width, found.height, found.wide) == (864, 288, True)
    assert pictures.picture(figure, alt="", caption="").width == 864
    os.utime(data, (2e9, 2e9))  # newer data
    assert pictures.drawn(saved, data, alt="", caption="") is None


# ---------------------------------------------------------------- files that may come from anywhere


@pytest.mark.parametrize("key", ["title", "question"])
def test_a_title_is_text_whatever_it_says(made: Make, tmp_path: Path, key: str, no_figures: None) -> None:
    study, results = made()
    tree = export.gather(
        study.cells(), lambda c: results[canonical_json(c.config)], declaration=study.declaration() | {key: EVIL}
    )
    Store(tmp_path, study.declaration(), name="escape")
    page = report.write_page(tmp_path, tree=tree).read_text(encoding="utf-8")
    seen = check_harmless(page)
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in seen.text
    assert "{{ 7*7 }}{% raw %}" in seen.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", page)
    assert tomllib.loads(next(t for t in seen.texts if "[system]" in t))[key] == EVIL


def test_texts_of_cells_are_text(made: Make, tmp_path: Path) -> None:
    study, results = made()
    cell = study.cells()[-1]
    attrs = {"status": "diverged", "status_message": EVIL, "notes": EVIL, "method": EVIL, "host": EVIL}
    results[canonical_json(cell.config)] = xr.Dataset({"mean_exit_time": float("nan")}, attrs=attrs)
    other = study.cells()[-2]
    changed = results[canonical_json(other.config)].assign_attrs(status=EVIL, prediction=EVIL, started="<i>", seconds=1)
    results[canonical_json(other.config)] = changed
    tree = export.gather(study.cells(), lambda c: results[canonical_json(c.config)], declaration=study.declaration())
    Store(tmp_path, study.declaration(), name="escape")
    check_harmless(report.write_page(tmp_path, tree=tree).read_text(encoding="utf-8"))


def test_a_very_long_title_is_cut_and_a_link_is_no_link(made: Make, tmp_path: Path, no_figures: None) -> None:
    made_up = made(title="javascript:alert(1) " + "long" * 2000, question="[here](javascript:alert(1))")
    seen = check_harmless(written(made_up, tmp_path))
    title = next(t for t in seen.texts if t.startswith("javascript:"))
    assert len(title) < 500
    assert "more characters" in title
    assert "[here](javascript:alert(1))" in seen.text


def test_markdown_of_summaries_has_no_html_of_its_own() -> None:
    shown = str(text.markdown(f"## {EVIL}\n\n| a | b |\n|---|---|\n| {EVIL} | ![x](http://e.x/y.png) |\n\n<b>x</b>\n"
                              "[l](javascript:alert(1)) <http://e.x> &lt;"))  # fmt: skip
    seen = Seen(shown)
    assert {tag for tag, _ in seen.elements} <= {"h3", "p", "div", "table", "thead", "tbody", "tr", "th", "td"}
    assert "![x](http://e.x/y.png)" in seen.text
    assert "<b>x</b>" in seen.text


@given(
    st.dictionaries(
        st.text(min_size=1),
        st.one_of(
            st.text(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False),
            st.lists(st.floats(allow_nan=False)),
            st.dictionaries(st.text(min_size=1), st.one_of(st.text(), st.lists(st.text()))),
        ),
    )
)  # fmt: skip
def test_declarations_survive_toml(declaration: dict[str, Any]) -> None:
    shown = text.toml(declaration)
    assert tomllib.loads(shown) == declaration
    assert tomllib.loads(text.clean(shown)) == declaration  # nothing is lost on the page


def test_what_is_not_seen_is_marked() -> None:
    assert text.clean("a\x00\x1b[31m\u202eb\ud800\nc\td") == "a\ufffd\ufffd[31m\ufffdb\ufffd\nc\td"
    assert text.clean("η = 0.05 ± 2 %") == "η = 0.05 ± 2 %"


def test_templates_are_part_of_the_package() -> None:
    names = {path.name for path in (resources.files("kramers_grok.report") / "templates").iterdir()}
    assert {"page.html.j2", "page.css.j2"} <= names


# ---------------------------------------------------------------- in a browser


_LAYOUT = """({
  broken: [...document.images].filter(image => !image.complete || image.naturalWidth === 0).length,
  images: document.images.length,
  wide: document.documentElement.scrollWidth - innerWidth,
  outside: [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, pre, head")
    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + ": " + e.textContent.slice(0, 60)),
  small: Math.min(...[...document.querySelectorAll("p, dd, td")].map(e => parseFloat(getComputedStyle(e).fontSize))),
  ground: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
})"""


def _check_layout(browser: Any, path: Path, images: int) -> None:
    for width in (1280, 390):
        for dark in (False, True):
            browser.open(path, width=width, dark=dark)
            found = browser.evaluate(_LAYOUT)
            assert browser.complaints() == []
            assert (found["images"], found["broken"]) == (images, 0)
            assert found["wide"] <= 0
            assert found["outside"] == []
            assert found["small"] >= 12
            light = [sum(map(int, re.findall(r"\d+", found[name])[:3])) for name in ("ground", "ink")]
            assert (light[0] < light[1]) == dark
            assert abs(light[0] - light[1]) > 450  # of 765: dark on light, or light on dark


def test_the_page_in_a_browser(finished: Finished, browser: Any) -> None:
    _check_layout(browser, finished.out / "report.html", 4)


def test_a_printed_page_is_not_cut(finished: Finished, browser: Any) -> None:
    browser.open(finished.out / "report.html", width=794, media="print")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 794
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_nothing_of_a_foreign_file_runs(finished: Finished, tmp_path: Path, browser: Any) -> None:
    browser.open(finished.out / "report.html", width=390)
    assert browser.complaints() == []
    assert browser.evaluate("document.scripts.length") == 0
    # The control: the same browser does complain about a page that loads something and whose script fails
    bad = tmp_path / "bad.html"
    bad.write_text('<img src="http://127.0.0.1:9/none.png"><script>throw new Error("seen")</script>')
    browser.open(bad, width=390)
    assert any("seen" in complaint for complaint in browser.complaints())
    assert any("127.0.0.1" in complaint for complaint in browser.complaints())
