"""``kramers-grok study``: studies declared in a file, from the first cell to the page."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console

from kramers_grok.cli import dry_run as planned
from kramers_grok.cli.common import Exit, exit_of, fail, say_json
from kramers_grok.cli.progress import listening
from kramers_grok.cli.study_text import result_lines, status_lines
from kramers_grok.core.exceptions import InvalidParameterError, KramersGrokError

if TYPE_CHECKING:
    from kramers_grok.studies.files.store import Store
    from kramers_grok.studies.reproduction.study import Reproduction
    from kramers_grok.studies.running.runner import RunResult
    from kramers_grok.studies.running.study import Study

__all__ = ["study"]

study = typer.Typer(help="Studies: grids of escapes, declared in a file.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="The study's declaration, in TOML.", show_default=False)]
Directory = Annotated[Path, typer.Argument(help="A study's directory.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per line, for scripts.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but what went wrong.")]


@study.command()
def new(
    to: Annotated[Path | None, typer.Option(help="Write it into this file instead of printing it.")] = None,
) -> None:
    """Print a declaration to start from: every key with its meaning."""
    from kramers_grok.studies.schema.text import template

    if to is None:
        print(template(), end="")
        return
    try:
        with to.open("x", encoding="utf-8") as file:
            file.write(template(str(to), to.stem))
    except OSError as error:
        problem = InvalidParameterError(f"{to} cannot be written ({error.strerror}).\nUse another --to.")
        raise fail(problem) from None


@study.command()
def run(
    file: File,
    out: Annotated[Path | None, typer.Option(help="Where the study lives; the same command resumes it.")] = None,
    workers: Annotated[int, typer.Option(help="Processes; results do not depend on it. 0: all cores.")] = 0,
    scheduler: Annotated[str | None, typer.Option(help="Dask scheduler instead: its address or its file.")] = None,
    checkpoint_every: Annotated[float, typer.Option(help="Seconds between two checkpoints of a long cell.")] = 60.0,
    products: Annotated[
        bool, typer.Option("--products/--no-products", help="Write study.nc and report.html at the end.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the cells, and what they will take.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a study, or what is left of it: Ctrl-C, a crash or `kill` lose the cells in flight at most."""
    from kramers_grok.studies.running.study import load

    answer, written = "", list[Path]()
    try:
        declared = load(file)
        if dry_run:
            planned.show(declared, out, workers, as_json=as_json)
            return
        if out is None:
            raise InvalidParameterError(
                f"`--out` is missing: the results need a directory.\nUse e.g. `--out {shlex.quote(file.stem)}`."
            )
        result = _run(declared, out, workers, scheduler, checkpoint_every, quiet=quiet, as_json=as_json)
        if products and not result.failed:
            command = shlex.join(["kramers-grok", "study", "run", str(file), "--out", str(out)])
            answer, written = _products(declared, out, command)
    except KramersGrokError as error:
        raise fail(error, exit_of(error), as_json=as_json) from None
    code = _exit_after(result)
    if as_json:
        say_json(
            {"event": "done", "exit_code": int(code), "answer": answer, "written": [str(path) for path in written]}
        )
    elif not quiet:
        _print([*result_lines(result), *([answer] if answer else []), *map(str, written)])
    raise typer.Exit(int(code))


def _run(
    declared: Study,
    out: Path,
    workers: int,
    scheduler: str | None,
    checkpoint_every: float,
    *,
    quiet: bool,
    as_json: bool,
) -> RunResult:
    from kramers_grok.studies.running import runner
    from kramers_grok.studies.running.executors import make_executor

    with (
        listening(quiet=quiet, as_json=as_json) as listener,
        make_executor(workers=workers, scheduler=scheduler) as executor,
    ):
        return runner.run_study(declared, out, executor=executor, listener=listener, checkpoint_every=checkpoint_every)


def _exit_after(result: RunResult) -> Exit:
    if result.failed:
        return Exit.FAILED
    return Exit.WITHOUT_ANSWER if result.n_without_answer else Exit.DONE


def _products(declared: Study, out: Path, command: str) -> tuple[str, list[Path]]:
    """Write what a finished study ends as, the data and the page; return its answer in a sentence and their paths."""
    from kramers_grok import report
    from kramers_grok.studies.files.store import Store
    from kramers_grok.studies.results import export, verdicts

    if declared.kind == "reproduce":
        from kramers_grok.studies.reproduction.job import write_arms

        arms = write_arms(cast("Reproduction", declared), out)
        report.write(out)
        written = [*(out / f"{name}.nc" for name in arms), out / "summary.md"]
        return "", [*written, report.write_page(out, command=command)]
    tree = declared.gather(Store.opened(out))
    written = [export.write(tree, out / "study.nc"), report.write_page(out, tree=tree, command=command)]
    return verdicts.judge(tree).headline, written


def _print(lines: list[str]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(line, markup=False)


@study.command()
def status(directory: Directory, as_json: Json = False) -> None:
    """Say where a study stands; its cells' files are not opened."""
    from kramers_grok.studies.running.status import status as standing

    try:
        found = standing(directory)
    except KramersGrokError as error:
        raise fail(error, exit_of(error), as_json=as_json) from None
    if as_json:
        say_json(found.as_mapping())
    else:
        _print(status_lines(found))


@study.command()
def export(
    directory: Directory,
    to: Annotated[Path | None, typer.Option(help="FILE.nc or FILE.zarr; DIRECTORY/study.nc if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Put all cells into one labelled data set; those that are not finished are missing values."""
    from kramers_grok.studies.results import export as exporting

    try:
        declared, store = _held(directory)
        path = exporting.write(declared.gather(store), to or directory / "study.nc")
        _say_written(path, declared, store, as_json=as_json)
    except KramersGrokError as error:
        raise fail(error, exit_of(error), as_json=as_json) from None


@study.command()
def report(directory: Directory, as_json: Json = False) -> None:
    """Write DIRECTORY/report.html: the answer, the figures and where they come from, on one page."""
    from kramers_grok import report as reporting

    try:
        declared, store = _held(directory)
        _say_written(reporting.write_page(directory), declared, store, as_json=as_json)
    except KramersGrokError as error:
        raise fail(error, exit_of(error), as_json=as_json) from None


def _held(directory: Path) -> tuple[Study, Store]:
    """Return the study that a directory holds."""
    from kramers_grok.studies.files.store import Store
    from kramers_grok.studies.running.study import study_from

    store = Store.opened(directory)
    return study_from(store.name, store.study), store


def _say_written(path: Path, declared: Study, store: Store, *, as_json: bool) -> None:
    """Print the path of what was written, and say what it lacks."""
    keys = {store.path(cell.name, cell.config).stem for cell in declared.cells()}
    missing = len(keys - store.finished_stems())
    if as_json:
        say_json({"event": "written", "path": str(path), "cells": len(keys), "missing": missing})
        return
    _print([str(path)])
    if missing:
        verb = "is" if missing == 1 else "are"
        lack = f"{missing} of {len(keys)} cells {verb} not finished and missing there."
        Console(stderr=True, highlight=False).print(lack)
