r"""Elementary functions for compiled loops that the compiler turns into vector instructions.

Calls into the mathematical library stop LLVM from vectorising a loop, so the logarithm, sine and cosine that a normal
number needs are written out here: no branch, no table, only operations that IEEE 754 rounds exactly (+, −, ×, ÷, √,
fused multiply-add). The result for one element is therefore the same to the bit in a vector, in the rest of a
loop that does not fill a vector, and on every processor.

The polynomials are those of Sun's fdlibm (``e_log.c``, ``k_sin.c``, ``k_cos.c``); the logarithm is good to 2 units in
the last place, a normal number to 4. In single precision sine and cosine are those of Moshier's Cephes (``sinf.c``),
and a normal number is that of full precision to 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

from kramers_grok.core.cache import kept_by_content

__all__ = ["box_muller", "box_muller_single", "fma", "fma_single", "inline_njit", "log", "njit", "wide_vectors"]

F = TypeVar("F", bound=Callable[..., Any])


def njit(function: F) -> F:
    """Compile a function with the GIL released, the machine code kept on disk and numpy's division by zero."""
    with kept_by_content():
        return cast(F, numba.njit(nogil=True, cache=True, error_model="numpy")(function))


def inline_njit(function: F) -> F:
    """Compile a scalar function that is always inlined: a call left inside a loop would stop its vectorisation."""
    with kept_by_content():
        return cast(F, numba.njit(nogil=True, cache=True, error_model="numpy", forceinline=True)(function))


# numba is untyped: these say what the compiled functions return.
_nothing_intrinsic: Callable[[Callable[..., Any]], Callable[..., None]] = intrinsic
_float_intrinsic: Callable[[Callable[..., Any]], Callable[..., float]] = intrinsic
_bits_intrinsic: Callable[[Callable[..., Any]], Callable[..., np.uint64]] = intrinsic
_single_intrinsic: Callable[[Callable[..., Any]], Callable[..., np.float32]] = intrinsic
_word_intrinsic: Callable[[Callable[..., Any]], Callable[..., np.uint32]] = intrinsic


@_nothing_intrinsic
def wide_vectors(typing: Any) -> Any:
    """Ask for the widest vectors that the processor has in the loops of the compiled function that calls this.

    LLVM takes half of AVX-512's width for loops in general. The loops here are arithmetic throughout, where the full
    width pays; results are the same to the bit. Processors with narrower vectors do not notice.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # llvmlite has no name for this attribute: it goes in as text.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), generate


@_bits_intrinsic
def _bits(typing: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.uint64))

    return types.uint64(types.float64), generate


@_float_intrinsic
def _from_bits(typing: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float64))

    return types.float64(types.uint64), generate


@_float_intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a·b + c rounded once; for compiled code only."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), generate


@_word_intrinsic
def _single_bits(typing: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), generate


@_single_intrinsic
def _single_from_bits(typing: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), generate


@_single_intrinsic
def fma_single(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a·b + c in single precision, rounded once; for compiled code only."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


_SQRT_HALF = np.uint64(0x3FE6A09E667F3BCD)  # bits of √½
_RANGE_SHIFT = np.uint64(0x3FF0000000000000 - 0x3FE6A09E667F3BCD)  # from [√½, √2) to [1, 2) in bits
_MANTISSA = np.uint64(0x000FFFFFFFFFFFFF)
_EXPONENT_SHIFT = np.uint64(52)
_INTEGER = np.uint64(0x4330000000000000)  # bits of 2⁵²: or-ing an integer below 2⁵² into them gives 2⁵² + integer
_INTEGER_BIAS = 2.0**52 + 1023.0
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10


@inline_njit
def log(x: float) -> float:
    """Natural logarithm of a positive normal number, within 2 ulp.

    With x = 2ᵏ(1 + f), √½ ≤ 1 + f < √2, and s = f/(2 + f): log x = k ln 2 + 2s + s·R(s²).

    Parameters
    ----------
    x : float
        Positive, finite and not subnormal; not checked.

    Examples
    --------
    >>> log(1.0), abs(log(0.3) - math.log(0.3)) < 3e-16
    (0.0, True)
    """
    shifted = _bits(x) + _RANGE_SHIFT
    f = _from_bits((shifted & _MANTISSA) + _SQRT_HALF) - 1.0
    k = _from_bits((shifted >> _EXPONENT_SHIFT) | _INTEGER) - _INTEGER_BIAS
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    even = fma(w, fma(w, 1.531383769920937332e-01, 2.222219843214978396e-01), 3.999999999940941908e-01)
    odd = fma(w, 1.479819860511658591e-01, 1.818357216161805012e-01)
    odd = fma(w, fma(w, odd, 2.857142874366239149e-01), 6.666666666666735130e-01)
    tail = s * (z * fma(z, even, odd))
    return fma(k, _LN2_HIGH, fma(s, 2.0, fma(k, _LN2_LOW, tail)))


_QUARTER_TURN = np.uint32(1 << 30)
_EIGHTH_TURN = np.uint32(1 << 29)
_HALF_TURN = np.uint32(1 << 31)
_TURN = 2.0 * math.pi * 2.0**-32  # radians per unit of a 32-bit word


@inline_njit
def box_muller(word0: Any, word1: Any) -> tuple[float, float]:
    r"""Two independent standard normals from two 32-bit words.

    .. math::

        u_i = (w_i + ½)/2^{32}, \quad r = \sqrt{-2 \ln u_0}, \quad
        (n_0, n_1) = r\,(\cos 2\pi u_1, \sin 2\pi u_1)

    The angle is reduced to (−π/4, π/4] in integers, hence without error. No \|n\| exceeds 6.77, which a true normal
    exceeds with probability 1.3e-11.

    Source: Box & Muller, Ann. Math. Stat. 29, 610 (1958).

    Examples
    --------
    >>> n0, n1 = box_muller(np.uint32(2**31), np.uint32(2**29))  # u = (½, ⅛): the diagonal
    >>> bool(abs(n0 - math.sqrt(math.log(2))) < 1e-9 and abs(n1 - math.sqrt(math.log(2))) < 1e-8)
    True
    """
    w0, w1 = np.uint32(word0), np.uint32(word1)
    radius = math.sqrt(-2.0 * log(fma(np.float64(w0), 2.0**-32, 2.0**-33)))
    # The low 30 bits, taken as a signed number, are the angle to the nearest quarter turn (times 4 here).
    x = fma(np.float64(np.int32(np.uint32(w1 << np.uint32(2)))), 0.25 * _TURN, 0.5 * _TURN)
    z = x * x
    sine = fma(z, fma(z, 1.58969099521155010221e-10, -2.50507602534068634195e-08), 2.75573137070700676789e-06)
    sine = fma(z, fma(z, sine, -1.98412698298579493134e-04), 8.33333333332248946124e-03)
    sine = fma(z * x, fma(z, sine, -1.66666666666666324348e-01), x)
    cosine = fma(z, fma(z, -1.13596475577881948265e-11, 2.08757232129817482790e-09), -2.75573143513906633035e-07)
    cosine = fma(z, fma(z, cosine, 2.48015872894767294178e-05), -1.38888888888741095749e-03)
    cosine = fma(z, fma(z, fma(z, cosine, 4.16666666666666019037e-02), -0.5), 1.0)
    turned = np.uint32(w1 + _EIGHTH_TURN)  # its two highest bits count the quarter turns
    swapped = (turned & _QUARTER_TURN) != 0
    n0 = sine if swapped else cosine
    n1 = cosine if swapped else sine
    n0 = -n0 if (np.uint32(turned + _QUARTER_TURN) & _HALF_TURN) != 0 else n0
    n1 = -n1 if (turned & _HALF_TURN) != 0 else n1
    return radius * n0, radius * n1


# ---------------------------------------------------------------- single precision

_f = np.float32  # a plain Python number would widen the whole expression to double precision
_ULP, _HALF_ULP = _f(2.0**-32), _f(2.0**-33)  # of a word that stands for a fraction
_ONE, _HALF, _MINUS_TWO = _f(1.0), _f(0.5), _f(-2.0)
_SQRT_HALF_SINGLE = np.uint32(0x3F3504F3)  # bits of √½
_SQRT_HALF_VALUE = np.array([0x3F3504F3], np.uint32).view(np.float32)[0]
_EXPONENT_SINGLE, _SIGN_SINGLE = np.uint32(0xFF800000), np.uint32(0x80000000)
_MINUS_TWO_LN2 = _f(-2.0 * math.log(2.0) * 2.0**-23)  # the exponent is counted in units of its lowest bit
# −2 (ln(1 + f) − f + f²/2) / f³ on [√½ − 1, √2 − 1], to 3e-8 of the logarithm: a minimax fit
_LOG = tuple(
    _f(-2.0 * c)
    for c in (
        0.33333910734539246, -0.2500133703611757, 0.1996306391007992, -0.16577584750579988, 0.1491476683330865,
        -0.14267486277536803, 0.0870043820211098,
    )
)  # fmt: skip
_SINE = tuple(_f(c) for c in (-1.6666654611e-1, 8.3321608736e-3, -1.9515295891e-4))
_COSINE = tuple(_f(c) for c in (4.166664568298827e-2, -1.388731625493765e-3, 2.443315711809948e-5))
_QUARTER_ANGLE, _HALF_ANGLE = _f(0.25 * _TURN), _f(0.5 * _TURN)


@inline_njit
def _squared_radius(word: Any) -> Any:
    """−2 ln((word + ½)/2³²) in single precision, to a relative 3e-7 everywhere, near 0 too."""
    x = fma_single(np.float32(word), _ULP, _HALF_ULP)
    bits = _single_bits(x)
    exponent = np.uint32(np.uint32(bits - _SQRT_HALF_SINGLE) & _EXPONENT_SINGLE)
    k = np.float32(np.int32(exponent))
    reduced = _single_from_bits(np.uint32(bits - exponent)) - _ONE
    # Close to 1 single precision has lost the word's last bits; its distance from 1 has not.
    to_one = fma_single(np.float32(np.uint32(~word)), -_ULP, -_HALF_ULP)
    f = to_one if x >= _SQRT_HALF_VALUE else reduced
    z = f * f
    # Two interleaved halves: a shorter chain of dependent operations.
    even = fma_single(z, fma_single(z, fma_single(z, _LOG[6], _LOG[4]), _LOG[2]), _LOG[0])
    odd = fma_single(z, fma_single(z, _LOG[5], _LOG[3]), _LOG[1])
    tail = fma_single(z * f, fma_single(f, odd, even), fma_single(k, _MINUS_TWO_LN2, z))
    return fma_single(_MINUS_TWO, f, tail)


@inline_njit
def _with_sign(x: Any, word: Any) -> Any:
    """Turn the sign of x where a word's highest bit is set."""
    return _single_from_bits(np.uint32(_single_bits(x) ^ np.uint32(word & _SIGN_SINGLE)))


@inline_njit
def box_muller_single(word0: Any, word1: Any) -> tuple[Any, Any]:
    r"""What :func:`box_muller` makes of two 32-bit words, by single-precision arithmetic: to 1e-6, and much faster.

    Each number is that of full precision to a relative 4e-7, hence has the same tails, up to 6.77, and none of the gaps
    that uniform numbers of 24 bits would leave: both ends of :math:`u_0` come from all 32 bits of the word, and the
    angle is reduced in integers.

    Returns
    -------
    tuple of float32

    Examples
    --------
    >>> n0, n1 = box_muller_single(np.uint32(2**31), np.uint32(2**29))  # u = (½, ⅛): the diagonal
    >>> bool(abs(n0 - math.sqrt(math.log(2))) < 1e-6 and abs(n1 - math.sqrt(math.log(2))) < 1e-6)
    True
    """
    w0, w1 = np.uint32(word0), np.uint32(word1)
    radius = np.float32(math.sqrt(_squared_radius(w0)))
    x = fma_single(np.float32(np.int32(np.uint32(w1 << np.uint32(2)))), _QUARTER_ANGLE, _HALF_ANGLE)
    z = x * x
    sine = fma_single(z * x, fma_single(z, fma_single(z, _SINE[2], _SINE[1]), _SINE[0]), x)
    cosine = fma_single(z, fma_single(z, fma_single(z, _COSINE[2], _COSINE[1]), _COSINE[0]), -_HALF)
    cosine = fma_single(z, cosine, _ONE)
    turned = np.uint32(w1 + _EIGHTH_TURN)
    swapped = (turned & _QUARTER_TURN) != 0
    n0 = _with_sign(sine if swapped else cosine, np.uint32(turned + _QUARTER_TURN))
    n1 = _with_sign(cosine if swapped else sine, turned)
    return radius * n0, radius * n1
