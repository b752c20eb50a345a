"""Exit times over grids of parameters against those one by one, closed forms and the numbers of others."""

import numpy as np
import pytest
import sympy

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.region import Region, beyond
from kramers_grok.theory import mode_states
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.exit_grids import DiffusionFamily, landscape_exit_times, mean_exits, mode_exit_times
from kramers_grok.theory.exit_times import exit_time
from kramers_grok.theory.quadrature import Diffusion, Interval, mean_exit

X, H = sympy.symbols("x h", real=True)
DOUBLE_WELL = H * (X**2 - 1) ** 2


def free(diffusions):
    return DiffusionFamily(lambda x, d: 0.0 * x, lambda x, d: d, (diffusions,))


@pytest.mark.parametrize("above", [True, False])
def test_modes_one_by_one(above):
    """Depths, scales and barriers from 1 to 100 times the temperature, at random: the scalar quadrature's numbers."""
    rng = np.random.default_rng(1)
    n = 12
    depth, sigma, q = rng.integers(3, 7, n), rng.uniform(0.3, 3, n), rng.uniform(0.3, 3, n)
    decay = mode_states.spinodal(depth, sigma, q) * rng.uniform(0.05, 0.99, n)
    modes = [Mode(int(d), float(s), float(w), float(v)) for d, s, w, v in zip(depth, sigma, decay, q, strict=True)]
    barriers = [mode.barrier() if above else mode.forgetting_barrier() for mode in modes]
    heat = np.array([barrier.height for barrier in barriers]) / 10 ** rng.uniform(0, 2, n)
    grid = mode_exit_times(depth, sigma, decay, q, temperature=heat, above=above)
    one_by_one = [
        np.log(exit_time(mode, temperature=T, target=beyond(barrier)).mean)
        for mode, T, barrier in zip(modes, heat, barriers, strict=True)
    ]
    np.testing.assert_allclose(grid.log_mean, one_by_one, rtol=0, atol=1e-10)
    assert grid.relative_error.max() < 1e-10


def test_every_argument_broadcasts():
    decay, sigma = np.array([0.1, 0.2])[:, None, None], np.array([[0.9], [1.1], [1.3]])
    heat, threshold = np.array([0.002, 0.004, 0.006, 0.01]), np.array([0.3, 0.4, 0.5, 0.6])
    grid = mode_exit_times(3, sigma, decay, temperature=heat, threshold=threshold)
    assert grid.mean.shape == grid.relative_error.shape == (2, 3, 4)
    alone = exit_time(Mode(3, 1.1, 0.2), temperature=0.006, target=Region(0.5)).mean
    assert grid.mean[1, 1, 2] == pytest.approx(alone, rel=1e-10)
    # Neighbours make no difference: panels and sums are each point's own
    point = mode_exit_times(3, 1.1, 0.2, temperature=0.006, threshold=0.5)
    assert point.mean.shape == ()
    assert point.mean == pytest.approx(grid.mean[1, 1, 2], rel=1e-13)


def test_two_layers_have_no_barrier_but_an_exit_time():
    grid = mode_exit_times([2, 3], 1.0, 0.2, temperature=0.01, threshold=0.4)
    for depth, mean in zip((2, 3), grid.mean, strict=True):
        assert mean == pytest.approx(exit_time(Mode(depth, 1.0, 0.2), temperature=0.01, target=Region(0.4)).mean)


def test_what_does_not_exist_is_nan():
    # D = 2 and λ above the spinodal .4725: no barrier; a learned state neither
    learned = mode_exit_times([2, 3, 3], 1.0, [0.25, 0.25, 0.5], temperature=0.001).mean
    assert np.isnan(learned).tolist() == [True, False, True]
    forgotten = mode_exit_times(3, 1.0, [0.25, 0.5], temperature=0.01, threshold=0.1, above=False).mean
    assert np.isnan(forgotten).tolist() == [False, True]
    inside = mode_exit_times(3, 1.0, 0.25, temperature=0.01, threshold=[0.5, 0.9], above=False).mean
    assert np.isnan(inside).tolist() == [False, True]  # the learned state is at m = .721


def test_golden_double_wells():
    grid = landscape_exit_times(
        DOUBLE_WELL, X, {H: [1.0, 1.0, 0.25]}, temperature=[1 / 3, 1 / 5, 0.05], start=-1.0, upper=[[0.0], [1.0]]
    )
    expected = [[12.698350, 90.475940, 361.903760], [26.640088, 182.417673, 729.670692]]
    np.testing.assert_allclose(grid.mean, expected, rtol=0, atol=6e-7)
    mirrored = landscape_exit_times(
        DOUBLE_WELL, X, {H: [1.0, 1.0, 0.25]}, temperature=[1 / 3, 1 / 5, 0.05], start=1.0, lower=[[0.0], [-1.0]]
    )
    np.testing.assert_allclose(mirrored.log_mean, grid.log_mean, rtol=0, atol=1e-12)


def test_a_wrong_temperature_is_seen():
    # Negative control: a thousandth of the temperature, far below what any simulation would notice
    right, wrong = landscape_exit_times(
        DOUBLE_WELL, X, {H: 1.0}, temperature=[0.2, 0.2 * 1.001], start=-1.0, upper=0.0
    ).mean
    assert abs(right - 90.475940) < 6e-7 < 0.1 < abs(wrong - 90.475940)


def test_tilted_wells_need_their_own_panels():
    """A lopsided landscape without symmetry, walls near and far, barriers up to 2000: no overflow, nothing shared."""
    tilt = sympy.Symbol("c")
    energy = (X**2 - 1) ** 2 + tilt * X
    tilts, heats = np.array([-0.5, 0.1, 0.4]), np.array([[1 / 2000], [0.05], [1.0]])
    grid = landscape_exit_times(energy, X, {tilt: tilts}, temperature=heats, start=-1.2, upper=0.9)
    walled = landscape_exit_times(energy, X, {tilt: tilts}, temperature=heats, start=-1.2, upper=0.9, wall=-1.5)
    for i, j in np.ndindex(3, 3):
        process = Diffusion(lambda x, c=tilts[j]: -4 * x * (x**2 - 1) - c, float(heats[i, 0]))
        for result, interval in (
            (grid, Interval(-1.2, upper=0.9)),
            (walled, Interval(-1.2, upper=0.9, wall=-1.5)),
        ):
            assert result.log_mean[i, j] == pytest.approx(mean_exit(process, interval).log_mean, abs=1e-9)
    assert grid.log_mean.max() > 2000
    assert np.isinf(grid.mean).any()


def test_brownian_motion_between_two_ends():
    x = np.array([-0.9, 0.0, 0.3, 1.0])
    result = mean_exits(free(0.25), x, lower=-1.0, upper=1.0)
    np.testing.assert_allclose(result.mean, (1 - x**2) / 0.5, rtol=1e-12)
    assert result.log_mean[-1] == -np.inf
    np.testing.assert_allclose(mean_exits(free([0.25, 0.5]), 0.5, upper=2.0, wall=0.0).mean, [7.5, 3.75], rtol=1e-12)
    np.testing.assert_allclose(mean_exits(free([0.25, 0.5]), -0.5, lower=-2.0, wall=0.0).mean, [7.5, 3.75], rtol=1e-12)


def test_noise_that_depends_on_the_place():
    family = DiffusionFamily(lambda x, c: -4 * x * (x**2 - 1) - 0.3, lambda x, c: c * (1 + 0.5 * x**2), ([0.05, 0.4],))
    grid = mean_exits(family, -0.9, lower=-1.6, upper=0.7)
    for c, value in zip((0.05, 0.4), grid.log_mean, strict=True):
        process = Diffusion(lambda x: -4 * x * (x**2 - 1) - 0.3, lambda x, c=c: c * (1 + 0.5 * x**2))
        assert value == pytest.approx(mean_exit(process, Interval(-0.9, lower=-1.6, upper=0.7)).log_mean, abs=1e-10)


def test_points_beyond_one_batch():
    heat = np.linspace(0.2, 2.0, 2500)
    grid = landscape_exit_times(DOUBLE_WELL, X, {H: 1.0}, temperature=heat, start=-1.0, upper=0.0)
    assert (np.diff(grid.mean) < 0).all()
    for i in (0, 1100, 2499):
        process = Diffusion(lambda x: -4 * x * (x**2 - 1), float(heat[i]))
        assert grid.mean[i] == pytest.approx(mean_exit(process, Interval(-1.0, upper=0.0)).mean, rel=1e-10)


def test_unconfined_and_unknown_points():
    # A constant push away from the target, one towards it, and a point left out
    family = DiffusionFamily(lambda x, b: b + 0.0 * x, lambda x, b: 1.0, ([-1.0, 1.0, np.nan],))
    result = mean_exits(family, 0.0, upper=1.0)
    assert result.mean[0] == np.inf
    assert result.mean[1] == pytest.approx(1.0, rel=1e-10)  # distance over speed
    assert np.isnan(result.mean[2])


def test_errors():
    with pytest.raises(InvalidParameterError, match="without an exit"):
        mean_exits(free(1.0), 0.0)
    with pytest.raises(InvalidParameterError, match="Drop `wall`"):
        mean_exits(free(1.0), 0.0, lower=-1.0, upper=1.0, wall=-0.5)
    with pytest.raises(InvalidParameterError, match="outside its ends"):
        mean_exits(free(1.0), [0.0, 2.0], upper=1.0, wall=-1.0)
    with pytest.raises(InvalidParameterError, match=r"x = -0\.\d+, at the parameters \(2\)"):
        mean_exits(DiffusionFamily(lambda x, d: -x, lambda x, d: d * (x > -0.5), (2.0,)), 0.0, lower=-1.0, wall=1.0)
    with pytest.raises(InvalidParameterError, match=r"symbols \['h'\] without values"):
        landscape_exit_times(DOUBLE_WELL, X, {}, temperature=1.0, start=-1.0, upper=0.0)
    with pytest.raises(InvalidParameterError, match="`temperature` = 0"):
        mode_exit_times(3, 1.0, 0.25, temperature=[0.1, 0.0])
    with pytest.raises(InvalidParameterError, match="never negative"):
        mode_exit_times(4, 1.0, 0.2, temperature=0.1, threshold=-0.1)
    with pytest.raises(InvalidParameterError, match="weight decay"):
        mode_exit_times(3, 1.0, -0.2, temperature=0.1)
