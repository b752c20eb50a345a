r"""Activation functions for compiled loops, and their derivatives: no branch, no table, vector instructions throughout.

As in :mod:`kramers_grok.core.compiled` only operations are used that IEEE 754 rounds exactly, so a number's result is
the same to the bit wherever it stands in a loop and on every processor. Every function works in the precision of its
argument, float64 or float32. Values are good to 5 units in the last place of the larger of them and 1, derivatives to
4; tanh and softplus have all digits of small values too. NaN stays NaN.

- tanh comes from :math:`e^{-2|x|} - 1`, and is odd to the bit;
- softplus from :math:`\log(1+u) = 2\,\mathrm{artanh}\,\frac{u}{2+u}` with :math:`u = e^{-|x|}`;
- Φ, for GELU, from a Chebyshev series of :math:`(1+2x)\,e^{x^2}\mathrm{erfc}\,x`.

The series in :math:`(x-K)/(x+K)` is that of Shepherd and Laframboise, Math. Comp. 36, 249 (1981); all polynomials are
Chebyshev expansions of the functions they stand for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kramers_grok.core.compiled import inline_njit, njit, wide_vectors
from kramers_grok.core.lanes import Block, lanes_of, stay_out

__all__ = [
    "GELU", "IDENTITY", "QUADRATIC", "RELU", "SOFTPLUS", "TANH", "activate", "gelu", "multiply", "quadratic", "relu",
    "softplus", "tanh",
]  # fmt: skip

IDENTITY, TANH, RELU, GELU, SOFTPLUS, QUADRATIC = range(6)

# numba is untyped: this says what the compiled functions return.
_float_intrinsic: Callable[[Callable[..., Any]], Callable[..., Any]] = intrinsic

# (float64, float32): exponent's place, its bias, 1.5·2^52 that rounds to whole numbers when added
_EXPONENT = {64: (52, 1023), 32: (23, 127)}


def _polynomial(double: tuple[float, ...], single: tuple[float, ...]) -> Callable[[Any], Any]:
    """Make a polynomial with coefficients for either precision, lowest first, summed in two interleaved halves."""

    @_float_intrinsic
    def evaluate(typing: Any, x: Any) -> Any:
        coefficients = double if x == types.float64 else tuple(float(np.float32(c)) for c in single)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            (at,) = arguments

            def chain(numbers: tuple[float, ...], argument: Any) -> Any:
                total = at.type(numbers[-1])
                for number in numbers[-2::-1]:
                    total = builder.fma(total, argument, at.type(number))
                return total

            square = builder.fmul(at, at)
            odd = chain(coefficients[1::2], square)
            return builder.fma(odd, at, chain(coefficients[::2], square))

        return x(x), generate

    return evaluate


@_float_intrinsic
def _fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c rounded once, in the precision of its arguments."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return a(a, a, a), generate


@_float_intrinsic
def _two_to(typing: Any, rounded: Any) -> Any:
    """2ᵏ from k + 1.5·2⁵² (1.5·2²³ in single precision), whose lowest bits are those of k."""
    place, bias = _EXPONENT[rounded.bitwidth]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(rounded.bitwidth)
        bits = builder.shl(builder.bitcast(arguments[0], word), word(place))
        return builder.bitcast(builder.add(bits, word(bias << place)), arguments[0].type)

    return rounded(rounded), generate


@_float_intrinsic
def _with_sign_of(typing: Any, size: Any, sign: Any) -> Any:
    """|size| with the sign of another number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        name = f"llvm.copysign.f{size.bitwidth}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind, kind]), name)
        return builder.call(function, arguments)

    return size(size, size), generate


def _either(double: float, single: float) -> Callable[[Any], Any]:
    """Make a constant in the precision of the argument."""

    @_float_intrinsic
    def constant(typing: Any, like: Any) -> Any:
        number = double if like == types.float64 else float(np.float32(single))

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return arguments[0].type(number)

        return like(like), generate

    return constant


_MAGIC = _either(1.5 * 2.0**52, 1.5 * 2.0**23)
_LOG2_E = _either(1.4426950408889634, 1.4426950408889634)
# ln 2 in two parts, the first with so many zero bits at its end that its multiples by k are exact
_LN2_HIGH = _either(-6.93147180369123816490e-01, -0.693359375)
_LN2_LOW = _either(-1.90821492927058770002e-10, 2.12194440054690582e-04)
_LOWEST = _either(-708.0, -87.0)  # beyond, eˣ is no longer a normal number
_TANH_ONE = _either(22.0, 10.0)  # beyond, tanh rounds to 1
_PHI_END = _either(40.0, 15.0)  # beyond, Φ rounds to 0 or 1
_ROOT_HALF, _PER_ROOT_TAU = _either(0.5**0.5, 0.5**0.5), _either(0.3989422804014327, 0.3989422804014327)
_MIDDLE = _either(3.75, 3.0)  # of the argument of the series of erfc
_HALF, _ONE, _TWO = _either(0.5, 0.5), _either(1.0, 1.0), _either(2.0, 2.0)

# (eʳ − 1 − r)/r² for |r| ≤ ½ ln 2
_EXPM1 = _polynomial(
    (
        0.5, 0.1666666666666667, 0.04166666666666668, 0.008333333333326134, 0.0013888888888879073,
        0.00019841269874822307, 2.4801587336443602e-05, 2.755725539833871e-06, 2.7557263277791584e-07,
        2.5105217695684516e-08, 2.091813816945801e-09,
    ),
    (
        0.5000000013470303, 0.16666666719039147, 0.04166646489535542, 0.008333298466399871, 0.0013933652487807975,
        0.000198992878405384,
    ),
)  # fmt: skip
# artanh(√w)/√w for w ≤ 1/9
_ARTANH = _polynomial(
    (
        1.0, 0.3333333333333307, 0.20000000000094656, 0.14285714272520955, 0.11111112052466518, 0.09090870008906127,
        0.07693315371624586, 0.06650081100282697, 0.060558960079100006, 0.041588104702145766, 0.08528287251473514,
    ),
    (1.0000000039388743, 0.33333157967540716, 0.20012426861723684, 0.13980709417567627, 0.14087328630725032),
)  # fmt: skip
# (1 + 2x) exp(x²) erfc(x) in (x − K)/(x + K) for x ≥ 0
_ERFC = _polynomial(
    (
        1.2375126308378275, -0.14024059858554702, 0.0035854154854644297, 0.08227673849015103, -0.10880393014174887,
        0.09230432116019821, -0.0586933985896364, 0.028362277421517514, -0.009746579558033017, 0.0017556258324055941,
        0.000293713665613451, -0.00029015397920610387, 5.16490988103985e-05, 2.2383911754294435e-05,
        -1.1444146037205352e-05, -9.728489459365946e-07, 1.7516373246541686e-06, -5.8263777932690884e-08,
        -2.586681626094915e-07, 2.429074101765273e-08, 3.867510307993315e-08, -4.3899146005741874e-09,
        -5.173901499722714e-09, 5.459499751809209e-10, 4.2513230748391847e-10, -3.7569751733449266e-11,
    ),
    (
        1.2530080582534238, -0.1356210694002736, -0.04756229269565379, 0.1296441143440814, -0.11927369132068087,
        0.06831656777114085, -0.02377033467548447, 0.00249911686960694, 0.0018881128646091117, -0.0007264536790340399,
        -0.00010413071427968978, 7.731024224076548e-05, 3.8618491368160616e-06,
    ),
)  # fmt: skip


@inline_njit
def _reduced(x: Any) -> tuple[Any, Any]:
    """eʳ − 1 and 2ᵏ with x = k ln 2 + r; x between the lowest exponent and 0."""
    rounded = _fma(x, _LOG2_E(x), _MAGIC(x))
    k = rounded - _MAGIC(x)
    r = _fma(k, _LN2_LOW(x), _fma(k, _LN2_HIGH(x), x))
    return _fma(r * r, _EXPM1(r), r), _two_to(rounded)


@inline_njit
def _exp(x: Any) -> Any:
    """eˣ for x ≤ 0; never below the smallest normal number."""
    beyond = _LOWEST(x)
    part, power = _reduced(beyond if x < beyond else x)  # in this order, so that NaN stays
    return _fma(power, part, power)


@inline_njit
def tanh(x: Any) -> tuple[Any, Any]:
    """Return tanh x and its derivative.

    Examples
    --------
    >>> tanh(0.0), abs(tanh(0.5)[0] - 0.46211715726000975) < 2e-16
    ((0.0, 1.0), True)
    """
    size, end = abs(x), _TANH_ONE(x)
    part, power = _reduced(-_TWO(x) * (end if size > end else size))
    less_one = _fma(power, part, power - _ONE(x))  # e^(−2|x|) − 1
    value = _with_sign_of(less_one / (less_one + _TWO(x)), x)
    return value, _ONE(x) - value * value


@inline_njit
def relu(x: Any) -> tuple[Any, Any]:
    """Return max(x, 0) and its derivative, 0 at 0.

    Examples
    --------
    >>> relu(-2.0), relu(2.0)
    ((0.0, 0.0), (2.0, 1.0))
    """
    one, zero = _ONE(x), _ONE(x) - _ONE(x)
    return zero if x <= zero else x, one if x > zero else zero


@inline_njit
def softplus(x: Any) -> tuple[Any, Any]:
    """Return log(1 + eˣ) and its derivative 1/(1 + e⁻ˣ).

    Examples
    --------
    >>> softplus(1000.0), abs(softplus(0.0)[0] - 0.6931471805599453) < 2e-16
    ((1000.0, 1.0), True)
    """
    one, zero = _ONE(x), _ONE(x) - _ONE(x)
    u = _exp(-abs(x))
    s = u / (_TWO(x) + u)
    logarithm = _TWO(x) * s * _ARTANH(s * s)
    return (zero if x <= zero else x) + logarithm, (u if x < zero else one) / (one + u)


@inline_njit
def gelu(x: Any) -> tuple[Any, Any]:
    """Return x Φ(x) and its derivative Φ(x) + x φ(x).

    Examples
    --------
    >>> gelu(0.0), abs(gelu(1.0)[0] - 0.8413447460685429) < 3e-16
    ((0.0, 0.5), True)
    """
    size, end, one = abs(x), _PHI_END(x), _ONE(x)
    size = end if size > end else size
    y = size * _ROOT_HALF(x)
    gauss = _exp(-_HALF(x) * size * size)
    tail = _HALF(x) * gauss * _ERFC((y - _MIDDLE(x)) / (y + _MIDDLE(x))) / (one + _TWO(x) * y)
    positive = x >= one - one
    phi = one - tail if positive else tail
    # Far out on the left x is cut too, so that its product with what is left of Φ vanishes.
    return (x if positive else -size) * phi, _fma(_with_sign_of(size, x) * gauss, _PER_ROOT_TAU(x), phi)


@inline_njit
def quadratic(x: Any) -> tuple[Any, Any]:
    """Return x² and its derivative 2x.

    Examples
    --------
    >>> quadratic(3.0)
    (9.0, 6.0)
    """
    return x * x, x + x


# ---------------------------------------------------------------- entries of a block


@njit
def activate(block: Block, at: int, slopes: int, n: int, activation: int) -> None:
    """Replace n entries z by σ(z), and write σ′(z) to as many entries from `slopes` on.

    Parameters
    ----------
    activation : int
        One of this module's names; nothing happens for `IDENTITY`.
    """
    stay_out()
    wide_vectors()
    lanes = lanes_of(block)
    z, slope = block[at * lanes : (at + n) * lanes], block[slopes * lanes : (slopes + n) * lanes]
    if activation == TANH:
        for i in range(z.shape[0]):
            z[i], slope[i] = tanh(z[i])
    elif activation == RELU:
        for i in range(z.shape[0]):
            z[i], slope[i] = relu(z[i])
    elif activation == GELU:
        for i in range(z.shape[0]):
            z[i], slope[i] = gelu(z[i])
    elif activation == SOFTPLUS:
        for i in range(z.shape[0]):
            z[i], slope[i] = softplus(z[i])
    elif activation == QUADRATIC:
        for i in range(z.shape[0]):
            z[i], slope[i] = quadratic(z[i])


@njit
def multiply(block: Block, at: int, by: int, n: int) -> None:
    """Multiply n entries by as many entries from `by` on."""
    stay_out()
    wide_vectors()
    lanes = lanes_of(block)
    into, factor = block[at * lanes : (at + n) * lanes], block[by * lanes : (by + n) * lanes]
    for i in range(into.shape[0]):
        into[i] *= factor[i]
