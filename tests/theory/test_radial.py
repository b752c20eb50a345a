"""Radial free energy: its measure against sampled weights, its stationary points against the polynomial, its rate
against formulas and simulations.

The sampled tests share nothing with the derivation but the loss: weights are drawn from the Gaussian prior of weight
decay and weighted with the data term.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize

import kramers_grok as kg
from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError, ValidityWarning
from kramers_grok.theory import radial as rd
from kramers_grok.theory.radial_phases import width_temperature_diagram
from kramers_grok.theory.radial_terms import LogDeterminant, extra_directions, learned_pair, unlearned_pair
from kramers_grok.theory.rates import eyring_kramers_rate
from kramers_grok.theory.saddles import MatrixNetwork


def network(*widths, sigma=(1.0,), decay=0.25, variance=1.0):
    return MatrixNetwork(widths, sigma, weight_decay=decay, input_variance=variance)


def common(width, depth=3, **options):
    return network(1, *[width] * (depth - 1), 1, **options)


# ---------------------------------------------------------------- the measure


def sampled_probabilities(widths, decay, variance, temperature, edges, *, seed, n=500_000):
    """Probabilities of m in bins from Gaussian weights weighted by the data term, and their standard errors."""
    rng = np.random.default_rng(seed)
    product = None
    for below, above in pairwise(widths):
        layer = rng.normal(scale=math.sqrt(temperature / decay), size=(n, above, below))
        product = layer if product is None else layer @ product
    teacher = np.zeros((widths[-1], widths[0]))
    teacher[0, 0] = 1.0
    m = product[:, 0, 0]
    inside = (m >= edges[0]) & (m < edges[-1])
    fit = ((product - teacher) ** 2).sum(axis=(1, 2))[inside]
    weight = np.exp(-0.5 * variance * fit / temperature)
    weight /= weight.sum()
    bins = np.digitize(m[inside], edges) - 1
    found = np.bincount(bins, weight, minlength=len(edges) - 1)
    errors = [math.sqrt((weight**2 * ((bins == b) - p) ** 2).sum()) for b, p in enumerate(found)]
    return found, np.array(errors)


def radial_probabilities(free_energy, edges, *, reach=6.0, points=40):
    """The same from e^{-E/T}, integrated over the radii on a grid: at fixed m, z = m/∏ρ and dz = dm/∏ρ."""
    T, p = free_energy.temperature, free_energy.potential
    top = reach * math.sqrt(T / p.weight_decay) + 1.0
    nodes, weights = np.polynomial.legendre.leggauss(points)
    nodes, weights = 0.5 * top * (nodes + 1), 0.5 * top * weights
    grids = np.meshgrid(*[nodes] * (p.depth - 1), indexing="ij")
    volume = np.prod(np.meshgrid(*[weights] * (p.depth - 1), indexing="ij"), axis=0).ravel()
    radii = np.stack([g.ravel() for g in grids], axis=-1)
    product = radii.prod(axis=-1)

    def density(m):
        a = np.insert(radii, p.alignment, m / product, axis=-1)
        return float((volume * np.exp(-free_energy.energy(a) / T) / product).sum())

    x, w = np.polynomial.legendre.leggauss(8)
    found = [
        sum(0.5 * (b - a) * wi * density(0.5 * (a + b) + 0.5 * (b - a) * xi) for xi, wi in zip(x, w, strict=True))
        for a, b in pairwise(edges)
    ]
    return np.array(found) / sum(found)


def chi_square(free_energy, found, errors, edges):
    expected = radial_probabilities(free_energy, edges)
    return float((((found - expected) / errors)[:-1] ** 2).sum())


MEASURES = {
    "three layers": (1, 2, 3, 1),
    "four layers": (1, 3, 2, 4, 1),
    "two inputs": (2, 3, 2, 1),
    "three outputs": (1, 2, 3, 3),
}
# Away from 0, where the density of a product is singular and the grid of radii too coarse
EDGES = np.array([0.25, 0.4, 0.55, 0.7, 0.85, 1.0, 1.15, 1.3, 1.5])
# False alarms: chi-square with 7 degrees of freedom above 34 has probability 2e-5, for each of the 4 measures
LIMIT = 34.0


@pytest.mark.parametrize("widths", MEASURES.values(), ids=MEASURES.keys())
def test_measure_is_that_of_sampled_weights(widths):
    decay, variance, temperature = 0.25, 1.3, 0.1
    found, errors = sampled_probabilities(widths, decay, variance, temperature, EDGES, seed=len(widths))
    true = rd.RadialFreeEnergy(network(*widths, decay=decay, variance=variance), temperature)
    assert true.exactness is rd.Exactness.EXACT_MEASURE
    assert chi_square(true, found, errors, EDGES) < LIMIT
    # Negative controls: a width of one unit more, and (with power of its own) extra inputs left out.
    wider = [widths[0], *widths[1:-2], widths[-2] + 1, widths[-1]]
    wrong = rd.RadialFreeEnergy(network(*wider, decay=decay, variance=variance), temperature)
    assert chi_square(wrong, found, errors, EDGES) > 4 * LIMIT
    if max(widths[0], widths[-1]) > 1:
        wrong = rd.RadialFreeEnergy(network(1, *widths[1:-1], 1, decay=decay, variance=variance), temperature)
        assert chi_square(wrong, found, errors, EDGES) > 4 * LIMIT


@pytest.mark.parametrize(
    ("widths", "sigma", "rank", "exact"),
    [
        ((1, 2, 2, 1), (1.0,), 0, True),
        ((5, 2, 2, 1), (1.0,), 0, True),
        ((1, 2, 2, 5), (1.0,), 0, True),
        ((2, 2, 2, 2), (1.0,), 0, False),
        ((2, 2, 2, 2), (1.0, 0.5), 0, False),
        ((2, 2, 2, 2), (1.0, 0.9), 1, False),
    ],
)
def test_says_what_is_exact(widths, sigma, rank, exact):
    found = rd.RadialFreeEnergy(network(*widths, sigma=sigma), 1e-3, rank).exactness
    assert (found is rd.Exactness.EXACT_MEASURE) == exact


# ---------------------------------------------------------------- derivatives and stationary points

TERMS = {
    "extra": [extra_directions(3, range(1, 4), 4, 0.25, 1.3)],
    "unlearned": [unlearned_pair(0.7, 4, 0.25, 1.3)],
    "learned": list(learned_pair((kg.Mode(4, 1.2, 0.25, 1.3).learned_amplitude(), 1.2), 0.8, 4, 0.25, 1.3)),
}


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS.keys())
def test_derivatives_of_the_determinants(terms: list[LogDeterminant]):
    u, step = np.log([0.3, 0.25, 0.35, 0.2]), 1e-5
    for term in terms:
        gradient, hessian = term.derivatives(u)
        shifted = [(term.value(u + e), term.value(u - e)) for e in step * np.eye(4)]
        np.testing.assert_allclose(gradient, [(a - b) / (2 * step) for a, b in shifted], atol=1e-9)
        slopes = [(term.derivatives(u + e)[0] - term.derivatives(u - e)[0]) / (2 * step) for e in step * np.eye(4)]
        np.testing.assert_allclose(hessian, slopes, atol=1e-8)
        assert abs(float(term.value(np.full(4, -300.0)))) < 1e-12


CASES = {
    "scalar": (network(1, 3, 4, 1), 0, 12.0),
    "four layers": (network(1, 2, 3, 2, 1, decay=0.2), 0, 9.0),
    "inputs": (network(6, 3, 2, 1), 0, 12.0),
    "features": (network(4, 3, 3, 5, sigma=(1.0, 0.7)), 0, 14.0),
    "rank 1": (network(4, 3, 4, 4, sigma=(1.0, 0.9)), 1, 14.0),
}


@pytest.mark.parametrize(("theory", "rank", "ratio"), CASES.values(), ids=CASES.keys())
def test_stationary_points_of_the_energy(theory, rank, ratio):
    """Trap and saddle have no slope and the right number of negative directions, by differences of the energy."""
    free_energy = rd.RadialFreeEnergy(theory, theory.mode(rank).barrier().height / ratio, rank)
    barrier = free_energy.barrier()
    assert barrier.trap.order_parameter < barrier.saddle.order_parameter < barrier.learned.order_parameter
    for point, index in ((barrier.trap, 0), (barrier.saddle, 1)):
        a, depth = point.amplitudes, theory.depth
        assert a.prod() == pytest.approx(point.order_parameter, rel=1e-12)
        steps = 1e-4 * np.diag(a)
        slope = np.array([(free_energy.energy(a + s) - free_energy.energy(a - s)) / 2e-4 for s in steps])
        assert np.abs(slope).max() < 1e-7 * free_energy.temperature
        hessian = np.empty((depth, depth))
        for i, s in enumerate(steps):
            for j, t in enumerate(steps):
                corners = [free_energy.energy(a + x * s + y * t) * x * y for x in (1, -1) for y in (1, -1)]
                hessian[i, j] = sum(corners) / (4 * s[i] * t[j])
        np.testing.assert_allclose(point.spectrum, np.linalg.eigvalsh(hessian), rtol=1e-4, atol=1e-5)
        assert (point.spectrum < 0).sum() == index


@pytest.mark.parametrize("widths", [(1, 3, 4, 1), (1, 2, 3, 4, 1)])
@pytest.mark.parametrize("ratio", [10.0, 25.0, 90.0])
def test_stationary_points_are_the_polynomials_roots(widths, ratio):
    r"""λ^D m = q(σ − m) ∏ (T n_l + q m (σ − m)): smallest root the trap, then saddle, then learned state."""
    sigma, decay, q = 1.2, 0.3, 0.9
    theory = network(*widths, sigma=(sigma,), decay=decay, variance=q)
    T = theory.barrier().height / ratio
    m, pull = np.poly1d([1, 0]), np.poly1d([-q, q * sigma])
    polynomial = pull
    for h in widths[1:-1]:
        polynomial = polynomial * (T * (h - 1) + m * pull)
    roots = (polynomial - decay**theory.depth * m).roots
    real = np.sort(roots[(np.abs(roots.imag) < 1e-9) & (roots.real > 0) & (roots.real < sigma)].real)
    barrier = rd.RadialFreeEnergy(theory, T).barrier()
    found = [p.order_parameter for p in (barrier.trap, barrier.saddle, barrier.learned)]
    # Companion matrices lose the digits of small roots; the trap's m is of order T^(D-1).
    np.testing.assert_allclose(found, real, rtol=1e-6, atol=1e-12)


def test_profile_is_the_constrained_minimum():
    theory = network(3, 3, 4, 1)
    free_energy = rd.RadialFreeEnergy(theory, theory.barrier().height / 12)
    for m in (0.002, 0.02, 0.4):

        def lifted(log_radii, m=m):
            radii = np.exp(log_radii)
            return float(free_energy.energy(np.insert(radii, free_energy.potential.alignment, m / radii.prod())))

        best = minimize(lifted, np.full(2, math.log(m) / 3), method="BFGS", options={"gtol": 1e-10}).fun
        assert float(free_energy.profile(m)) == pytest.approx(best, rel=1e-9)
    with pytest.raises(InvalidParameterError, match="between 0 and σ"):
        free_energy.profile([0.5, 1.0])


# ---------------------------------------------------------------- spinodal


@pytest.mark.parametrize("depth", [3, 4, 5, 7])
def test_spinodal_has_the_closed_form_for_weak_decay(depth):
    """T*(h − 1) → 2ΔF (D − 1)^{−(D−1)/(D−2)}: D = 3 ΔF/2."""
    errors = []
    for decay in (1e-2, 1e-3):
        theory = common(4, depth, decay=decay)
        limit = 2 * theory.barrier().height * (depth - 1) ** (-(depth - 1) / (depth - 2))
        errors.append(abs(rd.entropic_spinodal(theory) * 3 / limit - 1))
    assert errors[0] < 1e-2
    # Corrections are of the order of m_s/σ ~ λ^{D/(D−2)}: more than a decade smaller.
    assert errors[1] < 0.11 * errors[0]


def test_spinodal_is_where_two_roots_merge():
    theory = network(1, 3, 5, 4, 1, decay=0.2)
    melting = rd.entropic_spinodal(theory)
    below = rd.RadialFreeEnergy(theory, melting * (1 - 1e-6)).barrier()
    assert below.saddle.order_parameter / below.trap.order_parameter - 1 < 0.02
    assert 0 < below.height < 1e-8 * melting
    with pytest.raises(NoBarrierError, match=r"has melted.*\n.*below"):
        rd.RadialFreeEnergy(theory, melting * (1 + 1e-6)).barrier()


@pytest.mark.parametrize("depth", [3, 4])
def test_critical_width_and_spinodal_are_inverse(depth):
    theory = common(7, depth)
    T = rd.entropic_spinodal(theory)
    assert rd.critical_width(theory, T) == pytest.approx(7.0, rel=1e-9)
    # One common width only enters as T (h − 1).
    assert rd.entropic_spinodal(common(3, depth)) * 2 == pytest.approx(T * 6, rel=1e-9)


def test_three_layers_at_a_quarter():
    theory = common(8)
    assert rd.entropic_spinodal(theory) * 7 / theory.barrier().height == pytest.approx(0.496, abs=5e-4)


def test_extra_inputs_hold_the_trap_back():
    bare, many = common(8), network(20, 8, 8, 1)
    assert rd.entropic_spinodal(many) > 1.005 * rd.entropic_spinodal(bare)
    with pytest.raises(NoBarrierError, match="extra inputs"):
        rd.entropic_spinodal(network(400, 3, 3, 1))


# ---------------------------------------------------------------- rate


@pytest.mark.parametrize(
    ("h", "ratio", "laplace", "simulated", "error"),
    [(2, 6, 422, 399, 5), (2, 8, 2148, 1938, 38), (2, 10, 12119, 11071, 384), (4, 8, 102, 94.7, 1.1)],
)
def test_rate_against_published_simulations(h, ratio, laplace, simulated, error):
    """Independent simulations at step 0.1, which is 1.2 % slower than continuous time (first order in the step)."""
    theory = common(h)
    T = theory.barrier().height / ratio
    expanded = rd.radial_rate(theory, T, well=rd.WellIntegral.LAPLACE, warn=False)
    assert expanded.mean_time == pytest.approx(laplace, abs=0.5)
    exact = rd.radial_rate(theory, T, warn=False)
    continuous = simulated / 1.012
    accuracy = 0.03 if exact.valid else 0.10
    assert abs(exact.mean_time / continuous - 1) < accuracy + 4.4 * error / simulated
    assert exact.valid == (h == 2)
    # Negative control: the Gaussian saddle of the whole network.
    assert eyring_kramers_rate(theory.barrier(), T, warn=False).mean_time < 0.82 * simulated


def test_chain_is_a_network_of_width_one():
    theory, chain = common(1), kg.DeepLinearChain(3, 1.0, 0.25)
    T = chain.barrier().height / 20
    expected = eyring_kramers_rate(chain.barrier(), T).value
    for well in (rd.WellIntegral.GAUSSIAN, rd.WellIntegral.LAPLACE):
        assert rd.radial_rate(theory, T, well=well).value == pytest.approx(expected, rel=1e-9)
    # The integral holds a first correction that Laplace leaves out.
    assert rd.radial_rate(theory, T).value == pytest.approx(expected, rel=0.3 / 20)


LIMITS = {
    "h = 2": (common(2), 0),
    "h = 3": (common(3), 0),
    "widths 2, 3": (network(1, 2, 3, 1), 0),
    "four layers": (network(1, 2, 3, 2, 1, decay=0.2), 0),
    "8 inputs": (network(8, 2, 3, 1), 0),
    "8 inputs and outputs": (network(8, 3, 3, 8), 0),
    "two features": (network(8, 3, 3, 8, sigma=(1.0, 0.7)), 0),
    "rank 1": (network(8, 3, 3, 8, sigma=(1.0, 0.9, 0.7)), 1),
    "rank 1, four layers": (network(3, 3, 4, 3, 3, sigma=(1.0, 0.9), decay=0.15, variance=1.2), 1),
    "rank 2": (network(4, 3, 5, 4, sigma=(1.4, 1.1, 0.8)), 2),
}


@pytest.mark.parametrize(("theory", "rank"), LIMITS.values(), ids=LIMITS.keys())
def test_rate_becomes_that_of_the_matrix_barrier(theory, rank):
    """Formulas share no code: orbit volumes and spectra there, powers of radii and determinants here."""
    barrier = theory.barrier(rank)
    ratios = np.array([75.0, 150.0, 300.0, 600.0])
    logs = []
    for ratio in ratios:
        T = barrier.height / ratio
        ours = rd.radial_rate(theory, T, rank, warn=False).value
        logs.append(math.log(eyring_kramers_rate(barrier, T, warn=False).value / ours))
    first_order = np.array(logs) * ratios
    assert np.abs(first_order).max() < 6
    # A correction of first order in T/ΔF and nothing else: its coefficient converges as 1/ratio.
    intercept = (600 * logs[-1] - 300 * logs[-2]) / 300
    assert abs(intercept) < 3e-4
    assert np.abs(np.diff(first_order)).max() < 0.5


def test_a_wrong_orbit_fails():
    """Negative control: one dimension of the orbit too many is no small correction."""
    theory = common(2)
    T = theory.barrier().height / 500
    right, wrong = (rd.radial_rate(n, T).value for n in (theory, network(1, 2, 3, 1)))
    assert wrong > 5 * right


def test_well_integral_against_a_grid():
    theory = network(3, 2, 3, 1)
    T = theory.barrier().height / 7
    free_energy = rd.RadialFreeEnergy(theory, T)
    edge = free_energy.barrier().saddle.order_parameter
    x, w = np.polynomial.legendre.leggauss(90)
    top = 9 * math.sqrt(T / 0.25)
    rho, weight = 0.5 * top * (x + 1), 0.5 * top * w
    total = 0.0
    for (r, wr), (s, ws) in ((a, b) for a in zip(rho, weight, strict=True) for b in zip(rho, weight, strict=True)):
        low, high = -top, min(top, edge / (r * s))
        z = 0.5 * (high - low) * x + 0.5 * (high + low)
        a = np.stack([z, np.full_like(z, r), np.full_like(z, s)], axis=-1)
        total += wr * ws * 0.5 * (high - low) * float((w * np.exp(-(free_energy.energy(a) - 0.5) / T)).sum())
    assert free_energy.log_well() == pytest.approx(math.log(total) - 0.5 / T, abs=1e-6)


def test_validity_is_carried_and_warned_about():
    theory = common(4)
    with pytest.warns(ValidityWarning, match=r"radial barrier is 0\.679 T.*simulation") as caught:
        rate = rd.radial_rate(theory, theory.barrier().height / 8)
    assert caught[0].filename == __file__
    assert not rate.valid
    assert rate.flags
    assert rate.barrier_over_temperature == pytest.approx(0.679, abs=1e-3)


# ---------------------------------------------------------------- simulations on both sides


def simulated_times(theory, ratios, n_replicas):
    """Mean escape times of Langevin dynamics in all weights, in continuous time to first order in the step."""
    model = kg.DeepLinearNetwork(theory.widths, [1.0], weight_decay=theory.weight_decay)
    barrier, found = theory.barrier(), []
    target = kg.beyond(model.mode(0).barrier())
    for seed, ratio in enumerate(ratios):
        T = barrier.height / ratio
        langevin = kg.Langevin(model, temperature=T, dt=0.1)
        run = kg.first_passage(langevin, target=target, n_replicas=n_replicas, max_time=50 * ratio**2, seed=seed)
        step = (
            eyring_kramers_rate(barrier, T, step=0.1, warn=False).value
            / eyring_kramers_rate(barrier, T, warn=False).value
        )
        mean = kg.mean_exit_time(run)
        found.append((mean.value * step, mean.standard_error * step))
    return np.array(found).T


def test_escape_times_know_no_spinodal():
    """Width 4 melts at ΔF/T = 6.05. Times are smooth there, right on the trap's side; the Gaussian saddle is not.

    With 400 replicas a time is known to 5 %. Smoothness: the residual of a parabola through ln τ at 6 points has
    3 degrees of freedom, χ² > 26 by chance in 1e-5; a step of 40 % at the spinodal would make it about 40.
    """
    theory, ratios = common(4), np.array([4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    height = theory.barrier().height
    melting = height / rd.entropic_spinodal(theory)
    assert 6 < melting < 6.1
    times, errors = simulated_times(theory, ratios, 400)

    def roughness(values):
        logs, weights = np.log(values), times / errors
        residual = logs - np.polyval(np.polyfit(ratios, logs, 2, w=weights), ratios)
        return float(((residual * weights) ** 2).sum())

    assert roughness(times) < 26
    assert roughness(times * np.where(ratios > melting, 1.5, 1.0)) > 26
    with pytest.raises(NoBarrierError, match="melted"):
        rd.radial_rate(theory, height / ratios[2])
    for ratio, time, error in zip(ratios[4:], times[4:], errors[4:], strict=True):
        radial = rd.radial_rate(theory, height / ratio, warn=False).mean_time
        gaussian = eyring_kramers_rate(theory.barrier(), height / ratio, warn=False).mean_time
        # 10 % and 4.4 standard errors: false alarms 1e-5 each
        assert abs(radial - time) < 0.10 * time + 4.4 * error
        assert time - gaussian > 0.10 * time + 4.4 * error


# ---------------------------------------------------------------- phase diagram


def test_diagram_of_width_and_temperature():
    theory = common(2)
    height = theory.barrier().height
    temperatures = height / np.array([6.0, 10.0, 20.0])
    diagram = width_temperature_diagram(theory, widths=[1, 2, 5, 12], temperatures=temperatures[::-1])
    assert dict(diagram.sizes) == {"width": 4, "temperature": 3}
    assert math.isinf(diagram.entropic_spinodal[0])
    assert not diagram.melted[0].any()
    assert (np.diff(diagram.entropic_spinodal) < 0).all()
    expected = diagram.width.values[:, None] > diagram.critical_width.values[None, :]
    assert (diagram.melted.values == expected).all()
    assert (np.isnan(diagram.escape_rate) == diagram.melted).all()
    at = diagram.sel(width=5, temperature=height / 20, method="nearest")
    rate = rd.radial_rate(common(5), height / 20, warn=False)
    assert float(at.escape_rate) == pytest.approx(rate.value, rel=1e-12)
    assert float(at.radial_barrier_over_temperature) == pytest.approx(rate.barrier_over_temperature, rel=1e-9)
    for name in diagram.variables:
        assert {"units", "long_name"} <= set(diagram[name].attrs), name


def test_diagram_is_drawn():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from kramers_grok.plots.melting import width_temperature

    theory = common(2)
    temperatures = theory.barrier().height / np.linspace(4, 30, 12)
    diagram = width_temperature_diagram(theory, widths=range(1, 12, 2), temperatures=temperatures)
    ax = width_temperature(diagram)
    assert ax.get_xlabel() == "hidden width h [units]"
    assert ax.get_ylabel() == "temperature T [loss]"
    assert any("entropic spinodal" in text.get_text() for text in ax.get_legend().get_texts())
    matplotlib.pyplot.close(ax.figure)
    with pytest.raises(InvalidParameterError, match="width_temperature_diagram"):
        width_temperature(diagram.drop_vars("critical_width"))


# ---------------------------------------------------------------- errors


def test_errors_say_why_and_what_to_do():
    wide = common(4)
    with pytest.raises(InvalidParameterError, match="temperature"):
        rd.RadialFreeEnergy(wide, 0.0)
    with pytest.raises(NoBarrierError, match="no next one"):
        rd.RadialFreeEnergy(wide, 1e-3, rank=1)
    with pytest.raises(NoBarrierError, match="no unit is free"):
        rd.RadialFreeEnergy(network(2, 1, 4, 2, sigma=(1.0, 0.9)), 1e-3, rank=1)
    with pytest.raises(InvalidParameterError, match="symmetry"):
        rd.RadialFreeEnergy(network(2, 3, 3, 2, sigma=(1.0, 1.0)), 1e-3)
    with pytest.raises(NoBarrierError, match="depth=2"):
        rd.RadialFreeEnergy(network(1, 3, 1), 1e-3).barrier()
    with pytest.raises(NoBarrierError, match="spinodal"):
        rd.radial_rate(replace(wide, weight_decay=0.5), 1e-3)
    with pytest.raises(NoBarrierError, match="single free unit"):
        rd.entropic_spinodal(network(1, 1, 4, 1))
    with pytest.raises(InvalidParameterError, match=r"shape \(\.\.\., 3\)"):
        rd.RadialFreeEnergy(wide, 1e-3).energy([0.1, 0.2])
    with pytest.raises(NoBarrierError, match="no learned state"):
        rd.RadialFreeEnergy(network(400, 3, 3, 1), 0.002).barrier()


def test_probability_limits_are_what_they_say():
    assert stats.chi2.sf(LIMIT, 7) < 2e-5
    assert stats.chi2.sf(26, 3) < 1e-5
