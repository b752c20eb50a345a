"""What all contestants run: the same equations, written once where numpy, torch and JAX read the same text.

Coordinates come first and replicas last, or layers as stacks of matrices, so that arithmetic and ``@`` mean the same in
all three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kramers_grok as kg

Array = NDArray[np.float64]

STEP = 0.1
DECAY = 0.25
ROOT = 3**0.5
HOT, COLD = 1.5, 12.0  # barrier over temperature: where a check sees escapes, and where nobody leaves while timed
WIDTHS = (8, 16, 16, 8)


def mode_gradient(x: Any) -> tuple[Any, ...]:
    """∇F of the mode of three layers in its arc length x = √3 a."""
    a = x / ROOT
    return (DECAY * x - ROOT * (1 - a * a * a) * a * a,)


def mode_order(x: Any) -> Any:
    """Order parameter m = a³."""
    a = x / ROOT
    return a * a * a


def chain_gradient(a: Any, b: Any, c: Any) -> tuple[Any, ...]:
    """∇F of the chain of three weights."""
    residual = 1 - a * b * c
    return DECAY * a - residual * b * c, DECAY * b - residual * a * c, DECAY * c - residual * a * b


def chain_order(a: Any, b: Any, c: Any) -> Any:
    """Order parameter m = abc."""
    return a * b * c


@dataclass(frozen=True)
class Arena:
    """One landscape at one temperature with its target.

    Attributes
    ----------
    name : str
    system : Mode or DeepLinearChain
    gradient, order_parameter : callable
        Of the coordinates, each an array over replicas.
    dimension : int
    height : float
        ΔF [loss].
    ratio : float
        ΔF/T.
    target : Region
    """

    name: str
    system: kg.Mode | kg.DeepLinearChain
    gradient: Callable[..., tuple[Any, ...]]
    order_parameter: Callable[..., Any]
    dimension: int
    height: float
    ratio: float
    target: kg.Region

    def at(self, ratio: float) -> Arena:
        """Return the same landscape at another temperature."""
        return replace(self, ratio=ratio)

    @property
    def temperature(self) -> float:
        """T [loss]."""
        return self.height / self.ratio

    @property
    def amplitude(self) -> float:
        """Standard deviation of a step, √(2 T dt)."""
        return float((2 * self.temperature * STEP) ** 0.5)

    def exact(self, *, bridge: bool) -> Any:
        """Exact exit time of the walk with this step, watched at its steps or between them too."""
        return kg.exit_time(
            self.system, temperature=self.temperature, target=self.target, step=STEP, monitored=not bridge
        )


def mode_and_chain() -> tuple[Arena, Arena]:
    """Return the mode and the chain of three weights at λ = 1/4, hot."""
    chain = kg.DeepLinearChain(3, 1.0, DECAY)
    barrier = chain.barrier()  # the mode's is the same
    target = kg.beyond(barrier)
    return (
        Arena("mode", chain.mode, mode_gradient, mode_order, 1, barrier.height, HOT, target),
        Arena("chain", chain, chain_gradient, chain_order, 3, barrier.height, HOT, target),
    )


# ------------------------------------------------------------------ matrix networks

TEACHER = np.diag(np.linspace(2.0, 1.3, WIDTHS[-1]))  # singular values apart: each feature is one's own
SHAPES = tuple((above, below) for below, above in pairwise(WIDTHS))


def transposed(w: Any) -> Any:
    """Return a stack of matrices, each transposed."""
    return w.swapaxes(-1, -2)


def product_of(layers: Sequence[Any]) -> Any:
    """W = W₃W₂W₁ of every replica."""
    first, second, third = layers
    return third @ (second @ first)


def network_gradient(layers: Sequence[Any], teacher: Any, decay: float) -> tuple[tuple[Any, ...], Any]:
    """∇F of ½‖M − W‖² + ½λ‖θ‖² by layer, and W: the forward product is there anyway."""
    first, second, third = layers
    below = second @ first
    product = third @ below
    error = product - teacher
    back = transposed(third) @ error
    slopes = (transposed(second) @ back, back @ transposed(first), error @ transposed(below))
    return tuple(slope + decay * w for slope, w in zip(slopes, layers, strict=True)), product


@dataclass(frozen=True)
class NetworkArena:
    """Langevin dynamics of the matrix network 8-16-16-8 from the origin.

    So many weights shake one another out of the well at ΔF/T = 12; at 400 nobody leaves while timed.
    """

    ratio: float = 400.0
    decay: float = DECAY

    @cached_property
    def network(self) -> kg.DeepLinearNetwork:
        """The library's network."""
        return kg.DeepLinearNetwork(WIDTHS, TEACHER, weight_decay=self.decay)

    @cached_property
    def _barrier(self) -> Any:
        return self.network.theory.barrier(0)

    @property
    def target(self) -> kg.Region:
        """Where the strongest feature counts as learned: m = W₁₁, since the teacher is diagonal."""
        return kg.beyond(self._barrier)

    @property
    def temperature(self) -> float:
        """T [loss]."""
        return float(self._barrier.height) / self.ratio

    @property
    def amplitude(self) -> float:
        """Standard deviation of a step in each weight."""
        return float((2 * self.temperature * STEP) ** 0.5)

    def energy(self, theta: Array) -> Array:
        """F of each replica, shape (replica,)."""
        layers = split(theta)
        residual = product_of(layers) - TEACHER
        return np.asarray(0.5 * (residual**2).sum(axis=(1, 2)) + 0.5 * self.decay * (theta**2).sum(axis=1))


def split(theta: Any) -> list[Any]:
    """Weights (replica, parameter) as three stacks of matrices."""
    layers, begin = [], 0
    for above, below in SHAPES:
        layers.append(theta[:, begin : begin + above * below].reshape(-1, above, below))
        begin += above * below
    return layers


@lru_cache(maxsize=8)
def _start(replicas: int) -> Array:
    """Kept, so that no contestant is timed drawing where it begins."""
    scale = np.concatenate([np.full(above * below, below**-0.5) for above, below in SHAPES])
    # Replica by replica: whoever runs fewer begins where the others do.
    drawn = np.random.default_rng(5).normal(size=(replicas, scale.size))
    start: Array = (drawn * scale).astype(np.float32).astype(np.float64)
    return start


def joined(layers: Sequence[Any]) -> Array:
    """Stacks of matrices as rows of weights, float64."""
    rows = [np.asarray(w, dtype=np.float64).reshape(len(w), -1) for w in layers]
    return np.concatenate(rows, axis=1)


# ------------------------------------------------------------------ training


@dataclass(frozen=True)
class Training:
    """SGD of 8-16-16-8 on an online teacher with noisy labels, batches of 8, float32.

    Attributes
    ----------
    tanh : bool
        A tanh network; otherwise the deep linear one.
    label_noise, lr, decay : float
    batch_size : int
    """

    tanh: bool = False
    label_noise: float = 2.0
    lr: float = 0.05
    decay: float = 1e-3
    batch_size: int = 8

    @property
    def name(self) -> str:
        """How the network is called in the table."""
        return "tanh network" if self.tanh else "deep linear network"

    def start(self, replicas: int) -> Array:
        """Weights with which each replica begins, variance 1/fan-in, shape (replica, parameter)."""
        return _start(replicas).copy()

    def test_loss(self, theta: Array) -> Array:
        """Loss without label noise and weight decay on 256 fixed samples, shape (replica,)."""
        x = np.random.default_rng(6).normal(size=(256, WIDTHS[0]))
        signal: Any = x
        for number, w in enumerate(split(theta)):
            signal = signal @ transposed(w)
            if self.tanh and number < len(SHAPES) - 1:
                signal = np.tanh(signal)
        return np.asarray(0.5 * ((signal - x @ TEACHER.T) ** 2).sum(axis=2).mean(axis=1))
