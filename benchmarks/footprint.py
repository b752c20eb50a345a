"""Parts about what is left: drawing normals, exact times over a grid, importing the package, memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import kramers_grok as kg
from benchmarks.escape import Chosen
from benchmarks.settings import ROOT
from benchmarks.timing import DOUBLE, SINGLE, Check, Part, Plan, Racer, Say
from kramers_grok.core import rng, rng_blocks
from kramers_grok.core.rng import Purpose

N = 2**16  # normals of each thread and call: they fit into the second cache
Fill = Callable[[int], object]  # by number of the thread


def generators() -> dict[tuple[str, str], Callable[[], tuple[Fill, Any]]]:
    """By name and precision: make a function that fills an array again and again, and the array."""
    found: dict[tuple[str, str], Callable[[], tuple[Fill, Any]]] = {
        ("kramers_grok, counter-based quads", DOUBLE): partial(_quads, rng_blocks.fill_normal_quads, np.float64)
    }
    if hasattr(rng_blocks, "fill_single_quads"):
        found["kramers_grok, single-precision quads", SINGLE] = partial(
            _quads, rng_blocks.fill_single_quads, np.float32
        )
    for noise, dtype, kind in ((DOUBLE, torch.float64, np.float64), (SINGLE, torch.float32, np.float32)):
        found[f"torch.Tensor.normal_, {noise}", noise] = partial(_torch, dtype)
        found[f"numpy Generator.standard_normal (SFC64), {noise}", noise] = partial(_numpy, kind)
    return found


def _quads(fill: Callable[..., None], kind: Any) -> tuple[Fill, Any]:
    # As in a kernel the same cached block, step after step; larger than there, since every call comes from Python.
    replicas = N // 8
    out, streams = np.empty((4, replicas), dtype=kind), np.arange(replicas, dtype=np.uint32)
    low, high = rng.split_seed(1)

    def run(number: int) -> None:
        for step in range(N // out.size):
            fill(out, low, high, np.uint32(Purpose.LANGEVIN), streams, step, 0)

    return run, out


def _torch(dtype: torch.dtype) -> tuple[Fill, Any]:
    out, generator = torch.empty(N // 8, dtype=dtype), torch.Generator().manual_seed(1)
    return lambda number: [out.normal_(generator=generator) for _ in range(8)], out.numpy()


def _numpy(kind: Any) -> tuple[Fill, Any]:
    out, generator = np.empty(N // 8, dtype=kind), np.random.Generator(np.random.SFC64(1))
    return lambda number: [generator.standard_normal(out=out, dtype=kind) for _ in range(8)], out


def normals_part(threads: int, part: Part, plan: Plan, chosen: Chosen, say: Say) -> None:
    """Normals per second on all cores, each with a generator of its own."""
    racers = []
    with ThreadPoolExecutor(threads) as pool:
        for (name, noise), make in generators().items():
            if not chosen(name):
                continue
            made = [make() for _ in range(threads)]
            fill, out = made[0]
            fill(0)
            square = np.asarray(out, dtype=np.float64).ravel() ** 2
            part.check(Check(name, "variance", float(square.mean()), 1.0, (2 / square.size) ** 0.5), say)
            call = partial(_on_threads, pool, [fill for fill, _ in made])
            racers.append(Racer(name, call, name.startswith("kramers_grok"), noise, scale=N * threads))
        part.race(f"{threads} thread(s)", racers, plan, say, replicas=0)


def _on_threads(pool: ThreadPoolExecutor, fills: Sequence[Fill], n: int) -> None:
    def work(number: int) -> None:
        for _ in range(n):
            fills[number](number)

    list(pool.map(work, range(len(fills))))


# ------------------------------------------------------------------ exact times

GRID = 10_000  # modes
SHARE = 100  # of which one is done by the scalar solver


def exact_part(threads: int, part: Part, plan: Plan, chosen: Chosen, say: Say) -> None:
    """Exact mean exit times of modes that differ in singular value and weight decay, at ΔF/T = 6."""
    generator, n = np.random.default_rng(0), GRID // (SHARE if plan.quick else 1)
    sigma, share = generator.uniform(0.8, 1.6, n), generator.uniform(0.3, 0.9, n)
    modes = [kg.Mode(3, s, share_ * kg.Mode(3, s, 0.1).spinodal()) for s, share_ in zip(sigma, share, strict=True)]
    decay = np.array([mode.weight_decay for mode in modes])
    heat = np.array([mode.barrier().height / 6 for mode in modes])

    def together(_: int) -> Any:
        return kg.mode_exit_times(3, sigma, decay, temperature=heat).mean

    def one_by_one(count: int) -> Any:
        pairs = zip(modes[:count], heat[:count], strict=True)
        return np.array([kg.exit_time(m, temperature=t, target=kg.beyond(m.barrier())).mean for m, t in pairs])

    few = n // SHARE
    alone = one_by_one(few)
    # Two solvers of one quadrature: equal to what both promise, not by chance.
    worst = float(np.abs(together(0)[:few] / alone - 1).max())
    part.check(Check("mode_exit_times", "largest deviation from exit_time", worst, 0.0, 1e-9), say)
    racers = [
        Racer("mode_exit_times, the whole grid", together, True, fixed=1),
        Racer(
            "exit_time, one by one", lambda count: one_by_one(count * few), True, scale=1 / SHARE, fixed=1,
            note=f"of {few} modes, times {SHARE}",
        ),
    ]  # fmt: skip
    part.race(f"{n:,} modes", [r for r in racers if chosen(r.name)], plan, say)


# ------------------------------------------------------------------ whole processes

IMPORTS = {
    "import kramers_grok": "import kramers_grok",
    "import kramers_grok, and an exact exit time": (
        "import kramers_grok as kg\nmode = kg.Mode(3, 1.0, 0.25)\n"
        "kg.exit_time(mode, temperature=mode.barrier().height / 5, target=kg.beyond(mode.barrier()))"
    ),
    "import kramers_grok, and its Langevin dynamics": "import kramers_grok as kg\nkg.Langevin",
    "import torch": "import torch",
    "an empty Python process": "pass",
}

# State: the weights and the number of the noise stream. The peak is reset after a small run, since importing and
# compiling need more memory than they keep.
MEMORY = """
import re
import kramers_grok as kg
process = kg.Langevin({system}, temperature=1e-4, dt=0.1, device="cpu")
def run(n):
    kg.first_passage(process, target=kg.Region(0.9), n_replicas=n, max_time=0.6, seed=0)
def kilobytes(name):
    with open("/proc/self/status") as status:
        return int(re.search(name + r":\\s+([0-9]+)", status.read())[1])
run(64)
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
before = kilobytes("VmRSS")
run({replicas})
print(1024 * (kilobytes("VmHWM") - before) / ({replicas} * 8 * ({parameters} + 1)))
"""
SYSTEMS = {
    "mode, 2,000,000 replicas": ("kg.Mode(3, 1.0, 0.25)", 2_000_000, 1),
    "network 8-16-16-8, 50,000 replicas": (
        "kg.DeepLinearNetwork((8, 16, 16, 8), [2.0 - 0.1 * k for k in range(8)], weight_decay=0.25)", 50_000, 512,
    ),
}  # fmt: skip


def imports_part(threads: int, part: Part, plan: Plan, chosen: Chosen, say: Say) -> None:
    """Seconds of whole processes."""
    racers = [Racer(name, partial(_process, code), fixed=1) for name, code in IMPORTS.items() if chosen(name)]
    part.race("whole process", racers, plan, say)


def _process(code: str, n: int = 1) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout


def memory_part(threads: int, part: Part, plan: Plan, chosen: Chosen, say: Say) -> None:
    """Peak memory that a first passage of an ensemble adds, over the bytes of its state."""
    if not Path("/proc/self/clear_refs").exists():
        part.leave_out("peak memory", "only Linux tells it", say)
        return
    rows = []
    for name, (system, replicas, parameters) in SYSTEMS.items():
        code = MEMORY.format(system=system, replicas=replicas // (20 if plan.quick else 1), parameters=parameters)
        value = float(_process(code))
        say(f"  {name}: {value:.2f} times its state")
        rows.append({"name": name, "value": round(value, 3)})
    part.groups.append({"label": "peak memory over the state", "rows": rows, "contestants": []})


def parts(threads: int) -> dict[str, tuple[str, str, Callable[..., None]]]:
    """Title, unit and function of each part by its name."""
    return {
        "normals": ("Drawing normal numbers", "normal", partial(normals_part, threads)),
        "exact": ("Exact mean exit times over a grid", "s", partial(exact_part, threads)),
        "imports": ("Importing", "s", partial(imports_part, threads)),
        "memory": ("Memory of an ensemble", "ratio", partial(memory_part, threads)),
    }
