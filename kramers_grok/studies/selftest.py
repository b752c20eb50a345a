"""Self-test of a device: whatever runs there gives what the CPU's compiled code gives.

For whoever has a GPU: nobody's word has to be taken that the library works on it. Every check compares torch operations
on the device with the CPU, on the same counter-based noise: with the compiled kernels where there are any, with torch
where there are none (there a test of the CPU compares it with itself).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kramers_grok.core import checks, rng
from kramers_grok.core.exceptions import InvalidParameterError, KramersGrokError
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region
from kramers_grok.core.rng import Purpose
from kramers_grok.core.schedules import Cosine, Linear, Piecewise
from kramers_grok.dynamics import observables, torch_noise, tracing
from kramers_grok.dynamics.langevin import Fused, Langevin
from kramers_grok.dynamics.optimizers import AdamW, GradientDescent
from kramers_grok.dynamics.process import Watch, resolve_device
from kramers_grok.dynamics.sampling import (
    Sampler,
)
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.models.data import population, teacher
from kramers_grok.studies.selftest_runs import (
    CHAIN,
    ONLINE,
    OPTIMIZERS,
    REPLICAS,
    SEED,
    STEPS,
    Data,
    compare,
    diagonal,
    difference,
    network,
    run,
    same_runs,
    samples,
    sgd,
    sources,
)
from kramers_grok.theory.deep_linear import Mode

__all__ = [
    "Outcome",
    "checks_of",
    "find_device",
    "selftest",
]

Check = Callable[[torch.device], str]


@dataclass(frozen=True)
class Outcome:
    """What one check found.

    Attributes
    ----------
    name : str
    passed : bool
    detail : str
        The largest difference, or what went wrong.
    seconds : float
    """

    name: str
    passed: bool
    detail: str
    seconds: float


def find_device(device: str) -> torch.device:
    """Return the device to test.

    Raises
    ------
    InvalidParameterError
        If it is not there.

    Examples
    --------
    >>> find_device("cpu")
    device(type='cpu')
    """
    try:
        found = resolve_device(device)
    except RuntimeError as error:
        raise checks.invalid("device", device, "cpu, cuda or auto", str(error).splitlines()[0]) from None
    if found.type not in ("cpu", "cuda"):
        raise checks.invalid("device", device, "cpu, cuda or auto", "the library runs on these")
    if found.type == "cuda" and not torch.cuda.is_available():
        built = torch.version.cuda
        reason = f"this PyTorch was built for CUDA {built}, but no GPU answers" if built else "this PyTorch has no CUDA"
        raise InvalidParameterError(
            f"`device` = {device}, expected a device that is there: {reason}.\n"
            "Use `--device cpu`, or install a PyTorch with CUDA on a machine with a GPU."
        )
    return found


def selftest(
    device: str = "auto", *, compile: bool = False, progress: Callable[[str], None] | None = None
) -> list[Outcome]:
    """Run all checks on a device.

    Parameters
    ----------
    device : str
        "cpu", "cuda" (or "cuda:1", …), or "auto" for CUDA where there is one.
    compile : bool
        Check the switch ``SGD(..., compile=True)`` too: it takes `torch.compile` half a minute.
    progress : callable, optional
        Called with the name of each check before it starts.

    Raises
    ------
    InvalidParameterError
        If the device is not there.
    """
    found = find_device(device)
    outcomes = []
    for name, check in checks_of(compile=compile).items():
        if progress is not None:
            progress(name)
        began = time.perf_counter()
        try:
            passed, detail = True, check(found)
        except (AssertionError, RuntimeError, TypeError, ValueError, KramersGrokError) as error:
            passed, detail = False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        outcomes.append(Outcome(name, passed, detail, time.perf_counter() - began))
    return outcomes


# ---------------------------------------------------------------- noise


def _integers_equal(device: torch.device) -> str:
    streams = torch.arange(500, device=device)
    lanes = np.arange(500)
    for step in (0, 1, 2**31 - 1):
        for n in (1, 2, 3, 7):
            words = torch_noise.words(SEED, Purpose.DATA, streams, step, n).cpu().numpy()
            assert (words == rng.words(SEED, Purpose.DATA, lanes, step, n)).all(), "random words differ"
        for name, reference in (
            ("integers", rng.integers), ("sample_without_replacement", rng.sample_without_replacement)
        ):  # fmt: skip
            drawn = getattr(torch_noise, name)(SEED, Purpose.DATA, streams, step, 11, 4).cpu().numpy()
            assert (drawn == reference(SEED, Purpose.DATA, lanes, step, 11, 4)).all(), f"{name} differ"
    order = torch_noise.permutation(SEED, Purpose.SHUFFLE, streams, 3, 11).cpu().numpy()
    assert (order == rng.permutation(SEED, Purpose.SHUFFLE, lanes, 3, 11)).all(), "permutations differ"
    return "equal to the bit"


def _floats_equal(device: torch.device) -> str:
    streams, lanes = torch.arange(500, device=device), np.arange(500)
    worst = 0.0
    for step in (0, 5, 2**31 - 1):
        for n in (1, 2, 6):
            normals = torch_noise.normals(SEED, Purpose.LANGEVIN, streams, step, n)
            worst = max(worst, compare(normals, rng.normals(SEED, Purpose.LANGEVIN, lanes, step, n), 1e-12, 1e-13))
            uniforms = torch_noise.uniforms(SEED, Purpose.BRIDGE, streams, step, n)
            worst = max(worst, compare(uniforms, rng.uniforms(SEED, Purpose.BRIDGE, lanes, step, n), 0.0, 0.0))
        for dof in (1, 2, 9):
            chi2 = torch_noise.chi_square(dof, SEED, Purpose.DATA, streams, step)
            worst = max(worst, compare(chi2, rng.chi_square(dof, SEED, Purpose.DATA, lanes, step), 1e-11, 1e-12))
    return difference(worst)


# ---------------------------------------------------------------- training


def _optimizers(device: torch.device, model: str, data: Data, sampler: Sampler | None) -> str:
    worst = 0.0
    for optimizer in OPTIMIZERS:
        make = partial(sgd, model, data, sampler, optimizer=optimizer)
        worst = max(worst, same_runs(make, device))
    return f"{len(OPTIMIZERS)} optimizers, {difference(worst)}"


def _hyperparameters(device: torch.device) -> str:
    members = np.arange(REPLICAS)
    cases: list[dict[str, Any]] = [
        {"lr": Cosine(0.1, 0.01, 6), "batch_size": Piecewise((2, 5), (2, 2)), "weight_decay": Linear(0.1, 0.3, 4)},
        {
            "lr": 0.02 + 0.001 * members,
            "weight_decay": 0.1 + 0.01 * members,
            "noise": per_sample(variance=0.01 * members),
        },
        {"lr": Linear(0.1, 0.05, 4), "weight_decay": 0.1 + 0.01 * members},
    ]
    watch = Watch(Region(0.5), floor=0.1)
    worst = 0.0
    for changes in cases:
        for optimizer in (GradientDescent(), AdamW()):
            make = partial(sgd, "chain", ONLINE, None, optimizer=optimizer, **changes)
            worst = max(worst, same_runs(make, device, watch))
    return f"{2 * len(cases)} combinations, {difference(worst)}"


def _langevin(device: torch.device) -> str:
    worst = 0.0
    systems: tuple[Any, ...] = (Mode(3, 1.0, 0.25), CHAIN, network, diagonal)
    for system in systems:
        for bridge in (False, True):

            def make(where: torch.device | str, *, fused: bool, system: Any = system) -> Langevin:
                made = system() if callable(system) else system
                return Langevin(made, temperature=0.02, dt=0.1, integrator=Fused(compiled=fused), device=where)

            worst = max(worst, same_runs(make, device, Watch(Region(0.4), bridge=bridge)))
    return f"{2 * len(systems)} runs, {difference(worst)}"


# ---------------------------------------------------------------- whole runs


def _first_passage(device: torch.device) -> str:
    """Exits of a chain on the device, by torch, against those of the compiled kernel."""
    exits = []
    for where, fused in ((device, False), (torch.device("cpu"), True)):
        process = SGD(
            CHAIN,
            teacher(label_noise=0.1),
            lr=0.1,
            batch_size=8,
            noise=per_sample(temperature=0.008),
            device=where,
            fused=fused,
        )
        found = first_passage(process, target=Region(0.2), n_replicas=64, max_time=20.0, seed=SEED)
        exits.append((found["escaped"].values, found["exit_time"].values))
    assert (exits[0][0] == exits[1][0]).all(), "other replicas escaped"
    assert 0 < exits[0][0].sum() < 64, "the check is empty: all or none escaped"
    worst = float(np.abs(exits[0][1] - exits[1][1]).max())
    assert worst < 1e-9, f"exit times differ by up to {worst:g}"
    return f"{int(exits[0][0].sum())} of 64 escaped, the same ones at the same times"


def _observables(device: torch.device) -> str:
    measured: list[observables.Observable] = [
        observables.OrderParameters(), observables.SingularValues(), observables.Rank(0.3), observables.LayerNorms(),
        observables.Imbalance(), observables.FeatureAmplitudes(), observables.Loss(population()),
        observables.Loss(samples(2), "test_loss"),
    ]  # fmt: skip
    values = []
    for where in (device, torch.device("cpu")):
        process = sgd("network", ONLINE, None, where)
        point = 0.3 + 0.2 * np.cos(np.arange(process.model.n_parameters))
        _, kept = tracing.observe(process, process.start(5, seed=SEED, point=point), [0, 2, 5], measured)
        values.append(kept)
    worst = max(compare(values[0][name], values[1][name]) for name in values[0])
    return f"{len(measured)} observables, {difference(worst)}"


def _single_precision(device: torch.device) -> str:
    worst = 0.0
    for model, name, data, sampler in sources():
        ends: list[Tensor] = []
        for dtype in (torch.float32, torch.float64):
            process = sgd(model, data, sampler, device, dtype=dtype, fused=False)
            ends.append(run(process)["theta"])
        assert ends[0].dtype == torch.float32, f"{model}, {name}: not in single precision"
        worst = max(worst, compare(ends[0], ends[1], 1e-3, 1e-4))
    return f"float32 against float64: {difference(worst)}"


@contextmanager
def no_reading_back(device: torch.device) -> Iterator[None]:
    """Make every wait of the host for the GPU an error."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _no_reading_back(device: torch.device) -> str:
    watch = Watch(Region(0.5), floor=0.05)
    number = 0
    for model, _, data, sampler in sources():
        for optimizer in (GradientDescent(), AdamW()):
            process = sgd(model, data, sampler, device, optimizer=optimizer, fused=False)
            state, _ = process.advance(process.start(REPLICAS, seed=SEED), 1, watch)  # constants move once, here
            with no_reading_back(device):
                state, _ = process.advance(state, STEPS, watch)
            number += 1
    return f"{number} processes" if device.type == "cuda" else "nothing to read back on the CPU"


def _compiled(device: torch.device) -> str:
    worst = 0.0
    for optimizer in (GradientDescent(), AdamW()):
        make = partial(sgd, "network", ONLINE, None, optimizer=optimizer, fused=False)
        ends = [run(make(device, compile=switch))["theta"] for switch in (True, False)]
        worst = max(worst, compare(ends[0], ends[1]))
    return difference(worst)


def checks_of(*, compile: bool = False) -> dict[str, Check]:
    """Return all checks by name; each returns what it found, or raises."""
    found: dict[str, Check] = {
        "noise: integer streams": _integers_equal,
        "noise: normals, uniforms, chi-square": _floats_equal,
    }
    for model, name, data, sampler in sources():
        found[f"{model}: {name}"] = partial(_optimizers, model=model, data=data, sampler=sampler)
    found |= {
        "schedules and hyperparameters of each replica": _hyperparameters,
        "Langevin dynamics, with bridges": _langevin,
        "first passage": _first_passage,
        "observables": _observables,
        "single precision": _single_precision,
        "nothing is read back while advancing": _no_reading_back,
    }
    if compile:
        found["compile switch"] = _compiled
    return found
