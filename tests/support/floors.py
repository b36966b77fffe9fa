"""Print the oldest version of every dependency that pyproject.toml allows, as pip takes it; `make check-floors` does.

    python tests/support/floors.py [--build] [EXTRA ...]

One requirement a line, `torch==2.10` for `torch>=2.10`: the dependencies, those of the extras named, and with --build
those of the build. pyproject.toml is the only list there is. Needs Python's own library alone.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[(?P<extras>[^\]]*)\])?\s*(>=\s*(?P<floor>[0-9][0-9A-Za-z.]*))?\s*(;(?P<marker>.*))?"
)


def floors(
    pyproject: Path = PYPROJECT, extras: tuple[str, ...] = (), *, build: bool = False
) -> list[str]:
    """Exact pins. ValueError for a requirement that is not of the form name>=version, and for an unknown extra."""
    content = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    project = content["project"]
    found = [pin(text) for text in content["build-system"]["requires"]] if build else []
    found += [pin(text) for text in project["dependencies"]]
    waiting, seen = list(extras), set()
    while waiting:
        extra = waiting.pop(0)
        if extra not in project["optional-dependencies"]:
            raise ValueError(f"pyproject.toml has no extra {extra!r}.")
        if extra in seen:
            continue
        seen.add(extra)
        for text in project["optional-dependencies"][extra]:
            own = own_extras(text, project["name"])
            waiting += own
            found += [] if own else [pin(text)]
    return found


def own_extras(text: str, project: str) -> list[str]:
    """The extras of this project that a requirement asks for: `sdclr[parquet]` inside of an extra."""
    match = _REQUIREMENT.fullmatch(text.strip())
    if match is None or match["name"] != project:
        return []
    return [name.strip() for name in (match["extras"] or "").split(",")]


def pin(text: str) -> str:
    """`name==floor`, with the marker of the requirement."""
    match = _REQUIREMENT.fullmatch(text.strip())
    if match is None or not match["floor"]:
        raise ValueError(
            f"{text!r} in pyproject.toml has no floor to check: write it as name>=version."
        )
    extras = f"[{match['extras']}]" if match["extras"] else ""
    marker = f"; {match['marker'].strip()}" if match["marker"] else ""
    return f"{match['name']}{extras}=={match['floor']}{marker}"


if __name__ == "__main__":
    words = sys.argv[1:]
    names = tuple(word for word in words if word != "--build")
    print("\n".join(floors(extras=names, build="--build" in words)))
