"""What the README shows works as it stands there."""

import doctest
import re
import shlex
from pathlib import Path

import pytest
import typer.main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.M | re.S)


def blocks(*languages: str) -> list[tuple[int, str]]:
    """Fenced blocks with the line of the README at which their text starts."""
    return [
        (README.count("\n", 0, match.start("body")), match["body"])
        for match in FENCE.finditer(README)
        if match["language"] in languages
    ]


def test_library_use() -> None:
    shown = blocks("python", "pycon")
    assert shown, "the README shows no library use"
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    namespace: dict[str, object] = {}
    failures: list[str] = []
    for line, source in shown:
        test = doctest.DocTestParser().get_doctest(source, namespace, "README", str(ROOT / "README.md"), line)
        assert test.examples, f"README.md, line {line + 1}: a block of Python without a prompt is not checked"
        runner = doctest.DocTestRunner(optionflags=flags, verbose=False)
        runner.run(test, out=failures.append, clear_globs=False)
        namespace = test.globs
    assert not failures, "\n".join(failures)


def shown_commands(program: str) -> list[list[str]]:
    lines = [line for _, body in blocks("bash", "sh", "console") for line in body.splitlines()]
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [line for line in words if line and line[0] == program]


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, re.M))
    shown = shown_commands("make")
    assert shown, "the README shows no make command"
    for _, *arguments in shown:
        named = [word for word in arguments if "=" not in word]
        assert named
        assert set(named) <= targets


def test_shown_options_exist() -> None:
    commands = typer.main.get_command(_app()).commands  # type: ignore[attr-defined]
    for _, name, *arguments in shown_commands("kramers-grok"):
        command = commands[name]
        if hasattr(command, "commands"):
            command = command.commands[arguments[0]]
        known = {spelling for parameter in command.params for spelling in parameter.opts}
        assert {word.split("=")[0] for word in arguments if word.startswith("--")} <= known | {"--help"}


def _app() -> typer.Typer:
    from kramers_grok.cli import app

    return app


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:|#)([^)#]+)", README))
def test_local_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_the_first_screen() -> None:
    """The question in one sentence, one figure, the table of laws, two commands, ten lines, and what is not shown."""
    screen, mark, _ = README.partition("<!-- end of the first screen -->")
    assert mark
    question = re.search(r"^\*\*(.*)\*\*$", screen, re.M)
    assert question
    assert question[1].endswith("?")
    assert not re.search(r"[.?!] ", question[1])
    assert len(re.findall(r"^!\[", screen, re.M)) == 1
    assert re.search(r"^\| optimizer \| noise \| sampler \|", screen, re.M)
    commands, code = (FENCE.findall(screen)[k] for k in (0, 1))
    assert commands == ("bash", "make QUICK=1 reproduce\nmake test\n")
    assert code[0] == "python"
    assert len([line for line in code[1].splitlines() if line.startswith((">>>", "..."))]) <= 10
    assert len(FENCE.findall(screen)) == 2
    order = ["![", "| optimizer", "```bash", "```python", "## What this does not show"]
    assert [screen.index(part) for part in order] == sorted(screen.index(part) for part in order)
