"""Every command and every option says what it is for: `--help` is also the documentation's chapter."""

import typer.main
from typer.testing import CliRunner

from kramers_grok.cli import app

ROOT_COMMAND = typer.main.get_command(app)
COMMANDS = dict(getattr(ROOT_COMMAND, "commands", {}))


def test_help_lists_every_command() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0, result.output
    assert {"reproduce", "escape"} <= set(COMMANDS)
    for name in COMMANDS:
        assert name in result.output


def test_each_command_explains_itself() -> None:
    for name, command in COMMANDS.items():
        assert (command.help or "").strip(), f"`{name}` has no help"
        result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"})
        assert result.exit_code == 0, result.output
        for parameter in command.params:
            if getattr(parameter, "hidden", False) or parameter.param_type_name == "argument":
                continue
            assert (getattr(parameter, "help", None) or "").strip(), f"`{name} {parameter.opts[0]}` has no help"
            assert parameter.opts[0] in result.output


def test_an_unknown_option_is_refused() -> None:
    result = CliRunner().invoke(app, ["escape", "--no-such-option"])
    assert result.exit_code == 2
