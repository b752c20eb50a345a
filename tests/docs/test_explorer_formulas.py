"""The explorer's page is made of the package's expressions, and those are what the library calculates."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import sympy

import kramers_grok as kg
from kramers_grok.core.noise import effective_temperature
from kramers_grok.theory.hysteresis import jump_size

Value = Callable[..., float]


@pytest.fixture(scope="module")
def value(explorer: ModuleType) -> Value:
    """``value(name, *arguments)``: what an expression of the page is in numpy."""

    @cache
    def compiled(name: str) -> Callable[..., Any]:
        formula = explorer.formulas()[name]
        function: Callable[..., Any] = sympy.lambdify(formula.arguments, formula.expression)
        return function

    return lambda name, *arguments: float(compiled(name)(*arguments))


@pytest.mark.parametrize("depth", range(3, 7))
@pytest.mark.parametrize(("sigma", "q", "share"), [(1.0, 1.0, 0.5), (2.3, 0.4, 0.95), (0.3, 1.7, 0.1)])
def test_expressions_are_what_the_library_calculates(
    value: Value, depth: int, sigma: float, q: float, share: float
) -> None:
    decay = share * float(kg.Mode(depth, sigma, 1.0, q).spinodal())
    mode = kg.Mode(depth, sigma, decay, q)
    saddle, learned, T = mode.saddle_amplitude(), mode.learned_amplitude(), 0.03
    up, down = mode.barrier(), mode.forgetting_barrier()
    for a in (0.0, saddle, learned, 0.7):
        p = (a, depth, q, sigma, decay)
        x = np.array([math.sqrt(depth) * a])
        assert value("freeEnergy", *p) == pytest.approx(float(mode.free_energy(a)), rel=1e-13)
        assert value("energyAboveZero", *p) == pytest.approx(
            float(mode.free_energy(a) - mode.free_energy(0.0)), rel=1e-9, abs=1e-14
        )
        assert value("curvature", *p) == pytest.approx(float(mode.landscape.hessian_at(x)[0, 0]), rel=1e-10)
    for a in (saddle, learned):
        assert value("stationaryWeightDecay", a, depth, q, sigma) == pytest.approx(decay, rel=1e-12)
    heights = [value("heightAboveZero", a, depth, q, sigma) for a in (saddle, learned)]
    assert heights[0] == pytest.approx(up.height, rel=1e-11)
    assert heights[0] - heights[1] == pytest.approx(down.height, rel=1e-11)
    assert value("spinodal", depth, q, sigma) == pytest.approx(mode.spinodal(), rel=1e-13)
    assert value("binodal", depth, q, sigma) == pytest.approx(mode.binodal(), rel=1e-13)
    assert value("spinodalOrderParameter", depth, sigma) == pytest.approx(float(jump_size(depth, sigma)), rel=1e-13)
    assert value("temperature", 0.01, 0.5) == pytest.approx(effective_temperature(0.08, 8, 0.25), rel=1e-14)
    for barrier in (up, down):
        arguments = (barrier.minimum_spectrum[0], -barrier.saddle_spectrum[0], barrier.height, T, barrier.multiplicity)
        rate = kg.kramers_rate(barrier, T, warn=False).value
        assert value("logKramersTime", *arguments) == pytest.approx(-math.log(rate), abs=1e-11)


@pytest.mark.parametrize("depth", range(3, 7))
def test_a_chain_learns_and_forgets_at_the_rates_shown(value: Value, depth: int) -> None:
    chain, T = kg.DeepLinearChain(depth, 1.3, 0.15, 0.8), 0.03
    up, down = chain.barrier(), chain.forgetting_barrier()
    rate = kg.eyring_kramers_rate(up, T, warn=False).value
    found = value("logChainLearningTime", depth, 0.15, -float(min(up.saddle_spectrum)), up.height, T)
    assert found == pytest.approx(-math.log(rate), abs=1e-11)
    # Forgetting, the chain's one saddle has the transverse curvatures of its well: the mode's formula is the chain's.
    rate = kg.eyring_kramers_rate(down, T, warn=False).value
    assert kg.kramers_rate(chain.mode.forgetting_barrier(), T, warn=False).value == pytest.approx(rate, rel=1e-10)


def test_at_depth_two_there_is_one_transition(value: Value) -> None:
    assert value("spinodal", 2, 0.7, 1.3) == pytest.approx(0.7 * 1.3)
    assert value("binodal", 2, 0.7, 1.3) == pytest.approx(0.7 * 1.3)
    assert value("curvature", 0.0, 2, 0.7, 1.3, 0.5) == pytest.approx(0.5 - 0.7 * 1.3)


def test_the_page_is_made_of_the_package(explorer: ModuleType) -> None:
    page = explorer.standalone()
    for name, formula in explorer.formulas().items():
        assert f"{name}: {formula.javascript()}," in page
    assert "default-src 'none'" in page
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert "{{" not in page
    # The script starts after this text was parsed: nothing in it may end it early.
    assert page.count("</script>") == 1


def test_a_page_that_loads_something_is_refused(explorer: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(explorer.standalone(), encoding="utf-8")
    explorer.check_self_contained(page)
    for bad in ('<script defer src="https://cdn.example/x.js">', '<link rel="stylesheet" href="//cdn.example/x.css">'):
        page.write_text(bad + explorer.standalone(), encoding="utf-8")
        with pytest.raises(RuntimeError, match=r"loads (https:)?//cdn\.example/x"):
            explorer.check_self_contained(page)
