r"""Many replicas at once: one in each lane of a vector register.

A block holds as many replicas as a 512-bit register holds numbers (:func:`lane_count`: 8 of float64, 16 of float32).
Its memory is one flat array, entry after entry; an entry is one number of every replica, side by side. A matrix is
named by its first entry and lies there row by row. One instruction then works on one number of all replicas, whatever
the sizes of the matrices, and no lane's result depends on what the others hold.

Products of matrices are those of :mod:`kramers_grok.core.lane_products`. Everything here is for compiled code and
checks nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model
from numpy.typing import NDArray

from kramers_grok.core.compiled import njit

__all__ = [
    "LANE_BYTES",
    "Block",
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
    "scatter",
    "stay_out",
    "store",
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
procedure: Callable[[Callable[..., Any]], Callable[..., None]] = intrinsic


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


@procedure
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


@procedure
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
