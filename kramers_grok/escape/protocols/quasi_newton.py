r"""The end of a descent by a quasi-Newton iteration on a leash.

Between two jumps a sweep follows one minimum, and how it gets from the minimum at one λ to that at the next is of no
consequence: the minimum that continues is the only one near. Gradient descent takes long there, along directions that
are nearly flat (the rotations of hidden units, which an activation function breaks only a little). Limited-memory BFGS
(Byrd, Lu, Nocedal & Zhu, SIAM J. Sci. Comput. 16, 1190 (1995)) finishes such a stretch.

It does not keep to a basin by itself. So the first step is short, and as soon as an order parameter has moved by more
than the leash everything is thrown away: then plain gradient descent goes on instead, and so passes every jump.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.protocols.certificate import full_gradient
from kramers_grok.models.base import SampleModel
from kramers_grok.models.data import FiniteData

__all__ = ["finish"]

Array = NDArray[np.float64]

_FIRST_STEP = 1e-2  # of the line search [weight]: scipy's own first step has length 1, whatever the gradient
_ITERATIONS = 1000
_LOOK = 8  # iterations between two looks at the order parameters
_MEMORY = 30


def finish(process: SGD, theta: Tensor, *, threshold: float, leash: float) -> Tensor | None:
    """Go from points of descent to the minima beside them, or return None.

    Parameters
    ----------
    process : SGD
        Plain gradient descent on all samples; its model learns from samples.
    theta : Tensor, shape (replica, parameter)
        float64, on the CPU.
    threshold : float
        ‖∇F‖ to be reached [loss/weight].
    leash : float
        How far an order parameter may move.

    Returns
    -------
    Tensor of the shape of `theta`, or None
        None as soon as one replica's iteration runs out of the leash, or does not get there.

    Raises
    ------
    InvalidParameterError
        For a model that does not learn from samples.
    """
    ends = []
    for row in theta:
        end = _Leashed(process, row, leash).finished(threshold)
        if end is None:
            return None
        ends.append(end)
    return torch.stack(ends)


class _LeftError(Exception):
    """An order parameter moved too far."""


class _Leashed:
    """One replica's energy around the point where descent stands."""

    def __init__(self, process: SGD, theta: Tensor, leash: float) -> None:
        self.process, self.start, self.leash = process, theta, leash
        self.decay = float(process.weight_decay)
        model, data = process.model, process.data
        if not isinstance(model, SampleModel):
            raise InvalidParameterError(
                f"`quasi_newton` is True for a {type(model).__name__}, expected a model that learns from samples, as "
                "`MLP`: the energy of all samples is asked for.\nUse `Settling(quasi_newton=False)`."
            )
        whole = data if isinstance(data, FiniteData) else model.data
        assert whole is not None  # a sweep's process has its data
        self.model = model
        self.x, self.y = (torch.as_tensor(a, dtype=torch.float64)[None] for a in (whole.x, whole.y))
        self.gradient = full_gradient(process)
        self.origin = self._order_parameters(theta)

    def finished(self, threshold: float) -> Tensor | None:
        """End of the iteration, or None."""
        try:
            theta = self._quasi_newton(threshold)
        except _LeftError:
            return None
        arrived = float(self.gradient(theta[None])[0].norm()) <= threshold
        return theta if arrived and self._within(theta) else None

    def _quasi_newton(self, threshold: float) -> Tensor:
        # Scaled so that a step of length 1 in u is short in the weights.
        def both(u: Array) -> tuple[float, Array]:
            theta = self._point(u)
            energy = self.model.sample_loss(theta[None], self.x, self.y) + 0.5 * self.decay * theta.square().sum()
            return float(energy), _FIRST_STEP * self.gradient(theta[None])[0].numpy()

        count = 0

        def watch(u: Array) -> None:
            nonlocal count
            count += 1
            if count % _LOOK == 0 and not self._within(self._point(u)):
                raise _LeftError

        # scipy compares the largest component; the norm is at most √(parameters) times that.
        limits: Any = {"maxcor": _MEMORY, "maxfun": 2 * _ITERATIONS, "maxiter": _ITERATIONS, "ftol": 0.0}
        limits["gtol"] = _FIRST_STEP * threshold / len(self.start) ** 0.5
        search: Any = minimize  # its annotations refuse functions that they ought to take
        found = search(both, np.zeros(len(self.start)), jac=True, method="L-BFGS-B", callback=watch, options=limits)
        return self._point(found.x)

    def _point(self, u: Array) -> Tensor:
        return self.start + _FIRST_STEP * torch.from_numpy(np.array(u, dtype=np.float64))

    def _order_parameters(self, theta: Tensor) -> Tensor:
        return self.process.order_parameters(theta[None])[0].cpu().to(torch.float64)

    def _within(self, theta: Tensor) -> bool:
        return float((self._order_parameters(theta) - self.origin).abs().max()) <= self.leash
