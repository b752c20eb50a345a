"""Python source of compiled kernels: generated from symbolic expressions, kept on disk by its content."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import sympy
from sympy.codegen.rewriting import create_expand_pow_optimization
from sympy.printing.pycode import PythonCodePrinter

from kramers_grok.core import compiled as core_compiled
from kramers_grok.core import rng_blocks, threefry
from kramers_grok.core.landscape import Landscape, with_float_constants
from kramers_grok.dynamics import blocks
from kramers_grok.dynamics.kernel_template import TEMPLATE

__all__ = ["DECAY", "XX", "YX", "KernelSpec", "compiled", "source"]

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
    spec: KernelSpec, feature: int, kind: int, score: sympy.Expr | None = None, *, varying: bool = False
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
    coordinates = spec.landscape.coordinates
    dimension = len(coordinates)
    old = {x: sympy.Symbol(f"x{j}", real=True) for j, x in enumerate(coordinates)}
    constants = _Constants()
    m = constants.lift(spec.landscape.order_parameters[feature].xreplace(old))
    load = [f"x{j} = {_entry('x', j)}" for j in range(dimension)]
    gradient = _gradient(spec, constants, old)
    own = _OWN_HYPERPARAMETERS if varying else []
    quiet = [f"{_entry('x', j)} = x{j} - step * g{j}" for j in range(dimension)]
    noisy = [f"{line} + amplitude * {_entry('z', j, 'first')}" for j, line in enumerate(quiet)]
    if score is None:
        scored = [*load, *_statements(["m"], [m]), "score[i] = sign * m"]
    else:
        value = constants.lift(score.xreplace(old))
        scored = [*load, *_statements(["m", "s"], [m, value]), *_OWN_SCORE]
    slope = sympy.sqrt(sum(sympy.diff(m, x) ** 2 for x in old.values()))
    border = [*load, *_statements(["m", "slope"], [m, slope])] if score is None else _NO_BORDER

    def body(lines: list[str]) -> str:
        return "\n".join(" " * 8 + line for line in lines)

    text = TEMPLATE.format(
        **(_VARYING if varying else _CONSTANT),
        unpack="".join(f"    k{j} = constants[{j}]\n" for j in range(len(constants.symbols))),
        draw=_DRAW[kind],
        dimension=dimension,
        dependencies=_dependencies(),
        quiet=body(load + own[:2] + gradient + quiet),
        noisy=body(load + own + gradient + noisy),
        score=body(scored),
        border=body(border),
    )
    return text, tuple(constants.symbols)


def _entry(array: str, row: int, offset: str = "") -> str:
    """Element i of a row, by an unsigned index: a signed one could be negative and would be checked."""
    terms = ["i", *([offset] if offset else []), *([f"np.uint64({row * blocks.STRIDE})"] if row else [])]
    return f"{array}[{' + '.join(terms)}]"


def _gradient(spec: KernelSpec, constants: _Constants, old: dict[sympy.Symbol, sympy.Symbol]) -> list[str]:
    """Statements that compute g0, g1, … from x0, x1, … and the batch moments."""
    statements = [(name, constants.lift(e.xreplace(old))) for name, e in spec.statements]
    forces = [constants.lift(e.xreplace(old)) for e in spec.gradient]
    needs = {s for e in [*forces, *(e for _, e in statements)] for s in e.free_symbols}
    moments = [f"{s} = {name}[i]" for s, name in ((XX, "xx"), (YX, "yx")) if s in needs]
    return moments + _assignments(statements) + _statements([f"g{j}" for j in range(len(forces))], forces)


_OWN_HYPERPARAMETERS = [
    f"step = step_now * {_entry('own', 0)}",
    f"{DECAY} = decay_now * {_entry('own', 1)}",
    f"amplitude = amplitude_now * {_entry('own', 2)}",
]
# In the region it counts as +∞; a replica that has left is not-a-number, whatever the score makes of that.
_OWN_SCORE = [
    "s = np.inf if sign * m >= border else s",
    "score[i] = s if x0 == x0 else np.nan",
]
# Never called: bridges know the region's border only, and it is not this score's.
_NO_BORDER = ["m = np.nan", "slope = np.nan"]


# What is read of hyperparameters: arguments of the two loops and of the whole, and what is done once a step.
_CONSTANT = {
    "hyper": "step, amplitude",
    "batch_size": "batch_size",
    "noisy_hyper": "step, amplitude",
    "quiet_hyper": "step",
    "noisy_if": "amplitude > 0.0",
    "lanes": "",
    "now": "",
    "close_up": "",
}
# The factors of a replica are lanes of their own: they close up with the others.
_VARYING = {
    "hyper": "steps, decays, amplitudes, noisy, factors",
    "batch_size": "batch_sizes",
    "noisy_hyper": "step_now, decay_now, amplitude_now, own",
    "quiet_hyper": "step_now, decay_now, own",
    "noisy_if": "noisy",
    "lanes": """\
        lanes_of_own = np.empty((3, blocks.STRIDE))
        own = lanes_of_own.reshape(-1)
        blocks.gather(lanes_of_own, factors, begin, end)
""",
    "now": """\
            at = number - first
            step_now, decay_now, amplitude_now = steps[at], decays[at], amplitudes[at]
            batch_size = batch_sizes[at]
""",
    "close_up": "                    blocks.close_up(lanes_of_own, kept)\n",
}

# Only what a kernel draws is compiled with it.
_SAMPLES = "xx, yx, lanes, number, low, high, batch_size, all_xx, all_yx"
_DRAW = {
    blocks.NONE: "",
    blocks.CONSTANT: "",
    blocks.ONLINE: "blocks.online_moments(xx, yx, lanes, number, low, high, batch_size, teacher, variance, "
    "label_noise, labels, fresh, all_xx)",
    blocks.REPLACEMENT: f"blocks.replacement_moments({_SAMPLES})",
    blocks.DISTINCT: f"blocks.distinct_moments({_SAMPLES})",
    blocks.EPOCHS: f"blocks.epoch_moments({_SAMPLES}, order, where)",
}


@cache
def _dependencies() -> str:
    """Hash of what a kernel inlines: numba's own cache looks at the kernel's source alone."""
    digest = hashlib.sha256()
    for module in (core_compiled, threefry, rng_blocks, blocks):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:16]


def _cache_directory() -> Path:
    base = os.environ.get("KRAMERS_GROK_CACHE") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "kramers_grok" / "kernels"


@cache
def compiled(text: str) -> Callable[..., Any]:
    """Import the source as a module named by its content, so that numba can keep the machine code on disk."""
    name = "kernel_" + hashlib.sha256(text.encode()).hexdigest()[:20]
    directory = _cache_directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{name}.py"
        if not path.exists():
            _write(path, text)
    except OSError:  # a read-only home: compile anew in each process
        directory = Path(tempfile.mkdtemp(prefix="kramers_grok_"))
        path = directory / f"{name}.py"
        _write(path, text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module.advance  # type: ignore[no-any-return]


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text)
    temporary.replace(path)
