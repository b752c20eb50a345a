"""Counter-based noise: published vectors, exactness, distributions.

Statistical tests use fixed seeds and reject at ALPHA per p-value; about sixty p-values take less than 1e-4 of the
suite's budget. Each kind has a control with a known fault that must be rejected by far.
"""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from kramers_grok.core import rng
from kramers_grok.core.compiled import box_muller, log, njit
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.rng import Purpose

ALPHA = 1e-6
CERTAIN = 1e-12  # what a control must stay below

PI = ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0 082efa98 ec4e6c89")
ZEROS = ("00000000 00000000 00000000 00000000",) * 2
ONES = ("ffffffff ffffffff ffffffff ffffffff",) * 2
# Random123's kat_vectors, threefry4x32: rounds, (counter, key), result.
KNOWN_ANSWERS = [
    (13, ZEROS, "531c7e4f 39491ee5 2c855a92 3d6abf9a"),
    (13, ONES, "c4189358 1c9cc83a d5881c67 6a0a89e0"),
    (13, PI, "4aa71d8f 734738c2 431fc6a8 ae6debf1"),
    (20, ZEROS, "9c6ca96a e17eae66 fc10ecd4 5256a7d8"),
    (20, ONES, "2a881696 57012287 f6c7446e a16a6732"),
    (20, PI, "59cd1dbb b8879579 86b5d00c ac8b6d84"),
    (72, ZEROS, "93171da6 9220326d b392b7b1 ff58a002"),
    (72, ONES, "60743f3d 9961e684 aab21c34 8c65fb7d"),
    (72, PI, "09930adf 7f27bd55 9ed68ce1 97f803f6"),
]


def parse(words: str) -> list[int]:
    return [int(word, 16) for word in words.split()]


# ---------------------------------------------------------------- Threefry


@pytest.mark.parametrize(("rounds", "inputs", "expected"), KNOWN_ANSWERS)
def test_known_answers(rounds: int, inputs: tuple[str, str], expected: str) -> None:
    counter, key = map(parse, inputs)
    assert rng.threefry4x32(counter, key, rounds).tolist() == parse(expected)
    batched = rng.threefry4x32(np.tile(np.array(counter, dtype=np.uint32), (2, 3, 1)), key, rounds)
    assert (batched == np.array(parse(expected), dtype=np.uint32)).all()


@pytest.mark.parametrize(("rounds", "inputs", "expected"), KNOWN_ANSWERS[:3])
def test_compiled_known_answers(rounds: int, inputs: tuple[str, str], expected: str) -> None:
    counter, key = map(parse, inputs)
    assert list(rng.threefry4x32_13(*counter, *key)) == parse(expected)


def test_compiled_rows_are_threefry_of_the_documented_counter() -> None:
    seed, step, streams = 0x0123456789ABCDEF, 77, np.array([0, 1, 5, 2**32 - 1], dtype=np.uint32)
    key = [0x89ABCDEF, 0x01234567, 0, 0]
    expected = [
        np.concatenate([rng.threefry4x32([Purpose.INJECTED, s, step, block], key) for block in (0, 1)])
        for s in streams.tolist()
    ]
    assert (rng.words(seed, Purpose.INJECTED, streams, step, 7) == np.array(expected)[:, :7]).all()


# ---------------------------------------------------------------- the packing rule


@pytest.mark.parametrize("n", [1, 2])
def test_packed_steps_walk_through_the_lanes_of_one_counter(n: int) -> None:
    streams = np.arange(9, dtype=np.uint32)
    low, high = rng.split_seed(11)
    quad = np.empty((4, 9), dtype=np.uint32)
    for word in (0, 3):
        rng.fill_word_quads(quad, low, high, np.uint32(Purpose.DATA), streams, word, 0)
        steps = range(word * 4 // n, (word + 1) * 4 // n)
        rows = [rng.words(11, Purpose.DATA, streams, step, n) for step in steps]
        assert (np.concatenate(rows, axis=1) == quad.T).all()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 9])
def test_cached_normals_are_those_of_each_step(n: int) -> None:
    streams = np.array([3, 1, 4, 15], dtype=np.uint32)
    low, high = rng.split_seed(2**63 + 1)
    cache, purpose = rng.new_cache(n, streams.size), np.uint32(Purpose.LANGEVIN)
    for step in range(3, 13):  # begins in the middle of a packed counter
        row = rng.refresh_normals(cache, low, high, purpose, streams, step, n, step == 3)
        expected = rng.normals(2**63 + 1, Purpose.LANGEVIN, streams, step, n)
        assert (cache[row : row + n].T == expected).all()


def test_steps_beyond_the_counter_are_refused() -> None:
    rng.normals(0, Purpose.DATA, [0], 2**34 - 1, 1)
    with pytest.raises(InvalidParameterError, match=r"step.*below 17179869184.*32 bits"):
        rng.normals(0, Purpose.DATA, [0], 2**34, 1)
    with pytest.raises(InvalidParameterError, match=r"step.*below 4294967296"):
        rng.normals(0, Purpose.DATA, [0], 2**32, 3)


# ---------------------------------------------------------------- elementary functions


@njit
def apply_log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.empty_like(x)
    for i in range(x.size):
        out[i] = log(x[i])
    return out


@njit
def apply_box_muller(words0: Any, words1: Any) -> NDArray[np.float64]:
    out = np.empty((2, words0.size))
    for i in range(words0.size):
        out[0, i], out[1, i] = box_muller(words0[i], words1[i])
    return out


def sample_words(n: int) -> NDArray[np.uint32]:
    """Words of all magnitudes, the extremes and the ends of every octant included."""
    octants = (np.arange(8, dtype=np.int64)[:, None] << 29) + np.arange(-3, 4)
    edges = np.concatenate([octants.ravel(), 2 ** np.arange(32), 2**32 - 2 ** np.arange(32)]) % 2**32
    return np.concatenate([edges.astype(np.uint32), rng.words(1, Purpose.START, np.arange(n // 4), 0, 4).ravel()])


def test_log_is_within_two_ulp() -> None:
    x = np.concatenate([(sample_words(200_000) + 0.5) * 2.0**-32, np.geomspace(1e-300, 1e300, 20_001)])
    exact = np.log(x.astype(np.longdouble))
    error = np.abs((apply_log(x) - exact) / np.spacing(np.abs(exact).astype(np.float64)))
    assert np.finfo(np.longdouble).eps < 2e-19  # the reference is better than what it judges
    assert error.max() < 2.0


def test_box_muller_is_within_four_ulp() -> None:
    angle_words = sample_words(200_000)
    radius_words = angle_words[::-1].copy()
    got = apply_box_muller(radius_words, angle_words)
    turn = 8 * np.arctan(np.longdouble(1))
    angle = turn * ((angle_words.astype(np.longdouble) + 0.5) / 2**32)
    radius = np.sqrt(-2 * np.log((radius_words.astype(np.longdouble) + 0.5) / 2**32))
    for value, exact in zip(got, (radius * np.cos(angle), radius * np.sin(angle)), strict=True):
        # The reference's own angle is good to 1e-19 · 2π only, which counts where the cosine vanishes.
        floor = radius.astype(np.float64) * 1e-18
        error = np.abs(value - exact) / (np.spacing(np.abs(exact).astype(np.float64)) + floor)
        assert error.max() < 4.0


def test_extreme_words_give_finite_normals() -> None:
    ends = np.array([0, 2**32 - 1], dtype=np.uint32)
    got = apply_box_muller(np.repeat(ends, 2), np.tile(ends, 2))
    assert np.isfinite(got).all()
    assert 6.7 < np.abs(got).max() < 6.77


# ---------------------------------------------------------------- the address is all that counts

Draw = Callable[[NDArray[np.int64]], NDArray[Any]]
DRAWS: dict[str, Draw] = {
    "words": lambda s: rng.words(3, Purpose.DATA, s, 9, 5),
    "uniforms": lambda s: rng.uniforms(3, Purpose.DATA, s, 9, 2),
    "normals": lambda s: rng.normals(3, Purpose.DATA, s, 9, 5),
    "chi_square": lambda s: rng.chi_square(5, 3, Purpose.DATA, s, 9),
    "integers": lambda s: rng.integers(3, Purpose.DATA, s, 9, 100, 6),
    "sample_without_replacement": lambda s: rng.sample_without_replacement(3, Purpose.DATA, s, 9, 20, 6),
    "permutation": lambda s: rng.permutation(3, Purpose.DATA, s, 9, 6),
}


@pytest.mark.parametrize("name", DRAWS)
def test_rows_do_not_depend_on_the_batch(name: str) -> None:
    draw, streams = DRAWS[name], np.arange(600)
    whole = draw(streams)
    # Sizes around the vector width and the chunk of 256: vector bodies, remainders and single elements must agree.
    for part in (streams[:1], streams[1:8], streams[3:20], streams[100:357], streams[::-1], streams[7::13]):
        assert (draw(part) == whole[part]).all()


def test_no_global_generator_is_touched() -> None:
    before = np.random.get_state()  # noqa: NPY002
    first = [draw(np.arange(5)) for draw in DRAWS.values()]
    np.random.seed(1)  # noqa: NPY002
    second = [draw(np.arange(5)) for draw in DRAWS.values()]
    np.random.set_state(before)  # noqa: NPY002
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_addresses_do_not_collide() -> None:
    """All words of many addresses differ as random 32-bit words do: 8160 words, 0.008 equal pairs expected."""
    streams = np.arange(17)
    drawn = [
        rng.words(seed, purpose, streams, step, 8)
        for seed in (0, 1, 2**32, 2**63)
        for purpose in (0, 1, 6)
        for step in (0, 1, 2, 10**9, 2**31)
    ]
    flat = np.concatenate([d.ravel() for d in drawn])
    assert flat.size - np.unique(flat).size <= 2  # probability of more: 8e-8


# ---------------------------------------------------------------- distributions


def moments_p(sample: NDArray[np.float64]) -> float:
    """Smallest p-value of the first four moments of a standard normal sample, each against its exact variance."""
    n = sample.size
    moments = ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0))
    z = [((sample**k).mean() - mean) / np.sqrt(var / n) for k, mean, var in moments]
    return float(2 * stats.norm.sf(np.abs(z).max()))


def test_normals_are_standard_normal_in_every_lane() -> None:
    """40 000 numbers a lane: a width wrong by 1.2 %, or a mean by 0.03, is detected with probability 0.9."""
    drawn = rng.normals(20240, Purpose.LANGEVIN, np.arange(20_000), 5, 6)
    again = rng.normals(20240, Purpose.LANGEVIN, np.arange(20_000), 6, 6)
    for lane in range(6):
        sample = np.concatenate([drawn[:, lane], again[:, lane]])
        assert stats.kstest(sample, "norm").pvalue > ALPHA
        assert moments_p(sample) > ALPHA


def test_a_missing_root_two_is_rejected() -> None:
    sample = rng.normals(20240, Purpose.LANGEVIN, np.arange(20_000), 5, 1).ravel() / np.sqrt(2)
    assert stats.kstest(sample, "norm").pvalue < CERTAIN
    assert moments_p(sample) < CERTAIN


def test_uniforms_are_uniform() -> None:
    drawn = rng.uniforms(5, Purpose.BRIDGE, np.arange(50_000), 3, 2)
    assert 0 < drawn.min() < drawn.max() < 1
    for lane in range(2):
        assert stats.kstest(drawn[:, lane], "uniform").pvalue > ALPHA


def correlation_p(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """p-value of no correlation between samples or between their squares."""
    first = stats.pearsonr(a, b).pvalue
    second = stats.pearsonr(a**2, b**2).pvalue
    return float(min(first, second))


def neighbours() -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Samples whose addresses differ in one thing only."""
    streams, n = np.arange(20_000), 5
    base = rng.normals(8, Purpose.LANGEVIN, streams, 12, n)
    packed = [rng.normals(8, Purpose.DATA, streams, step, 1)[:, 0] for step in (12, 13, 16)]
    return {
        "stream": (base[:-1, 0], base[1:, 0]),
        "stream + 256": (base[:-256, 0], base[256:, 0]),
        "step": (base[:, 0], rng.normals(8, Purpose.LANGEVIN, streams, 13, n)[:, 0]),
        "purpose": (base[:, 0], rng.normals(8, Purpose.DATA, streams, 12, n)[:, 0]),
        "seed": (base[:, 0], rng.normals(9, Purpose.LANGEVIN, streams, 12, n)[:, 0]),
        "high word of the seed": (base[:, 0], rng.normals(8 + 2**32, Purpose.LANGEVIN, streams, 12, n)[:, 0]),
        "lane, one pair": (base[:, 0], base[:, 1]),
        "lane, two pairs": (base[:, 0], base[:, 2]),
        "block": (base[:, 0], base[:, 4]),
        "packed step": (packed[0], packed[1]),
        "packed counter": (packed[0], packed[2]),
        "stream = step": (base[1:, 0], rng.normals(8, Purpose.LANGEVIN, streams[:-1], 13, n)[:, 0]),
    }


@pytest.mark.parametrize("name", neighbours())
def test_neighbouring_addresses_are_uncorrelated(name: str) -> None:
    """20 000 pairs: a correlation of 0.045 is detected with probability 0.9."""
    assert correlation_p(*neighbours()[name]) > ALPHA


def test_a_reused_counter_is_rejected() -> None:
    """Two uses that forget the purpose, mixed half and half with independent numbers."""
    streams = np.arange(20_000)
    a = rng.normals(8, Purpose.LANGEVIN, streams, 12, 3)
    b = rng.normals(8, Purpose.DATA, streams, 12, 3)
    assert correlation_p(a[:, 0], (a[:, 0] + b[:, 0]) / np.sqrt(2)) < CERTAIN


@pytest.mark.parametrize("dof", [1, 2, 3, 8, 33])
def test_chi_square_distribution(dof: int) -> None:
    """20 000 numbers: a distribution function off by 0.02 is detected with probability 0.9."""
    sample = rng.chi_square(dof, 31, Purpose.DATA, np.arange(20_000), 4)
    assert stats.kstest(sample, "chi2", args=(dof,)).pvalue > ALPHA


def test_chi_square_with_the_wrong_degrees_of_freedom_is_rejected() -> None:
    sample = rng.chi_square(33, 31, Purpose.DATA, np.arange(20_000), 4)
    assert stats.kstest(sample, "chi2", args=(32,)).pvalue < CERTAIN


def test_chi_square_numbers_of_one_step_are_independent() -> None:
    streams = np.arange(20_000)
    a, b = (rng.chi_square(4, 31, Purpose.DATA, streams, 4, index=index) for index in (0, 1))
    normal = rng.normals(31, Purpose.DATA, streams, 4, 3)[:, 0]
    assert correlation_p(a, b) > ALPHA
    assert correlation_p(a, normal) > ALPHA
    assert correlation_p(a, rng.chi_square(4, 31, Purpose.DATA, streams, 4)) < CERTAIN


# ---------------------------------------------------------------- indices


def uniform_p(counts: NDArray[np.int64]) -> float:
    return float(stats.chisquare(counts).pvalue)


def test_integers_are_uniform() -> None:
    drawn = rng.integers(6, Purpose.DATA, np.arange(10_000), 0, 7, 5)
    assert uniform_p(np.bincount(drawn.ravel(), minlength=7)) > ALPHA
    assert uniform_p(np.bincount((drawn[:, 0] * 7 + drawn[:, 4]), minlength=49)) > ALPHA


def subset_counts(drawn: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """How often each subset of range(n) was drawn."""
    code = (1 << drawn).sum(axis=1)
    return np.array([(code == sum(1 << i for i in s)).sum() for s in combinations(range(n), drawn.shape[1])])


def test_every_subset_is_equally_likely() -> None:
    drawn = rng.sample_without_replacement(6, Purpose.DATA, np.arange(20_000), 2, 7, 3)
    assert (np.diff(np.sort(drawn, axis=1), axis=1) > 0).all()
    assert uniform_p(subset_counts(drawn, 7)) > ALPHA


def test_every_pair_of_a_larger_subset_is_equally_likely() -> None:
    """Pair inclusions of 5 of 9, drawn once per replica so that the counts are independent over replicas."""
    drawn = rng.sample_without_replacement(7, Purpose.DATA, np.arange(30_000), 2, 9, 5)
    chosen = np.zeros((30_000, 9), dtype=bool)
    np.put_along_axis(chosen, drawn, True, axis=1)
    pairs = list(combinations(range(9), 2))
    counts = np.array(
        [(chosen[k :: len(pairs), i] & chosen[k :: len(pairs), j]).sum() for k, (i, j) in enumerate(pairs)]
    )
    trials = np.array([len(range(k, 30_000, len(pairs))) for k in range(len(pairs))])
    p = 5 * 4 / (9 * 8)
    statistic = float((((counts - trials * p) ** 2) / (trials * p * (1 - p))).sum())
    assert stats.chi2.sf(statistic, len(pairs)) > ALPHA


def test_a_biased_sampler_is_rejected() -> None:
    """Redrawing a repeated index as its neighbour, instead of Floyd's rule, is not uniform."""
    drawn = np.sort(rng.integers(6, Purpose.DATA, np.arange(20_000), 2, 7, 2), axis=1)
    repeated = drawn[:, 0] == drawn[:, 1]
    drawn[repeated, 1] = (drawn[repeated, 1] + 1) % 7
    assert uniform_p(subset_counts(drawn, 7)) < CERTAIN


def order_counts(drawn: NDArray[np.int64]) -> NDArray[np.int64]:
    codes: NDArray[np.int64] = drawn @ 4 ** np.arange(4)
    return np.unique(codes, return_counts=True)[1]


def test_every_permutation_is_equally_likely() -> None:
    drawn = rng.permutation(6, Purpose.SHUFFLE, np.arange(24_000), 2, 4)
    assert (np.sort(drawn, axis=1) == np.arange(4)).all()
    counts = order_counts(drawn)
    assert counts.size == 24
    assert uniform_p(counts) > ALPHA


def test_the_order_of_a_subset_is_no_permutation() -> None:
    drawn = rng.sample_without_replacement(6, Purpose.SHUFFLE, np.arange(24_000), 2, 4, 4)
    counts = order_counts(drawn)
    assert uniform_p(np.pad(counts, (0, 24 - counts.size))) < CERTAIN


def test_a_permutation_is_the_stable_order_of_its_words() -> None:
    index = rng.permutation(1, Purpose.SHUFFLE, [8], 3, 9)[0]
    key = [1, 0, 0, 0]
    blocks = [rng.FIRST_INDEX_BLOCK + b for b in range(3)]
    words = np.concatenate([rng.threefry4x32([Purpose.SHUFFLE, 8, 3, block], key) for block in blocks])[:9]
    assert (index == np.argsort(words, kind="stable")).all()


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rng.split_seed(-1), "seed"),
        (lambda: rng.split_seed(2**64), r"seed.*2\*\*64"),
        (lambda: rng.normals(0, 0, [[1]], 0, 1), r"streams.*one-dimensional.*\n.*arange"),
        (lambda: rng.normals(0, 0, [0.5], 0, 1), "streams"),
        (lambda: rng.normals(0, 0, [-1], 0, 1), "streams"),
        (lambda: rng.normals(0, 0, [2**32], 0, 1), "streams"),
        (lambda: rng.normals(0, 0, [1], -1, 1), "step"),
        (lambda: rng.normals(0, 0, [1], 0, 0), "n"),
        (lambda: rng.chi_square(0, 0, 0, [1], 0), "dof"),
        (lambda: rng.chi_square(1, 0, 0, [1], 0, index=2**27), "index"),
        (lambda: rng.sample_without_replacement(0, 0, [1], 0, 3, 4), r"size.*at most n = 3.*\n.*integers"),
        (lambda: rng.integers(0, 0, [1], 0, 2**30 + 1, 4), r"n.*2\*\*30"),
        (lambda: rng.threefry4x32([0, 0], [0, 0, 0, 0]), "counter"),
    ],
)
def test_bad_input(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        call()
