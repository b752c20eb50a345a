"""What a documentation build has run already, with every warning an error: the tests do not run it a second time.

A record counts for the very text it was made of, with the very package, Python, processor and versions of what the
package requires. Tests read it and judge the numbers in it; where there is none, they run the example or chapter.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import sys
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "_build" / "executed"

# Startup of the chapters' kernels: what these modules of theirs warn of is not the chapter's.
KERNEL_STARTUP = r"""
import os
import warnings

os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # the gallery has set another one for all
import matplotlib

matplotlib.interactive(True)  # a figure is shown then; set later, inside a plot's own style, it would be forgotten
warnings.simplefilter("error")
for name in ("ipykernel", "IPython", "traitlets", "jupyter_client", "zmq", "tornado", "asyncio", "matplotlib_inline"):
    warnings.filterwarnings("default", module=rf"{name}(\.|\Z)")
del matplotlib, name, os, warnings
"""


@cache
def _environment() -> str:
    """Hash of all that a result depends on but the text that is run."""
    digest = hashlib.sha256(f"{sys.version} {platform.machine()} {platform.processor()}".encode())
    required = [r for r in importlib.metadata.requires("kramers-grok") or [] if "extra ==" not in r]
    names = sorted({re.match(r"[\w.-]+", r)[0] for r in required} | {"scikit-learn", "llvmlite"})  # type: ignore[index]
    for name in names:
        digest.update(f"{name}=={importlib.metadata.version(name)}\n".encode())
    for path in sorted([*(ROOT / "kramers_grok").rglob("*.py"), Path(__file__), ROOT / "docs" / "conf.py"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def fingerprint(source: Path) -> str:
    """Hash of a text and of all that its results depend on; the package is that of the first call in a process."""
    return hashlib.sha256(_environment().encode() + source.read_bytes()).hexdigest()


def _record(source: Path) -> Path:
    return FOLDER / f"{source.parent.name}-{source.stem}.json"


def write(source: Path, mark: str, result: Mapping[str, Any]) -> None:
    """Keep the result of a text that had the fingerprint `mark` when it began, unless anything changed meanwhile."""
    _environment.cache_clear()
    if fingerprint(source) != mark:
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    temporary = _record(source).with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"fingerprint": mark, **result}), encoding="utf-8")
    temporary.replace(_record(source))


def read(source: Path) -> dict[str, Any] | None:
    """Return what was kept of this text, or None where it is another one, or other code ran it."""
    try:
        kept: dict[str, Any] = json.loads(_record(source).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kept if kept.pop("fingerprint", None) == fingerprint(source) else None


# ---------------------------------------------------------------- hooks of the gallery

_began: dict[str, Any] = {}


def _generators() -> list[Any]:
    """State of the global generators that numbers could come from; Python's own names files and links."""
    import numpy as np
    import torch

    legacy = [np.asarray(part).tolist() for part in np.random.get_state()]  # noqa: NPY002
    return [legacy, torch.get_rng_state().tolist()]


def strictly(gallery_conf: Mapping[str, Any], name: str | None, when: str) -> None:
    """Run an example as the tests would: a warning is an error, global generators stay as they are."""
    if name is None:
        return
    if when == "before":
        # The gallery's processes are started in a way of their own, which those that an example starts do not know.
        multiprocessing.set_start_method("spawn", force=True)
        source = ROOT / "examples" / Path(name).name
        _began.clear()
        _began.update(source=source, filters=warnings.filters[:], generators=_generators(), mark=fingerprint(source))
        warnings.simplefilter("error")
        return
    warnings.filters[:] = _began["filters"]  # type: ignore[index]
    if _generators() != _began["generators"]:
        raise RuntimeError(f"{name} drew from or seeded a global generator: pass `seed`")
    if "numbers" in _began:
        result = {"numbers": _began["numbers"], "figure_bytes": _began["figure"].stat().st_size}
        write(_began["source"], _began["mark"], result)


def with_figure(gallery_conf: Mapping[str, Any], script: Mapping[str, Any]) -> list[str]:
    """Ask every example for its figure, as a reader would on the command line."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    assert Path(script["src_file"]).name == _began["source"].name
    _began["figure"] = FOLDER / f"{Path(script['src_file']).stem}.png"
    return ["--out", str(_began["figure"])]


def numbers(block: Any, script: Mapping[str, Any], gallery_conf: Mapping[str, Any]) -> str:
    """Keep what the example's `main` returned; no image to show."""
    found = script["example_globals"].get("numbers")
    if found is not None:
        _began["numbers"] = {name: float(value) for name, value in found.items()}
    return ""


# ---------------------------------------------------------------- pages

_DRAWS = re.compile(r"^(?:[\w, ()]+ = )?(?:(?:kg\.)?plots\.\w+|plt\.(?:subplots|figure|show))\(", re.M)


def figures_missing(notebook: Mapping[str, Any]) -> list[str]:
    """First lines of the cells of an executed page that draw, at their top level, and show no figure."""
    missing = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or not _DRAWS.search(source) or "plt.close" in source:
            continue
        if not any("image/png" in output.get("data", {}) for output in cell["outputs"]):
            missing.append(source.split("\n")[0])
    return missing


# ---------------------------------------------------------------- chapters


def strict_kernels(folder: Path) -> None:
    """Let the kernels that run chapters start with warnings as errors."""
    startup = folder / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    (startup / "warnings_are_errors.py").write_text(KERNEL_STARTUP, encoding="utf-8")
    os.environ["IPYTHONDIR"] = str(folder)


def chapters() -> list[Path]:
    """The derivations of the repository's `theory/` folder."""
    return sorted((ROOT / "theory").glob("[0-9]*.md"))
