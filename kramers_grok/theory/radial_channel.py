"""From a matrix network to the radial potential of its strongest unlearned feature: exponents and determinants."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import NoBarrierError
from kramers_grok.theory.radial_potential import RadialPotential
from kramers_grok.theory.radial_terms import LogDeterminant, extra_directions, learned_pair, unlearned_pair
from kramers_grok.theory.saddles import MatrixNetwork

__all__ = ["channel_potential", "check_channel"]

Array = NDArray[np.float64]

# Singular values closer than this, relative to the largest, count as equal
EQUAL = 1e-10


def check_channel(network: MatrixNetwork, rank: int) -> None:
    """Raise where there is no next feature, no free unit, or another feature as strong."""
    values = np.array(network.singular_values)
    if rank >= len(values):
        raise NoBarrierError(
            f"The teacher has {len(values)} feature(s), all learned at rank={rank}: there is no next one."
        )
    if min(network.hidden) < rank + 1:
        raise NoBarrierError(
            f"widths={network.widths}: rank={rank} learned features fill the narrowest hidden layer, no unit is free.\n"
            f"Use hidden widths of at least {rank + 1}."
        )
    ties = np.flatnonzero(np.abs(values - values[rank]) <= EQUAL * values[0])
    if ties.size > 1:
        raise checks.invalid(
            "singular_values",
            network.singular_values,
            f"no other feature as strong as number {rank}",
            "rotations among equal features are a symmetry whose orbit the radial free energy does not hold",
            "Use `eyring_kramers_rate(network.barrier(rank), temperature)`.",
        )


def channel_potential(network: MatrixNetwork, rank: int, temperature: float, exponents: Array) -> RadialPotential:
    """E with any real exponents of the hidden layers."""
    inputs, outputs = network.widths[0], network.widths[-1]
    # Exact where the radii are built from the one-dimensional end; elsewhere a symmetric choice.
    alignment = 0 if outputs == 1 and inputs > 1 else network.depth - 1 if inputs == 1 else (network.depth - 1) // 2
    return RadialPotential(
        singular_value=network.singular_values[rank],
        weight_decay=network.weight_decay,
        input_variance=network.input_variance,
        temperature=temperature,
        exponents=np.insert(exponents, alignment, 0.0),
        alignment=alignment,
        terms=_terms(network, rank),
    )


@lru_cache(maxsize=64)
def _terms(network: MatrixNetwork, rank: int) -> tuple[LogDeterminant, ...]:
    """Determinants of the directions across the channel."""
    depth, decay, variance = network.depth, network.weight_decay, network.input_variance
    values, common = network.singular_values, (network.depth, network.weight_decay, network.input_variance)
    terms: list[LogDeterminant] = []
    for end, layers in ((0, range(1, depth)), (-1, range(depth - 1))):
        if network.widths[end] > len(values):
            terms.append(extra_directions(network.widths[end] - len(values), layers, *common))
    terms += [unlearned_pair(sigma, *common) for sigma in values[rank + 1 :]]
    for sigma in values[:rank]:
        amplitude = network.mode(values.index(sigma)).learned_amplitude()
        terms += learned_pair((amplitude, sigma), values[rank], depth, decay, variance)
    return tuple(terms)
