"""What mkdocs does not do by itself: CHANGELOG.md is a page, and files beside docs/ that a page links to come along.

mkdocs calls the functions by their names (`hooks` in mkdocs.yml). A link of a page to a file of
the repository outside docs/ would be dead on the site. The file is added below `repository/`,
and the link is changed to it, so that the same page works on the site and in the repository.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(\]\()(?!https?://|#|mailto:)([^)#\s]+)")
PAGES = {"CHANGELOG.md": "changelog.md"}
"""Files of the repository that are pages of the site."""
README_SECTION = re.compile(r"^<!-- readme: (.+) -->$", flags=re.MULTILINE)
COMMANDS = "<!-- commands -->"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and the linked files that lie outside docs/."""
    for source, target in PAGES.items():
        content = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, target, content=content))
    known: set[str] = set()
    for page in list(files.documentation_pages()):
        for _, link in LINK.findall(page.content_string):
            outside = _outside(page.src_uri, link)
            if outside is not None and outside not in known:
                known.add(outside)
                files.append(_copied(outside, config))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Fill in what comes from elsewhere; point links to files outside docs/ at their copies."""
    markdown = README_SECTION.sub(lambda found: _readme_section(found[1]), markdown)
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, _commands())

    def replaced(found: re.Match[str]) -> str:
        outside = _outside(page.file.src_uri, found[2])
        if outside is None:
            return found[0]
        target = PAGES.get(outside, f"repository/{outside}")
        return found[1] + posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(replaced, markdown)


def _readme_section(heading: str) -> str:
    """What stands below a heading of README, its links seen from docs/."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, found, rest = readme.partition(f"\n## {heading}\n")
    if not found:
        raise ValueError(f"README.md has no section {heading!r}")
    return rest.partition("\n## ")[0].strip().replace("](docs/", "](")


def _commands() -> str:
    """`sdclr --help` and that of every command, as typer writes them in Markdown."""
    import typer.main
    from typer.cli import get_docs_for_click

    from sdclr import cli

    group = typer.main.get_command(cli.app)
    parts = []
    with group.make_context("sdclr", [], resilient_parsing=True) as context:
        for name in group.list_commands(context):  # type: ignore[attr-defined]
            command = group.get_command(context, name)  # type: ignore[attr-defined]
            parts.append(
                get_docs_for_click(
                    obj=command, ctx=context, indent=1, name=name, call_prefix="sdclr"
                )
            )
    return "\n".join(parts)


def _outside(page: str, link: str) -> str | None:
    """The path below the repository of what ``link`` means, where it lies outside docs/."""
    target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    if target.startswith(("docs/", "..")) or not (ROOT / target).is_file():
        return None
    return target


def _copied(path: str, config: Any) -> File:
    """A file of the repository as it is; pages of Markdown are left as text."""
    content = (ROOT / path).read_bytes()
    place = f"repository/{path}"
    file = File.generated(config, place, content=content, inclusion=InclusionLevel.NOT_IN_NAV)
    if os.path.splitext(path)[1] == ".md":
        file.dest_uri = f"{place}.txt"
    return file
