r"""The counter-based noise of :mod:`kramers_grok.core.rng` as tensors on any device.

The integer streams are those of the compiled functions, exactly; normals and chi-square numbers agree to rounding
(about 1e-14, normals in float32 1e-6). Ordinary CPU tensors are filled by the compiled functions themselves, faster
than torch's own generator, so what a replica draws there is the same to the bit in every engine and in every batch. On
other devices the same arithmetic is done by torch operations, element by element: no value is read back to the host,
and a row does not depend on the number of rows.

Every function takes (seed, purpose, streams, step, …): `streams` is an integer tensor of shape (replica,) whose
device is the result's, one row of the result is one replica, and n is part of the numbers' address for n ≤ 2 (see the
packing rule of :mod:`kramers_grok.core.rng`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kramers_grok.core import checks, rng, rng_blocks, rng_draws
from kramers_grok.core.threefry import PARITY, ROTATIONS

__all__ = [
    "chi_square",
    "chi_squares",
    "integers",
    "normals",
    "permutation",
    "randint",
    "sample_without_replacement",
    "threefry4x32",
    "uniforms",
    "words",
]

_MASK = 0xFFFFFFFF


# ---------------------------------------------------------------- Threefry with torch operations


def threefry4x32(counter: Tensor, key: Sequence[int], rounds: int = 13) -> Tensor:
    """Return Threefry4x32 of counters under one key.

    Parameters
    ----------
    counter : Tensor of int64 or int32, shape (..., 4)
        Words; only their low 32 bits count.
    key : sequence of 4 int

    Returns
    -------
    Tensor of int64, shape (..., 4)
        Words in [0, 2³²).

    Examples
    --------
    >>> [f"{word:08x}" for word in threefry4x32(torch.zeros(4, dtype=torch.int64), (0, 0, 0, 0)).tolist()]
    ['531c7e4f', '39491ee5', '2c855a92', '3d6abf9a']
    """
    mixed = _threefry(list(counter.to(torch.int32).unbind(-1)), key, rounds)
    return torch.stack(mixed, dim=-1).to(torch.int64) & _MASK


def _threefry(x: list[Tensor], key: Sequence[int], rounds: int = 13) -> list[Tensor]:
    """Mix four int32 tensors that broadcast against each other; int32 arithmetic wraps around as words do."""
    schedule = [*key, PARITY ^ key[0] ^ key[1] ^ key[2] ^ key[3]]
    x = [word + _signed(schedule[j]) for j, word in enumerate(x)]
    for number in range(rounds):
        i, j = (1, 3) if number % 2 == 0 else (3, 1)
        by_i, by_j = ROTATIONS[number % 8]
        x[0] = x[0] + x[i]
        x[i] = _rotate(x[i], by_i) ^ x[0]
        x[2] = x[2] + x[j]
        x[j] = _rotate(x[j], by_j) ^ x[2]
        if number % 4 == 3:
            injection = number // 4 + 1
            for lane in range(4):
                add = schedule[(injection + lane) % 5] + (injection if lane == 3 else 0)
                x[lane] = x[lane] + _signed(add)
    return x


def _signed(word: int) -> int:
    """The int32 with the bits of a word."""
    word &= _MASK
    return word - 2**32 if word >= 2**31 else word


def _rotate(x: Tensor, by: int) -> Tensor:
    # The right shift of a signed number copies its sign; the mask removes the copies.
    return (x << by) | ((x >> (32 - by)) & ((1 << by) - 1))


def _quads(seed: int, purpose: int, streams: Tensor, step_word: int, first_block: int, blocks: int) -> list[Tensor]:
    """Four int32 tensors of shape (replica, blocks): the words of consecutive blocks, lane by lane."""
    low, high = (int(word) for word in rng.split_seed(seed))
    device = streams.device

    def constant(word: int) -> Tensor:
        return torch.full((1, 1), _signed(word), dtype=torch.int32, device=device)

    # unsqueeze and narrow, not [None] and slices: indexing asks for a device guard, which a PyTorch built without CUDA
    # lacks, and there fake CUDA tensors must work.
    block = torch.arange(blocks, dtype=torch.int32, device=device).unsqueeze(0) + _signed(first_block)
    return _threefry(
        [constant(purpose), streams.to(torch.int32).unsqueeze(1), constant(step_word), block], (low, high, 0, 0)
    )


def _step_quads(seed: int, purpose: int, streams: Tensor, step: int, n: int) -> tuple[list[Tensor], int]:
    """The quads that hold the n numbers of a step, and the column where these begin once lanes are interleaved."""
    step_word, lane = rng.locate(step, n)
    return _quads(seed, purpose, streams, step_word, 0, -(-n // 4)), lane


def _unsigned(word: Tensor) -> Tensor:
    return word.to(torch.int64) & _MASK


def _unit(word: Tensor) -> Tensor:
    return (_unsigned(word).to(torch.float64) + 0.5) * 2.0**-32


def _box_muller(word0: Tensor, word1: Tensor) -> tuple[Tensor, Tensor]:
    """Two normals per pair of words; the angle is taken in (−π, π), where its rounding error is smaller."""
    radius = torch.sqrt(-2.0 * torch.log(_unit(word0)))
    angle = (word1.to(torch.float64) + 0.5) * (2.0 * math.pi * 2.0**-32)
    return radius * torch.cos(angle), radius * torch.sin(angle)


def _single(word: Tensor) -> Tensor:
    """(word + ½)/2³² in single precision."""
    return _unsigned(word).to(torch.float32) * 2.0**-32 + 2.0**-33


def _box_muller_single(word0: Tensor, word1: Tensor) -> tuple[Tensor, Tensor]:
    """`core.compiled.box_muller_single`: two normals per pair of words in single precision, to its rounding."""
    u = _single(word0)
    # Close to 1 the word's last bits are lost; those of its distance from 1 are not.
    log = torch.where(u < 0.5**0.5, torch.log(u), torch.log1p(-_single(-1 - word0)))
    radius = torch.sqrt(-2.0 * log)
    angle = (word1 << 2).to(torch.float32) * (0.5 * math.pi * 2.0**-32) + math.pi * 2.0**-32
    sine, cosine = torch.sin(angle), torch.cos(angle)
    # The angle is to the nearest quarter turn, which the two highest bits count.
    turned = word1 + 2**29
    swapped = (turned & 2**30) != 0
    n0, n1 = torch.where(swapped, sine, cosine), torch.where(swapped, cosine, sine)
    n0 = torch.where((turned + 2**30) < 0, -n0, n0)
    return radius * n0, radius * torch.where(turned < 0, -n1, n1)


def _interleave(lanes: Sequence[Tensor]) -> Tensor:
    """Columns in the order block by block, lane by lane."""
    return torch.stack(list(lanes), dim=-1).flatten(start_dim=1)


# ---------------------------------------------------------------- numbers


def _compiled(streams: Tensor) -> bool:
    """Whether the compiled functions can do it: an ordinary CPU tensor, not a fake or traced one."""
    return type(streams) is Tensor and streams.device.type == "cpu"


def _arguments(seed: int, purpose: int, streams: Tensor) -> tuple[np.uint32, np.uint32, np.uint32, NDArray[np.uint32]]:
    low, high = rng.split_seed(seed)
    return low, high, np.uint32(purpose), streams.numpy().astype(np.uint32)


def words(seed: int, purpose: int, streams: Tensor, step: int, n: int) -> Tensor:
    """Return the n 32-bit words of each replica at a step, as int64 in [0, 2³²); shape (replica, n).

    Raises
    ------
    InvalidParameterError
        If the seed or the step does not fit into its words of the counter (as in every function below).

    Examples
    --------
    >>> [f"{word:08x}" for word in words(0, 0, torch.tensor([0]), step=0, n=4)[0].tolist()]
    ['531c7e4f', '39491ee5', '2c855a92', '3d6abf9a']
    """
    step = rng.check_step(step, n)
    if _compiled(streams):
        low, high, what, lanes = _arguments(seed, purpose, streams)
        out = np.empty((n, lanes.size), np.uint32)
        rng_blocks.fill_words(out, low, high, what, lanes, step)
        return torch.from_numpy(out.T.astype(np.int64, order="C"))
    quads, lane = _step_quads(seed, purpose, streams, step, n)
    return _unsigned(_interleave(quads).narrow(1, lane, n))


def uniforms(seed: int, purpose: int, streams: Tensor, step: int, n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return n uniforms of (0, 1) per replica at a step, (word + ½)/2³²; shape (replica, n).

    Narrower dtypes are rounded from float64, so a float32 uniform may be 1.

    Examples
    --------
    >>> uniforms(0, 5, torch.arange(3), step=0, n=2).shape
    torch.Size([3, 2])
    """
    step = rng.check_step(step, n)
    if _compiled(streams):
        low, high, what, lanes = _arguments(seed, purpose, streams)
        out = np.empty((n, lanes.size))
        rng_blocks.fill_uniforms(out, low, high, what, lanes, step)
        return torch.from_numpy(np.ascontiguousarray(out.T)).to(dtype)
    quads, lane = _step_quads(seed, purpose, streams, step, n)
    return _unit(_interleave(quads).narrow(1, lane, n)).to(dtype)


def normals(seed: int, purpose: int, streams: Tensor, step: int, n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return n standard normals per replica at a step; shape (replica, n).

    In float32 they come from single-precision arithmetic on the same words: those of float64 to 1e-6, sooner. Even
    narrower dtypes are rounded from float32.

    Examples
    --------
    >>> rows = normals(7, 0, torch.tensor([1, 5, 9]), step=10, n=3)
    >>> torch.equal(rows[1:2], normals(7, 0, torch.tensor([5]), step=10, n=3))
    True
    """
    step = rng.check_step(step, n)
    if _compiled(streams):
        low, high, what, lanes = _arguments(seed, purpose, streams)
        out = np.empty((lanes.size, n), np.float64 if dtype == torch.float64 else np.float32)
        rng_blocks.fill_normal_table(out, low, high, what, lanes, step)
        return torch.from_numpy(out).to(dtype)
    quads, lane = _step_quads(seed, purpose, streams, step, n)
    pair = _box_muller if dtype == torch.float64 else _box_muller_single
    pairs = (*pair(quads[0], quads[1]), *pair(quads[2], quads[3]))
    return _interleave(pairs).narrow(1, lane, n).to(dtype)


def chi_square(
    dof: int,
    seed: int,
    purpose: int,
    streams: Tensor,
    step: int,
    *,
    index: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Return a chi-square number with `dof` ≥ 1 degrees of freedom per replica; shape (replica,).

    All 16 attempts of Marsaglia and Tsang's rejection are made at once and the first accepted one is taken; none is
    with probability below 1e-20.

    Parameters
    ----------
    index : int
        Distinguishes several chi-square numbers of one step.

    Examples
    --------
    >>> chi_square(8, 0, 1, torch.arange(4), step=0).shape
    torch.Size([4])
    """
    step, dof = rng.check_step(step), checks.positive_int("dof", dof)
    if _compiled(streams):
        low, high, what, lanes = _arguments(seed, purpose, streams)
        out = np.empty(lanes.size)
        rng_draws.chi_square_rows(out, dof, low, high, what, lanes, step, index)
        return torch.from_numpy(out).to(dtype)
    return _chi_squares(dof, 1, seed, purpose, streams, step, index).squeeze(1).to(dtype)


def chi_squares(
    dof: int, count: int, seed: int, purpose: int, streams: Tensor, step: int, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Return chi-square numbers with dof, dof − 1, … degrees of freedom; shape (replica, count).

    Column i is `chi_square` of dof − i degrees of freedom with ``index=i``; count ≤ dof.

    Examples
    --------
    >>> pair = chi_squares(4, 2, 0, 1, torch.arange(4), step=0)
    >>> torch.equal(pair[:, 1], chi_square(3, 0, 1, torch.arange(4), step=0, index=1))
    True
    """
    step = rng.check_step(step)
    if _compiled(streams):
        low, high, what, lanes = _arguments(seed, purpose, streams)
        out = np.empty((count, lanes.size))
        for index in range(count):
            rng_draws.chi_square_rows(out[index], dof - index, low, high, what, lanes, step, index)
        return torch.from_numpy(np.ascontiguousarray(out.T)).to(dtype)
    return _chi_squares(dof, count, seed, purpose, streams, step, 0).to(dtype)


def _chi_squares(dof: int, count: int, seed: int, purpose: int, streams: Tensor, step: int, first: int) -> Tensor:
    """Chi-square numbers with dof, dof − 1, … degrees of freedom, numbers `first`, first + 1, … of the step."""
    attempts, device = rng.CHI_SQUARE_ATTEMPTS, streams.device
    block = rng.FIRST_CHI_SQUARE_BLOCK + attempts * first
    word0, word1, word2, _ = (
        w.reshape(-1, count, attempts) for w in _quads(seed, purpose, streams, step, block, attempts * count)
    )
    x, _ = _box_muller(word0, word1)
    degrees = dof - torch.arange(count, dtype=torch.float64, device=device).unsqueeze(1)
    d = 0.5 * degrees - 1.0 / 3.0
    v = 1.0 + x * (1.0 / torch.sqrt(9.0 * d))
    v = v * v * v
    # The logarithm of v < 0 is NaN, which fails the comparison as it should.
    accepted = torch.log(_unit(word2)) < 0.5 * x * x + d - d * v + d * torch.log(v)
    tried = torch.arange(attempts, device=device)
    position = torch.where(accepted, tried, attempts).amin(dim=2, keepdim=True)
    chosen = v.gather(2, position.clamp(max=attempts - 1))
    by_rejection = 2.0 * d * torch.where(position < attempts, chosen, 1.0)
    first_normal = x.narrow(2, 0, 1)
    return torch.where(degrees == 1.0, first_normal * first_normal, by_rejection).squeeze(2)


# ---------------------------------------------------------------- indices


def randint(words: Tensor, n: int) -> Tensor:
    """Integers of range(n) from 32-bit words, ⌊word·n/2³²⌋: each has probability 1/n to within 2⁻³².

    Parameters
    ----------
    words : Tensor of int64
        In [0, 2³²), as from :func:`words`.
    n : int
        At most 2³⁰.

    Examples
    --------
    >>> randint(torch.tensor([0, 2**31, 2**32 - 1]), 10)
    tensor([0, 5, 9])
    """
    return (words * n) >> 32


def _index_words(seed: int, purpose: int, streams: Tensor, step: int, n: int) -> Tensor:
    quads = _quads(seed, purpose, streams, step, rng.FIRST_INDEX_BLOCK, -(-n // 4))
    return _unsigned(_interleave(quads).narrow(1, 0, n))


def integers(seed: int, purpose: int, streams: Tensor, step: int, n: int, size: int) -> Tensor:
    """Return `size` independent integers of range(n) per replica, as int64; shape (replica, size).

    Examples
    --------
    >>> bool((integers(0, 1, torch.arange(9), step=0, n=5, size=7) < 5).all())
    True
    """
    step = rng.check_step(step)
    if _compiled(streams):
        low, high, what, lanes = _arguments(seed, purpose, streams)
        out = np.empty((lanes.size, size), np.int64)
        rng_draws.index_rows(out, n, low, high, what, lanes, step)
        return torch.from_numpy(out)
    return randint(_index_words(seed, purpose, streams, step, size), n)


def sample_without_replacement(seed: int, purpose: int, streams: Tensor, step: int, n: int, size: int) -> Tensor:
    """Return `size` different integers of range(n) per replica by Floyd's algorithm, as int64; shape (replica, size).

    Every subset is equally likely; the order within a row is not uniform.

    Raises
    ------
    InvalidParameterError
        If `size` is larger than n.

    Examples
    --------
    >>> sorted(sample_without_replacement(0, 1, torch.tensor([4]), step=0, n=3, size=3)[0].tolist())
    [0, 1, 2]
    """
    step = rng.check_step(step)
    if size > n:
        raise checks.invalid("size", size, f"at most n = {n}", "no index is drawn twice", "Use `integers` to repeat.")
    if _compiled(streams):
        low, high, what, lanes = _arguments(seed, purpose, streams)
        out = np.empty((lanes.size, size), np.int64)
        rng_draws.subset_rows(out, n, low, high, what, lanes, step)
        return torch.from_numpy(out)
    drawn = _index_words(seed, purpose, streams, step, size)
    chosen: list[Tensor] = []
    for i, word in enumerate(drawn.unbind(dim=1)):
        last = n - size + i
        candidate = randint(word, last + 1)
        if chosen:
            taken = (torch.stack(chosen, dim=1) == candidate.unsqueeze(1)).any(dim=1)
            candidate = torch.where(taken, last, candidate)
        chosen.append(candidate)
    return torch.stack(chosen, dim=1)


def permutation(seed: int, purpose: int, streams: Tensor, step: int, n: int) -> Tensor:
    """Return a random permutation of range(n) per replica, as int64; shape (replica, n).

    Examples
    --------
    >>> sorted(permutation(0, 3, torch.tensor([4]), step=0, n=3)[0].tolist())
    [0, 1, 2]
    """
    step = rng.check_step(step)
    if _compiled(streams):
        low, high, what, lanes = _arguments(seed, purpose, streams)
        out = np.empty((lanes.size, n), np.int64)
        rng_draws.permutation_rows(out, low, high, what, lanes, step)
        return torch.from_numpy(out)
    return torch.argsort(_index_words(seed, purpose, streams, step, n), dim=1, stable=True)
