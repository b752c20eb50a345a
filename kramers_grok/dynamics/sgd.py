r"""Discrete training on many replicas at once.

One step of plain SGD is
:math:`\theta \leftarrow \theta - \eta\,(\nabla \hat L_B(\theta) + \lambda\theta + g\,\xi/\sqrt B)` with
:math:`\hat L_B` the batch's mean loss and :math:`\xi` standard normal: the batch mean of B samples whose gradients
each carry independent Gaussian noise of variance :math:`g^2`. Time is the sum of η over the steps. Other optimizers
receive the same noisy gradient. Learning rate, batch size and weight decay may follow schedules; learning rate, weight
decay and noise may differ between replicas, so that one ensemble holds a whole sweep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import ActivationNoise, PerSample
from kramers_grok.core.rng import Purpose
from kramers_grok.core.schedules import Schedule
from kramers_grok.dynamics import loop
from kramers_grok.dynamics.activation import batches_and_gradient, sampler_for
from kramers_grok.dynamics.batching import Data, batching
from kramers_grok.dynamics.hyperparameters import Clock, Hyper, Hyperparameter, Hyperparameters, Tables
from kramers_grok.dynamics.kernel_choice import CompiledKernel, sgd_kernel
from kramers_grok.dynamics.optimizers import GradientDescent, Optimizer
from kramers_grok.dynamics.per_replica import MEMBER, PerReplica
from kramers_grok.dynamics.process import Record, State, Watch, resolve_device, starting_points
from kramers_grok.dynamics.sampling import BySamples, Sampler, ShuffledEpochs
from kramers_grok.dynamics.update import MEMORY, Rule, Series, Steps, Update, compiled
from kramers_grok.models.base import BatchModel, SampleModel
from kramers_grok.models.data import FiniteData, OnlineTeacher
from kramers_grok.models.layers import learning_model
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

__all__ = ["SGD"]

# Arguments that a compiled kernel, or the torch rule, is made of: twins that differ elsewhere share it.
_OF_KERNELS = {"model", "data", "batch_size", "sampler", "activation_noise", "fused", "device", "dtype"}
_OF_RULES = {"model", "optimizer", "activation_noise", "device", "dtype", "compile"}


class SGD:
    r"""Discrete training with weight decay, minibatches and optional per-sample Gaussian noise.

    Parameters
    ----------
    model : Mode, DeepLinearChain, DeepLinearNetwork, MLP or another BatchModel or SampleModel
        The network. A nonlinear one learns from samples: an online teacher's are then drawn one by one. A mode
        moves in its arc length :math:`x = \sqrt D\,a` with the batch loss of the balanced chain; noise on its gradient
        acts on x.
    data : OnlineTeacher, Population or FiniteData
        Where batches come from.
    lr : float, array_like of shape (replica,) or Schedule
        Learning rate η [time per step].
    batch_size : int or Schedule, optional
        Samples per step B; a schedule's values are rounded. None with finite data is the full batch.
    weight_decay : float, array_like of shape (replica,) or Schedule, optional
        λ ≥ 0; the model's if not given.
    optimizer : Optimizer
        What becomes of the gradient: `GradientDescent`, `Momentum`, `Adam`, `AdamW` or one of your own.
    sampler : Sampler
        How batches are cut from finite data; independent draws with replacement if not given.
    noise : PerSample, optional
        Isotropic Gaussian noise on every sample's gradient: T = η g²/(2B) under plain gradient descent. Its variance
        stays fixed under schedules, and may differ between replicas.
    activation_noise : ActivationNoise, optional
        Gaussian noise on every sample's hidden activations, of a DeepLinearNetwork or DeepLinearChain. Batches are then
        drawn as samples, and no kernel is used. It changes the mean gradient too: that of the loss plus
        ½ s_h² Σ_l ‖W_D … W_{l+1}‖².
    fused : bool
        Use a compiled kernel where there is one: plain gradient descent on the CPU, of a DeepLinearNetwork or MLP on
        any data but shuffled epochs of several inputs or outputs, of modes and chains in float64 but for online data by
        samples (same paths as torch to rounding).
    compile : bool
        Compile the torch update by `torch.compile`, on CUDA into a CUDA graph: worth its start-up for long runs of
        larger networks. Same paths to rounding.
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
    >>> sweep = sgd.replace(lr=[0.1, 0.2], weight_decay=0.3)
    >>> sweep.times(10).tolist()
    [1.0, 2.0]
    """

    is_diffusion = False

    def __init__(
        self,
        model: Mode | DeepLinearChain | BatchModel | SampleModel,
        data: Data,
        *,
        lr: Hyper,
        batch_size: int | Schedule | None = None,
        weight_decay: Hyper | None = None,
        optimizer: Optimizer | None = None,
        sampler: Sampler | None = None,
        noise: PerSample | None = None,
        activation_noise: ActivationNoise | None = None,
        fused: bool = True,
        compile: bool = False,
        n_threads: int = 1,
        device: str | torch.device = "auto",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self._given = {
            "model": model, "data": data, "lr": lr, "batch_size": batch_size, "weight_decay": weight_decay,
            "optimizer": optimizer, "sampler": sampler, "noise": noise, "activation_noise": activation_noise,
            "fused": fused, "compile": compile, "n_threads": n_threads, "device": device, "dtype": dtype,
        }  # fmt: skip
        self.system, self.data, self.noise, self.activation_noise = model, data, noise, activation_noise
        self.model: BatchModel | SampleModel = learning_model(model)
        self.optimizer = optimizer or GradientDescent()
        self.n_threads = checks.positive_int("n_threads", n_threads)
        self.device, self.dtype = resolve_device(device), dtype
        batch, self.sampler = batching(data, batch_size, sampler_for(self.model, data, sampler, activation_noise))
        decay = _own_weight_decay(model) if weight_decay is None else weight_decay
        self._hyper = Hyperparameters(
            Hyperparameter.read("lr", lr), Hyperparameter.read("weight_decay", decay, zero=True), batch, noise
        )
        self._hyper.tables(0, 1)  # raises where the first step is unstable
        self._check_noise()
        self._members = self._hyper.n_replicas
        self._own = PerReplica(self._hyper, self.device)
        self._clock = Clock(self._hyper.lr)
        like = torch.empty(0, dtype=dtype, device=self.device)
        self._batches, self._gradient = batches_and_gradient(
            self.model, data, self._hyper.size, self.sampler, like, activation_noise
        )
        self._fused = fused and activation_noise is None and self.device.type == "cpu"
        self._compile = compile
        # Made when first needed, and shared by twins that need the same: compiling takes longer than a short run.
        self._kernels: list[CompiledKernel | None] = []
        self._rules: list[Rule] = []

    def _check_noise(self) -> None:
        heated = self.noise is not None and self.noise.temperature is not None
        if heated and not isinstance(self.optimizer, GradientDescent):
            raise InvalidParameterError(
                f"`noise` is given by its temperature, `optimizer` = {self.optimizer}, expected GradientDescent: only "
                "there is T = lr · variance / (2 · batch_size).\nUse `per_sample(variance=…)`."
            )

    # ---------------------------------------------------------------- hyperparameters

    @property
    def lr(self) -> Any:
        """Learning rate as given: a number, an array of shape (replica,) or a schedule."""
        return self._hyper.lr.given

    @property
    def weight_decay(self) -> Any:
        """Weight decay: a number, an array of shape (replica,) or a schedule."""
        return self._hyper.weight_decay.given

    @property
    def batch_size(self) -> Any:
        """Batch size: a number or a schedule."""
        given = self._hyper.batch_size.given
        return int(given) if isinstance(given, float) else given

    @property
    def noise_variance(self) -> Any:
        """Per-sample variance g² of the injected noise: a number, or an array of shape (replica,)."""
        return self._hyper.variance

    @property
    def dt(self) -> float:
        """Time per step: the learning rate.

        Raises
        ------
        InvalidParameterError
            If the learning rate changes or differs between replicas; see `times`.
        """
        if isinstance(self.lr, float):
            return self.lr
        how = "follows a schedule" if self._hyper.lr.scheduled else "differs between replicas"
        raise InvalidParameterError(
            f"`lr` {how}, expected one number: there is no one time per step.\n"
            "Use `process.times(steps)`, or `process.replace(lr=0.1)` where one step must be like another."
        )

    def times(self, steps: ArrayLike, replicas: ArrayLike | None = None) -> NDArray[np.float64]:
        """Time before each step, the sum of the learning rates of the steps taken until then [time].

        Parameters
        ----------
        steps : array_like of int
            Numbers of steps taken since the start.
        replicas : array_like of int, optional
            Number of the replica that each entry of `steps` belongs to; every replica at every step if not given.

        Returns
        -------
        array
            Of the shape of `steps`; (replica, …) where the learning rate differs between replicas and `replicas`
            is not given.
        """
        return self._clock.times(steps, replicas)

    @property
    def period(self) -> int:
        """Steps of an epoch under shuffled epochs, otherwise 1.

        Raises
        ------
        InvalidParameterError
            Under a schedule: the chain's law never repeats.
        """
        if not self._hyper.steady:
            raise InvalidParameterError(
                "A schedule changes the hyperparameters from step to step, expected the same law at every step: states "
                "of different steps cannot share a clock.\nUse `process.replace(lr=…, batch_size=…, weight_decay=…)` "
                "with numbers."
            )
        if isinstance(self.data, FiniteData) and isinstance(self.sampler, ShuffledEpochs):
            return int(self.data.n_samples // self.batch_size)
        return 1

    @property
    def temperature(self) -> Any:
        """Temperature of the per-sample noise, η g²/(2B): a number, or an array of shape (replica,).

        The minibatches' own noise is not in it.

        Raises
        ------
        InvalidParameterError
            Under a scheduled learning rate or batch size, or with noise in another optimizer than gradient descent.
        """
        if self.noise is None:
            return 0.0
        if np.any(self.noise_variance) and not self._plain:
            raise InvalidParameterError(
                f"`optimizer` = {self.optimizer}, expected GradientDescent: η g²/(2B) is its temperature alone.\n"
                "Use `process.noise_variance`."
            )
        return self._hyper.temperature

    def replace(self, **changes: Any) -> SGD:
        """Return the same process with some of its arguments changed.

        Parameters
        ----------
        **changes
            Arguments of `SGD` by name.

        Returns
        -------
        SGD
        """
        twin = SGD(**(self._given | changes))
        if not changes.keys() & _OF_KERNELS:
            twin._kernels = self._kernels
        if not changes.keys() & _OF_RULES:
            twin._rules = self._rules
        return twin

    # ---------------------------------------------------------------- steps

    def start(self, n_replicas: int, *, seed: int, point: ArrayLike | None = None) -> State:
        """Return `n_replicas` replicas at `point` (all weights 0 if None).

        Raises
        ------
        InvalidParameterError
            If hyperparameters are given for another number of replicas.
        """
        theta = starting_points(n_replicas, self.model.n_parameters, point, self.dtype, self.device)
        streams = torch.arange(n_replicas, dtype=torch.int64, device=self.device)
        return State(theta, streams, 0, checks.seed(seed), self._fresh(theta))

    def take_over(self, state: State) -> State:
        """Return the state of another process as one of this process.

        What this process remembers and the other did not is begun anew; per-replica hyperparameters are dealt out in
        the order of the rows.

        Parameters
        ----------
        state : State
            Of a process with the same parameters.

        Returns
        -------
        State

        Examples
        --------
        >>> from kramers_grok.models.data import population
        >>> sgd = SGD(DeepLinearChain(3, 1.0, 0.25), population(), lr=0.1)
        >>> several = sgd.replace(weight_decay=[0.1, 0.2])
        >>> several.take_over(sgd.start(2, seed=0)).buffers["member"].tolist()
        [0, 1]
        """
        fresh = self._fresh(state.theta)
        kept = {n: b for n, b in state.buffers.items() if n in fresh and b.shape == fresh[n].shape and n != MEMBER}
        return replace(state, buffers=fresh | kept)

    def _fresh(self, theta: Tensor) -> dict[str, Tensor]:
        """Buffers of replicas that begin."""
        n_replicas = theta.shape[0]
        buffers = dict(self._batches.of(self._hyper.size).buffers(n_replicas))
        buffers |= {MEMORY + name: memory for name, memory in self.optimizer.init(theta).items()}
        if self._members is None:
            return buffers
        if n_replicas != self._members:
            raise InvalidParameterError(
                f"`n_replicas` = {n_replicas}, expected {self._members}: hyperparameters are given for so many "
                f"replicas.\nUse `n_replicas={self._members}`, or one number for all."
            )
        return buffers | {MEMBER: torch.arange(n_replicas, dtype=torch.int64, device=theta.device)}

    def advance(self, state: State, n_steps: int, watch: Watch | None = None) -> tuple[State, Record]:
        """Take `n_steps` steps; replicas that enter the watched region, or return, stay frozen where they did."""
        self._check_buffers(state)
        tables = self._hyper.tables(state.step, n_steps)
        if watch is not None and watch.bridge and not self._plain:
            raise InvalidParameterError(
                f"`bridge` = True with `optimizer` = {self.optimizer}, expected GradientDescent: between two steps of "
                "others there is no Brownian path.\nUse `bridge=False`."
            )
        if self._plain and self._kernel is not None:
            constant = self._members is None and self._hyper.steady
            if constant and self.weight_decay == _own_weight_decay(self.system):
                if self._kernel.takes(watch):
                    return self._kernel.advance(
                        state, n_steps, watch, step=self.dt, amplitude=float(tables.amplitude),
                        purpose=Purpose.INJECTED, n_threads=self.n_threads,
                    )  # fmt: skip
            elif self._kernel.takes(watch, varying=True):
                return self._kernel.advance_varying(
                    state, n_steps, watch, varying=self._own.varying(state, n_steps, tables), purpose=Purpose.INJECTED,
                    n_threads=self.n_threads,
                )  # fmt: skip
        steps = self._torch_steps(state, tables)
        return loop.run(state, n_steps, steps, self, watch, steps.scale)

    def _check_buffers(self, state: State) -> None:
        needed = {MEMORY + name for name in self.optimizer.init(state.theta.narrow(0, 0, 0))}
        if self._members is not None:
            needed.add(MEMBER)
        missing = sorted(needed - set(state.buffers))
        if missing:
            raise InvalidParameterError(
                f"The state lacks `{missing[0]}`: it comes from a process with another optimizer, or with one number "
                "for all replicas.\nUse `process.take_over(state)`."
            )

    @property
    def _plain(self) -> bool:
        """Whether injected noise is a plain displacement, and kernels know the rule."""
        return isinstance(self.optimizer, GradientDescent)

    @property
    def _kernel(self) -> CompiledKernel | None:
        """The compiled kernel, where there is one."""
        if not self._fused:
            return None
        if not self._kernels:
            made = sgd_kernel(self.system, self.model, self.data, self._hyper.size, self.sampler, self.dtype)
            self._kernels.append(made)
        return self._kernels[0]

    @property
    def _rule(self) -> Rule:
        """The update of the torch loop."""
        if not self._rules:
            update = Update(self._gradient, self.optimizer)
            self._rules.append(compiled(update, self.device) if self._compile else update)
        return self._rules[0]

    def _torch_steps(self, state: State, tables: Tables) -> Steps:
        """Return the torch steps of one call."""

        def series(table: float | NDArray[np.float64], *names: str) -> Series:
            return Series(table, self._own.factor(state, *names), state.theta, as_tensors=self._compile)

        return Steps(
            rule=self._rule,
            batches=self._batches,
            seed=state.seed,
            first=state.step,
            sizes=tables.batch_size,
            lr=series(tables.lr, "lr"),
            weight_decay=series(tables.weight_decay, "weight_decay"),
            displacement=series(tables.amplitude, "lr", "noise_amplitude"),
            deviation=None if self._plain else series(tables.noise, "noise_amplitude"),
            noisy=bool(np.any(self.noise_variance)),
        )

    # ---------------------------------------------------------------- results

    def order_parameters(self, theta: Tensor) -> Tensor:
        """Order parameters, shape (replica, feature)."""
        return self.model.order_parameters(theta)

    def on_torch(self) -> SGD:
        """Return the same process without the compiled kernel."""
        twin = object.__new__(SGD)
        twin.__dict__.update(self.__dict__)
        twin._fused, twin._given = False, self._given | {"fused": False}
        return twin

    def describe(self) -> Mapping[str, Any]:
        """Coordinates of a result: numbers, arrays of shape (replica,) where replicas differ, schedules as text."""
        own = isinstance(self.data, FiniteData) or isinstance(self.sampler, BySamples)
        description: dict[str, Any] = {
            "engine": "sgd",
            **self._hyper.describe(),
            "optimizer": repr(self.optimizer),
            "sampler": type(self.sampler if own else self.data).__name__,
        }
        if not self._plain and np.any(self.noise_variance):
            description.pop("temperature", None)
        if isinstance(self.data, OnlineTeacher):
            description["label_noise"] = self.data.label_noise
        if self.activation_noise is not None:
            description["activation_noise"] = self.activation_noise.std
        if isinstance(self.system, Mode | DeepLinearChain):
            for name in ("depth", "singular_value", "input_variance"):
                description[name] = getattr(self.system, name)
        return description


def _own_weight_decay(system: Mode | DeepLinearChain | BatchModel | SampleModel) -> float:
    """The model's weight decay."""
    return float(system.weight_decay)  # type: ignore[union-attr]
