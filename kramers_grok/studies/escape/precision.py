r"""Measuring until the mean exit time is known as well as asked for, with an interval that is honest all the same.

**Why not stop when it is good enough.** The width of an interval is estimated from the same replicas as the mean.
A sample that looks narrow by chance stops early, and such samples lie on one side: their intervals hold the mean less
often than they say. With exponential times, a look after every replica and a goal of 50 %, an interval of "95 %" holds
the mean in 90 %.

**Two stages.** A *pilot* of :math:`n_0` replicas with noise of its own estimates what one replica is worth, the
relative variance v = n·(se/τ)² of the estimator. From it alone follows the number N of the second stage, and the second
stage alone is reported. Given N its replicas are independent draws as in a run whose number was fixed by hand, because
nothing about them had a say in N; so for every N, and hence on average over N, the interval holds the mean exactly as
often as that of a run with a fixed number. This is Stein's design (1945), except that the pilot is not pooled with the
second stage: for times that are not normal, pooling would bring the dependence back.

**How large.** The interval is :math:`\tau e^{\pm w}` with :math:`w = t\sqrt{v/N}`, t Student's quantile: its half width
over the mean is sinh w, and d is reached where w ≤ asinh d. Both v and the width that the second stage will find are
uncertain: for exponential escape ln v is estimated from r escapes with standard error :math:`2/\sqrt r` (delta method,
third and fourth moments of the exponential law). So

.. math:: N = \hat v\,\Big(\frac{t}{\operatorname{asinh} d}\Big)^2 e^{\,2 z\sqrt{1/r_0 + 1/r}},

r₀ the pilot's escapes, r those expected of the second stage, and z the normal quantile of `ASSURANCE` = 90 %: in so
many of all cells the precision is reached by design; the others come close, and say so. The total :math:`n_0 + N` is
smallest for :math:`n_0 \approx (z N_\infty)^{2/3}` with :math:`N_\infty = (t/\operatorname{asinh} d)^2`, the number for
v = 1. At d = 5 % that is a pilot of 157 replicas, a twelfth of all. Censored replicas count for less by themselves:
v grows as they do not tell when they leave.

**The cap.** At most `max_replicas` replicas, pilot included. Where not even v = 1 fits, there is no pilot, and all go
into the one stage. A cap that was met is noted, and ``precision_reached`` is judged by the interval that came out.

**Splitting.** Its error comes from independent repeats, so repeats take the place of replicas: the pilot makes 32 of
them, the second stage so many that the number of clones is enough, at the borders that the pilot placed (fixed borders
leave the estimate unbiased, whatever they are). The variance over K clones is V/K; the two stages' estimates of V are
sample variances, and the second's exceeds the first's by more than the quantile of Fisher's F(R − 1, 31) at `ASSURANCE`
only in the remaining cells:

.. math:: K = \hat V\,\Big(\frac{t_{R-1}}{\operatorname{asinh} d}\Big)^2 F.

``replicas`` and ``max_replicas`` count the clones at every level of one of 16 repeats here, as in a run of fixed size;
the cap on K is 16 times as large.

C. Stein, Ann. Math. Statist. 16, 243 (1945); Y. S. Chow and H. Robbins, Ann. Math. Statist. 36, 457 (1965).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import special

__all__ = [
    "ASSURANCE",
    "CLONES",
    "PILOT_CLONES",
    "PILOT_REPEATS",
    "REPEATS",
    "Goal",
    "pilot_replicas",
    "repeats_needed",
    "replicas_needed",
]

ASSURANCE = 0.9
FEWEST = 50  # replicas of a stage: below it Student's interval of the logarithm is no longer what it says
REPEATS = 16  # of splitting with a fixed number of clones
CLONES, FEWEST_REPEATS = 512, 32  # of splitting's second stage
PILOT_CLONES, PILOT_REPEATS = 256, 32


@dataclass(frozen=True)
class Goal:
    """How well the mean is to be known.

    Attributes
    ----------
    precision : float
        Half width d of the interval over the mean.
    confidence : float
        Of the interval.
    most : int
        Cap on the replicas (clones at every level of one of 16 repeats, for splitting).
    """

    precision: float
    confidence: float
    most: int

    def replicas(self, degrees: float) -> float:
        """Replicas that an exponential law takes, with Student's quantile of so many degrees of freedom."""
        t = float(special.stdtrit(degrees, 0.5 + self.confidence / 2))
        return (t / math.asinh(self.precision)) ** 2


def pilot_replicas(goal: Goal) -> int:
    """Return the pilot's number of replicas; 0 where the cap leaves no room for a pilot and what it would ask for.

    Examples
    --------
    >>> pilot_replicas(Goal(0.05, 0.95, 65536)), pilot_replicas(Goal(0.05, 0.95, 1000))
    (158, 0)
    """
    least = goal.replicas(math.inf)
    z = float(special.ndtri(ASSURANCE))
    size = max(math.ceil((z * least) ** (2 / 3)), FEWEST)
    return size if size + max(least, FEWEST) < goal.most else 0


def replicas_needed(goal: Goal, *, relative_variance: float, pilot_escapes: int, share: float) -> int:
    """Return the second stage's number of replicas, before the cap.

    Parameters
    ----------
    goal : Goal
    relative_variance : float
        v = n₀ (se/τ)² of the pilot.
    pilot_escapes : int
        Its escapes r₀, 1 or more.
    share : float
        Share of its replicas that escaped.

    Examples
    --------
    >>> goal = Goal(0.05, 0.95, 65536)
    >>> replicas_needed(goal, relative_variance=1.0, pilot_escapes=158, share=1.0)
    1904
    """
    z = float(special.ndtri(ASSURANCE))
    needed = max(relative_variance * goal.replicas(math.inf), 2.0)
    for _ in range(8):  # r and t depend on N a little
        spread = 2 * z * math.sqrt(1 / pilot_escapes + 1 / max(share * needed, 1.0))
        needed = max(relative_variance * goal.replicas(max(share * needed - 1, 1.0)) * math.exp(spread), 2.0)
    return max(math.ceil(needed), FEWEST)


def repeats_needed(goal: Goal, *, relative_variance: float) -> int:
    """Return the second stage's number of repeats of `CLONES` clones, before the cap.

    Parameters
    ----------
    goal : Goal
    relative_variance : float
        V = K (se/τ)² of the pilot's K clones.

    Examples
    --------
    >>> repeats_needed(Goal(0.05, 0.95, 65536), relative_variance=65.0)
    289
    """
    repeats = FEWEST_REPEATS
    for _ in range(8):
        quantile = float(special.fdtri(repeats - 1, PILOT_REPEATS - 1, ASSURANCE))
        needed = relative_variance * goal.replicas(repeats - 1) * quantile / CLONES
        repeats = max(math.ceil(needed), FEWEST_REPEATS)
    return repeats
