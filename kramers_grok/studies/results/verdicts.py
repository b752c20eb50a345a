"""What a study says, in words with the statistics behind them.

All tests of a study together raise a false alarm in at most `FALSE_ALARM` of studies in which everything is right: each
is made at that level divided by their number.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from kramers_grok.studies.results.grid import FINISHED, MISSING
from kramers_grok.studies.results.points import ROUGH, Points, Rows, column, columns, rough
from kramers_grok.studies.results.questions import ENGINES, Finding, questions

__all__ = ["FALSE_ALARM", "Finding", "Verdicts", "judge"]

FALSE_ALARM = 0.01
"""Largest probability that a study in which everything is right is called wrong somewhere."""
NOTABLE = 0.01
"""Share of censored replicas above which a cell is named."""
FEW = 100
"""Escapes below which a cell is named."""
MOST_NOTES = 6

_NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")


@dataclass(frozen=True)
class Verdicts:
    """What a study says.

    Attributes
    ----------
    headline : str
        The answer; for a study that is not finished it begins with that.
    complete : bool
        Whether every cell is done.
    findings : tuple of Finding
    warnings : tuple of str
        Cells without an answer, censoring, precision not reached, limits of the theory.
    tests : str
        How many tests were made and how often they raise a false alarm.
    shared : str
        What the engines have in common, so that their agreement is read rightly.
    """

    headline: str
    complete: bool
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]
    tests: str
    shared: str

    def text(self) -> str:
        """Return everything as Markdown."""
        lines = [self.headline, ""]
        lines += [f"- **{finding.topic}: {finding.verdict}.** {finding.text}" for finding in self.findings]
        lines += [f"- *Warning*: {warning}" for warning in self.warnings]
        return "\n".join([*lines, "", self.tests, self.shared]).strip() + "\n"


def judge(tree: xr.DataTree) -> Verdicts:
    """Say what an exported escape study found.

    Parameters
    ----------
    tree : DataTree
        From `kramers_grok.studies.results.export.gather`; a study that is half done is judged by what there is.

    Returns
    -------
    Verdicts

    Examples
    --------
    >>> rows = {"engine": ("row", ["sgd"]), "mean_exit_time": ("row", [102.0]), "standard_error": ("row", [2.0]),
    ...         "predicted_mean": ("row", [100.0]), "status": ("row", ["finished"])}
    >>> tree = xr.DataTree.from_dict({"/comparison": xr.Dataset(rows)})
    >>> judge(tree).findings[0].verdict
    'agree'
    """
    table = tree["comparison"].to_dataset()
    rows = columns(table)
    points = Points.of(rows)
    asked = questions(points) if points.n else []
    n_tests = sum(question.tests for question in asked)
    level = FALSE_ALARM / max(n_tests, 1)
    findings = tuple(question.answer(level) for question in asked)
    done, n = _progress(tree, table)
    return Verdicts(
        headline=_headline(findings, table, done, n),
        complete=done == n,
        findings=findings,
        warnings=tuple(_warnings(tree, rows, exact=points.n > 0 and bool(points.exact.all()))),
        tests=_tests(n_tests, level, splitting=math.isfinite(points.degrees)),
        shared=_shared(table),
    )


# ------------------------------------------------------------------ what else must be said


def _warnings(tree: xr.DataTree, rows: Rows, *, exact: bool) -> Iterator[str]:
    """Say which cells have no answer, what was censored, what missed its precision, where the theory ends."""
    yield from _without_answer(tree)
    yield from _censored(rows)
    yield from _imprecise(rows)
    n_rough = int(rough(rows).sum())
    if n_rough:
        yield (
            f"Splitting knows the mean to worse than ±{_percent(ROUGH)} in {n_rough} of {rough(rows).size} "
            "simulations: few repeats carry it, and its interval is too short. These points are shown and not tested; "
            "they need more replicas."
        )
    if "theory" in tree.children and "valid" in tree["theory"]:
        valid = np.ravel(tree["theory"].to_dataset()["valid"])
        outside, known = int((valid == 0).sum()), int(np.isfinite(valid).sum())
        if outside:
            instead = "; the predictions that simulations are held against do not use it" if exact else ""
            yield f"The asymptotic formula is outside its range in {outside} of {known} cells of the theory{instead}."
    yield from _notes(tree)
    if "left_out" in tree.attrs:
        yield f"The export leaves out {tree.attrs['left_out']}."


def _without_answer(tree: xr.DataTree) -> Iterator[str]:
    """Cells by what became of them, with the reasons that they give."""
    status, why = _texts(tree, "status"), _texts(tree, "status_message")
    for name, count in Counter(status).items():
        if name not in (FINISHED, ""):
            reasons = _alike([reason for s, reason in zip(status, why, strict=True) if s == name and reason])
            shown = "; ".join(
                _short(kind[0]) + (" and others like it" if len(set(kind)) > 1 else "") for kind in reasons[:3]
            )
            yield f"{count} of {len(status)} cells: {name}{f' ({shown})' if shown else ''}."


def _censored(rows: Rows) -> Iterator[str]:
    escaped, replicas = column(rows, "n_escaped"), column(rows, "n_replicas")
    brute = np.isfinite(escaped) & (replicas > 0)
    n = int(brute.sum())
    if not n:
        return
    share = 1 - escaped[brute] / replicas[brute]
    if share.max() > NOTABLE:
        yield (
            f"Censored: up to {_percent(float(share.max()))} of a cell's replicas had not left at its horizon (more "
            f"than {_percent(NOTABLE)} in {int((share > NOTABLE).sum())} of {n} cells). Means count their time at risk "
            "and assume exponential escape beyond the horizon."
        )
    few = escaped[brute] < FEW
    if few.any():
        yield f"Fewer than {FEW} escapes in {int(few.sum())} of {n} cells, {int(escaped[brute].min())} at least."


def _imprecise(rows: Rows) -> Iterator[str]:
    wanted, reached = column(rows, "run_precision"), column(rows, "precision_reached")
    known = rows["status"] == FINISHED if "status" in rows else np.isfinite(reached)
    asked = np.isfinite(wanted) & np.isfinite(reached) & known
    missed = asked & (reached == 0)
    if missed.any():
        widest = column(rows, "precision")[missed]
        finite = widest[np.isfinite(widest)]
        yield (
            f"Precision not reached in {int(missed.sum())} of {int(asked.sum())} cells"
            f"{f'; the widest interval is ±{_percent(float(finite.max()))} of its mean' if finite.size else ''}."
        )


def _notes(tree: xr.DataTree) -> Iterator[str]:
    """Notes of the cells."""
    notes = _texts(tree, "notes")
    kinds = _alike([note for own in notes for note in dict.fromkeys(own.split("; ")) if note])
    for alike in kinds[:MOST_NOTES]:
        others = " and others like it" if len(set(alike)) > 1 else ""
        text = _short(alike[0])
        yield f"{text[:1].upper()}{text[1:]} ({len(alike)} of {len(notes)} cells{others})."
    if len(kinds) > MOST_NOTES:
        yield f"{len(kinds) - MOST_NOTES} further kinds of notes are in the export's variable `notes`."


def _alike(texts: Sequence[str]) -> list[list[str]]:
    """Texts that differ in their numbers only, together; the most frequent first."""
    kinds: dict[str, list[str]] = {}
    for text in texts:
        kinds.setdefault(_NUMBER.sub("#", text), []).append(text)
    return sorted(kinds.values(), key=len, reverse=True)


def _tests(n: int, level: float, *, splitting: bool) -> str:
    """How many tests, and how often they are wrong."""
    if not n:
        return ""
    several = (
        f"The {n} tests are made at a level of {level:.2g} each: together they"
        if n > 1
        else "The test is made so that it"
    )
    verb = "raise" if n > 1 else "raises"
    text = f"{several} {verb} a false alarm in at most {_percent(FALSE_ALARM)} of studies in which everything is right"
    return f"{text}{' (3 % where repeats of splitting scatter by 80 % or more)' if splitting else ''}."


def _shared(table: xr.Dataset) -> str:
    """What the engines share."""
    engines = set(table["engine"].values.astype(str)) if "engine" in table else set()
    if not engines:
        return ""
    torchsde = "torchsde" in set(table["integrator"].values.astype(str)) if "integrator" in table else False
    step = " (Langevin's steps are torchsde's where that is its integrator)" if torchsde else " and the compiled step"
    text = "What they share: theory has only the landscape in common with the simulations."
    if engines >= {"langevin", "sgd"}:
        text += (
            " Langevin and SGD are not independent as programs: they have the noise generator, the code that watches "
            f"for escapes{step} in common. SGD draws minibatches, which Langevin does not; their random numbers differ."
        )
    return text


def _headline(findings: Sequence[Finding], table: xr.Dataset, done: int, n: int) -> str:
    """The answer first; before it, that the study is not finished."""
    start = "" if done == n else f"Not finished: {done} of {n} cells are done. "
    main = [f for f in findings if f.engine]
    if not main:
        if not table.sizes.get("row", 0) and n:
            return f"{start}Theory only, nothing was to be simulated: {done} of {n} predictions."
        return (
            f"{start}There is nothing to say yet: no simulation has both a mean escape time that is known well enough "
            "and a prediction."
        )
    tested = [f for f in main if f.verdict != "described"]
    sentences = [_tested(tested)] if tested else []
    described = [f for f in main if f.verdict == "described"]
    if described:
        points = sum(f.statistics["n"] for f in described)
        where = f"At {points:.0f} of {sum(f.statistics['n'] for f in main):.0f} points theory" if tested else "Theory"
        sentences.append(f"{where} is known to leading order only and not tested: measured over predicted is "
                         f"{_factors(described)}.")  # fmt: skip
    sentences += [f"{f.topic}: not as predicted." for f in findings if not f.engine and f.verdict == "disagree"]
    return f"{start}{'So far: ' if start else ''}{' '.join(sentences)}"


# Followed by one name or more, each after the last word
_WORDS = {
    "disagree": "theory disagrees with",
    "agree": "theory agrees with",
    "too little to say": "there is too little to say about",
}


def _tested(findings: Sequence[Finding]) -> str:
    """Who agrees with theory and who does not, by how much, and what would have been seen."""
    clauses = []
    for verdict, words in _WORDS.items():
        names = [ENGINES[f.engine] for f in findings if f.verdict == verdict]
        if names:
            clauses.append(f"{words} {f' and {words.split()[-1]} '.join(names)}")
    sentence = ", but ".join(clauses) if len(clauses) == 2 else "; ".join(clauses)
    seen = max(f.statistics["detectable"] for f in findings)
    return (
        f"{sentence[0].upper()}{sentence[1:]}. Measured over predicted mean escape time: {_factors(findings)}; a "
        f"common deviation of {_percent(seen)} would have been seen."
    )


def _factors(findings: Sequence[Finding]) -> str:
    """Measured over predicted of each engine, with intervals."""
    return ", ".join(f"{ENGINES[f.engine]} {_factor(f)}" for f in findings)


def _factor(finding: Finding) -> str:
    """Measured over predicted, with its interval."""
    number = finding.statistics
    interval = f" [{number['lower']:.3f}, {number['upper']:.3f}]" if "lower" in number else ""
    return f"{number['factor']:.3f}{interval}"


# ------------------------------------------------------------------ small things


def _progress(tree: xr.DataTree, table: xr.Dataset) -> tuple[int, int]:
    """Cells done, and all."""
    if {"n_cells", "n_done"} <= set(tree.attrs):
        return int(tree.attrs["n_done"]), int(tree.attrs["n_cells"])
    status = _texts(tree, "status") or table["status"].values.astype(str).tolist()
    return sum(s != MISSING for s in status), len(status)


def _texts(tree: xr.DataTree, name: str) -> list[str]:
    """A text of every cell, over all engines; empty where a cell has none."""
    found: list[str] = []
    for engine in ("theory", *ENGINES):
        if engine in tree.children and "status" in tree[engine]:
            data = tree[engine].to_dataset()
            known = name in data
            found += np.ravel(data[name]).astype(str).tolist() if known else [""] * data["status"].size
    return found


def _percent(value: float) -> str:
    return f"{100 * value:.2g} %"


def _short(text: str, most: int = 200) -> str:
    """A text that is not longer than a sentence or two, without a full stop of its own."""
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
