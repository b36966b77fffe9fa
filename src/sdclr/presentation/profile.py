"""The profile of a whole collection, as data and as lines for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdclr.safe_text import command, counted

BANDS = (1, 2, 5, 10, 50, 100, 500, 1000)
"""Lower bounds of the bands of the spectrum, in images per mode."""


@dataclass(frozen=True)
class Interval:
    """An estimate, its interval, and whether that is informative."""

    estimate: float
    low: float
    high: float
    is_known: bool

    def words(self) -> str:
        """For example "about 14 (6 to 25)"; infinite ends are written as words."""
        ends = f"{_number(self.low)} to {_number(self.high)}"
        return f"about {_number(self.estimate)} ({ends})" if self.is_known else f"unknown ({ends})"


@dataclass(frozen=True)
class CollectionProfile:
    """A collection of N images without labels."""

    title: str
    num_images: int
    modes: Interval
    rare_modes: Interval
    """Modes with less than 1 % of the images."""
    effective_modes: Interval | None
    """1 / P(two random images are of the same mode), from answers; None without any."""
    gini: float
    """Inequality of the modes' sizes, 0 to 1."""
    copies: float
    """Share of images that are folded as copies of another."""
    junk: dict[str, float]
    """Kind of suspected junk -> share of images."""
    sizes: list[int]
    """Images of each mode at the estimated radius, largest first."""
    largest: list[str]
    """A typical image of each of the largest modes."""
    rarest: list[str]
    """Likewise for the smallest ones."""
    num_answers: int
    radius_by: str = "answers"
    """The basis of the radius of a mode: answers (of both kinds), all same, all different, or images (alone)."""
    folder: str = "FOLDER"
    """The folder of the collection, as it is given in commands."""

    def to_dict(self) -> dict[str, Any]:
        """For profile.json; infinite numbers are null."""
        from dataclasses import asdict

        return _finite({**asdict(self), "verdict": self.verdict()})

    @classmethod
    def of_content(cls, content: Mapping[str, Any]) -> CollectionProfile:
        """Restore what :meth:`to_dict` returned; raises KeyError or TypeError for anything else."""
        # earlier versions lack the last fields
        fields = {name: content[name] for name in cls.__dataclass_fields__ if name not in _LATER}
        fields |= {name: content[name] for name in _LATER if name in content}
        for name in ("modes", "rare_modes", "effective_modes"):
            if fields[name] is not None:
                fields[name] = Interval(
                    **{**fields[name], "high": _or_infinite(fields[name]["high"])}
                )
        return cls(**fields)

    def spectrum(self) -> list[tuple[str, int, int]]:
        """(band of sizes, modes in it, images in them) for each non-empty band of BANDS."""
        found = []
        for low, high in zip(BANDS, [*BANDS[1:], None], strict=True):
            inside = [s for s in self.sizes if s >= low and (high is None or s < high)]
            if inside:
                last = "" if high is None else f" to {high - 1:,}" * (high - 1 > low)
                words = f"{low:,}{last}" + (" or more" if high is None else "")
                found.append((words, len(inside), sum(inside)))
        return found

    def verdict(self) -> str:
        """What is known of the number of kinds, in a sentence or two."""
        ends = f"{_number(self.modes.low)} and {_number(self.modes.high)}"
        answers = counted(self.num_answers, "answer")
        ask = command("sdclr", "profile", Path(self.folder), "--ask", 50)
        if self.radius_by == "all same" and self.modes.high <= 1:
            return (
                f"All {answers} say same, and no two images are farther apart than these pairs: one kind of images, as "
                "far as they say."
            )
        if self.radius_by == "all same":
            return (
                f"All {answers} say same, so there are at most {_number(self.modes.high)} kinds of images, as far as "
                f"these say. How many cannot be known without pairs that differ: `{ask}`, or labels."
            )
        if self.radius_by == "all different":
            return (
                f"All {answers} say different, so there are at least {_number(self.modes.low)} kinds of images, as far "
                f"as these say. How many cannot be known without pairs that are the same: `{ask}`, or labels."
            )
        if self.radius_by == "images":
            more = "more answers" if self.num_answers else "answers"
            return (
                f"How many kinds of images there are cannot be known from these images and {answers}. By their "
                f"distances alone it may be between {ends}, if most random pairs are of different kinds. It takes "
                f"{more}, of both kinds: `{ask}`, or labels."
            )
        if self.modes.is_known:
            modes = f"{self.num_images:,} images of {self.modes.words()} modes"
            return f"{modes}, as far as {answers} say."
        return (
            f"How many kinds of images there are cannot be known from these images and {answers}: between {ends}. It "
            f"takes more answers to `{ask}`, or labels."
        )

    def rows(self) -> list[tuple[str, str]]:
        """(name, value) of what is known."""
        rows = [
            ("images", f"{self.num_images:,}"),
            ("modes", self.modes.words()),
            ("rare modes (below 1 % of the images)", self._rare_words()),
        ]
        if self.effective_modes is not None:
            rows.append(("effective modes, by your answers", self.effective_modes.words()))
        rows += [
            ("inequality of their sizes (Gini)", f"{self.gini:.2f}"),
            ("near-duplicates", f"{self.copies:.1%}"),
            ("suspected junk", _shares(self.junk)),
        ]
        return rows

    def _rare_words(self) -> str:
        if self.num_images <= 100:  # one image is at least 1 %
            return f"none can be, of {counted(self.num_images, 'image')}"
        return self.rare_modes.words()

    def galleries(self, pictures: Mapping[str, str]) -> list[tuple[str, list[tuple[str, str]]]]:
        """(heading, [(name, data: URL or "")]); ``pictures``: name -> a small JPEG in base64."""
        rows = (
            ("A typical image of each of the largest modes", self.largest),
            ("And of the smallest ones", self.rarest),
        )
        return [
            (heading, [(name, _address(pictures.get(name))) for name in names])
            for heading, names in rows
            if names
        ]

    def lines(self) -> list[str]:
        """The profile as lines for the terminal."""
        rows = self.rows()
        width = max(len(name) for name, _ in rows)
        lines = [self.title, *(f"  {name:<{width}}  {value}" for name, value in rows)]
        lines.append("  sizes of modes at the estimated radius:")
        lines += [
            f"    {band + (' image' if band == '1' else ' images'):<22}{modes:>7,} modes{images:>11,} images"
            for band, modes, images in self.spectrum()
        ]
        return [*lines, self.verdict()]


_LATER = ("radius_by", "folder")


def _shares(junk: dict[str, float]) -> str:
    found = [f"{kind} {share:.1%}" for kind, share in junk.items() if share]
    return ", ".join(found) or "none"


def _number(value: float) -> str:
    return "any number" if math.isinf(value) else f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def _address(picture: str | None) -> str:
    return "" if picture is None else f"data:image/jpeg;base64,{picture}"


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
