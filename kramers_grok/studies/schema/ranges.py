"""Ranges of a declaration: ``{start, stop, num, spacing}`` and ``{start, stop, step}``, written out as lists."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from kramers_grok.studies.schema.rules import LARGEST, Choice, Integer, Number, WrongValue, shown

__all__ = ["RANGE_KEYS", "write_out"]

RANGE_KEYS = ("start", "stop", "num", "spacing", "step")
_SPACINGS = Choice(("linear", "geometric"))
_DIGITS = 12


def write_out(value: Mapping[str, Any]) -> list[float]:
    """Return the values of a range, ends included.

    Values between the ends are rounded to 12 digits, so that a range and the list that writes it out are the same.

    Parameters
    ----------
    value : mapping
        ``start``, ``stop`` and either ``num`` (with ``spacing``, "linear" or "geometric") or ``step``.

    Raises
    ------
    WrongValue
        If keys are missing, unknown or wrong, or there are more than a million values.

    Examples
    --------
    >>> write_out({"start": 0.1, "stop": 0.3, "step": 0.1})
    [0.1, 0.2, 0.3]
    >>> write_out({"start": 8, "stop": 64, "num": 4, "spacing": "geometric"})
    [8.0, 16.0, 32.0, 64.0]
    """
    unknown = [key for key in value if key not in RANGE_KEYS]
    if unknown:
        raise WrongValue(f"a range has no {shown(unknown[0])}, its keys are {', '.join(RANGE_KEYS)}")
    start, stop = (_entry(value, key, Number()) for key in ("start", "stop"))
    if start == stop:
        raise WrongValue("a range needs two different ends")
    if ("num" in value) == ("step" in value):
        raise WrongValue("a range needs either `num` or `step`")
    if "num" in value:
        return _by_number(value, start, stop)
    if "spacing" in value:
        raise WrongValue("`spacing` goes with `num`, not with `step`")
    return _by_step(start, stop, _entry(value, "step", Number()))


def _entry(value: Mapping[str, Any], key: str, rule: Number | Integer | Choice) -> Any:
    """One cleaned entry of a range."""
    if key not in value:
        raise WrongValue(f"the range lacks `{key}`")
    try:
        return rule.clean(value[key])
    except WrongValue as error:
        why = f" ({error})" if str(error) else ""
        raise WrongValue(f"its `{key}` is {shown(value[key])}, expected {rule.one}{why}") from None


def _by_number(value: Mapping[str, Any], start: float, stop: float) -> list[float]:
    num = _entry(value, "num", Integer(2, LARGEST))
    spacing = _entry(value, "spacing", _SPACINGS) if "spacing" in value else "linear"
    if spacing == "geometric" and not (start > 0 and stop > 0):
        raise WrongValue("a geometric range needs `start` and `stop` > 0")
    with np.errstate(over="ignore", invalid="ignore"):
        inner = (np.geomspace if spacing == "geometric" else np.linspace)(start, stop, num)[1:-1]
    return _rounded(start, inner, stop)


def _by_step(start: float, stop: float, step: float) -> list[float]:
    if step == 0 or (step > 0) != (stop > start):
        raise WrongValue("its `step` does not lead from `start` to `stop`")
    count = (stop - start) / step
    if not count < LARGEST:
        raise WrongValue(f"it has more than {LARGEST:,} values")
    whole = math.floor(count * (1 + 1e-12) + 1e-9)  # a stop that rounding just misses is meant
    if whole < 1:
        raise WrongValue("its `step` is longer than the range")
    values = start + step * np.arange(1, whole + 1)
    if math.isclose(count, whole, rel_tol=1e-9):
        return _rounded(start, values[:-1], stop)
    return _rounded(start, values)


def _rounded(start: float, inner: Any, *stop: float) -> list[float]:
    """The ends as they were given, what lies between without the noise of rounding."""
    if not np.isfinite(inner).all():
        raise WrongValue("its values are too large")
    return [start, *(float(f"{x:.{_DIGITS}g}") for x in inner), *stop]
