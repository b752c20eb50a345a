"""Warming up leaves what the first run would compile."""

from __future__ import annotations

import torch

import kramers_grok as kg
from kramers_grok.core.schedules import Cosine
from kramers_grok.dynamics import kernel_source
from kramers_grok.dynamics.process import Watch
from kramers_grok.dynamics.warm_up import warm_up


def test_the_first_run_finds_its_kernels() -> None:
    seen: list[str] = []
    warm_up(seen.append)
    assert len(seen) == len(set(seen)) == 8

    known = kernel_source.compiled.cache_info().currsize
    assert known >= 6
    chain = kg.DeepLinearChain(depth=3, singular_value=0.7, weight_decay=0.1)
    network = kg.DeepLinearNetwork((1, 2, 2, 1), [0.7], weight_decay=0.1)
    target = Watch(kg.Region(0.3))
    for process in (
        kg.Langevin(chain, temperature=1e-3, dt=0.2),
        kg.Langevin(chain.mode, temperature=1e-3, dt=0.2),
        kg.Langevin(chain.mode, temperature=1e-3, dt=0.2, integrator=kg.Fused(noise=torch.float32)),
        kg.Langevin(network, temperature=1e-3, dt=0.2),
        kg.SGD(chain, kg.teacher(label_noise=0.3), lr=0.2, batch_size=7),
        kg.SGD(chain, kg.teacher(label_noise=0.3), lr=[0.1, 0.2, 0.3], weight_decay=Cosine(0.2, 0.1, 9), batch_size=7),
        kg.SGD(chain, kg.population(), lr=0.2),
        kg.SGD(network, kg.population(), lr=0.2),
    ):
        process.advance(process.start(3, seed=1), 2, target)
    assert kernel_source.compiled.cache_info().currsize == known
