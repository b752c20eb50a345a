"""Where a replica counts as escaped: always a threshold in an order parameter m."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.barrier import AnyBarrier
from kramers_grok.core.exceptions import InvalidParameterError

__all__ = ["Region", "beyond"]


@dataclass(frozen=True)
class Region:
    """The set of states whose order parameter has passed a threshold.

    Order parameters mean the same in the mode, the chain and the network, so one region serves all.

    Parameters
    ----------
    threshold : float
        Value of the order parameter at the border (unit of the singular value).
    above : bool
        True: escaped where m ≥ threshold (learned); False: where m ≤ threshold (forgotten).
    feature : int
        Which order parameter.

    Examples
    --------
    >>> Region(0.1).contains([0.05, 0.1, 0.2]).tolist()
    [False, True, True]
    """

    threshold: float
    above: bool = True
    feature: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", checks.finite("threshold", self.threshold))
        object.__setattr__(self, "feature", checks.positive_int("feature", self.feature, minimum=0))

    @property
    def sign(self) -> float:
        """+1 for a target above the threshold, −1 for one below."""
        return 1.0 if self.above else -1.0

    def contains(self, m: ArrayLike) -> NDArray[np.bool_]:
        """Whether order parameters `m` (any shape) lie in the region.

        Parameters
        ----------
        m : array_like

        Returns
        -------
        array of bool, the shape of `m`
        """
        return np.asarray(self.score(np.asarray(m, dtype=np.float64)) >= self.sign * self.threshold)

    def score(self, m: Any) -> Any:
        """Order parameter counted so that larger is closer to escape (arrays and tensors).

        Parameters
        ----------
        m : array or Tensor

        Returns
        -------
        array or Tensor, the shape of `m`
        """
        return self.sign * m


def beyond(barrier: AnyBarrier, fraction: float = 0.5) -> Region:
    """Return the region that begins well past a barrier.

    A crossing *to the barrier's top* takes half the time of an escape, and a target there makes a
    simulated process, watched at its steps only, look late by O(√dt). The border therefore lies at
    `saddle + fraction · (destination − saddle)` in the coordinates. For a matrix network these are the
    amplitudes of the layers, so mode, chain and network have the same border; for a barrier found numerically it is the
    arc length of its path.

    Parameters
    ----------
    barrier : Barrier, OrbitBarrier or NumericalBarrier
        The barrier that is crossed; the region watches its feature.
    fraction : float
        Position of the border, 0 (the top) to 1 (the state behind it), exclusive.

    Returns
    -------
    Region
        What `first_passage` and the exact times take as their ``target``.

    Raises
    ------
    InvalidParameterError
        If `fraction` is not strictly between 0 and 1, or the feature shares its singular value with another:
        the network then learns any mixture of them, and no threshold in one order parameter marks it.
    """
    weight = checks.fraction("fraction", fraction, "0 is the barrier's top and 1 the state behind it")
    if barrier.degeneracy > 1:
        raise InvalidParameterError(
            f"`barrier` is that of feature {barrier.feature}, one of {barrier.degeneracy} with equal singular value, "
            "expected a singular value of its own: the network learns any mixture of these features, so no threshold "
            "in one order parameter marks the escape.\n"
            "Use singular values that differ by some percent, or a score of your own that adds their order parameters."
        )
    above = barrier.order_parameter_at_destination > barrier.order_parameter_at_minimum
    return Region(threshold=barrier.order_parameter_beyond(weight), above=above, feature=barrier.feature)
