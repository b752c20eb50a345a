"""Hyperparameters that differ between replicas, as factors of what all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kramers_grok.dynamics import kernels
from kramers_grok.dynamics.hyperparameters import Hyperparameters, Tables
from kramers_grok.dynamics.process import State

__all__ = ["MEMBER", "PerReplica"]

MEMBER = "member"  # buffer: which entry of the per-replica hyperparameters a replica has


class PerReplica:
    """The factors of a state's replicas, which may be fewer than began, and in another order.

    Parameters
    ----------
    hyper : Hyperparameters
    device : torch.device
    """

    def __init__(self, hyper: Hyperparameters, device: torch.device) -> None:
        self._hyper, self._device = hyper, device

    @cached_property
    def _factors(self) -> Mapping[str, Tensor]:
        """Factors of the per-replica hyperparameters, shape (member,), on the device; exact in double precision."""
        like = torch.empty(0, dtype=torch.float64, device=self._device)
        return {name: torch.as_tensor(f).to(like) for name, f in self._hyper.factors().items()}

    def factor(self, state: State, *names: str) -> Tensor | None:
        """Product of the factors of a state's replicas, shape (replica,); None where there are none."""
        own = [self._factors[name].index_select(0, state.buffers[MEMBER]) for name in names if name in self._factors]
        return own[0] if len(own) == 1 else own[0] * own[1] if own else None

    def varying(self, state: State, n_steps: int, tables: Tables) -> kernels.Varying:
        """Hyperparameters of the steps of one call, for a compiled kernel."""

        def hyper(table: float | NDArray[np.float64], *names: str) -> kernels.Hyper:
            factor = self.factor(state, *names)
            factors = np.ones(state.n_replicas) if factor is None else factor.numpy()
            return kernels.Hyper(np.broadcast_to(table, n_steps), factors)

        return kernels.Varying(
            lr=hyper(tables.lr, "lr"),
            decay=hyper(tables.weight_decay, "weight_decay"),
            amplitude=hyper(tables.amplitude, "lr", "noise_amplitude"),
            batch_size=np.broadcast_to(tables.batch_size, n_steps),
        )
