r"""Partition functions of metastable wells: Gaussian integrals, corrected by importance sampling.

.. math:: Z = \int_{\rm basin} e^{-(F-F_{\min})/T}\,d\theta

A well's Boltzmann weight is that of its basin: the points from which the gradient flow ends in the trap. Points behind
the barrier lie lower and would otherwise outweigh it. At the basin's border, where the committor is one half, this is
wrong by a share of order :math:`k/\lambda` of the result, with the rate k and the well's slowest relaxation λ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import qmc

from kramers_grok.landscape.surface import Surface

__all__ = ["Basin", "Sampled", "normal_blocks", "sampled_mean"]

Array = NDArray[np.float64]

_TINY = 1e-12
_ROUNDS = 40  # of a descent, with this many steps each
_STEPS = 8


@dataclass(frozen=True)
class Sampled:
    """Mean of weights over blocks of quasi-random draws.

    Attributes
    ----------
    log_value : float
        Logarithm of the mean.
    relative_error : float
        Standard error over the blocks, relative.
    effective : float
        Effective share of the draws, (Σw)²/(n Σw²): small where a few carry the sum.
    """

    log_value: float
    relative_error: float
    effective: float


def normal_blocks(dimension: int, n_samples: int, n_blocks: int, seed: int) -> list[Array]:
    """Blocks of scrambled Sobol points as normal numbers, each (n_samples / n_blocks, dimension), independent."""
    if not dimension:
        return [np.zeros((n_samples // n_blocks, 0))] * n_blocks
    streams = np.random.SeedSequence(seed).spawn(n_blocks)
    power = max(round(math.log2(n_samples / n_blocks)), 1)
    blocks = []
    for stream in streams:
        uniform = qmc.Sobol(dimension, seed=np.random.default_rng(stream)).random_base2(power)
        blocks.append(ndtri(np.clip(uniform, _TINY, 1 - _TINY)))
    return blocks


def sampled_mean(log_scale: float, blocks: list[Array]) -> Sampled:
    """Combine weights, block by block, each divided by ``exp(log_scale)``."""
    means = np.array([block.mean() for block in blocks])
    every = np.concatenate(blocks)
    total = float(means.mean())
    if total <= 0:
        return Sampled(-math.inf, math.inf, 0.0)
    error = float(means.std(ddof=1)) / math.sqrt(len(means)) / total
    return Sampled(log_scale + math.log(total), error, float(every.sum() ** 2 / (every**2).sum() / len(every)))


@dataclass(frozen=True, eq=False)
class Basin:
    """Which points flow into the trap.

    Parameters
    ----------
    surface : Surface
    feature : int
        Number of the order parameter that tells on which side of the barrier a point lies.
    inside, border, outside : float
        Order parameters of the trap, the saddle and the state behind it.
    top : float
        Energy of the saddle [loss]: a descent that has come well below it does not cross any more.
    steepest : float
        Largest curvature [1/time], which limits the step.
    length : float
        Longest step [weight].
    """

    surface: Surface
    feature: int
    inside: float
    border: float
    outside: float
    top: float
    steepest: float
    length: float

    def contains(self, theta: Array) -> NDArray[np.bool_]:
        """Whether each row of `theta` descends into the trap, shape (draw,)."""
        towards = math.copysign(1.0, self.outside - self.inside)
        result = np.zeros(len(theta), dtype=bool)
        left = np.arange(len(theta))
        for _ in range(_ROUNDS):
            done = self.surface.energies(theta) < self.top
            m = self.surface.order_parameters(theta)[:, self.feature]
            result[left] = towards * (m - self.border) < 0
            left, theta = left[~done], theta[~done]
            if not len(left):
                break
            theta = self._descended(theta)
        return result

    def _descended(self, theta: Array) -> Array:
        step = 0.7 / self.steepest
        for _ in range(_STEPS):
            move = step * self.surface.gradients(theta)
            size = np.linalg.norm(move, axis=1, keepdims=True)
            theta = theta - move * np.minimum(1.0, self.length / np.maximum(size, _TINY))
        return theta
