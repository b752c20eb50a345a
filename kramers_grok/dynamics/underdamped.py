r"""Langevin dynamics with inertia, :math:`dx = v\,dt`, :math:`dv = -\nabla F\,dt-\gamma v\,dt+\sqrt{2\gamma T}\,dW`.

The step is BAOAB: half a kick by the force (B), half a drift (A), an Ornstein–Uhlenbeck step of the velocity (O), half
a drift, half a kick. Of the splittings with one gradient a step it has the most accurate *positions*: their stationary
law is exact in a quadratic landscape for any stable step and any friction. What escapes depends on are positions.
The velocity keeps the share :math:`c = (1-\gamma h/2)/(1+\gamma h/2)` in a step (Grønbech-Jensen and Farago), where the
exact flow of O alone would keep :math:`e^{-\gamma h}`: with that, free diffusion would be too fast by
:math:`\tfrac{\gamma h}2\coth\tfrac{\gamma h}2 \approx 1+(\gamma h)^2/12`, and escape at high friction with it. With c
it is T/γ at any step.

References
----------
B. Leimkuhler and C. Matthews, Rational construction of stochastic numerical methods for molecular sampling, Appl. Math.
Res. Express 2013, 34 (arXiv:1203.5428); N. Grønbech-Jensen and O. Farago, A simple and effective Verlet-type algorithm
for simulating Langevin dynamics, Mol. Phys. 111, 983 (2013) (arXiv:1212.1244).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.landscape import Landscape
from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics import loop, torch_noise
from kramers_grok.dynamics.langevin import model_of
from kramers_grok.dynamics.process import Record, State, Watch, resolve_device, starting_points
from kramers_grok.models.base import Model
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

__all__ = ["AtRest", "EquilibriumVelocities", "UnderdampedLangevin"]

VELOCITY, GRADIENT = "velocity", "gradient"  # buffers


@dataclass(frozen=True)
class EquilibriumVelocities:
    """Start with velocities drawn from N(0, T), each replica's from its own stream."""


@dataclass(frozen=True)
class AtRest:
    """Start with all velocities 0."""


Velocities = EquilibriumVelocities | AtRest


class UnderdampedLangevin:
    r"""Langevin dynamics with inertia: unit mass, friction γ, temperature T.

    .. math:: dx = v\,dt, \qquad dv = -\nabla F\,dt - \gamma v\,dt + \sqrt{2\gamma T}\,dW

    At large friction positions move as :class:`Langevin` does, slower by γ: an overdamped time t takes γt here.
    SGD with momentum is such a motion (see `kramers_grok.theory.momentum.heavy_ball`).

    Parameters
    ----------
    system : Mode, DeepLinearChain, DeepLinearNetwork, MLP, another Model or Landscape
        What moves. A mode moves in its arc length :math:`x = \sqrt D\,a`.
    temperature : float
        T ≥ 0 [loss].
    friction : float
        γ ≥ 0 [1/time]; 0 keeps the energy, up to O(h²).
    dt : float
        Time step h.
    velocities : EquilibriumVelocities or AtRest
        What replicas start with; equilibrium if not given.
    device : str or torch.device
        "auto" takes CUDA where there is one.
    dtype : torch.dtype
        float64 unless asked otherwise.

    Raises
    ------
    InvalidParameterError
        If a parameter is out of range, a step is unstable at the origin (h²λ ≥ 4), or a bridge is asked for.

    Notes
    -----
    Positions are in `State.theta`, velocities in the buffer "velocity"; the buffer "gradient" keeps the gradient at
    `theta`, which the next step needs. Positions are smooth in time: there is no Brownian bridge between two of them.
    Seen at its steps only, a crossing counts at the end of its step, half a step late on average.

    Examples
    --------
    >>> mode = Mode(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> process = UnderdampedLangevin(mode, temperature=0.002, friction=0.5, dt=0.2)
    >>> state, record = process.advance(process.start(4, seed=0), 10)
    >>> state.theta.shape, state.buffers["velocity"].shape
    (torch.Size([4, 1]), torch.Size([4, 1]))
    """

    is_diffusion = False
    period = 1

    def __init__(
        self,
        system: Mode | DeepLinearChain | Model | Landscape,
        *,
        temperature: float,
        friction: float,
        dt: float,
        velocities: Velocities | None = None,
        device: str | torch.device = "auto",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.temperature = checks.non_negative("temperature", temperature)
        self.friction = checks.non_negative("friction", friction, "friction removes energy")
        self._dt = checks.positive("dt", dt)
        self.system = system
        self.velocities = velocities or EquilibriumVelocities()
        self.device, self.dtype = resolve_device(device), dtype
        self.model: Model = model_of(system)
        decay = getattr(system, "weight_decay", 0.0)
        if self._dt**2 * decay >= 4:
            raise InvalidParameterError(
                f"`dt` = {self._dt:g} with weight decay {decay:g}, expected dt² · weight_decay < 4: beyond that the "
                f"oscillation about the origin is unstable.\nUse `dt={0.2 / math.sqrt(decay):.3g}` or less."
            )
        damping = 0.5 * self.friction * self._dt
        self._kept = (1 - damping) / (1 + damping)
        # 1 − c² without the cancellation at small friction
        self._amplitude = 2 * math.sqrt(self.temperature * damping) / (1 + damping)

    @property
    def dt(self) -> float:
        """Time per step."""
        return self._dt

    def times(self, steps: ArrayLike, replicas: ArrayLike | None = None) -> NDArray[np.float64]:
        """Time before each step, dt · steps [time]; the same for all `replicas`."""
        return np.asarray(self._dt * np.asarray(steps, dtype=np.float64))

    def start(self, n_replicas: int, *, seed: int, point: ArrayLike | None = None) -> State:
        """Return `n_replicas` replicas at `point` (the origin if None), with velocities as asked for."""
        theta = starting_points(n_replicas, self.model.n_parameters, point, self.dtype, self.device)
        streams = torch.arange(n_replicas, dtype=torch.int64, device=self.device)
        key = checks.seed(seed)
        velocity = torch.zeros_like(theta)
        if isinstance(self.velocities, EquilibriumVelocities):
            xi = torch_noise.normals(key, Purpose.VELOCITY, streams, 0, theta.shape[1], dtype=self.dtype)
            velocity = self.temperature**0.5 * xi
        buffers = {VELOCITY: velocity, GRADIENT: self.model.gradient(theta)}
        return State(theta, streams, 0, key, buffers)

    def advance(self, state: State, n_steps: int, watch: Watch | None = None) -> tuple[State, Record]:
        """Take `n_steps` steps; replicas that enter the watched region, or return, stay frozen where they did."""
        if watch is not None and watch.bridge:
            raise InvalidParameterError(
                "`bridge` = True, expected False: positions are smooth in time, and between two of them there is no "
                "Brownian path.\nUse `bridge=False`, and a smaller `dt` where half a step matters."
            )
        missing = [name for name in (VELOCITY, GRADIENT) if name not in state.buffers]
        if missing:
            raise InvalidParameterError(
                f"The state lacks `{missing[0]}`: it comes from a process without inertia.\n"
                "Use `process.start(n_replicas, seed=…, point=state.theta)`."
            )
        return loop.run(state, n_steps, self._step(state.seed), self, watch, 0.0)

    def _step(self, seed: int) -> loop.Step:
        half = 0.5 * self._dt
        kept, amplitude = self._kept, self._amplitude

        def step(theta: Tensor, streams: Tensor, number: int, buffers: loop.Buffers) -> tuple[Tensor, loop.Buffers]:
            xi = torch_noise.normals(seed, Purpose.UNDERDAMPED, streams, number, theta.shape[1], dtype=self.dtype)
            velocity = buffers[VELOCITY] - half * buffers[GRADIENT]
            theta = theta + half * velocity
            velocity = kept * velocity + amplitude * xi
            theta = theta + half * velocity
            gradient = self.model.gradient(theta)
            return theta, {**buffers, VELOCITY: velocity - half * gradient, GRADIENT: gradient}

        return step

    def order_parameters(self, theta: Tensor) -> Tensor:
        """Order parameters, shape (replica, feature)."""
        return self.model.order_parameters(theta)

    def describe(self) -> Mapping[str, Any]:
        """Scalar coordinates of a result."""
        description: dict[str, Any] = {
            "engine": "underdamped",
            "temperature": self.temperature,
            "friction": self.friction,
            "dt": self._dt,
            "integrator": "BAOAB",
        }
        for name in ("depth", "singular_value", "weight_decay", "input_variance"):
            if isinstance(self.system, Mode | DeepLinearChain):
                description[name] = getattr(self.system, name)
        return description
