"""Parts about ensembles of SGD: a deep linear network and a tanh network 8-16-16-8."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kramers_grok as kg
from benchmarks import ours, reference, torch_peers
from benchmarks.arenas import Training
from benchmarks.escape import Chosen, peer
from benchmarks.timing import Check, Part, Plan, Racer, Say

Array = NDArray[np.float64]

FEW = 8  # replicas of the loop over torch.optim, whose time is proportional to their number


@dataclass(frozen=True)
class Contestant:
    """One way to train an ensemble; `replicas` caps how many are run, the rest is extrapolated."""

    name: str
    make: Callable[[Training], Callable[[int, int, int], Array]]
    ours: bool = False
    replicas: int | None = None


def contestants(arena: Training, threads: int, part: Part, chosen: Chosen, say: Say) -> Iterator[Contestant]:
    """Everybody; the first is the reference."""
    if not arena.tanh:
        yield Contestant(ours.NAME, lambda a: ours.Train(a, threads, kg.BySamples()), ours=True)
        yield Contestant(f"{ours.NAME}, batches by moments", lambda a: ours.Train(a, threads), ours=True)
    else:
        yield Contestant(ours.NAME, lambda a: ours.Train(a, threads), ours=True)
    yield Contestant("torch loop, batched products", torch_peers.Batched)
    yield Contestant("torch.func, vmap of grad", torch_peers.Vmapped)
    if jax := peer("jax_peers", ("JAX loop",), part, chosen, say):
        yield Contestant("JAX loop, vmap of grad", jax.Train)
    yield Contestant("torch.optim, one replica at a time", torch_peers.Optim, replicas=FEW)


def check(one: Contestant, arena: Training, known: dict[int, Array], plan: Plan, part: Part, say: Say) -> None:
    """Distance of one step, and test loss after some steps, against plain numpy in double precision."""
    run, n = one.make(arena), len(next(iter(known.values())))
    n = min(n, 64 if one.replicas else n)
    start = arena.start(n)
    for steps, theta in known.items():
        moved = run(n, steps, 4)
        if steps == 1:
            # Its logarithm: few replicas with large gradients would hide the rest.
            found, expected = (np.log(((w - start[: len(w)]) ** 2).sum(axis=1)) for w in (moved, theta[:n]))
            part.check(paired(one.name, "log of the first step's squared length", found, expected), say)
        else:
            found, expected = arena.test_loss(moved), arena.test_loss(theta[:n])
            part.check(paired(one.name, f"mean test loss after {steps} steps", found, expected), say)


def paired(name: str, what: str, values: Array, expected: Array) -> Check:
    """Means over replicas that began with the same weights, each with batches of its own."""
    error = float((values - expected).std(ddof=1) / len(values) ** 0.5)
    return Check(name, what, float(values.mean()), float(expected.mean()), error)


def training_part(arena: Training, threads: int, part: Part, plan: Plan, chosen: Chosen, say: Say) -> None:
    """Replica-steps per second."""
    everybody = [one for one in contestants(arena, threads, part, chosen, say) if chosen(one.name)]
    n, long = (64, 10) if plan.quick else (plan.n_check, 100)
    known = {steps: reference.train(arena, n, steps, np.random.default_rng(7)) for steps in (1, long)}
    for one in everybody:
        check(one, arena, known, plan, part, say)
    for replicas in plan.training_sizes:
        racers = []
        for one in everybody:
            held = min(replicas, one.replicas or replicas)
            note = "" if held == replicas else f"extrapolated from {held} replicas"
            call = partial(_steps, one.make(arena), held)
            racers.append(Racer(one.name, call, one.ours, "single", scale=held, least=4, note=note))
        part.race(f"{replicas:,} replicas", racers, plan, say, replicas=replicas)


def _steps(run: Callable[[int, int, int], object], replicas: int, steps: int) -> object:
    return run(replicas, steps, 2)


def parts(threads: int) -> dict[str, tuple[str, str, Callable[..., None]]]:
    """Title, unit and function of each part by its name."""
    found: dict[str, tuple[str, str, Callable[..., None]]] = {}
    for name, arena in (("sgd-linear", Training()), ("sgd-tanh", Training(tanh=True))):
        title = f"SGD of a {arena.name} 8-16-16-8, batches of {arena.batch_size}, single precision"

        def run(part: Part, plan: Plan, chosen: Chosen, say: Say, arena: Any = arena) -> None:
            training_part(arena, threads, part, plan, chosen, say)

        found[name] = title, "replica-step", run
    return found
