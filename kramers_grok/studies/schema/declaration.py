"""Declarations of studies: a mapping or a TOML file, checked against one schema and expanded into configurations.

A declaration executes nothing: it is data, and everything that it may hold stands in
`kramers_grok.studies.schema.fields`.
"""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.studies.schema.fields import (
    DEFAULT_MAX_REPLICAS,
    DEFAULT_REPLICAS,
    ENGINES,
    FIELDS,
    NOISES,
    SECTIONS,
    Field,
)
from kramers_grok.studies.schema.ranges import write_out
from kramers_grok.studies.schema.rules import LARGEST, Value, WrongValue, plain, shown, toml_value

__all__ = ["Declaration", "axes", "parse", "read_toml"]

_LARGEST_FILE = 1_000_000  # bytes
_MOST_TOLD = 20  # problems; looking for what each of thousands of keys may mean takes long


@dataclass(frozen=True)
class Declaration:
    """A checked declaration.

    Attributes
    ----------
    values : mapping of str to tuple
        The values of every key that holds, by dotted name; one value where neither list nor range was given.
    listed : frozenset of str
        Parameters that were given as a list or a range, even of one value.

    Examples
    --------
    >>> declaration = parse({
    ...     "system": {"weight_decay": {"start": 0.2, "stop": 0.3, "num": 3}},
    ...     "noise": {"barrier_over_temperature": [4, 5]}, "engines": ["theory"],
    ... })
    >>> declaration.values["system.weight_decay"], sorted(declaration.listed)
    ((0.2, 0.25, 0.3), ['noise.barrier_over_temperature', 'system.weight_decay'])
    """

    values: Mapping[str, tuple[Value, ...]]
    listed: frozenset[str]

    @property
    def engines(self) -> tuple[str, ...]:
        """What is compared."""
        return tuple(str(engine) for engine in self.values["engines"])

    @property
    def noise(self) -> str:
        """Which of the noise's keys is given."""
        return next(name for name in NOISES if f"noise.{name}" in self.values)

    def get(self, key: str) -> tuple[Any, ...]:
        """Values of a key, empty where it does not hold."""
        return self.values.get(key, ())

    def as_mapping(self) -> dict[str, Any]:
        """Return the complete declaration, ranges written out, as JSON and `parse` know it."""
        nested: dict[str, Any] = {}
        for key, values in self.values.items():
            field = FIELDS[key]
            place = nested.setdefault(field.section, {}) if field.section else nested
            place[field.name] = list(values) if key in self.listed or key == "engines" else values[0]
        return nested


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a TOML file as a mapping, which `parse` then checks.

    Raises
    ------
    InvalidParameterError
        If there is no such file, or it is no TOML (with the line).
    """
    file = Path(path)
    name = shown(os.fspath(path))
    problem, content = "", b""
    try:
        if file.is_file():
            with file.open("rb") as stream:
                content = stream.read(_LARGEST_FILE + 1)
        else:
            problem = "is a directory" if file.is_dir() else "is no plain file" if file.exists() else "does not exist"
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    if problem:
        raise InvalidParameterError(
            f"{name} {problem}, expected a declaration in TOML.\nPrint one to start from with `kramers-grok study new`."
        )
    if len(content) > _LARGEST_FILE:
        raise InvalidParameterError(f"{name} is larger than {_LARGEST_FILE:,} bytes: that is no declaration.")
    return _toml(content, name)


def _toml(content: bytes, name: str) -> dict[str, Any]:
    """The content of a TOML file as a mapping."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidParameterError(
            f"{name}, line {line}: not UTF-8 (byte {content[error.start]:#04x}), which TOML has to be.\n"
            "Save the file as UTF-8."
        ) from None
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise InvalidParameterError(f"{name} is nested too deeply to be a declaration.") from None
    except ValueError as error:  # TOMLDecodeError, and int() of thousands of digits
        raise InvalidParameterError(
            f"{name} is not valid TOML: {error}.\nText needs quotes, lists need brackets: "
            '`title = "…"`, `lr = [0.05, 0.1]`.'
        ) from None


def parse(declaration: Mapping[str, Any], *, source: str = "") -> Declaration:
    """Check a declaration against the schema; defaults are filled in, ranges written out.

    Parameters
    ----------
    declaration : mapping
        As in a TOML file: the sections are mappings.
    source : str
        Where it comes from, for messages.

    Raises
    ------
    InvalidParameterError
        With every key that is wrong, what is allowed there, and the nearest known key where one is unknown.
    """
    problems: list[str] = []
    given = dict(_flatten(declaration, problems))
    values: dict[str, tuple[Value, ...]] = {}
    listed = set()
    for key, value in given.items():
        try:
            cleaned, many = _clean(FIELDS[key], value)
        except _Problem as problem:
            problems.append(str(problem))
        else:
            values[key] = cleaned
            if many and key != "engines":
                listed.add(key)
    problems += _missing(given, values)
    if not problems:
        values = _completed(values)
        problems += _too_many(values)
    if problems:
        raise InvalidParameterError(_report(problems, source))
    return Declaration({key: values[key] for key in FIELDS if key in values}, frozenset(listed & values.keys()))


class _Problem(Exception):
    """One thing that is wrong."""


def _report(problems: list[str], source: str) -> str:
    """All problems as one message."""
    head = f"{source}: " if source else ""
    if len(problems) == 1:
        return head + problems[0]
    lines = [f"{head}{len(problems):,} things are wrong.", *(f"- {problem}" for problem in problems[:_MOST_TOLD])]
    return "\n".join([*lines, "- …"] if len(problems) > _MOST_TOLD else lines)


# ---------------------------------------------------------------- keys


def _flatten(declaration: Any, problems: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield the known keys by dotted name; report unknown ones and sections that are none."""
    if not isinstance(declaration, Mapping):
        problems.append(f"the declaration is {shown(declaration)}, expected a mapping of keys and sections.")
        return
    for key, value in declaration.items():
        if key in SECTIONS and isinstance(value, Mapping):
            for name, inner in value.items():
                dotted = f"{key}.{name}" if isinstance(name, str) else ""
                if dotted in FIELDS:
                    yield dotted, inner
                else:
                    problems.append(_unknown(name, str(key)) if len(problems) < _MOST_TOLD else "")
        elif key in SECTIONS:
            names = ", ".join(_names(str(key)))
            problems.append(f"`{key}` = {shown(value)}, expected a section [{key}] with its keys {names}.")
        elif isinstance(key, str) and key in FIELDS and "." not in key:
            yield key, value
        else:
            problems.append(_unknown(key, "") if len(problems) < _MOST_TOLD else "")


def _names(section: str) -> list[str]:
    return [field.name for field in FIELDS.values() if field.section == section]


def _unknown(name: Any, section: str) -> str:
    """Say that a key is unknown, which one may be meant and which there are."""
    dotted = f"{section}.{name}" if section else name
    label = shown(dotted)[1:-1] if isinstance(name, str) else shown(name)
    place = f"[{section}]" if section else "the top"
    known = ", ".join(_names(section) if section else [*_names(""), *(f"[{s}]" for s in SECTIONS)])
    hint = "."
    if isinstance(name, str) and name in FIELDS:
        hint = f": write `{FIELDS[name].name}` under [{FIELDS[name].section}]."
    elif isinstance(name, str) and (near := _nearest(name, section)):
        hint = f"; did you mean `{near}`?"
    return f"`{label}` is no key of a study{hint} The keys of {place} are {known}."


def _nearest(name: str, section: str) -> str:
    """The known key that an unknown one comes nearest to, wherever it stands."""
    # The own section first: of two keys that are equally near, its own is meant
    mine = {key: f"{section}.{key}" if section else key for key in (*_names(section), *(() if section else SECTIONS))}
    for known in (mine, {field.name: field.key for field in FIELDS.values()}):
        found = difflib.get_close_matches(name[:60], known, n=1, cutoff=0.7)
        if found:
            return known[found[0]]
    return ""


# ---------------------------------------------------------------- values


def _clean(field: Field, value: Any) -> tuple[tuple[Value, ...], bool]:
    """The values of one key, and whether they were given as a list or a range."""
    value = plain(value)
    try:
        if isinstance(value, Mapping) and field.grid and field.rule.numeric:
            return _each(field, write_out(value)), True
        if isinstance(value, list | tuple):
            if not field.grid and field.key != "engines":
                raise WrongValue
            return _each(field, value), True
        if field.key == "engines":
            raise WrongValue
        return (field.rule.clean(plain(value)),), False
    except WrongValue as error:
        raise _Problem(_message(field, value, str(error))) from None


def _each(field: Field, values: Iterable[Any]) -> tuple[Value, ...]:
    """Every value of a list, none of them twice."""
    entries = list(values)
    if not entries:
        raise WrongValue("the list is empty")
    if len(entries) > LARGEST:
        raise WrongValue(f"the list has {len(entries):,} values, at most {LARGEST:,} are allowed")
    cleaned: dict[Value, None] = {}
    for entry in entries:
        try:
            one = field.rule.clean(plain(entry))
        except WrongValue as error:
            raise WrongValue(f"{shown(entry)} is not {field.rule.one}{f' ({error})' if str(error) else ''}") from None
        if one in cleaned:
            raise WrongValue(f"it has {shown(one)} twice")
        cleaned[one] = None
    return tuple(cleaned)


def _message(field: Field, value: Any, why: str) -> str:
    """What was given, the rule, and how to write it."""
    example = field.default if field.default not in (None, "") else field.example
    text = f"`{field.key}` = {shown(value)}, expected {field.expected}{f': {why}' if why else ''}."
    place = f" under [{field.section}]" if field.section else ""
    return f"{text}\n  Write e.g. `{field.name} = {toml_value(example)}`{place}." if example is not None else text


# ---------------------------------------------------------------- what depends on several keys


def _missing(given: Mapping[str, Any], values: Mapping[str, tuple[Value, ...]]) -> Iterator[str]:
    """Say what must be given and is not, and what does not go together."""
    if "system.weight_decay" not in given:
        yield "`system.weight_decay` is missing, expected " + FIELDS["system.weight_decay"].expected + "."
    noises = [name for name in NOISES if f"noise.{name}" in given]
    if len(noises) != 1:
        what = "none of them is given" if not noises else " and ".join(f"`noise.{name}`" for name in noises)
        yield f"`noise` needs exactly one of {', '.join(NOISES)}: {what}."
    engines = values.get("engines", ENGINES)
    if "sgd" in engines or "noise.std" in given:
        why = "" if "sgd" in engines else ": with `noise.std` the temperature is lr g²/(2 batch_size)"
        for key in ("sgd.lr", "sgd.batch_size"):
            if key not in given:
                yield f"`{key}` is missing, expected {FIELDS[key].expected}{why}."
    if values.get("noise.std") == (0.0,) and set(engines) != {"sgd"}:
        yield (
            '`engines` is expected to be ["sgd"] where `noise.std` = 0: the noise of the data alone makes no '
            "temperature for the others."
        )
    yield from _wrong_width(given, values)
    yield from _wrong_replicas(given)


def _wrong_width(given: Mapping[str, Any], values: Mapping[str, tuple[Value, ...]]) -> Iterator[str]:
    networks = "network" in values.get("system.kind", ("chain",))
    if "system.kind" in given and "system.kind" not in values:
        return  # reported already
    if networks and "system.width" not in given:
        yield f"`system.width` is missing, expected {FIELDS['system.width'].expected}: a network has hidden layers."
    if not networks and "system.width" in given:
        yield '`system.width` goes with `system.kind` = "network" only: modes and chains have no width.'


def _wrong_replicas(given: Mapping[str, Any]) -> Iterator[str]:
    if "run.replicas" in given and "run.precision" in given:
        yield (
            "`run.replicas` and `run.precision` exclude each other: a cell has a fixed number of replicas, or as many "
            "as the precision needs. `run.max_replicas` bounds the latter."
        )
    if "run.max_replicas" in given and "run.precision" not in given:
        yield "`run.max_replicas` goes with `run.precision`, which is not given."


def _completed(values: Mapping[str, tuple[Value, ...]]) -> dict[str, tuple[Value, ...]]:
    """The declaration with its defaults."""
    full = dict(values)
    for field in FIELDS.values():
        if field.key not in full and field.default is not None:
            full[field.key] = field.default if isinstance(field.default, tuple) else (field.default,)
    if "run.precision" in full:
        full.setdefault("run.max_replicas", (DEFAULT_MAX_REPLICAS,))
    else:
        full.setdefault("run.replicas", (DEFAULT_REPLICAS,))
    return full


def _too_many(values: Mapping[str, tuple[Value, ...]]) -> Iterator[str]:
    """Bound the number of cells before any of them is made."""
    sizes = {key: len(found) for key, found in values.items()}
    total = sum(math.prod(sizes.get(key, 1) for key in axes(engine, values)) for engine in values["engines"])
    if total > LARGEST:
        longest = sorted((key for key in sizes if FIELDS[key].grid), key=lambda key: -sizes[key])[:3]
        why = ", ".join(f"`{key}` has {sizes[key]:,} values" for key in longest)
        yield f"the study has up to {total:,} cells, at most {LARGEST:,} are allowed: {why}.\n  Use fewer values."


def axes(engine: Any, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys whose values make an engine's cells; where the noise is `std`, SGD's make the others' temperatures."""
    sections = {"theory": (), "langevin": ("langevin", "run"), "sgd": ("run",)}[engine]
    keys = [key for key, field in FIELDS.items() if field.section in ("system", "noise", *sections)]
    if engine == "sgd" or "noise.std" in values:
        keys += ["sgd.lr", "sgd.batch_size"]
    if engine == "sgd":
        keys += ["sgd.label_noise"]
    return (*keys, "seed") if sections else tuple(keys)
