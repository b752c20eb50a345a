r"""Hamiltonians of many coordinates: diffusions, and SGD of the scalar chain with true minibatches.

.. math:: H(x, p) = \lim_{\varepsilon\to0}\frac{\varepsilon}{dt}\log\mathbb E\,e^{p\cdot dx/\varepsilon}

is convex in the momentum p, vanishes at p = 0, and has the drift as slope there. A diffusion
:math:`dx = b\,dt + \sqrt\varepsilon\,\sigma\,dW` has :math:`H = b\cdot p + \tfrac12 p\cdot\sigma\sigma^Tp`; SGD with
:math:`\varepsilon = \eta/B` has :math:`H = \log\mathbb E\,e^{-p\cdot g(x)}`, g the gradient of one sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core import checks
from kramers_grok.theory.action_cumulants import SampleCumulants, check_same_mean
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.gradient_noise import gradient_direction

__all__ = ["ChainHamiltonian", "DiffusionHamiltonian", "Hamiltonian", "PathJet"]

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

# Central differences: the cube root of rounding, in units of the coordinate
_DIFFERENCE = 6e-6


@dataclass(frozen=True)
class PathJet:
    """H and the derivatives that a minimum-action path needs, at n points of d coordinates.

    Attributes
    ----------
    value : ndarray, shape (n,)
        H, infinite where it is not defined.
    x, p : ndarray, shape (n, d)
        Gradients.
    pp : ndarray, shape (n, d, d)
        Second derivatives in p.
    """

    value: Array
    x: Array
    p: Array
    pp: Array


class Hamiltonian(Protocol):
    """A Hamiltonian H(x, p): convex in p, 0 at p = 0."""

    def jet(self, x: Array, p: Array) -> PathJet:
        """Value and derivatives at points `x` and momenta `p`, both of shape (n, d).

        Parameters
        ----------
        x, p : array, shape (n, d)

        Returns
        -------
        PathJet
        """
        ...


@dataclass(frozen=True)
class DiffusionHamiltonian:
    r"""Small noise on a drift, :math:`dx = b(x)\,dt + \sqrt\varepsilon\,\sigma(x)\,dW` with :math:`C=\sigma\sigma^T`.

    .. math:: H = b\cdot p + \tfrac12p\cdot C\,p, \qquad S = \tfrac12\int(\dot x - b)\cdot C^{-1}(\dot x - b)\,dt

    Parameters
    ----------
    drift : callable
        b, from shape (n, d) to (n, d).
    covariance : callable, optional
        C, from (n, d) to (n, d, d), positive definite; by default the unit matrix.
    jacobian : callable, optional
        :math:`\partial b_i/\partial x_j`, to (n, d, d); by default by central differences.

    Examples
    --------
    >>> field = DiffusionHamiltonian(lambda x: -x)
    >>> float(field.jet(np.array([[1.0, 2.0]]), np.array([[0.5, 0.0]])).value[0])
    -0.375
    """

    drift: Function
    covariance: Function | None = None
    jacobian: Function | None = None

    def jet(self, x: Array, p: Array) -> PathJet:
        """Value and derivatives."""
        drift = np.asarray(self.drift(x), dtype=np.float64)
        slope = _jacobian(self.drift, x) if self.jacobian is None else np.asarray(self.jacobian(x))
        pushed = np.einsum("nij,ni->nj", slope, p)
        if self.covariance is None:
            covariance = np.broadcast_to(np.eye(x.shape[1]), (*x.shape, x.shape[1]))
            return PathJet((drift * p).sum(1) + 0.5 * (p**2).sum(1), pushed, drift + p, covariance)
        function = self.covariance
        covariance = np.asarray(function(x), dtype=np.float64)
        spread = _jacobian(lambda y: np.einsum("ni,nij,nj->n", p, function(y), p)[:, None], x)[:, 0]
        push = np.einsum("nij,nj->ni", covariance, p)
        value = (drift * p).sum(1) + 0.5 * (push * p).sum(1)
        return PathJet(value, pushed + 0.5 * spread, drift + push, covariance)


def _jacobian(function: Function, x: Array) -> Array:
    columns = []
    for j in range(x.shape[1]):
        step = np.zeros_like(x)
        step[:, j] = _DIFFERENCE * np.maximum(1.0, np.abs(x[:, j]))
        columns.append((function(x + step) - function(x - step)) / (2 * step[:, j, None]))
    return np.stack(columns, axis=2)


@dataclass(frozen=True)
class ChainHamiltonian:
    r"""SGD of the chain of D weights: minibatches and isotropic noise of variance g² on every sample's gradient.

    .. math:: H(a, p) = -\lambda\,p\cdot a + \Gamma\big(p\cdot v(a);\,m(a)\big) + \tfrac12g^2\|p\|^2,
              \qquad v_l = \prod_{k\ne l}a_k,\quad m = \prod_l a_l,

    Γ the cumulant generating function of rx; with `TwoCumulants` it is the diffusion limit. On the balanced line, with
    equal momenta, it is `ModeHamiltonian` in arc length.

    A matrix network whose layers are aligned and of rank one, :math:`W_l = a_l\,u_lu_{l-1}^T` with momenta
    :math:`p_l\,u_lu_{l-1}^T`, has this Hamiltonian, whatever its widths: momenta see one sample through its
    components along the feature only. Where the samples' other components are independent of those and have mean zero
    (a Gaussian teacher), such paths solve the network's own equations. Widths enter at the next order in ε only, where
    the other directions fluctuate.

    Parameters
    ----------
    chain : DeepLinearChain
    samples : SampleCumulants
    noise_variance : float
        g² > 0.

    Raises
    ------
    InvalidParameterError
        For g² ≤ 0: minibatch noise alone has rank one, moves weights along v only, and reaches no unbalanced point
        from a balanced one; use the chain's ``mode`` and `ModeHamiltonian`. If the samples' mean is not the chain's.
    """

    chain: DeepLinearChain
    samples: SampleCumulants
    noise_variance: float

    def __post_init__(self) -> None:
        why = "minibatch noise alone has rank one and keeps a balanced chain balanced"
        fix = "Use `ModeHamiltonian(chain.mode, samples)` without it."
        object.__setattr__(self, "noise_variance", checks.positive("noise_variance", self.noise_variance, why, fix))
        check_same_mean(self.samples, self.chain.singular_value, self.chain.input_variance)

    def jet(self, x: Array, p: Array) -> PathJet:
        """Value and derivatives."""
        m, v, second = x.prod(axis=1), gradient_direction(x), _second_products(x)
        t = (p * v).sum(axis=1)
        low, high = self.samples.limits(m)
        inside = (t > low) & (t < high)
        gamma = self.samples.jet(np.where(inside, t, 0.0), m)
        decay, heat = self.chain.weight_decay, self.noise_variance
        value = -decay * (p * x).sum(axis=1) + gamma.value + 0.5 * heat * (p**2).sum(axis=1)
        pull = np.einsum("nij,nj->ni", second, p)
        return PathJet(
            value=np.where(inside, value, np.inf),
            x=-decay * p + gamma.t[:, None] * pull + gamma.m[:, None] * v,
            p=-decay * x + gamma.t[:, None] * v + heat * p,
            pp=gamma.tt[:, None, None] * v[:, :, None] * v[:, None, :] + heat * np.eye(x.shape[1]),
        )


def _second_products(x: Array) -> Array:
    """Products of all weights but two, 0 on the diagonal: the Hessian of the order parameter."""
    depth = x.shape[1]
    out = np.zeros((len(x), depth, depth))
    for i in range(depth):
        for j in range(i):
            out[:, i, j] = out[:, j, i] = np.delete(x, (i, j), axis=1).prod(axis=1)
    return out
