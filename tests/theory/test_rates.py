"""Asymptotic rates against exact integrals and published values."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import sympy
from scipy.integrate import quad

from kramers_grok.core.barrier import Barrier
from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError, ValidityWarning
from kramers_grok.core.landscape import Landscape
from kramers_grok.core.region import Region
from kramers_grok.theory import deep_linear as dl
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.exit_times import exit_time
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise, minibatch_log_factor
from kramers_grok.theory.mode_exit import ModeDynamics
from kramers_grok.theory.quadrature import Diffusion, Interval, mean_exit
from kramers_grok.theory.rates import (
    VALIDITY_THRESHOLD,
    Well,
    arrhenius_rate,
    eyring_kramers_rate,
    kramers_rate,
    multiplicative_kramers_rate,
)
from kramers_grok.theory.saddles import MatrixNetwork
from kramers_grok.theory.time_step import discrete_mean_exit

DOUBLE_WELL = Well(height=1.0, minimum_curvature=8.0, saddle_curvature=-4.0)  # (x² − 1)²


def mean_first_passage(slope_over_diffusion, diffusion, start, end, far):
    """Mean time from `start` to `end` by the double integral, on a fine trapezoidal grid."""
    x = np.linspace(far, end, 20001)
    step = x[1] - x[0]

    def primitive(f):
        return np.concatenate([[0.0], np.cumsum(0.5 * (f[1:] + f[:-1]) * step)])

    phi = primitive(slope_over_diffusion(x))
    phi -= phi[np.argmin(np.abs(x - start))]
    inner = primitive(np.exp(-phi) / diffusion(x))
    outer = primitive(np.exp(phi) * inner)
    return outer[-1] - outer[np.argmin(np.abs(x - start))]


def test_friction_of_the_double_well():
    rate = kramers_rate(DOUBLE_WELL, 0.25, friction=2.0, warn=False)
    assert rate.mean_time == pytest.approx(196.2, abs=0.1)
    # Large friction is the overdamped motion on the time scale γ.
    heavy = kramers_rate(DOUBLE_WELL, 0.05, friction=1e9)
    assert heavy.value * 1e9 == pytest.approx(kramers_rate(DOUBLE_WELL, 0.05).value, rel=1e-12)
    # Without friction it is transition-state theory: the frequency of the well.
    free = kramers_rate(DOUBLE_WELL, 0.05, friction=0.0)
    assert free.value == pytest.approx(math.sqrt(8) / (2 * math.pi) * math.exp(-20), rel=1e-12)


def test_overdamped_rate_has_a_correction_of_first_order():
    errors = []
    for ratio in (20.0, 40.0):
        exact = mean_first_passage(
            lambda x, b=ratio: 4 * b * x * (x**2 - 1), lambda x, b=ratio: np.full_like(x, 1 / b), -1.0, 1.0, -2.2
        )
        errors.append(exact * kramers_rate(DOUBLE_WELL, 1 / ratio).value - 1)
    assert 0 < errors[1] < errors[0] < 0.05
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)


def multiplicative_excess(diffusion_of, *, drop_factor=False):
    """Exact time by quadrature times the multiplicative rate, extrapolated to vanishing noise from 𝒟 and 𝒟/2.

    The two share the curvatures and Φ's difference (a quadrature of its own); the exact time knows no prefactor.
    """
    products = []
    for strength in (0.04, 0.02, 0.01):

        def diffusion(x, g=strength):
            return g * diffusion_of(x)

        def slope(x, d=diffusion):
            return 4 * x * (x**2 - 1) / d(x)

        exact = mean_first_passage(slope, diffusion, -1.0, 1.0, -1.6)
        rate = multiplicative_kramers_rate(
            DOUBLE_WELL,
            potential_difference=quad(slope, -1, 0, epsabs=1e-12, epsrel=1e-12)[0],
            minimum_diffusion=diffusion(-1.0),
            saddle_diffusion=diffusion(-1.0 if drop_factor else 0.0),
        )
        products.append(exact * rate.value)
    coarse, middle, fine = products
    return (8 * fine - 6 * middle + coarse) / 3 - 1  # the limit of a parabola


@pytest.mark.parametrize("share", [0.05, 0.4])
def test_multiplicative_rate_is_the_limit_of_the_exact_time(share):
    """Its factor √(𝒟_min/𝒟_s) is 0.98 and 0.88 here; the limit is found to 1e-3."""

    def diffusion_of(x):
        return 1 + share * (np.cos(2 * x) + 0.3 * x)

    assert multiplicative_excess(diffusion_of) == pytest.approx(0, abs=1e-3)
    # Negative control: without the square root of the diffusions' ratio it fails, by that factor.
    missing = math.sqrt(diffusion_of(-1.0) / diffusion_of(0.0))
    wrong = multiplicative_excess(diffusion_of, drop_factor=True)
    assert abs(wrong) > 5e-3
    assert wrong == pytest.approx(1 / missing - 1, abs=1e-3)


def test_the_time_step_slows_the_walk_as_its_own_exact_time():
    """Double well at ΔF/T = 12, from −1 to well past the top: the discrete chain's exact time against the rate.

    The exact time solves (1 − P)τ = h with the walk's own kernel. Divided by the continuous one it has the rate's step
    factor up to h, extrapolated away, and to T.
    """
    across = Interval(-1.0, upper=0.8)
    process = Diffusion(lambda x: -4 * x * (x**2 - 1), 1 / 12)
    continuous = mean_exit(process, across).mean
    coarse, fine = (math.log(continuous / discrete_mean_exit(process, across, h).mean) / h for h in (0.004, 0.002))
    rates = [eyring_kramers_rate(DOUBLE_WELL, 1 / 12, step=h).value for h in (0.0, 0.002)]
    predicted = math.log(rates[1] / rates[0]) / 0.002
    assert predicted == pytest.approx(-4 / 2 + (8 + 4) / 4, rel=1e-9)
    assert 2 * fine - coarse == pytest.approx(predicted, abs=0.03)
    # Negative controls: the growth or the traces alone
    for wrong in (-4 / 2, (8 + 4) / 4):
        assert abs(2 * fine - coarse - wrong) > 1


def test_the_step_factor_sums_over_all_directions():
    """Chain and network: −h|μ|/2 + (h/4)(tr H_min − tr H_s), zero modes count nothing."""
    for barrier, traces in (
        (DeepLinearChain(3, 1.0, 0.25).barrier(), 3 * 0.25 - 2 * 0.5),
        (MatrixNetwork((1, 2, 2, 1), (1.0,), 0.25).barrier(), 8 * 0.25 - 4 * 0.5 - 0.25),
    ):
        growth = abs(barrier.negative_eigenvalue)
        temperature = barrier.height / 30
        rates = [eyring_kramers_rate(barrier, temperature, step=h, warn=False).value for h in (0.0, 0.1)]
        assert math.log(rates[1] / rates[0]) == pytest.approx(0.1 * (-growth / 2 + (traces + growth) / 4), rel=1e-9)
    with pytest.raises(InvalidParameterError, match=r"`step` = 0.1 with `friction` = 1.*\n.*friction=None"):
        eyring_kramers_rate(DOUBLE_WELL, 0.05, step=0.1, friction=1.0)
    with pytest.raises(InvalidParameterError, match=r"`step` = -0\.1"):
        eyring_kramers_rate(DOUBLE_WELL, 0.05, step=-0.1)


def test_friction_in_a_network():
    """Kramers' growth rate takes the place of |μ₋|; entropies stay."""
    barrier = MatrixNetwork((2, 2, 3, 2), (1.2, 0.9), 0.25).barrier(1)
    temperature, mu = barrier.height / 50, abs(barrier.negative_eigenvalue)
    overdamped, heavy = (eyring_kramers_rate(barrier, temperature, friction=g, warn=False) for g in (None, 0.8))
    assert heavy.value / overdamped.value == pytest.approx((math.sqrt(0.16 + mu) - 0.4) / mu, rel=1e-12)


def test_flags_of_a_network():
    """Each condition has its own flag; all of them are gone where the formula holds."""

    def kinds(network, ratio):
        barrier = network.barrier()
        rate = eyring_kramers_rate(barrier, barrier.height / ratio, warn=False)
        assert rate.valid == (not rate.flags) == (not rate.note)
        assert all(flag in rate.note for flag in rate.flags)
        return [flag.split(":")[0].split(" = ")[0] for flag in rate.flags]

    scalar = MatrixNetwork((1, 2, 2, 1), (1.0,), 0.25)
    assert kinds(scalar, 8) == ["ΔF/T", "orbit", "trap"]
    assert kinds(scalar, 11) == ["orbit"]
    assert kinds(scalar, 15) == []
    assert kinds(MatrixNetwork((1, 1, 1, 1), (1.0,), 0.25), 11) == []
    assert kinds(MatrixNetwork((1, 4, 2, 1), (1.0,), 0.25), 25) == ["orbit"]  # one wide layer suffices
    assert kinds(MatrixNetwork((3, 2, 2, 3), (1.0, 0.99, 0.6), 0.25), 40) == ["soft mode at the saddle"]
    many = MatrixNetwork((8, 2, 2, 8), tuple(np.linspace(1.0, 0.3, 8)), 0.25)
    assert kinds(many, 25) == ["trap"]  # every feature widens it
    with pytest.warns(ValidityWarning, match=r"orbit: 1 unused.*radial_rate") as caught:
        eyring_kramers_rate(scalar.barrier(), scalar.barrier().height / 11)
    assert caught[0].filename == __file__


def test_the_traps_widening_is_its_first_order():
    """⟨(q Σ σ_k u_kᵀW₃W₂W₁v_k)²⟩/2T² over the Gaussian trap, against a Monte-Carlo average (4e6 samples, 0.2 %)."""
    q, decay, temperature, values = 1.3, 0.4, 1e-3, np.array([1.2, 0.9])
    barrier = MatrixNetwork((2, 2, 3, 2), tuple(values), decay, q).barrier()
    rng = np.random.default_rng(0)
    weights = [
        math.sqrt(temperature / decay) * rng.normal(size=(200_000, *shape)) for shape in ((2, 2), (3, 2), (2, 3))
    ]
    product = weights[2] @ weights[1] @ weights[0]
    cubic = q * (product[:, 0, 0] * values[0] + product[:, 1, 1] * values[1])
    samples = 0.5 * (cubic / temperature) ** 2
    error = samples.std() / math.sqrt(len(samples))
    assert abs(samples.mean() - barrier.trap_widening * temperature) < 4.5 * error
    assert error < 0.02 * samples.mean()
    assert MatrixNetwork((1, 2, 2, 2, 1), (1.0,), 0.2).barrier().trap_widening == 0


# ---------------------------------------------------------------- a small share of minibatch noise

SMALL = MinibatchNoise(2e-4, GaussianResidualVariance(1.0, label_noise=0.5))


@pytest.mark.parametrize("depth", [3, 4])
def test_minibatch_factor_is_the_multiplicative_kramers_rate_of_the_mode(depth):
    """Against ∫F′/(T + 𝒟) and √(T/(T + 𝒟_s)) with the mode's own drift and diffusion, by another quadrature."""
    mode = Mode(depth, 1.0, 0.5 * float(dl.binodal(depth, 1.0)))
    temperature, top = mode.barrier().height / 15, float(mode.barrier().saddle[0])
    with_batches = ModeDynamics(mode, temperature, minibatch=SMALL)

    def integrand(x):
        at = np.array([x])
        return float(with_batches.slope(at)[0] / with_batches.diffusion(at)[0])

    exponent = quad(integrand, 0, top, epsabs=1e-13, epsrel=1e-13)[0]
    prefactor = 0.5 * math.log(temperature / with_batches.diffusion(mode.barrier().saddle)[0])
    factor = minibatch_log_factor(mode, temperature, SMALL)
    assert factor == pytest.approx(15 - exponent + prefactor, abs=1e-10)
    assert 0 < factor < 0.1


def test_minibatch_factor_quickens_the_exact_escape():
    """Exact times of the mode with and without batches: their ratio, to T/ΔF of the share."""
    mode = Mode(3, 1.0, 0.25)
    temperature = mode.barrier().height / 15
    target = Region(0.2)
    times = [exit_time(mode, temperature=temperature, target=target, minibatch=noise).mean for noise in (None, SMALL)]
    share = (
        float(ModeDynamics(mode, temperature, minibatch=SMALL).diffusion(mode.barrier().saddle)[0]) / temperature - 1
    )
    factor = minibatch_log_factor(mode, temperature, SMALL)
    assert 0.005 < share < 0.1
    assert math.log(times[0] / times[1]) == pytest.approx(factor, rel=0.05)
    # Negative control: the exponent without its prefactor is off by more
    assert math.log(times[0] / times[1]) != pytest.approx(factor + 0.5 * math.log1p(share), rel=0.15)
    # Negative control: half the noise is seen
    half = minibatch_log_factor(mode, temperature, MinibatchNoise(1e-4, SMALL.residual_variance))
    assert half == pytest.approx(factor / 2, rel=0.02)
    assert minibatch_log_factor(mode, temperature, MinibatchNoise(0.0, SMALL.residual_variance)) == 0
    with pytest.raises(InvalidParameterError, match="vanishes at the unlearned state"):
        minibatch_log_factor(mode, 0.0, SMALL)
    with pytest.raises(NoBarrierError):
        minibatch_log_factor(Mode(3, 1.0, 0.5), 0.01, SMALL)


@pytest.mark.parametrize("depth", [3, 4, 6])
@pytest.mark.parametrize("friction", [None, 0.7])
def test_chain_has_the_closed_form(depth, friction):
    decay = 0.5 * float(dl.binodal(depth, 1.0))
    barrier = DeepLinearChain(depth, 1.0, decay).barrier()
    temperature = barrier.height / 25
    along = abs(float(dl.saddle_curvature(depth, 1.0, decay)))
    growth = along if friction is None else math.sqrt(friction**2 / 4 + along) - friction / 2
    closed = 2 ** ((depth - 1) / 2) * math.sqrt(decay / along) * growth / (2 * math.pi) * math.exp(-25)
    assert eyring_kramers_rate(barrier, temperature, friction=friction).value == pytest.approx(closed, rel=1e-9)


@pytest.mark.parametrize(
    ("ratio", "exact", "excess"), [(4, 778.1, 1.105), (6, 5548, 1.067), (8, 40218, 1.046), (10, 294031, 1.035)]
)
def test_chain_is_close_to_the_three_dimensional_solution(ratio, exact, excess):
    barrier = DeepLinearChain(3, 1.0, 0.25).barrier()
    rate = eyring_kramers_rate(barrier, barrier.height / ratio, warn=False)
    assert exact * rate.value == pytest.approx(excess, abs=1e-3)


def test_mode_uses_kramers_and_agrees_with_eyring():
    barrier = DeepLinearChain(4, 1.0, 0.1).mode.barrier()
    temperature = barrier.height / 30
    assert kramers_rate(barrier, temperature).value == eyring_kramers_rate(barrier, temperature).value
    assert kramers_rate(barrier, temperature).kind == "Kramers"
    with pytest.raises(InvalidParameterError, match=r"4 coordinates, expected 1.*\n.*eyring_kramers_rate"):
        kramers_rate(DeepLinearChain(4, 1.0, 0.1).barrier(), temperature)


def test_validity_is_carried_and_warned_about():
    with pytest.warns(ValidityWarning, match=r"ΔF/T = 4 is below 10.*exit_time") as caught:
        rate = kramers_rate(DOUBLE_WELL, 0.25)
    assert caught[0].filename == __file__
    assert (rate.valid, rate.barrier_over_temperature) == (False, 4.0)
    assert "T/ΔF" in rate.note
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kramers_rate(DOUBLE_WELL, 0.25, warn=False) == rate
        good = arrhenius_rate(VALIDITY_THRESHOLD, 1.0, prefactor=2.0)
    assert good.valid
    assert good.note == ""
    for call in (
        lambda: arrhenius_rate(1.0, 1.0, prefactor=1.0),
        lambda: eyring_kramers_rate(DOUBLE_WELL, 1.0),
        lambda: multiplicative_kramers_rate(
            DOUBLE_WELL, potential_difference=1.0, minimum_diffusion=1.0, saddle_diffusion=1.0
        ),
    ):
        with pytest.warns(ValidityWarning) as caught:
            call()
        assert caught[0].filename == __file__


def test_a_barrier_that_is_never_crossed():
    rate = kramers_rate(DOUBLE_WELL, 1e-4)
    assert (rate.value, rate.mean_time) == (0.0, math.inf)


X, Y = sympy.symbols("x y", real=True)
EGG_BOX = Landscape((X**2 - 1) ** 2 + (Y**2 - 1) ** 2, (X, Y), (X,))
RING = Landscape((X**2 + Y**2 - 1) ** 2, (X, Y), (X,))


@pytest.mark.parametrize(
    ("landscape", "minimum", "saddle", "words"),
    [
        (EGG_BOX, [1.0, 1.0], [0.0, 0.0], "has 2 negative eigenvalues, expected 1"),
        (EGG_BOX, [1.0, 1.0], [-1.0, 1.0], "has 0 negative eigenvalues, expected 1"),
        (EGG_BOX, [0.0, 1.0], [0.0, 1.0], "is no minimum"),
        (RING, [1.0, 0.0], [0.0, 0.0], "zero mode"),
    ],
)
def test_only_index_one_saddles_have_a_rate(landscape, minimum, saddle, words):
    barrier = Barrier(landscape, np.array(minimum), np.array(saddle), np.array(minimum), height=20.0)
    with pytest.raises(InvalidParameterError, match=words):
        eyring_kramers_rate(barrier, 1.0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: kramers_rate(DOUBLE_WELL, 0.0), "without noise nothing escapes"),
        (lambda: kramers_rate(DOUBLE_WELL, 0.1, friction=-1.0), "friction"),
        (lambda: Well(1.0, 8.0, 4.0), "top of a barrier is a maximum"),
        (lambda: Well(1.0, -8.0, -4.0), "minimum_curvature"),
        (
            lambda: multiplicative_kramers_rate(
                DOUBLE_WELL, potential_difference=20.0, minimum_diffusion=0.0, saddle_diffusion=1.0
            ),
            "absorbing",
        ),
    ],
)
def test_refusals(call, words):
    with pytest.raises(InvalidParameterError, match=words):
        call()
