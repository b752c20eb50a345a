"""``kramers-grok warm-up`` and ``selftest``: getting a machine ready, and checking it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kramers_grok.cli.common import Exit, fail
from kramers_grok.core.exceptions import KramersGrokError

__all__ = ["selftest", "warm_up"]


def warm_up() -> None:
    """Compile the usual kernels now (half a minute), so that the first run does not wait; they stay on disk."""
    from kramers_grok.dynamics import warm_up as kernels

    console = Console()
    with console.status("compiling") as status:
        kernels.warm_up(lambda name: status.update(f"compiling: {name}"))


def selftest(
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    compile: Annotated[bool, typer.Option("--compile", help="Check torch.compile too (half a minute).")] = False,
) -> None:
    """Check that a device gives what the CPU's compiled code gives; exit code 1 if it does not, or is not there."""
    from kramers_grok.studies.selftest import find_device
    from kramers_grok.studies.selftest import selftest as checked

    console = Console()
    try:
        name = str(find_device(device))
        with console.status("testing") as status:
            outcomes = checked(name, compile=compile, progress=lambda check: status.update(escape(check)))
    except KramersGrokError as error:
        raise fail(error, Exit.FAILED) from None
    table = Table(title=f"Self-test of {name}", title_justify="left")
    for column in ("check", "", "found", "s"):
        table.add_column(column)
    for outcome in outcomes:
        mark = "[green]passed[/]" if outcome.passed else "[bold red]FAILED[/]"
        table.add_row(escape(outcome.name), mark, escape(outcome.detail), f"{outcome.seconds:.1f}")
    console.print(table)
    failed = [outcome.name for outcome in outcomes if not outcome.passed]
    console.print(
        f"{len(failed)} of {len(outcomes)} checks failed" if failed else f"all {len(outcomes)} checks passed",
        highlight=False,
    )
    if failed:
        raise typer.Exit(Exit.FAILED)
