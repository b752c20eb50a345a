"""Every command and every option says what it is for: `--help` is also the documentation's chapter."""

import typer.main
from typer.testing import CliRunner

from kramers_grok.cli import app

ROOT_COMMAND = typer.main.get_command(app)
GROUPS = {name: command for name, command in ROOT_COMMAND.commands.items() if hasattr(command, "commands")}
COMMANDS = {(name,): command for name, command in ROOT_COMMAND.commands.items()} | {
    (group, name): command for group, commands in GROUPS.items() for name, command in commands.commands.items()
}


def test_help_lists_every_command() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0, result.output
    assert {("reproduce",), ("escape",), ("study", "run"), ("study", "status")} <= set(COMMANDS)
    for name in ROOT_COMMAND.commands:
        assert name in result.output


def test_each_command_explains_itself() -> None:
    for name, command in COMMANDS.items():
        assert (command.help or "").strip(), f"`{' '.join(name)}` has no help"
        result = CliRunner().invoke(app, [*name, "--help"], env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"})
        assert result.exit_code == 0, result.output
        for parameter in command.params:
            if getattr(parameter, "hidden", False) or parameter.param_type_name == "argument":
                continue
            assert (getattr(parameter, "help", None) or "").strip(), (
                f"`{' '.join(name)} {parameter.opts[0]}` has no help"
            )
            assert parameter.opts[0] in result.output


def test_an_unknown_option_is_refused() -> None:
    result = CliRunner().invoke(app, ["escape", "--no-such-option"])
    assert result.exit_code == 2
