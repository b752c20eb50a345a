"""Normal numbers made in single precision: those of double precision to its rounding, and as normal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from kramers_grok.core import rng_blocks
from kramers_grok.core.compiled import box_muller, box_muller_single, njit

QUARTER = 2**30
# Both ends, quarter and eighth turns, √½ (where the logarithm changes its form), each with its neighbours
MARKS = [0, 2**32 - 1, *(QUARTER * k // 2 for k in range(8)), 3037000499]
SPECIAL = np.array(sorted({(m + d) % 2**32 for m in MARKS for d in (-2, -1, 0, 1, 2)}), dtype=np.uint32)


@njit
def both(
    words0: NDArray[np.uint32], words1: NDArray[np.uint32], wide: NDArray[np.float64], narrow: NDArray[np.float32]
) -> None:
    for i in range(words0.shape[0]):
        wide[0, i], wide[1, i] = box_muller(words0[i], words1[i])
        narrow[0, i], narrow[1, i] = box_muller_single(words0[i], words1[i])


def pairs(words0: NDArray[np.uint32], words1: NDArray[np.uint32]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    wide, narrow = np.empty((2, words0.size)), np.empty((2, words0.size), np.float32)
    both(words0, words1, wide, narrow)
    return wide, narrow


def words_of(kind: str) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    random = np.random.default_rng(1).integers(0, 2**32, (2, 200_000), dtype=np.uint32)
    near = np.arange(random.shape[1], dtype=np.uint32)
    grid = np.meshgrid(SPECIAL, SPECIAL)
    return {
        "random": (random[0], random[1]),
        "special": (grid[0].ravel(), grid[1].ravel()),
        "radius near 0": (~near, random[1]),
        "radius at its largest": (near, random[1]),
        "angle near quarter turns": (random[0], (near % 4) * np.uint32(QUARTER) + near // 4 - np.uint32(25_000)),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["random", "special", "radius near 0", "radius at its largest", "angle near quarter turns"]
)
def test_every_number_is_that_of_double_precision_to_a_few_units_of_rounding(kind: str) -> None:
    wide, narrow = pairs(*words_of(kind))
    np.testing.assert_allclose(narrow, wide, rtol=5e-7, atol=0)
    assert np.abs(narrow - wide).max() < 1e-6


def test_both_ends_of_the_tails_are_kept() -> None:
    """Uniform numbers of 24 bits would end at 5.8, and leave a hole of 3e-4 around 0."""
    wide, narrow = pairs(np.array([0, 2**32 - 1], np.uint32), np.zeros(2, np.uint32))
    assert narrow[0, 0] > 6.76
    assert 0 < narrow[0, 1] < 2e-5
    np.testing.assert_allclose(narrow, wide, rtol=5e-7)


def test_arrays_of_either_dtype_are_filled_with_the_same_numbers() -> None:
    streams = np.arange(700, dtype=np.uint32)
    key = np.uint32(3), np.uint32(9), np.uint32(0)
    quads = np.empty((4, 700)), np.empty((4, 700), np.float32)
    rng_blocks.fill_normal_quads(quads[0], *key, streams, 5, 0)
    rng_blocks.fill_single_quads(quads[1], *key, streams, 5, 0)
    np.testing.assert_allclose(quads[1], quads[0], rtol=5e-7)
    for n in (1, 2, 3, 6):
        wide, narrow = np.empty((n, 700)), np.empty((n, 700), np.float32)
        rng_blocks.fill_normals(wide, *key, streams, 7)
        rng_blocks.fill_normals(narrow, *key, streams, 7)
        np.testing.assert_allclose(narrow, wide, rtol=5e-7)
        part = np.empty((n, 13), np.float32)
        rng_blocks.fill_normals(part, *key, streams[40:53], 7)
        assert (part == narrow[:, 40:53]).all()  # whatever the place in a vector


# ---------------------------------------------------------------- distribution

# Three tests at 1e-5 each on 16 million numbers: a variance off by 0.2 %, or a tail beyond 4 off by 15 %, is seen.
LEVEL = 1e-5


@pytest.fixture(scope="module")
def many() -> NDArray[np.float32]:
    out, streams = np.empty((4, 2**22), np.float32), np.arange(2**22, dtype=np.uint32)
    rng_blocks.fill_single_quads(out, np.uint32(11), np.uint32(0), np.uint32(0), streams, 0, 0)
    return out.ravel()


def moments_fit(z: NDArray[np.float32]) -> bool:
    """Mean and variance, at LEVEL together."""
    edge = stats.norm.isf(LEVEL / 4)
    mean, variance = float(z.mean(dtype=np.float64)), float(np.square(z, dtype=np.float64).mean())
    return bool(abs(mean) * z.size**0.5 < edge and abs(variance - 1) * (z.size / 2) ** 0.5 < edge)


def tails_fit(z: NDArray[np.float32]) -> bool:
    """Counts beyond 3, 4 and 5 on either side against binomial intervals, at LEVEL together."""
    for edge in (3.0, 4.0, 5.0):
        low, high = stats.binom.interval(1 - LEVEL / 6, z.size, stats.norm.sf(edge))
        if not (low <= int((z > edge).sum()) <= high and low <= int((z < -edge).sum()) <= high):
            return False
    return True


def distribution_fits(z: NDArray[np.float32]) -> bool:
    return bool(stats.kstest(z[:: z.size // 2**19], stats.norm.cdf, method="asymp").pvalue > LEVEL)


CHECKS = [moments_fit, tails_fit, distribution_fits]


@pytest.mark.parametrize("fits", CHECKS)
def test_they_are_normal(fits: Callable[[NDArray[np.float32]], bool], many: NDArray[np.float32]) -> None:
    assert fits(many)


def test_the_two_of_a_pair_are_independent(many: NDArray[np.float32]) -> None:
    """Correlation of the numbers and of their squares, at LEVEL together."""
    edge = stats.norm.isf(LEVEL / 4)
    first, second = (many.reshape(4, -1)[j].astype(np.float64) for j in (0, 1))
    assert abs((first * second).mean()) * first.size**0.5 < edge
    assert abs(((first**2 - 1) * (second**2 - 1)).mean()) / 2 * first.size**0.5 < edge


@pytest.mark.parametrize(("fits", "factor"), [(moments_fit, 1.002), (tails_fit, 1.01), (distribution_fits, 1.02)])
def test_numbers_that_are_too_wide_are_noticed(
    fits: Callable[[NDArray[np.float32]], bool], factor: float, many: NDArray[np.float32]
) -> None:
    """Negative control."""
    assert not fits(many * np.float32(factor))
