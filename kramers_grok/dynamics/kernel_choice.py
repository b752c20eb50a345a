"""Which compiled kernel a process runs on, if any."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from kramers_grok.core.landscape import Landscape
from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics import kernels
from kramers_grok.dynamics.kernels import Varying
from kramers_grok.dynamics.mlp_kernels import langevin_mlp_kernel, sgd_mlp_kernel
from kramers_grok.dynamics.network_kernels import NetworkKernel, population_plan, sgd_plan
from kramers_grok.dynamics.process import Record, State, Watch
from kramers_grok.dynamics.sampling import Sampler
from kramers_grok.models.base import BatchModel, Model, SampleModel
from kramers_grok.models.data import FiniteData, OnlineTeacher, Population
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.mlp import MLP

__all__ = ["CompiledKernel", "langevin_kernel", "sgd_kernel"]


class CompiledKernel(Protocol):
    """What a process needs of a kernel."""

    def takes(self, watch: Watch | None, *, varying: bool = False) -> bool:
        """Whether it can do this."""
        ...

    def advance(
        self,
        state: State,
        n_steps: int,
        watch: Watch | None,
        *,
        step: float,
        amplitude: float,
        purpose: Purpose,
        n_threads: int,
    ) -> tuple[State, Record]:
        """Take `n_steps` steps of θ ← θ − step·∇F + amplitude·ξ; see `Process.advance`."""
        ...

    def advance_varying(
        self, state: State, n_steps: int, watch: Watch | None, *, varying: Varying, purpose: Purpose, n_threads: int
    ) -> tuple[State, Record]:
        """Take `n_steps` steps of θ ← θ − lr·(∇L + decay·θ) + amplitude·ξ, with numbers of every step and replica."""
        ...


def langevin_kernel(
    system: kernels.System | Model | Landscape, dtype: torch.dtype, noise: torch.dtype
) -> CompiledKernel | None:
    """Return the kernel of Langevin dynamics in states of a dtype, on noise made in another; None where there is none.

    A landscape's own in float64; where it has none, or in float32, that of matrix networks.
    """
    if isinstance(system, MLP):
        return langevin_mlp_kernel(system, dtype, noise)
    single = noise == torch.float32
    made = kernels.langevin_kernel(system, single=single) if dtype == torch.float64 else None
    if made is None and isinstance(system, DeepLinearNetwork) and dtype in (torch.float32, torch.float64):
        return NetworkKernel(system, population_plan(system), torch.float32 if dtype == torch.float32 else noise)
    return made


def sgd_kernel(
    system: kernels.System | BatchModel | SampleModel,
    model: Any,
    data: OnlineTeacher | Population | FiniteData,
    batch_size: int,
    sampler: Sampler,
    dtype: torch.dtype,
) -> CompiledKernel | None:
    """Return the kernel of SGD on states of a dtype, or None where there is none; `model` is `system`'s torch model."""
    if isinstance(system, MLP):
        return sgd_mlp_kernel(system, data, batch_size, sampler, dtype)
    made = kernels.sgd_kernel(system, model, data, batch_size, sampler) if dtype == torch.float64 else None
    if made is None and isinstance(system, DeepLinearNetwork) and dtype in (torch.float32, torch.float64):
        plan = sgd_plan(system, data, batch_size, sampler)
        return None if plan is None else NetworkKernel(system, plan, dtype)
    return made
