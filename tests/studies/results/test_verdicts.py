"""What a study says: false alarms and power as stated, words that follow the numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from kramers_grok.core.schema import canonical_json
from kramers_grok.studies.escape.study import EscapeStudy
from kramers_grok.studies.results import export
from kramers_grok.studies.results.points import Points, detectable, holm, signed_root
from kramers_grok.studies.results.verdicts import FALSE_ALARM, Verdicts, judge

Make = Callable[..., tuple[EscapeStudy, dict[str, xr.Dataset]]]
RATIOS = np.array([3.0, 4.0, 5.0, 6.0])
HEIGHT = 0.008


def rows(rng: np.random.Generator, factor: Any = 1.0, *, n: int = 64, horizon: float = 2.0) -> dict[str, np.ndarray]:
    """Censored exponential times at four temperatures, `factor` times the predicted mean: time at risk over escapes."""
    mean = 30.0 * np.exp(RATIOS)
    times = rng.exponential((np.broadcast_to(factor, RATIOS.shape) * mean)[:, None], (RATIOS.size, n))
    stop = horizon * mean[:, None]
    escaped = (times < stop).sum(axis=1)
    found = np.minimum(times, stop).sum(axis=1) / escaped
    return {
        "mean_exit_time": found,
        "standard_error": found / np.sqrt(escaped),
        "predicted_mean": mean,
        "temperature": HEIGHT / RATIOS,
        "barrier_over_temperature": RATIOS,
        "n_escaped": escaped.astype(float),
        "n_replicas": np.full(RATIOS.size, float(n)),
    }


def study(**engines: dict[str, np.ndarray]) -> xr.DataTree:
    """A tree with the comparison of some engines."""
    names = {name for table in engines.values() for name in table}
    data = {name: ("row", np.concatenate([t[name] for t in engines.values()])) for name in names}
    data["engine"] = ("row", np.repeat(list(engines), RATIOS.size).astype(object))
    data["status"] = ("row", np.full(RATIOS.size * len(engines), "finished", dtype=object))
    return xr.DataTree.from_dict({"/comparison": xr.Dataset(data)})


def verdict(found: Verdicts, topic: str) -> str:
    return {finding.topic: finding.verdict for finding in found.findings}[topic]


# ---------------------------------------------------------------- the statistics


def test_deviations_are_normal_at_tens_of_escapes() -> None:
    """20,000 means of about 22 escapes; z beyond ±3.29 has the probability 0.001, so 20 are expected."""
    rng = np.random.default_rng(1)
    tables = [rows(rng, n=32, horizon=1.2) for _ in range(5000)]
    ratio = np.concatenate([t["mean_exit_time"] / t["predicted_mean"] for t in tables])
    error = np.concatenate([t["standard_error"] / t["mean_exit_time"] for t in tables])
    beyond = int((np.abs(signed_root(ratio, error)) > 3.2905).sum())
    assert scipy.stats.binomtest(beyond, ratio.size, 0.001).pvalue > 1e-5
    # The control: differences in standard errors, as they are usually taken, raise far more alarms
    plain = int((np.abs((ratio - 1) / (error * ratio)) > 3.2905).sum())
    assert scipy.stats.binomtest(plain, ratio.size, 0.001).pvalue < 1e-5


def split(rng: np.random.Generator, spread: Any, *, repeats: int = 16) -> dict[str, np.ndarray]:
    """Times from repeats of splitting whose probabilities are lognormal, of a relative deviation `spread`."""
    mean, sigma = 30.0 * np.exp(10 * RATIOS), np.sqrt(np.log1p(spread**2))
    p = rng.lognormal(-(sigma**2) / 2, sigma, (RATIOS.size, repeats)) / mean[:, None]
    found = 1 / p.mean(axis=1)
    error = found * p.std(axis=1, ddof=1) / p.mean(axis=1) / np.sqrt(repeats)
    return {
        "mean_exit_time": found, "standard_error": error, "predicted_mean": mean,
        "temperature": HEIGHT / (10 * RATIOS), "barrier_over_temperature": 10 * RATIOS,
        "n_repeats": np.full(RATIOS.size, float(repeats)),
    }  # fmt: skip


def alarms(spreads: Any, n: int = 300) -> int:
    rng = np.random.default_rng(4)
    found = [judge(study(langevin=split(rng, spreads), sgd=split(rng, spreads))) for _ in range(n)]
    return sum(any(finding.verdict == "disagree" for finding in one.findings) for one in found)


def test_splitting_is_judged_as_carefully_as_its_repeats_deserve(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 right studies: at 1 % there are 3 false alarms and 13 or more with probability 1e-5; at 3 %, 9 and 24."""
    assert alarms(0.5) < 13
    assert alarms(1.2) < 24
    # The control: each point by the error of its own repeats, however much they scatter
    monkeypatch.setattr("kramers_grok.studies.results.points.ROUGH", np.inf)
    monkeypatch.setattr("kramers_grok.studies.results.points.careful", lambda errors, barriers: errors)
    assert alarms(1.2) >= 24


def test_rough_splitting_is_shown_and_not_tested() -> None:
    told = judge(study(langevin=split(np.random.default_rng(5), 3.0)))
    assert any("4 of 4 simulations" in warning and "not tested" in warning for warning in told.warnings)
    assert not told.findings
    fine = judge(study(langevin=split(np.random.default_rng(5), 0.2)))
    assert not any("not tested" in warning for warning in fine.warnings)
    assert fine.findings
    assert "3 % where repeats of splitting" in fine.tests
    assert "splitting" not in judge(study(sgd=rows(np.random.default_rng(5)))).tests


def test_a_right_theory_is_called_wrong_as_rarely_as_stated() -> None:
    """500 studies of two engines: at most 5 false alarms expected. More than 17 has a probability below 1e-5."""
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(500):
        found = judge(study(langevin=rows(rng), sgd=rows(rng)))
        alarms += any(finding.verdict == "disagree" for finding in found.findings)
    assert scipy.stats.binom.sf(17, 500, FALSE_ALARM) < 1e-5
    assert alarms <= 17


def test_what_is_called_detectable_is_detected() -> None:
    """At the deviation named, 90 % of 150 studies must see it: fewer than 115 has a probability below 1e-5."""
    rng = np.random.default_rng(3)
    seen = judge(study(sgd=rows(rng))).findings[0].statistics["detectable"]
    found = [verdict(judge(study(sgd=rows(rng, 1 + seen))), "Theory and SGD") for _ in range(150)]
    assert found.count("disagree") >= 115
    # And half of it is not: the statement is not idle
    half = [verdict(judge(study(sgd=rows(rng, 1 + seen / 2))), "Theory and SGD") for _ in range(150)]
    assert half.count("disagree") < 115


def test_few_repeats_count_for_less() -> None:
    """Means of four repeats with errors from the same repeats: Student's law, not the normal one."""
    rng = np.random.default_rng(4)
    logs = rng.normal(0.0, 0.1, (20_000, 4))
    ratio, error = np.exp(logs.mean(axis=1)), logs.std(axis=1, ddof=1) / 2
    points = Points({"n_repeats": np.full(ratio.size, 4.0)}, ratio, error)
    beyond = int((np.abs(points.z) > 3.2905).sum())
    assert scipy.stats.binomtest(beyond, ratio.size, 0.001).pvalue > 1e-5
    assert int((np.abs(np.log(ratio) / error) > 3.2905).sum()) > 200  # the control: the normal law would be wrong
    np.testing.assert_allclose(points.worth, error**-2.0 / 3)


def test_holm_is_never_smaller_than_p_and_never_larger_than_bonferroni() -> None:
    p = np.random.default_rng(5).uniform(size=50) ** 3
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(50 * p, 1)).all()
    assert (np.argsort(adjusted, kind="stable")[:1] == np.argmin(p)).all()
    assert detectable(0.01, 0.1) == pytest.approx(0.1 * (2.5758 + 1.2816), abs=1e-4)


# ---------------------------------------------------------------- the answers


def test_the_answer_names_who_agrees_and_who_does_not() -> None:
    rng = np.random.default_rng(6)
    both = judge(study(langevin=rows(rng, n=512), sgd=rows(rng, n=512)))
    assert both.headline.startswith("Theory agrees with Langevin dynamics and with SGD. Measured over predicted mean")
    one = judge(study(langevin=rows(rng, n=512), sgd=rows(rng, 1.3, n=512)))
    assert one.headline.startswith("Theory disagrees with SGD, but theory agrees with Langevin dynamics.")
    assert "Langevin and SGD at the same temperature: not as predicted." in one.headline
    none = judge(study(langevin=rows(rng, 1.3, n=512), sgd=rows(rng, 1.3, n=512)))
    assert none.headline.startswith("Theory disagrees with Langevin dynamics and with SGD.")
    assert verdict(none, "Langevin and SGD at the same temperature") == "agree"  # they share the deviation


def test_numbers_in_the_words_are_those_of_the_data() -> None:
    table = rows(np.random.default_rng(7), n=512)
    finding = judge(study(sgd=table)).findings[0]
    exposure = table["n_escaped"] * table["mean_exit_time"] / table["predicted_mean"]
    factor = exposure.sum() / table["n_escaped"].sum()
    assert finding.statistics["factor"] == pytest.approx(factor, rel=1e-12)
    assert f"are {factor:.3f} [" in finding.text
    z = signed_root(table["mean_exit_time"] / table["predicted_mean"], table["n_escaped"] ** -0.5)
    assert finding.statistics["chi2"] == pytest.approx(float(z @ z))
    assert f"p = {scipy.stats.chi2.sf(float(z @ z), 4):.2g}" in finding.text
    assert f"{z[np.argmax(np.abs(z))]:+.1f} s.e." in finding.text


def test_a_wrong_slope_is_seen_where_the_mean_is_right() -> None:
    """Measured over predicted from 0.8 to 1.25: the common factor hides it, the slope does not."""
    found = judge(study(sgd=rows(np.random.default_rng(8), np.geomspace(0.8, 1.25, 4), n=2048)))
    assert verdict(found, "Arrhenius law, SGD") == "disagree"
    right = judge(study(sgd=rows(np.random.default_rng(8), n=2048)))
    assert verdict(right, "Arrhenius law, SGD") == "agree"
    assert "4 temperatures" in right.findings[1].text


def test_two_temperatures_make_no_slope() -> None:
    tree = study(sgd=rows(np.random.default_rng(9)))
    tree["comparison"] = tree["comparison"].to_dataset().isel(row=slice(0, 2))
    assert [f.topic for f in judge(tree).findings] == ["Theory and SGD"]


def test_too_few_escapes_are_said_to_be_too_few() -> None:
    found = judge(study(sgd=rows(np.random.default_rng(10), n=12)))
    assert found.findings[0].verdict == "too little to say"
    assert "There are too few escapes to say more." in found.findings[0].text
    assert found.headline.startswith("There is too little to say about SGD.")
    assert "Fewer than 100 escapes in 4 of 4 cells" in " ".join(found.warnings)


def test_a_leading_order_is_not_tested() -> None:
    table = rows(np.random.default_rng(11), 1.4, n=512)
    tree = study(sgd=table)
    tree["comparison"] = tree["comparison"].to_dataset().assign(prediction=("row", ["asymptotic"] * 4))
    found = judge(tree)
    assert found.findings[0].verdict == "described"
    assert [f.topic for f in found.findings] == ["Theory (leading order) and SGD"]  # no slope is tested either
    assert "no test is made" in found.findings[0].text
    assert found.headline.startswith("Theory is known to leading order only and not tested: measured over predicted is")
    half = tree["comparison"].to_dataset().assign(prediction=("row", ["asymptotic"] * 3 + ["exact"]))
    both = judge(xr.DataTree.from_dict({"/comparison": half}))
    assert "At 3 of 4 points theory is known to leading order only" in both.headline
    assert [f.topic for f in both.findings[:2]] == ["Theory and SGD", "Theory (leading order) and SGD"]


def test_one_bad_survival_curve_is_enough() -> None:
    table = rows(np.random.default_rng(12), n=512)
    good = judge(study(sgd=table | {"ks_p_value": np.array([0.3, 0.6, 0.9, np.nan])}))
    assert verdict(good, "Theory and SGD") == "agree"
    bad = judge(study(sgd=table | {"ks_p_value": np.array([0.3, 1e-7, 0.9, np.nan])}))
    assert verdict(bad, "Theory and SGD") == "disagree"
    assert "survival curves" in bad.findings[0].text.split("Below the level")[1]


# ---------------------------------------------------------------- what is not there


def whole(made: Any, without: Callable[[Any], bool] = lambda cell: False) -> xr.DataTree:
    plan, results = made
    return export.gather(
        plan.cells(),
        lambda cell: None if without(cell) else results[canonical_json(cell.config)],
        declaration=plan.declaration(),
    )


def test_a_half_finished_study_says_so_first(made: Make) -> None:
    found = judge(whole(made(), without=lambda c: c.config.get("sgd", {}).get("lr") == 0.1))
    assert not found.complete
    assert found.headline.startswith("Not finished: 9 of 12 cells are done. So far: Theory agrees with Langevin")
    assert "3 of 12 cells: not run." in found.warnings
    nothing = judge(whole(made(), without=lambda c: c.name != "theory"))
    assert nothing.headline == (
        "Not finished: 3 of 12 cells are done. There is nothing to say yet: no simulation has both a mean escape time "
        "that is known well enough and a prediction."
    )
    assert judge(whole(made())).complete


def test_theory_alone_is_no_comparison(made: Make) -> None:
    found = judge(whole(made(engines=["theory"])))
    assert found.headline == "Theory only, nothing was to be simulated: 3 of 3 predictions."
    assert not found.findings
    assert not found.shared


def test_warnings_count_what_has_no_answer(made: Make) -> None:
    plan, results = made(run={"precision": 0.1, "max_replicas": 256})
    cells = [cell for cell in plan.cells() if cell.name == "sgd"]
    for step, cell in zip((12, 13), cells, strict=False):
        attrs = {"status": "diverged", "status_message": f"at step {step}"}
        results[canonical_json(cell.config)] = xr.Dataset({"mean_exit_time": np.nan}, attrs=attrs)
    third = results[canonical_json(cells[2].config)]
    third = third.assign(n_escaped=128.0, precision_reached=False, precision=0.25)
    results[canonical_json(cells[2].config)] = third.assign_attrs(notes="ΔF/T = 3 is below 10")
    fourth = results[canonical_json(cells[3].config)].assign_attrs(notes="ΔF/T = 4 is below 10")
    results[canonical_json(cells[3].config)] = fourth
    text = "\n".join(judge(whole((plan, results))).warnings)
    assert "2 of 12 cells: diverged (at step 12 and others like it)." in text
    assert "Censored: up to 50 % of a cell's replicas had not left" in text
    assert "Precision not reached in 1 of 7 cells; the widest interval is ±25 % of its mean." in text
    assert "ΔF/T = 3 is below 10 (2 of 12 cells and others like it)." in text
    assert "outside its range in 3 of 3 cells of the theory; the predictions that simulations" in text


def test_what_the_engines_share_is_said() -> None:
    rng = np.random.default_rng(13)
    assert "Langevin and SGD are not independent as programs" in judge(study(langevin=rows(rng), sgd=rows(rng))).shared
    alone = judge(study(sgd=rows(rng)))
    assert "Langevin" not in alone.shared
    assert "4 tests" in alone.tests or "The 4" in alone.tests
    assert alone.text().count("**Theory and SGD: agree.**") == 1
