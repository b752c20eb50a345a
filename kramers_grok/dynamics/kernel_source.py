"""Python source of compiled kernels: generated from symbolic expressions, kept on disk by its content."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import sympy
from numba.core import types
from sympy.codegen.rewriting import create_expand_pow_optimization
from sympy.printing.pycode import PythonCodePrinter

from kramers_grok.core.cache import directory
from kramers_grok.core.landscape import Landscape, with_float_constants
from kramers_grok.dynamics import blocks, kernel_engine
from kramers_grok.dynamics.kernel_template import TEMPLATE

__all__ = ["DECAY", "XX", "YX", "KernelSpec", "Loops", "compiled", "imported", "source"]

XX, YX = sympy.symbols("batch_xx batch_yx", real=True)
# The weight decay where it is no number: a replica's own at one step.
DECAY = sympy.Symbol("decay", real=True)


@dataclass(frozen=True)
class KernelSpec:
    """What a kernel is made of.

    Attributes
    ----------
    landscape : Landscape
        Coordinates and order parameters.
    gradient : tuple of sympy.Expr
        May hold the batch moments `XX` and `YX`; `DECAY` too where the kernel is one of varying hyperparameters.
    statements : tuple of (sympy.Symbol, sympy.Expr)
        Intermediate results that the gradient holds, in order.
    """

    landscape: Landscape
    gradient: tuple[sympy.Expr, ...]
    statements: tuple[tuple[sympy.Symbol, sympy.Expr], ...] = ()


class _Printer(PythonCodePrinter):  # type: ignore[misc]
    """Python source with all digits of every constant."""

    def _print_Float(self, expr: sympy.Float) -> str:
        return repr(float(expr))


def _assignments(pairs: Iterable[tuple[Any, sympy.Expr]]) -> list[str]:
    """Assignments of expressions to names, integer powers as products."""
    expand = create_expand_pow_optimization(12)
    printer = _Printer({"fully_qualified_modules": True})
    return [f"{name} = {printer.doprint(expand(e))}" for name, e in pairs]


def _statements(names: list[str], expressions: list[sympy.Expr]) -> list[str]:
    """Assignments of expressions to names, by way of their common subexpressions."""
    shared, reduced = sympy.cse(expressions, symbols=sympy.numbered_symbols("c"))
    return _assignments([*shared, *zip(names, reduced, strict=True)])


class _Constants:
    """Numbers of the expressions, taken out as arguments: one compiled kernel serves every λ, σ and q."""

    def __init__(self) -> None:
        self.symbols: dict[float, sympy.Symbol] = {}

    def lift(self, expression: sympy.Expr) -> sympy.Expr:
        numeric = with_float_constants(expression)
        floats = [e for e in sympy.preorder_traversal(numeric) if e.is_Float]
        for number in floats:
            self.symbols.setdefault(float(number), sympy.Symbol(f"k{len(self.symbols)}", real=True))
        return numeric.xreplace({number: self.symbols[float(number)] for number in floats})


@cache
def source(
    spec: KernelSpec,
    feature: int,
    kind: int,
    score: sympy.Expr | None = None,
    *,
    varying: bool = False,
) -> tuple[str, tuple[float, ...]]:
    """Python source of the kernel of `spec` that watches a feature, or a score, and the constants it takes.

    Parameters
    ----------
    feature : int
        Order parameter of the watched region.
    kind : int
        Where the batch moments come from, `blocks.NONE` … `blocks.EPOCHS`.
    score : sympy.Expr, optional
        A score of one's own in the landscape's coordinates.
    varying : bool
        Whether step, decay and amplitude come as tables over steps and factors of replicas, and the batch size as a
        table: another source, so that the one with constants stays as fast as it is.
    """
    n = len(spec.landscape.coordinates)
    old = {x: sympy.Symbol(f"x{j}", real=True) for j, x in enumerate(spec.landscape.coordinates)}
    constants = _Constants()
    m = constants.lift(spec.landscape.order_parameters[feature].xreplace(old))
    gradient = _gradient(spec, constants, old)
    watched = _Watched.of(m, None if score is None else constants.lift(score.xreplace(old)), old)
    load = [f"x{j} = {_entry('x', j)}" for j in range(n)]
    together, z_rows, drawn = blocks.steps_together(n, kind), blocks.rows_per_step(n), blocks.draws(kind)

    def update(s: int | None) -> list[str]:
        """Statements of one step: of step `s` of those taken together, or of the one whose rows are given."""
        own = [line.replace("_now", "_now" if s is None else f"_{s}") for line in _OWN_HYPERPARAMETERS] * varying
        sets = [0, together] if drawn else [0, 1]
        moments = [
            f"{symbol} = {_entry('moments', row + (s if s and drawn else 0), 'drawn' if s is None else '')}"
            for symbol, row in zip((XX, YX), sets, strict=True)
            if symbol in gradient.needs
        ]
        kicks = [f"amplitude * {_entry('z', z_rows * (s or 0) + j, 'first')}" for j in range(n)]
        return [*own, *moments, *gradient.lines, *(f"x{j} = x{j} - step * g{j} + {kicks[j]}" for j in range(n))]

    store = [f"{{}} = x{j}" for j in range(n)]
    leap = [*load, f"peak = {_entry('x', n)}", "bad = mark[i] > 0.0", "least = np.inf"]
    for s in range(together):
        leap += [*update(s), *watched.leap]
    leap += [line.format(_entry("y", j)) for j, line in enumerate(store)]
    leap += [f"{_entry('y', n)} = peak", "suspect = (bad | (peak >= threshold) | (least <= floor)) & (mark[i] >= 0.0)"]
    text = TEMPLATE.format(
        unpack="".join(f"    k{j} = constants[{j}]\n" for j in range(len(constants.symbols))),
        leap_hyper=_hyper(varying, together),
        move_hyper=_hyper(varying, None),
        nearest=_NEAREST if n == 1 and score is None else "",
        leap=_body(leap),
        move=_body([*load, *update(None), *(line.format(_entry("x", j)) for j, line in enumerate(store))]),
        watch=_body([*load, *watched.follow]),
    )
    return text, tuple(constants.symbols)


_NEAREST = "    nearest = math.sqrt(reach) if reach > 0.0 else -1.0\n"


def _body(lines: list[str]) -> str:
    return "\n".join(" " * 8 + line for line in lines)


def _hyper(varying: bool, together: int | None) -> str:
    """Statements that read step, decay and amplitude of the steps taken together, or of the one that begins at `now`.

    Constants are the same at every step, and their decay is a constant of the expressions.
    """
    if not varying:
        return "    step, amplitude = hyper[0], hyper[2]\n"
    names = ("step", "decay", "amplitude")
    if together is None:
        return "".join(f"    {name}_now = hyper[now + np.uint64({k})]\n" for k, name in enumerate(names))
    steps = range(together)
    return "".join(f"    {name}_{s} = hyper[{3 * s + k}]\n" for s in steps for k, name in enumerate(names))


@dataclass(frozen=True)
class _Watched:
    """What is watched, as statements that follow a step.

    Attributes
    ----------
    follow : list of str
        Write the score and the distance to the border, exactly.
    leap : list of str
        Keep the highest and the lowest score, and notice whether the border may have been within reach.
    """

    follow: list[str]
    leap: list[str]

    @classmethod
    def of(cls, m: sympy.Expr, score: sympy.Expr | None, coordinates: Mapping[Any, sympy.Symbol]) -> _Watched:
        extremes = ["peak = value if value > peak else peak", "least = value if value < least else least"]
        if score is not None:  # no bridges: they know the region's border only, and it is not this score's
            statements = _statements(["m", "s"], [m, score])
            # In the region it counts as +∞; a replica that has left is not-a-number, whatever the score makes of that.
            inside = "np.inf if sign * m >= border else s"
            follow = [*statements, f"s = {inside}", "score[i] = s if x0 == x0 else np.nan"]
            return cls(follow, [*statements, f"value = {inside}", *extremes])
        slopes = [sympy.diff(m, x) for x in coordinates.values()]
        squared = sum(slope**2 for slope in slopes)
        follow = _statements(["m", "slope"], [m, sympy.sqrt(squared)])
        follow += ["score[i] = sign * m", "distance[i] = (threshold - sign * m) / slope"]
        # Two distances beyond the root of the reach have a product beyond it, and need neither division nor root.
        if len(slopes) == 1:
            leap = [*_statements(["m", "slope"], [m, sympy.Abs(slopes[0])]), "value = sign * m", *extremes]
            return cls(follow, [*leap, "bad = bad | (not (threshold - value > nearest * slope))"])
        leap = [*_statements(["m", "squared"], [m, squared]), "value = sign * m", *extremes]
        return cls(follow, [*leap, "gap = threshold - value", "bad = bad | (not (gap * gap > reach * squared))"])


def _entry(array: str, row: int, offset: str = "") -> str:
    """Element i of a row, by an unsigned index: a signed one could be negative and would be checked."""
    terms = ["i", *([offset] if offset else []), *([f"np.uint64({row * blocks.STRIDE})"] if row else [])]
    return f"{array}[{' + '.join(terms)}]"


@dataclass(frozen=True)
class _Gradient:
    """Statements that compute g0, g1, … from x0, x1, … and the symbols they need."""

    lines: list[str]
    needs: set[sympy.Symbol]


def _gradient(spec: KernelSpec, constants: _Constants, old: dict[sympy.Symbol, sympy.Symbol]) -> _Gradient:
    statements = [(name, constants.lift(e.xreplace(old))) for name, e in spec.statements]
    forces = [constants.lift(e.xreplace(old)) for e in spec.gradient]
    needs = {s for e in [*forces, *(e for _, e in statements)] for s in e.free_symbols}
    lines = _assignments(statements) + _statements([f"g{j}" for j in range(len(forces))], forces)
    return _Gradient(lines, needs)


_OWN_HYPERPARAMETERS = [
    f"step = step_now * {_entry('own', 0)}",
    f"{DECAY} = decay_now * {_entry('own', 1)}",
    f"amplitude = amplitude_now * {_entry('own', 2)}",
]


@cache
def imported(text: str) -> ModuleType:
    """Import the source as a module named by its content, so that numba can keep the machine code on disk."""
    name = "kernel_" + hashlib.sha256(text.encode()).hexdigest()[:20]
    path = directory("kernels") / f"{name}.py"
    if not path.exists():
        _write(path, text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Loops(NamedTuple):
    """Addresses of a landscape's compiled loops; see `kernel_engine`."""

    leap: int
    move: int
    watch: int


@cache
def compiled(text: str, single: bool = False) -> Loops:
    """Compile the loops of a source, for normal numbers in double or in single precision."""
    module, noise = imported(text), types.float32 if single else types.float64

    return Loops(
        *(kernel_engine.address(getattr(module, name), kernel_engine.signature(name, noise)) for name in Loops._fields)
    )


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text)
    temporary.replace(path)
