"""What a ladder of predictions holds, and how a run was made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from numpy.typing import ArrayLike

from kramers_grok.core import checks
from kramers_grok.theory.discrete_chain import DiscreteExitTime
from kramers_grok.theory.exit_law import ExitTime
from kramers_grok.theory.minibatch import MinibatchNoise, PathNoise

__all__ = ["FIRST_ORDER", "Ladder", "Setting"]

FIRST_ORDER = "first order in the step"


@dataclass(frozen=True)
class Setting:
    """How a run was made, as far as its mean exit time depends on it.

    Attributes
    ----------
    temperature : float
        Isotropic temperature T ≥ 0 [loss].
    step : float
        Time step or learning rate [time]; 0 is continuous time.
    bridged : bool
        Whether crossings between two steps were counted.
    minibatch : MinibatchNoise or PathNoise, optional
        Noise of the data on top of the temperature; of a numerical barrier's, a `PathNoise`.
    unknown_noise : bool
        Whether the data have a noise that no `MinibatchNoise` describes.
    start : array_like, optional
        As in `exit_time`.
    """

    temperature: float
    step: float
    bridged: bool
    minibatch: MinibatchNoise | PathNoise | None = None
    unknown_noise: bool = False
    start: ArrayLike | None = None

    @property
    def closed_noise(self) -> MinibatchNoise | None:
        """The minibatch noise of a closed form.

        Raises
        ------
        InvalidParameterError
            If it is that of a numerical barrier.
        """
        if isinstance(self.minibatch, PathNoise):
            raise checks.invalid(
                "minibatch", self.minibatch, "a MinibatchNoise",
                "a closed form's noise is a function of the feature",
                "Use `MinibatchNoise(lr / batch_size, residual_variance)`.",
            )  # fmt: skip
        return self.minibatch


@dataclass(frozen=True)
class Ladder:
    """Mean exit times [time], each with one effect more than the one before; NaN where it is not known.

    Attributes
    ----------
    asymptotic : float
        Leading order in T/ΔF, for this target.
    continuous : float
        Exact in continuous time, or by potential theory with a stated error; NaN for systems without either.
    stepped : float
        With the time step, crossings between steps counted. Without an exact solution: the asymptotic time with it.
    watched : float
        As watched: at the steps only, or the same as `stepped` with a bridge.
    made : float
        With the noise of the data: the run as it was made. NaN if that noise is not described.
    relative_error : float
        Largest relative numerical error of the rungs; of potential theory its stated one.
    time_step_method : str
        How the step was taken into account.
    notes : tuple of str
        What limits the prediction.
    law : ExitTime, DiscreteExitTime or None
        Distribution whose mean is `best`, where it comes from an exact solution.
    """

    asymptotic: float
    continuous: float
    stepped: float
    watched: float
    made: float
    relative_error: float
    time_step_method: str
    notes: tuple[str, ...] = ()
    law: ExitTime | DiscreteExitTime | None = field(default=None, repr=False, compare=False)

    @property
    def best(self) -> float:
        """The most complete prediction."""
        return self.watched if math.isnan(self.made) else self.made
