"""Splitting: exact chains of every kind, the mode and the chain at barriers from 3 to 25, brute force, honest errors.

Statistical tests: seeds are fixed and each is tested at 1e-5. A mean is compared in units of its own standard error
against Student's t with (repeats − 1) degrees of freedom: 5.3 of them at 32 repeats. Precision is stated per test; in
each a mean wrong by 1.3 would be seen.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import sympy
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

from kramers_grok.analysis import cost_exponent, splitting_cost
from kramers_grok.core.landscape import Landscape
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region, beyond
from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics import loop, torch_noise
from kramers_grok.dynamics.langevin import Fused, Langevin
from kramers_grok.dynamics.optimizers import Momentum
from kramers_grok.dynamics.process import Observed, Record, State, Watch
from kramers_grok.dynamics.sampling import ShuffledEpochs
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.escape.splitting import splitting
from kramers_grok.escape.splitting_engine import Crowd, resample
from kramers_grok.models.data import finite, teacher
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.exit_times import exit_time
from kramers_grok.theory.quadrature import Diffusion, Interval
from kramers_grok.theory.time_step import discrete_mean_exit

Array = NDArray[np.float64]
ALPHA = 1e-5
CHAIN = DeepLinearChain(3, 1.0, 0.25)
MODE = CHAIN.mode
STEP = 0.1


def deviation(ds: xr.Dataset, mean: float) -> float:
    """Distance of ln T from that of `mean` in standard errors."""
    return math.log(float(ds.mean_exit_time) / mean) / float(ds.standard_error / ds.mean_exit_time)


def limit(ds: xr.Dataset) -> float:
    return float(stats.t.isf(ALPHA / 2, ds.sizes["repeat"] - 1))


def agrees(ds: xr.Dataset, mean: float, *, seen: float = 1.3) -> bool:
    """Whether a run agrees with a mean, and is precise enough that a factor `seen` would lie beyond the limit."""
    precise = math.log(seen) > limit(ds) * float(ds.standard_error / ds.mean_exit_time)
    return precise and abs(deviation(ds, mean)) < limit(ds)


# ---------------------------------------------------------------- a walk that linear algebra solves


@dataclass(frozen=True)
class Walk:
    """A walk on 0, 1, 2, … with a memory (its direction), jumps of two steps up, and a law of a given period.

    At each step the direction is kept with probability `keep`, else drawn anew, up with probability `up[phase]`.
    """

    up: tuple[float, ...]
    keep: float = 0.3
    double: float = 0.3
    dt: float = 0.5
    is_diffusion = False

    @property
    def period(self) -> int:
        return len(self.up)

    def start(self, n_replicas: int, *, seed: int, point: ArrayLike | None = None) -> State:
        theta = torch.zeros(n_replicas, 1, dtype=torch.float64)
        if point is not None:
            theta += torch.as_tensor(np.asarray(point, dtype=np.float64))
        down = -torch.ones(n_replicas, 1, dtype=torch.float64)
        return State(theta, torch.arange(n_replicas), 0, seed, {"direction": down})

    def advance(self, state: State, n_steps: int, watch: Watch | None = None) -> tuple[State, Record]:
        def step(theta: Tensor, streams: Tensor, number: int, buffers: loop.Buffers) -> tuple[Tensor, loop.Buffers]:
            u = torch_noise.words(state.seed, Purpose.DATA, streams, number, 4).double() / 2**32
            fresh = torch.where(u[:, 1] < self.up[number % self.period], 1.0, -1.0).double()
            direction = torch.where(u[:, 0] < self.keep, buffers["direction"][:, 0], fresh)
            stride = torch.where((direction > 0) & (u[:, 2] < self.double), 2.0, 1.0)
            moved = (theta + (direction * stride)[:, None]).clamp_min(0.0)
            return moved, {"direction": direction[:, None]}

        return loop.run(state, n_steps, step, self, watch, 0.0)

    def order_parameters(self, theta: Tensor) -> Tensor:
        return theta

    def describe(self) -> Mapping[str, Any]:
        return {"engine": "langevin", "dt": self.dt, "unknown": "word"}

    def mean_exit(self, border: int, start: int = 0) -> float:
        """Mean first time at or beyond `border`, by solving (1 − P)τ = dt over position, direction and phase."""
        period, states = self.period, [(x, d) for x in range(border) for d in (-1, 1)]
        index = {(x, d, p): i for i, (x, d, p) in enumerate((x, d, p) for x, d in states for p in range(period))}
        matrix = np.zeros((len(index), len(index)))
        for (x, d, p), row in index.items():
            rising = self.keep * (d > 0) + (1 - self.keep) * self.up[p]
            for chance, y, e in (
                (rising * self.double, x + 2, 1),
                (rising * (1 - self.double), x + 1, 1),
                (1 - rising, max(x - 1, 0), -1),
            ):
                if y < border:
                    matrix[row, index[y, e, (p + 1) % period]] += chance
        tau = np.linalg.solve(np.eye(len(index)) - matrix, np.full(len(index), self.dt))
        return float(tau[index[start, -1, 0]])


UNIFORM = Walk((0.25,))
PERIODIC = Walk((0.3, 0.05))


class Comb:
    """A bad score, no more than a hint: every second place looks further than it is."""

    def values(self, observed: Observed, theta: Tensor) -> Tensor:
        x = observed.order_parameters(theta)[:, 0]
        return x + 1.4 * (x % 2)

    def expression(self, landscape: Landscape) -> sympy.Expr | None:
        return None


@pytest.mark.parametrize("border", [3, 7, 14])
@pytest.mark.parametrize("walk", [UNIFORM, PERIODIC])
def test_exact_walks(walk: Walk, border: int) -> None:
    """Low to high: most escape in the directly simulated loops, some, none. A factor 1.5 would be seen."""
    ds = splitting(walk, target=Region(border), n_replicas=128, n_repeats=32, seed=1)
    exact = walk.mean_exit(border)
    assert agrees(ds, exact, seen=1.5), (exact, deviation(ds, exact))
    if border == 3:
        assert float(ds.direct_survival.mean()) < 0.5
    if exact > 2000:
        assert float(ds.direct_survival.mean()) > 0.9


@pytest.mark.parametrize(
    "change",
    [
        {"levels": [0.5, 1.5]},  # one level: the target itself
        {"levels": [0.5, 3.5, 4.5]},  # a high entry: loops are long
        {"levels": [1.5, 2.5, 3.5, 5.5], "start": [4.0]},  # start beyond the entry and beyond a level
        {"levels": [0.5, 2.5, 3.1, 3.2, 4.5]},  # levels without a state between them
        {"success": 0.6},
        {"success": 0.05},
        {"loops": 7},
        {"score": Comb()},
        {"n_replicas": 37},
    ],
)
def test_the_result_does_not_depend_on_how_it_is_split(change: dict[str, Any]) -> None:
    """Any borders and any score, exact all the same. A factor 1.5 would be seen."""
    options: dict[str, Any] = {"n_replicas": 96, "n_repeats": 32, "seed": 2} | change
    ds = splitting(PERIODIC, target=Region(7), **options)
    exact = PERIODIC.mean_exit(7, int(change.get("start", [0.0])[0]))
    assert agrees(ds, exact, seen=1.5), (exact, deviation(ds, exact))


def simple_walk(up: float) -> Walk:
    """Steps of one, without memory: every climb begins at the same place."""
    return Walk((up,), keep=0.0, double=0.0)


def ruin(up: float, start: int, floor: int, border: int) -> float:
    """Probability to reach `border` before `floor`: the gambler's ruin."""
    r = (1 - up) / up
    return (r ** (start - floor) - 1) / (r ** (border - floor) - 1)


def test_the_probability_is_unbiased_even_if_most_repeats_die_out() -> None:
    """Two clones a level, p = 1.2e-3: most of 4096 repeats have p = 0 and the mean is right all the same (to 12 %).

    Negative control: a mean that forgets the repeats that died out is wrong by a large factor.
    """
    walk, border = simple_walk(0.25), 8
    ds = splitting(
        walk, target=Region(border), n_replicas=2, n_repeats=4096, seed=3, levels=[0.5, 1.5, 3.5, 5.5], loops=2
    )
    p = ds.probability.values
    exact = ruin(0.25, 2, 0, border)
    z = (p.mean() - exact) / (p.std() / len(p) ** 0.5)
    assert (p == 0).mean() > 0.8
    assert abs(z) < stats.norm.isf(ALPHA / 2)
    left = p[p > 0]
    assert (left.mean() - exact) / (left.std() / len(left) ** 0.5) > 2 * stats.norm.isf(ALPHA / 2)
    # The levels' own shares and what follows a death
    shares = ds.level_probability.values
    assert np.allclose(np.nan_to_num(shares).prod(axis=1), p)
    died = np.nan_to_num(shares[:, :-1]) == 0
    assert np.isnan(shares[:, 1:][died]).all()


def test_loops_and_last_passage() -> None:
    """Mean loop and mean reactive path of the simple walk, solved by linear algebra; each to about 1 %."""
    up, floor, entry, border = 0.3, 1, 3, 9
    walk = simple_walk(up)
    ds = splitting(
        walk, target=Region(border), n_replicas=512, n_repeats=32, seed=4, levels=[floor + 0.5, entry - 0.5, 5.5]
    )
    q = np.array([ruin(up, x, floor, border) for x in range(floor, border + 1)])
    inner = range(floor + 1, border)
    size = len(inner)
    step = np.diag(np.full(size - 1, up), 1) + np.diag(np.full(size - 1, 1 - up), -1)
    h = q[1:-1]
    # A walk that is known to succeed: Doob's transform
    reactive = np.linalg.solve(
        np.eye(size) - step * h[None, :] / h[:, None], np.full(size, walk.dt)
    )  # Doob's transform
    below = np.diag(np.full(entry - 1, up), 1) + np.diag(np.full(entry - 1, 1 - up), -1)
    below[0, 0] = 1 - up
    back = np.linalg.solve(np.eye(entry) - below, np.full(entry, walk.dt))[floor]
    out = np.linalg.solve(np.eye(size) - step, np.full(size, walk.dt))[entry - floor - 1]
    loop_time = out + (1 - q[entry - floor]) * back
    for name, value in (("reactive_time", reactive[entry - floor - 1]), ("loop_time", loop_time)):
        found = ds[name].values
        z = (found.mean() - value) / (found.std(ddof=1) / len(found) ** 0.5)
        assert abs(z) < limit(ds), name
        assert found.std() / len(found) ** 0.5 < 0.02 * value


# ---------------------------------------------------------------- the mode, the chain, and brute force


def exact_mode(ratio: float, target: Region) -> float:
    """Mean exit time of the discrete chain, in the mode's arc length."""
    landscape = MODE.landscape
    process = Diffusion(
        drift=lambda x: -landscape.gradient_at(np.asarray(x)[..., None])[..., 0],
        diffusion=MODE.barrier().height / ratio,
    )
    border = float(MODE.coordinate(target.threshold))
    return discrete_mean_exit(process, Interval(start=0.0, upper=border), STEP).mean


BARRIERS = (10.0, 15.0, 20.0, 25.0, 30.0)


def mode_at(ratio: float) -> Langevin:
    return Langevin(MODE, temperature=MODE.barrier().height / ratio, dt=STEP)


@pytest.fixture(scope="module")
def exact_times() -> dict[float, float]:
    return {ratio: exact_mode(ratio, beyond(MODE.barrier())) for ratio in BARRIERS}


def test_the_mode_against_its_own_discrete_chain(exact_times: dict[float, float]) -> None:
    """e^10 to e^30 waiting times. Each known to about 5 %: a factor 1.4 would be seen.

    The cost of an answer grows as (ΔF/T)^1.7, known here to ± 0.3: a cost that grows as the mean time itself, or as its
    fourth root (an exponent near 5), would be seen. Full version: evidence/splitting_cost.py.
    """
    runs = []
    for ratio, exact in exact_times.items():
        ds = splitting(mode_at(ratio), target=beyond(MODE.barrier()), n_replicas=768, n_repeats=32, seed=5)
        assert agrees(ds, exact, seen=1.4), (ratio, deviation(ds, exact))
        assert float(ds.replica_steps) < 1e8
        runs.append(ds)
    cost = splitting_cost(runs, MODE.barrier().height)
    fit = cost_exponent(cost)
    assert fit.exponent - 4.5 * fit.standard_error < 2.3
    # Negative control
    slow = cost_exponent(cost.assign(cost=cost.cost * cost.brute_force_cost**0.25))
    assert slow.exponent - 4.5 * slow.standard_error > 2.3


@pytest.mark.slow
def test_joint_coverage_at_five_barriers(exact_times: dict[float, float]) -> None:
    """Eight runs at each of five barriers: 95 % intervals miss 2 of 40, more than 10 by chance 3e-6 of the time.

    Negative control: for means wrong by 1.3, about three standard errors here, most intervals miss. Full version, a
    hundred runs at each barrier: evidence/splitting_coverage.py.
    """
    assert stats.binom.sf(10, 40, 0.05) < ALPHA
    missed = wrong = 0
    for ratio, exact in exact_times.items():
        for seed in range(8):
            ds = splitting(mode_at(ratio), target=beyond(MODE.barrier()), n_replicas=256, n_repeats=16, seed=seed)
            missed += not float(ds.lower) < exact < float(ds.upper)
            wrong += not float(ds.lower) < 1.3 * exact < float(ds.upper)
    assert missed <= 10
    assert wrong > 20


@pytest.mark.parametrize("ratio", [8.0, 10.0])
def test_the_chain_against_its_exact_time(ratio: float) -> None:
    """Three weights. Both to about 3 %; the exact time holds the step and the watching to first order."""
    target, temperature = beyond(CHAIN.barrier()), CHAIN.barrier().height / ratio
    exact = exit_time(CHAIN, temperature=temperature, target=target, step=STEP, monitored=True).mean
    process = Langevin(CHAIN, temperature=temperature, dt=STEP)
    assert agrees(splitting(process, target=target, n_replicas=768, n_repeats=32, seed=6), exact)


def sgd(ratio: float, **options: Any) -> SGD:
    noise = per_sample(temperature=CHAIN.barrier().height / ratio)
    return SGD(CHAIN, teacher(label_noise=0.1), lr=STEP, batch_size=32, noise=noise, **options)


def epochs(ratio: float) -> SGD:
    """Shuffled epochs of four batches: the chain of weights alone is not a Markov chain."""
    x = np.random.default_rng(0).normal(size=(32, 1))
    y = x * (1.0 / np.mean(x**2)) * np.mean(x**2) + 0.1 * np.random.default_rng(1).normal(size=(32, 1))
    chain = DeepLinearChain.from_data(x, y, depth=3, weight_decay=0.25)
    noise = per_sample(temperature=chain.barrier().height / ratio)
    return SGD(chain, finite(x, y), lr=STEP, batch_size=8, sampler=ShuffledEpochs(), noise=noise)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [lambda: Langevin(CHAIN, temperature=CHAIN.barrier().height / 6, dt=STEP), lambda: sgd(6.0), lambda: epochs(3.0)],
    ids=["langevin", "minibatches", "shuffled-epochs"],
)
def test_brute_force(make: Callable[[], Langevin | SGD]) -> None:
    """Both sides share the step function and nothing else; brute force to 3 %, splitting to 4 %."""
    process = make()
    target = Region(0.2)
    ds = splitting(process, target=target, n_replicas=384, n_repeats=32, seed=7)
    expected = float(ds.mean_exit_time)
    waited = first_passage(process, target=target, n_replicas=1024, max_time=20 * expected, seed=8, bridge=False)
    assert bool(waited.escaped.all())
    times = waited.exit_time.values
    error = math.hypot(times.std() / times.mean() / len(times) ** 0.5, float(ds.standard_error) / expected)
    z = math.log(expected / times.mean()) / error
    assert abs(z) < limit(ds)
    assert error < 0.06  # 1.4 would be beyond the limit


def test_clones_inherit_what_an_optimizer_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    """SGD with a momentum of 0.8 against waiting, both to 6 %: a factor 1.8 would be seen.

    Negative control: clones that begin at rest take five times as long.
    """
    momentum, lr, batch_size = 0.8, 0.6, 32
    # Heavy-ball training is at lr · variance / 2B(1 − momentum)
    variance = 2 * batch_size * (1 - momentum) * MODE.barrier().height / (2.7 * lr)
    process = SGD(
        MODE, teacher(label_noise=0.1), lr=lr, batch_size=batch_size, noise=per_sample(variance=variance),
        optimizer=Momentum(momentum),
    )  # fmt: skip
    target, options = Region(0.2), {"n_replicas": 64, "n_repeats": 16, "levels": [0.0, 2e-3, 1e-2, 3e-2], "loops": 4}
    waited = first_passage(process, target=target, n_replicas=256, max_time=1e4, seed=2, bridge=False)
    assert bool(waited.escaped.all())
    times = waited.exit_time.values

    def compared(ds: xr.Dataset) -> tuple[float, float]:
        error = math.hypot(times.std() / times.mean() / len(times) ** 0.5, float(ds.standard_error / ds.mean_exit_time))
        return math.log(float(ds.mean_exit_time) / times.mean()) / error, error

    inherited = splitting(process, target=target, seed=1, **options)
    z, error = compared(inherited)
    assert abs(z) < limit(inherited)
    assert limit(inherited) * error < math.log(1.8)

    def at_rest(*arguments: Any) -> Crowd:
        clones = resample(*arguments)
        return replace(clones, buffers={name: torch.zeros_like(b) for name, b in clones.buffers.items()})

    monkeypatch.setattr("kramers_grok.escape.splitting.resample", at_rest)
    z, _ = compared(splitting(process, target=target, seed=1, **options))
    assert z > limit(inherited)


def test_two_exits_and_forgetting() -> None:
    """Even depth leaves on both sides; a target below is reached by a falling order parameter. Each to 4 %."""
    even = Mode(4, 1.0, 0.2)
    ratio = 6.0
    target = beyond(even.barrier())
    process = Langevin(even, temperature=even.barrier().height / ratio, dt=STEP)
    exact = exit_time(even, temperature=process.temperature, target=target, step=STEP, monitored=True).mean
    assert agrees(splitting(process, target=target, n_replicas=512, n_repeats=32, seed=9), exact)

    lost = Mode(3, 1.0, 0.44)
    barrier = lost.forgetting_barrier()
    target = beyond(barrier)
    process = Langevin(lost, temperature=barrier.height / 8, dt=0.04)
    arguments: dict[str, Any] = {"temperature": process.temperature, "target": target, "step": 0.04, "monitored": True}
    exact = exit_time(lost, start=barrier.minimum, **arguments).mean
    ds = splitting(process, target=target, start=barrier.minimum, n_replicas=512, n_repeats=32, seed=10)
    assert agrees(ds, exact)
    assert (np.diff(ds.level.values) > 0).all()
    assert float(ds.level[-1]) == -target.threshold


# ---------------------------------------------------------------- bookkeeping


def test_replicas_keep_their_phase() -> None:
    """Wherever a walk of period two goes on, the steps that it has taken and the clock agree modulo two."""

    class Clock(Walk):
        def advance(self, state: State, n_steps: int, watch: Watch | None = None) -> tuple[State, Record]:
            def step(theta: Tensor, streams: Tensor, number: int, buffers: loop.Buffers) -> tuple[Tensor, loop.Buffers]:
                moved, more = inner(theta, streams, number, {"direction": buffers["direction"]})
                return moved, {**more, "count": buffers["count"] + 1}

            def inner(theta: Tensor, streams: Tensor, number: int, buffers: loop.Buffers) -> tuple[Tensor, Any]:
                plain = State(theta, streams, number, state.seed, buffers)
                moved, _ = PERIODIC.advance(plain, 1)
                return moved.theta, moved.buffers

            assert bool((state.buffers["count"] % 2 == state.step % 2).all())
            return loop.run(state, n_steps, step, self, watch, 0.0)

        def start(self, n_replicas: int, *, seed: int, point: ArrayLike | None = None) -> State:
            state = super().start(n_replicas, seed=seed, point=point)
            return State(state.theta, state.streams, 0, seed, {**state.buffers, "count": torch.zeros(n_replicas)})

    splitting(Clock(PERIODIC.up), target=Region(6), n_replicas=16, n_repeats=8, seed=0)


def test_the_same_result_again_and_on_any_backend() -> None:
    """To the bit with the same seed and with more threads; by the torch loop to rounding, in the same noise."""
    target = beyond(CHAIN.barrier())
    temperature = CHAIN.barrier().height / 4

    def run(integrator: Fused, seed: int = 3) -> xr.Dataset:
        process = Langevin(CHAIN, temperature=temperature, dt=0.4, integrator=integrator)
        return splitting(process, target=target, n_replicas=64, n_repeats=8, seed=seed)

    first = run(Fused())
    xr.testing.assert_identical(first, run(Fused(n_threads=2)))
    slow = run(Fused(compiled=False))
    assert float(slow.mean_exit_time) == pytest.approx(float(first.mean_exit_time), rel=1e-9)
    np.testing.assert_allclose(slow.level.values, first.level.values, rtol=1e-9)
    assert float(run(Fused(), seed=4).mean_exit_time) != float(first.mean_exit_time)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu() -> None:
    """The same noise there: the same result to rounding, in as far as no replica stands within rounding of a level."""
    target, temperature = beyond(CHAIN.barrier()), CHAIN.barrier().height / 4
    here, there = (
        splitting(
            Langevin(CHAIN, temperature=temperature, dt=0.4, device=device),
            target=target, n_replicas=64, n_repeats=8, seed=3,
        )
        for device in ("cpu", "cuda")
    )  # fmt: skip
    assert there.attrs["device"].startswith("cuda")
    assert float(there.mean_exit_time) == pytest.approx(float(here.mean_exit_time), rel=1e-6)
