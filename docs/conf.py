"""Sphinx configuration; collects the derivations, the exported names and the command line's options."""

import importlib
import importlib.metadata
import json
import os
import pkgutil
import re
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))  # for the hooks below, in the gallery's processes too

import chapters  # noqa: E402
import executed  # noqa: E402
import explorer  # noqa: E402

os.environ.setdefault("MPLBACKEND", "Agg")
BEGAN = time.time()

# sympy's docstrings have sections of their own; where numpydoc meets one it is not ours to mend.
warnings.filterwarnings("ignore", message="Unknown section", category=UserWarning)

project = "kramers_grok"
author = "the kramers_grok authors"
project_copyright = author
version = release = importlib.metadata.version("kramers-grok")

extensions = [
    "sphinx.ext.autodoc",
    "numpydoc",
    "myst_nb",
    "sphinxcontrib.bibtex",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_generated/*.md", "**.ipynb_checkpoints", "**/sg_execution_times.rst"]
default_role = "py:obj"

html_theme = "pydata_sphinx_theme"
html_title = "kramers_grok"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False, "header_links_before_dropdown": 6}
html_static_path = ["_static"]
html_css_files = ["style.css"]
# The left side lists a section's pages; these pages are sections by themselves, and the gallery's index is its list.
ALONE = ("index", "start_here", "choosing", "conventions", "explorer", "references", "changelog")
html_sidebars = {page: [] for page in (*ALONE, "_generated/examples/*")}
html_show_sourcelink = False

# One page per module with what the module itself defines; re-exported names are listed in the table of `write_names`.
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections name the types, and shapes and units besides
numpydoc_show_class_members = False

myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3

# Chapters carry no outputs: each build runs them, and a cell that raises fails the build.
nb_execution_mode = "force"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables that cells make are tables

# Examples are run as scripts; one that raises fails the build. An unchanged one is not run again.
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "_generated/examples",
    "filename_pattern": r"\.py$",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "notebook_extensions": set(),  # MyST would take a written notebook for a page of its own
    "write_computation_times": False,
    "show_signature": False,
    "parallel": True,  # as many at a time as Sphinx has jobs
    # Warnings are errors; what `main` returns is kept for the tests.
    "reset_modules": ("executed.strictly",),  # the style of figures is nobody's to change here
    "reset_modules_order": "both",
    "reset_argv": "executed.with_figure",
    "image_scrapers": ("matplotlib", "executed.numbers"),
}

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "unsrt"


def copy_chapters() -> None:
    """Bring the derivations of the repository's `theory/` folder under Sphinx's source folder."""
    target = HERE / "theory"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for chapter in executed.chapters():
        shutil.copy2(chapter, target)  # with its time: an unchanged chapter is not run again


def write_names() -> str:
    """Make a table of everything the package exports at the top, linked to where it is defined."""
    import kramers_grok

    rows = ["| name | what it is |", "|---|---|"]
    for name in sorted(getattr(kramers_grok, "__all__", []), key=str.lower):
        thing = getattr(kramers_grok, name)
        if name.startswith("_") or not hasattr(thing, "__name__"):
            continue
        home = getattr(thing, "__module__", None)
        target = f"{home}.{thing.__qualname__}" if home else thing.__name__
        rows.append(f"| {{py:obj}}`{name} <{target}>` | {first_line(thing.__doc__)} |")
    return "\n".join(rows) + "\n"


def first_line(docstring: str | None) -> str:
    """Take the first line of a docstring, as Markdown for a cell of a table."""
    line = (docstring or "").strip().split("\n")[0]
    return re.sub(r":math:`([^`]*)`", r"$\1$", line).replace("|", r"\|")


ROOMS = ("core", "theory", "models", "landscape", "dynamics", "escape", "analysis", "studies", "plots", "report", "cli")


def modules() -> list[str]:
    """Names of all modules, room by room in the order in which they may import one another."""
    import kramers_grok

    names = [found.name for found in pkgutil.walk_packages(kramers_grok.__path__, "kramers_grok.")]
    public = [name for name in names if not any(part.startswith("_") for part in name.split("."))]
    return sorted(public, key=lambda name: (ROOMS.index(name.split(".")[1]), name))


def write_modules() -> str:
    """Make a table of all modules and a table of contents of the rooms."""
    rows = ["| module | what it holds |", "|---|---|"]
    rows += [f"| {{py:mod}}`{name}` | {first_line(importlib.import_module(name).__doc__)} |" for name in modules()]
    rooms = [f"api/{name}" for name in modules() if name.count(".") == 1]
    return "\n".join([*rows, "", "```{toctree}", ":hidden:", "", *rooms, "```", ""])


def write_pages() -> None:
    """Write one page for each module; autosummary takes a function for the module whose name it has."""
    folder = HERE / "api"
    folder.mkdir(exist_ok=True)
    pages = {}
    for name in modules():
        short = name.removeprefix("kramers_grok.")
        lines = [short, "=" * len(short), "", f".. automodule:: {name}", ""]
        inside = [other for other in modules() if other.rpartition(".")[0] == name]
        if inside:
            lines += [
                ".. rubric:: Modules",
                "",
                ".. toctree::",
                "   :maxdepth: 1",
                "",
                *(f"   {o}" for o in inside),
                "",
            ]
        pages[folder / f"{name}.rst"] = "\n".join(lines)
    for stale in set(folder.iterdir()) - set(pages):
        stale.unlink()
    for path, text in pages.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # an unchanged page is not read again
            path.write_text(text, encoding="utf-8")


def write_commands() -> str:
    """Make a section for each command of `kramers-grok` out of the command line's own description."""
    import typer.main

    from kramers_grok.cli import app

    lines: list[str] = []
    for name, command in walk_commands(typer.main.get_command(app)):
        lines += [f"## `kramers-grok {name}`", "", (command.help or "").strip(), ""]
        lines += ["| option | default | meaning |", "|---|---|---|"]
        for parameter in command.params:
            if getattr(parameter, "hidden", False):
                continue
            argument = parameter.param_type_name == "argument"
            spelling = parameter.name.upper() if argument else ", ".join([*parameter.opts, *parameter.secondary_opts])
            default = "required" if parameter.required else parameter.default
            default = "" if default is None else default
            meaning = " ".join((getattr(parameter, "help", "") or "").split()).replace("|", r"\|")
            lines.append(f"| `{spelling}` | {default} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def walk_commands(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the commands of a group and of the groups in it, with their full names."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from walk_commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def prepare(app: Sphinx, config: Config) -> None:
    sys.path.insert(0, str(ROOT))
    executed.strict_kernels(HERE / "_build" / "ipython")
    _marks.update({chapter: executed.fingerprint(chapter) for chapter in executed.chapters()})
    copy_chapters()
    write_pages()
    generated = HERE / "_generated"
    generated.mkdir(exist_ok=True)
    tables = {"names": write_names, "modules": write_modules, "commands": write_commands, "chapters": chapters.table}
    for file, make in tables.items():
        (generated / f"{file}.md").write_text(make(), encoding="utf-8")
    explorer.write(generated)


_marks: dict[Path, str] = {}


def keep_record(app: Sphinx, exception: Exception | None) -> None:
    """Tell the tests which chapters this build has run from top to bottom."""
    if exception is not None:
        return
    for chapter, mark in _marks.items():
        run = app.env.nb_metadata.get(f"theory/{chapter.stem}", {}).get("exec_data")
        if run and run["succeeded"] and run["mtime"] >= BEGAN:
            executed.write(chapter, mark, {"seconds": run["runtime"]})


def look_at_figures(app: Sphinx, exception: Exception | None) -> None:
    """Refuse a page whose cells draw and show nothing: it builds without a warning."""
    if exception is not None:
        return
    notebooks = Path(app.env.mystnb_config.output_folder)  # type: ignore[attr-defined]
    for name in app.env.nb_metadata:
        path = notebooks / f"{name}.ipynb"
        missing = executed.figures_missing(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []
        if missing:
            raise RuntimeError(f"{name}: a cell draws and shows no figure, that which begins with {missing[0]!r}")


def keep_explorer(app: Sphinx, exception: Exception | None) -> None:
    """Put the explorer beside its page as one file; neither may need a network."""
    if exception is not None or app.builder.format != "html":
        return
    alone = Path(app.outdir) / explorer.OFFLINE
    alone.write_text(explorer.standalone(), encoding="utf-8")
    for page in (alone, Path(app.outdir) / "explorer.html"):
        explorer.check_self_contained(page)


def setup(app: Sphinx) -> None:
    app.connect("config-inited", prepare)
    app.connect("build-finished", keep_record)
    app.connect("build-finished", look_at_figures)
    app.connect("build-finished", keep_explorer)
