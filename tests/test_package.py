"""The package's front door: names, version, and that it loads what is needed when it is needed."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import kramers_grok as kg


def test_version_is_the_distributions() -> None:
    assert kg.__version__ == importlib.metadata.version("kramers-grok")


@pytest.mark.parametrize("name", kg.__all__)
def test_each_exported_name_is_there_and_documented(name: str) -> None:
    thing = getattr(kg, name)
    assert (thing.__doc__ or "").strip()
    assert name in dir(kg)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(kg.__file__).read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in guarded.body if isinstance(node, ast.ImportFrom)]
    shown = {alias.asname or alias.name for node in imports for alias in node.names}
    assert shown == set(kg.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = kg.no_such_name


def test_nothing_is_loaded_before_it_is_needed() -> None:
    """The import itself loads no library; theory needs no torch, a process no figures."""
    program = (
        "import sys, kramers_grok as kg\n"
        "heavy = 'matplotlib torch torchsde numba scipy.stats sympy xarray pandas dask sklearn typer'.split()\n"
        "def loaded(): return [name for name in heavy if name in sys.modules]\n"
        "assert not loaded(), loaded()\n"
        "barrier = kg.Mode(depth=3, singular_value=1.0, weight_decay=0.25).barrier()\n"
        "kg.beyond(barrier)\n"
        "assert loaded() == ['sympy'], loaded()\n"
        "kg.Langevin\n"
        "assert 'torch' in loaded()\n"  # the control: what is loaded is seen
        "assert not {'matplotlib', 'scipy.stats', 'dask', 'sklearn'} & set(loaded()), loaded()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_comparing_and_drawing_need_no_torch() -> None:
    program = (
        "import sys, kramers_grok as kg\n"
        "kg.exit_time, kg.compare, kg.error_budget, kg.choose_law, kg.plots, kg.read_study\n"
        "assert 'torch' not in sys.modules\n"
        "kg.find_barrier\n"
        "assert 'torch' in sys.modules\n"  # the control
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
