"""The suite's own guards work: a test that leaks global random state, or warns, fails."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LEAKING = """
import random
import warnings

import numpy
import pytest
import torch


def test_clean():
    numpy.random.default_rng(0).normal()
    torch.rand(1, generator=torch.Generator().manual_seed(0))


def test_python():
    random.random()


def test_numpy():
    numpy.random.seed(1)


def test_torch():
    torch.rand(1)


def test_warns():
    warnings.warn("careful", stacklevel=1)
"""


def test_a_leak_of_global_random_state_is_a_failure(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((ROOT / "conftest.py").read_text(encoding="utf-8").replace("pytest_plugins", "_"))
    pytester.makepyfile(LEAKING)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error")
    # a leak is found after the test body passed, hence errors at teardown; the warning fails the body
    result.assert_outcomes(passed=4, failed=1, errors=3)
    for name in ("random", "numpy.random", "torch"):
        result.stdout.fnmatch_lines([f"*global generator ({name})*"])
