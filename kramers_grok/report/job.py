"""The page of the main job: each arm's answer first, then its figure and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from kramers_grok.core.exceptions import KramersGrokError
from kramers_grok.report.arms import ARMS
from kramers_grok.report.page import Finding, Page, Part
from kramers_grok.report.pictures import draw, drawn
from kramers_grok.report.provenance import provenance
from kramers_grok.report.text import markdown, shortened
from kramers_grok.report.words import LEVEL, Answer
from kramers_grok.studies.files.store import Manifest, Store, read_netcdf
from kramers_grok.studies.running.study import study_from

__all__ = ["KIND", "arm_trees", "command", "page"]

KIND = "reproduce"
_SHARED = (
    "The arms are not independent of each other: simulations share the noise generator, the code that watches for "
    "escapes and the compiled steps, and theories share their landscapes. What an arm's engines have in common is said "
    "with its numbers."
)
_TESTS = f"A comparison in which everything is right is called wrong with a probability of {100 * LEVEL:g} % or less."


def page(directory: Path, manifest: Manifest, *, command: str, tree: xr.DataTree | None = None) -> Page:
    """Return the page of a results directory, with the arms that are finished.

    Parameters
    ----------
    directory : path
        Of the main job.
    manifest : Manifest
        Of the directory.
    command : str
        What makes the job again.
    tree : DataTree, optional
        The arms, as the study gathers them; read from the directory if not given.
    """
    problems: list[str] = []
    trees = arm_trees(directory, manifest, problems) if tree is None else _nodes(tree)
    asked = _asked(manifest.study)
    missing = [name for name in asked if name not in trees]
    answers: dict[str, Answer] = {}
    parts = []
    for name, arm_tree in trees.items():
        part, answer = _part(directory, name, arm_tree, problems)
        parts.append(part)
        if answer is not None:
            answers[name] = answer
    if missing:
        problems.insert(0, f"Arms without results: {', '.join(map(_title, missing))}.")
    return Page(
        kind="The main job" + (", quick form" if manifest.study.get("quick") is True else ""),
        title="Linear networks: predicted and measured",
        question="Do trapped networks leave when Kramers' theory says, in Langevin dynamics and in SGD?",
        headline=_headline(answers, missing, len(asked)),
        complete=not missing,
        findings=[Finding(_title(name), each.verdict, each.text, anchor=name) for name, each in answers.items()],
        notes=[_TESTS, _SHARED],
        warnings=[shortened(problem, 600) for problem in problems],
        parts=parts,
        configuration=[(key.replace("_", " "), shortened(_plain(value))) for key, value in manifest.study.items()],
        command=command,
        provenance=provenance(directory, manifest, list(trees.values())),
    )


def arm_trees(directory: Path, manifest: Manifest, problems: list[str]) -> dict[str, xr.DataTree]:
    """Return the arms of a results directory: from their files, or gathered from cells where files are missing."""
    trees = {}
    asked = _asked(manifest.study)
    for name in asked:
        path = directory / f"{name}.nc"
        if not path.is_file():
            continue
        try:
            data = read_netcdf(path)
        except KramersGrokError as error:
            problems.append(f"{_title(name)}: {str(error).splitlines()[0]}")
            continue
        trees[name] = data if isinstance(data, xr.DataTree) else xr.DataTree(data, name=name)
    if set(trees) >= set(asked):
        return trees
    store = Store.opened(directory)
    gathered = _nodes(study_from(KIND, manifest.study).gather(store)) if store.finished() else {}
    both = trees | gathered
    return {name: both[name] for name in asked if name in both}


def _nodes(tree: xr.DataTree) -> dict[str, xr.DataTree]:
    """The arms of a gathered job, in the order of the page."""
    return {name: tree.children[name] for name in ARMS if name in tree.children}


def _asked(study: Mapping[str, Any]) -> list[str]:
    """The arms that the job consists of: all, or those that were chosen."""
    chosen = study.get("arms")
    return [name for name in ARMS if name in chosen] if isinstance(chosen, list) and chosen else list(ARMS)


def command(manifest: Manifest, where: str) -> str:
    """Return the command that makes the main job again."""
    study = manifest.study
    parts = ["kramers-grok reproduce", "--out", where]
    if study.get("quick") is True:
        parts.append("--quick")
    if isinstance(study.get("seed"), int):
        parts.append(f"--seed {study['seed']}")
    if study.get("arms"):
        parts += [f"--arm {name}" for name in _asked(study)]
    return " ".join(parts)


def _part(directory: Path, name: str, tree: xr.DataTree, problems: list[str]) -> tuple[Part, Answer | None]:
    """An arm's part of the page; what its data do not hold is left out and told."""
    arm, answer, details = ARMS[name], None, ""
    try:
        answer = arm.answer(tree)
        details = arm.summary(tree)
    except Exception as error:  # data of another version, or foreign
        problems.append(f"{_title(name)}: its data are not what this version writes ({type(error).__name__}: {error}).")
    words = {"alt": f"Figure: {_title(name)}. Its numbers are below.", "caption": _title(name)}
    figure = drawn(directory / f"{name}.svg", directory / f"{name}.nc", **words)
    if figure is None:
        figure = draw(lambda: arm.figure(tree), problems=problems, **words)
    shown = answer.text if answer is not None else "There is no answer: see the warnings."
    return Part(_title(name), name, shown, markdown(_without_heading(details)), figure), answer


def _without_heading(summary: str) -> str:
    """A summary with its first heading, which the page has already, as a line of text."""
    first, _, rest = summary.lstrip().partition("\n")
    return f"**{first.lstrip('# ')}**\n{rest}" if first.startswith("#") else summary


def _headline(answers: Mapping[str, Answer], missing: list[str], n: int) -> str:
    """How many of the arms' predictions hold, and which do not."""
    start = f"Not finished: {n - len(missing)} of {n} arms have results. " if missing else ""
    held = [name for name, each in answers.items() if each.holds]
    failed = [name for name, each in answers.items() if each.holds is False]
    tested = len(held) + len(failed)
    if not tested:
        return start + "There is nothing to say yet: no arm has both a prediction and a measurement."
    what = "what was predicted was measured" if start else "What was predicted was measured"
    text = f"{start}{'So far, ' if start else ''}{what} in {len(held)} of {tested} arms"
    text += f", but not in: {', '.join(map(_title, failed))}." if failed else "."
    described = len(answers) - tested
    if described:
        text += f" {described} more describe{'s' * (described == 1)} without a test."
    return text


def _title(name: str) -> str:
    return _TITLES.get(name, name.replace("_", " "))


_TITLES = {
    "arrhenius": "Arrhenius law",
    "wide": "Wide layers",
    "forgetting": "Forgetting by minibatch noise",
    "minibatch": "The trap under minibatch noise alone",
    "optimizers": "Optimizers in the collapsed state",
    "real_feature": "A real feature",
    "phases": "Phases of the digits",
    "grokking": "Grokking curves",
    "hysteresis": "Hysteresis and staircase",
    "states": "Number of metastable states",
    "subsampling": "Small samples",
    "ramp": "Ramps of the weight decay",
    "control": "Schedules that learn faster",
}


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"({_plain(v)})" if isinstance(v, list) else _plain(v) for v in value)
    return f"{value:.10g}" if isinstance(value, float) else str(value)
