r"""Products of many small matrices at once: one replica in each lane of a vector register.

A block holds as many replicas as a 512-bit register holds numbers (:func:`lane_count`: 8 of float64, 16 of float32).
Its memory is one flat array, entry after entry; an entry is one number of every replica, side by side. A matrix is
named by its first entry and lies there row by row. One instruction then works on one number of all replicas, whatever
the sizes of the matrices, and no lane's result depends on what the others hold.

The products keep a tile of the result in registers while they sum, so that most of their time goes into multiplying.
They are compiled once per dtype, for all sizes. Sums run in order, by fused multiply-add: the same to the bit on every
processor.

Everything here is for compiled code and checks nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model
from numpy.typing import NDArray

from kramers_grok.core.compiled import njit

__all__ = [
    "LANE_BYTES",
    "Block",
    "descend",
    "empty_entries",
    "gather",
    "into_njit",
    "lane_count",
    "lanes_of",
    "load",
    "load_as",
    "minus",
    "multiplied",
    "plus",
    "product",
    "scatter",
    "stay_out",
    "store",
    "times",
    "times_transposed",
    "transposed_times",
]

Block = NDArray[Any]  # flat; float64 or float32

LANE_BYTES = 64  # bytes of an entry: a vector register, and a cache line

F = TypeVar("F", bound=Callable[..., Any])


def into_njit(function: F) -> F:
    """Write a short function's statements into its compiled callers: nothing of it is compiled by itself."""
    return cast(F, numba.njit(inline="always")(function))


# numba is untyped: these say what the compiled functions return.
_int_intrinsic: Callable[[Callable[..., Any]], Callable[..., int]] = intrinsic
_entry_intrinsic: Callable[[Callable[..., Any]], Callable[..., Any]] = intrinsic
_procedure: Callable[[Callable[..., Any]], Callable[..., None]] = intrinsic


def lane_count(dtype: Any) -> int:
    """Return how many replicas lie side by side.

    Examples
    --------
    >>> lane_count(np.float64), lane_count(np.float32)
    (8, 16)
    """
    return LANE_BYTES // int(np.dtype(dtype).itemsize)


@_int_intrinsic
def lanes_of(typing: Any, block: Any) -> Any:
    """Lanes of a block, known to the compiler: loops over them become vector instructions without a remainder."""
    count = LANE_BYTES * 8 // block.dtype.bitwidth

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, count)

    return types.intp(block), generate


@_int_intrinsic
def _address(typing: Any, array: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.intp(array), generate


@_procedure
def stay_out(typing: Any) -> Any:
    """Keep the function that calls this out of its callers: inlined, its many numbers crowd their registers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


@into_njit
def empty_entries(entries: int, like: Any) -> Block:
    """Return room for entries of the dtype of `like`, flat and not initialised.

    It begins at a cache line, since a load across two lines costs double.
    """
    lanes = lanes_of(like)
    raw = np.empty((entries + 1) * lanes, like.dtype)
    skip = (-_address(raw) % LANE_BYTES) // like.itemsize
    return raw[skip : skip + entries * lanes]


@into_njit
def gather(block: Block, at: int, rows: Any, begin: int, end: int) -> None:
    """Write rows begin … end of a table (replica, entry) to the lanes; lanes beyond hold the last of them."""
    lanes = lanes_of(block)
    for lane in range(lanes):
        row = rows[min(begin + lane, end - 1)]
        for j in range(row.shape[0]):
            block[(at + j) * lanes + lane] = row[j]


@njit
def scatter(row: Any, block: Block, at: int, lane: int) -> None:
    """Write one lane to a replica's row."""
    lanes = lanes_of(block)
    for j in range(row.shape[0]):
        row[j] = block[(at + j) * lanes + lane]


# ---------------------------------------------------------------- one entry


class _Entry(types.Type):
    """Type of one entry in compiled code: a vector register."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"entry({dtype})")


@register_model(_Entry)
class _EntryModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, entry: Any) -> None:
        element = manager.lookup(entry.dtype).get_value_type()
        super().__init__(manager, entry, ir.VectorType(element, LANE_BYTES * 8 // entry.dtype.bitwidth))


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(builder.bitcast(data, vector.as_pointer()), [index])


@_entry_intrinsic
def load(typing: Any, block: Any, entry: Any) -> Any:
    """Entry of a block."""
    return _Entry(block.dtype)(block, entry), _load(block, block)


@_entry_intrinsic
def load_as(typing: Any, block: Any, other: Any, group: Any) -> Any:
    """Group of as many numbers as the block has lanes, from another flat array, in the block's precision."""
    return _Entry(block.dtype)(block, other, group), _load(block, other)


def _load(block: Any, other: Any) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wanted = context.get_value_type(signature.return_type)
        vector = ir.VectorType(context.get_value_type(other.dtype), wanted.count)
        pointer = _pointer(context, builder, other, arguments[-2], arguments[-1], vector)
        loaded = builder.load(pointer, align=other.dtype.bitwidth // 8)
        if other.dtype.bitwidth < block.dtype.bitwidth:
            return builder.fpext(loaded, wanted)
        return builder.fptrunc(loaded, wanted) if other.dtype.bitwidth > block.dtype.bitwidth else loaded

    return generate


@_procedure
def store(typing: Any, block: Any, entry: Any, value: Any) -> Any:
    """Write an entry of a block."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = context.get_value_type(value)
        pointer = _pointer(context, builder, block, arguments[0], arguments[1], vector)
        builder.store(arguments[2], pointer, align=block.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(block, entry, value), generate


def _arithmetic(name: str) -> Callable[..., Any]:
    @_entry_intrinsic
    def operation(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, name)(*arguments)

        return a(a, a), generate

    return operation


plus, minus, multiplied = _arithmetic("fadd"), _arithmetic("fsub"), _arithmetic("fmul")


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

    @_procedure
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

    @_procedure
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
    rate, decay : int
        Entries that hold each replica's rate and weight decay.
    block, c, a, b, …
        As for :func:`product`.
    """
    _descend(
        block, np.int64(c), np.int64(c_row), np.int64(a), np.int64(a_row), np.int64(a_column), np.int64(b),
        np.int64(b_row), np.int64(b_column), np.int64(rows), np.int64(depth), np.int64(columns), np.int64(rate),
        np.int64(decay),
    )  # fmt: skip
