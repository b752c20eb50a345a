"""Validators return the cleaned value, or say what was given, which rule it breaks and what to do."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError

SCALARS: dict[str, Callable[..., float]] = {
    "finite": checks.finite,
    "positive": checks.positive,
    "non_negative": checks.non_negative,
    "fraction": checks.fraction,
}


@pytest.mark.parametrize("check", SCALARS.values(), ids=SCALARS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, None, "much", True, np.True_, [1.0, 2.0], 1j])
def test_scalars_are_finite_numbers(check: Callable[..., float], value: Any) -> None:
    with pytest.raises(InvalidParameterError, match=r"`eta` = .*expected a.* number"):
        check("eta", value)


@pytest.mark.parametrize("value", [0.25, np.float32(0.25), np.array(0.25), Fraction(1, 4), "0.25"])
@pytest.mark.parametrize("check", SCALARS.values(), ids=SCALARS)
def test_scalars_come_back_as_floats(check: Callable[..., float], value: Any) -> None:
    cleaned = check("eta", value)
    assert type(cleaned) is float
    assert cleaned == 0.25


def test_borders() -> None:
    assert checks.non_negative("x", 0) == 0.0
    assert checks.finite("x", -3) == -3.0
    for check, value, rule in (
        (checks.positive, 0, "a finite number > 0"),
        (checks.non_negative, -1e-300, "a finite number >= 0"),
        (checks.fraction, 0, "a number strictly between 0 and 1"),
        (checks.fraction, 1.0, "a number strictly between 0 and 1"),
    ):
        with pytest.raises(InvalidParameterError, match=rf"`x` = {value!r}, expected {rule}"):
            check("x", value)


def test_a_message_has_three_parts() -> None:
    with pytest.raises(InvalidParameterError) as caught:
        checks.positive("lr", -1.0, why="time goes forward", fix="Use `lr=0.1`.")
    assert str(caught.value) == "`lr` = -1.0, expected a finite number > 0: time goes forward.\nUse `lr=0.1`."
    assert isinstance(caught.value, ValueError)
    with pytest.raises(InvalidParameterError) as caught:
        checks.positive("lr", -1.0)
    assert str(caught.value) == "`lr` = -1.0, expected a finite number > 0."


@pytest.mark.parametrize("value", [3, 3.0, np.int32(3), np.float64(3)])
def test_integers_come_back_as_ints(value: Any) -> None:
    cleaned = checks.positive_int("n", value)
    assert type(cleaned) is int
    assert cleaned == 3


@pytest.mark.parametrize("value", [0, -1, 2.5, np.nan, np.inf, True, np.True_, "3", None, [3]])
def test_positive_int_refuses(value: Any) -> None:
    with pytest.raises(InvalidParameterError, match=r"`n` = .*expected an integer >= 1"):
        checks.positive_int("n", value)


def test_minimum_of_integers() -> None:
    assert checks.positive_int("n", 0, minimum=0) == 0
    with pytest.raises(InvalidParameterError, match="an integer >= 3"):
        checks.positive_int("n", 2, minimum=3)


@given(st.integers(0, 2**64 - 1))
def test_seeds_are_64_bit_words(value: int) -> None:
    assert checks.seed(value) == value


@pytest.mark.parametrize("value", [-1, 2**64, 0.5, None, "0"])
def test_other_seeds_are_refused(value: Any) -> None:
    with pytest.raises(InvalidParameterError, match="`seed` = "):
        checks.seed(value)


def test_arrays_come_back_as_float64() -> None:
    array = checks.finite_array("x", [[1, 2], [3, 4]], ndim=2)
    assert array.dtype == np.float64
    assert array.tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("value", "ndim", "message"),
    [
        ([1.0, np.nan, np.inf], None, r"array with 2 NaN or infinite value\(s\), expected finite numbers"),
        ([], None, r"array of shape \(0,\), expected at least one element: empty data"),
        ([1.0], 2, r"array of shape \(1,\), expected 2 dimension"),
        (["a"], None, "expected an array of numbers"),
        ([[1.0], [1.0, 2.0]], None, "expected an array of numbers"),
    ],
)
def test_finite_array_refuses(value: Any, ndim: int | None, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        checks.finite_array("x", value, ndim=ndim)
