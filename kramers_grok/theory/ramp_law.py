"""A ramp of the weight decay, and the predicted law of the escape along it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator

from kramers_grok.core import checks
from kramers_grok.core.schedules import Linear

__all__ = ["Ramp", "RampLaw"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ramp:
    r"""Weight decay on a straight line in time, :math:`\lambda(t) = \lambda_0 \pm r t`, from `start` to `stop`.

    Parameters
    ----------
    start, stop : float
        λ > 0 at both ends. Downwards features are learned, upwards they are forgotten.
    rate : float
        r > 0 [weight decay / time]; for SGD, time is learning rate times steps.

    Raises
    ------
    InvalidParameterError
        For equal ends, or numbers that are not positive.

    Examples
    --------
    >>> ramp = Ramp(0.4, 0.1, rate=1e-4)
    >>> round(ramp.duration), ramp.down, round(ramp.time(0.3))
    (3000, True, 1000)
    >>> ramp.schedule(lr=0.1)([0, 10_000]).round(6).tolist()
    [0.4, 0.3]
    """

    start: float
    stop: float
    rate: float

    def __post_init__(self) -> None:
        for name in ("start", "stop", "rate"):
            object.__setattr__(self, name, checks.positive(name, getattr(self, name)))
        if self.start == self.stop:
            raise checks.invalid("stop", self.stop, f"another λ than start = {self.start:g}", "a ramp leads somewhere")

    @property
    def down(self) -> bool:
        """Whether λ falls, so that features are learned."""
        return self.stop < self.start

    @property
    def duration(self) -> float:
        """Time from start to stop."""
        return abs(self.stop - self.start) / self.rate

    def n_steps(self, lr: float) -> int:
        """Steps of SGD from start to stop.

        Parameters
        ----------
        lr : float

        Returns
        -------
        int
        """
        return round(self.duration / checks.positive("lr", lr))

    def schedule(self, lr: float) -> Linear:
        """The same ramp as a schedule of SGD with a constant learning rate.

        Parameters
        ----------
        lr : float

        Returns
        -------
        Linear
        """
        return Linear(self.start, self.stop, self.n_steps(lr))

    def weight_decay(self, time: ArrayLike) -> Array:
        """λ at `time`, held at the ends.

        Parameters
        ----------
        time : array_like

        Returns
        -------
        array, the shape of `time`
        """
        share = np.clip(np.asarray(time, dtype=np.float64) / self.duration, 0.0, 1.0)
        return np.asarray(self.start + (self.stop - self.start) * share)

    def time(self, weight_decay: ArrayLike) -> Array:
        """Time at which λ is reached.

        Parameters
        ----------
        weight_decay : array_like

        Returns
        -------
        array, the shape of `weight_decay`
        """
        return np.asarray((np.asarray(weight_decay, dtype=np.float64) - self.start) / (self.stop - self.start)) * (
            self.duration
        )


@dataclass(frozen=True, eq=False)
class RampLaw:
    """Predicted law of the escape along a ramp: a survival function of time, and of λ.

    Attributes
    ----------
    ramp : Ramp
    times : ndarray, shape (point,)
        Ascending, from 0 to the ramp's end [time].
    log_survival : ndarray, shape (point,)
        ln S there.
    method : str
    warnings : tuple of str
        What limits the prediction.
    """

    ramp: Ramp
    times: Array
    log_survival: Array
    method: str
    warnings: tuple[str, ...] = ()
    _curve: Callable[[Array], Array] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_curve", PchipInterpolator(self.times, self.log_survival, extrapolate=False))

    def survival(self, t: ArrayLike) -> Array:
        """Probability that the escape comes after `t` [time], up to the end of the ramp."""
        time = np.clip(np.asarray(t, dtype=np.float64), 0.0, self.times[-1])
        return np.asarray(np.exp(self._curve(time)))

    def survival_at(self, weight_decay: ArrayLike) -> Array:
        """Probability that λ is reached without an escape."""
        return self.survival(self.ramp.time(weight_decay))

    def density_at(self, weight_decay: ArrayLike) -> Array:
        """Probability density of the λ at escape [1 / weight decay]."""
        decay = np.asarray(weight_decay, dtype=np.float64)
        width = 0.5e-3 * abs(self.ramp.stop - self.ramp.start)
        edges = [
            np.clip(decay + s * width, min(self.ramp.start, self.ramp.stop), max(self.ramp.start, self.ramp.stop))
            for s in (-1, 1)
        ]
        change = self.survival_at(edges[1]) - self.survival_at(edges[0])
        return np.asarray(np.abs(change) / np.maximum(edges[1] - edges[0], 1e-300))

    @property
    def censored(self) -> float:
        """Probability of no escape until the ramp's end."""
        return float(np.exp(self.log_survival[-1]))

    def _moments(self) -> tuple[float, float]:
        decay, left = self.ramp.weight_decay(self.times), np.exp(self.log_survival)
        weights = -np.diff(left)
        middle = (decay[1:] + decay[:-1]) / 2
        mean = float(weights @ middle / weights.sum())
        return mean, float(np.sqrt(weights @ (middle - mean) ** 2 / weights.sum()))

    @property
    def mean(self) -> float:
        """Mean escape time [time], given an escape before the ramp's end."""
        return float(self.ramp.time(self._moments()[0]))

    @property
    def mean_weight_decay(self) -> float:
        """Mean λ at escape, given an escape before the ramp's end."""
        return self._moments()[0]

    @property
    def standard_deviation(self) -> float:
        """Standard deviation of the λ at escape, given an escape before the ramp's end."""
        return self._moments()[1]

    def quantile(self, p: float) -> float:
        """λ by which a share `p` has escaped.

        Raises
        ------
        InvalidParameterError
            Unless 0 < p < 1, or if fewer than that escape before the ramp's end.
        """
        wanted = np.log1p(-checks.fraction("p", p, "it is a probability"))
        if wanted < self.log_survival[-1]:
            raise checks.invalid("p", p, f"at most {1 - self.censored:.4g}", "the others stay until the ramp's end")
        return float(self.ramp.weight_decay(np.interp(-wanted, -self.log_survival, self.times)))
