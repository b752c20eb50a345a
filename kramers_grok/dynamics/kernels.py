"""Compiled CPU kernels, generated from a symbolic landscape.

A kernel advances blocks of replicas through many steps: noise, the batch's moments where there are data, the update,
the watched border, the bridge. It computes what :func:`kramers_grok.dynamics.loop.run` computes with torch operations,
on the same noise; the two agree path by path to rounding.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sympy
import torch
from numpy.typing import NDArray
from sympy.codegen.rewriting import create_expand_pow_optimization
from sympy.printing.pycode import PythonCodePrinter

from kramers_grok.core import compiled, rng_blocks, threefry
from kramers_grok.core.landscape import Landscape, with_float_constants
from kramers_grok.core.rng import Purpose, split_seed
from kramers_grok.dynamics import blocks
from kramers_grok.dynamics.process import Record, State, Watch
from kramers_grok.dynamics.sampling import FullBatch, Sampler, ShuffledEpochs, WithoutReplacement
from kramers_grok.models.data import FiniteData, OnlineTeacher, Population
from kramers_grok.theory.deep_linear import DeepLinearChain

__all__ = ["DataSource", "Kernel", "KernelSpec", "chain_spec", "data_source", "landscape_spec", "population_source"]

XX, YX = sympy.symbols("batch_xx batch_yx", real=True)


@dataclass(frozen=True)
class KernelSpec:
    """Expressions a kernel is made of; gradients may hold the batch moments `XX` and `YX`."""

    coordinates: tuple[sympy.Symbol, ...]
    gradient: tuple[sympy.Expr, ...]
    order_parameters: tuple[sympy.Expr, ...]


def landscape_spec(landscape: Landscape) -> KernelSpec:
    """Return the kernel expressions of Langevin dynamics in a landscape."""
    return KernelSpec(landscape.coordinates, landscape.gradient, landscape.order_parameters)


def chain_spec(chain: DeepLinearChain) -> KernelSpec:
    """Return the kernel expressions of SGD in a chain: the loss of a batch with moments XX and YX."""
    landscape = chain.landscape
    (m,) = landscape.order_parameters
    decay = sympy.Float(chain.weight_decay) / 2 * sum(a**2 for a in landscape.coordinates)
    loss = XX * m**2 / 2 - YX * m + decay
    gradient = tuple(sympy.diff(loss, a) for a in landscape.coordinates)
    return KernelSpec(landscape.coordinates, gradient, landscape.order_parameters)


class DataSource(NamedTuple):
    """Where a kernel's batch moments come from, in the form that compiled code takes."""

    kind: int
    batch_size: int
    slope: float  # teacher's σ
    variance: float  # input variance q
    label_noise: float
    xx: NDArray[np.float64]  # x² of every sample; one entry: the constant moment
    yx: NDArray[np.float64]


_EMPTY = np.zeros(1)
NO_DATA = DataSource(blocks.NONE, 1, 0.0, 0.0, 0.0, _EMPTY, _EMPTY)


def population_source(chain: DeepLinearChain) -> DataSource:
    """Return the population's moments, Σ_xx = q and Σ_yx = qσ, at every step."""
    q, sigma = chain.input_variance, chain.singular_value
    return DataSource(blocks.CONSTANT, 1, sigma, q, 0.0, np.array([q]), np.array([q * sigma]))


def data_source(
    chain: DeepLinearChain, data: OnlineTeacher | Population | FiniteData, batch_size: int, sampler: Sampler
) -> DataSource:
    """Return the compiled form of a batch source with one input and one output."""
    q, sigma = chain.input_variance, chain.singular_value
    if isinstance(data, Population):
        return population_source(chain)
    if isinstance(data, OnlineTeacher):
        return DataSource(blocks.ONLINE, batch_size, sigma, q, data.label_noise, _EMPTY, _EMPTY)
    xx, yx = data.x[:, 0] ** 2, data.x[:, 0] * data.y[:, 0]
    if isinstance(sampler, FullBatch):
        xx, yx = np.array([data.input_covariance[0, 0]]), np.array([data.cross_covariance[0, 0]])
        return DataSource(blocks.CONSTANT, batch_size, sigma, q, 0.0, xx, yx)
    kind = blocks.EPOCHS if isinstance(sampler, ShuffledEpochs) else blocks.REPLACEMENT
    if isinstance(sampler, WithoutReplacement):
        kind = blocks.DISTINCT
    return DataSource(kind, batch_size, sigma, q, 0.0, xx, yx)


class Kernel:
    """A compiled `advance` for one landscape.

    Parameters
    ----------
    spec : KernelSpec
    source : DataSource
        Batch moments; none for Langevin dynamics.
    """

    def __init__(self, spec: KernelSpec, source: DataSource = NO_DATA) -> None:
        self.spec = spec
        self.source = source

    def advance(
        self,
        state: State,
        n_steps: int,
        watch: Watch | None,
        *,
        step: float,
        amplitude: float,
        purpose: Purpose,
        n_threads: int,
    ) -> tuple[State, Record]:
        """Take `n_steps` steps of θ ← θ − step·∇F + amplitude·ξ; see `Process.advance`."""
        feature = watch.region.feature if watch else 0
        text, constants = _source(self.spec, feature, self.source.kind)
        function = _compile(text)
        theta = state.theta.numpy().T.copy()  # contiguous, and never the caller's memory: a state is a value
        streams = state.streams.numpy().astype(np.uint32)
        replicas = state.n_replicas
        hit = np.full(replicas, -1, dtype=np.int64)
        best = np.full(replicas, -np.inf)
        order = state.buffers["order"].numpy().copy() if "order" in state.buffers else np.zeros((replicas, 0), np.int64)
        sign = watch.region.sign if watch else 1.0
        threshold = sign * watch.region.threshold if watch else np.inf
        low, high = split_seed(state.seed)

        def work(part: slice) -> None:
            columns = np.ascontiguousarray(theta[:, part])
            function(
                columns, streams[part], state.step, n_steps, step, amplitude, low, high, np.uint32(purpose),
                watch is not None, watch is not None and watch.bridge, threshold, sign, amplitude**2 / 2,
                hit[part], best[part], order[part], np.asarray(constants), *self.source,
            )  # fmt: skip
            theta[:, part] = columns

        parts = [slice(int(p[0]), int(p[-1]) + 1) for p in np.array_split(np.arange(replicas), n_threads) if len(p)]
        if len(parts) <= 1:
            work(slice(0, replicas))
        else:
            with ThreadPoolExecutor(len(parts)) as pool:
                list(pool.map(work, parts))
        buffers = {**state.buffers, "order": torch.from_numpy(order)} if "order" in state.buffers else state.buffers
        moved = torch.from_numpy(np.ascontiguousarray(theta.T))
        advanced = replace(state, theta=moved, step=state.step + n_steps, buffers=buffers)
        return advanced, Record(torch.from_numpy(hit), torch.from_numpy(best))


class _Printer(PythonCodePrinter):  # type: ignore[misc]
    """Python source with all digits of every constant."""

    def _print_Float(self, expr: sympy.Float) -> str:
        return repr(float(expr))


def _statements(names: list[str], expressions: list[sympy.Expr], prefix: str) -> list[str]:
    """Assignments of expressions to names with common subexpressions, integer powers as products."""
    expand = create_expand_pow_optimization(12)
    printer = _Printer({"fully_qualified_modules": True})
    symbols = sympy.numbered_symbols(prefix)
    shared, reduced = sympy.cse(expressions, symbols=symbols)
    lines = [f"{name} = {printer.doprint(expand(e))}" for name, e in shared]
    return lines + [f"{name} = {printer.doprint(expand(e))}" for name, e in zip(names, reduced, strict=True)]


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
def _source(spec: KernelSpec, feature: int, kind: int) -> tuple[str, tuple[float, ...]]:
    """Python source of the kernel of `spec` that watches order parameter `feature`, and its constants."""
    dimension = len(spec.coordinates)
    old = {x: sympy.Symbol(f"x{j}", real=True) for j, x in enumerate(spec.coordinates)}
    constants = _Constants()
    m = constants.lift(spec.order_parameters[feature].xreplace(old))
    slope = sympy.sqrt(sum(sympy.diff(m, x) ** 2 for x in old.values()))
    forces = [constants.lift(e.xreplace(old)) for e in spec.gradient]
    gradient = _statements([f"g{j}" for j in range(dimension)], forces, "c")
    load = [f"x{j} = row{j}[i]" for j in range(dimension)]
    needs = {s for e in spec.gradient for s in e.free_symbols}
    moments = [f"{s} = {name}[i]" for s, name in ((XX, "xx"), (YX, "yx")) if s in needs]
    quiet = [f"row{j}[i] = x{j} - step * g{j}" for j in range(dimension)]
    noisy = [f"row{j}[i] = x{j} - step * g{j} + amplitude * z{j}[i]" for j in range(dimension)]

    def body(lines: list[str]) -> str:
        return "\n".join(" " * 8 + line for line in lines)

    def rows(pattern: str) -> str:
        return ", ".join(pattern.format(j=j) for j in range(dimension))

    unpack = "".join(f"    k{j} = constants[{j}]\n" for j in range(len(constants.symbols)))
    text = _TEMPLATE.format(
        unpack=unpack,
        draw=_DRAW[kind],
        dimension=dimension,
        dependencies=_dependencies(),
        rows=rows("row{j}"),
        normals=rows("z{j}"),
        state=rows("x[{j}]"),
        noise=rows("z[row + {j}]"),
        quiet=body(load + moments + gradient + quiet),
        noisy=body(load + moments + gradient + noisy),
        score=body(load + _statements(["m"], [m], "c")),
        border=body(load + _statements(["m", "slope"], [m, slope], "c")),
    )
    return text, tuple(constants.symbols)


# Only what a kernel draws is compiled with it.
_SAMPLES = "xx, yx, lanes, number, low, high, batch_size, all_xx, all_yx"
_DRAW = {
    blocks.NONE: "",
    blocks.CONSTANT: "",
    blocks.ONLINE: "blocks.online_moments(xx, yx, lanes, number, low, high, batch_size, teacher, variance, "
    "label_noise, labels, number == first)",
    blocks.REPLACEMENT: f"blocks.replacement_moments({_SAMPLES})",
    blocks.DISTINCT: f"blocks.distinct_moments({_SAMPLES})",
    blocks.EPOCHS: f"blocks.epoch_moments({_SAMPLES}, order[begin:end])",
}

# Each loop over replicas is a function of its own over plain rows: only then is it turned into vector instructions.
_TEMPLATE = '''"""Generated from a symbolic landscape; do not edit."""
import math

import numpy as np

from kramers_grok.core import rng_blocks as rng
from kramers_grok.core.compiled import njit
from kramers_grok.dynamics import blocks

# Compiled parts that this source calls, by content: {dependencies}


@njit
def _move({rows}, {normals}, xx, yx, step, amplitude, constants):
{unpack}    for i in range(row0.shape[0]):
{noisy}


@njit
def _descend({rows}, xx, yx, step, constants):
{unpack}    for i in range(row0.shape[0]):
{quiet}


@njit
def _score({rows}, sign, score, constants):
{unpack}    for i in range(row0.shape[0]):
{score}
        score[i] = sign * m


@njit
def _border({rows}, sign, threshold, score, distance, constants):
{unpack}    for i in range(row0.shape[0]):
{border}
        score[i] = sign * m
        distance[i] = (threshold - sign * m) / slope


@njit
def advance(theta, streams, first, n_steps, step, amplitude, low, high, purpose, watching, bridging, threshold, sign,
            bridge_scale, hit, best, order, constants,
            kind, batch_size, teacher, variance, label_noise, all_xx, all_yx):
    n = theta.shape[1]
    for begin in range(0, n, blocks.BLOCK):
        width = min(blocks.BLOCK, n - begin)
        end = begin + width
        x = theta[:, begin:end].copy()
        lanes = streams[begin:end]
        z = rng.new_cache({dimension}, width)
        score = np.empty(width)
        peak = np.full(width, -np.inf)
        near = np.empty(width)
        far = np.empty(width)
        xx = np.empty(width)
        yx = np.empty(width)
        labels = rng.new_cache(1, width)
        if kind == blocks.CONSTANT:
            xx[:] = all_xx[0]
            yx[:] = all_yx[0]
        if bridging:
            _border({state}, sign, threshold, score, far, constants)
        alive = width
        for number in range(first, first + n_steps):
            {draw}
            if amplitude > 0.0:
                row = rng.refresh_normals(z, low, high, purpose, lanes, number, {dimension}, number == first)
                _move({state}, {noise}, xx, yx, step, amplitude, constants)
            else:
                _descend({state}, xx, yx, step, constants)
            if not watching:
                continue
            if bridging:
                _border({state}, sign, threshold, score, near, constants)
                crossed = blocks.count_near(score, near, far, threshold, bridge_scale)
            else:
                _score({state}, sign, score, constants)
                crossed = blocks.count_beyond(score, threshold)
            blocks.raise_peak(peak, score)
            if crossed > 0:
                for i in range(width):
                    escaped = score[i] >= threshold
                    if bridging and not escaped and near[i] * far[i] < blocks.BRIDGE_REACH * bridge_scale:
                        chance = math.exp(-near[i] * far[i] / bridge_scale)
                        escaped = blocks.bridge_uniform(low, high, lanes[i], number) < chance
                    if escaped:
                        hit[begin + i] = number + 1
                        for j in range({dimension}):
                            theta[j, begin + i] = x[j, i]
                            # not-a-number never compares: the lane runs on at full speed and is never seen again
                            x[j, i] = np.nan
                        near[i] = np.nan
                        alive -= 1
                if alive == 0:
                    break
            if bridging:
                near, far = far, near
        for i in range(width):
            best[begin + i] = peak[i]
            if hit[begin + i] < 0:
                for j in range({dimension}):
                    theta[j, begin + i] = x[j, i]
'''


@cache
def _dependencies() -> str:
    """Hash of what a kernel inlines: numba's own cache looks at the kernel's source alone."""
    digest = hashlib.sha256()
    for module in (compiled, threefry, rng_blocks, blocks):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:16]


def _cache_directory() -> Path:
    base = os.environ.get("KRAMERS_GROK_CACHE") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "kramers_grok" / "kernels"


@cache
def _compile(text: str) -> Callable[..., Any]:
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
