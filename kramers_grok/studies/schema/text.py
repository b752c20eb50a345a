"""What the schema of declarations looks like to a reader: the template of a new study and the table of the docs."""

from __future__ import annotations

import textwrap

from kramers_grok.studies.schema.fields import FIELDS, SECTIONS, Field
from kramers_grok.studies.schema.rules import toml_value

__all__ = ["markdown_table", "template"]

_COLUMN, _WIDTH = 40, 120
_HEAD = """\
# A study of escapes. See what it would compute, compute it (the same command resumes), look at it:
#
#     kramers-grok study run {file} --out {out} --dry-run
#     kramers-grok study run {file} --out {out}
#     kramers-grok study report {out}
#
# Any parameter may be a value, a list of values or a range,
#
#     lr = {{ start = 0.05, stop = 0.4, num = 4, spacing = "geometric" }}     # or "linear", the default
#     depth = {{ start = 3, stop = 6, step = 1 }}
#
# and the study is the product of all of them.
"""
_SECTION_NOTES = {
    "system": "what is trapped",
    "noise": "exactly one of these",
    "langevin": "used by the engine langevin",
    "sgd": "used by the engine sgd; with noise.std it makes the temperature of the others too",
    "run": "how each cell is measured; either replicas or precision",
}
# Commented out: keys that exclude those that stand, or hold for some systems only.
_ASIDE = frozenset(
    {"system.width", "noise.temperature", "noise.std", "run.precision", "run.max_replicas", "kind", "run.confidence"}
)
_LISTS = {"noise.barrier_over_temperature": [4.0, 5.0], "system.weight_decay": [0.2, 0.25], "seed": 0}


def template(file: str = "study.toml", out: str = "study") -> str:
    """Return a declaration to start from: every key with its meaning, in TOML.

    Parameters
    ----------
    file, out : str
        Names that its head line shows.

    Examples
    --------
    >>> import tomllib
    >>> tomllib.loads(template())["system"]
    {'kind': 'chain', 'depth': 3, 'singular_value': 1.0, 'weight_decay': [0.2, 0.25]}
    """
    lines = [_HEAD.format(file=file, out=out)]
    for section in ("", *SECTIONS):
        if section:
            lines.append(f"\n[{section}]  # {_SECTION_NOTES[section]}")
        lines += [_line(field) for field in FIELDS.values() if field.section == section]
    return "\n".join(lines) + "\n"


def _line(field: Field) -> str:
    """One key with its value and its meaning, which goes on below where it is long."""
    value = _LISTS.get(field.key, field.example if field.default in (None, "") else field.default)
    text = f"{'# ' if field.key in _ASIDE else ''}{field.name} = {toml_value(value)}"
    unit = f" [{field.unit}]" if field.unit not in ("", "1") else ""
    choices = f": {field.rule.one}" if not field.rule.numeric and field.grid else ""
    first, *rest = textwrap.wrap(f"{field.meaning}{unit}{choices}", _WIDTH - _COLUMN - 4)
    return "\n".join([f"{text:<{_COLUMN}}  # {first}", *(f"{'':<{_COLUMN}}  # {more}" for more in rest)])


def markdown_table() -> str:
    """Return the schema as a table in Markdown.

    Examples
    --------
    >>> print(markdown_table().splitlines()[0])
    | key | value | unit | default | meaning |
    """
    rows = ["| key | value | unit | default | meaning |", "|---|---|---|---|---|"]
    for field in FIELDS.values():
        default = "" if field.default is None else f"`{toml_value(field.default)}`"
        many = "; list" if field.grid and not field.rule.numeric else "; list or range" if field.grid else ""
        one = field.rule.one if field.key != "engines" else field.expected
        rows.append(f"| `{field.key}` | {one}{many} | {field.unit} | {default} | {field.meaning} |")
    return "\n".join(rows) + "\n"
