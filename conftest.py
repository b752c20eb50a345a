"""What every test and every doctest of the project gets."""

import os

# Before numpy, numba or torch are imported: the suite runs in parallel processes, and threads inside them
# would fight for the same cores.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import rich.style
import torch

torch.set_num_threads(1)

# rich draws the identifiers of its links from Python's global generator, which the guard below watches.
rich.style.randint = random.Random(0).randint  # type: ignore[attr-defined]

pytest_plugins = ["pytester"]  # for tests of the guards below


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Files with slow tests first: a worker that gets one last would leave the other waiting.
    slow = Counter(item.path for item in items if "slow" in item.keywords)
    items.sort(key=lambda item: -slow[item.path])
    if torch.cuda.is_available():
        return
    no_device = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(no_device)


def _fingerprint(state: object) -> bytes:
    return repr(state).encode()


_GLOBAL_GENERATORS: dict[str, Callable[[], bytes]] = {
    "random": lambda: _fingerprint(random.getstate()),
    "numpy.random": lambda: _fingerprint([np.asarray(part).tobytes() for part in np.random.get_state()]),  # noqa: NPY002
    "torch": lambda: torch.get_rng_state().numpy().tobytes(),
}


@pytest.fixture(autouse=True)
def global_random_state_untouched() -> Iterator[None]:
    """Fail a test after which a global generator is not as it was: results must depend on `seed` alone."""
    before = {name: state() for name, state in _GLOBAL_GENERATORS.items()}
    yield
    leaked = [name for name, state in _GLOBAL_GENERATORS.items() if state() != before[name]]
    if leaked:
        pytest.fail(
            f"this test drew from or seeded a global generator ({', '.join(leaked)}): "
            "pass `seed`, or a generator of the test's own",
            pytrace=False,
        )


@pytest.fixture(autouse=True)
def figures_closed() -> Iterator[None]:
    """Close the figures a test opened, so that none piles up."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
