"""The two integrals of an escape rate by potential theory, over the trap and about the saddle."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from kramers_grok.landscape.numerical_barrier import NumericalBarrier
from kramers_grok.landscape.potential_theory.committor import TrialCommittor
from kramers_grok.landscape.potential_theory.copies import END, Copies, copies_within
from kramers_grok.landscape.potential_theory.draws import Draws, Factor, Neighbourhood
from kramers_grok.landscape.potential_theory.pseudo_orbit import PseudoOrbit, soft_orbit
from kramers_grok.landscape.potential_theory.ridge import Ridge
from kramers_grok.landscape.potential_theory.slice_energy import SliceEnergy
from kramers_grok.landscape.potential_theory.wells import Basin, Sampled, normal_blocks, sampled_mean
from kramers_grok.landscape.surface import Surface

__all__ = ["CapacityRun"]

Array = NDArray[np.float64]
Booleans = NDArray[np.bool_]

_WIDER = 1.15  # variance of the draws over the Gaussian's: weights of what is wider stay bounded
_EVEN = 0.2  # effective share of plain draws below which they are annealed instead
_FEWER = 8  # annealed draws cost some thirty gradients each
_AVERAGED = 64  # rotations over which the trial's free energy is averaged
_BORDER = 2.0  # depth below the saddle, in T, at which the trap's surroundings of the saddle begin
_BESIDE = 4.0  # thermal lengths about the saddle that count as its surroundings
_REACHES = (4.0, 3.0, 2.5, 2.0)  # thermal lengths beyond which the trial may be constant
_RESIDUAL = (4, 1024)  # blocks, and draws of each, whose residual is taken
_SMOOTH = (3.5, 0.25)  # largest level, and smallest closeness to the orbit, at which a residual means something


class CapacityRun:
    """Both integrals of one rate; each is per copy (`saddles`, `minima`) and relative to Boltzmann's factor there.

    Parameters
    ----------
    barrier : NumericalBarrier
    temperature : float
        T [loss].
    seed : int
    pseudo : bool, optional
        As ``pseudo_orbit`` of `kramers_grok.landscape.potential_theory.capacity.capacity_rate`.
    draws, blocks : int
        Number of draws, and of independent blocks of them.
    """

    def __init__(
        self, barrier: NumericalBarrier, temperature: float, seed: int, pseudo: bool | None, draws: int, blocks: int
    ) -> None:
        self.barrier, self.temperature, self.seed = barrier, temperature, seed
        self.draws, self.blocks = draws, blocks
        self.surface = Surface(barrier.model)
        self.exact = barrier.symmetry.is_continuous
        self.size = float(np.abs(barrier.saddle).max())  # of weights: at the state 0 rounding is all there is
        self.points = {"minimum": barrier.minimum, "saddle": barrier.saddle}
        self.curved = {name: self.surface.hessian(point) for name, point in self.points.items()}
        self.below, self.above = (self._orbit(name, pseudo) for name in self.points)

    # ------------------------------------------------------------ what is integrated

    def _orbit(self, name: str, wanted: bool | None) -> PseudoOrbit:
        point = self.points[name]
        found = soft_orbit(
            self.barrier.symmetry, point, self.curved[name], self.temperature, scale=self.size, wanted=wanted
        )
        return PseudoOrbit((), point) if found is None else found

    def _turns(self, orbit: PseudoOrbit) -> list[Array]:
        return orbit.rotations(normal_blocks(orbit.n_normals, 4 * _AVERAGED, 4, self.seed + 1)[0])

    def _copies(self, orbit: PseudoOrbit, point: Array) -> float:
        """Ln of the factor for what was not integrated: equivalent points, or the orbit's volume in radians."""
        if orbit.dimension:
            return orbit.log_volume
        return self.barrier.symmetry.log_orbit_volume(point, scale=self.size)

    @property
    def saddles(self) -> float:
        """Ln of the saddles' number or volume."""
        return self._copies(self.above, self.barrier.saddle)

    @property
    def minima(self) -> float:
        """Ln of the minima's number or volume."""
        return self._copies(self.below, self.barrier.minimum)

    def _broken(self, orbit: PseudoOrbit) -> bool:
        return orbit.dimension > 0 and not self.exact

    def _slice(self, orbit: PseudoOrbit) -> SliceEnergy:
        turns = self._turns(orbit) if self._broken(orbit) else []
        return SliceEnergy(self.surface, orbit, self.temperature, turns)

    def _normals(self, near: Neighbourhood, part: int, draws: int) -> list[Array]:
        seed = int(np.random.SeedSequence((self.seed, part)).generate_state(1)[0])
        return normal_blocks(near.n_normals, draws, self.blocks, seed)

    def _generator(self, part: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence((self.seed, part)))

    # ------------------------------------------------------------ below

    def well(self) -> Sampled:
        """Integral over the trap's basin without the saddle's surroundings."""
        orbit = self.below
        start = orbit.slice_of_point
        curvature, modes = np.linalg.eigh(self._slice(orbit).hessian(start))
        spread = np.sqrt(_WIDER * self.temperature / np.maximum(curvature, 0.1 * np.median(curvature)))
        near = Neighbourhood(
            self.surface, orbit, self.temperature, self.barrier.minimum_point.energy, start, modes * spread,
            self._broken(orbit),
        )  # fmt: skip
        plain = self._core(near, [near.plain(block) for block in self._normals(near, 0, self.draws)])
        if plain.effective >= _EVEN:
            return plain
        rng = self._generator(3)
        return self._core(near, [near.annealed(b, rng) for b in self._normals(near, 0, self.draws // _FEWER)])

    def _core(self, near: Neighbourhood, blocks: list[Draws]) -> Sampled:
        weights = []
        for draws in blocks:
            inside = ~self._at_border(draws.theta)
            inside[inside] = self._basin.contains(draws.theta[inside])
            weights.append(np.where(inside, draws.weight, 0.0))
        return sampled_mean(near.log_scale, weights)

    def _at_border(self, theta: Array) -> Booleans:
        """Whether points lie as near to the destination as the saddle's surroundings do, by their order parameter.

        There the trap's Gaussian has no draws, and the saddle's has many; and there the committor counts.
        """
        b = self.barrier
        low, high = b.order_parameter_at_minimum, b.order_parameter_at_destination
        m = self.surface.order_parameters(np.concatenate([theta, b.path.images[: b.top + 1]]))[:, b.feature]
        progress = (m - low) / (high - low)
        draws, climb = progress[: len(theta)], progress[len(theta) :]
        return np.asarray(draws >= np.interp(self._border_energy, b.path.energies[: b.top + 1], climb))

    @property
    def _border_energy(self) -> float:
        b = self.barrier
        return b.saddle_point.energy - min(_BORDER * self.temperature, 0.5 * b.height)

    @cached_property
    def _basin(self) -> Basin:
        b = self.barrier
        steepest = max(float(np.abs(np.linalg.eigvalsh(h)).max()) for h in self.curved.values())
        return Basin(
            self.surface, b.feature, b.order_parameter_at_minimum, b.order_parameter_at_saddle,
            b.order_parameter_at_destination, b.saddle_point.energy, steepest,
            0.2 * float(np.linalg.norm(b.destination - b.minimum)),
        )  # fmt: skip

    def well_factor(self, log_trap: float) -> float:
        """Integral over the harmonic one."""
        if self.below.dimension:
            return math.nan
        spectrum = self.barrier.minimum_spectrum
        harmonic = 0.5 * float(np.log(2 * math.pi * self.temperature / spectrum).sum())
        return math.exp(log_trap - harmonic)

    # ------------------------------------------------------------ above

    @cached_property
    def _trial(self) -> TrialCommittor:
        orbit, images, here = self.above, self.barrier.path.images, self.barrier.top
        forth = (images[here + 1] - images[here - 1]) @ orbit.normals
        return TrialCommittor(self._slice(orbit), orbit.slice_of_point, forth)

    @property
    def _spread(self) -> Array:
        """Standard deviations of the draws about the saddle, along the columns of the trial's frame."""
        rates = np.concatenate([[self._trial.growth], self._trial.curvatures])
        return np.asarray(np.sqrt(_WIDER * self.temperature / rates))

    @cached_property
    def _near(self) -> Copies | None:
        """Copies of the saddle that the draws reach; on a pseudo-orbit they are among its points."""
        if self.above.dimension:
            return None
        return copies_within(self._trial, self.barrier.symmetry, self.barrier.minimum, self._spread)

    def top(self, *, anneal: bool = True) -> tuple[Sampled, Sampled, float]:
        """Upper bound of the capacity, the trap's integral about the saddle, and the relative gap of the bounds.

        Uneven draws are annealed unless `anneal` says otherwise, or copies are near, into whose wells they would go.
        """
        orbit, trial = self.above, self._trial
        spread = self._spread

        def confined(turns: list[Array]) -> Factor:
            ridge = trial.ridge(turns)

            def squared(xi: Array) -> tuple[Array, Array]:
                """Ln of the square of the trial's density."""
                level, slope, _ = trial.level(trial.coordinates(xi), ridge)
                confined = np.where(np.abs(level) < trial.reach, -(level**2), -np.inf)
                tilt = np.linalg.solve(trial.frame.T, (-2 * level[:, None] * slope).T).T
                return np.asarray(confined), np.asarray(tilt, dtype=np.float64)

            return squared

        def moved(turns: list[Array]) -> Array:
            ridge = trial.ridge(turns)
            assert ridge is not None
            return ridge.place @ trial.frame.T

        near = Neighbourhood(
            self.surface, orbit, self.temperature, self.barrier.saddle_point.energy, trial.centre,
            trial.frame * spread, self._broken(orbit), confined, moved,
        )  # fmt: skip
        plain = self._pass(near, [near.plain(block) for block in self._normals(near, 1, self.draws)])
        if plain[0].effective >= _EVEN or not anneal or self._near is not None:
            return plain
        rng = self._generator(4)
        blocks = [near.annealed(b, rng) for b in self._normals(near, 1, self.draws // _FEWER)]
        return self._pass(near, blocks, (trial.reach,))

    def _pass(
        self, near: Neighbourhood, blocks: list[Draws], reaches: tuple[float, ...] = _REACHES
    ) -> tuple[Sampled, Sampled, float]:
        trial = self._trial
        rng = self._generator(2)
        weights, border, residuals = [], [], []
        at = [(trial.coordinates(draws.xi), trial.ridge(draws.turns)) for draws in blocks]
        copies, products = self._near, []
        if copies is None:
            self._choose_reach(blocks, at, reaches)
        else:
            products = [copies.product(draws.theta) for draws in blocks]
            copies.choose_profile(products, [draws.weight for draws in blocks])
        for number, (draws, (c, ridge)) in enumerate(zip(blocks, at, strict=True)):
            boltzmann = draws.weight
            if copies is None:
                square, outside = trial.flow(c, ridge).square, 1.0 - trial.value(c, ridge)
            else:
                product = products[number].shaped(copies.profile)
                square, outside = product.square, product.outside
            weights.append(self.temperature * boltzmann * np.where(boltzmann > 0, square, 0.0))
            beside = self._beside(c, draws)
            border.append(np.where(beside > 0, boltzmann * outside * beside, 0.0))
            if number < _RESIDUAL[0]:
                residuals.append(self._residual(c, draws, ridge, boltzmann, rng))
        total = float(np.mean([w.mean() for w in weights]))
        cut = math.erfc(trial.reach / math.sqrt(2)) if copies is None else float(ndtr(-END))
        gap = max(float(np.mean(residuals)), 0.0) / max(total, 1e-300) + cut
        return sampled_mean(near.log_scale, weights), sampled_mean(near.log_scale, border), min(gap, 1.0)

    def _choose_reach(
        self, blocks: list[Draws], at: list[tuple[Array, Ridge | None]], reaches: tuple[float, ...]
    ) -> None:
        """Take the reach of the lowest bound.

        Beyond its reach the trial is constant; a shorter one costs little, and helps where the energy falls faster than
        a parabola.
        """
        trial = self._trial
        totals = {}
        levels = [np.abs(trial.level(*place)[0]) for place in at]
        trial.reach = max(reaches)
        squares = [trial.flow(*place).square for place in at]
        for reach in reaches:
            gain = (math.erf(trial.reach / math.sqrt(2)) / math.erf(reach / math.sqrt(2))) ** 2
            parts = zip(blocks, squares, levels, strict=True)
            totals[reach] = gain * np.mean([(d.weight * np.where(l < reach, s, 0.0)).mean() for d, s, l in parts])
        trial.reach = min(reaches, key=lambda reach: totals[reach])

    def _beside(self, c: Array, draws: Draws) -> Array:
        """Share of draws that belongs to the saddle's surroundings on the trap's side of the destination.

        Further off lie other copies of the saddle, whose surroundings have draws of their own, and lower the well
        behind the barrier.
        """
        near = (np.abs(c[:, 0]) * self._trial.scale < _BESIDE) & (self.above.closeness(draws.xi) > _SMOOTH[1])
        high = self.surface.energies(draws.theta) > self._border_energy - self.temperature
        found = np.where(near & high & self._at_border(draws.theta), 1.0, 0.0)
        if self._near is not None:  # what lies about several copies counts once
            found[found > 0] /= 1.0 + self._near.beside(draws.theta[found > 0], _BESIDE)
        return np.asarray(found)

    def _residual(self, c: Array, draws: Draws, ridge: Ridge | None, weight: Array, rng: np.random.Generator) -> float:
        """Mean of (Lq)²/|μ| with Boltzmann's weight; where the trial is cut off, its own share of the capacity."""
        orbit, trial = self.above, self._trial
        few = np.arange(len(c)) < _RESIDUAL[1]
        smooth = (np.abs(trial.level(c, ridge)[0]) < _SMOOTH[0]) & (orbit.closeness(draws.xi) > _SMOOTH[1])
        seen, rest = few & (weight > 0) & smooth, few & (weight > 0) & ~smooth
        if self._near is not None:
            return self._mixed_residual(self._near, draws.theta[few], weight[few], smooth[few])
        flow = trial.flow(c, ridge)
        lost = self.temperature * float((weight[rest] * flow.square[rest]).sum())
        if not seen.any():  # no draw on the top at all, as where a wide layer's soft rotations leave it
            return lost / int(few.sum())
        force, turns = self.surface.gradients(draws.theta[seen]), [t[seen] for t in draws.turns]
        if turns:
            force = orbit.rotated(turns, force, back=True)
        down = (flow.gradient[seen] * force).sum(axis=1)
        one, other = (self.temperature * part - down for part in trial.laplacian(c[seen], rng, turns))
        return (float((weight[seen] * one * other).sum()) / trial.growth + lost) / int(few.sum())

    def _mixed_residual(self, copies: Copies, theta: Array, weight: Array, smooth: Booleans) -> float:
        """The same for the product over copies, the saddle's own share of it."""
        product = copies.product(theta, curved=True).shaped(copies.profile)
        applied = self.temperature * product.curved - (product.gradient * self.surface.gradients(theta)).sum(axis=1)
        own = np.where(smooth, product.share * applied**2 / self._trial.growth, self.temperature * product.square)
        return float(np.where(weight > 0, weight * own, 0.0).mean())

    def saddle_factor(self, above: Sampled) -> float:
        """Integral over the harmonic one."""
        if self.above.dimension:
            return math.nan
        spectrum = np.abs(self.barrier.saddle_spectrum)
        harmonic = 0.5 * float(np.log(2 * math.pi * self.temperature / spectrum).sum())
        harmonic += math.log(spectrum[0] / (2 * math.pi))
        return math.exp(above.log_value - harmonic)
