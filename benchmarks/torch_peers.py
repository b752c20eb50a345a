"""What one writes in torch: loops over steps, torchsde as shipped and with cheap noise, torch.optim, torch.func."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torchsde
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks import arenas
from benchmarks.arenas import SHAPES, STEP, TEACHER, WIDTHS, Arena, NetworkArena, Training, transposed
from benchmarks.ours import as_steps

Array = NDArray[np.float64]

CHECK_EVERY = 256  # steps between two looks at whether everybody has left


class EscapeLoop:
    """A loop over steps with torch's own normals and a mask of who is out."""

    def __init__(self, arena: Arena, noise: torch.dtype = torch.float64) -> None:
        self.arena, self.noise = arena, noise

    def __call__(self, replicas: int, steps: int, seed: int) -> Array:
        """Step of each replica's first hit."""
        arena, shape = self.arena, (self.arena.dimension, replicas)
        generator = torch.Generator().manual_seed(seed)
        xi = torch.empty(shape, dtype=self.noise)
        state = torch.zeros(shape, dtype=torch.float64)
        hit = torch.full((replicas,), -1, dtype=torch.int64)
        for step in range(1, steps + 1):
            xi.normal_(generator=generator)
            for x, g in zip(state, arena.gradient(*state), strict=True):
                x.sub_(g, alpha=STEP)
            state.add_(xi, alpha=arena.amplitude)
            hit.masked_fill_((arena.order_parameter(*state) >= arena.target.threshold) & (hit < 0), step)
            if step % CHECK_EVERY == 0 and bool((hit >= 0).all()):
                break
        return as_steps(hit.numpy())


class _Overdamped:
    """The SDE as torchsde expects it: isotropic noise is its "diagonal"."""

    noise_type = "diagonal"
    sde_type = "ito"

    def __init__(self, arena: Arena) -> None:
        self.arena = arena

    def f(self, t: Any, y: Tensor) -> Tensor:
        return -torch.stack(self.arena.gradient(*y.unbind(1)), dim=1)

    def g(self, t: Any, y: Tensor) -> Tensor:
        return torch.full_like(y, (2 * self.arena.temperature) ** 0.5)


class _FreshIncrements(torchsde.BaseBrownian):  # type: ignore[misc]
    """Increments drawn when asked for and forgotten: all that Euler–Maruyama with a fixed step needs."""

    __slots__ = ("_dt", "_generator", "_shape")

    def __init__(self, shape: tuple[int, ...], dt: float, seed: int) -> None:
        self._shape, self._dt = shape, dt
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Tensor:
        return torch.empty(self._shape, dtype=torch.float64).normal_(0.0, self._dt**0.5, generator=self._generator)

    def __repr__(self) -> str:
        return f"_FreshIncrements({self._shape})"

    dtype = property(lambda self: torch.float64)
    device = property(lambda self: torch.device("cpu"))
    shape = property(lambda self: self._shape)
    levy_area_approximation = property(lambda self: "none")


class TorchSDE:
    """`torchsde.sdeint` in chunks of saved steps, in which crossings are looked for afterwards."""

    def __init__(self, arena: Arena, *, fresh: bool, values: int = 2_000_000) -> None:
        self.arena, self.fresh, self.values = arena, fresh, values

    def __call__(self, replicas: int, steps: int, seed: int) -> Array:
        """Step of each replica's first hit."""
        arena = self.arena
        sde, shape = _Overdamped(arena), (replicas, arena.dimension)
        state, hit = torch.zeros(shape, dtype=torch.float64), torch.full((replicas,), -1, dtype=torch.int64)
        chunk = max(min(steps, self.values // (replicas * arena.dimension)), 8)
        for begin in range(0, steps, chunk):
            n = min(chunk, steps - begin)
            times = torch.arange(n + 1, dtype=torch.float64) * STEP
            path = torchsde.sdeint(
                sde, state, times, bm=self._brownian(shape, float(times[-1]), seed, begin), method="euler", dt=STEP
            )
            inside = arena.order_parameter(*path[1:].unbind(2)) >= arena.target.threshold
            first = inside.to(torch.int8).argmax(dim=0) + begin + 1
            hit = torch.where((hit < 0) & inside.any(dim=0), first, hit)
            state = path[-1]
            if bool((hit >= 0).all()):
                break
        return as_steps(hit.numpy())

    def _brownian(self, shape: tuple[int, int], end: float, seed: int, begin: int) -> Any:
        key = int(np.random.SeedSequence([seed, begin]).generate_state(1)[0])
        if self.fresh:
            return _FreshIncrements(shape, STEP, key)
        # With `dt` its tree is laid out once. Otherwise the sum of the steps misses the end by a rounding error, and a
        # last step of 1e-16 makes it refine the tree without end.
        return torchsde.BrownianInterval(0.0, end, size=shape, dtype=torch.float64, entropy=key, dt=STEP)


class NetworkLoop:
    """A loop over steps of the matrix network with batched products."""

    def __init__(self, arena: NetworkArena, noise: torch.dtype = torch.float64) -> None:
        self.arena, self.noise = arena, noise

    def __call__(self, replicas: int, steps: int, seed: int) -> tuple[Array, Array]:
        """First steps in the target, and final weights."""
        arena, generator = self.arena, torch.Generator().manual_seed(seed)
        teacher = torch.from_numpy(TEACHER)
        layers = [torch.zeros((replicas, *shape), dtype=torch.float64) for shape in SHAPES]
        noise = [torch.empty(w.shape, dtype=self.noise) for w in layers]
        hit = torch.full((replicas,), -1, dtype=torch.int64)
        for step in range(steps):
            slopes, product = arenas.network_gradient(layers, teacher, arena.decay)
            if step:
                hit = torch.where((product[:, 0, 0] >= arena.target.threshold) & (hit < 0), step, hit)
            for w, g, xi in zip(layers, slopes, noise, strict=True):
                w.sub_(g, alpha=STEP).add_(xi.normal_(generator=generator), alpha=arena.amplitude)
        last = arenas.product_of(layers)[:, 0, 0] >= arena.target.threshold
        hit = torch.where(last & (hit < 0), steps, hit)
        return as_steps(hit.numpy()), arenas.joined([w.numpy() for w in layers])


# ------------------------------------------------------------------ training


def _batch(arena: Training, replicas: int, teacher: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Fresh samples for every replica."""
    x = torch.empty((replicas, arena.batch_size, WIDTHS[0])).normal_(generator=generator)
    y = torch.empty((replicas, arena.batch_size, WIDTHS[-1])).normal_(generator=generator)
    return x, torch.addmm(
        arena.label_noise * y.reshape(-1, WIDTHS[-1]), x.reshape(-1, WIDTHS[0]), teacher.T
    ).reshape(y.shape)  # fmt: skip


def _rows(arena: Training, replicas: int) -> list[Tensor]:
    start = torch.from_numpy(arena.start(replicas)).to(torch.float32)
    return [w.clone() for w in arenas.split(start)]


class Batched:
    """Forward and backward pass written by hand for all replicas at once, with batched products."""

    def __init__(self, arena: Training) -> None:
        self.arena = arena

    def __call__(self, replicas: int, steps: int, seed: int) -> Array:
        """Weights after so many steps."""
        arena, generator = self.arena, torch.Generator().manual_seed(seed)
        teacher, layers = torch.from_numpy(TEACHER).to(torch.float32), _rows(arena, replicas)
        for _ in range(steps):
            x, y = _batch(arena, replicas, teacher, generator)
            seen = [x]
            for w in layers[:-1]:
                signal = torch.bmm(seen[-1], transposed(w))
                seen.append(signal.tanh_() if arena.tanh else signal)
            error = torch.baddbmm(y, seen[-1], transposed(layers[-1]), beta=-1.0).div_(arena.batch_size)
            for number in range(len(layers) - 1, -1, -1):
                w, below = layers[number], seen[number]
                back = torch.bmm(error, w) if number else error
                w.mul_(1 - arena.lr * arena.decay).baddbmm_(transposed(error), below, alpha=-arena.lr)
                error = back.mul_(1 - below * below) if arena.tanh and number else back
        return arenas.joined([w.numpy() for w in layers])


class Vmapped:
    """`torch.func`: vmap over replicas of the gradient of one replica's loss."""

    def __init__(self, arena: Training) -> None:
        self.arena = arena

        def loss(layers: tuple[Tensor, ...], x: Tensor, y: Tensor) -> Tensor:
            for number, w in enumerate(layers):
                x = nn.functional.linear(x, w)
                if arena.tanh and number < len(layers) - 1:
                    x = torch.tanh(x)
            return 0.5 * (x - y).square().sum(dim=1).mean()

        self.gradient = torch.func.vmap(torch.func.grad(loss))

    def __call__(self, replicas: int, steps: int, seed: int) -> Array:
        """Weights after so many steps."""
        arena, generator = self.arena, torch.Generator().manual_seed(seed)
        teacher, layers = torch.from_numpy(TEACHER).to(torch.float32), _rows(arena, replicas)
        for _ in range(steps):
            x, y = _batch(arena, replicas, teacher, generator)
            for w, g in zip(layers, self.gradient(tuple(layers), x, y), strict=True):
                w.mul_(1 - arena.lr * arena.decay).sub_(g, alpha=arena.lr)
        return arenas.joined([w.numpy() for w in layers])


class Optim:
    """One `torch.nn` network and one `torch.optim.SGD` for every replica, one after another."""

    def __init__(self, arena: Training) -> None:
        self.arena = arena

    def __call__(self, replicas: int, steps: int, seed: int) -> Array:
        """Weights after so many steps."""
        arena, generator = self.arena, torch.Generator().manual_seed(seed)
        teacher, start = torch.from_numpy(TEACHER).to(torch.float32), _rows(arena, replicas)
        done = [self._one([w[number] for w in start], steps, teacher, generator) for number in range(replicas)]
        return arenas.joined([np.stack(layers) for layers in zip(*done, strict=True)])

    def _one(self, start: list[Tensor], steps: int, teacher: Tensor, generator: torch.Generator) -> list[Array]:
        arena = self.arena
        parts: list[nn.Module] = []
        for w in start:
            linear = torch.nn.utils.skip_init(nn.Linear, w.shape[1], w.shape[0], bias=False)
            linear.weight.data.copy_(w)
            parts += [linear, nn.Tanh()] if arena.tanh else [linear]
        network = nn.Sequential(*(parts[:-1] if arena.tanh else parts))
        optimizer = torch.optim.SGD(network.parameters(), lr=arena.lr, weight_decay=arena.decay)
        for _ in range(steps):
            x, y = _batch(arena, 1, teacher, generator)
            loss = 0.5 * (network(x[0]) - y[0]).square().sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return [w.detach().numpy().copy() for w in network.parameters()]
