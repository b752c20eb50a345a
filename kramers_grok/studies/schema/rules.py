"""What a single value of a declaration may be: rules that return the cleaned value or say what is wrong."""

from __future__ import annotations

import json
import math
import reprlib
import unicodedata
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

__all__ = [
    "LARGEST",
    "Choice",
    "Integer",
    "Number",
    "Rule",
    "Text",
    "Value",
    "WrongValue",
    "plain",
    "shown",
    "toml_value",
]

LARGEST = 1_000_000
"""Most values of a list or range, and most cells of a study."""

Value: TypeAlias = bool | int | float | str
_LONGEST_TEXT = 10_000  # characters
LARGE = 1e30  # squares and products of a few such numbers stay finite
_LARGEST_SHOWN = 2**64  # Python refuses to write integers of thousands of digits


class WrongValue(Exception):
    """A value breaks a rule; the text says why, where that is not plain from the rule."""


class _Short(reprlib.Repr):
    """Short texts of values that may be huge, nested without end or unprintable."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxdict = 4
        self.maxstring = self.maxother = 60

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) <= _LARGEST_SHOWN else f"an integer of {x.bit_length()} bits"


_SHORT = _Short()


def shown(value: Any) -> str:
    """Return a value as short text for a message, whatever it is.

    Examples
    --------
    >>> shown([1, 2, 3, 4, 5]), shown(10**5000)
    ('[1, 2, 3, 4, ...]', 'an integer of 16610 bits')
    """
    try:
        return _SHORT.repr(value)
    except (RecursionError, ValueError):
        return f"a {type(value).__name__} too deep to show"


def plain(value: Any) -> Any:
    """Return numpy's numbers and arrays as Python's own, tuples and ranges as lists; everything else as it is."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, range):  # which may be longer than memory
        return list(value[: LARGEST + 1])
    return list(value) if isinstance(value, tuple) else value


def toml_value(value: Any) -> str:
    """Return a value in TOML.

    Examples
    --------
    >>> toml_value(["theory", "sgd"]), toml_value(0.1)
    ('["theory", "sgd"]', '0.1')
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    # JSON's text in quotes is TOML's too
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


class Rule(Protocol):
    """What a value must be."""

    @property
    def one(self) -> str:
        """The rule for one value, e.g. "a number > 0"."""
        ...

    @property
    def numeric(self) -> bool:
        """Whether a range of values makes sense."""
        ...

    def clean(self, value: Any) -> Value:
        """Return the value in its one form; raises `WrongValue`."""
        ...


def _limits(lower: float | None, upper: float | None, strict: bool) -> str:
    """Say where a number must lie."""
    sign = (">", "<") if strict else (">=", "<=")
    if lower is not None and upper is not None:
        return f" {'strictly ' if strict else ''}between {lower:,} and {upper:,}"
    sides = [f"{s} {x:,}" for s, x in zip(sign, (lower, upper), strict=True) if x is not None]
    return f" {' and '.join(sides)}" if sides else ""


@dataclass(frozen=True)
class Number:
    """A finite number in an interval.

    Attributes
    ----------
    lower, upper : float, optional
        Its ends.
    strict : bool
        Whether the ends are excluded.

    Examples
    --------
    >>> Number(lower=0, strict=True).one, Number(lower=0).clean(1)
    ('a number > 0', 1.0)
    """

    lower: float | None = None
    upper: float | None = None
    strict: bool = False

    numeric = True

    @property
    def one(self) -> str:
        """The rule for one value."""
        return f"a number{_limits(self.lower, self.upper, self.strict)}"

    def clean(self, value: Any) -> float:
        """Return the value as a float; -0.0 becomes 0.0, so that equal numbers have one text."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WrongValue(_kind(value))
        try:
            number = float(value) + 0.0
        except OverflowError:
            raise WrongValue("it is too large") from None
        if not math.isfinite(number):
            raise WrongValue("it is not finite")
        if abs(number) > LARGE or 0 < abs(number) < 1 / LARGE:
            raise WrongValue(f"numbers beyond {LARGE:g} or nearer to 0 than {1 / LARGE:g} cannot be computed with")
        low = self.lower is not None and (number <= self.lower if self.strict else number < self.lower)
        high = self.upper is not None and (number >= self.upper if self.strict else number > self.upper)
        if low or high:
            raise WrongValue
        return number


@dataclass(frozen=True)
class Integer:
    """A whole number in a closed interval; 8.0 counts as 8.

    Examples
    --------
    >>> Integer(lower=1).one, Integer(lower=1).clean(8.0)
    ('an integer >= 1', 8)
    """

    lower: int | None = None
    upper: int | None = None

    numeric = True

    @property
    def one(self) -> str:
        """The rule for one value."""
        if self.lower is not None and self.upper is not None:
            return f"an integer from {self.lower:,} to {self.upper:,}"
        return f"an integer{_limits(self.lower, self.upper, False)}"

    def clean(self, value: Any) -> int:
        """Return the value as an int."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WrongValue(_kind(value))
        if isinstance(value, float) and not value.is_integer():
            raise WrongValue
        whole = int(value)
        if (self.lower is not None and whole < self.lower) or (self.upper is not None and whole > self.upper):
            raise WrongValue
        return whole


@dataclass(frozen=True)
class Choice:
    """One of some words.

    Examples
    --------
    >>> Choice(("fused", "torchsde")).one
    "one of 'fused', 'torchsde'"
    """

    words: tuple[str, ...]

    numeric = False

    @property
    def one(self) -> str:
        """The rule for one value."""
        return f"one of {', '.join(map(repr, self.words))}" if len(self.words) > 1 else repr(self.words[0])

    def clean(self, value: Any) -> str:
        """Return the word."""
        if not isinstance(value, str) or value not in self.words:
            raise WrongValue
        return str(value)


@dataclass(frozen=True)
class Text:
    """Text that a file and a page can hold: no control characters but tabs and new lines."""

    numeric = False

    @property
    def one(self) -> str:
        """The rule for one value."""
        return f"text of at most {_LONGEST_TEXT:,} characters"

    def clean(self, value: Any) -> str:
        """Return the text."""
        if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
            raise WrongValue
        # Cc: control characters; Cs: halves of surrogate pairs, which UTF-8 cannot hold
        if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n" for c in value):
            raise WrongValue("it holds control characters")
        return str(value)


def _kind(value: Any) -> str:
    """Say which kind of value stands where a number should."""
    if isinstance(value, bool):
        return "true and false are no numbers"
    return "text in quotes is no number" if isinstance(value, str) else ""
