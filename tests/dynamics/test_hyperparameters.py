"""Schedules, per-replica hyperparameters and other optimizers in SGD: each run equals plain runs put together.

The plain runs, checked step by step in the explicit loops, take one step at a time with the numbers of that step, or
one replica at a time with the numbers of that replica. Both sides share the noise's address and the gradients.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region
from kramers_grok.core.schedules import Constant, Cosine, Linear, Piecewise, Schedule
from kramers_grok.dynamics import update
from kramers_grok.dynamics.hyperparameters import Hyperparameter
from kramers_grok.dynamics.optimizers import Adam, AdamW, GradientDescent, Momentum, Optimizer
from kramers_grok.dynamics.process import State, Watch, clone, select
from kramers_grok.dynamics.sampling import ShuffledEpochs, WithoutReplacement
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.splitting import splitting
from kramers_grok.models.data import finite, population, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

CHAIN = DeepLinearChain(3, 1.3, 0.25, 0.8)
START = [0.7, 0.4, 0.6]
NETWORK = DeepLinearNetwork((2, 3, 2), [1.5, 0.7], weight_decay=0.2)
NOISE = per_sample(variance=0.4)
N = 4
RATES, DECAYS = [0.05, 0.1, 0.15, 0.3], [0.0, 0.2, 0.3, 0.4]
ROUNDING: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-14}


def chain(**changes: Any) -> SGD:
    given = {"lr": 0.1, "batch_size": 4, "noise": NOISE} | changes
    return SGD(CHAIN, teacher(label_noise=0.3), **given)


def network(**changes: Any) -> SGD:
    given = {"lr": 0.1, "batch_size": 4, "noise": NOISE} | changes
    return SGD(NETWORK, teacher(label_noise=0.3), **given)


def begin(process: SGD) -> State:
    n = process.model.n_parameters
    return process.start(N, seed=3, point=np.linspace(0.3, 0.9, n))


def end(process: SGD, steps: int = 30) -> Tensor:
    return process.advance(begin(process), steps)[0].theta


on_torch = pytest.mark.parametrize("fused", [True, False], ids=["fused", "torch"])
each_model = pytest.mark.parametrize("make", [chain, network])


# ---------------------------------------------------------------- replicas


@each_model
@on_torch
@pytest.mark.parametrize(
    ("name", "values"),
    [("lr", RATES), ("weight_decay", DECAYS), ("noise", per_sample(variance=[0.0, 0.1, 0.4, 2.0])),
     ("noise", per_sample(temperature=[0.0, 0.01, 0.02, 0.1]))],
    ids=["lr", "weight decay", "variance", "temperature"],
)  # fmt: skip
def test_each_replica_is_a_run_of_its_own(make: Callable[..., SGD], fused: bool, name: str, values: Any) -> None:
    together = end(make(fused=fused, **{name: values}))
    for i in range(N):
        alone: Any = values[i] if isinstance(values, list) else per_sample(
            variance=values.variance and values.variance[i], temperature=values.temperature and values.temperature[i]
        )  # fmt: skip
        torch.testing.assert_close(together[i], end(make(fused=False, **{name: alone}))[i], **ROUNDING)


@each_model
def test_equal_numbers_make_the_same_paths_to_the_bit(make: Callable[..., SGD]) -> None:
    expected = end(make(fused=False))
    for same in (
        {"lr": [0.1] * N}, {"weight_decay": [make().weight_decay] * N}, {"noise": per_sample(variance=[0.4] * N)},
        {"lr": [0.1] * N, "noise": per_sample(variance=[0.4] * N)}, {"lr": Constant(0.1)},
        {"batch_size": Constant(4)}, {"weight_decay": Constant(make().weight_decay)},
    ):  # fmt: skip
        assert torch.equal(end(make(fused=False, **same)), expected)
        torch.testing.assert_close(end(make(**same)), expected, **ROUNDING)


def test_all_at_once_with_a_schedule() -> None:
    """Scheduled batch size, per-replica lr and variance: amplitude η_i g_i / √B(s)."""
    sizes, variances = Piecewise((2, 7), (11,)), [0.1, 0.2, 0.3, 0.4]
    process = chain(lr=RATES, batch_size=sizes, noise=per_sample(variance=variances), weight_decay=Linear(0.1, 0.5, 20))
    for variant in (process, process.on_torch()):
        together = end(variant, 25)
        for i in range(N):
            state = begin(chain())
            for step in range(25):
                plain = chain(
                    lr=RATES[i], batch_size=int(sizes(step)), noise=per_sample(variance=variances[i]), fused=False,
                    weight_decay=float(Linear(0.1, 0.5, 20)(step)),
                )  # fmt: skip
                state, _ = plain.advance(state, 1)
            torch.testing.assert_close(together[i], state.theta[i], **ROUNDING)


def test_hyperparameters_follow_their_replicas() -> None:
    """Through a selection and a copy; and a twin with other numbers gives them to the same rows."""
    process = network(lr=RATES, optimizer=Adam())
    half, _ = process.advance(begin(process), 10)
    index = torch.tensor([3, 1])
    picked, _ = process.advance(select(half, index), 10)
    assert torch.equal(picked.theta, end(process, 20)[index])
    twins = clone(half, torch.tensor([2, 2]), torch.tensor([7, 8]))
    quiet = process.replace(noise=None, data=population(), batch_size=None)
    ends = quiet.advance(twins, 10)[0].theta
    assert torch.equal(ends[0], ends[1])
    alone = quiet.replace(lr=RATES[2]).advance(twins, 10)[0].theta
    torch.testing.assert_close(ends, alone, **ROUNDING)
    other = process.replace(lr=RATES[::-1])
    reversed_half = other.advance(select(half, index), 5)[0].theta
    expected = process.replace(lr=RATES[0]).advance(select(half, index), 5)[0].theta
    torch.testing.assert_close(reversed_half[0], expected[0], **ROUNDING)


# ---------------------------------------------------------------- schedules


SCHEDULES: list[dict[str, Schedule]] = [
    {"lr": Cosine(0.2, 0.01, 20)},
    {"lr": Linear(0.2, 0.0, 20)},
    {"weight_decay": Piecewise((0.1, 0.5), (12,))},
    {"batch_size": Linear(2, 9, 20)},
    {"lr": Cosine(0.2, 0.01, 20), "weight_decay": Linear(0.4, 0.1, 15), "batch_size": Piecewise((1, 8), (9,))},
]


@each_model
@on_torch
@pytest.mark.parametrize("schedules", SCHEDULES, ids=lambda s: ", ".join(s))
def test_a_schedule_is_one_plain_step_after_another(
    make: Callable[..., SGD], fused: bool, schedules: dict[str, Schedule]
) -> None:
    """Whole, and cut into calls of uneven length: equal to the bit."""
    process = make(fused=fused, **schedules)
    state = begin(make())
    for step in range(24):
        now: dict[str, Any] = {name: float(schedule(step)) for name, schedule in schedules.items()}
        if "batch_size" in now:
            now["batch_size"] = round(now["batch_size"])
        if now.get("lr") == 0.0:
            break  # a step of nothing
        state, _ = make(fused=False, **now).advance(state, 1)
    torch.testing.assert_close(end(process, 24), state.theta, **ROUNDING)
    cut = begin(process)
    for length in (1, 10, 0, 13):
        cut, _ = process.advance(cut, length)
    assert torch.equal(cut.theta, end(process, 24))


def test_time_is_the_sum_of_the_learning_rates() -> None:
    steps = np.array([0, 1, 5, 3000, 2])
    np.testing.assert_allclose(chain().times(steps), 0.1 * steps, rtol=1e-15)
    np.testing.assert_allclose(chain(lr=RATES).times(steps), np.outer(RATES, steps), rtol=1e-15)
    np.testing.assert_allclose(chain(lr=RATES).times([5, 7], replicas=[3, 0]), [1.5, 0.35], rtol=1e-15)
    schedule = Cosine(0.2, 0.01, 2000)
    expected = [schedule(np.arange(s)).sum() for s in steps]
    np.testing.assert_allclose(chain(lr=schedule).times(steps), expected, rtol=1e-12)
    process = chain(lr=schedule)
    np.testing.assert_array_equal([float(process.times(s)) for s in (10, 5000, 10)], process.times([10, 5000, 10]))


def test_what_needs_one_time_step_says_so() -> None:
    for lr, how in ((RATES, "differs between replicas"), (Cosine(0.2, 0.1, 9), "follows a schedule")):
        with pytest.raises(InvalidParameterError, match=rf"`lr` {how}.*\n.*process.times\(steps\)"):
            _ = chain(lr=lr).dt
    mode = Mode(3, 1.0, 0.25)
    for changes in ({"lr": Cosine(0.2, 0.1, 9)}, {"lr": RATES}, {"weight_decay": Linear(0.2, 0.3, 9)}):
        process = SGD(mode, population(), **({"lr": 0.1, "batch_size": 8, "noise": NOISE} | changes))  # type: ignore[arg-type]
        with pytest.raises(InvalidParameterError, match=r"one number|schedule changes|so many"):
            splitting(process, target=Region(0.5), seed=0)


# ---------------------------------------------------------------- optimizers


OPTIMIZERS: list[Optimizer] = [Momentum(0.7), Momentum(0.7, nesterov=True), Adam(eps=1e-3), AdamW(eps=1e-3)]


@each_model
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_optimizers_see_the_noisy_gradient(make: Callable[..., SGD], optimizer: Optimizer) -> None:
    """By hand: the gradient a plain step moved by, given to the optimizer."""
    process, plain = make(optimizer=optimizer, weight_decay=0.3), make(weight_decay=0.0, fused=False)
    state = begin(plain)
    memory: Any = optimizer.init(state.theta)
    for _ in range(20):
        moved, _ = plain.advance(state, 1)
        gradient = (state.theta - moved.theta) / 0.1
        theta, memory = optimizer.step(state.theta, gradient, memory, 0.1, 0.3)
        state = State(theta, state.streams, moved.step, state.seed)
    torch.testing.assert_close(end(process, 20), state.theta, rtol=1e-9, atol=1e-12)


def test_no_momentum_is_gradient_descent() -> None:
    torch.testing.assert_close(end(network(optimizer=Momentum(0.0))), end(network()), **ROUNDING)
    torch.testing.assert_close(end(chain(optimizer=GradientDescent(decoupled=True))), end(chain()), **ROUNDING)


def test_the_frozen_keep_their_memory() -> None:
    """A replica stopped by the watch goes on later as if it had not been."""
    process = network(optimizer=Momentum(0.9))
    stopped, record = process.advance(begin(process), 30, Watch(Region(0.35)))
    left = torch.nonzero(record.hit_step >= 0)[:, 0]
    assert len(left)
    for row in left.tolist():
        step = int(record.hit_step[row])
        expected, _ = process.advance(begin(process), step)
        for name, buffer in stopped.buffers.items():
            assert torch.equal(buffer[row], expected.buffers[name][row])


def test_states_of_another_process_are_taken_over() -> None:
    plain, adam = network(), network(optimizer=Adam())
    half, _ = plain.advance(begin(plain), 5)
    with pytest.raises(InvalidParameterError, match=r"lacks `optimizer_first_power`.*\n.*process.take_over\(state\)"):
        adam.advance(half, 1)
    taken = adam.take_over(half)
    assert torch.equal(taken.theta, half.theta)
    assert taken.step == 5
    later, _ = adam.advance(taken, 3)
    assert later.buffers["optimizer_steps"].unique().item() == 3
    kept = adam.replace(lr=RATES).take_over(later)
    assert torch.equal(kept.buffers["optimizer_mean"], later.buffers["optimizer_mean"])
    with pytest.raises(InvalidParameterError, match=r"`n_replicas` = 2, expected 4.*\nUse `n_replicas=4`"):
        adam.replace(lr=RATES).take_over(select(later, torch.tensor([0, 1])))
    with pytest.raises(InvalidParameterError, match="`n_replicas` = 3, expected 4"):
        network(lr=RATES).start(3, seed=0)
    with pytest.raises(InvalidParameterError, match="lacks `member`"):
        network(lr=RATES).advance(half, 1)


# ---------------------------------------------------------------- compiled


def eager(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Trace as the compiler does, without generating code; count what is traced."""
    traced: list[int] = []
    compile_ = torch.compile

    def compiled(function: Any, **_: Any) -> Any:
        traced.append(1)
        return compile_(function, backend="aot_eager", fullgraph=True)

    monkeypatch.setattr(update.torch, "compile", compiled)
    return traced


@pytest.mark.parametrize(
    "process",
    [network(), network(lr=RATES, weight_decay=Linear(0.1, 0.3, 20)),
     network(optimizer=AdamW(), lr=Cosine(0.1, 0.0, 20)), chain(), SGD(Mode(3, 1.0, 0.25), population(), lr=0.1)],
    ids=["plain", "replicas", "adamw", "chain", "mode"],
)  # fmt: skip
def test_the_compiled_update_makes_the_same_paths(process: SGD, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = eager(monkeypatch)
    twin = process.replace(compile=True, fused=False)
    watch = Watch(Region(0.9))
    state, record = twin.advance(begin(twin), 25, watch)
    expected, known = process.on_torch().advance(begin(process), 25, watch)
    assert traced == [1]
    torch.testing.assert_close(state.theta, expected.theta, **ROUNDING)
    assert torch.equal(record.hit_step, known.hit_step)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # torch's own, on import of its compiler
def test_generated_code_makes_the_same_paths() -> None:
    process = network(optimizer=Adam(), lr=RATES)
    torch.testing.assert_close(end(process.replace(compile=True)), end(process), rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- what is told and what is refused


def test_what_a_run_tells_of_itself() -> None:
    told = chain(lr=RATES, batch_size=Constant(4), noise=per_sample(variance=[1.0, 2.0, 3.0, 4.0])).describe()
    assert told["lr"].tolist() == told["dt"].tolist() == RATES
    assert told["noise_std"].tolist() == np.sqrt([1.0, 2.0, 3.0, 4.0]).tolist()
    assert told["batch_size_schedule"] == "Constant(value=4)"
    assert not {"batch_size", "temperature"} & set(told)
    assert chain(lr=RATES).describe()["temperature"] == pytest.approx(np.array(RATES) * 0.4 / 8)
    assert chain(optimizer=Adam()).describe()["optimizer"] == "Adam(betas=(0.9, 0.999), eps=1e-08, decoupled=False)"
    assert "temperature" not in chain(optimizer=Adam()).describe()
    assert chain(optimizer=Adam(), noise=None).describe()["temperature"] == 0.0
    scheduled = chain(lr=Cosine(0.1, 0.0, 9)).describe()
    assert scheduled["lr_schedule"] == "Cosine(start=0.1, stop=0.0, n_steps=9)"
    assert not {"lr", "dt", "temperature"} & set(scheduled)


HOT = per_sample(temperature=0.1)
DATA = finite(np.array([1.0, -1.0, 1.0, -1.0]), np.array([1.0, -1.0, 1.0, -1.0]))
REFUSALS: list[tuple[Callable[[], Any], str]] = [
    (lambda: chain(lr=[0.1, -0.1]), "`lr` = -0.1, expected a finite number > 0"),
    (lambda: chain(lr=[[0.1]]), r"`lr` = array of shape \(1, 1\), expected a number, shape \(replica,\) or a schedule"),
    (lambda: chain(lr=RATES, weight_decay=[0.1]), "`lr` has 4, `weight_decay` has 1 entries"),
    (lambda: chain(lr=RATES, noise=per_sample(variance=[1.0, 2.0])), "`lr` has 4, `noise` has 2 entries"),
    (lambda: chain(weight_decay=-0.1), "`weight_decay` = -0.1, expected a finite number >= 0"),
    (lambda: chain(lr=[0.1, 4.0], weight_decay=[8.0, 0.5]), "`lr` = 4 with weight decay 8, expected lr"),
    (lambda: end(chain(lr=Linear(0.1, 9.0, 10))), "`lr` = .* with weight decay 0.25, expected"),
    (lambda: end(chain(lr=Linear(0.1, -0.1, 10))), r"`lr` = -0.02 at step 6, expected a finite number >= 0 at every"),
    (lambda: chain(lr=lambda steps: 0.1), r"`lr` = schedule giving shape \(\) for 1 steps.*\n.*numpy functions"),
    (lambda: end(chain(batch_size=Linear(4, 0, 10))), "`batch_size` = 0.8 at step 8, expected a finite number >= 1"),
    (lambda: chain(lr=Cosine(0.1, 0.0, 9), noise=HOT), r"temperature while `lr`.*\n.*per_sample\(variance=…\)"),
    (lambda: chain(batch_size=Constant(3), noise=HOT), "temperature while `batch_size`"),
    (lambda: chain(optimizer=Adam(), noise=HOT), r"`optimizer` = Adam.*, expected GradientDescent"),
    (lambda: chain(optimizer=Adam()).temperature, r"`optimizer` = Adam.*\n.*process.noise_variance"),
    (lambda: chain(lr=Cosine(0.1, 0.0, 9)).temperature, "follows the schedule"),
    (lambda: chain(lr=Cosine(0.1, 0.0, 9)).period, "never|same law at every step"),
    (lambda: SGD(DeepLinearChain(3, 1.0, 0.2), DATA, lr=0.1, batch_size=Constant(2), sampler=ShuffledEpochs()),
     r"changes with `sampler` = ShuffledEpochs\(\).*\nUse `sampler=WithoutReplacement\(\)`"),
    (lambda: end(SGD(DeepLinearChain(3, 1.0, 0.2), DATA, lr=0.1, batch_size=Linear(2, 9, 20),
                     sampler=WithoutReplacement())), "`batch_size` = 4.1 at step 6, expected .* >= 1 and <= 4 at"),
    (lambda: chain(optimizer=Adam()).advance(begin(chain(optimizer=Adam())), 1, Watch(Region(0.9), bridge=True)),
     "`bridge` = True with `optimizer` = Adam"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSALS)
def test_refusals(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        make()


def test_bridges_know_each_replicas_noise() -> None:
    """Crossings between steps, found with the replica's own noise: those of its run alone."""
    n, watch, here = 30, Watch(Region(0.015), bridge=True), [0.2] * 3
    variances, rates = np.linspace(0.0, 0.1, n), np.linspace(0.05, 0.3, n)
    process = SGD(CHAIN, population(), lr=rates, noise=per_sample(variance=variances))
    hits = process.advance(process.start(n, seed=1, point=here), 30, watch)[1].hit_step
    for i in range(0, n, 4):
        alone = process.replace(lr=rates[i], noise=per_sample(variance=variances[i]))
        assert alone.advance(alone.start(n, seed=1, point=here), 30, watch)[1].hit_step[i] == hits[i]
    assert hits[0] == -1
    steps_only = process.advance(process.start(n, seed=1, point=here), 30, Watch(Region(0.015)))[1].hit_step
    assert ((hits > 0) & ((steps_only < 0) | (hits < steps_only))).sum() > 3  # bridges found some earlier


def test_a_hyperparameter_knows_what_it_is() -> None:
    assert Hyperparameter.read("lr", 0.1).number == 0.1
    assert Hyperparameter.read("lr", [0.1]).number is None
    assert Hyperparameter.read("lr", Constant(0.1)).per_replica is None
