"""torchsde's solvers on the library's noise: same paths where they must be, the right order, no global state."""

import numpy as np
import pytest
import sympy
import torch
import torchsde
from torch import Tensor

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.landscape import Landscape
from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics import torch_noise
from kramers_grok.dynamics.langevin import Fused, Langevin, TorchSDE
from kramers_grok.dynamics.torchsde_adapter import CounterBrownian, IsotropicSDE, TorchSDEStepper
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain

F64 = torch.float64
CHAIN = DeepLinearChain(3, 1.3, 0.25, 0.8)
NETWORK = DeepLinearNetwork((2, 3, 2), [1.5, 0.9], weight_decay=0.2)
X = sympy.Symbol("x", real=True)
HARMONIC = Landscape(X**2 / 2, (X,), (X,))


def end(process: Langevin, n: int = 16, steps: int = 40) -> Tensor:
    return process.advance(process.start(n, seed=3), steps)[0].theta


@pytest.mark.parametrize("method", ["euler", "milstein"])
@pytest.mark.parametrize("system", [CHAIN, NETWORK], ids=["chain", "network"])
def test_euler_and_milstein_walk_the_fused_paths(system: DeepLinearChain | DeepLinearNetwork, method: str) -> None:
    """The noise is additive, so Milstein's correction is 0."""
    ours = end(Langevin(system, temperature=0.1, dt=0.07))
    theirs = end(Langevin(system, temperature=0.1, dt=0.07, integrator=TorchSDE(method)))
    torch.testing.assert_close(theirs, ours, rtol=1e-10, atol=1e-12)


def test_srk_walks_another_path_close_by() -> None:
    gaps = []
    for dt in (0.04, 0.02):
        ours, theirs = (end(Langevin(CHAIN, temperature=0.01, dt=dt, integrator=i), steps=20)
                        for i in (Fused(), TorchSDE("srk")))  # fmt: skip
        gaps.append(float((ours - theirs).abs().max()))
    assert 0 < gaps[1] < gaps[0] < 0.05


def linear_step(method: str, dt: float) -> tuple[float, float, float]:
    """Factors of x, of the increment's normal and of its integral's in one step of dx = −x dt + √2 dW."""
    n = 50
    streams, x = torch.arange(n), torch.linspace(-2, 2, n, dtype=F64)[:, None]
    stepper = TorchSDEStepper(IsotropicSDE(lambda y: y, 1.0), dt, method)
    moved, _ = stepper(7, x, streams, 4, {})
    normals = [torch_noise.normals(7, purpose, streams, 4, 1) for purpose in (Purpose.LANGEVIN, Purpose.LEVY)]
    columns = torch.cat([x, *normals], dim=1).numpy()
    factors, residual, *_ = np.linalg.lstsq(columns, moved.numpy()[:, 0], rcond=None)
    assert float(residual[0]) < 1e-25  # linear in all three, and in nothing else
    return tuple(float(f) for f in factors)  # type: ignore[return-value]


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("milstein", 1), ("srk", 2)])
def test_weak_order_on_the_variance_of_ornstein_and_uhlenbeck(method: str, order: int) -> None:
    """A step is linear, so its stationary variance (1 exactly) follows from its factors without sampling."""
    errors = []
    for dt in (0.1, 0.05, 0.025):
        decay, noise, integral = linear_step(method, dt)
        assert decay == pytest.approx(np.exp(-dt), abs=dt ** (order + 1))
        errors.append(abs((noise**2 + integral**2) / (1 - decay**2) - 1))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, order, atol=0.15)
    if method == "euler":
        assert errors[0] == pytest.approx(1 / (1 - 0.05) - 1, rel=1e-10)  # T/(λ(1 − λ dt/2))


def test_the_sde_is_torchsdes_own() -> None:
    """`Langevin(...).sde` goes into torchsde.sdeint as it is: Euler on torchsde's increments, step by step."""
    dt, steps, temperature = 2.0**-4, 24, 0.05
    process = Langevin(CHAIN, temperature=temperature, dt=dt)
    y0 = torch.full((5, 3), 0.4, dtype=F64)
    ts = torch.arange(0, steps + 1, 8, dtype=F64) * dt  # dt divides the save times
    bm = torchsde.BrownianInterval(t0=0.0, t1=float(ts[-1]), size=(5, 3), dtype=F64, entropy=9)
    ys = torchsde.sdeint(process.sde, y0, ts, bm=bm, method="euler", dt=dt)
    y, saved = y0, [y0]
    for step in range(steps):
        w = bm(step * dt, (step + 1) * dt)
        y = y - dt * process.model.gradient(y) + (2 * temperature) ** 0.5 * w
        if step % 8 == 7:
            saved.append(y)
    torch.testing.assert_close(ys, torch.stack(saved), rtol=1e-11, atol=1e-13)


def test_torchsdes_sdeint_on_our_own_increments() -> None:
    """In units of the step CounterBrownian is a Brownian motion that torchsde can ask itself."""
    temperature, dt, steps = 0.05, 0.1, 12
    process = Langevin(CHAIN, temperature=temperature, dt=dt)

    class Units:
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return dt * process.sde.f(t, y)

        def g(self, t: Tensor, y: Tensor) -> Tensor:
            return dt**0.5 * process.sde.g(t, y)

    state = process.start(6, seed=3)
    bm = CounterBrownian(3, state.streams, 3)
    ys = torchsde.sdeint(Units(), state.theta, torch.arange(steps + 1, dtype=F64), bm=bm, method="euler", dt=1.0)
    torch.testing.assert_close(ys[-1], end(process, 6, steps), rtol=1e-11, atol=1e-13)


# ---------------------------------------------------------------- increments


def test_increments_are_the_counters_normals() -> None:
    streams = torch.tensor([4, 0, 9])
    bm = CounterBrownian(5, streams, 3)
    w = bm(7.0, 8.0)
    assert torch.equal(w, torch_noise.normals(5, Purpose.LANGEVIN, streams, 7, 3))
    again, integral = bm(7.0, 8.0, return_U=True)
    assert torch.equal(again, w)
    other = torch_noise.normals(5, Purpose.LEVY, streams, 7, 3)
    torch.testing.assert_close(integral, w / 2 + other / 12**0.5, rtol=1e-14, atol=1e-15)
    assert bm.shape == (3, 3)
    assert bm.dtype == F64
    assert bm.device == torch.device("cpu")
    assert bm.levy_area_approximation == "space-time"
    assert repr(bm) == "CounterBrownian(seed=5, shape=(3, 3))"


def test_the_integral_has_the_covariance_of_brownian_motion() -> None:
    """Var W = 1, Var ∫W = 1/3, Cov = 1/2 over a unit step.

    The sample covariance of n = 60 000 pairs has standard errors below √2/√n = 0.6 %; at |z| > 5 (p = 6e-7 each) a
    deviation of 3 % fails, and the missing factor √12 changes Var ∫W from 0.33 to 1.25.
    """
    w, integral = CounterBrownian(5, torch.arange(20000), 3)(0.0, 1.0, return_U=True)
    w, integral = w.reshape(-1), integral.reshape(-1)
    n = len(w)
    bare = integral + (12**0.5 - 1) * (integral - w / 2)
    for value, expected, passes in (
        (w, (1.0, 1.0), True),
        (integral, (1 / 3, 1 / 2), True),
        (bare, (1 / 3, 1 / 2), False),
    ):
        z = []
        for product, mean in zip((value * value, value * w), expected, strict=True):
            z.append(float((product.mean() - mean) / (product.std() / n**0.5)))
        assert (max(map(abs, z)) < 5) == passes


@pytest.mark.parametrize(
    ("ta", "tb", "keywords"),
    [(0.0, 2.0, {}), (0.5, 1.5, {}), (0.0, None, {}), (1.0, 0.0, {}), (0.0, 1.0, {"return_A": True}), (0.0, 0.5, {})],
)
def test_increments_over_other_intervals_are_refused(ta: float, tb: float | None, keywords: dict[str, bool]) -> None:
    bm = CounterBrownian(5, torch.arange(3), 2)
    with pytest.raises(InvalidParameterError, match=r"single whole steps only.*\n.*BrownianInterval"):
        bm(ta, tb, **keywords)


@pytest.mark.parametrize("method", ["heun", "euler_heun", "", "log_ode"])
def test_methods_for_other_equations_are_refused(method: str) -> None:
    with pytest.raises(
        InvalidParameterError, match=rf"`method` = '{method}', expected one of .*\n?.*TorchSDE\(.euler.\)"
    ):
        Langevin(CHAIN, temperature=0.1, dt=0.1, integrator=TorchSDE(method))
