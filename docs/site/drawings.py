"""Draw the pictures of docs/concepts.md: SVG files that follow the light or dark theme.

    python docs/site/drawings.py

Writes docs/figures/idea-*.svg; tests/test_site.py holds the files to what this draws.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

import sdclr
from sdclr.data import build_data
from sdclr.evaluation.balancedness import GROUPS, class_groups

FIGURES = Path(__file__).parent.parent / "figures"
STYLE = """
  text { font-family: system-ui, sans-serif; font-size: 15px; fill: #1b1f24; }
  .small { font-size: 13px; fill: #57606a; }
  .strong { font-weight: 600; }
  .middle { text-anchor: middle; }
  .box { fill: #ffffff; stroke: #57606a; stroke-width: 1.5; }
  .line { fill: none; stroke: #57606a; stroke-width: 1.5; }
  .dashed { stroke-dasharray: 5 4; }
  .head { fill: #57606a; }
  .first { fill: #2f6fb0; }
  .second { fill: #c2571a; }
  .third { fill: #3d7a3d; }
  .off { fill: #eaeef2; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .small { fill: #a8b3bf; }
    .box { fill: #161b22; stroke: #a8b3bf; }
    .line { stroke: #a8b3bf; }
    .head { fill: #a8b3bf; }
    .first { fill: #6ea8e0; }
    .second { fill: #f0985a; }
    .third { fill: #7fc07f; }
    .off { fill: #2d333b; }
  }
"""


def picture(width: int, height: int, title: str, parts: list[str]) -> str:
    """One SVG document; ``title`` is what a screen reader says."""
    body = "\n".join(f"  {part}" for part in parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">\n'
        f"  <title>{title}</title>\n  <style>{STYLE}  </style>\n{body}\n</svg>\n"
    )


def text(x: float, y: float, words: str, classes: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{classes}">{words}</text>'


def box(x: float, y: float, width: float, height: float, classes: str = "box") -> str:
    size = f'width="{width:g}" height="{height:g}"'
    return f'<rect x="{x:g}" y="{y:g}" {size} rx="6" class="{classes}"/>'


def cell(x: float, y: float, side: float, classes: str) -> str:
    size = f'width="{side:g}" height="{side:g}"'
    return f'<rect x="{x:g}" y="{y:g}" {size} rx="2" class="{classes}"/>'


def arrow(x1: float, y1: float, x2: float, y2: float) -> list[str]:
    """A line from one point to another with a head at the second."""
    length = float(np.hypot(x2 - x1, y2 - y1))
    u, v = (x2 - x1) / length, (y2 - y1) / length
    back_x, back_y = x2 - 9 * u, y2 - 9 * v
    head = f"{x2:.1f},{y2:.1f} {back_x - 4.5 * v:.1f},{back_y + 4.5 * u:.1f} "
    head += f"{back_x + 4.5 * v:.1f},{back_y - 4.5 * u:.1f}"
    return [
        f'<path d="M{x1:g} {y1:g} L{back_x:.1f} {back_y:.1f}" class="line"/>',
        f'<polygon points="{head}" class="head"/>',
    ]


def branches() -> str:
    """One image, two views, the network and its pruned twin."""
    parts = [
        box(16, 112, 92, 76),
        text(62, 146, "an image", "middle strong"),
        text(62, 167, "no label", "middle small"),
        *arrow(108, 136, 168, 74),
        *arrow(108, 164, 168, 226),
        box(168, 40, 84, 64),
        text(210, 77, "view a"),
        box(168, 196, 84, 64),
        text(210, 233, "view b"),
        *arrow(252, 72, 300, 72),
        *arrow(252, 228, 300, 228),
        box(300, 24, 208, 96),
        text(404, 54, "the network", "middle strong"),
        text(404, 78, "all weights", "middle small"),
        text(404, 98, "its batch norms", "middle small"),
        box(300, 180, 208, 96),
        text(404, 210, "its pruned self", "middle strong"),
        text(404, 234, "same weights, small ones at 0", "middle small"),
        text(404, 254, "batch norms of its own", "middle small"),
        '<path d="M404 120 L404 180" class="line dashed"/>',
        text(414, 155, "same weights", "small"),
        *arrow(508, 72, 596, 130),
        *arrow(508, 228, 596, 170),
        box(596, 112, 148, 76),
        text(670, 142, "do they agree?", "middle strong"),
        text(670, 165, "loss of the image", "middle small"),
    ]
    return picture(
        760,
        300,
        "Two views of an image: one goes through the network, one through its pruned self; "
        "the loss asks whether the two agree",
        parts,
    )


def mask() -> str:
    """The weights of a layer, and what is left of them when 70 % are pruned."""
    weights = np.random.default_rng(0).normal(size=(6, 10))
    sizes = np.abs(weights)
    kept = sizes >= np.sort(sizes.ravel())[round(0.7 * sizes.size)]
    parts = []
    for left, shown, words in (
        (20, np.ones_like(kept), "all weights of the network"),
        (390, kept, "what its pruned self uses: the largest 30 %"),
    ):
        parts.append(text(left, 24, words, "strong"))
        for row in range(sizes.shape[0]):
            for column in range(sizes.shape[1]):
                x, y = left + 34 * column, 42 + 34 * row
                side = 6 + 24 * min(float(sizes[row, column]) / 2.2, 1.0)
                middle = 15 - side / 2
                parts.append(cell(x, y, 30, "off"))
                if shown[row, column]:
                    sign = "first" if weights[row, column] > 0 else "second"
                    parts.append(cell(x + middle, y + middle, side, sign))
    parts += [
        text(
            20,
            272,
            "Blue is positive, orange negative; the larger the square, the larger the",
            "small",
        ),
        text(20, 290, "weight. The choice is made anew at the beginning of each epoch.", "small"),
    ]
    return picture(760, 300, "A mask keeps the weights with the largest magnitudes", parts)


def groups() -> str:
    """Images of each class of the demo's first split, from many to few."""
    data = build_data(sdclr.recipe("digits_sdclr").data)
    of_class = np.bincount(data.train.labels)
    counts = np.sort(of_class)[::-1]
    parts_of = class_groups(of_class.tolist(), "thirds")
    sizes = [len(parts_of[name]) for name in GROUPS]
    parts = [text(20, 24, "training images of each class", "strong")]
    place, scale = 0, 200 / counts.max()
    for name, colour, size in zip(GROUPS, ("first", "third", "second"), sizes, strict=True):
        first = place
        for _ in range(size):
            x, height = 24 + 72 * place, float(counts[place]) * scale
            parts.append(
                f'<rect x="{x}" y="{256 - height:.1f}" width="56" height="{height:.1f}" '
                f'class="{colour}"/>'
            )
            parts.append(text(x + 28, 250 - height, str(counts[place]), "middle small"))
            place += 1
        middle = 24 + 72 * (first + place - 1) / 2 + 28
        parts.append(text(middle, 282, name, "middle strong"))
    return picture(760, 300, "Class sizes of long-tailed digits: many, medium and few", parts)


DRAWINGS: dict[str, Callable[[], str]] = {
    "idea-branches.svg": branches,
    "idea-mask.svg": mask,
    "idea-groups.svg": groups,
}


if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (FIGURES / name).write_text(draw(), encoding="utf-8")
        print(FIGURES / name)
