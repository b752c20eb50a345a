r"""Transition densities of discrete chains in one dimension: Euler-Maruyama, and one step of minibatch SGD.

Euler-Maruyama moves by a normal number, :math:`x' = x + h\,b(x) + \sqrt{2\mathcal D(x)h}\,\xi`. A minibatch of B white
Gaussian samples enters one mode through its second moments only,

.. math:: \hat\Sigma_{xx} = q\,\chi^2_B/B, \qquad
          \hat\Sigma_{yx} = \sigma\hat\Sigma_{xx} + s\sqrt{\hat\Sigma_{xx}/B}\,n,

so that SGD's step :math:`x' = x - \eta[(\hat\Sigma_{xx} m - \hat\Sigma_{yx})m' + \lambda x] + \eta g\,\xi/\sqrt B` is
normal *given* :math:`\hat\Sigma_{xx}`: its density is a mixture of normal densities over a Gamma density, summed by the
trapezoidal rule in a function of :math:`\hat\Sigma_{xx}`, with positive weights and an error that falls exponentially.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, gammaln, kve, ndtr

from kramers_grok.core.compiled import njit
from kramers_grok.theory.quadrature import Diffusion

__all__ = ["BatchKernel", "BridgedKernel", "FoldedKernel", "GaussianKernel", "StepKernel"]

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

_SQRT_2PI = float(np.sqrt(2 * np.pi))
# Below e^-300 a term of the mixture is skipped
_NEGLIGIBLE = 300.0
# Batches with less input than all but this share are too rare to sharpen the density
_RARE = 1e-10
# τ ~ u^n ln u is left to the panels from this n on, and resolved down to u^n = 1e-4 below it
_SMOOTH, _KINK = 4, 1e-4
# Gamma mass left out at the lower end; the upper end is left where the density has fallen by e^-_LOG_TAIL
_LOWER_TAIL = 1e-18
_LOG_TAIL = 90.0
# Width of the narrowest peak over the trapezoidal step: error exp(−2π²·1.2²) = 5e-13
_RESOLUTION = 1.2
_LARGEST_STEP = 0.35
# Bessel functions of larger order overflow where they matter
_LARGEST_ORDER = 64


class StepKernel(Protocol):
    """One step of a Markov chain on the line, as the solver needs it; all functions are vectorised."""

    def mean(self, x: Array) -> Array:
        """Mean of the next point."""
        ...

    def width(self, x: Array) -> Array:
        """Standard deviation of the next point."""
        ...

    def centre(self, x: Array) -> Array:
        """Where the density has its sharpest feature."""
        ...

    def finest(self, x: Array) -> Array:
        """Scale of that feature; 0 for a singular density."""
        ...

    def kinks(self, border: float) -> list[tuple[float, float]]:
        """Points from which the sharp feature reaches the border, where τ is not smooth, and down to which scale."""
        ...

    def density(self, x: Array, y: Array) -> Array:
        """Density of the steps from `x` to `y` that do not leave, shapes broadcast."""
        ...

    def crossing(self, x: Array, y: Array) -> Array | None:
        """Density of the steps to `y` that left on the way; None if there are none."""
        ...

    def below(self, x: Array, y: float) -> Array:
        """Probability of a next point at most `y`, with relative accuracy."""
        ...

    def above(self, x: Array, y: float) -> Array:
        """Probability of a next point of at least `y`, with relative accuracy."""
        ...


@dataclass(frozen=True)
class GaussianKernel:
    """Euler-Maruyama with step h for the drift and diffusion of a process."""

    process: Diffusion
    step: float

    def mean(self, x: Array) -> Array:
        """Mean of the next point."""
        return np.asarray(x + self.step * np.asarray(self.process.drift(x)))

    def width(self, x: Array) -> Array:
        """Standard deviation of the next point."""
        return np.sqrt(2 * self.step * self.process.diffusion_at(x))

    centre = mean
    finest = width

    def kinks(self, border: float) -> list[tuple[float, float]]:
        """None: the density is smooth."""
        return []

    def density(self, x: Array, y: Array) -> Array:
        """Normal density."""
        width = self.width(x)
        return np.asarray(np.exp(-0.5 * ((y - self.mean(x)) / width) ** 2) / (_SQRT_2PI * width))

    def crossing(self, x: Array, y: Array) -> Array | None:
        """No step leaves on the way."""
        return None

    def below(self, x: Array, y: float) -> Array:
        """Normal tail."""
        return np.asarray(ndtr((y - self.mean(x)) / self.width(x)))

    def above(self, x: Array, y: float) -> Array:
        """Normal tail."""
        return np.asarray(ndtr((self.mean(x) - y) / self.width(x)))


@dataclass(frozen=True)
class BridgedKernel:
    r"""Euler-Maruyama that also leaves between two steps, with the Brownian-bridge probability.

    A step from x to y has crossed the border with probability :math:`e^{-d(x)d(y)/\mathcal D(x)h}`, d the distances.

    Attributes
    ----------
    plain : GaussianKernel
    distance : callable
        Distance of points inside to the border.
    """

    plain: GaussianKernel
    distance: Function

    def mean(self, x: Array) -> Array:
        """Mean of the next point."""
        return self.plain.mean(x)

    def width(self, x: Array) -> Array:
        """Standard deviation of the next point."""
        return self.plain.width(x)

    centre = mean
    finest = width

    def kinks(self, border: float) -> list[tuple[float, float]]:
        """None: the density is smooth."""
        return []

    def _exponent(self, x: Array, y: Array) -> Array:
        scale = 0.5 * self.width(x) ** 2
        return np.asarray(-np.maximum(self.distance(x) * self.distance(y), 0.0) / scale)

    def density(self, x: Array, y: Array) -> Array:
        """Density of the steps that did not cross."""
        return np.asarray(-self.plain.density(x, y) * np.expm1(self._exponent(x, y)))

    def crossing(self, x: Array, y: Array) -> Array | None:
        """Density of the steps that crossed."""
        return np.asarray(self.plain.density(x, y) * np.exp(self._exponent(x, y)))

    def below(self, x: Array, y: float) -> Array:
        """Normal tail."""
        return self.plain.below(x, y)

    def above(self, x: Array, y: float) -> Array:
        """Normal tail."""
        return self.plain.above(x, y)


@dataclass(frozen=True)
class FoldedKernel:
    """A chain with mirror symmetry, seen by its modulus: a step to −y counts as one to y, and so does the border."""

    plain: StepKernel

    def mean(self, x: Array) -> Array:
        """Mean of the next point."""
        return self.plain.mean(x)

    def width(self, x: Array) -> Array:
        """Standard deviation of the next point."""
        return self.plain.width(x)

    def centre(self, x: Array) -> Array:
        """Where the density is sharpest."""
        return self.plain.centre(x)

    def finest(self, x: Array) -> Array:
        """Scale of the sharpest feature."""
        return self.plain.finest(x)

    def kinks(self, border: float) -> list[tuple[float, float]]:
        """Those of the plain chain."""
        return self.plain.kinks(border)

    def density(self, x: Array, y: Array) -> Array:
        """Density of the modulus of the next point."""
        return self.plain.density(x, y) + self.plain.density(x, -y)

    def crossing(self, x: Array, y: Array) -> Array | None:
        """Density of the steps that left on the way."""
        direct, mirrored = self.plain.crossing(x, y), self.plain.crossing(x, -y)
        return None if direct is None or mirrored is None else direct + mirrored

    def below(self, x: Array, y: float) -> Array:
        """Probability that the modulus of the next point is at most `y`."""
        return np.asarray(self.plain.below(x, y) - self.plain.below(x, -y))

    def above(self, x: Array, y: float) -> Array:
        """Probability that the modulus of the next point is at least `y`."""
        return self.plain.above(x, y) + self.plain.below(x, -y)


@njit
def _mix(away: Array, pull: Array, spread: Array, floor: Array, sigma: Array, weights: Array) -> Array:
    total = np.zeros(away.size)
    for i in range(away.size):
        for k in range(sigma.size - 1, -1, -1):
            variance = spread[i] * sigma[k] + floor[i]
            distance = away[i] - pull[i] * sigma[k]
            exponent = 0.5 * distance * distance / variance
            if exponent < _NEGLIGIBLE:
                total[i] += weights[k] * np.exp(-exponent) / np.sqrt(variance)
            elif 2 * abs(pull[i]) * sigma[k] < abs(away[i]):
                break  # less input moves the point even less
    return total


@dataclass(frozen=True)
class BatchKernel:
    r"""Minibatch SGD of one mode: normal given :math:`\hat\Sigma_{xx}`, a mixture over its Gamma density.

    Given :math:`\Sigma`: mean :math:`x - \eta[\Sigma(m-\sigma)m' + \lambda x]`, variance
    :math:`\eta^2(s^2\Sigma m'^2 + g^2)/B`.

    Attributes
    ----------
    order_parameter, slope : callable
        m(x) and m′(x).
    singular_value, weight_decay, input_variance, label_noise : float
        σ, λ, q and s.
    lr : float
        η.
    batch_size : int
        B.
    noise_variance : float
        Per-sample variance g² of the injected noise.
    interpolation : float
        Coordinate at which m = σ.
    """

    order_parameter: Function
    slope: Function
    singular_value: float
    weight_decay: float
    input_variance: float
    label_noise: float
    lr: float
    batch_size: int
    noise_variance: float
    interpolation: float

    def _coefficients(self, x: Array) -> tuple[Array, Array, Array]:
        """Drift per Σ, variance per Σ and constant variance of a step, each of the shape of `x`."""
        slope = self.slope(x)
        pull = self.lr * (self.singular_value - self.order_parameter(x)) * slope
        spread = (self.lr * self.label_noise * slope) ** 2 / self.batch_size
        floor = np.full_like(spread, self.lr**2 * self.noise_variance / self.batch_size)
        return np.asarray(pull), spread, floor

    def mean(self, x: Array) -> Array:
        """Mean of the next point: gradient descent on the population's loss."""
        return self.centre(x) + self.input_variance * self._coefficients(x)[0]

    def width(self, x: Array) -> Array:
        """Standard deviation of the next point."""
        pull, spread, floor = self._coefficients(x)
        q = self.input_variance
        return np.sqrt(2 * q**2 / self.batch_size * pull**2 + q * spread + floor)

    def centre(self, x: Array) -> Array:
        """Where a batch without input, Σ = 0, would move the point."""
        return np.asarray(x * (1 - self.lr * self.weight_decay))

    def finest(self, x: Array) -> Array:
        """Width of the injected noise: many batches of one sample have hardly any input."""
        _, spread, floor = self._coefficients(x)
        # Batches with hardly any input: frequent at B = 1, unknown at B = 16
        least = 2 * self.input_variance / self.batch_size * float(gammaincinv(self.batch_size / 2, _RARE))
        return np.sqrt(floor + least * spread)

    def kinks(self, border: float) -> list[tuple[float, float]]:
        r"""Points :math:`b/(1-\eta\lambda)^k`: there τ is like :math:`u^{kB}\ln u`, softened by the injected noise."""
        shrink = 1 - self.lr * self.weight_decay
        found = []
        for k in range(1, _SMOOTH // self.batch_size + 1 if shrink > 0 else 1):
            x = np.array(border / shrink**k)
            scale = max(float(self.width(x)) * _KINK ** (1 / (k * self.batch_size)), float(self.finest(x)))
            if scale < 0.5 * float(self.width(x)):
                found.append((float(x), scale))
        return found

    @cached_property
    def _mixture(self) -> tuple[Array, Array]:
        r"""Nodes Σ and weights of the trapezoidal rule in v, :math:`\sqrt{\Sigma/q} = \ln(1 + e^v)`."""
        q, shape = self.input_variance, self.batch_size / 2
        low = float(np.log(np.expm1(np.sqrt(max(float(gammaincinv(shape, _LOWER_TAIL)), 1e-300) / shape))))
        high = float(np.sqrt((shape + _LOG_TAIL + np.sqrt(2 * shape * _LOG_TAIL)) / shape))
        # The width of √(Σ/q) by itself and, for 0 ≤ m ≤ σ, given the next point (smallest for batches of large input)
        pull, spread, floor = self._coefficients(np.linspace(0, self.interpolation, 101)[1:])
        large = 1 + 5 / np.sqrt(4 * shape)
        known = float(np.max(2 * q * large * np.abs(pull) / np.sqrt(q * spread * large**2 + floor)))
        step = min(_LARGEST_STEP, 1 / (_RESOLUTION * np.hypot(np.sqrt(4 * shape), known)))
        v = np.arange(low, high + step, step)
        root = np.log1p(np.exp(v))
        z = shape * root**2
        weights = np.exp(shape * np.log(z) - z - gammaln(shape)) * 2 * step / (root * (1 + np.exp(-v)))
        return q * root**2, weights / weights.sum()

    def density(self, x: Array, y: Array) -> Array:
        """Mixture of normal densities; in closed form where nothing is injected."""
        if self.noise_variance == 0 and self.batch_size <= _LARGEST_ORDER:
            return self._bessel(x, y)
        sigma, weights = self._mixture
        pull, spread, floor = (np.broadcast_to(c, np.broadcast_shapes(x.shape, y.shape)) for c in self._coefficients(x))
        away = y - self.centre(x)
        total = _mix(away.ravel(), pull.ravel(), spread.ravel(), floor.ravel(), sigma, weights / _SQRT_2PI)
        return np.asarray(total.reshape(away.shape))

    def _bessel(self, x: Array, y: Array) -> Array:
        r"""Density of :math:`\beta\Sigma + \alpha\sqrt\Sigma\,n`, :math:`\Sigma\sim\mathrm{Gamma}(B/2, \theta = 2q/B)`.

        With :math:`R = \sqrt{\beta^2 + 2\alpha^2/\theta}`, u the displacement and :math:`\nu = (B-1)/2` it is
        :math:`2e^{u\beta/\alpha^2}(|u|/R)^\nu K_\nu(|u|R/\alpha^2)/(\sqrt{2\pi}\alpha\Gamma(B/2)\theta^{B/2})`.
        """
        shape, theta = self.batch_size / 2, 2 * self.input_variance / self.batch_size
        pull, spread, _ = self._coefficients(x)
        away = y - self.centre(x)
        size = np.maximum(np.abs(away), 1e-300)
        root = np.sqrt(pull**2 + 2 * spread / theta)
        order = shape - 0.5
        norm = 2 / (_SQRT_2PI * np.sqrt(spread) * np.exp(gammaln(shape) + shape * np.log(theta)))
        exponent = (away * pull - size * root) / spread
        return np.asarray(norm * (size / root) ** order * np.exp(exponent) * kve(order, size * root / spread))

    def crossing(self, x: Array, y: Array) -> Array | None:
        """No step leaves on the way."""
        return None

    def _tail(self, x: Array, y: float, sign: float) -> Array:
        pull, spread, floor = self._coefficients(x)
        nodes, weights = self._mixture
        moved = self.centre(x)[..., None] + pull[..., None] * nodes
        width = np.sqrt(spread[..., None] * nodes + floor[..., None])
        return np.asarray(ndtr(sign * (moved - y) / width) @ weights)

    def below(self, x: Array, y: float) -> Array:
        """Mixture of normal tails."""
        return self._tail(x, y, -1.0)

    def above(self, x: Array, y: float) -> Array:
        """Mixture of normal tails."""
        return self._tail(x, y, 1.0)
