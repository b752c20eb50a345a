"""Where the difference between a simulation and the asymptotic formula comes from.

A simulation here shares with the budget the energy and the rule of the time step, nothing else: no distribution, no
quadrature, no kernel. A run that agrees with ``predicted_time`` within its errors tests the sum of the columns; what
one column holds is tested by two runs that differ in that one thing alone.

Each comparison is asked to be below 4.5 standard errors, which chance breaks with probability 7e-6. Standard errors are
2 to 5 %; a temperature wrong by 5 % moves these times by 25 %.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import kramers_grok as kg
from kramers_grok.analysis import BUDGET_COLUMNS, compare, error_budget, summary
from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError
from kramers_grok.core.schema import exit_dataset
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise
from kramers_grok.theory.saddles import MatrixNetwork

LARGEST = 4.5
MODE = kg.Mode(depth=3, singular_value=1.0, weight_decay=0.25)
CHAIN = kg.DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
LONG_CHAIN = kg.DeepLinearChain(depth=4, singular_value=1.0, weight_decay=0.1)
NETWORK = MatrixNetwork((1, 2, 2, 1), (1.0,), weight_decay=0.25)
TARGET = kg.beyond(MODE.barrier())
TOP = kg.Region(MODE.barrier().order_parameter_at_saddle)


def made_up(ratio=6.0, *, system=MODE, mean=1e4, bridge=False, dt=0.1, barrier=None, **configuration):
    """Exit times that nobody simulated, described as a run of `system` at ΔF/T = `ratio`."""
    height = (barrier or system.barrier()).height
    coords = {"engine": "langevin", "temperature": height / ratio, "dt": dt, "weight_decay": system.weight_decay}
    for name in ("label_noise", "lr", "batch_size"):
        if name in configuration:
            coords[name] = configuration[name]
    times = mean * -np.log((np.arange(400) + 0.5) / 400)
    settings = {"seed": 0, "dtype": "float64", "device": "cpu"}
    everything = {"bridge": bridge, **configuration}
    return exit_dataset(times, times < 1e9, horizon=1e9, coords=coords, configuration=everything, **settings)


def splitting_result(mean, error, **coords):
    values = {"mean_exit_time": mean, "lower": mean - 2 * error, "upper": mean + 2 * error, "standard_error": error}
    return xr.Dataset(values | {"probability": ("repeat", np.full(16, 1e-3))}, coords=coords)


def parts(budget):
    return sum(np.nan_to_num(float(budget[name])) for name in BUDGET_COLUMNS)


def share(budget, name):
    """A column over the asymptotic time."""
    return float(budget[name] / budget["asymptotic_time"])


def simulate(process, target, n, seed, **options):
    return kg.first_passage(process, target=target, n_replicas=n, max_time=1e7, seed=seed, **options)


def agrees(budget):
    return abs(float((budget["mean_exit_time"] - budget["predicted_time"]) / budget["standard_error"])) < LARGEST


SGD = {"engine": "sgd", "sampler": "OnlineTeacher", "label_noise": 0.1, "lr": 0.1, "batch_size": 8}
FINITE = {"engine": "sgd", "sampler": "WithReplacement", "lr": 0.1, "batch_size": 8}
FORGETTING = kg.Mode(depth=3, singular_value=1.0, weight_decay=0.44)
FORGOTTEN = kg.beyond(FORGETTING.forgetting_barrier())
KINDS = {
    "mode": (MODE, made_up(), TARGET),
    "mode with a bridge": (MODE, made_up(bridge=True), TARGET),
    "mode, SGD": (MODE, made_up(**SGD), TARGET),
    "mode that forgets": (FORGETTING, made_up(system=FORGETTING, barrier=FORGETTING.forgetting_barrier()), FORGOTTEN),
    "chain": (CHAIN, made_up(system=CHAIN), TARGET),
    "chain, SGD": (CHAIN, made_up(system=CHAIN, **SGD), TARGET),
    "chain, SGD with unknown data": (CHAIN, made_up(system=CHAIN, **FINITE), TARGET),
    "long chain": (LONG_CHAIN, made_up(system=LONG_CHAIN), kg.beyond(LONG_CHAIN.barrier())),
    "long chain, SGD": (LONG_CHAIN, made_up(system=LONG_CHAIN, **SGD), kg.beyond(LONG_CHAIN.barrier())),
    "network": (NETWORK, made_up(system=NETWORK), TARGET),
    "network, SGD": (NETWORK, made_up(system=NETWORK, **SGD), TARGET),
    "splitting": (MODE, splitting_result(1.1e4, 300.0, temperature=MODE.barrier().height / 6, dt=0.1), TARGET),
}
INEXACT = {"long chain", "long chain, SGD", "network", "network, SGD"}


@pytest.mark.parametrize("kind", KINDS)
def test_columns_sum_to_the_whole_and_are_known_where_they_can_be(kind):
    system, run, target = KINDS[kind]
    budget = error_budget(system, run, target=target)
    total = float(budget["mean_exit_time"] - budget["asymptotic_time"])
    assert float(budget["total_error"]) == pytest.approx(total, rel=1e-12)
    assert parts(budget) == pytest.approx(total, rel=1e-12)
    unknown = {name for name in BUDGET_COLUMNS if np.isnan(budget[name])}
    if kind in INEXACT:
        assert unknown == {"asymptotic_error", "statistical_error"}
    elif "unknown" in kind:
        assert unknown == {"minibatch_error", "statistical_error"}
    else:
        assert not unknown
    separated = not unknown
    assert (float(budget["unexplained_error"]) == 0.0) == separated
    rest = budget["statistical_error" if separated else "unexplained_error"]
    assert float(rest) == pytest.approx(float(budget["mean_exit_time"] - budget["predicted_time"]), rel=1e-9)
    assert (float(budget["monitoring_error"]) == 0.0) or "bridge" not in kind
    assert (share(budget, "minibatch_error") != 0.0) == ("SGD" in kind)
    assert {budget[name].attrs["units"] for name in budget.data_vars} == {"time"}
    assert 0 <= float(budget["numerical_error"]) < 1e-3 * float(budget["predicted_time"])


def test_the_network_model_brings_its_theory():
    model = kg.DeepLinearNetwork((1, 2, 2, 1), np.array([1.0]), weight_decay=0.25)
    run = made_up(system=NETWORK)
    xr.testing.assert_identical(error_budget(model, run, target=TARGET), error_budget(NETWORK, run, target=TARGET))


# ---------------------------------------------------------------- one cause at a time


def test_low_barrier_is_an_error_of_the_formula():
    process = kg.Langevin(MODE, temperature=MODE.barrier().height / 3, dt=0.05)
    budget = error_budget(MODE, simulate(process, TARGET, 1000, seed=1), target=TARGET)
    assert agrees(budget)
    assert share(budget, "asymptotic_error") == pytest.approx(0.125, abs=0.001)
    assert abs(share(budget, "time_step_error")) < 0.005
    # The formula's error falls with the barrier, to first order as T/ΔF.
    high = error_budget(MODE, made_up(30.0), target=TARGET)
    assert share(high, "asymptotic_error") == pytest.approx(0.125 * 3 / 30, rel=0.25)


def test_target_at_the_top_watched_at_steps_is_late():
    process = kg.Langevin(MODE, temperature=MODE.barrier().height / 6, dt=0.5)
    seen, bridged = (simulate(process, TOP, 1000, seed=2 + b, bridge=bool(b)) for b in (0, 1))
    budget, free = (error_budget(MODE, run, target=TOP) for run in (seen, bridged))
    assert agrees(budget)
    assert agrees(free)
    assert float(free["monitoring_error"]) == 0.0
    # Independent seeds: the difference of the two simulations is the column.
    error = np.hypot(budget["standard_error"], free["standard_error"])
    measured = budget["mean_exit_time"] - free["mean_exit_time"]
    assert abs(float((measured - budget["monitoring_error"]) / error)) < LARGEST
    assert share(budget, "monitoring_error") > 0.18
    largest = max(BUDGET_COLUMNS, key=lambda name: abs(float(budget[name])))
    assert largest == "monitoring_error"
    # Half of those who reach the top turn back: without that factor the formula would be off by as much.
    assert abs(share(budget, "asymptotic_error")) < 0.16
    # Negative control: the target is what counts. Well past the barrier watching at steps costs nothing.
    assert abs(share(error_budget(MODE, made_up(dt=0.5), target=TARGET), "monitoring_error")) < 1e-3


def test_large_step_is_an_error_of_the_step():
    process = kg.Langevin(CHAIN, temperature=CHAIN.barrier().height / 8, dt=0.4)
    budget = error_budget(CHAIN, simulate(process, TARGET, 500, seed=4), target=TARGET)
    assert agrees(budget)
    assert max(BUDGET_COLUMNS[:4], key=lambda name: abs(float(budget[name]))) == "time_step_error"
    assert share(budget, "time_step_error") == pytest.approx(0.05, abs=0.01)
    # Negative control: a tenth of the step has a tenth of the effect.
    small = error_budget(CHAIN, made_up(8.0, system=CHAIN, dt=0.04), target=TARGET)
    assert share(small, "time_step_error") == pytest.approx(0.1 * share(budget, "time_step_error"), rel=0.15)


def test_noise_of_the_data_makes_escape_faster():
    temperature = CHAIN.barrier().height / 6
    noise = kg.per_sample(temperature=temperature)
    process = kg.SGD(CHAIN, kg.teacher(label_noise=0.5), lr=0.2, batch_size=8, noise=noise)
    run = simulate(process, TARGET, 500, seed=5)
    budget = error_budget(CHAIN, run, target=TARGET)
    assert agrees(budget)
    assert share(budget, "minibatch_error") < -0.06
    assert max(BUDGET_COLUMNS[:4], key=lambda name: abs(float(budget[name]))) == "minibatch_error"
    # An online teacher's noise is read from the run; the same, given.
    given = MinibatchNoise(0.025, GaussianResidualVariance(1.0, 1.0, 0.5))
    xr.testing.assert_identical(budget, error_budget(CHAIN, run, target=TARGET, minibatch=given))


def test_shot_noise_of_the_data_alone():
    """Learned → forgotten at T = 0: the diffusion limit is too short by 1.4082, from SGD's quasi-potential."""
    data = SGD | {"batch_size": 16, "label_noise": 0.5}
    run = made_up(system=FORGETTING, barrier=FORGETTING.forgetting_barrier(), **data).assign_coords(temperature=0.0)
    budget = error_budget(FORGETTING, run, target=kg.Region(0.001, above=False))
    limit = float(budget["predicted_time"] - budget["minibatch_error"])
    assert float(budget["predicted_time"]) / limit == pytest.approx(1.4082, rel=0.03)
    assert limit == pytest.approx(1873.025, rel=0.02)  # in continuous time
    assert 0 < share(budget, "asymptotic_error") < 0.2
    assert parts(budget) == pytest.approx(float(budget["mean_exit_time"] - budget["asymptotic_time"]), rel=1e-12)


def test_first_order_of_the_asymptotic_step_is_that_of_the_exact_chain():
    """Chain, D = 3: the first order in the step at leading order in T, against the three-dimensional solve."""
    exact = error_budget(CHAIN, made_up(10.0, system=CHAIN), target=TARGET)
    rate = [kg.eyring_kramers_rate(CHAIN.barrier(), CHAIN.barrier().height / 10, step=h, warn=False) for h in (0, 0.1)]
    assert share(exact, "time_step_error") == pytest.approx(rate[0].value / rate[1].value - 1, rel=0.1)


def test_a_wrong_arm_stands_out_in_the_statistical_column():
    """Negative control: 20 % too hot."""
    temperature = MODE.barrier().height / 5
    run = simulate(kg.Langevin(MODE, temperature=1.2 * temperature, dt=0.1), TARGET, 1000, seed=6)
    run = run.assign_coords(temperature=temperature)
    assert not agrees(error_budget(MODE, run, target=TARGET))


# ---------------------------------------------------------------- in a comparison


def test_compare_joins_the_columns_and_writes_them(tmp_path):
    splitting = KINDS["splitting"][1]
    tree = compare(theory=kg.exit_time(MODE, temperature=MODE.barrier().height / 6, target=TARGET),
                   langevin=made_up(), splitting=splitting, system=MODE, target=TARGET)  # fmt: skip
    table = tree["table"].to_dataset()
    alone = error_budget(MODE, splitting, target=TARGET)
    for name in ("total_error", *BUDGET_COLUMNS, "asymptotic_time", "predicted_time"):
        assert float(table[name].sel(engine="splitting")) == float(alone[name])
        assert np.isnan(table[name].sel(engine="theory"))
    for engine in ("langevin", "splitting"):
        row = table.sel(engine=engine)
        assert parts(row) == pytest.approx(float(row["mean_exit_time"] - row["asymptotic_time"]), rel=1e-12)
    tree.to_netcdf(tmp_path / "tree.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "tree.nc", engine="h5netcdf") as opened:
        back = opened.load()
    xr.testing.assert_identical(back["table"].to_dataset(), table)
    assert summary(back) == summary(tree)
    lines = summary(tree).splitlines()
    assert lines[-1].startswith("measured minus asymptotic")
    assert [line.split()[0] for line in lines[-3:-1]] == ["langevin", "splitting"]


def test_compare_takes_the_noise_of_an_arm_by_its_name():
    noise = MinibatchNoise(0.0125, GaussianResidualVariance(1.0, 1.0, 0.1))
    runs = {"online": made_up(system=LONG_CHAIN, **SGD), "finite": made_up(system=LONG_CHAIN, **FINITE)}
    where = {"system": LONG_CHAIN, "target": kg.beyond(LONG_CHAIN.barrier())}
    column = compare(**where, minibatch={"finite": noise}, **runs)["table"].to_dataset()["minibatch_error"]
    assert float(column.sel(engine="finite")) == pytest.approx(float(column.sel(engine="online")), rel=1e-9)
    unknown = compare(**where, **runs)["table"].to_dataset()
    assert np.isnan(unknown["minibatch_error"].sel(engine="finite"))


def test_a_control_without_noise_has_no_budget():
    times = np.full(20, 100.0)
    coords = {"engine": "sgd", "temperature": 0.0, "dt": 0.1, "lr": 0.1}
    control = exit_dataset(times, times < 0, horizon=100.0, coords=coords, seed=0, dtype="float64", device="cpu",
                           configuration={"bridge": False, "engine": "sgd", "sampler": "Population"})  # fmt: skip
    tree = compare(control=control, langevin=made_up(), system=MODE, target=TARGET)
    table = tree["table"].to_dataset()
    assert all(np.isnan(table[name].sel(engine="control")) for name in ("total_error", *BUDGET_COLUMNS))
    assert np.isfinite(table["total_error"].sel(engine="langevin"))
    assert "control" not in summary(tree).split("asymptotic")[-1]
    assert "without a temperature" in error_budget(CHAIN, control, target=TARGET).attrs["notes"]


def test_a_run_that_never_escapes_has_no_total():
    times = np.full(20, 100.0)
    coords = {"temperature": 1e-3, "dt": 0.1}
    run = exit_dataset(times, times < 0, horizon=100.0, coords=coords, seed=0, dtype="float64", device="cpu",
                       configuration={"bridge": True})  # fmt: skip
    budget = error_budget(MODE, run, target=TARGET)
    assert np.isnan(budget["total_error"])
    assert np.isnan(budget["statistical_error"])
    assert float(budget["asymptotic_error"]) > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: error_budget(MODE, made_up().drop_vars("temperature"), target=TARGET), "has no coordinate `temperat"),
        (lambda: error_budget(MODE, made_up().drop_vars("dt"), target=TARGET), r"assign_coords\(dt=\.\.\.\)"),
        (lambda: error_budget(MODE, made_up().drop_attrs(), target=TARGET), "does not say `bridge`"),
        (lambda: error_budget(FORGETTING, made_up(), target=TARGET), "the run has weight_decay = 0.25"),
        (lambda: error_budget(MODE, made_up().assign_coords(target_threshold=0.3), target=TARGET), "target lies at m"),
        (lambda: error_budget(MODE, made_up(), target=0.2), "expected a Region"),
        (lambda: error_budget("mode", made_up(), target=TARGET), "expected a Mode, DeepLinearChain"),
        (lambda: compare(langevin=made_up(), system=MODE), "got the system alone"),
        (lambda: compare(langevin=made_up(), target=TARGET), "got the target alone"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(InvalidParameterError, match=message):
        call()


def test_without_a_barrier_there_is_no_budget():
    free = kg.Mode(depth=3, singular_value=1.0, weight_decay=0.5)
    run = made_up().assign_coords(weight_decay=0.5)
    with pytest.raises(NoBarrierError):
        error_budget(free, run, target=TARGET)
