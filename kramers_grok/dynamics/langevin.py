r"""Overdamped Langevin dynamics, :math:`d\theta = -\nabla F\,dt + \sqrt{2T}\,dW`, on many replicas at once."""

from __future__ import annotations

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
from kramers_grok.dynamics import kernels, loop, torch_noise
from kramers_grok.dynamics.kernel_choice import CompiledKernel, langevin_kernel
from kramers_grok.dynamics.minibatch_sde import Minibatches, MinibatchSDE
from kramers_grok.dynamics.process import Record, State, Watch, resolve_device, starting_points
from kramers_grok.dynamics.torchsde_adapter import IsotropicSDE, TorchSDEStepper
from kramers_grok.models.base import BatchModel, Model, SymbolicModel
from kramers_grok.models.data import OnlineTeacher
from kramers_grok.models.layers import learning_model
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

__all__ = ["Fused", "Integrator", "Langevin", "TorchSDE", "model_of"]


@dataclass(frozen=True)
class Fused:
    """Euler–Maruyama of our own: compiled on the CPU for modes, chains, landscapes and small networks, torch elsewhere.

    Attributes
    ----------
    compiled : bool
        False forces the torch version (same paths to rounding).
    n_threads : int
        Threads of the compiled kernel. Paths do not depend on it.
    noise : torch.dtype
        Precision of the normal numbers: float64, or float32 for noise made in single precision from the same random
        words. Each number is then that of float64 to a relative 5e-7, tails included, and is drawn several times
        sooner; the state keeps its own precision.

    Raises
    ------
    InvalidParameterError
        If `noise` is another dtype.

    Examples
    --------
    >>> Fused(noise=torch.float32).noise
    torch.float32
    """

    compiled: bool = True
    n_threads: int = 1
    noise: torch.dtype = torch.float64

    def __post_init__(self) -> None:
        if self.noise not in (torch.float32, torch.float64):
            raise checks.invalid("noise", self.noise, "torch.float32 or torch.float64", "normals are made in these two")


@dataclass(frozen=True)
class TorchSDE:
    """One of torchsde's solvers, driven step by step on the library's own noise.

    Attributes
    ----------
    method : str
        "euler" (the same paths as `Fused`), "milstein" or "srk".
    """

    method: str


Integrator = Fused | TorchSDE


class Langevin:
    r"""Overdamped Langevin dynamics in a landscape at temperature T.

    Parameters
    ----------
    system : Mode, DeepLinearChain, DeepLinearNetwork, MLP, ModuleModel, another Model or Landscape
        What moves. Nonlinear networks move in the mean loss on their data. A mode moves in its arc length
        :math:`x = \sqrt D\,a`.
    temperature : float
        T ≥ 0 [loss]; 0 is gradient descent, or minibatch noise alone.
    dt : float
        Time step. Escape times of the steps differ from the continuous ones by O(dt).
    integrator : Fused or TorchSDE
    device : str or torch.device
        "auto" takes CUDA where there is one.
    dtype : torch.dtype
        float64 unless asked otherwise.
    minibatch : Minibatches, optional
        Noise of minibatches beside the isotropic one, in the diffusion limit: covariance εC(θ) with C that of the
        per-sample gradients. With dt = η a step has the mean and covariance of SGD's. Its strength depends on the
        state, so no Brownian bridge is laid over a step: the process is watched at its steps.

    Raises
    ------
    InvalidParameterError
        If a parameter is out of range, a step is unstable at the origin (dt λ ≥ 2), minibatches are given to a system
        without samples, or with an integrator that needs the root of their covariance as a matrix.

    Examples
    --------
    >>> mode = Mode(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> langevin = Langevin(mode, temperature=0.002, dt=0.1)
    >>> state, record = langevin.advance(langevin.start(4, seed=0), 10)
    >>> state.theta.shape, state.step
    (torch.Size([4, 1]), 10)

    The diffusion limit of SGD with η = 0.1 and batches of 16:

    >>> from kramers_grok.models.data import teacher
    >>> minibatch = Minibatches(teacher(label_noise=0.5), lr_over_batch=0.1 / 16)
    >>> Langevin(mode, temperature=0.0, dt=0.1, minibatch=minibatch).describe()["lr_over_batch"]
    0.00625
    """

    period = 1

    def __init__(
        self,
        system: Mode | DeepLinearChain | Model | Landscape,
        *,
        temperature: float,
        dt: float,
        integrator: Integrator | None = None,
        device: str | torch.device = "auto",
        dtype: torch.dtype = torch.float64,
        minibatch: Minibatches | None = None,
    ) -> None:
        self.temperature = checks.non_negative("temperature", temperature)
        self._dt = checks.positive("dt", dt)
        self.system = system
        self.integrator = integrator or Fused()
        self.device, self.dtype = resolve_device(device), dtype
        self.minibatch = minibatch
        self.model: Model = model_of(system) if minibatch is None else learning_model(system)
        self.sde: IsotropicSDE | MinibatchSDE = IsotropicSDE(self.model.gradient, self.temperature)
        if minibatch is not None:
            like = torch.empty(0, dtype=dtype, device=self.device)
            self.sde = MinibatchSDE(learning_model(system), minibatch, self.temperature, like)
        self._noise = self.integrator.noise if isinstance(self.integrator, Fused) and dtype == torch.float64 else dtype
        self._check_stable()
        self._amplitude = (2 * self.temperature * self._dt) ** 0.5
        self._kernel: CompiledKernel | None = None
        if isinstance(self.integrator, Fused):
            compiled = self.integrator.compiled and self.device.type == "cpu"
            self._kernel = self._compiled() if compiled else None
            self._stepper = None
        else:
            self._stepper = TorchSDEStepper(self.sde, self._dt, self.integrator.method)

    def _compiled(self) -> CompiledKernel | None:
        if not isinstance(self.sde, MinibatchSDE):
            return langevin_kernel(self.system, self.dtype, self._noise)
        if not isinstance(self.sde.minibatch.data, OnlineTeacher) or self.dtype != torch.float64:
            return None
        assert isinstance(self.sde.model, BatchModel)  # samples of the others are finite
        label_noise, variance = self.sde.minibatch.data.label_noise, self.sde.variance / self._dt
        return kernels.minibatch_kernel(self.system, self.sde.model, label_noise, variance)

    def _check_stable(self) -> None:
        if self.minibatch is not None and self._noise != self.dtype:
            raise InvalidParameterError(
                f"`integrator` = Fused(noise={self._noise}) with minibatch noise, expected {self.dtype}: isotropic "
                "noise alone is drawn in another precision than the state's.\nUse `Fused()`."
            )
        decay = getattr(self.system, "weight_decay", 0.0)
        if self._dt * decay >= 2:
            raise InvalidParameterError(
                f"`dt` = {self._dt:g} with weight decay {decay:g}, expected dt · weight_decay < 2: Euler–Maruyama is "
                f"unstable at the origin beyond that.\nUse `dt={0.1 / decay:.3g}` or less."
            )

    @property
    def is_diffusion(self) -> bool:
        """Whether bridges make sense: where the noise does not depend on the state."""
        return self.minibatch is None

    @property
    def dt(self) -> float:
        """Time per step."""
        return self._dt

    def times(self, steps: ArrayLike, replicas: ArrayLike | None = None) -> NDArray[np.float64]:
        """Time before each step, dt · steps [time]; the same for all `replicas`."""
        return np.asarray(self._dt * np.asarray(steps, dtype=np.float64))

    def start(self, n_replicas: int, *, seed: int, point: ArrayLike | None = None) -> State:
        """Return `n_replicas` replicas at `point` (the origin if None)."""
        theta = starting_points(n_replicas, self.model.n_parameters, point, self.dtype, self.device)
        streams = torch.arange(n_replicas, dtype=torch.int64, device=self.device)
        return State(theta, streams, 0, checks.seed(seed))

    def advance(self, state: State, n_steps: int, watch: Watch | None = None) -> tuple[State, Record]:
        """Take `n_steps` steps; replicas that enter the watched region, or return, stay frozen where they did."""
        if watch is not None and watch.bridge and self.minibatch is not None:
            raise InvalidParameterError(
                "`bridge` = True with minibatch noise, expected False: its strength depends on the state, and with it "
                "the chance to cross between two steps.\nUse `bridge=False` and a target well beyond the barrier."
            )
        if self._kernel is not None and self._kernel.takes(watch):
            assert isinstance(self.integrator, Fused)
            return self._kernel.advance(
                state, n_steps, watch, step=self._dt, amplitude=self._amplitude, purpose=Purpose.LANGEVIN,
                n_threads=self.integrator.n_threads,
            )  # fmt: skip
        scale = self._amplitude**2 / 2
        return loop.run(state, n_steps, self._step(state.seed), self, watch, scale)

    def _step(self, seed: int) -> loop.Step:
        stepper = self._stepper

        def step(theta: Tensor, streams: Tensor, number: int, buffers: loop.Buffers) -> tuple[Tensor, loop.Buffers]:
            if stepper is not None:
                return stepper(seed, theta, streams, number, buffers)
            if isinstance(self.sde, MinibatchSDE):
                return self.sde.step(theta, self._dt, self.sde.normals(seed, streams, number)), buffers
            xi = torch_noise.normals(seed, Purpose.LANGEVIN, streams, number, theta.shape[1], dtype=self._noise)
            return theta - self._dt * self.model.gradient(theta) + self._amplitude * xi.to(self.dtype), buffers

        return step

    def _fused(self) -> str:
        """What of the integrator the paths depend on."""
        return "Fused()" if self._noise == self.dtype else f"Fused(noise={self._noise})"

    def order_parameters(self, theta: Tensor) -> Tensor:
        """Order parameters, shape (replica, feature)."""
        return self.model.order_parameters(theta)

    def describe(self) -> Mapping[str, Any]:
        """Scalar coordinates of a result."""
        description: dict[str, Any] = {
            "engine": "langevin",
            "temperature": self.temperature,
            "dt": self._dt,
            "integrator": repr(self.integrator) if isinstance(self.integrator, TorchSDE) else self._fused(),
        }
        for name in ("depth", "singular_value", "weight_decay", "input_variance"):
            if isinstance(self.system, Mode | DeepLinearChain):
                description[name] = getattr(self.system, name)
        if self.minibatch is not None:
            description["lr_over_batch"] = self.minibatch.lr_over_batch
            if isinstance(self.minibatch.data, OnlineTeacher):
                description["label_noise"] = self.minibatch.data.label_noise
        return description


def model_of(system: Any) -> Model:
    """Return what moves as a model: a landscape's own, or a network itself."""
    landscape = system if isinstance(system, Landscape) else getattr(system, "landscape", None)
    if isinstance(landscape, Landscape):
        return SymbolicModel(landscape)
    needed = ("n_parameters", "energy", "gradient", "order_parameters")
    if all(hasattr(system, name) for name in needed):
        return system  # type: ignore[no-any-return]
    raise InvalidParameterError(
        f"`system` is a {type(system).__name__}, expected a Mode, DeepLinearChain, DeepLinearNetwork or Landscape.\n"
        "Use `Landscape(energy, coordinates, order_parameters)` for a symbolic potential of your own."
    )
