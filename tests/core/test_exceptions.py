"""Errors travel between processes with all they carry."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from kramers_grok.core import exceptions
from kramers_grok.core.exceptions import (
    DamagedFileError,
    DivergedError,
    InvalidParameterError,
    KramersGrokError,
    StudyWriteError,
    TooFewEscapesError,
)

MADE = [
    DivergedError("2 of 8 replicas diverged", replicas=[1, 5], step=3),
    TooFewEscapesError("3 of 4096 escaped", result={"mean": 1.5}),
    StudyWriteError("no space", path="out/cells/a.nc"),
    DamagedFileError("cut", path="a.nc", reason="its end is missing", kept="damaged/a.1.nc"),
    *(
        kind("what was given")
        for kind in vars(exceptions).values()
        if isinstance(kind, type)
        and issubclass(kind, KramersGrokError)
        and kind not in (DivergedError, TooFewEscapesError, StudyWriteError, DamagedFileError)
    ),
]


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_after_a_journey(error: KramersGrokError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.args == error.args
    assert vars(back) == vars(error)


def diverge() -> None:
    raise DivergedError("it did", replicas=[2], step=1)


def test_a_process_pool_survives_a_diverging_call() -> None:
    """An error that could not be rebuilt would be taken for the death of the worker."""
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        with pytest.raises(DivergedError, match="it did") as caught:
            pool.submit(diverge).result()
        assert caught.value.replicas == (2,)
        assert pool.submit(abs, -3).result() == 3


def test_wrong_arguments_are_value_errors_too() -> None:
    assert issubclass(InvalidParameterError, ValueError)
