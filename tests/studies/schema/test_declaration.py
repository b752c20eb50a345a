"""Declarations: what is accepted, what is refused and how, and that refusing touches nothing."""

from __future__ import annotations

import contextlib
import copy
import datetime
import math
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from kramers_grok.cli import app
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.studies.schema.declaration import parse, read_toml
from kramers_grok.studies.schema.fields import FIELDS, SECTIONS, Field
from kramers_grok.studies.schema.ranges import write_out
from kramers_grok.studies.schema.rules import LARGEST, Choice, Integer, Number, Rule, Text, WrongValue, shown
from kramers_grok.studies.schema.text import markdown_table, template

BASE: dict[str, Any] = {
    "title": "t",
    "engines": ["theory", "langevin", "sgd"],
    "seed": [0, 1],
    "system": {"kind": ["chain", "network"], "depth": 3, "width": 4,
               "weight_decay": {"start": 0.2, "stop": 0.3, "num": 3}},
    "noise": {"std": 0.5},
    "langevin": {"dt": 0.1},
    "sgd": {"lr": [0.05, 0.1], "batch_size": [8, 16]},
    "run": {"precision": 0.05, "max_replicas": 4096},
}  # fmt: skip


def base(**sections: Any) -> dict[str, Any]:
    """A small valid declaration with some of its keys replaced."""
    small: dict[str, Any] = {
        "engines": ["theory"],
        "system": {"weight_decay": 0.25},
        "noise": {"barrier_over_temperature": 5.0},
    }
    return small | sections


@contextlib.contextmanager
def nothing_written(directory: Path) -> Iterator[None]:
    """Work in an empty directory and find it empty afterwards."""
    with contextlib.chdir(directory):
        yield
    assert list(directory.iterdir()) == []


# ---------------------------------------------------------------- malformed


def nested(depth: int) -> Any:
    value: Any = 1.0
    for _ in range(depth):
        value = [value]
    return value


DEEP = nested(50_000)  # built once: it takes a while
NEVER: list[Any] = [
    None, b"bytes", 1j, object(), {1, 2}, [], [[]], [[0.1]], DEEP, {"a": {"b": {}}},
    datetime.date(2026, 1, 1), [None], [True], "", "\x00", "\x1b[31m", "\ud800", [math.nan], [math.inf], {},
]  # fmt: skip
NO_NUMBERS: list[Any] = [
    True, False, "0.1", "NaN", math.nan, math.inf, -math.inf, np.float64("nan"), np.array([]), np.bool_(True), 10**400,
    -(10**5000), [0.1, "0.2"], [0.1, 0.1], [1, 1.0], [0.1, 1e-1], ["a", "a"],
    {"start": 0.1}, {"start": 0.1, "stop": 0.2}, {"start": 0.1, "stop": 0.2, "num": 0},
    {"start": 0.1, "stop": 0.2, "num": 1}, {"start": 0.1, "stop": 0.2, "num": 2.5},
    {"start": 0.1, "stop": 0.2, "num": 10**9}, {"start": 0.1, "stop": 0.2, "num": True},
    {"start": 0.1, "stop": 0.2, "step": 0}, {"start": 0.1, "stop": 0.2, "step": -0.1},
    {"start": 0.1, "stop": 0.2, "step": 1e-30}, {"start": 0.1, "stop": 0.2, "step": 1},
    {"start": 0.1, "stop": 0.1, "num": 2},
    {"start": 0.1, "stop": 0.2, "num": 2, "step": 0.1}, {"start": 0.1, "stop": math.inf, "num": 2},
    {"start": "0.1", "stop": 0.2, "num": 2}, {"start": 0.1, "stop": 0.2, "num": 2, "spacing": "log"},
    {"start": 0.0, "stop": 0.2, "num": 2, "spacing": "geometric"}, {"start": 0.1, "stop": 0.2, "numb": 2},
    {"start": -1e308, "stop": 1e308, "num": 5}, {"start": [0.1], "stop": 0.2, "num": 2}, {1: 2},
    {"start": 0.1, "stop": 0.2, "step": 0.1, "spacing": "linear"},
]  # fmt: skip


def wrong_values(field: Field) -> list[Any]:
    """Values that a key must not have."""
    rule: Rule = field.rule
    if isinstance(rule, Text):
        return [None, 3, True, ["t"], {}, "\x00", "a\x07b", "\ud800", "x" * 10_001, b"t"]
    if isinstance(rule, Choice):
        words = [*NEVER, 3, 0.5, True, "Fused", "fuse", " sgd", [rule.words[0], rule.words[0]], [rule.words[0], "no"]]
        return [*words, {"start": "a", "stop": "b", "num": 2}, *([rule.words[0]] if field.key == "engines" else [])]
    values = [*NEVER, *NO_NUMBERS]
    if isinstance(rule, Integer):
        values += [1.5, [2, 3.5], {"start": 4, "stop": 5, "num": 4}, 1e300, -1, [4, -1], 2**80]
    if isinstance(rule, Number):
        values += [1e31, 1e-31, [0.5, 1e300], {"start": 1e-40, "stop": 1, "num": 3}]
        values += [-1.0, [0.5, -0.5], {"start": -1, "stop": 1, "num": 3}]
        values += [0, 0.0, -0.0] if rule.strict else []
        values += [1, 1.0, 2] if rule.upper == 1 else []
    return values


WRONG = {field.key: st.sampled_from(wrong_values(field)) for field in FIELDS.values()}


@st.composite
def malformed(draw: st.DrawFn) -> tuple[Any, str]:
    """A declaration with one thing wrong, and what its message must name."""
    declaration = copy.deepcopy(BASE)
    if draw(st.booleans()):
        declaration["noise"] = {draw(st.sampled_from(["temperature", "barrier_over_temperature"])): 0.001}
    if draw(st.booleans()):
        declaration["run"] = {"replicas": draw(st.integers(2, 10**6))}
    how = draw(st.sampled_from(("value", "value", "value", "key", "top", "section", "missing", "pair")))
    if how == "value":
        field = draw(st.sampled_from(list(FIELDS.values())))
        place = declaration.setdefault(field.section, {}) if field.section else declaration
        place[field.name] = draw(WRONG[field.key])
        return declaration, field.key
    if how in ("key", "top"):
        section = draw(st.sampled_from(SECTIONS)) if how == "key" else ""
        known = {field.name for field in FIELDS.values()} | set(SECTIONS)
        name = draw(st.one_of(st.text(max_size=12), st.sampled_from(sorted(known)).map(lambda k: k[:-1])))
        name += "_" if name in known else ""
        (declaration[section] if section else declaration)[name] = draw(st.sampled_from([1, "x", {}, [], DEEP]))
        dotted = f"{section}.{name}" if section else name
        return declaration, f"`{shown(dotted)[1:-1]}`"
    if how == "section":
        section = draw(st.sampled_from(SECTIONS))
        declaration[section] = draw(st.sampled_from([None, 3, "x", [], [{}], True, math.nan, DEEP]))
        return declaration, f"`{section}`"
    if how == "missing":
        section, name = draw(
            st.sampled_from([("system", "weight_decay"), ("sgd", "lr"), ("sgd", "batch_size"), ("system", "width")])
        )
        del declaration[section][name]
        return declaration, f"`{section}.{name}`"
    change, key = draw(st.sampled_from(PAIRS))
    change(declaration)
    return declaration, key


def _put(section: str, values: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    def change(declaration: dict[str, Any]) -> None:
        declaration[section] = values

    return change


PAIRS: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (_put("noise", {}), "`noise`"),
    (_put("noise", {"std": 0.5, "temperature": 0.1}), "`noise`"),
    (_put("noise", {"std": 0.0}), "`noise.std`"),
    (_put("run", {"replicas": 10, "precision": 0.1}), "`run.precision`"),
    (_put("run", {"max_replicas": 10}), "`run.max_replicas`"),
    (_put("system", {"weight_decay": 0.1, "width": 3}), "`system.width`"),
    (_put("sgd", {"lr": {"start": 0.1, "stop": 1, "num": 300}, "batch_size": list(range(1, 301))}), "`sgd.lr`"),
]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty")


@settings(max_examples=1200)
@given(malformed())
def test_malformed_declarations_name_the_key_and_touch_nothing(empty: Path, case: tuple[Any, str]) -> None:
    declaration, key = case
    with nothing_written(empty), pytest.raises(InvalidParameterError) as caught:
        parse(declaration)
    message = str(caught.value)
    assert key in message
    assert len(message) < 20_000
    assert message.isprintable() or set(message) - set("\n") <= {c for c in message if c.isprintable()}


def test_the_generator_of_malformed_declarations_starts_from_valid_ones() -> None:
    # Else every test above would pass for the wrong reason.
    assert len(parse(BASE).get("system.weight_decay")) == 3
    for noise in ("temperature", "barrier_over_temperature"):
        for run in ({"replicas": 2}, BASE["run"]):
            parse(BASE | {"noise": {noise: 0.001}, "run": run})


@pytest.mark.parametrize("declaration", [None, 3, "text", [], [("engines", ["sgd"])], object()])
def test_what_is_no_mapping(declaration: Any) -> None:
    with pytest.raises(InvalidParameterError, match="expected a mapping of keys and sections"):
        parse(declaration)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InvalidParameterError) as caught:
        parse(base(system={"weight_decay": -1, "depht": 3}, seed=True))
    assert str(caught.value).startswith("3 things are wrong.\n")
    assert all(key in str(caught.value) for key in ("`system.weight_decay`", "`system.depht`", "`seed`"))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"sgd": {"lr": True, "batch_size": 8}}, r"`sgd.lr` = True, expected a number > 0, a list of them or a range "
         r"\{start, stop, num\}: true and false are no numbers\.\n  Write e\.g\. `lr = 0\.1` under \[sgd\]"),
        ({"sgd": {"lrr": 0.1}}, r"`sgd.lrr` is no key of a study; did you mean `sgd\.lr`\? The keys of \[sgd\] are "
         "lr, batch_size, label_noise"),
        ({"sgd.lr": 0.1}, r"`sgd\.lr` is no key of a study: write `lr` under \[sgd\]\."),
        ({"lr": 0.1}, r"`lr` is no key of a study; did you mean `sgd\.lr`\?"),
        ({"sytem": {}}, r"`sytem` is no key of a study; did you mean `system`\?"),
        ({"langevin": {"batch_size": 8}}, r"did you mean `sgd\.batch_size`\?"),
        ({"sgd": {"batch_size": [8, 8.0]}}, "it has 8 twice"),
        ({"langevin": {"dt": [0.1, "0.2"]}}, "'0.2' is not a number > 0 .text in quotes is no number."),
        ({"run": {"method": "fast"}}, "expected one of 'auto', 'brute force', 'splitting', or a list of them"),
        ({"engines": "sgd"}, r"expected a list of 'theory', 'langevin', 'sgd'"),
        ({"engines": ["sgd"]}, r"`sgd\.lr` is missing"),
        ({"kind": "reproduce"}, "`kind` = 'reproduce', expected 'escape'"),
        ({"seed": 2**64}, "`seed` = 18446744073709551616, expected an integer from 0 to 18,446,744,073,709,551,615"),
        ({"system": {"weight_decay": {"start": 0.1, "stop": 0.2}}}, "a range needs either `num` or `step`"),
        ({"system": {"weight_decay": 0.1, "depth": {"start": 3, "stop": 5, "num": 4}}}, "3.66666666667 is not an int"),
    ],
)  # fmt: skip
def test_messages(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        parse(base(**sections))


def test_thousands_of_problems_are_not_all_told() -> None:
    with pytest.raises(InvalidParameterError) as caught:
        parse(base() | {f"key{i}": i for i in range(30_000)})
    lines = str(caught.value).splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("30,000 things are wrong.", "- …", 22)


def test_a_range_of_python_s_that_is_longer_than_memory() -> None:
    with pytest.raises(InvalidParameterError, match=r"`seed` = .* at most 1,000,000 are allowed"):
        parse(base(seed=range(10**15)))


def test_too_many_cells_are_refused_before_they_are_made() -> None:
    many = {"start": 0.001, "stop": 0.4, "num": 5000}
    with pytest.raises(InvalidParameterError, match=r"up to 25,000,000 cells, at most 1,000,000 are allowed"):
        parse(base(system={"weight_decay": many}, noise={"temperature": many}))
    with pytest.raises(InvalidParameterError, match="its `num` is"):
        parse(base(noise={"temperature": {"start": 0.1, "stop": 1, "num": LARGEST + 1}}))


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"engines = [\n'sgd'\n", r"study\.toml' is not valid TOML: .*end of document"),
        (b"title = 'a'\nseed = zero\n", r"is not valid TOML: .*line 2, column 8"),
        (b"title = 'a'\ntitle = 'b'\n", r"is not valid TOML: .*line 2"),
        (b"title = 'a'\nquestion = '\xff'\n", r"study\.toml', line 2: not UTF-8 \(byte 0xff\)"),
        (b"seed = " + b"9" * 5000, "is not valid TOML: Exceeds the limit"),
        (b"seed = " + b"[" * 100_000, "nested too deeply"),
        (b"a" + b".a" * 2_000 + b" = 1", "`a` is no key of a study"),
        (b"\x00", "is not valid TOML"),
        (b"", "3 things|`system.weight_decay` is missing"),
        (b"#" * 1_000_001, "larger than 1,000,000 bytes"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "study.toml"
    file.write_bytes(content)
    with pytest.raises(InvalidParameterError, match=message):
        parse(read_toml(file))
    assert [path.name for path in tmp_path.iterdir()] == ["study.toml"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing", "does not exist"), (".", "is a directory"), ("\x00", "no such file|does not exist|cannot be read")],
)
def test_paths_that_are_no_file(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        read_toml(tmp_path / name)


def test_a_pipe_is_not_waited_for() -> None:
    with pytest.raises(InvalidParameterError, match="is no plain file"):
        read_toml("/dev/null")


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_bytes(b"\xef\xbb\xbf" + template().replace("\n", "\r\n").encode())
    assert parse(read_toml(file)) == parse(tomllib.loads(template()))


@settings(max_examples=300)
@given(st.data())
def test_damaged_files_are_clean_errors_or_declarations(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    text = bytearray(template().encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 30))] = data.draw(st.one_of(st.binary(max_size=4), _TOKENS))
    file = tmp_path_factory.getbasetemp() / "damaged.toml"
    file.write_bytes(bytes(text))
    with contextlib.suppress(InvalidParameterError):
        parse(read_toml(file))


_TOKENS = st.sampled_from([b"=", b"[", b"]", b'"', b"nan", b"-", b"{", b"}", b"'", b"\n", b"#", b"1e400", b".", b","])


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    "content",
    [b"\xff", b"seed = ", b"seed = -1", b"[sgd]\nlr = nan", b"[run]\nreplicas = []", b"kind = 3", b"kind = 'x'"],
)
def test_the_command_line_refuses_them_and_makes_no_directory(
    tmp_path: Path, content: bytes, options: tuple[str, ...]
) -> None:
    file = tmp_path / "study.toml"
    file.write_bytes(content)
    done = CliRunner().invoke(app, ["study", "run", str(file), "--out", str(tmp_path / "out"), *options])
    assert done.exit_code == 2, done.output
    assert [path.name for path in tmp_path.iterdir()] == ["study.toml"]


# ---------------------------------------------------------------- valid ones


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"start": 0.1, "stop": 0.5, "step": 0.1}, [0.1, 0.2, 0.3, 0.4, 0.5]),
        ({"start": 0.1, "stop": 0.55, "step": 0.1}, [0.1, 0.2, 0.3, 0.4, 0.5]),
        ({"start": 0.5, "stop": 0.1, "step": -0.2}, [0.5, 0.3, 0.1]),
        ({"start": 1e-4, "stop": 1, "num": 5, "spacing": "geometric"}, [1e-4, 1e-3, 1e-2, 1e-1, 1.0]),
        ({"start": 1, "stop": 2, "num": 3, "spacing": "linear"}, [1.0, 1.5, 2.0]),
        ({"start": 2, "stop": 1, "num": 2}, [2.0, 1.0]),
        ({"start": 0, "stop": 1, "step": 1}, [0.0, 1.0]),
    ],
)
def test_ranges(given: dict[str, Any], values: list[float]) -> None:
    assert write_out(given) == values


@given(st.floats(1e-6, 1e6), st.integers(2, 50), st.integers(1, 9), st.integers(-4, 2))
def test_ranges_by_step_and_number_are_rounded(start: float, num: int, digit: int, power: int) -> None:
    start, step = float(f"{start:.3g}"), float(f"{digit}e{power}")
    stop = float(f"{start + step * (num - 1):.12g}")
    found = write_out({"start": start, "stop": stop, "step": step})
    assert len(found) in (num - 1, num)  # where step is below the last digits of start, stop may not be met
    np.testing.assert_allclose(found, start + step * np.arange(len(found)), rtol=1e-11)
    evenly = write_out({"start": start, "stop": stop, "num": num})
    assert (evenly[0], evenly[-1], len(evenly)) == (start, stop, num)


def test_a_range_needs_known_keys() -> None:
    with pytest.raises(WrongValue, match="a range has no 'length'"):
        write_out({"start": 1, "stop": 2, "length": 3})


def test_numpy_values_and_python_ranges_are_welcome() -> None:
    plain = parse(base(system={"weight_decay": [0.1, 0.2], "depth": [3, 4]}, seed=[0, 1, 2]))
    numpy = parse(base(system={"weight_decay": np.array([0.1, 0.2]), "depth": (np.int64(3), 4.0)}, seed=range(3)))
    assert plain == numpy
    assert {type(v) for v in numpy.get("system.weight_decay")} == {float}
    assert {type(v) for v in numpy.get("system.depth")} == {int}


def test_defaults_and_the_round_trip() -> None:
    declaration = parse(base())
    mapping = declaration.as_mapping()
    assert mapping["run"] == {"method": "auto", "replicas": 1024, "horizon": 10.0, "confidence": 0.95, "device": "cpu"}
    assert mapping["langevin"] == {"dt": 0.1, "integrator": "fused"}
    assert mapping["engines"] == ["theory"]
    assert parse(mapping) == declaration
    precise = parse(base(run={"precision": [0.1]})).as_mapping()["run"]
    assert precise["precision"] == [0.1]
    assert precise["max_replicas"] == 65536
    assert "replicas" not in precise


def test_negative_zero_is_zero() -> None:
    text = base(engines=["sgd"], noise={"std": [-0.0, 0.5]}, sgd={"lr": 0.1, "batch_size": 8, "label_noise": -0.0})
    declaration = parse(text)
    assert [math.copysign(1, float(v)) for v in declaration.get("sgd.label_noise") + declaration.get("noise.std")] == [
        1
    ] * 3


# ---------------------------------------------------------------- template and table


def test_the_template_is_a_declaration_with_every_key() -> None:
    assert parse(tomllib.loads(template())).engines == ("theory", "langevin", "sgd")
    # With every key that is commented out standing alone, too
    for field in FIELDS.values():
        assert f"\n{field.name} = " in template() or f"\n# {field.name} = " in template()
    assert max(map(len, template().splitlines())) <= 120


def test_the_template_names_its_files() -> None:
    assert "study run my.toml --out my" in template("my.toml", "my")


def test_the_table_has_every_key_with_its_meaning() -> None:
    table = markdown_table()
    for field in FIELDS.values():
        assert f"| `{field.key}` |" in table
        assert field.meaning in table
    assert {line.count("|") for line in table.splitlines()} == {6}


def test_every_default_and_example_obeys_its_rule() -> None:
    for field in FIELDS.values():
        for value in (field.default, field.example):
            for one in value if isinstance(value, list | tuple) else [value] * (value is not None):
                assert field.rule.clean(one) == one
