"""``kramers-grok reproduce``: the main job."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from kramers_grok.cli.common import Exit, exit_of, fail, say_json
from kramers_grok.cli.progress import listening
from kramers_grok.core.exceptions import KramersGrokError

__all__ = ["reproduce"]


def reproduce(
    out: Annotated[Path, typer.Option(help="Results directory; the same command resumes it.")] = Path("results"),
    quick: Annotated[bool, typer.Option("--quick", help="A minute instead of several: fewer replicas.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    workers: Annotated[int, typer.Option(help="Processes; results do not depend on it. 0: all cores.")] = 0,
    scheduler: Annotated[str | None, typer.Option(help="Dask scheduler, its address or file, instead.")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="Only this arm (may be given several times).")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but what went wrong.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line, for scripts.")] = False,
) -> None:
    """Run the main job: the figures of the paper for linear networks, predicted and measured, and what goes beyond."""
    began = time.perf_counter()
    try:
        with listening(quiet=quiet, as_json=as_json) as listener:
            from kramers_grok import report
            from kramers_grok.studies import reproduction
            from kramers_grok.studies.running.executors import make_executor

            settings = reproduction.Settings.make(seed=seed, quick=quick)
            with make_executor(workers=workers, scheduler=scheduler) as executor:
                reproduction.reproduce(
                    out, settings=settings, arms=arm, device=device, executor=executor, listener=listener
                )
                text = report.write(out, executor)
            page = report.write_page(out)
    except KramersGrokError as error:
        raise fail(error, exit_of(error), as_json=as_json) from None
    if as_json:
        say_json({"event": "report", "page": str(page), "summary": str(out / "summary.md")})
    elif not quiet:
        console = Console()
        console.print(Markdown(text))
        done = f"{time.perf_counter() - began:.0f} s; data, figures, summary.md and report.html are in {out}/"
        console.print(done, highlight=False, markup=False)
    raise typer.Exit(Exit.DONE)
