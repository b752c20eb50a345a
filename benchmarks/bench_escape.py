"""Time one replica-step of an escape, and whole escapes: ``python benchmarks/bench_escape.py [--quick] [--threads N]``.

Contestants take the same Euler-Maruyama steps in the same landscape and note when each replica first enters the same
target. Before anything is timed each has to show that it is right: its mean exit time, cut at a horizon, must agree
with the exact one. Runs are interleaved, so that a change of the clock or of a neighbour's load meets all alike, and
what counts is the median over the rounds, as a ratio to the compiled kernel.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_THREADS = sys.argv[sys.argv.index("--threads") + 1] if "--threads" in sys.argv[:-1] else "1"
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_variable, _THREADS)

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torchsde  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from torch import Tensor  # noqa: E402

import kramers_grok as kg  # noqa: E402
from kramers_grok.dynamics.process import Watch  # noqa: E402
from kramers_grok.dynamics.torchsde_adapter import IsotropicSDE  # noqa: E402

DT = 0.1
RATIO = 1.5  # barrier over temperature
LARGEST = 5.0  # standard errors a contestant may be off

Array = NDArray[np.float64]
Hits = Callable[[int, int, int], Array]  # replicas, steps, seed -> step of the first hit, inf where there is none


@dataclass(frozen=True)
class Arena:
    """One system at one temperature with its target, and the gradient as a user would write it in torch."""

    name: str
    system: kg.Mode | kg.DeepLinearChain
    gradient: Callable[[Tensor], Tensor]
    order_parameter: Callable[[Tensor], Tensor]
    dimension: int
    temperature: float
    target: kg.Region

    def predicted(self, bridge: bool) -> Any:
        """Exact exit time of the walk with step DT."""
        return kg.exit_time(
            self.system, temperature=self.temperature, target=self.target, step=DT, monitored=not bridge
        )


def arenas() -> list[Arena]:
    """Return the mode and the chain of three weights at λ = 1/4."""
    decay, root = 0.25, 3**0.5

    def mode_gradient(x: Tensor) -> Tensor:
        a = x / root
        return decay * x - root * (1 - a * a * a) * a * a

    def chain_gradient(w: Tensor) -> Tensor:
        a, b, c = w.unbind(1)
        r = 1 - a * b * c
        return decay * w - torch.stack([r * b * c, r * a * c, r * a * b], dim=1)

    chain = kg.DeepLinearChain(3, 1.0, decay)
    barrier = chain.barrier()
    temperature, target = barrier.height / RATIO, kg.beyond(barrier)  # the mode's are the same
    return [
        Arena("mode", chain.mode, mode_gradient, lambda x: (x[..., 0] / root) ** 3, 1, temperature, target),
        Arena("chain", chain, chain_gradient, lambda w: w.prod(dim=-1), 3, temperature, target),
    ]


# ------------------------------------------------------------------ contestants


def of_library(arena: Arena, integrator: Any) -> Hits:
    """Return the library's `advance` with its watch and its bridge."""
    process = kg.Langevin(arena.system, temperature=arena.temperature, dt=DT, integrator=integrator, device="cpu")

    def hits(replicas: int, steps: int, seed: int) -> Array:
        _, record = process.advance(process.start(replicas, seed=seed), steps, Watch(arena.target, bridge=True))
        return _as_steps(record.hit_step)

    return hits


def plain_loop(arena: Arena) -> Hits:
    """Return what one writes in ten minutes: a loop over steps, torch's own normals, a mask of who is out."""
    amplitude, threshold = (2 * arena.temperature * DT) ** 0.5, arena.target.threshold

    def hits(replicas: int, steps: int, seed: int) -> Array:
        generator = torch.Generator().manual_seed(seed)
        x = torch.zeros((replicas, arena.dimension), dtype=torch.float64)
        hit = torch.full((replicas,), -1, dtype=torch.int64)
        for step in range(1, steps + 1):
            xi = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = x - DT * arena.gradient(x) + amplitude * xi
            hit = torch.where((hit < 0) & (arena.order_parameter(x) >= threshold), step, hit)
            if step % 256 == 0 and bool((hit >= 0).all()):
                break
        return _as_steps(hit)

    return hits


def sdeint(arena: Arena) -> Hits:
    """Return torchsde as shipped: its Brownian interval, every step saved, crossings looked for afterwards."""
    sde = IsotropicSDE(arena.gradient, arena.temperature)

    def hits(replicas: int, steps: int, seed: int) -> Array:
        times = torch.arange(steps + 1, dtype=torch.float64) * DT
        size = (replicas, arena.dimension)
        brownian = torchsde.BrownianInterval(0.0, float(times[-1]), size=size, dtype=torch.float64, entropy=seed)
        start = torch.zeros(size, dtype=torch.float64)
        path = torchsde.sdeint(sde, start, times, bm=brownian, method="euler", dt=DT)
        inside = arena.order_parameter(path) >= arena.target.threshold
        return _as_steps(torch.where(inside.any(dim=0), inside.to(torch.int8).argmax(dim=0), -1))

    return hits


def _as_steps(hit: Tensor) -> Array:
    steps: Array = hit.numpy().astype(np.float64)
    steps[steps < 0] = np.inf
    return steps


@dataclass(frozen=True)
class Contestant:
    """One way to take the steps, and what it is given to do."""

    name: str
    hits: Hits
    bridge: bool
    share: float = 1.0  # of the steps that the fastest is given


def contestants(arena: Arena, threads: int) -> list[Contestant]:
    """Return all contestants; the first is the reference."""
    return [
        Contestant("compiled kernel", of_library(arena, kg.Fused(n_threads=threads)), True),
        Contestant("plain torch loop", plain_loop(arena), False, 0.2),
        Contestant("our torch path", of_library(arena, kg.Fused(compiled=False)), True, 0.1),
        Contestant("our torchsde adapter", of_library(arena, kg.TorchSDE("euler")), True, 0.1),
        Contestant("torchsde.sdeint", sdeint(arena), False, 0.1),
    ]


# ------------------------------------------------------------------ right, then fast


@dataclass(frozen=True)
class Plan:
    """How much is run."""

    sizes: tuple[int, ...] = (1_000, 10_000)
    n_check: int = 1_000
    check_horizon: float = 2.0  # mean exit times
    horizon: float = 12.0
    budget: int = 2_000_000  # replica-steps of the fastest in one round
    rounds: int = 9
    escape_rounds: int = 3


QUICK = Plan((50,), 100, 0.3, 0.3, 10_000, 2, 1)


def distance(arena: Arena, contestant: Contestant, plan: Plan) -> float:
    """Return how many standard errors the mean of min(exit time, horizon) is from the exact one."""
    predicted = arena.predicted(contestant.bridge)
    steps = int(plan.check_horizon * predicted.mean / DT)
    times = (contestant.hits(plan.n_check, steps, 1) - 0.5 * contestant.bridge) * DT
    times = np.minimum(times, steps * DT)
    grid = np.linspace(0, steps * DT, 4001)
    exact = float(np.trapezoid(predicted.survival(grid), grid))
    return float((times.mean() - exact) / (times.std(ddof=1) / plan.n_check**0.5))


def interleaved(calls: Sequence[Callable[[], object]], rounds: int) -> Array:
    """Return seconds of each call in each round, shape (call, round); all have been called once before."""
    seconds = np.empty((len(calls), rounds))
    for number in range(rounds):
        for row, call in enumerate(calls):
            begin = time.perf_counter()
            call()
            seconds[row, number] = time.perf_counter() - begin
    return seconds


def check(arena: Arena, players: Sequence[Contestant], plan: Plan) -> None:
    """Print each contestant's distance from the exact time; leave if one is wrong."""
    for player in players:
        z = distance(arena, player, plan)
        print(f"  {player.name:24s} mean exit time {z:+.2f} standard errors from the exact one")
        if not abs(z) < LARGEST:
            sys.exit(f"{player.name} is wrong in the {arena.name}: its speed means nothing")


def step_times(players: Sequence[Contestant], replicas: int, plan: Plan) -> None:
    """Print nanoseconds per replica and step."""
    steps = [max(int(plan.budget * player.share / replicas), 20) for player in players]
    calls = [lambda p=p, n=n: p.hits(replicas, n, 2) for p, n in zip(players, steps, strict=True)]  # type: ignore[misc]
    seconds = interleaved(calls, plan.rounds) / (replicas * np.array(steps)[:, None])
    report([p.name for p in players], seconds * 1e9, "ns")


def escapes(arena: Arena, loop: Contestant, replicas: int, plan: Plan) -> None:
    """Print seconds until all replicas have escaped: `first_passage`, and the plain loop with the same horizon."""
    horizon = plan.horizon * arena.predicted(True).mean

    def passage(integrator: Any) -> Callable[[], object]:
        process = kg.Langevin(arena.system, temperature=arena.temperature, dt=DT, integrator=integrator, device="cpu")
        # What happens once only, imports above all, is not what is measured.
        kg.first_passage(process, target=arena.target, n_replicas=2, max_time=10 * DT, seed=3)
        return lambda: kg.first_passage(process, target=arena.target, n_replicas=replicas, max_time=horizon, seed=3)

    calls: dict[str, Callable[[], object]] = {
        "first_passage, compiled": passage(kg.Fused(n_threads=torch.get_num_threads())),
        "first_passage, torch": passage(kg.Fused(compiled=False)),
        "plain torch loop": lambda: loop.hits(replicas, int(horizon / DT), 3),
    }
    report(list(calls), interleaved(list(calls.values()), plan.escape_rounds), "s")


def report(names: Sequence[str], values: Array, unit: str) -> None:
    """Print medians, best values and ratios to the first row, paired round by round."""
    for name, row in zip(names, values, strict=True):
        ratio = float(np.median(row / values[0]))
        print(f"  {name:24s} {np.median(row):10.3g} {unit:2s} (best {row.min():8.3g})   × {ratio:.3g}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Check and measure all contestants."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test: few replicas, few rounds, no meaning")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and of the compiled kernel")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    plan = QUICK if options.quick else Plan()
    began = time.perf_counter()
    for arena in arenas():
        print(f"{arena.name}, ΔF/T = {RATIO:g}, step {DT:g}, {options.threads} thread(s)")
        players = contestants(arena, options.threads)
        check(arena, players, plan)
        for replicas in plan.sizes:
            print(f" {replicas} replicas: one step of one replica, ratio to the compiled kernel")
            step_times(players, replicas, plan)
        print(f" {plan.sizes[0]} replicas: a whole escape, to {plan.horizon:g} mean times at most")
        escapes(arena, players[1], plan.sizes[0], plan)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
