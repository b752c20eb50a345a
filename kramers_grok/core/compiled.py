r"""Elementary functions for compiled loops that the compiler turns into vector instructions.

Calls into the mathematical library stop LLVM from vectorising a loop, so the logarithm, sine and cosine that a normal
number needs are written out here: no branch, no table, only operations that IEEE 754 rounds exactly (+, −, ×, ÷, √,
fused multiply-add). The result for one element is therefore the same to the bit in a vector, in the rest of a
loop that does not fill a vector, and on every processor.

The polynomials are those of Sun's fdlibm (``e_log.c``, ``k_sin.c``, ``k_cos.c``); the logarithm is good to 2 units in
the last place, a normal number to 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

__all__ = ["box_muller", "fma", "inline_njit", "log", "njit"]

F = TypeVar("F", bound=Callable[..., Any])


def njit(function: F) -> F:
    """Compile a function with the GIL released, the machine code kept on disk and numpy's division by zero."""
    return cast(F, numba.njit(nogil=True, cache=True, error_model="numpy")(function))


def inline_njit(function: F) -> F:
    """Compile a scalar function that is always inlined: a call left inside a loop would stop its vectorisation."""
    return cast(F, numba.njit(nogil=True, cache=True, error_model="numpy", forceinline=True)(function))


# numba is untyped: these say what the compiled functions return.
_float_intrinsic: Callable[[Callable[..., Any]], Callable[..., float]] = intrinsic
_bits_intrinsic: Callable[[Callable[..., Any]], Callable[..., np.uint64]] = intrinsic


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
