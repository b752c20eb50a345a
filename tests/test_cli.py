"""The command line: what it prints, and how it fails."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kramers_grok.cli import app

runner = CliRunner()


def invoke(*arguments: str) -> tuple[int, str]:
    result = runner.invoke(app, list(arguments), env={"COLUMNS": "160", "TERM": "dumb"})
    return result.exit_code, result.output


def test_escape_prints_prediction_and_simulation_that_agree() -> None:
    code, text = invoke("escape", "--lr", "0.1", "--batch", "8", "--noise-std", "0.65", "--replicas", "256")
    assert code == 0, text
    prediction = re.search(r"predicted time \(exact[^\d]*([\d.]+)", text)
    interval = re.search(r"simulated time \[95 %\].*?\[([\d.]+), ([\d.]+)\]", text)
    assert prediction, text
    assert interval, text
    predicted, low, high = float(prediction[1]), float(interval[1]), float(interval[2])
    # 95 % intervals widened to 4 standard errors: a false alarm in 16,000 seeds.
    middle, half = (low + high) / 2, (high - low) / 2
    assert abs(predicted - middle) < 2.05 * half
    assert "ΔF/T" in text
    assert "λ_spinodal" in text


def test_escape_without_noise_says_never() -> None:
    code, text = invoke("escape", "--noise-std", "0", "--replicas", "16")
    assert code == 0, text
    assert "never" in text
    assert "0 of 16" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--depth", "2"), "continuous"),
        (("--depth", "1"), "depth"),
        (("--weight-decay", "0.6"), "λ_spinodal"),
        (("--weight-decay", "-1"), "weight_decay"),
        (("--lr", "0"), "lr"),
        (("--batch", "0"), "batch_size"),
        (("--lr", "10"), "lr · weight_decay < 2"),
        (("--noise-std", "nan"), "std"),
    ],
)
def test_bad_input_is_explained(arguments: tuple[str, ...], message: str) -> None:
    code, text = invoke("escape", *arguments)
    assert code == 2
    assert message in text.replace("\n", " ")
    assert "Traceback" not in text


def test_reproduce_refuses_a_directory_with_other_content(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    code, text = invoke("reproduce", "--quick", "--out", str(tmp_path))
    assert code == 2
    assert "StudyConflictError" in text
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_brackets_in_messages_are_text(tmp_path: Path) -> None:
    """A message is no markup: a name in brackets is shown as it is."""
    out = tmp_path / "[red]"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    code, text = invoke("reproduce", "--quick", "--out", str(out))
    assert code == 2
    assert "[red]" in text


def test_reproduce_refuses_a_bad_seed(tmp_path: Path) -> None:
    code, text = invoke("reproduce", "--quick", "--seed", "-1", "--out", str(tmp_path / "out"))
    assert code == 2
    assert "seed" in text
    assert not (tmp_path / "out").exists()


def test_reproduce_runs_the_arms_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, text = invoke("reproduce", "--quick", "--workers", "1", "--arm", "phases", "--out", str(out))
    assert code == 0
    assert "spinodals from" in text
    assert [p.name for p in sorted(out.glob("*.nc"))] == ["phases.nc"]
    code, text = invoke("reproduce", "--quick", "--arm", "fases", "--out", str(out))
    assert code == 2
    assert "`arms` = 'fases'" in text.replace("\n", " ")


def few_checks(monkeypatch: pytest.MonkeyPatch, passed: bool) -> None:
    from kramers_grok.studies import selftest

    def check(device: object) -> str:
        assert passed, "off by [2]"
        return "equal"

    monkeypatch.setattr(
        selftest, "checks_of", lambda compile: {"noise": check, **({"switch": check} if compile else {})}
    )


def test_selftest_lists_its_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    few_checks(monkeypatch, passed=True)
    code, text = invoke("selftest", "--device", "cpu", "--compile")
    assert code == 0, text
    assert "all 2 checks passed" in text
    assert "Self-test of cpu" in text


def test_selftest_fails_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    few_checks(monkeypatch, passed=False)
    code, text = invoke("selftest", "--device", "cpu")
    assert code == 1
    assert "1 of 1 checks failed" in text
    assert "off by [2]" in text


def test_selftest_without_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, text = invoke("selftest", "--device", "cuda")
    assert code == 1
    assert "expected a device that is there" in text.replace("\n", " ")
    assert "Traceback" not in text
