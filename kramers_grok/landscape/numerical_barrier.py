"""A barrier that a search has found: its certificate, and all that rates and regions ask."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.core.barrier_traits import Crossing
from kramers_grok.core.schema import describe
from kramers_grok.landscape.harmonic import MODE_FACTOR, anharmonic_flags
from kramers_grok.landscape.points import StationaryPoint
from kramers_grok.landscape.potential_theory.pseudo_orbit import SoftMode, soft_modes, soft_text
from kramers_grok.landscape.saddles import SaddleCertificate, certify_saddle
from kramers_grok.landscape.string import Path, evenly
from kramers_grok.landscape.surface import DENSE_LIMIT, Surface
from kramers_grok.landscape.symmetries.symmetry import Symmetry, symmetry_of
from kramers_grok.models.base import Model

__all__ = ["FunctionSpaceModel", "NumericalBarrier", "barrier_over"]

Array = NDArray[np.float64]

_IMAGES = 101  # of a barrier's path


@runtime_checkable
class FunctionSpaceModel(Model, Protocol):
    """A model that can measure the way from one function to another."""

    def between(self, a: Array, b: Array) -> Model:
        """The same model with one order parameter, from the function at `a` (0) to that at `b` (1)."""
        ...


@dataclass(frozen=True, eq=False)
class NumericalBarrier(Crossing):
    """A barrier found by a search, with its certificate; rates and regions take it like a closed form.

    Made by `kramers_grok.landscape.barriers.find_barrier`.

    Attributes
    ----------
    model : Model
        What moves. Its order parameter is the function-space one between the two minima where the model offers it.
    minimum_point, saddle_point, destination_point : StationaryPoint
        The minima are those in which the descents from this saddle end: copies of the ones searched for, by a symmetry.
    path : Path
        The minimum-energy path through all three: the gradient flow down from the saddle.
    top : int
        Number of the saddle among the path's images.
    log_volume_ratio : float
        ln of the number of equivalent saddles around the minimum, or ln Vol(saddle) − ln Vol(minimum) of orbits.
    feature : int
        Number of the order parameter that the crossing changes.
    forks : bool
        Whether noise decides behind the saddle between several destinations, to all of which its rate leads together;
        `destination_point` is then one of them.
    symmetry : Symmetry
        The symmetries that were known.
    """

    model: Model
    minimum_point: StationaryPoint
    saddle_point: StationaryPoint
    destination_point: StationaryPoint
    path: Path
    top: int
    log_volume_ratio: float
    feature: int
    forks: bool
    symmetry: Symmetry = field(repr=False)

    @property
    def height(self) -> float:
        """F(saddle) − F(minimum) [loss]."""
        return self.saddle_point.energy - self.minimum_point.energy

    @property
    def minimum(self) -> Array:
        """Where the network is trapped, shape (parameter,)."""
        return self.minimum_point.theta

    @property
    def saddle(self) -> Array:
        """The barrier's top, shape (parameter,)."""
        return self.saddle_point.theta

    @property
    def destination(self) -> Array:
        """The state behind it, shape (parameter,)."""
        return self.destination_point.theta

    @property
    def minimum_spectrum(self) -> Array:
        """Eigenvalues of the Hessian at the minimum without zero modes, ascending [loss/weight²]."""
        return self.minimum_point.spectrum

    @property
    def saddle_spectrum(self) -> Array:
        """Eigenvalues of the Hessian at the saddle without zero modes, ascending; the first is negative."""
        return self.saddle_point.spectrum

    @property
    def minimum_zero_modes(self) -> int:
        """Dimension of the minimum's orbit."""
        return self.minimum_point.n_zero_modes

    @property
    def saddle_zero_modes(self) -> int:
        """Dimension of the saddle's orbit."""
        return self.saddle_point.n_zero_modes

    @property
    def zero_modes_known(self) -> bool:
        """True: a barrier is made only where a symmetry explains every zero mode."""
        return True

    @property
    def log_determinant_ratio(self) -> float:
        """Ln det' H(minimum) − ln det' H(saddle), moduli."""
        return self.minimum_point.log_determinant - self.saddle_point.log_determinant

    @property
    def log_determinant_error(self) -> float:
        """Standard error of `log_determinant_ratio`: 0 where both Hessians were diagonalised whole."""
        low, top = (p.log_determinant_samples for p in (self.minimum_point, self.saddle_point))
        count = max(len(low), len(top))
        # The probes are the same at both points, and what they share cancels.
        return float((low - top).std(ddof=1) / math.sqrt(count)) if count > 1 else 0.0

    @property
    def trace_difference(self) -> float:
        """Tr H(minimum) − tr H(saddle) [loss/weight²]."""
        return self.minimum_point.trace - self.saddle_point.trace

    @property
    def degeneracy(self) -> int:
        """1: the order parameter knows both ends."""
        return 1

    def flags(self, temperature: float) -> tuple[str, ...]:
        """Conditions of Gaussian integrals about minimum and saddle that fail, a short text for each.

        A soft mode, such as a rotation of hidden units that an activation function breaks, turns by more than a quarter
        of its orbit's radius; the energy along some mode is no parabola over its thermal width; or the determinants of
        a large model are not known well enough.
        """
        texts: list[str] = []
        points = {"minimum": self.minimum_point, "saddle": self.saddle_point}
        for name, point in points.items():
            soft = soft_text(name, self._soft_modes[name], temperature)
            texts += soft or anharmonic_flags(Surface(self.model), name, point, temperature)
        if 0.5 * self.log_determinant_error > MODE_FACTOR:
            texts.append(
                f"determinants: their stochastic estimate leaves the rate uncertain by a factor "
                f"{math.exp(0.5 * self.log_determinant_error):.2g}"
            )
        return tuple(texts)

    @cached_property
    def _soft_modes(self) -> dict[str, tuple[SoftMode, ...]]:
        """Broken rotations at minimum and saddle; those of linear layers are zero modes, and not among them."""
        surface = Surface(self.model)
        layers = [replace(layer, rotates=True) for layer in self.symmetry.layers if not layer.rotates]
        if not layers or surface.size > DENSE_LIMIT:
            return {"minimum": (), "saddle": ()}
        points = {"minimum": self.minimum, "saddle": self.saddle}
        # Weights that are 0 come out as rounding, whose orbit has no size.
        least = 1e-4 * float(np.linalg.norm(self.saddle))
        return {
            name: tuple(mode for mode in soft_modes(surface, layers, point) if mode.radius > least)
            for name, point in points.items()
        }

    @cached_property
    def order_parameters_on_the_way(self) -> tuple[float, float, float]:
        """Order parameter of the barrier's feature at minimum, saddle and destination."""
        points = np.stack([self.minimum, self.saddle, self.destination])
        at_minimum, top, behind = Surface(self.model).order_parameters(points)[:, self.feature].tolist()
        return at_minimum, top, behind

    def order_parameter_beyond(self, fraction: float) -> float:
        """Order parameter at a fraction of the path's arc length from the saddle (0) to the destination (1)."""
        s = self.path.arc_length
        where = s[self.top] + fraction * (s[-1] - s[self.top])
        after = min(max(int(np.searchsorted(s, where)), 1), len(s) - 1)
        share = (where - s[after - 1]) / (s[after] - s[after - 1])
        return self._order_parameter((1 - share) * self.path.images[after - 1] + share * self.path.images[after])

    def table(self) -> xr.Dataset:
        """Return what is seen along the path, for figures and files.

        Returns
        -------
        Dataset
            ``free_energy`` and ``order_parameter`` over ``image``, with the coordinate ``arc_length``, 0 at the saddle
            and negative on the minimum's side; energy and arc length of the three stationary points over ``state``.
        """
        length = self.path.arc_length - self.path.arc_length[self.top]
        seen = Surface(self.model).order_parameters(self.path.images)[:, self.feature]
        at = [0, self.top, -1]
        arc = {"long_name": "arc length from the saddle s", "units": "weight"}
        return xr.Dataset(
            {
                "free_energy": ("image", self.path.energies, describe("free_energy")),
                "order_parameter": ("image", seen, describe("order_parameter")),
                "state_energy": ("state", self.path.energies[at], describe("free_energy")),
                "state_arc_length": ("state", length[at], arc),
            },
            {"arc_length": ("image", length, arc), "state": ["minimum", "saddle", "destination"]},
            {"height": self.height, "negative_eigenvalue": self.negative_eigenvalue},
        )

    def _order_parameter(self, theta: Array) -> float:
        return float(Surface(self.model).order_parameters(theta[None])[0, self.feature])


def barrier_over(
    model: Model,
    saddle: StationaryPoint,
    minimum: StationaryPoint,
    destination: StationaryPoint,
    *,
    forth: Array | None = None,
    symmetry: Symmetry | None = None,
    tolerance: float = 1e-10,
) -> NumericalBarrier:
    """Return the barrier over a known saddle between two minima, if its certificate holds.

    Parameters
    ----------
    model : Model
    saddle, minimum, destination : StationaryPoint
    forth, symmetry, tolerance
        As in `kramers_grok.landscape.saddles.certify_saddle`.

    Raises
    ------
    UncertifiedError
        As in `kramers_grok.landscape.saddles.certify_saddle`.
    """
    known = symmetry_of(model) if symmetry is None else symmetry
    proof = certify_saddle(model, saddle, minimum, destination, forth=forth, tolerance=tolerance, symmetry=known)
    seen = model
    if isinstance(model, FunctionSpaceModel):
        seen = model.between(proof.minimum.theta, proof.destination.theta)
    return NumericalBarrier(
        model=seen,
        minimum_point=proof.minimum,
        saddle_point=proof.saddle,
        destination_point=proof.destination,
        path=_path(Surface(model), proof),
        top=_IMAGES // 2,
        log_volume_ratio=known.log_multiplicity(proof.minimum.theta, proof.saddle.theta),
        feature=_feature(Surface(seen), proof),
        forks=proof.forks,
        symmetry=known,
    )


def _path(surface: Surface, proof: SaddleCertificate) -> Path:
    """Images at equal distances on either side of the saddle, which is the middle one."""
    half = _IMAGES // 2 + 1
    sides = (np.concatenate([proof.path[: proof.top + 1]]), proof.path[proof.top :])
    left, right = (evenly(side, half) for side in sides)
    images = np.concatenate([left, right[1:]])
    images[[0, half - 1, -1]] = proof.minimum.theta, proof.saddle.theta, proof.destination.theta
    return Path(images, surface.energies(images), 0.0, 0, True)


def _feature(surface: Surface, proof: SaddleCertificate) -> int:
    """The order parameter that changes most."""
    ends = surface.order_parameters(np.stack([proof.minimum.theta, proof.destination.theta]))
    return int(np.argmax(np.abs(ends[1] - ends[0])))
