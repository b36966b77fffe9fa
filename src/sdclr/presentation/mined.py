"""The results of mining a collection, as data: scores.csv, the page and the exports all show this.

N images, G groups. Rows are in the order of the collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RankingQuality:
    """The expected quality of the ranking."""

    better_than_chance: bool | None
    """None: unknown."""
    sentence: str
    """The verdict in words, for the terminal and the page."""


@dataclass(frozen=True, eq=False)
class MinedImages:
    """N images with the results for each.

    ``sheet`` is the order in which they are shown: rarest group first, without copies and junk.
    """

    title: str
    """What was mined and with what, in one line."""
    names: Sequence[str]
    """[N], paths below ``root`` with / between folders (surrogates for bytes that are not text)."""
    root: str
    """What ``names`` are relative to: a folder, an archive, a list; empty for images in memory."""
    score_name: str
    """The name of ``score``: a row of rarity's SCORES, or likeness or feedback."""
    order_name: str
    """How ``sheet`` was ordered, in words."""
    score: Numbers
    """[N], higher = rarer."""
    rank: Rows
    """[N], 1 for the highest score; all N images are ranked, ties in the order of the collection."""
    components: Mapping[str, Numbers]
    """Other scores by name, [N] each."""
    group: Rows
    """[N], 0 .. G - 1, rarest group first: images that look alike."""
    group_score: Numbers
    """[G], decreasing."""
    duplicate_of: Rows
    """[N], the row of the image that represents this one: its own row if it is not a copy."""
    junk: Mapping[str, Flags]
    """Kind of suspected junk -> bool [N]."""
    sheet: Rows
    """Rows to show, in order: images that are neither copies nor junk (and new, compared with another collection)."""
    place: npt.NDArray[np.float32]
    """[N, 2], the map: near images are alike."""
    quality: RankingQuality
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Other columns of the user's table, text [N] each."""
    remarks: Sequence[str] = ()
    """Remarks for the reader: left-out images, doubtful folding, data other than the training data."""
    rarest_first: bool = True
    """Whether ``sheet`` begins with the highest score."""
    map_words: str = "the two largest principal components of their features"
    """A description of the two coordinates of ``place``."""
    ranks_rarity: bool = True
    """False if the ranking is by likeness to given images or by the reader's marks."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_copy(self) -> Flags:
        """[N], whether another image represents it."""
        return self.duplicate_of != np.arange(len(self))

    @property
    def is_junk(self) -> Flags:
        """[N], whether any kind of junk is suspected."""
        if not self.junk:
            return np.zeros(len(self), dtype=np.bool_)
        return np.logical_or.reduce(list(self.junk.values()))

    @property
    def copies(self) -> Rows:
        """[N], how many other images each one represents."""
        counts: Rows = np.bincount(self.duplicate_of, minlength=len(self)).astype(np.int64)
        return counts - ~self.is_copy

    @property
    def group_size(self) -> Rows:
        """[G], images of each group, including copies and junk."""
        sizes: Rows = np.bincount(self.group, minlength=len(self.group_score)).astype(np.int64)
        return sizes
