r"""Discrete SGD on many replicas at once.

One step is :math:`\theta \leftarrow \theta - \eta\,(\nabla \hat L_B(\theta) + \lambda\theta + g\,\xi/\sqrt B)` with
:math:`\hat L_B` the batch's mean loss and :math:`\xi` standard normal: the batch mean of B samples whose gradients each
carry independent Gaussian noise of variance :math:`g^2`. Time is η · step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import PerSample
from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics import kernels, loop, torch_noise
from kramers_grok.dynamics.process import Record, State, Watch, resolve_device, starting_points
from kramers_grok.dynamics.sampling import FullBatch, Sampler, ShuffledEpochs, WithReplacement, batch_source
from kramers_grok.models.base import BatchModel
from kramers_grok.models.data import FiniteData, OnlineTeacher, Population
from kramers_grok.models.deep_linear import ChainModel, DeepLinearNetwork
from kramers_grok.models.mode import ModeModel
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

__all__ = ["SGD"]


class SGD:
    r"""Discrete SGD with weight decay, minibatches and optional per-sample Gaussian noise.

    Parameters
    ----------
    model : Mode, DeepLinearChain or DeepLinearNetwork
        The network; its weight decay is part of the loss. A mode moves in its arc length :math:`x = \sqrt D\,a` with
        the batch loss of the balanced chain; noise on its gradient acts on x.
    data : OnlineTeacher, Population or FiniteData
        Where batches come from.
    lr : float
        Learning rate η [time per step].
    batch_size : int, optional
        Samples per step B. None with finite data is the full batch.
    sampler : Sampler
        How batches are cut from finite data; independent draws with replacement if not given.
    noise : PerSample, optional
        Isotropic Gaussian noise on every sample's gradient: T = η g²/(2B).
    fused : bool
        Use a compiled kernel where there is one: one input and one output or population data, not too many weights, on
        the CPU in float64 (same paths as torch to rounding).
    n_threads : int
        Threads of the compiled kernel. Paths do not depend on it.
    device : str or torch.device
        "auto" takes CUDA where there is one.
    dtype : torch.dtype
        float64 unless asked otherwise.

    Raises
    ------
    InvalidParameterError
        If a parameter is out of range, the data do not fit the model, or a step is unstable at the origin (η λ ≥ 2).

    Examples
    --------
    >>> from kramers_grok.core.noise import per_sample
    >>> from kramers_grok.models.data import teacher
    >>> chain = DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> sgd = SGD(chain, teacher(label_noise=0.1), lr=0.1, batch_size=8, noise=per_sample(variance=0.3))
    >>> round(sgd.temperature, 6)
    0.001875
    """

    is_diffusion = False

    def __init__(
        self,
        model: Mode | DeepLinearChain | DeepLinearNetwork,
        data: OnlineTeacher | Population | FiniteData,
        *,
        lr: float,
        batch_size: int | None = None,
        sampler: Sampler | None = None,
        noise: PerSample | None = None,
        fused: bool = True,
        n_threads: int = 1,
        device: str | torch.device = "auto",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.lr = checks.positive("lr", lr)
        self.system = model
        self.model: BatchModel = _batch_model(model)
        self.weight_decay = model.weight_decay
        self._check_stable()
        self.data = data
        self.batch_size, self.sampler = _batching(data, batch_size, sampler)
        self.noise = noise
        self.device, self.dtype = resolve_device(device), dtype
        self.n_threads = checks.positive_int("n_threads", n_threads)
        like = torch.empty(0, dtype=dtype, device=self.device)
        self._source = batch_source(self.model, data, self.batch_size, self.sampler, like)
        self.noise_variance = noise.variance_for(self.lr, self.batch_size) if noise else 0.0
        self._amplitude = self.lr * (self.noise_variance / self.batch_size) ** 0.5
        compiled = fused and self.device.type == "cpu" and dtype == torch.float64
        self._kernel: kernels.Kernel | None = None
        if compiled:
            self._kernel = kernels.sgd_kernel(model, self.model, data, self.batch_size, self.sampler)

    def _check_stable(self) -> None:
        if self.lr * self.weight_decay >= 2:
            raise InvalidParameterError(
                f"`lr` = {self.lr:g} with weight decay {self.weight_decay:g}, expected lr · weight_decay < 2: "
                "at the origin each step multiplies the weights by 1 − lr · weight_decay, which grows beyond that.\n"
                f"Use `lr={0.1 / self.weight_decay:.3g}` or less."
            )

    @property
    def dt(self) -> float:
        """Time per step: the learning rate."""
        return self.lr

    @property
    def period(self) -> int:
        """Steps of an epoch under shuffled epochs, otherwise 1."""
        if isinstance(self.data, FiniteData) and isinstance(self.sampler, ShuffledEpochs):
            return self.data.n_samples // self.batch_size
        return 1

    @property
    def temperature(self) -> float:
        """Temperature of the per-sample noise, η g²/(2B); the minibatches' own noise is not in it."""
        return self.lr * self.noise_variance / (2 * self.batch_size)

    def start(self, n_replicas: int, *, seed: int, point: ArrayLike | None = None) -> State:
        """Return `n_replicas` replicas at `point` (all weights 0 if None)."""
        theta = starting_points(n_replicas, self.model.n_parameters, point, self.dtype, self.device)
        streams = torch.arange(n_replicas, dtype=torch.int64, device=self.device)
        return State(theta, streams, 0, checks.seed(seed), self._source.buffers(n_replicas))

    def advance(self, state: State, n_steps: int, watch: Watch | None = None) -> tuple[State, Record]:
        """Take `n_steps` steps; replicas that enter the watched region, or return, stay frozen where they did."""
        if self._kernel is not None and self._kernel.takes(watch):
            return self._kernel.advance(
                state, n_steps, watch, step=self.lr, amplitude=self._amplitude, purpose=Purpose.INJECTED,
                n_threads=self.n_threads,
            )  # fmt: skip
        return loop.run(state, n_steps, self._step(state.seed), self, watch, self._amplitude**2 / 2)

    def _step(self, seed: int) -> loop.Step:
        def step(theta: Tensor, streams: Tensor, number: int, buffers: loop.Buffers) -> tuple[Tensor, loop.Buffers]:
            xx, yx, buffers = self._source.moments(seed, streams, number, buffers)
            moved = theta - self.lr * self.model.batch_gradient(theta, xx, yx)
            if self._amplitude:
                shape = theta.shape[1]
                xi = torch_noise.normals(seed, Purpose.INJECTED, streams, number, shape, dtype=self.dtype)
                moved = moved + self._amplitude * xi
            return moved, buffers

        return step

    def order_parameters(self, theta: Tensor) -> Tensor:
        """Order parameters, shape (replica, feature)."""
        return self.model.order_parameters(theta)

    def on_torch(self) -> SGD:
        """Return the same process without the compiled kernel."""
        twin = object.__new__(SGD)
        twin.__dict__.update(self.__dict__)
        twin._kernel = None
        return twin

    def describe(self) -> Mapping[str, Any]:
        """Scalar coordinates of a result."""
        description: dict[str, Any] = {
            "engine": "sgd",
            "lr": self.lr,
            "batch_size": self.batch_size,
            "dt": self.lr,
            "weight_decay": self.weight_decay,
            "temperature": self.temperature,
            "noise_std": self.noise_variance**0.5,
            "sampler": type(self.sampler).__name__ if isinstance(self.data, FiniteData) else type(self.data).__name__,
        }
        if isinstance(self.data, OnlineTeacher):
            description["label_noise"] = self.data.label_noise
        if isinstance(self.system, Mode | DeepLinearChain):
            for name in ("depth", "singular_value", "input_variance"):
                description[name] = getattr(self.system, name)
        return description


def _batch_model(system: Mode | DeepLinearChain | DeepLinearNetwork) -> BatchModel:
    if isinstance(system, Mode):
        return ModeModel(system)
    return ChainModel(system) if isinstance(system, DeepLinearChain) else system


def _batching(
    data: OnlineTeacher | Population | FiniteData, batch_size: int | None, sampler: Sampler | None
) -> tuple[int, Sampler]:
    if isinstance(data, FiniteData):
        if batch_size is None and not isinstance(sampler, FullBatch | None):
            raise InvalidParameterError(
                f"`batch_size` is missing: `sampler` = {sampler} cuts batches, expected to know of how many samples.\n"
                "Use `batch_size=8`, or leave both out for the full batch."
            )
        if batch_size is None or isinstance(sampler, FullBatch):
            return data.n_samples, FullBatch()
        return checks.positive_int("batch_size", batch_size), sampler or WithReplacement()
    if sampler is not None:
        raise InvalidParameterError(
            f"`sampler` = {sampler} is given with {type(data).__name__} data, expected a finite data set: only that "
            "can be cut in several ways.\nLeave `sampler` out, or use `finite(x, y)`."
        )
    if batch_size is None:
        if isinstance(data, OnlineTeacher):
            raise InvalidParameterError(
                "`batch_size` is missing: an online teacher's samples never end.\n"
                "Use `batch_size=8`, or `population()` for the exact gradient."
            )
        return 1, WithReplacement()
    return checks.positive_int("batch_size", batch_size), WithReplacement()
