"""The explorer shows the library's numbers: every slider is moved in a browser, and each number is compared."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import sympy

import kramers_grok as kg
from kramers_grok.core.noise import effective_temperature
from kramers_grok.theory.hysteresis import jump_size
from kramers_grok.theory.mode_exit import ModeDynamics
from kramers_grok.theory.quadrature import Interval, mean_exit

TOLERANCE = 1e-6


# ---------------------------------------------------------------- what the library says

Shown = Mapping[str, str]
DIGITS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻−"


def log_of(text: str) -> float:
    """Logarithm of a number as shown; it may be one that no float holds."""
    mantissa, _, exponent = text.translate(str.maketrans(DIGITS, "0123456789--")).partition(" × 10")
    return math.log(abs(float(mantissa))) + int(exponent or 0) * math.log(10)


def log_exit(mode: kg.Mode, T: float, target: kg.Region) -> float:
    """Logarithm of the exact mean exit time, which may exceed the largest float."""
    border, depth = float(mode.coordinate(target.threshold)), mode.depth
    if target.above:
        interval = Interval(start=0.0, lower=-border if depth % 2 == 0 else None, upper=border)
    else:
        interval = Interval(start=math.sqrt(depth) * mode.learned_amplitude(), lower=border)
    return mean_exit(ModeDynamics(mode, T).process, interval).log_mean


def expected(at: Mapping[str, float], spectrum: Sequence[float] | None) -> dict[str, float]:
    """Numbers of the page, for a teacher or a spectrum of data; those of escape are logarithms (``log …``).

    What is left out here is not to be shown.
    """
    depth, decay = int(at["depth"]), at["weight_decay"]
    sigma, q = (at["sigma"], 1.0) if spectrum is None else (1.0, spectrum[int(at["feature"]) - 1])
    mode, chain = kg.Mode(depth, sigma, decay, q), kg.DeepLinearChain(depth, sigma, decay, q)
    T = effective_temperature(at["lr_over_batch"], 1, at["noise_std"] ** 2)
    found = {"temperature": T, "input_variance": q, "spinodal": mode.spinodal(), "binodal": mode.binodal()}
    found["jump"] = float(jump_size(depth, sigma))
    if spectrum is not None:
        features = kg.FeatureSpectrum(tuple(1.0 for _ in spectrum), tuple(spectrum))
        found["n_states"] = features.number_of_states(depth, decay)
    states = {"unlearned": 0.0}
    if decay < mode.spinodal():
        states["learned"] = mode.learned_amplitude()
        if depth > 2:
            states["saddle"] = mode.saddle_amplitude()
    for name, a in states.items():
        found[f"{name}_amplitude"] = a
        found[f"{name}_order_parameter"] = a**depth
        found[f"{name}_energy"] = float(mode.free_energy(a))
        found[f"{name}_curvature"] = float(mode.landscape.hessian_at(np.array([math.sqrt(depth) * a]))[0, 0])
    if "saddle" not in states:
        return found
    for way, barrier, whole in (
        ("learning", mode.barrier(), chain.barrier()),
        ("forgetting", mode.forgetting_barrier(), chain.forgetting_barrier()),
    ):
        found[f"{way}_height"] = barrier.height
        found[f"{way}_ratio"] = barrier.height / T
        target = kg.beyond(barrier)
        time = kg.exit_time(mode, temperature=T, target=target).mean if barrier.height < 500 * T else math.inf
        exact = math.log(time) if math.isfinite(time) else log_exit(mode, T, target)
        found[f"log {way}_exact"] = exact
        found[f"log {way}_samples"] = exact - math.log(at["lr_over_batch"])
        # A rate underflows long before its logarithm would: the prefactor is taken at ΔF/T = 1.
        for kind, rate, of in (("kramers", kg.kramers_rate, barrier), ("chain", kg.eyring_kramers_rate, whole)):
            at_one = rate(of, of.height, warn=False).value
            found[f"log {way}_{kind}"] = of.height / T - 1 - math.log(at_one)
    return found


def differences(shown: Shown, at: Mapping[str, float], spectrum: Sequence[float] | None) -> dict[str, str]:
    """Numbers of the page that are not the library's within the tolerance."""
    wanted = expected(at, spectrum)
    missing = {name.removeprefix("log "): name for name in wanted}
    wrong = {}
    for name, text in shown.items():
        if name not in missing:
            if text != "—":
                wrong[name] = f"{text}, expected nothing"
            continue
        target = wanted[missing[name]]
        if missing[name].startswith("log "):
            good = text != "—" and abs(log_of(text) - target) < TOLERANCE
        elif target == 0 or name == "n_states":
            good = text == f"{target:g}"
        else:
            sign = -1 if text.startswith("−") else 1
            good = text != "—" and abs(sign * math.exp(log_of(text)) / target - 1) < TOLERANCE
        if not good:
            wrong[name] = f"{text}, expected {target!r}"
    unseen = set(missing) - set(shown)
    assert not unseen, f"the page does not show {unseen}"
    return wrong


# ---------------------------------------------------------------- in a browser


class Explorer:
    """The page in a browser, under the hands of a user."""

    def __init__(self, browser: Any, path: Path, spectrum: Sequence[float]) -> None:
        self.browser, self.path, self.spectrum = browser, path, spectrum

    def open(self, state: str = "", *, width: int = 1280, dark: bool = False) -> None:
        """Open the page anew, in a state that its address may hold."""
        self.browser.open(Path("/"), width=width)  # an address that differs behind # only would not be loaded again
        self.browser.open(self.path, width=width, dark=dark)
        if state:
            self.browser.evaluate(f"location.hash = '{state}'; new Promise(done => setTimeout(done, 0))")
        assert self.browser.evaluate("document.querySelector('.kg-explorer').classList.contains('ready')")

    def numbers(self) -> dict[str, str]:
        """All numbers in sight or hidden, by name."""
        found: dict[str, str] = self.browser.evaluate(
            "Object.fromEntries([...document.querySelectorAll('[data-number]')]"
            ".map(e => [e.dataset.number, e.textContent]))"
        )
        return found

    def controls(self) -> dict[str, float]:
        """What the boxes beside the sliders say."""
        found: dict[str, str] = self.browser.evaluate(
            "Object.fromEntries([...document.querySelectorAll('input[type=number]')].map(e => [e.name, e.value]))"
        )
        return {name: float(text) for name, text in found.items()}

    def slider(self, name: str) -> float:
        """Position of a slider."""
        return float(self.browser.evaluate(f"document.querySelector('input[type=range][name={name}]').value"))

    def focus(self, kind: str, name: str) -> None:
        """Bring an input into sight and give it the focus."""
        self.browser.evaluate(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); e.focus(); if (e.select) e.select(); }})"
            f"(document.querySelector('input[type={kind}][name={name}]'))"
        )

    def type(self, name: str, text: str) -> None:
        """Type a number into a box."""
        self.focus("number", name)
        self.browser.press("Delete")
        if text:
            self.browser.type(text)

    def choose(self, value: str) -> None:
        """Click a radio button."""
        box = self.browser.evaluate(
            f"(e => {{ const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})"
            f"(document.querySelector('input[type=radio][value={value}]'))"
        )
        self.browser.click(*box)

    def drag(self, name: str, share: float) -> None:
        """Drag the knob of a slider to a share of its length."""
        self.focus("range", name)
        x, y, width, knob = self.browser.evaluate(
            f"(e => {{ const r = e.getBoundingClientRect(), s = (e.value - e.min) / (e.max - e.min);"
            "return [r.x, r.y + r.height / 2, r.width, 8 + s * (r.width - 16)]; })"
            f"(document.querySelector('input[type=range][name={name}]'))"
        )
        self.browser.drag((x + knob, y), (x + share * width, y))

    def check(self, digits: bool = False) -> None:
        """All numbers are the library's, and the browser has nothing to complain of."""
        assert differences(self.numbers(), self.controls(), self.spectrum if digits else None) == {}
        assert self.browser.complaints() == []
        assert not re.search("NaN|undefined|Infinity", re.sub(r"(?s)<script>.*</script>", "", self.source()))

    def source(self) -> str:
        """The page as it stands."""
        found: str = self.browser.evaluate("document.querySelector('.kg-explorer').outerHTML")
        return found


@pytest.fixture(scope="module")
def page(browser: Any, explorer: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Explorer:
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    path.write_text(explorer.standalone(), encoding="utf-8")
    return Explorer(browser, path, explorer.constants()["digits"])


START = {
    "depth": "",
    "sigma": "",
    "weight_decay": "",
    "lr_over_batch": "noise_std=3",  # the coldest corner is slow for the library, or out of its reach
    "noise_std": "lr_over_batch=1",
    "feature": "source=digits&weight_decay=0.01&lr_over_batch=0.0005",
}


@pytest.mark.parametrize("name", START)
def test_each_slider_moves_numbers_as_the_library_says(page: Explorer, name: str) -> None:
    page.open(START[name])
    digits = name == "feature"
    page.check(digits)
    seen, before = [page.slider(name)], page.numbers()
    for key, times in (("Home", 1), ("ArrowRight", 2), ("PageUp", 2), ("End", 1), ("ArrowLeft", 1)):
        page.focus("range", name)
        page.browser.press(key, times)
        seen.append(page.slider(name))
        page.check(digits)
    for share in (0.3, 0.65):
        page.drag(name, share)
        seen.append(page.slider(name))
        page.check(digits)
    low, high, first, last = seen[1], seen[4], seen[0], seen[-1]
    assert low < seen[2] < seen[3] <= high
    assert low < seen[5] < high
    assert low < seen[6] < last < high
    assert first != last
    assert page.numbers() != before


def test_the_boxes_take_any_number(page: Explorer) -> None:
    page.open()
    for name, text in {"weight_decay": "0.123456789", "sigma": "1.23456789", "lr_over_batch": "0.00123456"}.items():
        page.type(name, text)
        assert page.controls()[name] == float(text)
        page.check()


@pytest.mark.parametrize(
    ("name", "text"), [("weight_decay", "0"), ("weight_decay", "-1"), ("depth", "3.5"), ("sigma", ""), ("depth", "9")]
)
def test_a_box_refuses_what_has_no_meaning(page: Explorer, name: str, text: str) -> None:
    page.open()
    before, first = page.numbers(), page.controls()[name]
    page.type(name, text)
    assert "number from" in page.browser.evaluate(f"document.querySelector('[data-problem={name}]').textContent")
    assert page.numbers() == before
    page.browser.press("Tab")  # away from the box: what counts is back
    assert page.controls()[name] == first
    page.check()


@pytest.mark.parametrize(
    ("state", "says", "gone"),
    [
        ("depth=2&weight_decay=0.5", "continuous", ("saddle_amplitude", "learning_exact")),
        ("depth=2&weight_decay=1.5", "no barrier", ("learned_amplitude", "forgetting_exact")),
        ("depth=3&weight_decay=0.6", "Above the spinodal", ("learned_amplitude", "learning_kramers")),
        ("depth=3&weight_decay=0.45", "Between binodal and spinodal", ()),
        ("depth=4&weight_decay=0.2", "Below the binodal", ()),
        ("source=digits&feature=61&weight_decay=0.3", "Above the spinodal", ("learning_height",)),
        ("depth=3&weight_decay=0.4724", "Between binodal and spinodal", ()),
    ],
)
def test_edges_are_said_in_words(page: Explorer, state: str, says: str, gone: tuple[str, ...]) -> None:
    page.open(state)
    page.check("digits" in state)
    assert says in page.browser.evaluate("document.querySelector('.phase').textContent")
    assert {page.numbers()[name] for name in gone} <= {"—"}


def test_at_the_spinodal_nothing_is_made_up(page: Explorer) -> None:
    page.open(f"weight_decay={kg.Mode(3, 1.0, 0.1).spinodal()!r}")
    assert "At the spinodal" in page.browser.evaluate("document.querySelector('.phase').textContent")
    assert page.numbers()["forgetting_exact"] == "—"
    assert page.browser.complaints() == []


def test_where_it_is_too_cold_the_page_says_so(page: Explorer) -> None:
    page.open("sigma=3&weight_decay=1e-5&noise_std=0.01&lr_over_batch=1e-5")
    assert page.numbers()["learning_exact"] == "—"
    assert "ask the library" in page.browser.evaluate("document.querySelector('.validity').textContent")


def test_the_code_beside_it_prints_its_first_numbers(page: Explorer, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "explorer.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    exec(compile(code, "docs/explorer.md", "exec"), {})
    exact, kramers = map(float, capsys.readouterr().out.split())
    page.open()
    shown = page.numbers()
    assert math.exp(log_of(shown["learning_exact"])) == pytest.approx(exact, rel=TOLERANCE)
    assert math.exp(log_of(shown["learning_kramers"])) == pytest.approx(kramers, rel=TOLERANCE)


def test_choosing_the_digits_and_resetting(page: Explorer) -> None:
    page.open()
    first = page.numbers()
    page.choose("digits")
    page.check(digits=True)
    assert page.numbers()["input_variance"] != first["input_variance"]
    page.browser.evaluate("document.querySelector('button.reset').click()")
    assert page.numbers() == first
    page.check()


_MARKERS = """(figure => {
  const axis = name => {
    const ticks = [...figure.querySelectorAll(`[data-axis=${name}]`)]
      .map(t => [Number(t.dataset.value), Number(t.getAttribute(name)) - (name === "y" ? 4 : 0)]);
    const [low, high] = [ticks[0], ticks[ticks.length - 1]];
    return at => low[0] + (at - low[1]) / (high[1] - low[1]) * (high[0] - low[0]);
  };
  return [...figure.querySelectorAll("svg > g > .marker")].filter(m => !m.classList.contains("mirror")).map(m => {
    const [u, v] = m.getAttribute("transform").match(/-?[\\d.]+/g).map(Number);
    return [m.classList[1], axis("x")(u), axis("y")(v)];
  });
})(document.querySelector(".%s"))"""


@pytest.mark.parametrize("depth", [3, 4])
def test_markers_stand_where_the_states_are(page: Explorer, depth: int) -> None:
    decay, ratio = 0.2, 0.003
    page.open(f"depth={depth}&weight_decay={decay}&lr_over_batch={ratio}")
    mode = kg.Mode(depth, 1.0, decay)
    points = {"unlearned": 0.0, "saddle": mode.saddle_amplitude(), "learned": mode.learned_amplitude()}
    T = ratio / 2
    wanted = {
        "energy-figure": {name: (a, float(mode.free_energy(a))) for name, a in points.items()},
        "loop-figure": {name: (decay, a**depth) for name, a in points.items()},
        "phase-figure": {"point": (1.0, decay)},
        "time-figure": {"unlearned": (1 / ratio, log_exit(mode, T, kg.beyond(mode.barrier())) / math.log(10))},
    }
    for figure, markers in wanted.items():
        found = {name: (x, y) for name, x, y in page.browser.evaluate(_MARKERS % figure)}
        assert {**found, **markers}.keys() == found.keys()
        for name, place in markers.items():
            assert found[name] == pytest.approx(place, rel=2e-3, abs=2e-4), (figure, name)


@pytest.mark.parametrize("wrong", ["energyAboveZero", "spinodal", "temperature", "logKramersTime"])
def test_a_wrong_formula_would_be_noticed(page: Explorer, explorer: ModuleType, tmp_path: Path, wrong: str) -> None:
    """The control: one part in 100,000 in one formula."""
    own = explorer.formulas()[wrong]
    bad = explorer.Formula(own.expression * (1 + sympy.Rational(1, 100_000)), own.arguments)
    path = tmp_path / "wrong.html"
    path.write_text(explorer.standalone({wrong: bad}), encoding="utf-8")
    other = Explorer(page.browser, path, page.spectrum)
    other.open()
    assert differences(other.numbers(), other.controls(), None)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_the_page_fits_its_window(page: Explorer, width: int, dark: bool) -> None:
    page.open(width=width, dark=dark)
    layout = page.browser.evaluate("""({
      wide: document.documentElement.scrollWidth - innerWidth,
      outside: [...document.querySelectorAll(".kg-explorer *")].filter(e => !e.closest(".scroll, svg, details")
        && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80)),
      ink: getComputedStyle(document.querySelector(".kg-explorer")).color,
      ground: getComputedStyle(document.querySelector(".kg-explorer figure svg")).backgroundColor,
    })""")
    assert layout["wide"] <= 0
    assert layout["outside"] == []
    ink, ground = (sum(map(int, re.findall(r"\d+", layout[name])[:3])) for name in ("ink", "ground"))
    assert (ground < ink) == dark
    assert abs(ground - ink) > 450  # of 765
    assert page.browser.complaints() == []
