"""What one writes with JAX: jitted loops in double precision, replicas dealt out to a device for each core.

Threefry is used: on a CPU it was faster here than ``rbg`` by a factor of two. Normals of several steps are
drawn at once, which for few replicas was faster by up to a factor of two than drawing at each step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from numpy.typing import NDArray

from benchmarks import arenas
from benchmarks.arenas import SHAPES, STEP, TEACHER, WIDTHS, Arena, NetworkArena, Training
from benchmarks.ours import as_steps

jax.config.update("jax_enable_x64", True)

Array = NDArray[np.float64]

DRAWN = 2**15  # normals drawn at once, about: they should stay in a cache


def on_all_devices(function: Callable[..., Any], n_shared: int, n_dealt: int = 0) -> Callable[..., Any]:
    """Run ``function(device number, *shared, *dealt)`` on every device, its results joined along their first axis."""
    mesh = Mesh(np.array(jax.devices()), ("core",))
    dealt = PartitionSpec("core")
    specs = (dealt, *[PartitionSpec()] * n_shared, *[dealt] * n_dealt)

    def local(numbers: Any, *arguments: Any) -> Any:
        return function(numbers[0], *arguments)

    mapped = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=dealt, check_vma=False)
    return lambda *arguments: mapped(np.arange(mesh.size), *arguments)


def share_of(replicas: int) -> int:
    """Replicas of each device; the last may hold some too many."""
    return -(-replicas // len(jax.devices()))


class Escape:
    """A jitted loop over steps that ends when all have left."""

    def __init__(self, arena: Arena, noise: Any = jnp.float64) -> None:
        self.arena = arena
        dimension = arena.dimension

        @partial(jax.jit, static_argnums=0)
        def run(share: int, steps: Any, key: Any, amplitude: Any) -> Any:
            at_once = int(np.clip(DRAWN // (share * dimension), 1, 64))

            def local(device: Any, steps: Any, key: Any, amplitude: Any) -> Any:
                mine = jax.random.fold_in(key, device)

                def chunk(carry: Any) -> Any:
                    done, state, hit = carry
                    drawn = jax.random.fold_in(mine, done)
                    xi = jax.random.normal(drawn, (at_once, dimension, share), noise)

                    def one(number: Any, carry: Any) -> Any:
                        state, hit = carry
                        moved = tuple(
                            x - STEP * g + amplitude * xi[number, k].astype(jnp.float64)
                            for k, (x, g) in enumerate(zip(state, arena.gradient(*state), strict=True))
                        )
                        inside = arena.order_parameter(*moved) >= arena.target.threshold
                        return moved, jnp.where(inside & (hit < 0), done + number + 1, hit)

                    n = jnp.minimum(at_once, steps - done)
                    state, hit = lax.fori_loop(0, n, one, (state, hit))
                    return done + n, state, hit

                start = tuple(jnp.zeros(share) for _ in range(dimension))
                carry = (jnp.int64(0), start, jnp.full(share, -1, jnp.int64))
                return lax.while_loop(lambda c: (c[0] < steps) & jnp.any(c[2] < 0), chunk, carry)[2]

            return on_all_devices(local, 3)(steps, key, amplitude)

        self.run = run

    def __call__(self, replicas: int, steps: int, seed: int) -> Array:
        """Step of each replica's first hit."""
        hit = self.run(share_of(replicas), jnp.int64(steps), jax.random.key(seed), self.arena.amplitude)
        return as_steps(hit)[:replicas]


class Network:
    """The matrix network with batched products."""

    def __init__(self, arena: NetworkArena, noise: Any = jnp.float64) -> None:
        self.arena = arena
        teacher = jnp.asarray(TEACHER)

        @partial(jax.jit, static_argnums=0)
        def run(share: int, steps: Any, key: Any, amplitude: Any) -> Any:
            def local(device: Any, steps: Any, key: Any, amplitude: Any) -> Any:
                mine = jax.random.fold_in(key, device)

                def one(step: Any, carry: Any) -> Any:
                    layers, hit = carry
                    slopes, product = arenas.network_gradient(layers, teacher, arena.decay)
                    inside = product[:, 0, 0] >= arena.target.threshold
                    hit = jnp.where(inside & (hit < 0), step, hit)
                    keys = jax.random.split(jax.random.fold_in(mine, step), len(SHAPES))
                    noises = [jax.random.normal(k, w.shape, noise) for k, w in zip(keys, layers, strict=True)]
                    moved = tuple(
                        w - STEP * g + amplitude * xi.astype(jnp.float64)
                        for w, g, xi in zip(layers, slopes, noises, strict=True)
                    )
                    return moved, hit

                start = tuple(jnp.zeros((share, *shape)) for shape in SHAPES)
                layers, hit = lax.fori_loop(0, steps, one, (start, jnp.full(share, -1, jnp.int64)))
                last = arenas.product_of(layers)[:, 0, 0] >= arena.target.threshold
                return jnp.where(last & (hit < 0), steps, hit), layers

            return on_all_devices(local, 3)(steps, key, amplitude)

        self.run = run

    def __call__(self, replicas: int, steps: int, seed: int) -> tuple[Array, Array]:
        """First steps in the target, and final weights."""
        hit, layers = self.run(share_of(replicas), jnp.int64(steps), jax.random.key(seed), self.arena.amplitude)
        return as_steps(hit)[:replicas], arenas.joined([np.asarray(w)[:replicas] for w in layers])


class Train:
    """vmap over replicas of the gradient of one replica's loss, in a jitted loop, single precision."""

    def __init__(self, arena: Training) -> None:
        self.arena = arena
        teacher = jnp.asarray(TEACHER, jnp.float32)
        size, inputs, outputs = arena.batch_size, WIDTHS[0], WIDTHS[-1]
        noise, lr, decay = jnp.float32(arena.label_noise), jnp.float32(arena.lr), jnp.float32(arena.decay)

        def loss(layers: Any, x: Any, y: Any) -> Any:
            for number, w in enumerate(layers):
                x = x @ w.T
                if arena.tanh and number < len(layers) - 1:
                    x = jnp.tanh(x)
            return jnp.float32(0.5) * jnp.square(x - y).sum(axis=1).mean()

        gradient = jax.vmap(jax.grad(loss))

        @jax.jit
        def run(steps: Any, key: Any, layers: Any) -> Any:
            def local(device: Any, steps: Any, key: Any, layers: Any) -> Any:
                mine, share = jax.random.fold_in(key, device), layers[0].shape[0]

                def one(step: Any, layers: Any) -> Any:
                    drawn = jax.random.fold_in(mine, step)
                    xi = jax.random.normal(drawn, (share, size, inputs + outputs), jnp.float32)
                    x = xi[:, :, :inputs]
                    y = x @ teacher.T + noise * xi[:, :, inputs:]
                    slopes = gradient(layers, x, y)
                    return tuple(w - lr * (g + decay * w) for w, g in zip(layers, slopes, strict=True))

                return lax.fori_loop(0, steps, one, layers)

            return on_all_devices(local, 2, 1)(steps, key, layers)

        self.run = run

    def __call__(self, replicas: int, steps: int, seed: int) -> Array:
        """Weights after so many steps, shape (replica, parameter)."""
        padded = self.arena.start(share_of(replicas) * len(jax.devices()))
        layers = tuple(jnp.asarray(w, jnp.float32) for w in arenas.split(padded))
        moved = self.run(jnp.int64(steps), jax.random.key(seed), layers)
        return arenas.joined([np.asarray(w)[:replicas] for w in moved])
