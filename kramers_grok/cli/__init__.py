"""Command line: ``kramers-grok study``, ``reproduce``, ``escape``, ``warm-up`` and ``selftest``."""

from __future__ import annotations

import typer

from kramers_grok.cli.escape import escape_time
from kramers_grok.cli.machine import selftest, warm_up
from kramers_grok.cli.reproduce import reproduce
from kramers_grok.cli.study import study

__all__ = ["app"]

app = typer.Typer(
    help="When does noise free a trapped network, and how long does it take?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(study, name="study")
app.command()(reproduce)
app.command("escape")(escape_time)
app.command()(warm_up)
app.command()(selftest)
