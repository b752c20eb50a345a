"""Settings of the test suite proper."""

from collections.abc import Callable, Iterator

import pytest
import xarray as xr
from hypothesis import HealthCheck, settings

from kramers_grok.dynamics import threads

# Derandomised: a red build is red again when it is looked at. No deadline: the first example may compile a kernel.
settings.register_profile(
    "kramers_grok",
    derandomize=True,
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("kramers_grok")


@pytest.fixture(scope="session", autouse=True)
def _threads_for_little_work() -> Iterator[None]:
    """Whoever asks for threads gets them: tests that compare numbers of threads have little work."""
    before, threads.LEAST_WORK = threads.LEAST_WORK, 0
    yield
    threads.LEAST_WORK = before


@pytest.fixture(scope="session")
def check_labels() -> Callable[[xr.DataTree], None]:
    """Every variable of a file says its unit and what it is."""

    def check(tree: xr.DataTree) -> None:
        for node in tree.subtree:
            for variable in node.dataset.data_vars.values():
                assert {"units", "long_name"} <= set(variable.attrs), (tree.name, variable.name)

    return check
