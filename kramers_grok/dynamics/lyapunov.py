"""What measurements of Lyapunov exponents beside a training network share: conditions, blocks of time, errors.

`kramers_grok.dynamics.growth` has the exact equations of deep linear networks, `kramers_grok.dynamics.transverse` pairs
of any networks; a rate and its interval come out of both in the same way.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from kramers_grok.core import checks
from kramers_grok.core.exceptions import DivergedError, InvalidParameterError, ValidityWarning
from kramers_grok.dynamics.optimizers import GradientDescent
from kramers_grok.dynamics.sgd import SGD

__all__ = ["BLOCKS", "EVERY", "BlockRates", "check_finite", "check_training", "replicas", "settling", "warn_left_out"]

Array = NDArray[np.float64]

EVERY = 8  # steps between two rescalings: what grows stays small, and far above rounding
BLOCKS = 8
MOST_GONE = 0.25  # share of backgrounds that may diverge; the others are no longer a fair sample then
FALSE_ALARM = 1e-4  # of the warning that a run drifts
ROUNDING = 1e-6  # of rates, where nothing is random


def check_training(process: SGD) -> None:
    """Raise unless a process is plain gradient descent at one setting, with minibatches as the only noise."""
    if not isinstance(process.optimizer, GradientDescent):
        raise InvalidParameterError(
            f"`optimizer` = {process.optimizer}, expected GradientDescent: the memory of another takes part in the "
            "growth.\nUse `process.replace(optimizer=GradientDescent())`."
        )
    noise = process.noise is not None and bool(np.any(process.noise_variance))
    if noise or getattr(process, "activation_noise", None) is not None:
        raise InvalidParameterError(
            "`process` has noise besides its minibatches, expected none: noise that does not vanish with the weights "
            "drives unused directions at any amplitude, and no state is absorbing.\n"
            "Use `process.replace(noise=None, activation_noise=None)`."
        )
    for name in ("lr", "batch_size", "weight_decay"):
        if not isinstance(getattr(process, name), int | float):
            raise InvalidParameterError(
                f"`{name}` changes or differs between replicas, expected one number: a growth rate belongs to one "
                f"setting.\nUse `process.replace({name}=…)`."
            )


def replicas(n_replicas: int) -> int:
    """Return a number of replicas that gives an error."""
    return checks.positive_int("n_replicas", n_replicas, minimum=8, why="the error is taken from their differences")


def settling(process: SGD, burn_in: int | None) -> int:
    """Return the steps before measuring: 4/(ηλ) if none are given, in which imbalance forgets its start to e^-8."""
    if burn_in is not None:
        return checks.positive_int("burn_in", burn_in, minimum=0)
    decay = float(process.lr) * float(process.weight_decay)
    if decay == 0.0:
        raise checks.invalid("burn_in", None, "a number of steps", "without weight decay there is no time 4/(ηλ)")
    return int(np.ceil(4 / decay))


def check_finite(finite: NDArray[np.bool_], step: int, *, meaning: str, fix: str) -> None:
    """Raise if more than a quarter of the backgrounds left the finite numbers."""
    gone = np.flatnonzero(~finite)
    if len(gone) > MOST_GONE * len(finite):
        raise DivergedError(
            f"{len(gone)} of {len(finite)} backgrounds left the finite numbers by step {step}: {meaning}.\n{fix}",
            replicas=gone.tolist(),
            step=step,
        )


def warn_left_out(which: NDArray[np.bool_], what: str, step: int) -> None:
    """Warn of backgrounds that are no longer counted, if there are any; from a method of a measurement's run."""
    if which.any():
        text = f"{int(which.sum())} of {len(which)} backgrounds {what} by step {step}; they are left out."
        warnings.warn(text, ValidityWarning, stacklevel=4)


@dataclass(frozen=True, eq=False)
class BlockRates:
    """Growth rates with errors from replicas and blocks of time.

    Attributes
    ----------
    block_growth_rate : ndarray, shape (direction, replica, block)
        What was measured [1/time].
    growth_rate, growth_rate_error, growth_rate_lower, growth_rate_upper : ndarray, shape (direction,)
        Mean, standard error (the larger of that over replicas and that over blocks of time), and the interval, for all
        directions together (Bonferroni).
    """

    block_growth_rate: Array
    growth_rate: Array
    growth_rate_error: Array
    growth_rate_lower: Array
    growth_rate_upper: Array

    @classmethod
    def of(cls, rates: Array, confidence: float) -> Self:
        """Return means and intervals; warns if growth in the two halves of the run differs.

        Parameters
        ----------
        rates : ndarray, shape (direction, replica, block)
        confidence : float
        """
        count, n_replicas, blocks = rates.shape
        by_replica, by_block = rates.mean(axis=2), rates.mean(axis=1)
        errors = [a.std(axis=1, ddof=1) / a.shape[1] ** 0.5 for a in (by_replica, by_block)]
        error = np.maximum(*errors)
        freedom = np.where(errors[0] >= errors[1], n_replicas - 1, blocks - 1)
        reach = stats.t.isf((1 - confidence) / (2 * count), freedom) * error
        mean = by_replica.mean(axis=1)
        _check_drift(rates)
        return cls(rates, mean, error, mean - reach, mean + reach)

    def variables(self, direction: str) -> dict[str, tuple[str | tuple[str, ...], object]]:
        """Return the variables of a dataset, along a dimension of this name."""
        names = ("growth_rate", "growth_rate_error", "growth_rate_lower", "growth_rate_upper")
        along: dict[str, tuple[str | tuple[str, ...], object]] = {n: (direction, getattr(self, n)) for n in names}
        return along | {"block_growth_rate": ((direction, "replica", "block"), self.block_growth_rate)}


def _check_drift(rates: Array) -> None:
    """Warn if growth changes along the run by more than its scatter over replicas lets it by chance."""
    count, n_replicas, blocks = rates.shape
    change = rates[..., blocks // 2 :].mean(axis=2) - rates[..., : blocks // 2].mean(axis=2)
    # The scatter between blocks is no measure here: a drift is part of it, and larger than itself it never is.
    error = change.std(axis=1, ddof=1) / n_replicas**0.5
    by_chance = stats.t.isf(FALSE_ALARM / (2 * count), n_replicas - 1) * error + ROUNDING
    drift = np.abs(change.mean(axis=1))
    worst = int(np.argmax(drift / by_chance))
    if drift[worst] > by_chance[worst]:
        warnings.warn(
            f"The growth rate changed by {drift[worst]:.3g} between the halves of the run, more than the "
            f"{by_chance[worst]:.3g} that may be chance: the background had not settled, or leaves its state.\n"
            "Use a longer `burn_in`, and look at the background's norms in the result.",
            ValidityWarning,
            stacklevel=5,
        )
