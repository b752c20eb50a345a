"""`diffrax.diffeqsolve`, the batch as its state, in chunks of steps in which crossings are looked for."""

from __future__ import annotations

from functools import partial
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import lineax
import numpy as np
from numpy.typing import NDArray

from benchmarks.arenas import STEP, Arena
from benchmarks.jax_peers import on_all_devices, share_of
from benchmarks.ours import as_steps

Array = NDArray[np.float64]

CHUNK = 256  # steps kept at once: whether each replica is inside


class Escape:
    """Euler's solver on `UnsafeBrownianPath`, the cheapest that diffrax offers for fixed steps."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena

        def drift(t: Any, y: Any, amplitude: Any) -> Any:
            return -jnp.stack(arena.gradient(*y))

        def diffusion(t: Any, y: Any, amplitude: Any) -> Any:
            return lineax.DiagonalLinearOperator(jnp.full(y.shape, amplitude))

        def inside(t: Any, y: Any, amplitude: Any) -> Any:
            return arena.order_parameter(*y) >= arena.target.threshold

        @jax.jit
        def chunk(state: Any, hit: Any, done: Any, steps: Any, key: Any, amplitude: Any) -> Any:
            def local(device: Any, done: Any, steps: Any, key: Any, amplitude: Any, state: Any, hit: Any) -> Any:
                state = state[0]
                drawn = jax.random.fold_in(jax.random.fold_in(key, device), done)
                noise = diffrax.UnsafeBrownianPath(shape=state.shape, key=drawn)
                terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, noise))
                solved = diffrax.diffeqsolve(
                    terms, diffrax.Euler(), 0.0, steps * STEP, STEP, state, amplitude,
                    saveat=diffrax.SaveAt(subs=[
                        diffrax.SubSaveAt(steps=True, fn=inside), diffrax.SubSaveAt(t1=True)
                    ]),
                    max_steps=CHUNK + 1, throw=False, adjoint=diffrax.ForwardMode(),
                )  # fmt: skip
                crossed, last = solved.ys
                taken = crossed & (jnp.arange(len(crossed)) < steps)[:, None]
                first = done + 1 + jnp.argmax(taken, axis=0)
                return last, jnp.where((hit < 0) & taken.any(axis=0), first, hit)

            return on_all_devices(local, 4, 2)(done, steps, key, amplitude, state, hit)

        self.chunk = partial(chunk)

    def __call__(self, replicas: int, steps: int, seed: int) -> Array:
        """Step of each replica's first hit."""
        devices, share = len(jax.devices()), share_of(replicas)
        state = jnp.zeros((devices, self.arena.dimension, share))
        hit = jnp.full(devices * share, -1, jnp.int64)
        key, amplitude = jax.random.key(seed), (2 * self.arena.temperature) ** 0.5
        for done in range(0, steps, CHUNK):
            n = min(CHUNK, steps - done)
            state, hit = self.chunk(state, hit, jnp.int64(done), jnp.int64(n), key, amplitude)
            if not bool(jnp.any(hit < 0)):
                break
        return as_steps(hit)[:replicas]
