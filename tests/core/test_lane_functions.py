"""Compiled activation functions against scipy and exact limits, in both precisions and anywhere in a block."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, log_ndtr, ndtr

from kramers_grok.core import lane_functions
from kramers_grok.core.lane_functions import activate, multiply
from kramers_grok.core.lanes import lane_count

Array = NDArray[Any]

SOME = np.concatenate(
    [np.random.default_rng(k).normal(size=700) * s for k, s in enumerate((1e-6, 0.1, 1.0, 4.0, 30.0))]
    + [[0.0, -0.0, 1e-38, -1e-30, 87.0, -87.0, 700.0, -700.0, 1e6, -1e6, 3e38, -3e38]]
)
EXACT: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "TANH": (np.tanh, lambda z: 1 / np.cosh(z.clip(-300, 300)) ** 2),
    "RELU": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "SOFTPLUS": (lambda z: np.logaddexp(0, z), expit),
    "GELU": (
        lambda z: np.where(z > -1, z * ndtr(z), np.sign(z) * np.exp(np.log(np.abs(z) + 1e-300) + log_ndtr(z))),
        lambda z: ndtr(z) + z * np.exp(-0.5 * np.minimum(z * z, 1e4)) / np.sqrt(2 * np.pi),
    ),
    "QUADRATIC": (lambda z: z * z, lambda z: 2 * z),
}


def activated(name: str, z: Array) -> tuple[Array, Array]:
    """Values and slopes, by the lanes of a block."""
    lanes = lane_count(z.dtype)
    entries = -(-len(z) // lanes)
    block = np.zeros(2 * entries * lanes, z.dtype)
    block[: len(z)] = z
    activate(block, 0, entries, entries, getattr(lane_functions, name))
    return block[: len(z)].copy(), block[entries * lanes :][: len(z)].copy()


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["double", "single"])
@pytest.mark.parametrize("name", EXACT)
def test_values_and_slopes(name: str, dtype: type) -> None:
    """To a few units in the last place of the larger of the value and 1, at every magnitude."""
    z = SOME.astype(dtype)
    with np.errstate(over="ignore", under="ignore"):
        value, slope = activated(name, z)
        exact = [f(z.astype(np.float64)) for f in EXACT[name]]
    largest = np.finfo(dtype).max
    for found, wanted, ulps in ((value, exact[0], 5), (slope, exact[1], 4)):
        kept = np.abs(wanted) < largest
        error = np.abs(found[kept] - wanted[kept]) / np.maximum(np.abs(wanted[kept]), 1.0)
        assert error.max() < ulps * np.finfo(dtype).eps
        assert not np.isnan(found).any()
    if name in ("TANH", "SOFTPLUS", "RELU"):  # small values too have all their digits
        kept = (np.abs(exact[0]) > 1e-30) & (np.abs(exact[0]) < largest)
        assert np.abs(value[kept] / exact[0][kept] - 1).max() < 5 * np.finfo(dtype).eps
    if name == "TANH":
        assert (activated(name, -z)[0] == -value).all()
        assert np.signbit(value[z == 0]).tolist() == np.signbit(z[z == 0]).tolist()


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["double", "single"])
@pytest.mark.parametrize("name", EXACT)
def test_neither_neighbours_nor_place_matter(name: str, dtype: type) -> None:
    """To the bit; not a number stays one, and spoils no other."""
    z = SOME[:70].astype(dtype)
    value, slope = activated(name, z)
    for begin, end in ((0, 1), (3, 20), (13, 70)):
        for whole, part in zip((value, slope), activated(name, z[begin:end]), strict=True):
            assert (whole[begin:end] == part).all()
    z[7] = np.nan
    spoilt, _ = activated(name, z)
    assert np.isnan(spoilt).tolist() == np.isnan(z).tolist()
    assert (np.delete(spoilt, 7) == np.delete(value, 7)).all()


def test_entries_are_multiplied() -> None:
    block = np.arange(48.0)
    multiply(block, 1, 4, 2)
    expected = np.arange(48.0)
    expected[8:24] *= np.arange(32.0, 48.0)
    assert (block == expected).all()
    before = block.copy()
    activate(block, 0, 3, 2, lane_functions.IDENTITY)
    assert (block == before).all()
