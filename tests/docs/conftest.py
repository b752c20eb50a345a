"""What is tested here lies in `docs/`, outside of every package."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def explorer() -> ModuleType:
    """The package `docs/explorer`."""
    folder = Path(__file__).parents[2] / "docs" / "explorer"
    spec = importlib.util.spec_from_file_location(
        "docs_explorer", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its own modules are found through it
    spec.loader.exec_module(module)
    return module
