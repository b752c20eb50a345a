"""Text from files that may come from anywhere, made fit for a page and for TOML."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import markupsafe
from markdown_it import MarkdownIt
from markdown_it.token import Token

__all__ = ["clean", "markdown", "shortened", "tied", "toml"]

_KEPT = "\n\t"
# Cc: control; Cf: invisible formatting, among it what turns the direction of writing; Cs: halves of surrogate pairs
_HIDDEN = ("Cc", "Cf", "Cs")


def clean(text: str) -> str:
    r"""Replace characters that are not seen (control, direction of writing, broken surrogates) by the mark U+FFFD.

    Examples
    --------
    >>> clean("a\x00b")
    'a\ufffdb'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join("\ufffd" if _hidden(c) and c not in _KEPT else c for c in text)


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN


_TIED = re.compile(r" (?=[=±<>] )|(?<= [=±<>]) | (?=%|s\.e\.)")


def tied(text: str) -> str:
    """Keep a number together with its sign and its unit where a line ends.

    Examples
    --------
    >>> tied("(p = 0.2, 5 %)") == "(p\u00a0=\u00a00.2, 5\u00a0%)"
    True
    """
    return _TIED.sub("\u00a0", text)


def shortened(text: str, most: int = 300) -> str:
    """Return a text cut to `most` characters, with a note of what is missing.

    Examples
    --------
    >>> shortened("abcdef", 4)
    'abcd… (2 more characters)'
    """
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most} more characters)"


def markdown(text: str, *, level: int = 3) -> markupsafe.Markup:
    r"""Turn a summary's Markdown into HTML: headings, tables, lists, emphasis; no links, pictures or HTML of its own.

    Parameters
    ----------
    text : str
        Markdown; HTML inside is shown as text.
    level : int
        Level of the highest heading on the page.

    Examples
    --------
    >>> str(markdown("## Found <b>"))
    '<h3>Found &lt;b&gt;</h3>\n'
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["image", "link", "autolink", "html_inline", "html_block", "reference", "entity"])
    parser.add_render_rule("table_open", _table_open)
    parser.add_render_rule("table_close", _table_close)
    tokens = parser.parse(clean(text))
    shift = level - min((int(t.tag[1]) for t in tokens if t.type == "heading_open"), default=level)
    for token in tokens:
        if token.type.startswith("heading_"):
            token.tag = f"h{min(int(token.tag[1]) + shift, 6)}"
    return markupsafe.Markup(parser.renderer.render(tokens, parser.options, {}))


def _table_open(renderer: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    """Tables scroll inside themselves where the page is narrow."""
    return '<div class="scroll" tabindex="0" role="region" aria-label="table"><table>\n'


def _table_close(renderer: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    return "</table></div>\n"


def toml(declaration: Mapping[str, Any]) -> str:
    r"""Return a declaration (values, lists, one level of sections) as TOML.

    Examples
    --------
    >>> print(toml({"title": "one \"point\"", "run": {"replicas": [8, 16], "precision": None}}))
    title = "one \"point\""
    <BLANKLINE>
    [run]
    replicas = [8, 16]
    <BLANKLINE>
    """
    lines = [f"{_key(k)} = {_value(v)}" for k, v in declaration.items() if not isinstance(v, Mapping) and v is not None]
    for name, section in declaration.items():
        if isinstance(section, Mapping):
            lines += ["", f"[{_key(name)}]"]
            lines += [f"{_key(k)} = {_value(v)}" for k, v in section.items() if v is not None]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return '"' + "".join(map(_escaped, value)) + '"'
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None)
        return "{" + inside + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(v) for v in value)}]"
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return json.dumps(value)


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if 0xD800 <= ord(character) <= 0xDFFF:
        return "\\uFFFD"  # TOML has no halves of pairs
    return f"\\U{ord(character):08X}" if _hidden(character) else character
