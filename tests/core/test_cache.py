"""Machine code is kept by the content of everything that compiles."""

from pathlib import Path

import numba
import pytest

from kramers_grok.core import cache, rng_blocks
from kramers_grok.dynamics import kernel_engine


def test_an_edit_of_any_source_begins_a_new_folder(tmp_path: Path) -> None:
    caller, callee = tmp_path / "caller.py", tmp_path / "callee.py"
    caller.write_text("from callee import f\n")
    callee.write_text("def f(): return 1\n")
    before = cache.content_of([caller, callee])
    assert cache.content_of([caller, callee]) == before
    callee.write_text("def f(): return 2\n")
    assert cache.content_of([caller, callee]) != before
    # Text moved from one file to another is another content.
    assert cache.content_of([callee, caller]) != cache.content_of([caller, callee])


def test_everything_that_compiles_is_in_it() -> None:
    names = {path.name for path in cache.compiled_sources()}
    assert {
        "compiled.py",
        "threefry.py",
        "rng_blocks.py",
        "rng_draws.py",
        "lanes.py",
        "lane_products.py",
        "blocks.py",
        "kernel_engine.py",
    } <= names
    assert "deep_linear.py" not in names


def test_functions_keep_their_code_there() -> None:
    folders = {Path(f.stats.cache_path).parent for f in (rng_blocks.fill_normals, kernel_engine.advance)}
    (folder,) = folders  # one for all
    assert folder.parent.name == "machine_code"
    assert folder.name == cache.content_of(cache.compiled_sources())


def test_functions_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    with cache.kept_by_content():
        assert "machine_code" in numba.config.CACHE_DIR
    assert numba.config.CACHE_DIR == ""
