r"""Quasi-static sweeps in weight decay: the discrete trainer without noise, settled and certified at every value.

At each λ plain gradient descent goes on from where it settled at the last one, until the gradient is small. A sweep
says at which values it did not settle, certifies minima (`kramers_grok.escape.protocols.certificate`), and brackets
every jump between the last certified minimum before it and the first value after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kramers_grok.core import checks, schema
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.optimizers import GradientDescent
from kramers_grok.dynamics.sampling import FullBatch
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.protocols.certificate import Certificate, certify, full_gradient
from kramers_grok.escape.protocols.settling import Settling, decay_of, gradient_norms, plain, settle, to_the_bottom
from kramers_grok.landscape.flow import FLOW_LIMIT
from kramers_grok.models.data import FiniteData, Population

__all__ = [
    "sweep",
]

Array = NDArray[np.float64]
_DEEPER = 1e-4  # of the tolerance, for a certificate


@dataclass(frozen=True, eq=False)
class _Point:
    """One value of the sweep."""

    weight_decay: float
    theta: Tensor  # (1, parameter)
    order_parameters: Array
    gradient_norm: float
    settled: bool
    steps: int
    certificate: Certificate | None = None

    @property
    def certified(self) -> bool:
        """Whether it is known to be a minimum."""
        return self.settled and self.certificate is not None and bool(self.certificate.is_minimum[0])


def sweep(
    process: SGD, weight_decays: ArrayLike, *, start: ArrayLike, seed: int, settling: Settling | None = None
) -> xr.Dataset:
    """Sweep the weight decay slowly through given values, in their order, by full-batch gradient descent.

    Parameters
    ----------
    process : SGD
        Plain gradient descent on the population or on all samples, without noise; its own weight decay does not
        matter. Its learning rate must be stable all along: see `stable_lr`.
    weight_decays : array_like, shape (n,)
        At least two values > 0, rising or falling [loss/weight²].
    start : array_like, shape (parameter,)
    seed : int
        Kept with the result; without noise it is of no consequence.
    settling : Settling, optional

    Returns
    -------
    xarray.Dataset
        Along ``weight_decay`` (the given values and those of the bisections): ``order_parameter`` (and ``feature``),
        ``gradient_norm``, ``settled``, ``certified`` (False also where no certificate was made), ``curvature`` (NaN
        there), ``n_zero_modes`` (−1 there), ``steps``. Along ``feature``: ``jump``, the change of m in its first jump
        (NaN without one), between ``before``, the last certified minimum, and ``after``. ``theta`` (parameter): the
        weights at the end.

    Raises
    ------
    InvalidParameterError
        For a process with noise or another optimizer, or values that are not positive and monotonic.
    DivergedError
        If the learning rate is too large.

    Examples
    --------
    >>> from kramers_grok.models.data import population
    >>> from kramers_grok.models.deep_linear import DeepLinearNetwork
    >>> network = DeepLinearNetwork((2, 2, 2, 2), [2.0, 1.0], weight_decay=0.4)
    >>> descent = SGD(network, population(), lr=0.1)
    >>> up = sweep(descent, [0.45, 0.47, 0.48], start=network.ordered_state([0, 1]), seed=0)
    >>> up.certified.values.tolist(), abs(up.order_parameter).round(3).values[-1].tolist()
    ([True, True, True], [1.589, 0.0])
    >>> float(up.before[1]), float(up.after[1])
    (0.47, 0.48)
    """
    settling = settling or Settling()
    decays = checks.finite_array("weight_decays", weight_decays, ndim=1)
    steps = np.diff(decays)
    if decays.size < 2 or decays.min() <= 0 or not ((steps > 0).all() or (steps < 0).all()):
        raise checks.invalid(
            "weight_decays", checks.Described(f"{decays.size} value(s) from {decays[0]:g} to {decays[-1]:g}"),
            "two or more numbers > 0, rising or falling", "a sweep goes one way",
            "Use `np.geomspace(lowest, highest, n)`, and `[::-1]` for the way back.",
        )  # fmt: skip
    _require_descent(process)
    theta = torch.as_tensor(checks.finite_array("start", np.asarray(start), ndim=1))[None]
    walk = _Walk(process, settling, checks.seed(seed))
    points = walk.through(decays.tolist(), theta)
    return walk.dataset(points)


@dataclass(frozen=True)
class _Walk:
    """A sweep on its way."""

    process: SGD
    settling: Settling
    seed: int

    def through(self, decays: Sequence[float], theta: Tensor) -> list[_Point]:
        points: list[_Point] = []
        every = self.settling.certify_every
        for number, decay in enumerate(decays):
            examine = bool(every) and number % every == 0
            while not points or points[-1].weight_decay != decay:
                points += self.towards(decay, points[-1] if points else None, theta, examine)
        return points

    def towards(self, decay: float, last: _Point | None, theta: Tensor, examine: bool) -> list[_Point]:
        """Visit a value; where something jumps on the way, halve the way and end behind the first jump."""
        here = self.visit(decay, theta if last is None else last.theta, examine)
        passed: list[_Point] = []
        for _ in range(self.settling.bisections):
            if last is None or not self.jumps(last, here).any():
                break
            middle = self.visit((last.weight_decay * here.weight_decay) ** 0.5, last.theta, examine)
            if self.jumps(last, middle).any():
                here = middle
            else:
                last = middle
                passed.append(middle)
        return [*passed, here]

    def visit(self, decay: float, theta: Tensor, examine: bool) -> _Point:
        """Settle at a value; where the certificate finds a way down, take it."""
        process = self.process.replace(weight_decay=decay)
        limit = self.settling
        if limit.kick:
            rng = np.random.default_rng([self.seed, *np.array([decay]).view(np.uint32).tolist()])
            theta = theta.cpu() + limit.kick * torch.from_numpy(rng.standard_normal(theta.shape))
        theta, norm, steps = settle(process, theta, limit, seed=self.seed)
        point = self._point(process, theta, norm, steps)
        if not examine:
            return point
        point = self.certified(point)
        while self._at_saddle(point) and steps < limit.max_steps:
            theta, taken = self._leave(process, theta, limit.max_steps - steps)
            steps += taken
            theta, norm, taken = settle(process, theta, replace(limit, max_steps=limit.max_steps - steps + 1))
            steps += taken
            point = self.certified(self._point(process, theta, norm, steps))
        return point

    def _point(self, process: SGD, theta: Tensor, norm: Array, steps: int) -> _Point:
        m = process.order_parameters(theta)[0].cpu().numpy()
        threshold = self.settling.tolerance * decay_of(process) * self.settling.scale
        return _Point(decay_of(process), theta, m, float(norm[0]), bool(norm[0] <= threshold), steps)

    def certified(self, point: _Point) -> _Point:
        if point.certificate is not None:
            return point
        if self.settling.quasi_newton and point.settled and self.process.model.n_parameters <= FLOW_LIMIT:
            point = self._deeper(point)
        gradient = full_gradient(self.process, point.weight_decay)
        found = certify(gradient, self.process.model, point.theta, scale=self.settling.scale)
        return replace(point, certificate=found)

    def _deeper(self, point: _Point) -> _Point:
        """The same minimum to a smaller gradient; the point itself if the flow leads elsewhere."""
        process = self.process.replace(weight_decay=point.weight_decay)
        threshold = _DEEPER * self.settling.tolerance * point.weight_decay * self.settling.scale
        theta = to_the_bottom(process, point.theta, threshold)
        norm = gradient_norms(full_gradient(process)(plain(theta)))
        deeper = self._point(process, theta, norm, point.steps)
        return point if self.jumps(point, deeper).any() else deeper

    @staticmethod
    def _at_saddle(point: _Point) -> bool:
        return point.settled and point.certificate is not None and bool(point.certificate.index[0])

    def _leave(self, process: SGD, theta: Tensor, most: int) -> tuple[Tensor, int]:
        """Descend from a saddle until the gradient has grown."""
        gradient = full_gradient(process)
        wanted = 10 * self.settling.tolerance * decay_of(process) * self.settling.scale
        state = process.start(1, seed=self.seed, point=theta.cpu().numpy())
        while state.step < most and gradient_norms(gradient(plain(state.theta)))[0] < wanted:
            state, _ = process.advance(state, min(8 * self.settling.first_check, most - state.step))
        return state.theta, state.step

    def jumps(self, before: _Point, after: _Point) -> NDArray[np.bool_]:
        """Which features jump between two points."""
        one, two = np.abs(before.order_parameters), np.abs(after.order_parameters)
        change = np.abs(after.order_parameters - before.order_parameters)
        share = self.settling.smallest_share
        return np.asarray((change > self.settling.smallest_jump) & (change > share * np.maximum(one, two)))

    def dataset(self, points: list[_Point]) -> xr.Dataset:
        n_features = len(points[0].order_parameters)
        jump, lower, upper = (np.full(n_features, np.nan) for _ in range(3))
        pairs = [self.jumps(*pair) for pair in pairwise(points)]
        for i, found in enumerate(pairs):
            if found.any():
                points[i] = self.certified(points[i])
        for k in range(n_features):
            first = next((i for i, found in enumerate(pairs) if found[k]), None)
            if first is None:
                continue
            jump[k] = points[first + 1].order_parameters[k] - points[first].order_parameters[k]
            upper[k] = points[first + 1].weight_decay
            points[first + 1] = self.certified(points[first + 1])
            for i in range(first, -1, -1):
                points[i] = self.certified(points[i])
                if points[i].certified:
                    lower[k] = points[i].weight_decay
                    break
        return _labelled(self, points, jump, lower, upper)


def _labelled(walk: _Walk, points: Sequence[_Point], jump: Array, lower: Array, upper: Array) -> xr.Dataset:
    process = walk.process
    made = [p.certificate for p in points]
    along: dict[str, tuple[Any, str, str]] = {
        "gradient_norm": ([p.gradient_norm for p in points], "loss/weight", "gradient norm"),
        "settled": ([p.settled for p in points], "1", "gradient below the tolerance"),
        "certified": ([p.certified for p in points], "1", "certified as a minimum"),
        "curvature": (
            [np.nan if c is None else float(c.smallest[0]) for c in made],
            "loss/weight²",
            "smallest curvature apart from zero modes",
        ),
        "n_zero_modes": ([-1 if c is None else int(c.n_zero_modes[0]) for c in made], "1", "zero modes"),
        "steps": ([p.steps for p in points], "steps", "steps of descent"),
    }
    of_features = {
        "jump": (jump, "1", "change of m in the first jump"),
        "before": (lower, "loss/weight²", "last certified minimum before the jump"),
        "after": (upper, "loss/weight²", "first weight decay after the jump"),
    }
    m = np.array([p.order_parameters for p in points])
    coords: dict[str, Any] = {
        "weight_decay": ("weight_decay", [p.weight_decay for p in points], describe("weight_decay")),
        "feature": ("feature", np.arange(m.shape[1]), describe("feature")),
        "lr": ((), float(process.lr), describe("lr")),
    }
    spectrum, depth = getattr(process.model, "spectrum", None), getattr(process.model, "depth", None)
    if spectrum is not None and depth is not None and spectrum.rank == m.shape[1]:
        coords["spinodal"] = ("feature", spectrum.spinodals(depth), describe("spinodal"))
        coords["depth"] = ((), depth, describe("depth"))
    weights = points[-1].theta[0].cpu().numpy()
    return xr.Dataset(
        {
            "order_parameter": (("weight_decay", "feature"), m, describe("order_parameter")),
            **{k: ("weight_decay", v, {"units": u, "long_name": n}) for k, (v, u, n) in along.items()},
            **{k: ("feature", v, {"units": u, "long_name": n}) for k, (v, u, n) in of_features.items()},
            "theta": ("parameter", weights, {"units": "weight", "long_name": "weights at the end of the sweep"}),
        },
        coords=coords,
        attrs=schema.provenance(
            seed=walk.seed,
            dtype=str(process.dtype).removeprefix("torch."),
            device=str(process.device),
            configuration={"settling": walk.settling, "lr": float(process.lr), "n_parameters": weights.size},
        ),
    )


def _require_descent(process: SGD) -> None:
    full = isinstance(process.data, Population) or (
        isinstance(process.data, FiniteData) and isinstance(process.sampler, FullBatch)
    )
    plain = isinstance(process.optimizer, GradientDescent) and not process.optimizer.decoupled
    if not full or process.noise is not None or not plain:
        raise InvalidParameterError(
            f"`process` draws from {type(process.data).__name__} with {type(process.optimizer).__name__} and noise = "
            f"{process.noise}, expected plain gradient descent on all data: with noise nothing settles.\n"
            "Use `SGD(model, population(), lr=...)`, or `SGD(model, finite(x, y), lr=...)` without a batch size."
        )
