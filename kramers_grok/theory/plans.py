"""What SGD is set to: a setting, a plan of schedules, and the knobs that a design may turn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.schedules import Constant, Schedule

__all__ = ["BatchSizeKnob", "Knob", "LearningRateKnob", "Plan", "Setting", "WeightDecayKnob"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """What SGD is set to at a step.

    Parameters
    ----------
    lr : float
        η > 0 [time per step].
    batch_size : int
        B ≥ 1.
    weight_decay : float
        λ > 0.
    """

    lr: float
    batch_size: int
    weight_decay: float

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay"):
            object.__setattr__(self, name, checks.positive(name, getattr(self, name)))
        object.__setattr__(self, "batch_size", checks.positive_int("batch_size", self.batch_size))

    def temperature(self, noise_variance: float) -> float:
        """T = η g²/(2B) [loss].

        Parameters
        ----------
        noise_variance : float
            g² [gradient²].

        Returns
        -------
        float
        """
        return self.lr * noise_variance / (2 * self.batch_size)


@dataclass(frozen=True)
class Plan:
    """Schedules of learning rate, batch size and weight decay.

    Attributes
    ----------
    lr, batch_size, weight_decay : Schedule

    Examples
    --------
    >>> plan = Plan.constant(Setting(lr=0.1, batch_size=50, weight_decay=0.25))
    >>> plan.temperature([0, 7], noise_variance=2.0).tolist()
    [0.002, 0.002]
    """

    lr: Schedule
    batch_size: Schedule
    weight_decay: Schedule

    @classmethod
    def constant(cls, setting: Setting) -> Plan:
        """The same setting at every step.

        Parameters
        ----------
        setting : Setting
        """
        return cls(Constant(setting.lr), Constant(setting.batch_size), Constant(setting.weight_decay))

    def temperature(self, steps: ArrayLike, noise_variance: float) -> Array:
        """T = η g²/(2B) at `steps` [loss].

        Parameters
        ----------
        steps : array_like of int
        noise_variance : float
            g² [gradient²].

        Returns
        -------
        array, the shape of `steps`
        """
        return np.asarray(self.lr(steps) * noise_variance / (2 * np.rint(self.batch_size(steps))))


class Knob(Protocol):
    """Something a schedule may turn: from the final setting to a bound."""

    def settings(self, final: Setting, levels: int) -> list[Setting]:
        """Settings between the final one (included) and the bound.

        Parameters
        ----------
        final : Setting
        levels : int

        Returns
        -------
        list of Setting
        """
        ...


@dataclass(frozen=True)
class LearningRateKnob:
    """Learning rates from the final one up to `highest`.

    Attributes
    ----------
    highest : float
    """

    highest: float

    def settings(self, final: Setting, levels: int) -> list[Setting]:
        """Geometric levels of the learning rate."""
        return [replace(final, lr=float(v)) for v in np.geomspace(final.lr, self.highest, levels)]


@dataclass(frozen=True)
class BatchSizeKnob:
    """Batch sizes from the final one down to `smallest`.

    Attributes
    ----------
    smallest : int
    """

    smallest: int

    def settings(self, final: Setting, levels: int) -> list[Setting]:
        """Geometric levels of the batch size, rounded."""
        sizes = np.unique(np.rint(np.geomspace(final.batch_size, self.smallest, levels)).astype(int))
        return [replace(final, batch_size=int(v)) for v in sizes[::-1]]


@dataclass(frozen=True)
class WeightDecayKnob:
    """Weight decays from the final one down to `lowest`.

    Attributes
    ----------
    lowest : float
    """

    lowest: float

    def settings(self, final: Setting, levels: int) -> list[Setting]:
        """Equidistant levels of the weight decay."""
        return [replace(final, weight_decay=float(v)) for v in np.linspace(final.weight_decay, self.lowest, levels)]
