"""Results in the pages of `docs/` come out of executed cells: none is typed by hand.

A number in a sentence is fine where it is a *setting* written as such, ``λ = 0.25``, or declared in a comment of the
page, ``% chosen: 15 % -- what counts as a low train error``. All others have to be pasted from a cell,
``{glue:text}`name```, which reads committed results or computes.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HAND_MADE = [page for page in (ROOT / "docs").rglob("*.md") if not {"_build", "_generated", "theory"} & set(page.parts)]
TEXT = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in sorted(HAND_MADE)}
EVIDENCE = [name for name, text in TEXT.items() if "../evidence/" in text or "make evidence NAME=" in text]

# What is quoted rather than said: code, addresses, pasted results, comments, equations of their own.
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.S)
CODE = re.compile(
    r"^(`{3,})(?:python|\{code-cell\}[^\n]*|bash|console|toml|\{toctree\}|\{math\})\n.*?^\1[ ]*$", re.M | re.S
)
EQUATION = re.compile(r"\$\$.*?\$\$", re.S)
ROLE_OR_CODE = re.compile(r"(?:\{[\w:]+\})?(`+)(?!`).*?(?<!`)\1(?!`)", re.S)
ADDRESS = re.compile(r"\]\([^)]*\)|https?://\S+")
COMMENT = re.compile(r"^%.*$|<!--.*?-->", re.M)

NUMBER = r"[-+−]?(?:\d{1,3}(?:[, \u202f]\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?"
FEW = "two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|twenty|thirty|fifty|a hundred|a thousand"
COUNT = rf"(?:{NUMBER}|\b(?:{FEW}))"
THAN = r"(?:as|too|sooner|faster|slower|longer|shorter|larger|smaller|higher|lower|more|less|fewer)\b"
RESULT = {
    "±": rf"(?:±|\\pm)\s*{NUMBER}",
    "share": rf"{COUNT}\s*(?:\\?%|per cent\b|percent\b)",
    "power of ten": rf"(?:{NUMBER}\s*(?:·|\\cdot|×|\\times)\s*)?\b10(?:[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+|\^\{{?-?\d+\}}?)",
    "exponent": r"\b\d+(?:\.\d+)?e[-+]?\d+",
    "decimal": r"[-+−]?\d+\.\d+",
    "large": r"\b(?:\d{1,3}(?:[, \u202f]\d{3})+|\d{4,})\b",
    "count": rf"{COUNT} (?:of|out of) (?:the |all )?{COUNT}",
    "factor": rf"(?:factors? (?:of )?(?:about |some |nearly )?{COUNT}|{NUMBER} times\b|{COUNT} times {THAN})",
    "statistic": rf"(?:\bz|χ²|\\chi\^2|R²|R\^2)\s*(?:[=<>≈]|of|was|is)\s*{NUMBER}",
}
FOUND = re.compile("|".join(f"(?P<g{k}>{pattern})" for k, pattern in enumerate(RESULT.values())))

# Settings of an experiment; measured quantities (times, p-values, ratios, slopes) are not among them.
SYMBOL = (
    r"(?:\\(?:lambda|sigma|eta|beta|gamma|mu|varepsilon|epsilon|delta)|[λσηβγμεδ]|Δ[FU]|\\Delta [FU]"
    r"|[ABDKNTLdhknoqsa]|dt|g\^2|s_h)"
    r"(?:_(?:\w|\{\w+\})|[₀-₉])?"
)
SETTING = re.compile(
    rf"(?<![\w\\]){SYMBOL}(?:\s*/\s*{SYMBOL})?\s*\$?\s*(?:=|\\in)\s*\$?\s*\(?{NUMBER}"
    rf"(?:\$?(?:,| and| or| to|, and|\s*/)\s*\$?{NUMBER})*"
)
CHOSEN = re.compile(r"^% chosen: (.+?) -- \S.*$", re.M)
YEAR = re.compile(r"\b(?:1[89]|20)\d\d\b")


def blank(found: re.Match[str]) -> str:
    """Take a match out without moving lines: underscores, so that what stands around it is not read as one."""
    return re.sub(r"[^\n]", "_", found[0])


def prose(text: str) -> str:
    """Return what a page says in its own words, each line where it was."""
    for pattern in (FRONT_MATTER, CODE, COMMENT, EQUATION):
        text = pattern.sub(blank, text)
    return ADDRESS.sub(blank, ROLE_OR_CODE.sub(blank, text))


def typed_results(text: str) -> list[str]:
    """Numbers in a page's prose that look like results, without those that the page declares as chosen."""
    chosen = set(CHOSEN.findall(text))
    said = SETTING.sub(blank, prose(text))
    found = []
    for hit in FOUND.finditer(said):
        words = " ".join(hit[0].split())
        if words not in chosen and words != "95 %" and not YEAR.fullmatch(words):
            line = said.count("\n", 0, hit.start()) + 1
            found.append(f"line {line}: {words}")
    return found


each_page = pytest.mark.parametrize("page", TEXT)


@each_page
def test_no_result_is_typed_by_hand(page: str) -> None:
    found = typed_results(TEXT[page])
    assert not found, (
        f"{page} has numbers in its prose that come from nowhere: {'; '.join(found)}.\n"
        "Results are pasted: `glue('name', value, display=False)` in a cell, {glue:text}`name` in the sentence. A "
        "number that was chosen, not found, is declared: `% chosen: 15 % -- what counts as low`."
    )


@each_page
def test_what_is_declared_as_chosen_is_on_the_page(page: str) -> None:
    """A declaration that nothing needs would let a result in later."""
    undeclared = [found.split(": ", 1)[1] for found in typed_results(CHOSEN.sub("", TEXT[page]))]
    assert set(CHOSEN.findall(TEXT[page])) <= set(undeclared)


def test_pages_on_evidence_are_found() -> None:
    assert len(EVIDENCE) > 15
    assert "docs/hysteresis.md" in EVIDENCE


# ---------------------------------------------------------------- negative controls

TYPED = (
    "splitting over exact is 0.983 ± 0.019",
    "agree in 36 of the 40 points",
    "off by up to 7 %",
    "it is right to ten per cent",
    "too short by a factor of ten",
    "reached 25 times sooner",
    "a brute force run would take $10^{11}$ steps",
    "departs (p = 5·10⁻⁴)",
    "with $\\chi^2 = 9$ for all",
    "a mean time of 14 948",
    "0 of 192 replicas return",
    "with an $R^2$ of 0.99",
    "| chain | 20 | 8.6 |",
    "between −0.06 and 0.02",
)


@pytest.mark.parametrize("sentence", TYPED)
def test_typed_results_are_found(sentence: str) -> None:
    assert typed_results(f"# A page\n\nWords before, {sentence}, and words behind.\n")


@pytest.mark.parametrize("page", [page for page in EVIDENCE if "{glue:text}" in TEXT[page]])
def test_a_pasted_number_that_is_typed_instead_is_found(page: str) -> None:
    """The same pages with every pasted number typed in its place."""
    text, places = TEXT[page], len(re.findall(r"\{glue:text\}`[^`]*`", TEXT[page]))
    for k in range(places):
        pasted = list(re.finditer(r"\{glue:text\}`[^`]*`", text))[k]
        typed = text[: pasted.start()] + "1.234 ± 0.056" + text[pasted.end() :]
        assert len(typed_results(typed)) > 0, pasted[0]


SAID = (
    "at $\\lambda = 0.25$ and σ = 1.3, 1 and 0.8",
    "`lr=0.05` in the code",
    "see [there](page_0.5.html)",
    "its 95 % interval",
    "$$x = 0.5\\,y$$",
    "{glue:text}`ratio` ± {glue:text}`error`",
    "found in 1940 by Kramers",
    "% chosen: 15 % -- what counts as low\n\nbelow 15 % of the first",
)


@pytest.mark.parametrize("sentence", SAID)
def test_settings_and_pasted_results_are_no_results(sentence: str) -> None:
    assert not typed_results(f"# A page\n\n{sentence}\n")
