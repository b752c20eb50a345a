"""Plain numpy in double precision: what contestants are held against, and what the library is tracked against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import arenas
from benchmarks.arenas import STEP, Arena, NetworkArena, Training, transposed

Array = NDArray[np.float64]


def escape(arena: Arena, replicas: int, steps: int, rng: np.random.Generator) -> Array:
    """Step at which each replica is first in the target, inf where it is not."""
    state = tuple(np.zeros((arena.dimension, replicas)))
    hit = np.full(replicas, np.inf)
    for step in range(1, steps + 1):
        noise = rng.standard_normal((arena.dimension, replicas))
        slope = arena.gradient(*state)
        state = tuple(x - STEP * g + arena.amplitude * xi for x, g, xi in zip(state, slope, noise, strict=True))
        hit[(arena.order_parameter(*state) >= arena.target.threshold) & np.isinf(hit)] = step
    return hit


def network(arena: NetworkArena, replicas: int, steps: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """First steps in the target and final weights of the matrix network."""
    layers: Any = [np.zeros((replicas, *shape)) for shape in arenas.SHAPES]
    hit = np.full(replicas, np.inf)
    for step in range(1, steps + 1):
        slopes, _ = arenas.network_gradient(layers, arenas.TEACHER, arena.decay)
        layers = [
            w - STEP * g + arena.amplitude * rng.standard_normal(w.shape) for w, g in zip(layers, slopes, strict=True)
        ]
        hit[(arenas.product_of(layers)[:, 0, 0] >= arena.target.threshold) & np.isinf(hit)] = step
    return hit, arenas.joined(layers)


def train(arena: Training, replicas: int, steps: int, rng: np.random.Generator) -> Array:
    """Weights after some steps of SGD, each replica with batches of its own."""
    layers = arenas.split(arena.start(replicas))
    for _ in range(steps):
        x = rng.standard_normal((replicas, arena.batch_size, arenas.WIDTHS[0]))
        y = x @ arenas.TEACHER.T
        y += arena.label_noise * rng.standard_normal(y.shape)
        layers = [w - arena.lr * g for w, g in zip(layers, training_gradient(arena, layers, x, y), strict=True)]
    return arenas.joined(layers)


def training_gradient(arena: Training, layers: list[Any], x: Any, y: Any) -> list[Any]:
    """Gradient of ½ mean ‖f(x) − y‖² + ½λ‖θ‖², layer by layer, written out."""
    seen = [x]
    for w in layers[:-1]:
        signal = seen[-1] @ transposed(w)
        seen.append(np.tanh(signal) if arena.tanh else signal)
    error = (seen[-1] @ transposed(layers[-1]) - y) / x.shape[1]
    slopes: list[Any] = []
    for w, below in zip(reversed(layers), reversed(seen), strict=True):
        slopes.append(transposed(error) @ below + arena.decay * w)
        error = error @ w
        if arena.tanh:
            error = error * (1 - below * below)
    return slopes[::-1]


def chain_training(replicas: int, steps: int, rng: np.random.Generator) -> Array:
    """Weights (3, replica) of the chain after some steps of SGD on samples y = x + n/2, from 0.8."""
    decay, label_noise, lr, batch_size = 0.1, 0.5, 0.1, 8
    state = np.full((3, replicas), 0.8)
    for _ in range(steps):
        x, noise = rng.standard_normal((2, batch_size, replicas))
        xx, yx = (x * x).mean(axis=0), (x * (x + label_noise * noise)).mean(axis=0)
        a, b, c = state
        error = a * b * c * xx - yx
        state = state - lr * (np.stack([error * b * c, error * a * c, error * a * b]) + decay * state)
    return state


def mean_exit_time(arena: Arena, n: int = 4000) -> float:
    """Mean exit time of the mode in continuous time, ∫ e^{F/T} ∫ e^{−F/T} / T, by trapezoids."""
    end = arenas.ROOT * arena.target.threshold ** (1 / 3)
    x = np.linspace(-8 * arena.temperature**0.5, end, n)
    a = x / arenas.ROOT
    energy = 0.5 * (1 - a**3) ** 2 + 1.5 * arenas.DECAY * a**2
    low = energy[x <= 0].min()
    weight, step = np.exp(-(energy - low) / arena.temperature), x[1] - x[0]
    inner = np.concatenate([[0.0], np.cumsum(0.5 * (weight[1:] + weight[:-1]) * step)])
    outer = inner / weight
    started = x >= 0
    return float(np.trapezoid(outer[started], x[started]) / arena.temperature)
