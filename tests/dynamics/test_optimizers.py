"""Each optimizer is its torch.optim counterpart, replica by replica, and its memory follows its replica.

What the compared results share: the gradients, which are given numbers. The updates do not.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.dynamics.optimizers import Adam, AdamW, GradientDescent, Momentum, Optimizer

REPLICAS, WEIGHTS, STEPS = 3, 4, 300
LR, DECAY = 0.03, 0.2
Torch = Callable[[list[Tensor]], torch.optim.Optimizer]


def sgd(**more: Any) -> Torch:
    return lambda weights: torch.optim.SGD(weights, lr=LR, weight_decay=DECAY, **more)


PAIRS: dict[str, tuple[Optimizer, Torch]] = {
    "descent": (GradientDescent(), sgd()),
    "momentum": (Momentum(0.8), sgd(momentum=0.8)),
    "dampened": (Momentum(0.8, dampening=0.3), sgd(momentum=0.8, dampening=0.3)),
    "nesterov": (Momentum(0.8, nesterov=True), sgd(momentum=0.8, nesterov=True)),
    "no momentum": (Momentum(0.0), sgd()),
    "adam": (Adam(), lambda w: torch.optim.Adam(w, lr=LR, weight_decay=DECAY)),
    "adam, other numbers": (
        Adam(betas=(0.5, 0.9), eps=1e-3), lambda w: torch.optim.Adam(w, LR, (0.5, 0.9), 1e-3, DECAY)
    ),
    "adamw": (AdamW(), lambda w: torch.optim.AdamW(w, lr=LR, weight_decay=DECAY)),
    "adam, decoupled": (Adam(decoupled=True), lambda w: torch.optim.AdamW(w, lr=LR, weight_decay=DECAY)),
}  # fmt: skip


def gradients(dtype: torch.dtype = torch.float64) -> Tensor:
    """Over eight orders of magnitude: where ε matters, and where it does not."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(STEPS, REPLICAS, WEIGHTS, generator=generator, dtype=torch.float64)
    return (noise * torch.logspace(-8, 0, WEIGHTS, dtype=torch.float64)).to(dtype)


def start(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.linspace(-1.0, 2.0, REPLICAS * WEIGHTS, dtype=torch.float64).reshape(REPLICAS, WEIGHTS).to(dtype)


def walk(optimizer: Optimizer, theta: Tensor, given: Tensor, lr: Any = LR, decay: Any = DECAY) -> Tensor:
    state: Any = optimizer.init(theta)
    for gradient in given:
        theta, state = optimizer.step(theta, gradient, state, lr, decay)
    return theta


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("ours", "theirs"), PAIRS.values(), ids=PAIRS)
def test_equal_to_torch(ours: Optimizer, theirs: Torch, dtype: torch.dtype) -> None:
    weight = start(dtype).requires_grad_(True)
    optimizer = theirs([weight])
    for gradient in gradients(dtype):
        weight.grad = gradient
        optimizer.step()
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(walk(ours, start(dtype), gradients(dtype)), weight.detach(), rtol=tolerance, atol=0)


def test_decoupled_decay_by_hand() -> None:
    """No counterpart in torch: the weights shrink by 1 − ηλ, and the velocity never hears of λ."""
    velocity, expected = torch.zeros(REPLICAS, WEIGHTS, dtype=torch.float64), start()
    for gradient in gradients():
        velocity = 0.8 * velocity + gradient
        expected = expected * (1 - LR * DECAY) - LR * velocity
    torch.testing.assert_close(walk(Momentum(0.8, decoupled=True), start(), gradients()), expected, rtol=1e-12, atol=0)
    coupled, decoupled = (walk(GradientDescent(d), start(), gradients()) for d in (False, True))
    torch.testing.assert_close(decoupled, coupled, rtol=1e-12, atol=0)
    assert not torch.allclose(walk(Momentum(0.8), start(), gradients()), expected, rtol=1e-3)


@pytest.mark.parametrize("optimizer", [p[0] for p in PAIRS.values()], ids=PAIRS)
def test_each_replica_has_its_own_rates(optimizer: Optimizer) -> None:
    rates, decays = [0.01, 0.03, 0.1], [0.0, 0.2, 0.5]
    column = [torch.tensor(v, dtype=torch.float64).reshape(-1, 1) for v in (rates, decays)]
    together = walk(optimizer, start(), gradients(), *column)
    for i, (lr, decay) in enumerate(zip(rates, decays, strict=True)):
        alone = walk(optimizer, start()[i : i + 1], gradients()[:, i : i + 1], lr, decay)
        assert torch.equal(together[i : i + 1], alone)


@pytest.mark.parametrize("optimizer", [p[0] for p in PAIRS.values()], ids=PAIRS)
def test_memory_has_a_row_for_each_replica(optimizer: Optimizer) -> None:
    """Replicas may be picked and copied half way: they go on as if nothing had happened."""
    expected = walk(optimizer, start(), gradients())
    theta, state = start(), dict(optimizer.init(start()))
    pick = torch.tensor([2, 0, 0])
    for number, gradient in enumerate(gradients()):
        if number == STEPS // 2:
            theta, state = theta[pick], {name: buffer[pick] for name, buffer in state.items()}
        theta, after = optimizer.step(theta, gradient[pick] if number >= STEPS // 2 else gradient, state, LR, DECAY)
        state = dict(after)
    assert torch.equal(theta, expected[pick])


def test_adam_counts_steps_by_replica() -> None:
    """A replica that begins later is corrected for its own number of steps, not for the others'."""
    optimizer, given = Adam(), gradients()
    old, state = start(), dict(optimizer.init(start()))
    for gradient in given[:50]:
        old, state = (lambda out: (out[0], dict(out[1])))(optimizer.step(old, gradient, state, LR, DECAY))
    theta = torch.cat([old[:1], start()[1:2]])
    fresh = optimizer.init(start()[1:2])
    mixed: Any = {name: torch.cat([state[name][:1], fresh[name]]) for name in state}
    for gradient in given[50:80]:
        theta, mixed = optimizer.step(theta, gradient[:2], mixed, LR, DECAY)
    assert mixed["steps"].reshape(-1).tolist() == [80, 30]
    assert torch.equal(theta[1:], walk(optimizer, start()[1:2], given[50:80, 1:2]))
    assert torch.equal(theta[:1], walk(optimizer, start()[:1], given[:80, :1]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Momentum(1.0), r"`momentum` = 1.0, expected a number in \[0, 1\)"),
        (lambda: Momentum(dampening=-0.1), "`dampening` = -0.1"),
        (lambda: Momentum(0.9, dampening=0.1, nesterov=True), r"`nesterov` = True.*\n.*Momentum\(0.9, nesterov=True\)"),
        (lambda: Momentum(0.0, nesterov=True), "`nesterov` = True"),
        (lambda: Adam(betas=(0.9, 1.0)), "`betas` = 1.0"),
        (lambda: AdamW(eps=0.0), "`eps` = 0.0, expected a finite number > 0"),
    ],
)
def test_refusals(make: Callable[[], Optimizer], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        make()
