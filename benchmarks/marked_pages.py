"""Pages of the documentation a part of which a command writes: what stands between two markers."""

from __future__ import annotations

from typing import NamedTuple


class Markers(NamedTuple):
    """Two comments in a Markdown file."""

    begin: str
    end: str

    def rewritten(self, page: str, section: str) -> str:
        """The page with ``section`` between its markers."""
        head, _, rest = page.partition(self.begin)
        _, _, tail = rest.partition(self.end)
        assert tail, f"the page has lost its markers {self.begin} and {self.end}"
        return f"{head}{self.begin}\n{section}\n{self.end}{tail}"
