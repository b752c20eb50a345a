"""SGD with momentum escapes as the particle with inertia does.

What is shared: the mode's landscape. SGD runs its optimizer on gradients with injected per-sample noise; the exact time
is that of the Kramers–Fokker–Planck equation at the friction and temperature of `HeavyBall`.
"""

import numpy as np

import kramers_grok as kg
from kramers_grok.dynamics.optimizers import Momentum
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.exit_times import exit_time
from kramers_grok.theory.kramers_fokker_planck import Inertial, inertial_mean_exit
from kramers_grok.theory.momentum import HeavyBall
from kramers_grok.theory.quadrature import Interval

MODE = Mode(3, 1.0, 0.25)


def test_escape_times_of_sgd_with_momentum() -> None:
    """β = 0.95, η = 0.06, γ = 0.2: 800 replicas give 3.5 %; |z| < 4.9. A step of finite η does 2 %, of 1/2 step 0.1 %.

    Controls: time counted as η·step, and the overdamped time at η/(1 − β), must fail.
    """
    lr, batch = 0.06, 8
    ball = HeavyBall(lr, 0.95)
    heat, border = MODE.barrier().height / 3, 0.8
    noise = kg.per_sample(variance=ball.noise_variance_for(heat, batch))
    sgd = kg.SGD(MODE, kg.population(), lr=lr, batch_size=batch, optimizer=Momentum(0.95), noise=noise)
    target = kg.Region(float(MODE.landscape.order_parameters_at([border])[0]))
    # Velocities start at 0: equilibrium takes a few 1/γ, which the exact time from rest contains.
    run = kg.first_passage(sgd, target=target, n_replicas=800, max_time=6000 * lr, seed=4)
    mean = kg.mean_exit_time(run)
    steps, error = mean.value / lr, mean.standard_error / lr
    exact = inertial_mean_exit(Inertial(MODE.landscape, heat, ball.friction), Interval(0.0, upper=border), velocity=0.0)
    assert abs(steps * ball.step - exact.mean) < 4.9 * error * ball.step
    assert abs(steps * lr - exact.mean) > 6 * error * lr
    overdamped = exit_time(MODE, temperature=heat, target=target).mean
    assert abs(steps * ball.long_run_lr - overdamped) > 6 * error * ball.long_run_lr


def test_at_high_friction_time_is_the_long_run_learning_rate() -> None:
    """t = η·step/(1 − β): at γ = 10 ω the exact time with inertia is the overdamped one to 4 %."""
    ball = HeavyBall(0.002, 0.75)
    heat = MODE.barrier().height / 3
    exact = inertial_mean_exit(Inertial(MODE.landscape, heat, ball.friction), Interval(0.0, upper=0.8)).mean
    region = kg.Region(float(MODE.landscape.order_parameters_at([0.8])[0]))
    overdamped = exit_time(MODE, temperature=heat, target=region).mean
    assert ball.friction > 10 * np.sqrt(MODE.weight_decay)
    np.testing.assert_allclose(exact / ball.step * ball.long_run_lr, overdamped, rtol=0.04)
