"""A replica's path depends on the seed and its stream only: not on chunks, batches, threads or who left first."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region
from kramers_grok.core.schedules import Geometric, Linear, Piecewise
from kramers_grok.dynamics import blocks
from kramers_grok.dynamics.langevin import Fused, Langevin, TorchSDE
from kramers_grok.dynamics.minibatch_sde import Minibatches
from kramers_grok.dynamics.optimizers import AdamW, GradientDescent
from kramers_grok.dynamics.process import Process, State, Watch, clone, resolve_device, select, starting_points
from kramers_grok.dynamics.sampling import BySamples, Sampler, ShuffledEpochs, WithoutReplacement, WithReplacement
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import FiniteData, OnlineTeacher, finite, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

PARAMETERS = {"singular_value": 1.3, "weight_decay": 0.25, "input_variance": 0.8}
MODE, CHAIN = Mode(3, **PARAMETERS), DeepLinearChain(3, **PARAMETERS)
# Wide enough for torch to leave its loops for small matrices
NETWORK = DeepLinearNetwork((8, 16, 12, 8), [1.5, 0.9, 0.4], weight_decay=0.2)
SCALAR = DeepLinearNetwork((1, 2, 2, 1), [1.3], weight_decay=0.25, input_variance=0.8)  # compiled
NOISE = per_sample(variance=0.8)


def white(n: int, d: int, scale: float = 1.0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(d).normal(size=(n, d)))[0] * (n * scale) ** 0.5


def chain_data() -> FiniteData:
    """Eleven samples with second moments 0.8 and 0.8 · 1.3, noise on the labels."""
    pair = white(11, 2)
    x = pair[:, 0] * 0.8**0.5
    return finite(x, 1.3 * x + 0.6 * pair[:, 1])


def sgd(sampler: Sampler | None = None, *, compiled: bool = True, n_threads: int = 1) -> SGD:
    data = teacher(label_noise=0.6) if sampler is None else chain_data()
    return SGD(CHAIN, data, lr=0.15, batch_size=4, sampler=sampler, noise=NOISE, fused=compiled, n_threads=n_threads)


def network_sgd(sampler: Sampler | None = None) -> SGD:
    x = white(32, 8)
    data = teacher(label_noise=0.6) if sampler is None else finite(x, x @ NETWORK.teacher_matrix.T)
    return SGD(NETWORK, data, lr=0.02, batch_size=5, sampler=sampler, noise=NOISE)


COMPILED, LOOPED = blocks.BLOCK + 44, 47  # more replicas than a compiled block holds, fewer where torch takes longer
SCHEDULES = {
    "lr": Linear(0.2, 0.05, 50),
    "weight_decay": Geometric(0.1, 0.4, 40),
    "batch_size": Piecewise((2, 6), (9, 9)),
}


def each(n: int) -> dict[str, Any]:
    """Hyperparameters of n replicas."""
    numbers = np.arange(n)
    noise = per_sample(variance=0.4 + 0.1 * (numbers % 5))
    return {"lr": 0.05 + 0.1 * numbers / n, "weight_decay": 0.4 - 0.3 * numbers / n, "noise": noise, "batch_size": 4}


def plain(process: Process) -> bool:
    return isinstance(getattr(process, "optimizer", GradientDescent()), GradientDescent)


def varying(**changes: Any) -> SGD:
    return SGD(CHAIN, teacher(label_noise=0.6), **{"noise": NOISE} | changes)


def langevin(
    system: Mode | DeepLinearChain | DeepLinearNetwork, integrator: Fused | TorchSDE | None = None
) -> Langevin:
    return Langevin(system, temperature=0.03, dt=0.1, integrator=integrator)


def minibatch(
    system: DeepLinearChain | DeepLinearNetwork, data: OnlineTeacher | FiniteData, integrator: TorchSDE | None = None
) -> Langevin:
    noise = Minibatches(data, 0.02 if system is CHAIN else 0.002)  # more would blow up the network
    return Langevin(system, temperature=0.03, dt=0.1, minibatch=noise, integrator=integrator)


PROCESSES: dict[str, Callable[[], Process]] = {
    "mode": lambda: langevin(MODE),
    "chain": lambda: langevin(CHAIN),
    "chain, torch": lambda: langevin(CHAIN, Fused(compiled=False)),
    "chain, torchsde": lambda: langevin(CHAIN, TorchSDE("srk")),
    "network": lambda: langevin(NETWORK),
    "network, compiled": lambda: langevin(SCALAR),
    "network, torchsde": lambda: langevin(NETWORK, TorchSDE("euler")),
    "minibatch noise": lambda: minibatch(CHAIN, teacher(label_noise=0.6)),
    "minibatch noise, torch": lambda: minibatch(CHAIN, chain_data()),
    "minibatch noise, network": lambda: minibatch(NETWORK, teacher(label_noise=0.6)),
    "minibatch noise, torchsde": lambda: minibatch(CHAIN, teacher(label_noise=0.6), TorchSDE("euler")),
    "SGD, online": sgd,
    "SGD, online, torch": lambda: sgd(compiled=False),
    "SGD, with replacement": lambda: sgd(WithReplacement()),
    "SGD, without replacement": lambda: sgd(WithoutReplacement()),
    "SGD, epochs": lambda: sgd(ShuffledEpochs()),
    "SGD, epochs, torch": lambda: sgd(ShuffledEpochs(), compiled=False),
    "SGD, mode": lambda: SGD(MODE, teacher(label_noise=0.6), lr=0.15, batch_size=4, noise=NOISE),
    "SGD, network, compiled": lambda: SGD(SCALAR, teacher(label_noise=0.6), lr=0.15, batch_size=4, noise=NOISE),
    "SGD, network, online": network_sgd,
    "SGD, network, by samples": lambda: SGD(
        NETWORK, teacher(label_noise=0.6), lr=0.02, batch_size=5, sampler=BySamples(), noise=NOISE
    ),
    "SGD, network, epochs": lambda: network_sgd(ShuffledEpochs()),
    "SGD, schedules": lambda: varying(**SCHEDULES),
    "SGD, schedules, torch": lambda: varying(**SCHEDULES, fused=False),
    "SGD, one for each": lambda: varying(**each(COMPILED)),
    "SGD, one for each, torch": lambda: varying(**each(LOOPED), fused=False),
    "SGD, both": lambda: varying(**each(COMPILED) | {"weight_decay": SCHEDULES["weight_decay"]}),
    "SGD, schedules, AdamW": lambda: varying(**SCHEDULES, optimizer=AdamW()),
}
each_process = pytest.mark.parametrize("make", PROCESSES.values(), ids=PROCESSES)
STEPS, SEED = 60, 11


def count(process: Process) -> int:
    """Replicas of a comparison, or as many as there are hyperparameters for."""
    members = getattr(process, "_members", None)
    return members or (COMPILED if getattr(process, "_kernel", None) is not None else LOOPED)


def begin(process: Process, n: int | None = None, seed: int = SEED) -> State:
    n = count(process) if n is None else n
    members = getattr(process, "_members", None) or 0
    size = process.start(members or 1, seed=0).theta.shape[1]
    start = np.random.default_rng(0).normal(size=size) * (0.7 if size < 10 else 0.15)
    everyone = process.start(max(n, members), seed=seed, point=np.array([0.7]) if size == 1 else start)
    return select(everyone, torch.arange(n)) if members else everyone


def watch_for(process: Process, bridge: bool = False, *, floor: bool = False) -> Watch:
    """A threshold that part of the replicas pass on the way, and a floor that others come back to."""
    _, record = process.advance(begin(process), STEPS, Watch(Region(1e9)))
    _, below = process.advance(begin(process), STEPS, Watch(Region(-1e9, above=False)))
    level = float(-below.best.quantile(0.6)) if floor else None
    return Watch(Region(float(record.best.quantile(0.6))), bridge=bridge, floor=level)


@each_process
def test_chunks_make_no_difference(make: Callable[[], Process]) -> None:
    process = make()
    whole, _ = process.advance(begin(process), STEPS)
    for lengths in ([6] * 10, [1, 2, 3, 5, 7, 11, 31]):
        state = begin(process)
        for length in lengths:
            state, _ = process.advance(state, length)
        assert state.step == whole.step == STEPS
        assert torch.equal(state.theta, whole.theta)


@each_process
@pytest.mark.parametrize("kind", ["steps", "bridge", "floor"])
def test_it_makes_no_difference_who_left_first(make: Callable[[], Process], kind: str) -> None:
    """Survivors are selected between chunks, as first passage does."""
    process = make()
    if kind == "bridge" and (not plain(process) or getattr(process, "minibatch", None) is not None):
        pytest.skip(
            "no Brownian path between the steps of other optimizers, and none of one width under minibatch noise"
        )
    watch, n = watch_for(process, kind == "bridge", floor=kind == "floor"), count(process)
    whole, record = process.advance(begin(process), STEPS, watch)
    assert 0 < int((record.hit_step >= 0).sum()) < n
    assert bool((record.fell_step >= 0).any()) == (kind == "floor")
    assert not ((record.fell_step >= 0) & (record.hit_step >= 0)).any()
    state, numbers = begin(process), torch.arange(n)
    theta, hit, fell = torch.empty_like(whole.theta), torch.full((n,), -1), torch.full((n,), -1)
    best = torch.full((n,), -torch.inf, dtype=torch.float64)
    for length in [1, 2, 3, 5, 7, 11, 31]:
        state, part = process.advance(state, length, watch)
        theta[numbers], hit[numbers], fell[numbers] = state.theta, part.hit_step, part.fell_step
        best[numbers] = torch.maximum(best[numbers], part.best)
        stay = (part.hit_step < 0) & (part.fell_step < 0)
        state, numbers = select(state, stay), numbers[stay]
    assert torch.equal(hit, record.hit_step)
    assert torch.equal(fell, record.fell_step)
    assert torch.equal(theta, whole.theta)
    assert torch.equal(best, record.best)


@each_process
def test_the_batch_makes_no_difference(make: Callable[[], Process]) -> None:
    process = make()
    watch, n = watch_for(process), count(process)
    state = begin(process)
    whole, record = process.advance(state, STEPS, watch)
    m = process.order_parameters(whole.theta)
    for part in (torch.tensor([5]), torch.arange(3, 12), torch.arange(1, n, 7), torch.arange(n).flip(0)):
        moved, seen = process.advance(select(state, part), STEPS, watch)
        assert torch.equal(moved.theta, whole.theta[part])
        assert torch.equal(seen.hit_step, record.hit_step[part])
        assert torch.equal(seen.best, record.best[part])
        assert torch.equal(process.order_parameters(moved.theta), m[part])


@each_process
def test_no_replicas_are_no_obstacle(make: Callable[[], Process]) -> None:
    process = make()
    nobody = select(begin(process, 3), torch.zeros(3, dtype=torch.bool))
    state, record = process.advance(nobody, 4, Watch(Region(0.5), floor=-0.5))
    assert state.step == 4
    assert state.theta.shape == nobody.theta.shape
    assert record.hit_step.shape == record.fell_step.shape == record.best.shape == (0,)


@pytest.mark.parametrize("compiled", [True, False])
def test_those_who_left_remember_the_epoch_in_which_they_did(compiled: bool) -> None:
    """A clone goes on from there, even if an epoch began while they stood still."""
    process = sgd(ShuffledEpochs(), compiled=compiled)
    assert process.period == 2
    watch, state = watch_for(process, floor=True), begin(process)
    _, record = process.advance(state, STEPS, watch)
    whole, _ = process.advance(state, STEPS, watch)
    left = torch.maximum(record.hit_step, record.fell_step)
    assert len(set(left.tolist())) > 10
    for step in range(1, STEPS + 1):
        state, _ = process.advance(state, 1)
        then = left == step if step < STEPS else (left == step) | (left < 0)
        assert torch.equal(whole.buffers["order"][then], state.buffers["order"][then])


def test_what_repeats() -> None:
    scheduled = [name for name in PROCESSES if "schedules" in name or name == "SGD, both"]
    others = [name for name in PROCESSES if "epochs" not in name and name not in scheduled]
    assert {PROCESSES[name]().period for name in others} == {1}
    for name in scheduled:  # a law that changes does not repeat
        with pytest.raises(InvalidParameterError, match="A schedule changes the hyperparameters"):
            _ = PROCESSES[name]().period
    assert network_sgd(ShuffledEpochs()).period == 6  # 32 samples in batches of 5


@pytest.mark.parametrize("floor", [None, 0.1])
def test_a_blow_up_disturbs_nobody(floor: float | None) -> None:
    """Lanes that leave the finite numbers do what torch says, and those beside them what they do alone."""
    start = np.full((300, 3), 0.7)
    start[::3] = 1e60
    watch = Watch(Region(0.9), floor=floor)
    ends = []
    for integrator in (Fused(), Fused(compiled=False)):
        process = langevin(CHAIN, integrator)
        state, record = process.advance(process.start(300, seed=SEED, point=start), STEPS, watch)
        ends.append((state.theta, record.best, record.hit_step, record.fell_step))
    for compiled, looped in zip(*ends, strict=True):
        torch.testing.assert_close(compiled, looped, equal_nan=True)
    assert bool(torch.isfinite(ends[0][0][::3]).any()) == (floor is not None)  # with a floor, m = −∞ is a return
    calm = torch.arange(300) % 3 > 0
    alone, _ = process.advance(select(process.start(300, seed=SEED, point=start), calm), STEPS, watch)
    assert torch.equal(alone.theta, ends[1][0][calm])


@pytest.mark.parametrize("sampler", [None, ShuffledEpochs()], ids=repr)
def test_threads_make_no_difference_to_sgd(sampler: Sampler | None) -> None:
    watch = watch_for(sgd(sampler))
    check_threads(lambda n: sgd(sampler, n_threads=n), watch)


def test_threads_make_no_difference_to_langevin() -> None:
    check_threads(lambda n: langevin(CHAIN, Fused(n_threads=n)), watch_for(langevin(CHAIN)))


def check_threads(make: Callable[[int], Process], watch: Watch) -> None:
    alone, record = make(1).advance(begin(make(1)), STEPS, watch)
    for threads, n in ((2, 300), (3, blocks.BLOCK + 44), (7, 5)):
        process = make(threads)
        state, seen = process.advance(begin(process, n), STEPS, watch)
        assert torch.equal(state.theta, alone.theta[:n])
        assert torch.equal(seen.hit_step, record.hit_step[:n])


@each_process
def test_a_state_is_a_value(make: Callable[[], Process]) -> None:
    """Advancing leaves the old state as it was, so that it can be advanced again to the same end."""
    process = make()
    for n in (1, 30):
        state = begin(process, n)
        state, _ = process.advance(state, 2)  # inside an epoch
        before = {"theta": state.theta.clone(), "streams": state.streams.clone()}
        before |= {name: buffer.clone() for name, buffer in state.buffers.items()}
        ends = [process.advance(state, 8)[0].theta for _ in range(2)]
        assert torch.equal(ends[0], ends[1])
        assert not torch.equal(ends[0], before["theta"])
        assert state.step == 2
        for name, value in {"theta": state.theta, "streams": state.streams, **state.buffers}.items():
            assert torch.equal(value, before[name])


@each_process
def test_clones_get_streams_of_their_own(make: Callable[[], Process]) -> None:
    process = make()
    state, _ = process.advance(begin(process, 6), 5)
    copies = clone(state, torch.tensor([2, 2, 4]), torch.tensor([100, 101, 4]))
    assert torch.equal(copies.theta, state.theta[[2, 2, 4]])
    moved, _ = process.advance(copies, 10)
    original, _ = process.advance(state, 10)
    assert not torch.equal(moved.theta[0], original.theta[2])
    assert not torch.equal(moved.theta[0], moved.theta[1])
    assert torch.equal(moved.theta[2], original.theta[4])  # it kept its stream, and so its path


@each_process
def test_the_seed_and_nothing_else_makes_the_noise(make: Callable[[], Process]) -> None:
    process = make()
    ends = [process.advance(begin(process, 4, seed), 10)[0].theta for seed in (SEED, SEED, SEED + 1, SEED + 2**32)]
    assert torch.equal(ends[0], ends[1])
    for other in ends[2:]:
        assert (ends[0] != other).any(dim=1).all()


def test_compiled_and_torch_paths_agree_over_many_steps() -> None:
    pairs: list[tuple[Process, Process]] = [
        (langevin(CHAIN), langevin(CHAIN, Fused(compiled=False))),
        (sgd(), sgd().on_torch()),
        (sgd(ShuffledEpochs()), sgd(ShuffledEpochs()).on_torch()),
    ]
    for compiled, loop in pairs:
        watch = watch_for(compiled)
        ends = [p.advance(begin(p, 300), 400, watch) for p in (compiled, loop)]
        assert torch.equal(ends[0][1].hit_step, ends[1][1].hit_step)
        torch.testing.assert_close(ends[0][0].theta, ends[1][0].theta, rtol=1e-9, atol=1e-11)


# ---------------------------------------------------------------- starting points and devices


def test_starting_points() -> None:
    cpu, f64 = torch.device("cpu"), torch.float64
    assert torch.equal(starting_points(2, 3, None, f64, cpu), torch.zeros(2, 3, dtype=f64))
    row = [1.0, 2.0, 3.0]
    assert starting_points(2, 3, row, f64, cpu).tolist() == [row, row]
    table = [row, [4.0, 5.0, 6.0]]
    assert starting_points(2, 3, table, f64, cpu).tolist() == table
    assert starting_points(1, 3, row, torch.float32, cpu).dtype == torch.float32


def test_the_start_is_a_copy() -> None:
    point = np.zeros((2, 1))
    state = langevin(MODE).start(2, seed=0, point=point)
    state.theta[:] = 1.0
    assert (point == 0).all()


@pytest.mark.parametrize("shape", [(2,), (2, 4), (3, 3), ()])
def test_a_start_of_the_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidParameterError, match=r"`start` has shape .*expected \(3,\) or \(2, 3\).*\nUse"):
        langevin(CHAIN).start(2, seed=0, point=np.zeros(shape))


def test_a_start_that_is_not_a_number() -> None:
    with pytest.raises(InvalidParameterError, match=r"`start` = .*1 NaN or infinite"):
        langevin(CHAIN).start(2, seed=0, point=[0.0, np.nan, 0.0])


@pytest.mark.parametrize("n", [0, -1, 2**32])
def test_a_wrong_number_of_replicas(n: int) -> None:
    with pytest.raises(InvalidParameterError, match=f"`n_replicas` = {n}, expected 1 to"):
        langevin(CHAIN).start(n, seed=0)


@pytest.mark.parametrize("process", [langevin(MODE), sgd()], ids=["langevin", "sgd"])
def test_bad_seeds(process: Process) -> None:
    with pytest.raises(InvalidParameterError, match="seed"):
        process.start(1, seed=-1)


def test_devices() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device(torch.device("meta")).type == "meta"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1.0, "dt": 0.1}, "`temperature` = -1.0"),
        ({"temperature": np.nan, "dt": 0.1}, "`temperature` = nan"),
        ({"temperature": 0.1, "dt": 0.0}, "`dt` = 0.0"),
        ({"temperature": 0.1, "dt": 8.0}, r"`dt` = 8 with weight decay 0.25, expected dt · weight_decay < 2"),
    ],
)
def test_bad_langevin_parameters(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        Langevin(CHAIN, **arguments)


def test_what_can_move() -> None:
    with pytest.raises(InvalidParameterError, match="`system` is a str, expected a Mode, DeepLinearChain"):
        Langevin("chain", temperature=0.1, dt=0.1)  # type: ignore[arg-type]


def test_descriptions_name_what_was_set() -> None:
    described = dict(langevin(CHAIN).describe())
    assert (
        described
        == {"engine": "langevin", "temperature": 0.03, "dt": 0.1, "integrator": "Fused()", "depth": 3} | PARAMETERS
    )
    assert "depth" not in langevin(NETWORK).describe()
    assert langevin(MODE, TorchSDE("srk")).describe()["integrator"] == "TorchSDE(method='srk')"
    described = dict(sgd().describe())
    assert described["engine"] == "sgd"
    assert described["temperature"] == pytest.approx(0.15 * 0.8 / 8, rel=1e-15)
    assert described["noise_std"] == pytest.approx(0.8**0.5, rel=1e-15)
    assert (described["label_noise"], described["sampler"], described["lr"]) == (0.6, "OnlineTeacher", 0.15)
    assert sgd(ShuffledEpochs()).describe()["sampler"] == "ShuffledEpochs"
