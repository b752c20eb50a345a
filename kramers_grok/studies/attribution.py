"""What lets a network out of a trap: the optimizer, or the noise? The difference of full batches and minibatches tells.

Replicas start in the trap with small weights in all unused directions. What they do on the full batch is
*deterministic*. What only minibatches do is *noise-driven*. What neither does within the horizon is called *absorbing*,
as far as so many replicas can tell. In between the data are *undecided*. The test behind it is Fisher's exact one, so
the share of false alarms is known exactly: `false_alarm_rate`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.region import Region
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.models.data import FiniteData

__all__ = [
    "BATCHES",
    "LEVEL",
    "Attribution",
    "attribute",
    "attribution",
    "counted",
    "false_alarm_rate",
    "near",
]

Array = NDArray[np.float64]

#: Level of Fisher's test for the difference between full batch and minibatches.
LEVEL = 1e-3
BATCHES = ("full batch", "minibatch")


@dataclass(frozen=True)
class Attribution:
    """What lets replicas escape, and how sure that is.

    Attributes
    ----------
    cause : str
        "deterministic", "noise-driven", "absorbing" or "undecided".
    p_value : float
        Fisher's exact test, one-sided, of more escapes under minibatches than on the full batch.
    full_share, minibatch_share : tuple of float
        Exact 95 % confidence intervals (Clopper and Pearson) of the shares that escape: of an absorbing state the
        upper ends say what has been excluded.
    """

    cause: str
    p_value: float
    full_share: tuple[float, float]
    minibatch_share: tuple[float, float]


def attribute(full: int, minibatch: int, n_replicas: int, *, level: float = LEVEL) -> Attribution:
    """Say what lets replicas escape, by the difference between the full batch and minibatches.

    Parameters
    ----------
    full, minibatch : int
        Replicas that escaped on the full batch and under minibatches.
    n_replicas : int
        Replicas of either.
    level : float
        Level of Fisher's test; the attribution's own rate of false alarms is lower, see `false_alarm_rate`.

    Raises
    ------
    InvalidParameterError
        If a count is not between 0 and `n_replicas`.

    Examples
    --------
    >>> [attribute(*counts, 16).cause for counts in ((16, 16), (0, 16), (0, 0), (3, 3))]
    ['deterministic', 'noise-driven', 'absorbing', 'undecided']
    """
    n = checks.positive_int("n_replicas", n_replicas)
    for name, count in (("full", full), ("minibatch", minibatch)):
        if not 0 <= count <= n:
            raise checks.invalid(name, count, f"a count between 0 and n_replicas = {n}", "it counts replicas")
    counts = np.array([[minibatch, n - minibatch], [full, n - full]])
    p_value = float(stats.fisher_exact(counts, alternative="greater").pvalue)
    if p_value < checks.fraction("level", level):
        cause = "noise-driven"
    elif full + minibatch == 0:
        cause = "absorbing"
    else:
        cause = "deterministic" if 2 * full > n else "undecided"
    shares = [stats.binomtest(int(k), n).proportion_ci(method="exact") for k in (full, minibatch)]
    return Attribution(cause, p_value, *((float(s.low), float(s.high)) for s in shares))


def false_alarm_rate(n_replicas: int, *, level: float = LEVEL) -> float:
    """Exact probability to call escapes noise-driven that are as frequent on the full batch, at worst.

    The worst case is over the common share that escapes. Fisher's test is conservative: with a few replicas the rate
    is a few times lower than the level.

    Examples
    --------
    >>> [f"{false_alarm_rate(n):.1e}" for n in (8, 16, 32)]
    ['2.6e-04', '2.7e-04', '4.4e-04']
    """
    n = checks.positive_int("n_replicas", n_replicas)
    counts = np.arange(n + 1)
    # Of two counts with sum s the minibatches' is hypergeometric: reject where its upper tail is below the level.
    minibatch, full = np.meshgrid(counts, counts, indexing="ij")
    tail = stats.hypergeom.sf(minibatch - 1, 2 * n, minibatch + full, n)
    rejected = tail < checks.fraction("level", level)
    shares = np.linspace(0, 1, 1001)
    weights = stats.binom.pmf(counts[:, None], n, shares)
    return float(np.einsum("is,ij,js->s", weights, rejected, weights).max())


def near(state: ArrayLike, amplitude: float, n_replicas: int, *, seed: int) -> Array:
    """Return starts near a state: normal numbers times `amplitude` where its weights are 0, one row a replica.

    Examples
    --------
    >>> near([1.0, 0.0], 1e-6, 2, seed=0)[:, 0].tolist()
    [1.0, 1.0]
    """
    point = checks.finite_array("state", state, ndim=1)
    small = checks.non_negative("amplitude", amplitude) * np.random.default_rng(checks.seed(seed)).normal(
        size=(checks.positive_int("n_replicas", n_replicas), point.size)
    )
    return np.asarray(np.where(point == 0.0, small, point))


def attribution(
    process: SGD,
    *,
    state: ArrayLike,
    amplitudes: ArrayLike,
    target: Region,
    n_replicas: int,
    max_steps: int,
    seed: int,
    level: float = LEVEL,
) -> xr.Dataset:
    """Run a training on its minibatches and on the full batch from near a trap, and attribute what escapes.

    All amplitudes run in one ensemble; full batch and minibatches start from the same weights.

    Parameters
    ----------
    process : SGD
        Training with minibatches of finite data, any optimizer, one number for each hyperparameter.
    state : array_like, shape (parameter,)
        The trap, exact zeros in its unused directions.
    amplitudes : array_like, shape (amplitude,)
        Sizes of the small weights there; 0 is the trap itself.
    target : Region
        Where a replica counts as escaped.
    n_replicas : int
        For each amplitude and kind of batch.
    max_steps : int
        Horizon [steps].
    seed : int
        Key of batches and noise, and of the small weights.
    level : float
        As in `attribute`.

    Returns
    -------
    xarray.Dataset
        `exit_step`, `escaped` (amplitude, batch, replica), and what `counted` makes of them.

    Raises
    ------
    InvalidParameterError
        If the data are not finite or the learning rate is not one number.
    """
    if not isinstance(process.data, FiniteData):
        raise InvalidParameterError(
            f"`data` is {type(process.data).__name__}, expected finite data: there is no full batch to compare with.\n"
            "Use `linear_teacher_data(...)` or `finite(x, y)`."
        )
    sizes = np.atleast_1d(checks.finite_array("amplitudes", amplitudes))
    start = np.concatenate([near(state, a, n_replicas, seed=seed) for a in sizes])
    steps, escaped = [], []
    for each in (process.replace(batch_size=None, sampler=None), process):
        run = first_passage(
            each, target=target, n_replicas=len(start), max_time=max_steps * each.dt, seed=seed, start=start
        )
        steps.append(np.rint(run.exit_time.values / each.dt).reshape(sizes.size, n_replicas))
        escaped.append(run.escaped.values.reshape(sizes.size, n_replicas))
    ds = counted(np.stack(steps, axis=1), np.stack(escaped, axis=1), "amplitude", level=level)
    return ds.assign_coords(amplitude=("amplitude", sizes, describe("amplitude"))).assign_attrs(max_steps=max_steps)


def counted(steps: ArrayLike, escaped: ArrayLike, case: str, *, level: float = LEVEL) -> xr.Dataset:
    """Return shares, medians and attributions of runs on full batches and minibatches.

    Parameters
    ----------
    steps, escaped : array_like, shape (case, 2, replica)
        Step of the escape or of the horizon, and whether it was an escape; full batch first.
    case : str
        Name of the first dimension.
    level : float
        As in `attribute`.

    Returns
    -------
    xarray.Dataset
        `exit_step`, `escaped` (case, batch, replica), `fraction` with its exact 95 % interval and `median_steps`
        (NaN where half or more stayed) (case, batch), `attribution` and `p_value` (case).
    """
    step, left = np.asarray(steps, dtype=np.float64), np.asarray(escaped, dtype=bool)
    n = step.shape[-1]
    counts = left.sum(axis=-1)
    found = [attribute(int(full), int(minibatch), n, level=level) for full, minibatch in counts]
    shares = np.array([[a.full_share, a.minibatch_share] for a in found])
    # Half of the replicas must have left; otherwise the median lies beyond the horizon.
    median = np.where(2 * counts > n, np.median(np.where(left, step, np.inf), axis=-1), np.nan)
    both = (case, "batch")
    data = {
        "exit_step": ((*both, "replica"), step, describe("exit_step")),
        "escaped": ((*both, "replica"), left, describe("escaped")),
        "fraction": (both, counts / n, _named("share of replicas that escaped")),
        "fraction_lower": (both, shares[..., 0], _named("lower end of the share's 95 % confidence interval")),
        "fraction_upper": (both, shares[..., 1], _named("upper end of the share's 95 % confidence interval")),
        "median_steps": (both, median, _named("median number of steps", "steps")),
        "attribution": (case, [a.cause for a in found], _named("attributed to")),
        "p_value": (case, [a.p_value for a in found], _named("p-value of no difference to the full batch")),
    }
    return xr.Dataset(data, coords={"batch": ("batch", list(BATCHES), _named("kind of batch"))})


def _named(long_name: str, units: str = "1") -> dict[str, str]:
    return {"units": units, "long_name": long_name}
