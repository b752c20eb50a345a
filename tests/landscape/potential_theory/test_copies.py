"""Several equivalent saddles within thermal reach of each other, against a grid that knows nothing of trials."""

import math

import numpy as np
import pytest
import sympy as sp
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import spsolve

from kramers_grok.core.landscape import Landscape
from kramers_grok.landscape.barriers import find_barrier
from kramers_grok.landscape.numerical_barrier import NumericalBarrier
from kramers_grok.landscape.potential_theory.capacity import capacity_rate
from kramers_grok.landscape.potential_theory.capacity_run import CapacityRun
from kramers_grok.landscape.potential_theory.copies import Copies, Profile
from kramers_grok.landscape.surface import Surface
from kramers_grok.landscape.symmetries.symmetry_group import Symmetry
from kramers_grok.models.base import SymbolicModel

COUPLING, SIXTH = 0.35, 0.02
DRAWS = {"seed": 2, "n_samples": 2**13, "n_blocks": 8}
FLAT = np.ones(2)
MAPS = (
    (np.array([1, 0]), FLAT),
    (np.array([1, 0]), -FLAT),
    (np.array([0, 1]), np.array([-1.0, 1.0])),
    (np.array([0, 1]), np.array([1.0, -1.0])),
)


@pytest.fixture(scope="module")
def barrier() -> NumericalBarrier:
    """Two units x and y, each of which opens the way for the other: a trap at 0 with four saddles."""
    x, y = sp.symbols("x y", real=True)
    energy = sum(u**2 / 2 - u**4 / 4 + SIXTH * u**6 for u in (x, y)) - COUPLING * x**2 * y**2
    model = SymbolicModel(Landscape(energy, (x, y), (x**2 + y**2,)))
    return find_barrier(model, np.zeros(2), np.array([3.0, 3.0]), symmetry=Symmetry(2, (), MAPS))


def exact_time(model: SymbolicModel, temperature: float, cells: int = 300, edge: float = 2.2) -> float:
    """Mean time from 0 to x² + y² = 4, by finite volumes on a quarter of the plane: x ↔ −x mirrors at the axes."""
    at = (np.arange(cells) + 0.5) * edge / cells
    points = np.stack(np.meshgrid(at, at, indexing="ij"), axis=-1)
    energy = Surface(model).energies(points.reshape(-1, 2)).reshape(cells, cells)
    inside = (points**2).sum(axis=-1) < 4.0
    number = np.where(inside, np.cumsum(inside.ravel()).reshape(cells, cells) - 1, -1)
    rows, columns, values = [], [], []
    out = np.zeros(inside.sum())
    for axis in (0, 1):
        one, other = (np.moveaxis(number, axis, 0)[s].ravel() for s in (slice(None, -1), slice(1, None)))
        low, high = (np.moveaxis(energy, axis, 0)[s].ravel() for s in (slice(None, -1), slice(1, None)))
        for here, there, rise in ((one, other, high - low), (other, one, low - high)):
            kept = here >= 0
            rate = temperature * (cells / edge) ** 2 * np.exp(-0.5 * rise[kept] / temperature)
            np.add.at(out, here[kept], rate)
            stays = there[kept] >= 0
            rows.append(here[kept][stays])
            columns.append(there[kept][stays])
            values.append(rate[stays])
    jumps = coo_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (len(out), len(out)))
    return float(spsolve((diags_array(out) - jumps).tocsc(), np.ones(len(out)))[0])


def test_the_grid_has_converged(barrier: NumericalBarrier) -> None:
    heat = barrier.height / 5
    coarse, fine = (exact_time(barrier.model, heat, cells) for cells in (110, 220))
    assert abs(coarse / fine - 1) < 0.002


@pytest.mark.parametrize("ratio", [5, 8])
def test_saddles_close_to_each_other_against_a_grid(
    barrier: NumericalBarrier, ratio: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    heat = barrier.height / ratio
    exact = exact_time(barrier.model, heat)
    rate = capacity_rate(barrier, heat, **DRAWS)
    assert rate.valid
    assert rate.relative_error < 0.1
    # No luck is left in this: the exact rate lies between the bounds, up to the draws' error and the recrossings.
    assert abs(exact * rate.value - 1) < 0.5 * rate.gap + 4.4 * rate.sampling_error + 1 / (exact * 0.5)
    monkeypatch.setattr("kramers_grok.landscape.potential_theory.capacity_run.copies_within", lambda *_: None)
    alone = capacity_rate(barrier, heat, **DRAWS, warn=False)
    assert not alone.valid  # the negative control: one saddle's trial varies in the wells behind the others
    assert exact * alone.value > 1e10


def test_far_saddles_are_left_alone(barrier: NumericalBarrier, monkeypatch: pytest.MonkeyPatch) -> None:
    heat = barrier.height / 100
    assert CapacityRun(barrier, heat, 0, None, 2**9, 4)._near is None
    rate = capacity_rate(barrier, heat, **DRAWS)
    monkeypatch.setattr("kramers_grok.landscape.potential_theory.capacity_run.copies_within", lambda *_: None)
    assert rate == capacity_rate(barrier, heat, **DRAWS)


def crowd(barrier: NumericalBarrier) -> Copies:
    near = CapacityRun(barrier, barrier.height / 5, 0, None, 2**9, 4)._near
    assert near is not None
    return near


def test_copies_are_the_saddles_next_to_this_one(barrier: NumericalBarrier) -> None:
    near = crowd(barrier)
    images = [signs * barrier.saddle[order] for order, signs in near.maps]
    used = int(np.argmax(np.abs(barrier.saddle)))
    assert sorted(round(image[1 - used] / np.abs(barrier.saddle[used])) for image in images) == [-1, 1]
    assert all(abs(image[used]) < 1e-6 for image in images)  # the opposite one lies too far off


@pytest.mark.parametrize("profile", [None, Profile(), Profile(-0.5, 0.9)])
def test_gradient_and_laplacian_of_the_product(barrier: NumericalBarrier, profile: Profile | None) -> None:
    near = crowd(barrier)
    near.trial.reach = 7.0  # at 4 the cut's kink, 1e-4 of the slope, is seen by second differences
    theta = barrier.saddle + 0.3 * np.random.default_rng(0).normal(size=(64, 2))

    def q(points: np.ndarray) -> np.ndarray:
        product = near.product(points)
        return 1 - (product if profile is None else product.shaped(profile)).outside

    here = near.product(theta, curved=True)
    here = here if profile is None else here.shaped(profile)
    inside = (here.outside > 0.05) & (here.outside < 0.999)
    assert inside.sum() > 20
    h = 1e-3
    ends = [(q(theta + h * e), q(theta - h * e)) for e in np.eye(2)]
    gradient = np.stack([(up - down) / (2 * h) for up, down in ends], axis=1)
    laplacian = sum((up + down - 2 * q(theta)) / h**2 for up, down in ends)
    assert np.allclose(gradient[inside], here.gradient[inside], atol=1e-3)
    assert np.allclose(laplacian[inside], here.curved[inside], atol=1e-2)


def test_shares_of_the_copies_add_up(barrier: NumericalBarrier) -> None:
    # About the middle between two saddles each has its share: a point's and its mirror image's add up to 1.
    near = crowd(barrier)
    theta = 0.75 * np.abs(barrier.saddle).max() * np.array([[1.0, 0.8], [0.8, 1.0], [0.9, 0.9]])
    theta *= np.where(barrier.saddle.sum() < 0, -1.0, 1.0)
    shares = near.product(theta).share
    assert math.isclose(shares[0] + shares[1], 1.0, rel_tol=1e-6)
    assert math.isclose(shares[2], 0.5, rel_tol=1e-6)
    assert np.allclose(near.product(theta).outside[0], near.product(theta).outside[1])
