"""Validators for arguments: each returns the cleaned value or says what is wrong.

Messages have three parts: what was given, the rule and why it holds, the fix.
Inputs are checked once, where they enter; the inside trusts them.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core.exceptions import InvalidParameterError

__all__ = [
    "Described",
    "finite",
    "finite_array",
    "fraction",
    "invalid",
    "non_negative",
    "positive",
    "positive_int",
    "seed",
]


class Described(str):
    """A description of a value, shown without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def invalid(name: str, value: object, rule: str, why: str = "", fix: str = "") -> InvalidParameterError:
    """Build the error for one argument: what was given, the rule (and why), the fix."""
    text = f"`{name}` = {value!r}, expected {rule}"
    text += f": {why}." if why else "."
    return InvalidParameterError(f"{text}\n{fix}" if fix else text)


def _real(name: str, value: Any, rule: str, why: str, fix: str) -> float:
    if isinstance(value, bool | np.bool_):
        raise invalid(name, value, rule, why, fix)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise invalid(name, value, rule, why, fix) from None
    if not math.isfinite(number):
        raise invalid(name, value, rule, why, fix)
    return number


def finite(name: str, value: Any, why: str = "", fix: str = "") -> float:
    """Return `value` as a finite float."""
    return _real(name, value, "a finite number", why, fix)


def positive(name: str, value: Any, why: str = "", fix: str = "") -> float:
    """Return `value` as a finite float greater than 0."""
    rule = "a finite number > 0"
    number = _real(name, value, rule, why, fix)
    if number <= 0:
        raise invalid(name, value, rule, why, fix)
    return number


def non_negative(name: str, value: Any, why: str = "", fix: str = "") -> float:
    """Return `value` as a finite float of at least 0."""
    rule = "a finite number >= 0"
    number = _real(name, value, rule, why, fix)
    if number < 0:
        raise invalid(name, value, rule, why, fix)
    return number


def fraction(name: str, value: Any, why: str = "", fix: str = "") -> float:
    """Return `value` as a float strictly between 0 and 1."""
    rule = "a number strictly between 0 and 1"
    number = _real(name, value, rule, why, fix)
    if not 0 < number < 1:
        raise invalid(name, value, rule, why, fix)
    return number


def positive_int(name: str, value: Any, minimum: int = 1, why: str = "", fix: str = "") -> int:
    """Return `value` as an int of at least `minimum`."""
    rule = f"an integer >= {minimum}"
    whole = isinstance(value, numbers.Integral) or (isinstance(value, numbers.Real) and float(value).is_integer())
    if isinstance(value, bool | np.bool_) or not whole:
        raise invalid(name, value, rule, why, fix)
    number = int(value)
    if number < minimum:
        raise invalid(name, value, rule, why, fix)
    return number


def seed(value: Any) -> int:
    """Return a seed: an integer in [0, 2**64), the key of the counter-based generator."""
    number = positive_int("seed", value, minimum=0, why="it is the key of a counter-based generator")
    if number >= 2**64:
        raise invalid("seed", value, "an integer below 2**64", "the generator's key has 64 bits")
    return number


def finite_array(
    name: str, value: ArrayLike, ndim: int | None = None, why: str = "", fix: str = ""
) -> NDArray[np.float64]:
    """Return `value` as a float64 array without NaN or infinity, of `ndim` dimensions where given."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise invalid(name, value, "an array of numbers", why, fix) from None
    if ndim is not None and array.ndim != ndim:
        raise invalid(name, Described(f"array of shape {array.shape}"), f"{ndim} dimension(s)", why, fix)
    if array.size == 0:
        raise invalid(
            name, Described(f"array of shape {array.shape}"), "at least one element", why or "empty data", fix
        )
    if not np.isfinite(array).all():
        bad = int(np.size(array) - np.isfinite(array).sum())
        raise invalid(name, Described(f"array with {bad} NaN or infinite value(s)"), "finite numbers", why, fix)
    return array
