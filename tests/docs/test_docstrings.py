"""Docstrings pass numpydoc's validation: everything that has a public name, and in full what `kramers_grok` exports."""

import functools
import importlib
import inspect
import pkgutil
import types
from collections.abc import Iterator
from typing import Any

import pytest
from numpydoc import validate
from typing_extensions import get_protocol_members, is_protocol

import kramers_grok as kg

# What is not asked, and why. All other checks of numpydoc hold for every public name of every module.
NOT_ASKED = {
    "ES01": "a summary may say it all",
    "EX01": "examples stand where they teach something",
    "SA01": "texts link to related names where they speak of them",
    "SS02": "a summary may begin with a formula, or with a name that is written small",
    "SS03": "and end with one",
    "SS05": "a noun phrase is a summary too; its plural is no third person",
    "PR04": "lists that are those of another function refer to it instead of giving types",
    "PR07": "name, type, shape and unit may say it all",
    "PR08": "descriptions may begin with a symbol",
    "PR09": "descriptions may be a unit",
    "RT03": "the class that is returned says what it holds",
    "RT04": "descriptions may begin with a symbol",
    "RT05": "and be a unit",
}
# Asked of what users import; inside, a line with the shapes will do.
IN_FULL = {"PR01", "RT01", "YD01"}

# Each object's whole file would be read for comments that switch checks off; there are none.
validate.extract_ignore_validation_comments = functools.cache(validate.extract_ignore_validation_comments)


def path(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def methods(cls: type) -> Iterator[str]:
    """Public methods and properties that a class defines itself."""
    kinds = (types.FunctionType, property, functools.cached_property, classmethod, staticmethod)
    own = [name for name, member in vars(cls).items() if isinstance(member, kinds)]
    return (f"{path(cls)}.{name}" for name in own if not name.startswith("_"))


def exported() -> Iterator[str]:
    """Functions and classes of `kramers_grok` and `kramers_grok.plots`, and the public methods of the classes."""
    for module in (kg, kg.plots):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isroutine(thing):
                yield path(thing)
            if inspect.isclass(thing):
                ours = (c for c in thing.__mro__ if c.__module__.startswith("kramers_grok"))
                yield from (name for c in ours for name in methods(c))


def public(module: str) -> Iterator[str]:
    """Functions and classes that a module defines under a public name, and their public methods."""
    for name, thing in vars(importlib.import_module(module)).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module or not hasattr(thing, "__qualname__"):
            continue
        if (inspect.isclass(thing) or inspect.isroutine(thing)) and thing.__name__ == name:
            yield path(thing)
        if inspect.isclass(thing):
            yield from methods(thing)


def load(name: str) -> Any:
    return validate.Validator._load_obj(name)


@functools.cache
def protocols() -> tuple[type, ...]:
    """Protocols of the package."""
    found = []
    for module in pkgutil.walk_packages(kg.__path__, "kramers_grok."):
        things = vars(importlib.import_module(module.name)).values()
        found += [t for t in things if inspect.isclass(t) and is_protocol(t) and t.__module__ == module.name]
    return tuple(found)


def asked_of(protocol: type) -> set[str]:
    """Methods of a protocol; data members need not be on a class that conforms to it."""
    return {name for name in get_protocol_members(protocol) if inspect.isroutine(getattr(protocol, name, None))}


def documented_elsewhere(name: str) -> bool:
    """Whether a method is one that a protocol or a base class has, in which all is said that holds for every class."""
    owner, _, method = name.rpartition(".")
    cls = load(owner) if owner.count(".") > 1 else None
    if not inspect.isclass(cls):
        return False
    theirs = [p for p in protocols() if p is not cls and asked_of(p) and all(hasattr(cls, m) for m in asked_of(p))]
    above = [c for c in (*theirs, *cls.__mro__[1:]) if method in vars(c)]
    return any(not c.__module__.startswith("kramers_grok") or not complaints(path(c) + f".{method}") for c in above)


def told_as_attributes(name: str) -> bool:
    """Whether a data class lists its fields as attributes, its own or its base's."""
    cls = load(name)
    if not inspect.isclass(cls):
        return False
    told = {p.name for c in cls.__mro__[:-1] for p in validate.get_doc_object(c)["Attributes"]}
    fields = {field.strip() for names in told for field in names.split(",")}
    return set(inspect.signature(cls).parameters) <= fields


def reads_like_a_property(name: str) -> bool:
    """Whether a function has no arguments and a single line, which says what it returns."""
    thing = load(name)
    if not inspect.isroutine(thing):
        return False
    arguments = set(inspect.signature(thing).parameters) - {"self", "cls"}
    return not arguments and "\n" not in (thing.__doc__ or "\n")


def complaints(name: str, *, in_full: bool = True) -> dict[str, str]:
    """What numpydoc has to say of an object, by the codes of its checks."""
    found = {code: text for code, text in validate.validate(name)["errors"] if code not in NOT_ASKED}
    if not in_full or (IN_FULL & set(found) and documented_elsewhere(name)):
        return {code: text for code, text in found.items() if code not in IN_FULL}
    if "PR01" in found and told_as_attributes(name):
        del found["PR01"]
    if "RT01" in found and reads_like_a_property(name):
        del found["RT01"]
    return found


def report(names: set[str], *, in_full: bool) -> str:
    found = {name: complaints(name, in_full=in_full) for name in sorted(names)}
    return "\n".join(f"{name}: {text} ({code})" for name, each in found.items() for code, text in each.items())


def test_what_is_exported_is_documented_in_full() -> None:
    names = set(exported())
    assert len(names) > 300
    wrong = report(names, in_full=True)
    assert not wrong, wrong


ROOMS = sorted(found.name for found in pkgutil.iter_modules(kg.__path__, "kramers_grok."))


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_documented(room: str) -> None:
    inside = pkgutil.walk_packages(getattr(importlib.import_module(room), "__path__", []), f"{room}.")
    names = {name for module in (room, *(m.name for m in inside)) for name in public(module)}
    wrong = report(names - set(exported()), in_full=False)
    assert not wrong, wrong


def badly_documented(x: float, y: float) -> float:
    """Return the sum.

    Returns
    -------
    float

    Parameters
    ----------
    x : float
    z : float
    """
    return x + y


def test_a_bad_docstring_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: an order that is not numpydoc's, a parameter that does not exist and one that is missing."""
    monkeypatch.setattr(kg, "badly_documented", badly_documented, raising=False)
    assert set(complaints("kramers_grok.badly_documented")) == {"GL07", "PR01", "PR02"}
    assert set(complaints("kramers_grok.badly_documented", in_full=False)) == {"GL07", "PR02"}


def test_what_is_not_asked_is_a_check_of_numpydoc() -> None:
    assert {*NOT_ASKED, *IN_FULL} <= set(validate.ERROR_MSGS)
