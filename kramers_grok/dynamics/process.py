"""What everything that watches a process needs: a Markov chain on a batch of replicas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import sympy
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.landscape import Landscape
from kramers_grok.core.region import Region

__all__ = [
    "Observed",
    "OrderParameter",
    "Process",
    "Record",
    "Score",
    "State",
    "Watch",
    "clone",
    "common_step",
    "resolve_device",
    "select",
    "starting_points",
]

MAX_REPLICAS = 2**32  # a stream number is one 32-bit word of the noise counter


@dataclass(frozen=True)
class State:
    """A batch of replicas at one step.

    Attributes
    ----------
    theta : Tensor, shape (replica, parameter)
    streams : Tensor of int64, shape (replica,)
        The noise stream of each replica: its number, whatever left before it.
    step : int
        Steps taken since the start (one clock for all).
    seed : int
        Key of the noise.
    buffers : mapping of str to Tensor, each of shape (replica, ...)
        What the chain remembers besides `theta` (the order of a shuffled epoch, say).
    """

    theta: Tensor
    streams: Tensor
    step: int
    seed: int
    buffers: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def n_replicas(self) -> int:
        """Number of replicas in the batch."""
        return int(self.theta.shape[0])


class Observed(Protocol):
    """What a score looks at: a process or a model."""

    def order_parameters(self, theta: Tensor) -> Tensor:
        """Order parameters of `theta` (replica, parameter); shape (replica, feature).

        Parameters
        ----------
        theta : Tensor, shape (replica, parameter)

        Returns
        -------
        Tensor, shape (replica, feature)
        """
        ...


class Score(Protocol):
    """A function of the parameters that grows on the way to escape: an order parameter, a committor estimate."""

    def values(self, observed: Observed, theta: Tensor) -> Tensor:
        """Scores of `theta` (replica, parameter), shape (replica,); any device, each row by itself.

        Parameters
        ----------
        observed : Observed
            The process or model whose parameters they are.
        theta : Tensor, shape (replica, parameter)

        Returns
        -------
        Tensor, shape (replica,)
        """
        ...

    def expression(self, landscape: Landscape) -> sympy.Expr | None:
        """Return the same in the landscape's coordinates, for compiled kernels; None leaves it to torch.

        Parameters
        ----------
        landscape : Landscape

        Returns
        -------
        sympy expression or None
        """
        ...


@dataclass(frozen=True)
class OrderParameter:
    """One feature's order parameter as a score: m, or −m for a target below.

    Attributes
    ----------
    feature : int
    sign : float
        +1 or −1.

    Examples
    --------
    >>> x = sympy.Symbol("x", real=True)
    >>> OrderParameter(sign=-1.0).expression(Landscape(x**2, (x,), (x**3,)))
    -x**3
    """

    feature: int = 0
    sign: float = 1.0

    def values(self, observed: Observed, theta: Tensor) -> Tensor:
        """±m of the feature, shape (replica,)."""
        m: Tensor = observed.order_parameters(theta).select(1, self.feature)
        return -m if self.sign < 0 else m

    def expression(self, landscape: Landscape) -> sympy.Expr | None:
        """±m of the feature, in the landscape's coordinates."""
        m = landscape.order_parameters[self.feature]
        return -m if self.sign < 0 else m


@dataclass(frozen=True)
class Watch:
    """What to look for at every step.

    Attributes
    ----------
    region : Region
        A replica whose order parameter lies in it has escaped and is frozen there.
    bridge : bool
        Count crossings of the region's border between two steps too: with the Brownian-bridge probability
        exp(−d₀ d₁ / (T dt)), d the distances to the border, taken flat over one step. Only for
        processes that approximate a diffusion.
    floor : float, optional
        A replica whose score is at or below it after a step has returned and is frozen there.
    score : Score, optional
        Larger is closer to escape; the region's own order parameter, or minus it, if not given. Under a score given
        here a replica inside the region counts as +∞.
    level : float, optional
        A replica whose score reaches it is frozen as if it had escaped. Default: the region alone.

    Raises
    ------
    InvalidParameterError
        If the floor does not lie below the level, the level lies behind the region's border, or a bridge is asked for
        a border that is not the region's.
    """

    region: Region
    bridge: bool = False
    floor: float | None = None
    score: Score | None = None
    level: float | None = None

    def __post_init__(self) -> None:
        if self.bridge and (self.score is not None or self.level is not None):
            raise InvalidParameterError(
                "`bridge` = True with a score or a level of its own, expected the region's border: only its distance "
                "is known between two steps.\nUse `bridge=False`: the process is then watched at its steps."
            )
        border = self.region.sign * self.region.threshold
        if self.score is None and self.level is not None and not self.level <= border:
            raise checks.invalid("level", self.level, f"at most the region's border {border:g}", "it would hide it")
        if self.floor is not None and not self.floor < self.hit_level:
            raise checks.invalid(
                "floor", self.floor, f"below the level {self.hit_level:g}", "a replica cannot be back and there at once"
            )

    @property
    def hit_level(self) -> float:
        """Score at which a replica is frozen as a hit; +∞ where only the region counts."""
        if self.level is not None:
            return self.level
        return self.region.sign * self.region.threshold if self.score is None else float("inf")


@dataclass(frozen=True)
class Record:
    """What happened to each replica while it advanced.

    Attributes
    ----------
    hit_step : Tensor of int64, shape (replica,)
        Step (counted from the start of the process) at which the replica was first in the region or at the level, −1
        if it was not. A crossing found by the bridge counts at the step's end.
    best : Tensor, shape (replica,)
        Highest score (order parameter, or minus it for a target below) seen at any step; +∞ in the region under a
        score of one's own.
    fell_step : Tensor of int64, shape (replica,)
        Step at which the replica was first at or below the floor, −1 if it was not: never both this and a hit.
    """

    hit_step: Tensor
    best: Tensor
    fell_step: Tensor


class Process(Protocol):
    """A Markov chain on a batch of replicas: Langevin and SGD alike."""

    @property
    def dt(self) -> float:
        """Time per step [time]; an error where steps differ (see `times`)."""
        ...

    def times(self, steps: ArrayLike, replicas: ArrayLike | None = None) -> NDArray[np.float64]:
        """Time before each step [time], in the shape of `steps`.

        Where replicas have clocks of their own: of every replica, shape (replica, …), or of the replica numbers
        `replicas`, one for each entry of `steps`.

        Parameters
        ----------
        steps : array_like of int
        replicas : array_like of int, optional
            Numbers of the replicas, in the shape of `steps`.

        Returns
        -------
        array
            [time]
        """
        ...

    @property
    def is_diffusion(self) -> bool:
        """Whether a step stands for continuous motion in between (then bridges make sense)."""
        ...

    @property
    def period(self) -> int:
        """Steps after which the chain's law repeats: states may share a clock where `step % period` is the same."""
        ...

    def start(self, n_replicas: int, *, seed: int, point: ArrayLike | None = None) -> State:
        """Return `n_replicas` replicas at `point` (the unlearned state if None), streams 0, 1, 2, …

        Parameters
        ----------
        n_replicas : int
        seed : int
            Of everything that the process draws.
        point : array_like, shape (parameter,) or (replica, parameter), optional

        Returns
        -------
        State
        """
        ...

    def advance(self, state: State, n_steps: int, watch: Watch | None = None) -> tuple[State, Record]:
        """Take `n_steps` steps; replicas that enter the watched region, or return, stay frozen where they did.

        Parameters
        ----------
        state : State
        n_steps : int
        watch : Watch, optional
            What to look for at every step.

        Returns
        -------
        State
            After the steps.
        Record
            First hit and highest score of each replica.
        """
        ...

    def order_parameters(self, theta: Tensor) -> Tensor:
        """Order parameters of `theta` (replica, parameter); shape (replica, feature).

        Parameters
        ----------
        theta : Tensor, shape (replica, parameter)

        Returns
        -------
        Tensor, shape (replica, feature)
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """Scalar coordinates of the result: engine, temperature, lr, … by the schema's names.

        Returns
        -------
        mapping of str to scalar or array
        """
        ...


def common_step(process: Process) -> float | None:
    """Return the time per step where all steps of all replicas are alike, otherwise None."""
    try:
        return process.dt
    except InvalidParameterError:
        return None


def select(state: State, index: Tensor) -> State:
    """Return the replicas `index` (int64 numbers or a mask) of a batch, with their streams."""
    return replace(
        state,
        theta=state.theta[index],
        streams=state.streams[index],
        buffers={name: buffer[index] for name, buffer in state.buffers.items()},
    )


def clone(state: State, index: Tensor, streams: Tensor) -> State:
    """Return copies of the replicas `index`, each with a new noise stream of its own.

    Parameters
    ----------
    streams : Tensor of int64, shape (len(index),)
        Stream numbers never used before under this seed, or the copies repeat another replica's noise.
    """
    return replace(select(state, index), streams=streams)


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device asked for; "auto" takes CUDA where there is one."""
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def starting_points(
    n_replicas: int, n_parameters: int, point: ArrayLike | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the start as a tensor of shape (replica, parameter), zeros if `point` is None."""
    if not 1 <= n_replicas < MAX_REPLICAS:
        raise InvalidParameterError(
            f"`n_replicas` = {n_replicas}, expected 1 to {MAX_REPLICAS - 1}: every replica has a noise stream."
        )
    if point is None:
        return torch.zeros((n_replicas, n_parameters), dtype=dtype, device=device)
    array = checks.finite_array("start", point, why="every replica begins at a point")
    start = torch.as_tensor(array).to(dtype=dtype, device=device)
    if tuple(start.shape) == (n_parameters,):
        start = start.expand(n_replicas, -1)
    if tuple(start.shape) != (n_replicas, n_parameters):
        raise InvalidParameterError(
            f"`start` has shape {tuple(start.shape)}, expected ({n_parameters},) or ({n_replicas}, {n_parameters}): "
            "one row is one replica.\nUse a single point to start all replicas there."
        )
    return start.clone()
