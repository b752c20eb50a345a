r"""What frees a trapped network, for a given training: nothing, the optimizer, an instability, or a rare event?

A training at one batch size cannot tell. Here it is repeated at several batch sizes and once without any noise. What
leaves without noise is *deterministic*. What never leaves is *absorbing*, and for plain gradient descent with
minibatches the growth rate of the unused directions says whether that is a law or just a short horizon. For the rest
the law is chosen by likelihood: an *instability* above a threshold of η/B, Arrhenius' law, or a power law.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike

from kramers_grok.analysis.law_choice import LawChoice, choose_law
from kramers_grok.analysis.laws import ExitTimes
from kramers_grok.core import checks
from kramers_grok.core.exceptions import DivergedError, InvalidParameterError, NoBarrierError
from kramers_grok.core.region import Region
from kramers_grok.dynamics.growth import growth_rate
from kramers_grok.dynamics.optimizers import GradientDescent
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.escape.protocols.trap import without_noise
from kramers_grok.models.deep_linear import DeepLinearNetwork

__all__ = ["Diagnosis", "diagnose"]

GROWTH_REPLICAS = 16


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What lets replicas out of a trap.

    Attributes
    ----------
    verdict : str
        "absorbing", "deterministic", "instability", "arrhenius", "power", "undecided" or "none" (no law fits).
    reason : str
        Why, in words.
    choice : LawChoice
        The laws fitted to all runs, with intervals; ``choice.fit`` is the best one's.
    runs : tuple of Dataset
        First passages: without noise first, then one for each batch size.
    growth : Dataset or None
        Growth rate of the unused directions at the training's own batch size, where it is defined.
    diverged : tuple of int
        Batch sizes left out because replicas blew up.
    """

    verdict: str
    reason: str
    choice: LawChoice
    runs: tuple[xr.Dataset, ...]
    growth: xr.Dataset | None = None
    diverged: tuple[int, ...] = ()

    def __str__(self) -> str:
        left = f" (left out, because they blew up: batch {', '.join(map(str, self.diverged))})" if self.diverged else ""
        return f"{self.verdict}: {self.reason}{left}"


def diagnose(
    process: SGD,
    *,
    target: Region,
    start: ArrayLike,
    batch_sizes: Sequence[int],
    n_replicas: int,
    max_time: float,
    seed: int,
    level: float = 0.05,
    growth_steps: int = 4000,
) -> Diagnosis:
    r"""Say whether a trapped state is absorbing, escapes above a threshold, or by a law of rare events.

    Parameters
    ----------
    process : SGD
        The training: network, data, optimizer, sampler, noise; constant hyperparameters.
    target : Region
        Where a replica counts as escaped.
    start : array_like, shape (parameter,) or (n_replicas, parameter)
        The trap, as it is left in practice: exact zeros in unused weights cannot grow, small ones can
        (`kramers_grok.studies.attribution.near`).
    batch_sizes : sequence of int
        Different batch sizes, at best over a decade; η stays, so they set the noise η/B.
    n_replicas : int
        For each of them.
    max_time : float
        Horizon of each run [time].
    seed : int
        Key of batches and noise; every run has a seed derived from it.
    level : float
        Chance of a false alarm against each rival law, see `kramers_grok.analysis.law_choice.choose_law`.
    growth_steps : int
        Steps over which the growth rate of unused directions is measured, where it is defined.

    Returns
    -------
    Diagnosis

    Raises
    ------
    InvalidParameterError
        For fewer than two batch sizes, or hyperparameters that are not numbers.
    DivergedError
        If replicas blew up at every batch size, or without noise.

    Notes
    -----
    "absorbing" means that nothing escaped by `max_time`; for minibatch gradient descent from a state of rank r ≥ 1 it
    is said only if the measured growth rate is negative as well, and "undecided" otherwise.

    Examples
    --------
    >>> import kramers_grok as kg
    >>> chain = kg.DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> sgd = kg.SGD(chain, kg.teacher(label_noise=1.0), lr=0.1, batch_size=4)
    >>> found = diagnose(sgd, target=kg.beyond(chain.barrier()), start=[1e-3] * 3, batch_sizes=[1, 4, 16],
    ...     n_replicas=64, max_time=100.0, seed=0)
    >>> found.verdict
    'absorbing'
    """
    sizes = _sizes(process, batch_sizes)
    seeds = [int(s.generate_state(1)[0]) for s in np.random.SeedSequence(checks.seed(seed)).spawn(len(sizes) + 2)]
    still = without_noise(process)

    def run(training: SGD, number: int) -> xr.Dataset:
        return first_passage(
            training, target=target, n_replicas=n_replicas, max_time=max_time, seed=seeds[number], start=start
        )

    runs, strengths = [run(still, 0)], [0.0]
    diverged: list[int] = []
    for number, size in enumerate(sizes, start=1):
        try:
            runs.append(run(process.replace(batch_size=size), number))
            strengths.append(process.dt / size)
        except DivergedError:
            if len(diverged) + 1 == len(sizes):
                raise
            diverged.append(size)
    choice = choose_law(ExitTimes.of_runs(runs, x=strengths), seed=seed, level=level)
    growth = _growth(process, start, growth_steps, seeds[-1])
    verdict, reason = _verdict(choice, growth, process)
    return Diagnosis(verdict, reason, choice, tuple(runs), growth, tuple(diverged))


def _sizes(process: SGD, batch_sizes: Sequence[int]) -> list[int]:
    sizes = [checks.positive_int("batch_sizes", size) for size in batch_sizes]
    if len(set(sizes)) < max(2, len(sizes)):
        raise checks.invalid(
            "batch_sizes", sizes, "at least two different numbers", "a law says how time changes with the noise",
            "Use `batch_sizes=[1, 2, 4, 8, 16]`.",
        )  # fmt: skip
    if not isinstance(process.lr, float) or not isinstance(process.weight_decay, float):
        raise InvalidParameterError(
            "`lr` or `weight_decay` follows a schedule or differs between replicas, expected one number each: the "
            "noise would have no one strength.\nUse `process.replace(lr=0.1, weight_decay=0.02)`."
        )
    return sizes


def _growth(process: SGD, start: ArrayLike, n_steps: int, seed: int) -> xr.Dataset | None:
    """Growth of the unused directions; None where that theory does not hold or no feature is learned."""
    network = process.model
    plain = isinstance(process.optimizer, GradientDescent) and process.noise is None and not process.activation_noise
    if not (plain and isinstance(network, DeepLinearNetwork) and network.is_white):
        return None
    point = torch.as_tensor(np.atleast_2d(np.asarray(start, dtype=np.float64)))[:1]
    m = network.order_parameters(point)[0].numpy()
    rank = int((m > 0.5 * network.singular_values).sum())
    if rank == 0 or rank >= min(network.widths[1:-1]):
        return None
    try:
        return growth_rate(process, rank=rank, n_steps=n_steps, n_replicas=GROWTH_REPLICAS, seed=seed)
    except (DivergedError, InvalidParameterError, NoBarrierError):
        return None  # the trap itself does not last at this noise


def _verdict(choice: LawChoice, growth: xr.Dataset | None, process: SGD) -> tuple[str, str]:
    verdict = "instability" if choice.verdict == "growth" else choice.verdict
    if verdict != "absorbing" or growth is None:
        return verdict, choice.reason
    rate = growth.growth_rate.values.max()
    said = f"unused directions grow at {rate:.3g} per unit time at batch {process.batch_size}"
    if str(growth.verdict.item()) == "absorbing":
        return verdict, f"{choice.reason}; {said}"
    return "undecided", f"{choice.reason}, but {said}: the horizon may be too short"
