"""How batches are cut from data: a part of the noise, see `kramers_grok.theory.samplers`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ByMoments",
    "BySamples",
    "FullBatch",
    "Sampler",
    "ShuffledEpochs",
    "WithReplacement",
    "WithoutReplacement",
]


@dataclass(frozen=True)
class WithReplacement:
    """Every sample of every batch is drawn anew from all N."""


@dataclass(frozen=True)
class WithoutReplacement:
    """Every batch holds B different samples, drawn anew at each step."""


@dataclass(frozen=True)
class ShuffledEpochs:
    """Each epoch walks through a new random order; an incomplete last batch is dropped."""


@dataclass(frozen=True)
class FullBatch:
    """Every step sees all N samples: gradient descent."""


@dataclass(frozen=True)
class ByMoments:
    """An online teacher's batch is drawn as its second moments, exactly, at a cost that does not depend on B."""


@dataclass(frozen=True)
class BySamples:
    """An online teacher's batch is drawn sample by sample: B d + B o normal numbers a step."""


Sampler = WithReplacement | WithoutReplacement | ShuffledEpochs | FullBatch | ByMoments | BySamples
