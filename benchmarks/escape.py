"""Parts about escapes: one step of one replica, a mean escape time to 5 %, and splitting where nobody can wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import kramers_grok as kg
from benchmarks import arenas, ours, reference, torch_peers
from benchmarks.arenas import COLD, HOT, STEP, Arena, NetworkArena
from benchmarks.timing import DOUBLE, SINGLE, Check, Part, Plan, Racer, Say

Array = NDArray[np.float64]
Chosen = Callable[[str], bool]  # by the name of a contestant
Hits = Callable[[int, int, int], Array]  # replicas, steps, seed -> step of the first hit, inf where there is none

WARM_RATIO = 7.0
N_PASSAGE, ESCAPES = 4096, 400  # replicas, and how many of them escape: a relative error of 5 %
LONGEST = 2.0  # seconds of an end-to-end run that is timed whole
SPLITTING_RATIOS = (12.0, 16.0)
GOAL = 0.1  # relative error to which splitting and brute force are compared


@dataclass(frozen=True)
class Contestant:
    """One way to take the steps.

    Attributes
    ----------
    name : str
    make : callable
        Returns what runs in an arena.
    ours : bool
    noise : str
        Precision in which normal numbers are made; the state is in double precision.
    bridge : bool
        Whether crossings between two steps count.
    largest : int
        Most replicas that it is given.
    brute : bool
        Whether it is fast enough to stand for brute force beside splitting.
    """

    name: str
    make: Callable[[Any], Any]
    ours: bool = False
    noise: str = DOUBLE
    bridge: bool = False
    largest: int = 10**9
    brute: bool = True


def peer(module: str, names: tuple[str, ...], part: Part, chosen: Chosen, say: Say) -> Any:
    """Return the module of contestants, or None where none is asked for or what they need is not installed."""
    if not any(map(chosen, names)):
        return None
    try:
        return import_module(f"benchmarks.{module}")
    except ImportError as error:
        part.leave_out(names[0], f"{error.name} is not installed", say)
        return None


def contestants(threads: int, part: Part, chosen: Chosen, say: Say) -> Iterator[Contestant]:
    """Everybody who runs in a mode or a chain; the first is the reference."""
    for noise, integrator in ours.integrators(threads).items():
        yield Contestant(
            ours.name_of(noise), lambda a, i=integrator: ours.Escape(a, i), ours=True, noise=noise, bridge=True
        )
    if jax := peer("jax_peers", ("JAX loop",), part, chosen, say):
        yield Contestant("JAX loop", jax.Escape)
        yield Contestant("JAX loop, single-precision noise", lambda a: jax.Escape(a, np.float32), noise=SINGLE)
    if numba := peer("numba_peers", ("numba loop", "numba over blocks"), part, chosen, say):
        yield Contestant("numba loop", lambda a: numba.Loop(a, threads))
        yield Contestant("numba over blocks of replicas", lambda a: numba.Blocks(a, threads))
    yield Contestant("torch loop", torch_peers.EscapeLoop)
    yield Contestant(
        "torch loop, single-precision noise", lambda a: torch_peers.EscapeLoop(a, torch.float32), noise=SINGLE
    )
    if diffrax := peer("diffrax_peers", ("diffrax.diffeqsolve",), part, chosen, say):
        yield Contestant("diffrax.diffeqsolve", diffrax.Escape, brute=False)
    yield Contestant("torchsde.sdeint, fresh increments", lambda a: torch_peers.TorchSDE(a, fresh=True), brute=False)
    yield Contestant("torchsde.sdeint", lambda a: torch_peers.TorchSDE(a, fresh=False), brute=False)
    yield Contestant(
        "kramers_grok on torch", lambda a: ours.Escape(a, ours.on_torch()), ours=True, bridge=True, brute=False
    )


def check_time(arena: Arena, one: Contestant, plan: Plan) -> Check:
    """Mean of min(exit time, two mean times) against the exact one."""
    predicted = arena.exact(bridge=one.bridge)
    steps = int((0.3 if plan.quick else 2.0) * predicted.mean / STEP)
    times = (one.make(arena)(plan.n_check, steps, 1) - 0.5 * one.bridge) * STEP
    times = np.minimum(times, steps * STEP)
    grid = np.linspace(0, steps * STEP, 4001)
    exact = float(np.trapezoid(predicted.survival(grid), grid))
    error = float(times.std(ddof=1) / len(times) ** 0.5)
    return Check(one.name, "mean of min(exit time, horizon)", float(times.mean()), exact, error)


def steps_part(arena: Arena, everybody: Sequence[Contestant], part: Part, plan: Plan, say: Say) -> None:
    """Replica-steps per second. Checked hot, timed cold, where nobody leaves and no step is saved by stopping."""
    for one in everybody:
        part.check(check_time(arena.at(HOT), one, plan), say)
    for replicas in plan.sizes:
        racers = [
            Racer(
                one.name, _steps(one.make(arena.at(COLD)), replicas), one.ours, one.noise, scale=replicas, least=8
            )
            for one in everybody
        ]  # fmt: skip
        part.race(f"{replicas:,} replicas", racers, plan, say, replicas=replicas)


def _steps(hits: Callable[[int, int, int], object], replicas: int) -> Callable[[int], object]:
    return lambda n: hits(replicas, n, 2)


# ------------------------------------------------------------------ the matrix network


def network_contestants(threads: int, part: Part, chosen: Chosen, say: Say) -> Iterator[Contestant]:
    """Everybody who runs in the matrix network."""
    for noise, integrator in ours.integrators(threads).items():
        yield Contestant(
            ours.name_of(noise), lambda a, i=integrator: ours.Network(a, i), ours=True, noise=noise, bridge=True
        )
    yield Contestant("torch loop, batched products", torch_peers.NetworkLoop)
    yield Contestant(
        "torch loop, single-precision noise", lambda a: torch_peers.NetworkLoop(a, torch.float32), noise=SINGLE
    )
    if jax := peer("jax_peers", ("JAX loop",), part, chosen, say):
        yield Contestant("JAX loop, batched products", jax.Network)
        yield Contestant("JAX loop, single-precision noise", lambda a: jax.Network(a, np.float32), noise=SINGLE)
    yield Contestant(
        "kramers_grok on torch", lambda a: ours.Network(a, ours.on_torch()), ours=True, bridge=True, largest=10_000
    )


def network_part(threads: int, part: Part, plan: Plan, chosen: Chosen, say: Say) -> None:
    """Replica-steps per second of the matrix network."""
    hot, cold = NetworkArena(ratio=0.5), NetworkArena()
    everybody = [one for one in network_contestants(threads, part, chosen, say) if chosen(one.name)]
    steps, n = (40 if plan.quick else 400), max(plan.n_check // 4, 64)
    hits = np.minimum(reference.network(hot, n, steps, np.random.default_rng(7))[0], steps)
    energy = cold.energy(reference.network(cold, n, steps, np.random.default_rng(8))[1])
    for one in everybody:
        warm, run = one.make(hot), one.make(cold)
        if one.bridge:  # here a step is so long that it counts
            warm.bridge = False
        square = (warm(n, 1, 3)[1] / hot.amplitude) ** 2  # from the origin, where the gradient is zero: noise alone
        part.check(Check(one.name, "variance of one step", float(square.mean()), 1.0, (2 / square.size) ** 0.5), say)
        found = np.minimum(warm(n, steps, 4)[0], steps)
        part.check(compared(one.name, f"first hit, cut at {steps} steps", found, hits), say)
        # Cold: in the library a replica that has hit stands still, and here none does.
        part.check(compared(one.name, f"energy after {steps} steps", cold.energy(run(n, steps, 5)[1]), energy), say)
    for replicas in plan.sizes:
        racers = [
            Racer(one.name, _steps(one.make(cold), replicas), one.ours, one.noise, scale=replicas, least=2)
            for one in everybody
            if replicas <= one.largest
        ]
        part.race(f"{replicas:,} replicas", racers, plan, say, replicas=replicas)


def compared(name: str, what: str, values: Array, expected: Array) -> Check:
    """Means of two independent samples against one another."""
    error = float((values.var(ddof=1) / len(values) + expected.var(ddof=1) / len(expected)) ** 0.5)
    return Check(name, what, float(values.mean()), float(expected.mean()), max(error, 1e-300))


# ------------------------------------------------------------------ end to end


def passage_part(arena: Arena, everybody: Sequence[Contestant], part: Part, plan: Plan, say: Say) -> None:
    """Seconds for a mean escape time to 5 %: every contestant runs the same replicas to the same horizon.

    The horizon lets 400 of 4,096 escape, and the mean is the total time at risk over the number of escapes: the plan
    that serves engines best which cannot drop a replica that has left.
    """
    arena = arena.at(WARM_RATIO)
    replicas, escapes = (N_PASSAGE // 16, ESCAPES // 16) if plan.quick else (N_PASSAGE, ESCAPES)
    mean = {bridge: float(arena.exact(bridge=bridge).mean) for bridge in (True, False)}
    total = int(-np.log1p(-escapes / replicas) * mean[False] / STEP)
    total = total // 50 if plan.quick else total
    racers = []
    for one in everybody:
        if one.ours and not one.brute:  # torch's path would take minutes
            continue
        run = _first_passage(one, arena, replicas) if one.ours else one.make(arena)
        seconds = _pilot(run, replicas, total)
        # Never the library's: its chunks grow with the time passed, so that its first steps say nothing of the rest.
        whole = one.ours or seconds <= LONGEST
        n = total if whole else max(int(total * LONGEST / seconds), 8)
        if whole and not plan.quick:
            part.check(_check_mean(one, run(replicas, total, 5), total, mean[one.bridge]), say)
        note = "" if whole else f"extrapolated from {n / total:.1%} of its steps"
        call = _varied(run, replicas)
        racers.append(Racer(one.name, call, one.ours, one.noise, 1 / total, n, least=min(n, 8), note=note))
    part.race(f"{escapes} of {replicas:,} replicas escape", racers, plan, say, replicas=replicas, steps=total)


def _first_passage(one: Contestant, arena: Arena, replicas: int) -> Hits:
    """Return `kg.first_passage`, the estimate of the mean included, in the form of the others."""
    process = one.make(arena).process

    def run(replicas: int, steps: int, seed: int) -> Array:
        ds = kg.first_passage(
            process, target=arena.target, n_replicas=replicas, max_time=steps * STEP, seed=seed, bridge=True
        )
        if int(ds.escaped.sum()) >= 10:
            kg.mean_exit_time(ds)
        return np.where(ds.escaped.values, ds.exit_time.values / STEP + 0.5, np.inf)

    return run


def _pilot(run: Hits, replicas: int, total: int) -> float:
    """Seconds that the whole run will take, about."""
    run(replicas, 16, 9)
    n, took = 64, 0.0
    while True:
        began = time.perf_counter()
        run(replicas, n, 9)
        took = time.perf_counter() - began
        if took > 0.02 or n >= total:
            return took * total / n
        n *= 4


def _varied(run: Hits, replicas: int) -> Callable[[int], object]:
    seeds = count(11)
    return lambda n: run(replicas, n, next(seeds))


def _check_mean(one: Contestant, hits: Array, total: int, exact: float) -> Check:
    left = np.isfinite(hits)
    at_risk = np.where(left, hits - 0.5 * one.bridge, total).sum() * STEP
    mean = float(at_risk / left.sum())
    return Check(one.name, "mean exit time", mean, exact, mean / float(left.sum()) ** 0.5)


# ------------------------------------------------------------------ splitting


def splitting_part(arena: Arena, everybody: Sequence[Contestant], part: Part, plan: Plan, say: Say) -> None:
    """Seconds for a mean exit time to 10 %: splitting, and brute force extrapolated from its speed."""
    replicas = 200 if plan.quick else 10_000
    for ratio in SPLITTING_RATIOS[:1] if plan.quick else SPLITTING_RATIOS:
        cold = arena.at(ratio)
        mean = float(cold.exact(bridge=False).mean)
        racer = _splitting(cold, mean, part, plan, say)
        needed = mean / STEP / GOAL**2  # steps: 1/δ² escapes of one mean exit time each
        note = f"brute force is extrapolated from its speed, to {needed:.2g} steps"
        brute = [
            Racer(
                f"{one.name}, brute force", _steps(one.make(cold), replicas), one.ours, one.noise,
                replicas / needed, least=8,
            )
            for one in everybody
            if one.brute
        ]  # fmt: skip
        part.race(f"ΔF/T = {ratio:g}", [racer, *brute], plan, say, ratio=ratio, mean_exit_time=mean, note=note)


def _splitting(arena: Arena, mean: float, part: Part, plan: Plan, say: Say) -> Racer:
    """Check some runs of `kg.splitting`, learn their error, and return it as a contestant for an error of 10 %."""
    process = ours.Escape(arena, next(iter(ours.integrators(torch.get_num_threads()).values()))).process
    size = 64 if plan.quick else 512
    seeds = count(21)

    def run(_: int = 1) -> Any:
        return kg.splitting(process, target=arena.target, seed=next(seeds), n_replicas=size)

    runs = [run() for _ in range(2 if plan.quick else 8)]
    means = np.array([float(ds.mean_exit_time) for ds in runs])
    errors = np.array([float(ds.standard_error) for ds in runs])
    error = float((errors**2).sum() ** 0.5 / len(runs))
    part.check(Check("splitting", f"mean exit time at ΔF/T = {arena.ratio:g}", float(means.mean()), mean, error), say)
    relative = float(np.mean((errors / means) ** 2) ** 0.5)
    note = f"runs of {relative:.1%}, scaled to 10 %"
    return Racer("kramers_grok, splitting", run, True, DOUBLE, (GOAL / relative) ** 2, fixed=1, note=note)


def parts(threads: int) -> dict[str, tuple[str, str, Callable[..., None]]]:
    """Title, unit and function of each part by its name."""
    mode, chain = arenas.mode_and_chain()

    def race_in(function: Callable[..., None], arena: Arena) -> Callable[..., None]:
        def run(part: Part, plan: Plan, chosen: Chosen, say: Say) -> None:
            everybody = [one for one in contestants(threads, part, chosen, say) if chosen(one.name)]
            function(arena, everybody, part, plan, say)

        return run

    found: dict[str, tuple[str, str, Callable[..., None]]] = {}
    for arena, what in ((mode, "one coordinate"), (chain, "chain of three weights")):
        found[f"escape-{arena.name}"] = f"Steps of an escape: {what}", "replica-step", race_in(steps_part, arena)
    found["escape-network"] = (
        "Steps of an escape: matrix network 8-16-16-8", "replica-step",
        lambda part, plan, chosen, say: network_part(threads, part, plan, chosen, say),
    )  # fmt: skip
    for arena, what in ((mode, "one coordinate"), (chain, "chain of three weights")):
        title = f"A mean escape time to 5 % at ΔF/T = {WARM_RATIO:g}: {what}"
        found[f"passage-{arena.name}"] = title, "s", race_in(passage_part, arena)
    for arena, what in ((mode, "one coordinate"), (chain, "chain of three weights")):
        title = f"A mean exit time to 10 % that nobody waits for: {what}"
        found[f"splitting-{arena.name}"] = title, "s", race_in(splitting_part, arena)
    return found
