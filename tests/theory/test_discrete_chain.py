"""Exit times of discrete chains: golden numbers, exact arithmetic, other methods, and simulations.

What compared results share: simulations and predictions only the definition of the model (steps of SGD are drawn from
samples' moments by the simulation, integrated over them here); `exit_time` with a step shares the mode's free energy
and the panels of `quadrature.domain`, not the method. Every statistical test is held at a false-alarm rate of 1e-5 and
has a negative control.
"""

import pickle
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad

import kramers_grok as kg
from kramers_grok.analysis.compare import predicted_dataset, predicted_survival
from kramers_grok.analysis.hypotheses import ks_test
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.theory import discrete_kernels, discrete_solver
from kramers_grok.theory.discrete_chain import discrete_exit, discrete_exit_time, sgd_exit_time
from kramers_grok.theory.discrete_kernels import BatchKernel, GaussianKernel
from kramers_grok.theory.discrete_solver import build_chain, mean_steps
from kramers_grok.theory.exit_times import discrete_mean_exit, exit_time, minibatch_mode_exit_time
from kramers_grok.theory.large_deviations import forgetting_actions
from kramers_grok.theory.mode_exit import ModeDynamics
from kramers_grok.theory.quadrature import Diffusion, Interval, mean_exit

FALSE_ALARM = 1e-5

WELL = Diffusion(lambda x: -4 * x * (x**2 - 1), 0.2)
MODE = kg.Mode(depth=3, singular_value=1.0, weight_decay=0.25)
BARRIER = MODE.barrier()
FORGETFUL = kg.Mode(depth=3, singular_value=1.0, weight_decay=0.44)


def heat(ratio):
    return BARRIER.height / ratio


# ------------------------------------------------------------------------------------------ golden numbers


@pytest.mark.parametrize(("target", "ratios"), [(0.0, (1.14322, 1.11147, 1.08267)), (0.8, (0.97563, 0.98959, 0.99535))])
def test_double_well_golden(target, ratios):
    interval = Interval(-1.0, upper=target)
    exact = mean_exit(WELL, interval).mean
    for step, ratio in zip((0.02, 0.01, 0.005), ratios, strict=True):
        walk = discrete_exit(WELL, interval, step=step)
        assert walk.mean / exact == pytest.approx(ratio, abs=6e-6)
        assert walk.mean == pytest.approx(discrete_mean_exit(WELL, interval, step).mean, rel=1e-13)
        assert walk.relative_error < 1e-10


def test_random_walk_out_of_an_interval():
    # Both ends absorb; with a bridge a free walk is Brownian motion at its steps: mean 1/(2𝒟), half a step either way
    free, interval = Diffusion(lambda x: 0.0 * x, 0.5), Interval(0.0, lower=-1.0, upper=1.0)
    errors = [discrete_exit(free, interval, step=h, bridge=True).mean - 1 for h in (0.02, 0.01)]
    assert abs(errors[0]) < 1e-4
    assert discrete_exit(free, interval, step=0.02).mean > 1.15


# ------------------------------------------------------------------------------------------ high barriers


def exact_steps(transition, leaving):
    """Gauss-Jordan elimination in exact rational arithmetic."""
    n = len(leaving)
    p = [[Fraction(float(v)) for v in row] for row in transition]
    q = [Fraction(float(v)) for v in leaving]
    rows = [[-p[i][j] for j in range(n)] + [Fraction(1)] for i in range(n)]
    for i in range(n):
        rows[i][i] = q[i] + sum(p[i][j] for j in range(n) if j != i)
    for k in range(n):
        for i in range(n):
            if i != k:
                factor = rows[i][k] / rows[k][k]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k], strict=True)]
    return [rows[i][n] / rows[i][i] for i in range(n)]


def ladder(size, factor):
    """A chain that has to climb: up with probability `factor`, leaving at the top only."""
    transition = np.diag(np.full(size - 1, factor), 1) + np.diag(np.full(size - 1, 0.3), -1)
    leaving = np.zeros(size)
    leaving[-1] = factor
    return transition, leaving


@pytest.mark.parametrize("block", [2, 3, 64])
def test_elimination_is_exact_where_the_mean_has_more_digits_than_a_float(monkeypatch, block):
    monkeypatch.setattr(discrete_solver, "_BLOCK", block)
    transition, leaving = ladder(12, 1e-3)
    exact = exact_steps(transition, leaving)
    assert exact[0] > 1e28
    found = mean_steps(transition, leaving)
    assert max(abs(float(f / e) - 1) for f, e in zip(map(Fraction, found), exact, strict=True)) < 1e-14
    plain = np.linalg.solve(np.diag(leaving + transition.sum(axis=1)) - transition, np.ones(12))
    assert abs(plain[0] / float(exact[0]) - 1) > 1e-3  # negative control


@pytest.mark.parametrize("ratio", [15, 30, 35])
def test_high_barriers_keep_their_digits(ratio):
    target = kg.beyond(BARRIER)
    interval = Interval(0.0, upper=float(MODE.coordinate(target.threshold)))
    kernel = GaussianKernel(ModeDynamics(MODE, heat(ratio)).process, 0.1)
    means = []
    for refinement in (1.4, 1.0, 0.6):
        chain = build_chain(kernel, interval, refinement=refinement)
        means.append(0.1 * (1 + chain.first @ mean_steps(chain.transition, chain.leaving)))
    np.testing.assert_allclose(means, means[-1], rtol=1e-10)
    if ratio >= 30:  # negative control: the same matrix solved as it stands
        plain = np.linalg.solve(np.eye(chain.nodes.size) - chain.transition, np.ones(chain.nodes.size))
        assert abs(0.1 * (1 + chain.first @ plain) / means[-1] - 1) > 1e-6


def test_at_a_high_barrier_the_modified_equation_is_approached_with_second_order():
    target, temperature = kg.beyond(BARRIER), heat(30)
    errors = []
    for step in (0.2, 0.1):
        theory = exit_time(MODE, temperature=temperature, target=target, step=step, monitored=True).mean
        walk = discrete_exit_time(MODE, temperature=temperature, target=target, step=step)
        errors.append(theory / walk.mean - 1)
        assert walk.relative_error < 1e-10
    assert abs(errors[0]) < 0.02  # of order h² ΔF/T
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("target", [kg.beyond(BARRIER), kg.Region(BARRIER.order_parameter_at_saddle)])
def test_small_steps_give_the_continuous_time(target):
    # With a bridge the error is of first order, c₁h + c₂h^1.5 + …: extrapolated, hardly any is left
    steps, temperature = np.array([0.1, 0.05, 0.025]), heat(5)
    exact = exit_time(MODE, temperature=temperature, target=target).mean
    walks = [discrete_exit_time(MODE, temperature=temperature, target=target, step=h, bridge=True) for h in steps]
    errors = np.array([walk.mean / exact - 1 for walk in walks])
    assert (np.abs(errors) > 5e-5).all()
    intercept = np.linalg.solve(np.column_stack([steps**0, steps, steps**1.5]), errors)[0]
    assert abs(intercept) < 3e-5


# ------------------------------------------------------------------------------------------ the minibatch step


def batch_kernel(batch_size, label_noise=0.5, noise_variance=0.0, lr=0.1):
    mode = kg.Mode(3, 1.1, 0.3, 0.8)
    dynamics = ModeDynamics(mode, 0.0)
    m, slope = dynamics.order_parameter, dynamics.order_parameter_slope
    return BatchKernel(
        m, slope, 1.1, 0.3, 0.8, label_noise, lr, batch_size, noise_variance, float(mode.coordinate(1.1))
    )


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16, 200])
@pytest.mark.parametrize("noise_variance", [0.0, 0.05])
def test_batch_density_is_a_density_with_the_moments_of_the_step(batch_size, noise_variance):
    kernel = batch_kernel(batch_size, noise_variance=noise_variance)
    for x in (np.array(0.6), np.array(1.3)):
        mean, width, centre = (float(f(x)) for f in (kernel.mean, kernel.width, kernel.centre))
        marks = [mean - 80 * width, *sorted({centre, mean, mean - 5 * width, mean + 5 * width}), mean + 80 * width]
        moments = [integral(kernel, x, marks, lambda y, n=n, c=mean, w=width: ((y - c) / w) ** n) for n in range(3)]
        assert moments == pytest.approx([1, 0, 1], abs=1e-7)
        border = mean + 0.7 * width
        below = integral(kernel, x, [mark for mark in marks if mark < border] + [border], lambda y: 1.0)
        assert float(kernel.below(x, border)) == pytest.approx(below, abs=1e-7)
        assert float(kernel.below(x, border) + kernel.above(x, border)) == pytest.approx(1, abs=1e-13)


def integral(kernel, x, marks, function):
    """Integral of function · density between the first and last of `marks`, adaptively between neighbours."""

    def integrand(y):
        return function(y) * float(kernel.density(x, np.array(y)))

    return sum(quad(integrand, low, high, limit=200)[0] for low, high in pairwise(marks))


@pytest.mark.parametrize("batch_size", [1, 2, 5, 16])
def test_closed_form_and_mixture_agree(monkeypatch, batch_size):
    kernel = batch_kernel(batch_size)
    x = np.array([0.3, 1.0, 1.4])[:, None]
    y = kernel.mean(x) + kernel.width(x) * np.array([-6.0, -3.0, -0.1, 1e-4, 0.4, 2.0, 12.0])
    closed = kernel.density(x, y)
    monkeypatch.setattr(discrete_kernels, "_LARGEST_ORDER", 0)
    np.testing.assert_allclose(kernel.density(x, y), closed, rtol=1e-9)


def test_batch_density_matches_samples():
    # The step from samples (x_i, y_i) themselves; false alarm 1e-5, 4e5 draws see a 1 % error of the width
    rng, batch, draws, start = np.random.default_rng(11), 3, 400_000, 1.2
    kernel = batch_kernel(batch, noise_variance=0.02)
    x = np.sqrt(0.8) * rng.standard_normal((draws, batch))
    y = 1.1 * x + 0.5 * rng.standard_normal((draws, batch))
    m, slope = float(kernel.order_parameter(np.array(start))), float(kernel.slope(np.array(start)))
    gradient = -((y - m * x) * x).mean(axis=1) * slope + 0.3 * start
    gradient += np.sqrt(0.02) * rng.standard_normal((draws, batch)).mean(axis=1)
    moved = np.sort(start - 0.1 * gradient)
    at = moved[:: draws // 400]
    expected = np.array([float(kernel.below(np.array(start), v)) for v in at])
    observed = np.searchsorted(moved, at) / draws
    limit = np.sqrt(np.log(2 / FALSE_ALARM) / (2 * draws))  # Dvoretzky-Kiefer-Wolfowitz
    assert np.abs(expected - observed).max() < limit
    wrong = np.array([float(batch_kernel(batch, noise_variance=0.03).below(np.array(start), v)) for v in at])
    assert np.abs(wrong - observed).max() > limit  # negative control


# ------------------------------------------------------------------------------------------ minibatch SGD


def test_forgetting_golden():
    """The diffusion limit's 1873.0 is too short by 1.41 (B = 16) and 1.42 (B = 4): 1.394 ± 0.036 was simulated."""
    target = kg.Region(0.001, above=False)
    limit = minibatch_mode_exit_time(FORGETFUL, label_noise=0.5, lr_over_batch=0.1 / 16, target=target).mean
    assert limit == pytest.approx(1873.025, abs=1e-3)
    for batch_size, ratio in ((16, 1.40981), (4, 1.42244)):
        lr = 0.1 / 16 * batch_size
        chain = sgd_exit_time(FORGETFUL, lr=lr, batch_size=batch_size, label_noise=0.5, target=target)
        assert chain.relative_error < 1e-7
        assert chain.mean / limit == pytest.approx(ratio, abs=1e-5)
        assert abs(ratio - 1.394) < 0.036 * 4.4


def test_one_sample_per_batch_converges_although_its_density_is_singular():
    target = kg.Region(0.2, above=False)  # before the top, where the border's kinks show
    chain = sgd_exit_time(FORGETFUL, lr=0.1 / 16, batch_size=1, label_noise=0.5, target=target)
    assert chain.relative_error < 1e-8
    assert chain.mean == pytest.approx(186.815891, abs=2e-6)


def test_small_steps_and_noise_approach_the_action():
    """Slope of ln(SGD / diffusion limit) in 1/ε tends to the difference of the actions."""
    target = kg.Region(0.08, above=False)
    actions = forgetting_actions(FORGETFUL, label_noise=0.5)
    logs, inverse = [], []
    for ratio in (0.1 / 32, 0.1 / 64, 0.1 / 128):
        sgd = sgd_exit_time(FORGETFUL, lr=16 * ratio, batch_size=16, label_noise=0.5, target=target).mean
        limit = minibatch_mode_exit_time(FORGETFUL, label_noise=0.5, lr_over_batch=ratio, target=target).mean
        logs.append(np.log(sgd / limit))
        inverse.append(1 / ratio)
    slopes = np.diff(logs) / np.diff(inverse) / (actions.sgd - actions.diffusion)
    assert slopes[0] == pytest.approx(1, abs=6e-3)
    assert slopes[1] == pytest.approx(1, abs=2e-3)


def test_large_batches_leave_the_injected_noise():
    target, temperature = kg.beyond(BARRIER), heat(6)
    langevin = discrete_exit_time(MODE, temperature=temperature, step=0.1, target=target).mean
    gaps = []
    for batch_size in (500, 2000):
        noise = kg.per_sample(temperature=temperature)
        sgd = sgd_exit_time(MODE, lr=0.1, batch_size=batch_size, label_noise=1.0, target=target, noise=noise)
        assert sgd.temperature == pytest.approx(temperature, rel=1e-12)
        gaps.append(1 - sgd.mean / langevin)
    assert 0 < gaps[0] < 0.05
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.05)


# ------------------------------------------------------------------------------------------ simulations


def z_score(run, mean):
    estimate = kg.mean_exit_time(run)
    return (estimate.value - mean) / estimate.standard_error


@pytest.mark.parametrize("bridge", [False, True])
@pytest.mark.parametrize("case", ["top", "forget", "even", "even_forget"])
def test_langevin_follows_the_predicted_law(case, bridge):
    """16384 exits: a survival function wrong by 0.02 is seen."""
    depth, decay = (3, 0.3) if case in ("top", "forget") else (4, 0.15)
    mode = kg.Mode(depth, 1.0, decay)
    learn, forget = mode.barrier(), mode.forgetting_barrier()
    top = learn.order_parameter_at_saddle
    if case in ("top", "even"):
        target, temperature, point = kg.Region(top), learn.height / 3, [0.0]
    else:
        target, temperature, point = kg.Region(top, above=False), forget.height / 2, forget.minimum
    step = 0.4 if depth == 3 else 0.1
    theory = discrete_exit_time(mode, temperature=temperature, step=step, target=target, bridge=bridge)
    run = kg.first_passage(
        kg.Langevin(mode, temperature=temperature, dt=step), target=target, start=point, n_replicas=16384,
        max_time=6 * theory.mean, seed=5, bridge=bridge,
    )  # fmt: skip
    assert ks_discrete(run, theory) > FALSE_ALARM
    # Negative control: the other way of watching
    other = discrete_exit_time(mode, temperature=temperature, step=step, target=target, bridge=not bridge)
    assert ks_discrete(run, other) < FALSE_ALARM


def ks_discrete(run, theory):
    """P-value bound of the largest distance between the survival functions at the steps (censoring at the horizon)."""
    times, escaped = run.exit_time.values, run.escaped.values
    grid = theory.step * (np.arange(1, round(float(run.horizon) / theory.step)) - theory.offset)
    left = np.sort(times[escaped])
    observed = 1 - np.searchsorted(left, grid + 1e-6 * theory.step) / times.size
    distance = np.abs(observed - theory.survival(grid)).max()
    return min(1.0, 2 * np.exp(-2 * times.size * distance**2))


def test_balanced_chain_forgets_as_predicted():
    """SGD on the chain of three weights, minibatch noise alone: balance makes it the mode.

    2048 exits: a mean wrong by 10 %, or a survival function wrong by 0.05, is seen.
    """
    target, label_noise = kg.Region(0.02, above=False), 0.5
    chain = kg.DeepLinearChain(3, 1.0, 0.44)
    theory = sgd_exit_time(FORGETFUL, lr=0.1, batch_size=8, label_noise=label_noise, target=target)
    run = kg.first_passage(
        kg.SGD(chain, kg.teacher(label_noise=label_noise), lr=0.1, batch_size=8), target=target,
        start=np.full(3, FORGETFUL.learned_amplitude()), n_replicas=2048, max_time=10 * theory.mean, seed=2,
    )  # fmt: skip
    assert abs(z_score(run, theory.mean)) < 4.42
    assert ks_test(run, theory.survival).p_value > FALSE_ALARM
    # Negative control: the diffusion limit of the same noise
    limit = minibatch_mode_exit_time(FORGETFUL, label_noise=label_noise, lr_over_batch=0.1 / 8, target=target)
    assert ks_test(run, limit.survival).p_value < FALSE_ALARM


def test_strong_minibatch_noise():
    """A step's noise of 0.07 at x = 1.3: many steps overshoot. 8192 exits, KS sees a distance of 0.03."""
    target, law = kg.Region(0.02, above=False), {"label_noise": 0.5, "lr": 0.1}
    theory = sgd_exit_time(FORGETFUL, batch_size=2, target=target, **law)
    assert theory.relative_error < 1e-8
    sgd = kg.SGD(kg.DeepLinearChain(3, 1.0, 0.44), kg.teacher(label_noise=0.5), lr=0.1, batch_size=2)
    start = np.full(3, FORGETFUL.learned_amplitude())
    run = kg.first_passage(sgd, target=target, start=start, n_replicas=8192, max_time=10 * theory.mean, seed=4)
    assert ks_discrete(run, theory) > FALSE_ALARM
    other = sgd_exit_time(FORGETFUL, batch_size=3, target=target, **law)
    assert ks_discrete(run, other) < FALSE_ALARM  # negative control


def test_steps_as_long_as_the_relaxation():
    # hλ = 1: the walk roams twice as far as the diffusion, a fact that the panels must know
    walk = discrete_exit_time(MODE, temperature=heat(5), step=4.0, target=kg.beyond(BARRIER))
    assert walk.relative_error < 1e-8
    assert walk.mean == pytest.approx(1741.98724, abs=2e-5)


def test_sgd_with_injected_noise_learns_as_predicted():
    """4096 exits; negative control: a temperature off by 10 %."""
    target, temperature = kg.beyond(BARRIER), heat(3)
    law = {"lr": 0.2, "batch_size": 4}
    theory = sgd_exit_time(MODE, label_noise=0.3, target=target, noise=kg.per_sample(temperature=temperature), **law)
    sgd = kg.SGD(MODE, kg.teacher(label_noise=0.3), noise=kg.per_sample(temperature=temperature), **law)
    run = kg.first_passage(sgd, target=target, n_replicas=4096, max_time=8 * theory.mean, seed=8)
    assert abs(z_score(run, theory.mean)) < 4.42
    assert ks_test(run, theory.survival).p_value > FALSE_ALARM
    noise = kg.per_sample(temperature=0.9 * temperature)
    wrong = sgd_exit_time(MODE, label_noise=0.3, target=target, noise=noise, **law)
    assert ks_test(run, wrong.survival).p_value < FALSE_ALARM


# ------------------------------------------------------------------------------------------ the distribution


RESULTS = {
    "watched": lambda: discrete_exit_time(MODE, temperature=heat(3), step=0.2, target=kg.beyond(BARRIER)),
    "bridged": lambda: discrete_exit_time(MODE, temperature=heat(3), step=0.2, target=kg.beyond(BARRIER), bridge=True),
    "high": lambda: discrete_exit_time(MODE, temperature=heat(25), step=0.2, target=kg.beyond(BARRIER)),
    "batch": lambda: sgd_exit_time(
        FORGETFUL, lr=0.05, batch_size=2, label_noise=0.5, target=kg.Region(0.1, above=False)
    ),
}


@pytest.mark.parametrize("name", list(RESULTS))
def test_distribution_has_the_mean_and_variance_of_the_linear_systems(name):
    result = RESULTS[name]()
    law = result.curve
    n = np.arange(law.steps[-1] + 1)
    inside, hazard = law.survival_at(n.astype(float)), law.hazard[-1]
    # Σ S_n and Σ n S_n, with the geometric tail in closed form
    tail = inside[-1] / hazard
    total = inside[:-1].sum() + tail
    weighted = (n * inside)[:-1].sum() + tail * (n[-1] + (1 - hazard) / hazard)
    assert result.step * (total - result.offset) == pytest.approx(result.mean, rel=1e-7)
    variance = 2 * weighted + total - total**2
    assert result.standard_deviation == pytest.approx(result.step * np.sqrt(variance), rel=1e-5)
    assert (np.diff(law.survival) <= 0).all()
    assert law.survival[0] == 1


def test_survival_is_a_step_function():
    for result, offset in ((RESULTS["watched"](), 0.0), (RESULTS["bridged"](), 0.5)):
        h, n = 0.2, np.arange(1, 400)
        times = h * (n - offset)
        at, before, after = (result.survival(t) for t in (times, times - 1e-3 * h, times + 0.9 * h))
        assert np.array_equal(at, after)
        np.testing.assert_allclose(before - at, result.probability(n), rtol=1e-6, atol=1e-15)
        np.testing.assert_allclose(result.density(times - 0.5 * h) * h, result.probability(n), rtol=1e-12)
        assert result.survival(-1.0) == result.survival(0.0) == 1
        assert result.survival([[0.0, 1.0]]).shape == (1, 2)
        assert result.density(-1.0) == 0
        assert result.probability(0) == 0
        for p in (1e-3, 0.5, 0.999):
            t = result.quantile(p)
            assert result.survival(t) <= 1 - p < result.survival(t - 0.5 * h)
        assert result.rate == 1 / result.mean


def test_result_travels_and_enters_a_comparison():
    result = RESULTS["watched"]()
    twin = pickle.loads(pickle.dumps(result))
    assert twin.survival(result.mean) == result.survival(result.mean)
    table = predicted_dataset(result)
    assert float(table.mean_exit_time) == result.mean
    t = np.array([0.3, 1.0, 3.0]) * result.mean
    np.testing.assert_allclose(predicted_survival(table)(t), result.survival(t), atol=2e-3)
    with pytest.raises(InvalidParameterError, match="`p` = 1"):
        result.quantile(1.0)


# ------------------------------------------------------------------------------------------ what is refused


def test_infinite_means_are_refused():
    sgd = {"lr": 0.1, "batch_size": 8, "label_noise": 0.5}
    with pytest.raises(InvalidParameterError, match=r"absorbed.*\n.*per_sample"):
        sgd_exit_time(MODE, target=kg.beyond(BARRIER), **sgd)
    with pytest.raises(InvalidParameterError, match="mean exit time is infinite"):
        sgd_exit_time(MODE, target=kg.Region(1.2), start=1.2, **sgd)
    for threshold in (0.0, -0.1):
        with pytest.raises(InvalidParameterError, match="minibatch noise alone vanishes"):
            sgd_exit_time(MODE, target=kg.Region(threshold, above=False), **sgd)
    with pytest.raises(InvalidParameterError, match="`temperature` = 0"):
        discrete_exit_time(MODE, temperature=0.0, step=0.1, target=kg.beyond(BARRIER))
    noise = kg.per_sample(variance=0.0)
    with pytest.raises(InvalidParameterError, match="absorbed"):
        sgd_exit_time(MODE, target=kg.beyond(BARRIER), noise=noise, **sgd)


def test_arguments_are_checked():
    target, below = kg.beyond(BARRIER), kg.Region(0.1, above=False)
    with pytest.raises(InvalidParameterError, match=r"label_noise.*deterministic"):
        sgd_exit_time(MODE, lr=0.1, batch_size=8, label_noise=0.0, target=below)
    with pytest.raises(InvalidParameterError, match="lr · weight_decay < 2"):
        sgd_exit_time(MODE, lr=9.0, batch_size=8, label_noise=0.1, target=below)
    with pytest.raises(InvalidParameterError, match="step · weight_decay < 2"):
        discrete_exit_time(MODE, temperature=0.001, step=9.0, target=target)
    with pytest.raises(InvalidParameterError, match="dense matrix"):
        discrete_exit_time(MODE, temperature=heat(6), step=1e-6, target=target)
    with pytest.raises(InvalidParameterError, match="names its target"):
        discrete_exit_time(MODE, temperature=heat(6), step=0.1, target=0.1)
    with pytest.raises(InvalidParameterError, match="already lies in the target"):
        discrete_exit_time(MODE, temperature=heat(6), step=0.1, target=target, start=1.5)
    with pytest.raises(InvalidParameterError, match="one order parameter"):
        discrete_exit_time(MODE, temperature=heat(6), step=0.1, target=kg.Region(0.1, feature=1))
    even, zero = kg.Mode(4, 1.0, 0.15), kg.Region(0.0, above=False)
    with pytest.raises(InvalidParameterError, match="no step ends at m = 0"):
        discrete_exit_time(even, temperature=0.01, step=0.1, target=zero)
    with pytest.raises(InvalidParameterError, match="jumps over a wall"):
        discrete_exit(WELL, Interval(-1.0, upper=0.0, wall=-2.0), step=0.01)
