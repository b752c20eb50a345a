"""Compile the usual kernels ahead of time, so that the first run does not wait for them (some 30 s)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region
from kramers_grok.core.schedules import Linear
from kramers_grok.dynamics.langevin import Fused, Langevin, TorchSDE
from kramers_grok.dynamics.process import Process, Watch
from kramers_grok.dynamics.sampling import WithReplacement
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import finite, teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain

__all__ = ["warm_up"]


def warm_up(progress: Callable[[str], None] | None = None) -> None:
    """Take one step with each kernel of three layers: the mode, the chain, the smallest network; they stay on disk.

    Of the kernels with hyperparameters that vary: the chain's on a teacher.

    Other depths, widths and landscapes are compiled when first used. CPU only.

    Parameters
    ----------
    progress : callable, optional
        Called with the name of what is compiled next.
    """
    chain = DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
    network = DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=0.25)
    x = np.array([1.0, -1.0])
    noise = per_sample(variance=0.1)
    sampler = WithReplacement()
    processes: dict[str, Callable[[], Process]] = {
        "Langevin dynamics of the mode": lambda: Langevin(chain.mode, temperature=1e-3, dt=0.1, device="cpu"),
        "Langevin dynamics of the mode, noise in single precision": lambda: Langevin(
            chain.mode, temperature=1e-3, dt=0.1, integrator=Fused(noise=torch.float32), device="cpu"
        ),
        "Langevin dynamics of the chain": lambda: Langevin(chain, temperature=1e-3, dt=0.1, device="cpu"),
        "Langevin dynamics of a network": lambda: Langevin(network, temperature=1e-3, dt=0.1, device="cpu"),
        "SGD on a teacher": lambda: SGD(
            chain, teacher(label_noise=0.1), lr=0.1, batch_size=2, noise=noise, device="cpu"
        ),
        "SGD on a data set": lambda: SGD(
            chain, finite(x, x), lr=0.1, batch_size=1, sampler=sampler, noise=noise, device="cpu"
        ),
        "SGD on a teacher, schedules": lambda: SGD(
            chain, teacher(label_noise=0.1), lr=Linear(0.1, 0.2, 2), batch_size=2, noise=noise, device="cpu"
        ),
        "noise for torch": lambda: Langevin(
            chain.mode, temperature=1e-3, dt=0.1, integrator=TorchSDE("euler"), device="cpu"
        ),
    }
    for name, make in processes.items():
        if progress is not None:
            progress(name)
        process = make()
        process.advance(process.start(2, seed=0), 1, Watch(Region(0.2), bridge=process.is_diffusion))
