"""Temperature and per-sample variance are two faces of one number."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import PerSample, effective_temperature, per_sample

POSITIVE = st.floats(1e-6, 1e6)


@given(POSITIVE, POSITIVE, st.integers(1, 10**6))
def test_variance_and_temperature_follow_from_each_other(lr: float, variance: float, batch: int) -> None:
    noise = per_sample(variance=variance)
    temperature = noise.temperature_for(lr, batch)
    assert temperature == lr * variance / (2 * batch)
    assert temperature == effective_temperature(lr, batch, variance)
    assert noise.variance_for(lr, batch) == variance
    wanted = per_sample(temperature=temperature)
    assert wanted.variance_for(lr, batch) == pytest.approx(variance, rel=1e-14)
    assert wanted.temperature_for(lr, batch) == pytest.approx(temperature, rel=1e-14)


def test_std_is_the_root_of_the_variance() -> None:
    assert per_sample(std=0.5) == PerSample(variance=0.25)


def test_no_noise_is_allowed() -> None:
    assert per_sample(variance=0).temperature_for(0.1, 4) == 0
    assert per_sample(temperature=0).variance_for(0.1, 4) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"variance": 1.0, "temperature": 1.0},
        {"std": 1.0, "temperature": 1.0},
        {"variance": None, "std": None, "temperature": None},
    ],
)
def test_exactly_one_is_given(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError, match=r"exactly one of.*\n.*per_sample\(temperature=T\)"):
        per_sample(**arguments)


def test_std_and_variance_exclude_each_other() -> None:
    with pytest.raises(InvalidParameterError, match="not both"):
        per_sample(std=1.0, variance=1.0)


@pytest.mark.parametrize("name", ["variance", "std", "temperature"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "hot"])
def test_bad_values_are_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidParameterError, match=f"`{name}` = .*>= 0"):
        per_sample(**{name: value})


def test_noise_may_be_one_for_each_replica() -> None:
    many = per_sample(variance=[0.1, 0.4])
    np.testing.assert_array_equal(many.variance_for(0.1, 4), [0.1, 0.4])
    np.testing.assert_allclose(many.temperature_for(0.1, 4), [0.1 * 0.1 / 8, 0.1 * 0.4 / 8], rtol=1e-15)
    np.testing.assert_allclose(many.temperature_for(np.array([0.1, 0.2]), 4), [0.1 * 0.1 / 8, 0.01], rtol=1e-15)
    assert per_sample(std=[0.5, 2.0]) == PerSample(variance=(0.25, 4.0)) != many
    assert hash(many) == hash(per_sample(variance=np.array([0.1, 0.4])))
    wanted = per_sample(temperature=[0.0, 0.02])
    np.testing.assert_allclose(wanted.variance_for(0.1, 4), [0.0, 2 * 4 * 0.02 / 0.1], rtol=1e-15)
    with pytest.raises(InvalidParameterError, match=r"`variance` = -1.0, expected a finite number >= 0"):
        per_sample(variance=[1.0, -1.0])
    with pytest.raises(InvalidParameterError, match=r"expected 1 dimension"):
        per_sample(temperature=[[1.0]])
