"""The one place that knows torchsde.

What would go wrong otherwise, and how it is kept out:

- isotropic noise is torchsde's ``noise_type="diagonal"``, not ``"additive"``;
- its times are tensors that round: here the solver runs in units of the step, with integer Python floats;
- save times between steps are interpolated and there is no early stopping: here it is driven step by step;
- its Brownian motion keeps a growing tree and seeds itself from numpy's global generator: here the increments are
  counter based and use no memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor
from torchsde import BaseBrownian
from torchsde._core import base_sde, methods  # the public sdeint can neither stop a replica nor use float times

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics import torch_noise

__all__ = ["CounterBrownian", "IsotropicSDE", "ProductSDE", "TorchSDEStepper"]

METHODS = ("euler", "milstein", "srk")


class IsotropicSDE:
    r"""Overdamped Langevin dynamics, :math:`d\theta = -\nabla F\,dt + \sqrt{2T}\,dW` (Itô), as torchsde expects it.

    Usable with ``torchsde.sdeint(sde, y0, ts, method="euler", dt=...)`` directly; always pass `method` and make `dt`
    divide the save times.

    Parameters
    ----------
    gradient : callable
        ∇F of a batch, (replica, parameter) → (replica, parameter).
    temperature : float
        T [loss].
    """

    noise_type = "diagonal"
    sde_type = "ito"

    def __init__(self, gradient: Callable[[Tensor], Tensor], temperature: float) -> None:
        self.gradient = gradient
        self.temperature = temperature

    def f(self, t: Any, y: Tensor) -> Tensor:
        """Drift −∇F(y), shape (replica, parameter)."""
        return -self.gradient(y)

    def g(self, t: Any, y: Tensor) -> Tensor:
        """Diffusion √(2T), shape (replica, parameter)."""
        return torch.full_like(y, (2 * self.temperature) ** 0.5)


@runtime_checkable
class ProductSDE(Protocol):
    """An SDE whose diffusion is known by its products with vectors only, on normal numbers of its own."""

    noise_type: str
    sde_type: str

    @property
    def n_channels(self) -> int:
        """Components of the Brownian motion."""
        ...

    def f(self, t: Any, y: Tensor) -> Tensor:
        """Drift, shape (replica, parameter)."""
        ...

    def g_prod(self, t: Any, y: Tensor, v: Tensor) -> Tensor:
        """Diffusion times `v` (replica, channel), shape (replica, parameter)."""
        ...

    def normals(self, seed: int, streams: Tensor, step: int) -> Tensor:
        """Increments over a step of length 1, shape (replica, channel)."""
        ...


SDE: TypeAlias = IsotropicSDE | ProductSDE


class _StepUnits:
    """An SDE in units of the step: drift times dt, diffusion times √dt, so that every step has length 1."""

    def __init__(self, sde: SDE, dt: float) -> None:
        self.noise_type, self.sde_type = sde.noise_type, sde.sde_type
        self._sde, self._dt, self._root = sde, dt, dt**0.5
        if isinstance(sde, ProductSDE):  # torchsde looks which of the two there is
            product = sde.g_prod
            self.g_prod = lambda t, y, v: torch.mul(product(t, y, v), self._root)
        else:
            plain = sde.g
            self.g = lambda t, y: torch.mul(plain(t, y), self._root)

    def f(self, t: Any, y: Tensor) -> Tensor:
        return torch.mul(self._sde.f(t, y), self._dt)


class _Time(float):
    """A Python float as torchsde's solvers want it: one of them asks a difference of times for its `sqrt()`."""

    __slots__ = ()

    def __sub__(self, other: float) -> _Time:
        return _Time(float(self) - float(other))

    def sqrt(self) -> float:
        return math.sqrt(self)


class CounterBrownian(BaseBrownian):  # type: ignore[misc]
    """Brownian increments over whole steps from the counter-based generator: no tree, no memory.

    Parameters
    ----------
    seed : int
    streams : Tensor of int64, shape (replica,)
    n_channels : int
        Number of independent components.
    normals : callable, optional
        (seed, streams, step) → the increments (replica, channel), in place of the isotropic noise's. They have no
        integrals.
    """

    __slots__ = ("_channels", "_dtype", "_own", "_seed", "_streams")

    def __init__(
        self,
        seed: int,
        streams: Tensor,
        n_channels: int,
        dtype: torch.dtype = torch.float64,
        normals: Callable[[int, Tensor, int], Tensor] | None = None,
    ) -> None:
        self._seed, self._streams, self._channels, self._dtype = seed, streams, n_channels, dtype
        self._own = normals

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
        """Return W(tb) − W(ta), and with `return_U` the integral ∫ (W(t) − W(ta)) dt too, for tb = ta + 1."""
        step = int(ta)
        if tb is None or float(tb) - float(ta) != 1 or float(ta) != step or return_A:
            raise InvalidParameterError(
                f"Increments exist over single whole steps only, not from {ta} to {tb}.\n"
                "Use torchsde's own BrownianInterval for other grids."
            )
        if self._own is not None and not return_U:
            return self._own(self._seed, self._streams, step)
        if not return_U:
            return self._normals(step, Purpose.LANGEVIN)
        # ∫W dt over a unit step given W: mean W/2, variance 1/12.
        w = self._normals(step, Purpose.LANGEVIN)
        return w, 0.5 * w + self._normals(step, Purpose.LEVY) * 12**-0.5

    def _normals(self, step: int, purpose: Purpose) -> Tensor:
        return torch_noise.normals(self._seed, purpose, self._streams, step, self._channels, dtype=self._dtype)

    def __repr__(self) -> str:
        return f"CounterBrownian(seed={self._seed}, shape={tuple(self.shape)})"

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the increments."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """Device of the increments."""
        return self._streams.device

    @property
    def shape(self) -> torch.Size:
        """(replica, channel)."""
        return torch.Size((self._streams.shape[0], self._channels))

    @property
    def levy_area_approximation(self) -> str:
        """Which integrals of W are provided: the space-time one."""
        return "space-time"


class TorchSDEStepper:
    """Single steps of one of torchsde's solvers.

    Parameters
    ----------
    sde : IsotropicSDE or ProductSDE
    dt : float
        Step [time].
    method : str
        torchsde's name of the method: "euler", "milstein" or "srk"; with noise known by its products "euler" only.

    Raises
    ------
    InvalidParameterError
        For another method.
    """

    def __init__(self, sde: SDE, dt: float, method: str) -> None:
        if method not in METHODS:
            raise InvalidParameterError(
                f"`method` = {method!r}, expected one of {METHODS}: torchsde's solvers for Itô equations with diagonal "
                'noise.\nUse `TorchSDE("euler")`.'
            )
        if isinstance(sde, ProductSDE) and method != "euler":
            raise InvalidParameterError(
                f"`method` = {method!r} with noise that depends on the state, expected 'euler': others need its root "
                "as a matrix, with its derivatives, and here it is known by its products only.\n"
                'Use `TorchSDE("euler")`.'
            )
        self._sde = base_sde.ForwardSDE(_StepUnits(sde, dt))
        self._own = sde if isinstance(sde, ProductSDE) else None
        self._solver = methods.select(method=method, sde_type="ito")

    def __call__(
        self, seed: int, theta: Tensor, streams: Tensor, number: int, buffers: Mapping[str, Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Take step `number` with the noise of `streams`."""
        if self._own is None:
            bm = CounterBrownian(seed, streams, theta.shape[1], theta.dtype)
        else:
            bm = CounterBrownian(seed, streams, self._own.n_channels, theta.dtype, self._own.normals)
        solver = self._solver(sde=self._sde, bm=bm, dt=1.0, adaptive=False, rtol=0.0, atol=0.0, dt_min=0.0, options={})
        start, end = _Time(number), _Time(number + 1)
        extra = solver.init_extra_solver_state(start, theta)
        moved, _ = solver.step(start, end, theta, extra)
        return moved, buffers
