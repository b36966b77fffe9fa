"""An extension of griffe: our docstrings as Markdown.

Ours are written for `help()` and doctest: examples begin with `>>>` in the middle of plain text,
and names of other things stand in Sphinx's roles. Markdown takes the former for quotations and
the latter for noise.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?([\w.]+)`")


class Docstrings(griffe.Extension):
    """Turns doctest examples into fenced blocks and roles into links or names."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """The same docstring in Markdown: each example is fenced, each role a link or a name."""
    lines: list[str] = []
    inside = False
    for line in docstring.splitlines():
        if inside and not line.strip():
            lines.append("```")
            inside = False
        if not inside and line.startswith(">>> "):
            if lines and lines[-1].strip():
                lines.append("")
            lines.append("```pycon")
            inside = True
        lines.append(line if inside else ROLE.sub(_name, line))
    if inside:
        lines.append("```")
    return "\n".join(lines)


def _name(found: re.Match[str]) -> str:
    """A link to a public name, else the name alone."""
    import sdclr

    short = found[1].rpartition(".")[2]
    return f"[`{short}`][sdclr.{short}]" if short in sdclr.__all__ else f"`{short}`"
