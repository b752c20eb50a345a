"""What the self-test of a device compares: small networks, every way to draw batches, and how far two runs differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from kramers_grok.core.noise import per_sample
from kramers_grok.dynamics.optimizers import Adam, AdamW, GradientDescent, Momentum, Optimizer
from kramers_grok.dynamics.process import Process, Watch
from kramers_grok.dynamics.sampling import (
    ByMoments,
    BySamples,
    FullBatch,
    Sampler,
    ShuffledEpochs,
    WithoutReplacement,
    WithReplacement,
)
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import FiniteData, OnlineTeacher, Population, finite, population, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.diagonal import DiagonalNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain

__all__ = [
    "ATOL",
    "CHAIN",
    "ONLINE",
    "OPTIMIZERS",
    "REPLICAS",
    "RTOL",
    "SEED",
    "STEPS",
    "Data",
    "compare",
    "correlated",
    "diagonal",
    "difference",
    "network",
    "run",
    "same_runs",
    "samples",
    "sgd",
    "sources",
]


Data = OnlineTeacher | Population | FiniteData

SEED, REPLICAS, STEPS = 2**33 + 5, 16, 4
RTOL, ATOL = 1e-9, 1e-11  # of a few steps in double precision


def compare(found: Tensor, expected: Tensor | ArrayLike, rtol: float = RTOL, atol: float = ATOL) -> float:
    """Return the largest difference of two tensors; an error if it is more than rounding."""
    one, other = found.detach().cpu(), torch.as_tensor(expected).cpu()
    torch.testing.assert_close(one, other.to(one.dtype), rtol=rtol, atol=atol)
    return float((one.double() - other.double()).abs().max()) if one.numel() else 0.0


def difference(value: float) -> str:
    """Return a difference in words."""
    return "equal" if value == 0 else f"largest difference {value:.1e}"


OPTIMIZERS: tuple[Optimizer, ...] = (
    GradientDescent(),
    GradientDescent(decoupled=True),
    Momentum(0.9),
    Momentum(0.5, dampening=0.2),
    Momentum(0.9, nesterov=True),
    Adam(),
    AdamW(),
)
CHAIN = DeepLinearChain(3, 1.0, 0.25)


def network() -> DeepLinearNetwork:
    """Return a small matrix network; a new one each time, since it keeps its constants where it was used."""
    return DeepLinearNetwork((2, 3, 2), [2.0, 1.0], weight_decay=0.1)


def correlated() -> DeepLinearNetwork:
    """Return a network with inputs that are not white."""
    return DeepLinearNetwork((2, 3, 2), [2.0, 1.0], weight_decay=0.1, input_covariance=[[1.0, 0.2], [0.2, 2.0]])


def diagonal() -> DiagonalNetwork:
    """Return two chains side by side."""
    return DiagonalNetwork(3, [2.0, 1.0], weight_decay=0.1)


def samples(inputs: int) -> FiniteData:
    """Return eight white samples of the teacher, that of the chain or that of the networks."""
    x = np.linalg.qr(np.random.default_rng(0).normal(size=(8, inputs)))[0] * 8**0.5
    return finite(x, x * [1.0] if inputs == 1 else x * [2.0, 1.0])


ONLINE = teacher(label_noise=0.3)
MODELS: Mapping[str, Callable[[], Any]] = {
    "chain": lambda: CHAIN, "network": network, "diagonal": diagonal, "correlated inputs": correlated,
}  # fmt: skip


def sources() -> Iterator[tuple[str, str, Data, Sampler | None]]:
    """Yield model, name, data and sampler of every way to draw batches."""
    yield from ((model, "population", population(), None) for model in ("chain", "network", "diagonal"))
    yield "chain", "online", ONLINE, None
    for model in ("network", "diagonal", "correlated inputs"):
        for sampler in (ByMoments(), BySamples()):
            yield model, f"online, {sampler}", ONLINE, sampler
    for model, inputs in (("chain", 1), ("network", 2)):
        for cut in (WithReplacement(), WithoutReplacement(), ShuffledEpochs(), FullBatch()):
            yield model, f"samples, {cut}", samples(inputs), cut


def sgd(model: str, data: Data, sampler: Sampler | None, device: torch.device | str, **changes: Any) -> SGD:
    """Return the process that is compared; on the CPU compiled where it can be."""
    size = None if isinstance(data, Population) or isinstance(sampler, FullBatch) else 3
    given = {"lr": 0.05, "batch_size": size, "noise": per_sample(variance=0.2), "device": device} | changes
    return SGD(MODELS[model](), data, sampler=sampler, **given)


def run(process: Process, steps: int = STEPS, watch: Watch | None = None) -> dict[str, Tensor]:
    """Return where replicas end, and what is remembered of them."""
    size = process.start(REPLICAS, seed=0).theta.shape[1]
    start = process.start(REPLICAS, seed=SEED, point=0.6 + 0.2 * np.cos(np.arange(size)))
    state, record = process.advance(start, steps, watch)
    return {"theta": state.theta, "hit_step": record.hit_step, "best": record.best, **state.buffers}


def same_runs(make: Callable[..., Process], device: torch.device, watch: Watch | None = None) -> float:
    """Run a process by torch on the device and compiled, where it can be, on the CPU; return the largest difference."""
    there, here = run(make(device, fused=False), watch=watch), run(make("cpu", fused=True), watch=watch)
    assert there.keys() == here.keys()
    assert all(value.device.type == device.type for value in there.values()), "a result is not on the device"
    differences = []
    for name, value in there.items():
        exact = not value.is_floating_point()
        differences.append(compare(value, here[name], *((0.0, 0.0) if exact else (RTOL, ATOL))))
    return max(differences)
