"""The self-test of a device, on the CPU; and that it can fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.dynamics import torch_noise
from kramers_grok.dynamics.optimizers import GradientDescent
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.studies import selftest, selftest_runs

CPU = torch.device("cpu")
CHECKS = selftest.checks_of()


@pytest.mark.parametrize("name", CHECKS)
def test_the_cpu_passes(name: str) -> None:
    assert CHECKS[name](CPU)


@pytest.mark.parametrize("name", CHECKS)
def test_the_arithmetic_of_other_devices_passes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers by torch operations, as on a GPU, in place of the compiled functions that the CPU has."""
    monkeypatch.setattr(torch_noise, "_compiled", lambda streams: False)
    assert CHECKS[name](CPU)


@pytest.mark.cuda
@pytest.mark.parametrize("name", selftest.checks_of(compile=True))
def test_cuda_passes(name: str) -> None:
    assert selftest.checks_of(compile=True)[name](torch.device("cuda"))


@pytest.mark.cuda
def test_reading_back_is_noticed_on_cuda() -> None:
    """Negative control: a number that is read on the way."""
    value = torch.ones(3, device="cuda")
    with selftest.no_reading_back(torch.device("cuda")), pytest.raises(RuntimeError, match="synchroniz"):
        float(value.sum())


def failing(monkeypatch: pytest.MonkeyPatch, name: str) -> selftest.Outcome:
    """Outcome of one check alone."""
    monkeypatch.setattr(selftest, "checks_of", lambda compile: {name: CHECKS[name]})
    (outcome,) = selftest.selftest("cpu")
    return outcome


def test_wrong_noise_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: normals off by one part in 10¹⁰."""
    right = torch_noise.normals
    monkeypatch.setattr(torch_noise, "normals", lambda *a, **k: right(*a, **k) * (1 + 1e-10))
    outcome = failing(monkeypatch, "noise: normals, uniforms, chi-square")
    assert not outcome.passed
    assert outcome.detail.startswith("AssertionError")


def test_a_step_that_is_slightly_off_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: torch's gradient descent off by one part in 10⁷ beside the compiled one."""
    right = GradientDescent.step

    def wrong(self: GradientDescent, theta: Tensor, gradient: Tensor, *rest: object) -> object:
        return right(self, theta, gradient * (1 + 1e-7), *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(GradientDescent, "step", wrong)
    for name in ("network: population", "chain: online"):
        assert not failing(monkeypatch, name).passed


def test_an_error_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Tensor:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(DeepLinearNetwork, "data_gradient", broken)
    outcome = failing(monkeypatch, "network: online, ByMoments()")
    assert (outcome.passed, outcome.detail) == (False, "RuntimeError: no kernel image is available")


def test_progress_and_names() -> None:
    seen: list[str] = []
    first = dict(list(CHECKS.items())[:2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selftest, "checks_of", lambda compile: first)
        outcomes = selftest.selftest("cpu", progress=seen.append)
    assert seen == [outcome.name for outcome in outcomes] == list(first)
    assert all(outcome.passed and outcome.seconds >= 0 for outcome in outcomes)
    assert set(selftest.checks_of(compile=True)) - set(CHECKS) == {"compile switch"}


MISSING: dict[str, tuple[str, str]] = {
    "meta": ("meta", "`device` = 'meta', expected cpu, cuda or auto"),
    "no device at all": ("gpu", "`device` = 'gpu', expected cpu, cuda or auto"),
}


@pytest.mark.parametrize("case", MISSING)
def test_other_devices_are_refused(case: str) -> None:
    device, message = MISSING[case]
    with pytest.raises(InvalidParameterError, match=message):
        selftest.find_device(device)


def test_without_cuda_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidParameterError, match=r"`device` = cuda, .*\nUse `--device cpu`"):
        selftest.find_device("cuda")
    assert selftest.find_device("auto") == CPU


@pytest.mark.parametrize("found", [1.0 + 1e-6, float("nan")])
def test_comparisons_notice(found: float) -> None:
    compare: Callable[[], float] = partial(selftest_runs.compare, torch.tensor([found], dtype=torch.float64), [1.0])
    with pytest.raises(AssertionError):
        compare()
