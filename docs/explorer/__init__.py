"""The explorer: one mode of a deep linear network under sliders, as a piece of HTML that needs nothing from outside.

Its formulas are printed from the package's symbolic expressions whenever the documentation is built; its quadrature
rule and the digits' spectrum come from the package as well. What is written by hand are the page's looks and its
arithmetic (roots, a quadrature, figures), which a test compares with the library in a browser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from .formulas import Formula, formulas, mathematics

__all__ = ["check_self_contained", "constants", "fragment", "standalone", "write"]

HERE = Path(__file__).parent
SCRIPTS = ("numbers.js", "plots.js", "explorer.js")
OFFLINE = "explorer_offline.html"

SHELL = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Explorer of kramers_grok</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 1rem auto; max-width: 80rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; }}
</style>
</head>
<body>
<h1>Explorer</h1>
{fragment}
</body>
</html>
"""


@cache
def constants() -> dict[str, Any]:
    """Numbers of the library that the page works with."""
    import kramers_grok as kg
    from kramers_grok.theory.quadrature import gauss_rule
    from kramers_grok.theory.rates import VALIDITY_THRESHOLD

    nodes, weights, matrix = gauss_rule()
    images = kg.autoencoding(kg.digits() / 16).x
    return {
        "nodes": nodes.tolist(),
        "weights": weights.tolist(),
        "matrix": matrix.tolist(),
        "validity": VALIDITY_THRESHOLD,
        "digits": list(kg.FeatureSpectrum.autoencoder(images).input_variances),
    }


def fragment(replaced: Mapping[str, Formula] | None = None) -> str:
    """Piece of HTML with its style and script.

    Parameters
    ----------
    replaced : mapping of str to Formula, optional
        Formulas to take instead of the package's own: for the test of the test.
    """
    printed = formulas() | dict(replaced or {})
    script = "\n".join(
        [
            "(() => {",
            '"use strict";',
            f"const constants = {json.dumps(constants())};",
            "const formulas = {",
            *(f"  {name}: {formula.javascript()}," for name, formula in printed.items()),
            "};",
            *((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS),
            "})();",
        ]
    )
    pieces = {
        "style": (HERE / "explorer.css").read_text(encoding="utf-8"),
        "script": script,
        "formulas": "\n".join(f"<p>{line}</p>" for line in mathematics()),
        "features": str(len(constants()["digits"])),
    }
    page = (HERE / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{ (\w+) \}\}", lambda match: pieces[match[1]], page)


def standalone(replaced: Mapping[str, Formula] | None = None) -> str:
    """The same as a page of its own, which forbids itself to load anything."""
    return SHELL.format(fragment=fragment(replaced))


def write(folder: Path) -> None:
    """Write the piece that `explorer.md` includes."""
    (folder / "explorer.html").write_text(fragment(), encoding="utf-8")


def check_self_contained(page: Path) -> None:
    """Raise if a built page loads anything from the network.

    Raises
    ------
    RuntimeError
        With the addresses.
    """
    text = page.read_text(encoding="utf-8")
    loaded = re.findall(r"<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=[\"']((?:https?:)?//[^\"']+)", text)
    links = re.findall(r"<link\b[^>]*rel=[\"'](?:canonical|search|next|prev|index)[\"'][^>]*>", text)
    outside = [address for address in loaded if not any(address in link for link in links)]
    if outside:
        raise RuntimeError(
            f"{page.name} loads {', '.join(outside)}, but the explorer must work without a network.\n"
            "Keep equations (MathJax) and widgets out of docs/explorer.md, or bring the file into docs/_static."
        )
