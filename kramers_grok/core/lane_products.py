"""Products of many small matrices at once, one replica in each lane: see :mod:`kramers_grok.core.lanes`.

The products keep a tile of the result in registers while they sum, so that most of their time goes into multiplying.
They are compiled once per dtype, for all sizes. Sums run in order, by fused multiply-add: the same to the bit on every
processor.

Everything here is for compiled code and checks nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from kramers_grok.core.compiled import njit
from kramers_grok.core.lanes import LANE_BYTES, Block, into_njit, procedure, stay_out

__all__ = [
    "descend",
    "product",
    "times",
    "times_transposed",
    "transposed_times",
]


# ---------------------------------------------------------------- tiles


class _Vectors:
    """Entries of a block as vectors, in the function that is being built."""

    def __init__(self, context: Any, builder: Any, array_type: Any, array: Any) -> None:
        self.builder = builder
        bits = array_type.dtype.bitwidth
        self.align = bits // 8
        self.vector = ir.VectorType(context.get_value_type(array_type.dtype), LANE_BYTES // self.align)
        name = f"llvm.fma.v{self.vector.count}f{bits}"
        self._fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(self.vector, [self.vector] * 3), name
        )
        data = context.make_array(array_type)(context, builder, array).data
        self._base = builder.bitcast(data, self.vector.as_pointer())
        self.zero = ir.Constant(self.vector, None)

    def load(self, entry: Any) -> Any:
        return self.builder.load(self.builder.gep(self._base, [entry]), align=self.align)

    def store(self, value: Any, entry: Any) -> None:
        self.builder.store(value, self.builder.gep(self._base, [entry]), align=self.align)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return self.builder.call(self._fma, [a, b, c])

    def along(self, first: Any, stride: Any, count: int, last: Any = None) -> list[Any]:
        """Entries first, first + stride, …, as many as asked for; beyond number `last` the last one again."""
        made = [first]
        for number in range(1, count):
            following = self.builder.add(made[-1], stride)
            if last is not None:
                beyond = self.builder.icmp_signed(">", following.type(number), last)
                following = self.builder.select(beyond, made[-1], following)
            made.append(following)
        return made


class _Matrix(NamedTuple):
    """A matrix in the code that is being built: first entry, entries to the next row and column, last row."""

    at: Any
    row: Any
    column: Any
    last: Any = None


def _sum(v: _Vectors, rows: int, columns: int, a: _Matrix, b: _Matrix, depth: Any, start: list[Any]) -> list[Any]:
    """Build the loop over k that adds A[i, k]·B[k, j] to `start`, a tile row by row; depth ≥ 1."""
    builder, word = v.builder, ir.IntType(64)
    before, loop, done = builder.block, builder.append_basic_block("k"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    k, a_k, b_k = (builder.phi(word) for _ in range(3))
    sums = [builder.phi(v.vector) for _ in start]
    of_b = [v.load(entry) for entry in v.along(b_k, b.column, columns)]
    summed = []
    for i, entry in enumerate(v.along(a_k, a.row, rows, a.last)):
        of_a = v.load(entry)
        summed += [v.fma(of_a, of_b[j], sums[i * columns + j]) for j in range(columns)]
    next_k = builder.add(k, word(1))
    counters = ((k, word(0), next_k), (a_k, a.at, builder.add(a_k, a.column)), (b_k, b.at, builder.add(b_k, b.row)))
    for phi, first, later in (*counters, *zip(sums, start, summed, strict=True)):
        phi.add_incoming(first, before)
        phi.add_incoming(later, loop)
    builder.cbranch(builder.icmp_signed("<", next_k, depth), loop, done)
    builder.position_at_end(done)
    return summed


def _either(v: _Vectors, condition: Any, entries: list[Any]) -> list[Any]:
    """Build what a tile begins from: its entries where the condition holds, otherwise zeros."""
    builder = v.builder
    before, held, start = builder.block, builder.append_basic_block("held"), builder.append_basic_block("start")
    builder.cbranch(condition, held, start)
    builder.position_at_end(held)
    loaded = [v.load(entry) for entry in entries]
    builder.branch(start)
    builder.position_at_end(start)
    chosen = [builder.phi(v.vector) for _ in entries]
    for phi, value in zip(chosen, loaded, strict=True):
        phi.add_incoming(v.zero, before)
        phi.add_incoming(value, held)
    return chosen


def _entries(v: _Vectors, rows: int, columns: int, c: _Matrix) -> list[Any]:
    return [e for first in v.along(c.at, c.row, rows, c.last) for e in v.along(first, c.column, columns)]


_ENTRY = types.intp
_ONE = ir.IntType(64)(1)


def _tile(rows: int, columns: int) -> Callable[..., None]:
    """Make the product of a tile: C = A·B, or C += A·B where `adding`. Rows beyond `last` repeat it: no harm done."""

    @procedure
    def tile(
        typing: Any, block: Any, c: Any, c_row: Any, a: Any, a_row: Any, a_column: Any, b: Any, b_row: Any,
        b_column: Any, depth: Any, last: Any, adding: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array, c0, c1, a0, a1, a2, b0, b1, b2, length, end, onto = arguments
            v = _Vectors(context, builder, block, array)
            entries = _entries(v, rows, columns, _Matrix(c0, c1, _ONE, end))
            start = _either(v, onto, entries)
            sums = _sum(v, rows, columns, _Matrix(a0, a1, a2, end), _Matrix(b0, b1, b2), length, start)
            for entry, value in zip(entries, sums, strict=True):
                v.store(value, entry)
            return context.get_dummy_value()

        return types.void(block, *(_ENTRY,) * 10, types.boolean), generate

    return tile


def _descending_tile(rows: int, columns: int) -> Callable[..., None]:
    """Make the update of a tile, C ← C − rate·(A·B + decay·C), with `rate` and `decay` one entry each."""

    @procedure
    def tile(
        typing: Any, block: Any, c: Any, c_row: Any, a: Any, a_row: Any, a_column: Any, b: Any, b_row: Any,
        b_column: Any, depth: Any, last: Any, rate: Any, decay: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array, c0, c1, a0, a1, a2, b0, b1, b2, length, end, rate_at, decay_at = arguments
            v = _Vectors(context, builder, block, array)
            entries = _entries(v, rows, columns, _Matrix(c0, c1, _ONE, end))
            start = [v.zero] * len(entries)
            sums = _sum(v, rows, columns, _Matrix(a0, a1, a2, end), _Matrix(b0, b1, b2), length, start)
            down, pull = builder.fneg(v.load(rate_at)), v.load(decay_at)
            moved = []  # read before any is written: an entry may be there twice
            for entry, gradient in zip(entries, sums, strict=True):
                old = v.load(entry)
                moved.append(v.fma(down, v.fma(pull, old, gradient), old))
            for entry, value in zip(entries, moved, strict=True):
                v.store(value, entry)
            return context.get_dummy_value()

        return types.void(block, *(_ENTRY,) * 12), generate

    return tile


# 16 sums and 8 factors fit into 32 registers. Fewer sums at once are slower: each waits for the one before it.
_tile_44, _tile_41 = _tile(4, 4), _tile(4, 1)
_descend_44, _descend_41 = _descending_tile(4, 4), _descending_tile(4, 1)


# ---------------------------------------------------------------- products


@njit
def _product(
    block: Block, c: Any, c_row: Any, a: Any, a_row: Any, a_column: Any, b: Any, b_row: Any, b_column: Any,
    rows: Any, depth: Any, columns: Any, adding: Any,
) -> None:  # fmt: skip
    stay_out()
    for j in range(0, columns, 4):
        for i in range(0, rows, 4):
            at, of_a, last = c + i * c_row, a + i * a_row, rows - 1 - i
            if j + 4 <= columns:
                _tile_44(
                    block, at + j, c_row, of_a, a_row, a_column, b + j * b_column, b_row, b_column, depth, last, adding
                )
                continue
            for n in range(j, columns):
                _tile_41(
                    block, at + n, c_row, of_a, a_row, a_column, b + n * b_column, b_row, b_column, depth, last, adding
                )


@into_njit
def product(
    block: Block, c: int, c_row: int, a: int, a_row: int, a_column: int, b: int, b_row: int, b_column: int,
    rows: int, depth: int, columns: int, adding: bool,
) -> None:  # fmt: skip
    """C = A·B in every lane, or C += A·B where `adding`.

    Parameters
    ----------
    block : ndarray, flat
        Holds all three matrices; C must not overlap the others.
    c, a, b : int
        First entries of the matrices.
    c_row, a_row, a_column, b_row, b_column : int
        Entries from one row or column to the next; the columns of C lie side by side.
    rows, depth, columns : int
        A is rows × depth, B is depth × columns; at least 1.
    """
    # numba compiles a function anew for every constant among its arguments: none may arrive as one.
    _product(
        block, np.int64(c), np.int64(c_row), np.int64(a), np.int64(a_row), np.int64(a_column), np.int64(b),
        np.int64(b_row), np.int64(b_column), np.int64(rows), np.int64(depth), np.int64(columns), np.bool_(adding),
    )  # fmt: skip


@into_njit
def times(block: Block, c: int, a: int, b: int, rows: int, depth: int, columns: int, adding: bool = False) -> None:
    """C = A·B or C += A·B, all row by row: A is rows × depth, B is depth × columns; see :func:`product`."""
    product(block, c, columns, a, depth, 1, b, columns, 1, rows, depth, columns, adding)


@into_njit
def times_transposed(
    block: Block, c: int, a: int, b: int, rows: int, depth: int, columns: int, adding: bool = False
) -> None:
    """C = A·Bᵀ or C += A·Bᵀ, all row by row: A is rows × depth, B is columns × depth; see :func:`product`."""
    product(block, c, columns, a, depth, 1, b, 1, depth, rows, depth, columns, adding)


@into_njit
def transposed_times(
    block: Block, c: int, a: int, b: int, rows: int, depth: int, columns: int, adding: bool = False
) -> None:
    """C = Aᵀ·B or C += Aᵀ·B, all row by row: A is depth × rows, B is depth × columns; see :func:`product`."""
    product(block, c, columns, a, 1, rows, b, columns, 1, rows, depth, columns, adding)


@njit
def _descend(
    block: Block, c: Any, c_row: Any, a: Any, a_row: Any, a_column: Any, b: Any, b_row: Any, b_column: Any,
    rows: Any, depth: Any, columns: Any, rate: Any, decay: Any,
) -> None:  # fmt: skip
    stay_out()
    for j in range(0, columns, 4):
        for i in range(0, rows, 4):
            at, of_a, last = c + i * c_row, a + i * a_row, rows - 1 - i
            if j + 4 <= columns:
                _descend_44(
                    block, at + j, c_row, of_a, a_row, a_column, b + j * b_column, b_row, b_column, depth, last, rate,
                    decay,
                )  # fmt: skip
                continue
            for n in range(j, columns):
                _descend_41(
                    block, at + n, c_row, of_a, a_row, a_column, b + n * b_column, b_row, b_column, depth, last, rate,
                    decay,
                )  # fmt: skip


@into_njit
def descend(
    block: Block, c: int, c_row: int, a: int, a_row: int, a_column: int, b: int, b_row: int, b_column: int,
    rows: int, depth: int, columns: int, rate: int, decay: int,
) -> None:  # fmt: skip
    """C ← C − rate·(A·B + decay·C) in every lane: a step down the gradient A·B with weight decay.

    Parameters
    ----------
    block, c, c_row, a, a_row, a_column, b, b_row, b_column, rows, depth, columns
        As for :func:`product`.
    rate, decay : int
        Entries that hold each replica's rate and weight decay.
    """
    _descend(
        block, np.int64(c), np.int64(c_row), np.int64(a), np.int64(a_row), np.int64(a_column), np.int64(b),
        np.int64(b_row), np.int64(b_column), np.int64(rows), np.int64(depth), np.int64(columns), np.int64(rate),
        np.int64(decay),
    )  # fmt: skip
