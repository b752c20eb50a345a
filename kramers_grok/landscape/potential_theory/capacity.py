r"""Escape rates beyond the harmonic formula, by potential theory.

The mean time to go from a trap A to the target B is *exactly*

.. math:: \tau = \frac{\int h\,e^{-F/T}d\theta}{{\rm cap}(A,B)}, \qquad
          {\rm cap}(A,B) = T\int|\nabla h|^2e^{-F/T}d\theta = \min_q T\int|\nabla q|^2e^{-F/T}d\theta,

with the committor 1 − h. The Eyring–Kramers formula is both integrals in Gaussian approximation. Here they are summed
over quasi-random draws from those Gaussians, with the energy as it is:

- below, over the trap's basin (`kramers_grok.landscape.potential_theory.wells`);
- above, with a trial committor that follows the bent level sets
  (`kramers_grok.landscape.potential_theory.committor`). By Dirichlet's principle this is an **upper** bound of the
  capacity, so the time a lower one. The gap is at most
  :math:`\|Lq\|^2/\Lambda` with :math:`Lq=T\Delta q-\nabla F\cdot\nabla q` and Λ the smallest eigenvalue of −L between A
  and B; about a saddle that is :math:`|\mu_-|`, to leading order, and the same draws give the norm. The rate reported
  lies in the middle of the two, and half their distance is part of its error;
- along the rotations of hidden units, exact or broken, by Haar's measure
  (`kramers_grok.landscape.potential_theory.pseudo_orbit`): a soft mode is no Gaussian but a whole angle. Where
  rotations are broken the trial follows the top of the barrier as it moves with them
  (`kramers_grok.landscape.potential_theory.ridge`);
- where copies of the saddle lie within thermal reach of each other (other unused hidden units), with a trial over all
  of them (`kramers_grok.landscape.potential_theory.copies`), since behind each lies a deep well.

It fails, and says so, where deep wells lie behind saddles of another kind within thermal reach, or so many units open
the way together that no product of trials is near the committor: then few draws carry the sum, or the bounds differ.

References: Bovier, Eckhoff, Gayrard & Klein, J. Eur. Math. Soc. 6, 399 (2004); Berglund, arXiv:1106.5799.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

from kramers_grok.core import checks
from kramers_grok.core.exceptions import NoBarrierError, ValidityWarning
from kramers_grok.landscape.numerical_barrier import NumericalBarrier
from kramers_grok.landscape.potential_theory.capacity_run import CapacityRun
from kramers_grok.landscape.potential_theory.wells import Sampled
from kramers_grok.theory.rates import Rate

__all__ = ["CapacityRate", "capacity_rate"]

#: Smallest effective share of the draws, largest gap of the bounds, largest share of the trap that lies about the
#: saddle, and largest k over the trap's relaxation rate that leave a rate valid.
LEAST_EFFECTIVE, LARGEST_GAP, LARGEST_BORDER, LARGEST_RATE = 0.01, 0.2, 0.15, 0.1
_EVEN = 0.2


@dataclass(frozen=True)
class CapacityRate(Rate):
    """An escape rate with a stated error.

    Attributes
    ----------
    relative_error : float
        Of the rate, one standard deviation: the draws', half the distance of the bounds, what the trial's error makes
        of `border_share`, and k over the trap's relaxation rate.
    sampling_error : float
        The part that more draws reduce.
    gap : float
        Distance of the upper and the lower bound of the capacity, relative to the upper.
    border_share : float
        Part of the trap's integral that lies about the saddle.
    well_factor, saddle_factor : float
        Integrals over the trap and about the saddle relative to the harmonic ones; NaN where a pseudo-orbit was
        integrated, to which no harmonic integral compares.
    effective : tuple of float
        Effective share of the draws in the trap and about the saddle.
    over_pseudo_orbit : bool
        Whether rotations of hidden units were integrated at the saddle.
    """

    relative_error: float = math.nan
    sampling_error: float = math.nan
    gap: float = math.nan
    border_share: float = math.nan
    well_factor: float = math.nan
    saddle_factor: float = math.nan
    effective: tuple[float, float] = (math.nan, math.nan)
    over_pseudo_orbit: bool = False

    @property
    def interval(self) -> tuple[float, float]:
        """Mean time between one `relative_error` below and above [time]."""
        factor = 1.0 + self.relative_error
        return self.mean_time / factor, self.mean_time * factor


def capacity_rate(
    barrier: NumericalBarrier,
    temperature: float,
    *,
    seed: int,
    pseudo_orbit: bool | None = None,
    n_samples: int = 2**15,
    n_blocks: int = 16,
    warn: bool = True,
) -> CapacityRate:
    r"""Escape rate of a numerical barrier with anharmonic corrections and soft rotations integrated.

    Like `eyring_kramers_rate` it counts crossings to the *other well*, over all saddles that a symmetry (or a rotation
    on the pseudo-orbit) makes of this one.

    Parameters
    ----------
    barrier : NumericalBarrier
        From `find_barrier`.
    temperature : float
        T > 0 [loss].
    seed : int
        Of the quasi-random draws.
    pseudo_orbit : bool, optional
        Whether broken rotations of hidden units are integrated. By default they are, at the saddle and in the trap
        each, where a thermal displacement along one exceeds a quarter of its radius (`SOFT_SHARE`); at the saddle only
        if that lowers the bound. Exact rotations always are.
    n_samples : int
        Draws about the saddle, and as many in the trap.
    n_blocks : int
        Independent blocks, at least 4, from which the error comes.
    warn : bool
        Whether to warn where the rate is not valid; the result says it in any case.

    Returns
    -------
    CapacityRate

    Raises
    ------
    InvalidParameterError
        For numbers out of range.
    NoBarrierError
        If the volume of the rotated states has melted the barrier.

    Warns
    -----
    ValidityWarning
        If draws are too uneven, the bounds far apart, much of the trap lies about the saddle, or the escape is as fast
        as the trap's relaxation.

    Examples
    --------
    The chain of three weights, whose exact mean time at ΔF/T = 8 is 40 218 (the harmonic formula: 38 435):

    >>> from kramers_grok.landscape.barriers import find_barrier
    >>> from kramers_grok.models.base import SymbolicModel
    >>> from kramers_grok.theory.deep_linear import DeepLinearChain
    >>> chain = DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> known = chain.barrier()
    >>> barrier = find_barrier(SymbolicModel(chain.landscape), known.minimum, known.destination, n_paths=1)
    >>> rate = capacity_rate(barrier, barrier.height / 8, seed=0, n_samples=2**13, n_blocks=8)
    >>> rate.valid, rate.relative_error < 0.005, abs(rate.mean_time / 40218 - 1) < 0.01
    (True, True, True)
    """
    heat = checks.positive("temperature", temperature, "without noise nothing escapes, and no rate exists")
    blocks = checks.positive_int("n_blocks", n_blocks, minimum=4, why="the error comes from their scatter")
    draws = checks.positive_int("n_samples", n_samples, minimum=16 * blocks, why="each block needs some")
    run = CapacityRun(barrier, heat, checks.seed(seed), pseudo_orbit, draws, blocks)
    below = run.well()
    above, border, gap = _lowest(run, free=pseudo_orbit is None)
    ratio = run.saddles - run.minima - barrier.height / heat
    log_trap, trap_error, share = _total(below, border, ratio)
    log_upper = above.log_value + ratio - log_trap
    rate = math.exp(log_upper) * (1.0 - 0.5 * gap)
    sampling = math.hypot(above.relative_error, trap_error)
    slowest = float(min(barrier.minimum_spectrum))
    flags = _flags(below, above, gap, share, rate / slowest)
    note = f"potential theory: {'; '.join(flags)}. Use a lower temperature, more samples, or a simulation."
    if flags and warn:
        warnings.warn(note, ValidityWarning, stacklevel=2)
    return CapacityRate(
        value=rate,
        kind="potential theory",
        barrier_over_temperature=barrier.height / heat,
        valid=not flags,
        note=note if flags else "",
        flags=flags,
        relative_error=math.sqrt(sampling**2 + (0.5 * gap) ** 2 + share**2 * gap + (rate / slowest) ** 2),
        sampling_error=sampling,
        gap=gap,
        border_share=share,
        well_factor=run.well_factor(log_trap),
        saddle_factor=run.saddle_factor(above),
        effective=(below.effective, above.effective),
        over_pseudo_orbit=run.above.dimension > 0,
    )


def _lowest(run: CapacityRun, *, free: bool) -> tuple[Sampled, Sampled, float]:
    """The integrals about the saddle, with broken rotations or without: both are upper bounds, and the lower counts."""
    if not run.above.dimension or run.exact or not free:
        return run.top()
    alone = CapacityRun(run.barrier, run.temperature, run.seed, False, run.draws, run.blocks)
    try:
        turned = run.top()
    except NoBarrierError:
        run.above = alone.above
        return alone.top()
    other = alone.top(anneal=False)
    # A sum that few draws carry may have missed most of it, and bounds nothing.
    if other[0].effective > _EVEN and other[0].log_value + alone.saddles < turned[0].log_value + run.saddles:
        run.above = alone.above
        return other
    return turned


def _total(core: Sampled, border: Sampled, log_ratio: float) -> tuple[float, float, float]:
    """Ln of the trap's integral from its core and the saddles' surroundings, its relative error, and their share."""
    share = math.exp(border.log_value + log_ratio - core.log_value)
    error = math.hypot(core.relative_error, share * border.relative_error if share else 0.0) / (1 + share)
    return core.log_value + math.log1p(share), error, share / (1 + share)


def _flags(below: Sampled, above: Sampled, gap: float, border: float, share: float) -> tuple[str, ...]:
    flags = []
    for name, part in (("trap", below), ("saddle", above)):
        if not part.effective >= LEAST_EFFECTIVE:
            flags.append(
                f"{name}: {part.effective:.2g} of the draws carry the integral, below {LEAST_EFFECTIVE:g}; its "
                "surroundings are far from Gaussian"
            )
    if not gap <= LARGEST_GAP:
        flags.append(f"bounds: upper and lower bound of the capacity differ by {gap:.2g}, above {LARGEST_GAP:g}")
    if not border <= LARGEST_BORDER:
        flags.append(f"trap: {border:.2g} of it lies about the saddle, above {LARGEST_BORDER:g}: it has melted")
    if not share <= LARGEST_RATE:
        flags.append(
            f"time scales: the escape rate is {share:.2g} of the trap's slowest relaxation, above {LARGEST_RATE:g}"
        )
    return tuple(flags)
