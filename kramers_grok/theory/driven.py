r"""A mode whose weight decay, temperature and learning rate change in time: the Fokker–Planck equation, solved.

.. math:: \partial_t p = -\partial_x (b\,p) + \partial_x^2 (\mathcal D\,p), \qquad b(x, t), \mathcal D(x, t)

in the arc length :math:`x=\sqrt D\,a`, on one fixed grid: finite volumes with exponentially fitted fluxes (Scharfetter
and Gummel, IEEE Trans. Electron Devices 16, 64 (1969)), which keep p positive and are exact where Φ′ is constant
between nodes; in time an L-stable Runge–Kutta scheme of second order, which forgets what relaxes faster than its step.
No rate and no separation of time scales is assumed: this is what the adiabatic approximation is checked against.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_banded

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.region import Region
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.gradient_noise import ResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise
from kramers_grok.theory.mode_exit import ModeDynamics
from kramers_grok.theory.time_step import monitoring_shift

__all__ = ["DrivenMode", "Driving", "drive"]

Array = NDArray[np.float64]

NODES = 400
# Standard deviations of the widest well between the well's bottom and the reflecting wall
REACH = 7.0
_GAMMA = 1 - np.sqrt(0.5)


@dataclass(frozen=True)
class Driving:
    r"""What a mode is set to, piece by piece.

    Parameters
    ----------
    duration : ndarray, shape (piece,)
        Length of each piece [time].
    weight_decay, temperature : ndarray, shape (piece,)
        λ and T in the middle of each piece.
    step : ndarray, shape (piece,)
        Step of the walk (learning rate of SGD), whose effect is included to first order; 0 for continuous time.
    lr_over_batch : ndarray, shape (piece,)
        ε of the minibatch noise; 0 for none.

    Raises
    ------
    InvalidParameterError
        For shapes that differ, or values out of range.

    Examples
    --------
    >>> driving = Driving.constant(Mode(3, 1.0, 0.25), temperature=0.002, duration=10.0, pieces=4)
    >>> driving.duration.tolist(), driving.times.tolist()
    ([2.5, 2.5, 2.5, 2.5], [0.0, 2.5, 5.0, 7.5, 10.0])
    """

    duration: Array
    weight_decay: Array
    temperature: Array
    step: Array
    lr_over_batch: Array

    def __post_init__(self) -> None:
        clean = {
            name: checks.finite_array(name, getattr(self, name), ndim=1)
            for name in ("duration", "weight_decay", "temperature", "step", "lr_over_batch")
        }
        if len({value.shape for value in clean.values()}) != 1:
            raise InvalidParameterError(
                f"The pieces of a driving have the shapes { {k: v.shape for k, v in clean.items()} }, expected equal "
                "ones: each piece has one value of each.\nUse `np.full(n, value)` for what stays constant."
            )
        for name in ("duration", "weight_decay", "temperature"):
            if not (clean[name] > 0).all():
                raise checks.invalid(
                    name, float(clean[name].min()), "numbers > 0", "a piece of driving lasts and moves"
                )
        for name, value in clean.items():
            object.__setattr__(self, name, value)

    @classmethod
    def constant(cls, mode: Mode, *, temperature: float, duration: float, pieces: int, step: float = 0.0) -> Driving:
        """Nothing changes: for tests against what is known exactly."""
        ones = np.ones(checks.positive_int("pieces", pieces))
        values = (duration / pieces, mode.weight_decay, temperature, step, 0.0)
        return cls(*(value * ones for value in values))

    @property
    def times(self) -> Array:
        """Borders of the pieces, shape (piece + 1,) [time]."""
        return np.concatenate([[0.0], np.cumsum(self.duration)])


@dataclass(frozen=True, eq=False)
class DrivenMode:
    """Survival and distribution of a driven mode.

    Attributes
    ----------
    times : ndarray, shape (piece + 1,)
        Borders of the pieces [time].
    survival : ndarray, shape (piece + 1,)
        Probability of not having entered the target; 1 without a target.
    order_parameter : ndarray, shape (node,)
        m at the grid's nodes.
    probability : ndarray, shape (node,)
        Probability of each node's cell at the end (its sum is the last survival).
    """

    times: Array
    survival: Array
    order_parameter: Array
    probability: Array


def drive(
    mode: Mode,
    driving: Driving,
    *,
    target: Region | None,
    start: float,
    residual_variance: ResidualVariance | None = None,
    monitored: bool = False,
    nodes: int = NODES,
) -> DrivenMode:
    r"""Solve the Fokker–Planck equation of a mode under changing λ, T, learning rate and batch size.

    Parameters
    ----------
    mode : Mode
        Depth, singular value and input variance; its weight decay is replaced by the driving's.
    driving : Driving
    target : Region, optional
        Absorbing region; None keeps everything, for the distribution at the end.
    start : float
        Arc length at the beginning, a point.
    residual_variance : callable, optional
        c(m) of the data, for minibatch noise.
    monitored : bool
        Whether the walk is looked at at its steps only.
    nodes : int
        Grid points. At 400 the relative error of a static escape rate is about 1e-5 (ΔF/T from 2 to 8).

    Returns
    -------
    DrivenMode

    Raises
    ------
    InvalidParameterError
        For an even depth (two mirror images), or a start outside the grid or in the target.

    Examples
    --------
    Held still, the mode leaves with its exact rate:

    >>> from kramers_grok.theory.mode_exit import mode_exit_time
    >>> mode, target = Mode(3, 1.0, 0.25), Region(0.3)
    >>> exact = mode_exit_time(mode, 0.002, target, None, 0.0, False, None).mean
    >>> still = Driving.constant(mode, temperature=0.002, duration=2 * exact, pieces=400)
    >>> survival = drive(mode, still, target=target, start=0.0).survival
    >>> decay = np.log(survival[200] / survival[400]) / exact
    >>> bool(abs(decay * exact - 1) < 0.02)  # the exact mean holds the short time of filling the well too
    True
    """
    if mode.depth % 2 == 0:
        raise checks.invalid("mode.depth", mode.depth, "an odd number", "even depths have two mirror images")
    checks.positive_int("nodes", nodes, minimum=16)
    grid = _Grid.make(mode, driving, target, start, residual_variance, monitored, nodes)
    p = grid.point(start)
    survival = [1.0]
    links, padded = grid.coefficients(mode, residual_variance)
    for number, duration in enumerate(driving.duration):
        p = _advance(grid.generator(links, padded, driving, number), p, float(duration))
        survival.append(float(p.sum()))
    kept = np.minimum.accumulate(np.clip(survival, 0.0, 1.0))
    m = ModeDynamics(mode, 0.0).order_parameter(grid.x)
    return DrivenMode(driving.times, kept, m, p)


def _dynamics(mode: Mode, driving: Driving, number: int, residual: ResidualVariance | None) -> ModeDynamics:
    moved = Mode(mode.depth, mode.singular_value, float(driving.weight_decay[number]), mode.input_variance)
    ratio = float(driving.lr_over_batch[number])
    noise = MinibatchNoise(ratio, residual) if residual is not None and ratio > 0 else None
    return ModeDynamics(moved, float(driving.temperature[number]), float(driving.step[number]), noise)


@dataclass(frozen=True, eq=False)
class _Coefficients:
    """Slope and curvature of F without weight decay, its third derivative, and the minibatch noise per unit ε."""

    x: Array
    slope: Array
    curvature: Array
    third: Array
    noise: Array

    @classmethod
    def of(cls, mode: Mode, x: Array, residual: ResidualVariance | None) -> _Coefficients:
        dynamics = ModeDynamics(mode, 0.0)
        noise = np.zeros_like(x)
        if residual is not None:
            noise = 0.5 * residual(dynamics.order_parameter(x)) * dynamics.order_parameter_slope(x) ** 2
        decay = mode.weight_decay
        return cls(x, dynamics.slope(x) - decay * x, dynamics.curvature(x) - decay, dynamics.third(x), noise)

    def drift(self, driving: Driving, number: int) -> Array:
        decay, heat, step = driving.weight_decay[number], driving.temperature[number], driving.step[number]
        force, curvature = self.slope + decay * self.x, self.curvature + decay
        return np.asarray(-force - 0.5 * step * (curvature * force - heat * self.third))

    def diffusion(self, driving: Driving, number: int) -> Array:
        heat, step = driving.temperature[number], driving.step[number]
        isotropic = heat * (1 + step * (self.curvature + driving.weight_decay[number]))
        return np.asarray(isotropic + driving.lr_over_batch[number] * self.noise)


@dataclass(frozen=True, eq=False)
class _Grid:
    """Equidistant nodes; an absorbing border stands one spacing beyond the last (or first) of them."""

    x: Array
    absorbs_above: bool
    absorbs_below: bool

    @classmethod
    def make(
        cls,
        mode: Mode,
        driving: Driving,
        target: Region | None,
        start: float,
        residual: ResidualVariance | None,
        monitored: bool,
        nodes: int,
    ) -> _Grid:
        softest = float(driving.weight_decay.min())
        spread = REACH * np.sqrt(float(driving.temperature.max()) / softest)
        fit = float(mode.coordinate(mode.singular_value))
        # Near the fit the mode is stiffer than the decay alone; minibatch noise may still widen it there.
        top = fit + REACH * np.sqrt(float(driving.temperature.max()) / (softest + _stiffness(mode))) + 0.1 * fit
        low, high = min(-spread, start - spread), max(top, start)
        above = below = False
        if target is not None:
            border = float(mode.coordinate(target.threshold))
            shift = target.sign * cls._shift(mode, driving, border, residual) if monitored else 0.0
            if target.above:
                high, above = border + shift, True
            else:
                low, below = border + shift, True
        if not low < start < high:
            raise InvalidParameterError(
                f"`start` = {start:g} is not between {low:g} and {high:g}: it lies in the target, or far outside.\n"
                "Start at 0 for a target above, at `sqrt(D) * mode.learned_amplitude()` for one below."
            )
        edges = np.linspace(low, high, nodes + 1)
        if above:
            return cls(edges[:-1], True, False)
        if below:
            return cls(edges[1:], False, True)
        return cls(edges, False, False)

    @staticmethod
    def _shift(mode: Mode, driving: Driving, border: float, residual: ResidualVariance | None) -> float:
        """Monitoring shift at the middle of the driving; it changes little, far down the slope."""
        middle = len(driving.duration) // 2
        step = float(driving.step[middle])
        diffusion = _dynamics(mode, driving, middle, residual).diffusion(np.array([border]))
        return monitoring_shift(float(diffusion[0]), step) if step else 0.0

    def point(self, start: float) -> Array:
        """All probability at one point, shared by its two neighbours so that the mean is right."""
        spacing = self.x[1] - self.x[0]
        place = np.clip((start - self.x[0]) / spacing, 0.0, len(self.x) - 1.0)
        left = min(int(place), len(self.x) - 2)
        p = np.zeros(len(self.x))
        p[left], p[left + 1] = left + 1 - place, place - left
        return p

    def coefficients(self, mode: Mode, residual: ResidualVariance | None) -> tuple[_Coefficients, _Coefficients]:
        """What does not change in time, at the links between nodes and at the nodes with one more on either side."""
        x, spacing = self.x, self.x[1] - self.x[0]
        padded = np.concatenate([[x[0] - spacing], x, [x[-1] + spacing]])
        middle = (padded[1:] + padded[:-1]) / 2
        return _Coefficients.of(mode, middle, residual), _Coefficients.of(mode, padded, residual)

    def generator(self, links: _Coefficients, padded: _Coefficients, driving: Driving, number: int) -> Array:
        """Forward generator as bands (upper, diagonal, lower), shape (3, node)."""
        x, spacing = self.x, self.x[1] - self.x[0]
        diffusion = links.diffusion(driving, number)
        # Itô: the flux is (b − 𝒟′) p − 𝒟 p′
        drift = links.drift(driving, number) - np.diff(padded.diffusion(driving, number)) / spacing
        peclet = drift * spacing / diffusion
        right = diffusion / spacing**2 * _bernoulli(-peclet)  # across each link, upwards and downwards
        left = right * np.exp(-np.clip(peclet, -700.0, 700.0))
        if not self.absorbs_above:
            right[-1] = 0.0
        if not self.absorbs_below:
            left[0] = 0.0
        bands = np.zeros((3, len(x)))
        bands[0, 1:] = left[1:-1]
        bands[1] = -(right[1:] + left[:-1])
        bands[2, :-1] = right[1:-1]
        return bands


def _stiffness(mode: Mode) -> float:
    """Curvature of the loss at the fit, along the balanced path."""
    return float(mode.input_variance * mode.depth * mode.singular_value ** (2 - 2 / mode.depth))


def _bernoulli(z: Array) -> Array:
    """z/(e^z − 1), 1 at 0."""
    small = np.abs(z) < 1e-5
    safe = np.where(small, 1.0, np.clip(z, -700.0, 700.0))
    return np.asarray(np.where(small, 1.0 - z / 2, safe / np.expm1(safe)))


def _advance(bands: Array, p: Array, duration: float) -> Array:
    """One L-stable step of second order (two stages, γ = 1 − 1/√2)."""
    matrix = -_GAMMA * duration * bands
    matrix[1] += 1.0
    first = solve_banded((1, 1), matrix, _times(bands, p), check_finite=False)
    second = solve_banded((1, 1), matrix, _times(bands, p + (1 - _GAMMA) * duration * first), check_finite=False)
    return np.asarray(p + duration * ((1 - _GAMMA) * first + _GAMMA * second))


def _times(bands: Array, p: Array) -> Array:
    out: Array = bands[1] * p
    out[:-1] += bands[0, 1:] * p[1:]
    out[1:] += bands[2, :-1] * p[:-1]
    return out
