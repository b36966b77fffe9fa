"""How well `sdclr profile` knows the number of kinds, with answers taken from the labels: the table of docs/mining.md.

    python -m benchmarks.rarebench.modes [--sets digits,tiles] [--draws 20]

A draw is another 50 questions. Classes are what the labels say; modes may be finer. Larger data by SDCLR_DATA.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from rarebench import sets
from rarebench.encoders import features_of
from sdclr.evaluation.rarity.modes import (
    RARE_SHARE,
    Answer,
    Between,
    Covering,
    collection_modes,
    questions,
)


def row(name: str, draws: int) -> str:
    """How often each interval holds the truth, and how often it says that it is known."""
    collection = sets.load(name)
    labels, counts = collection.labels, collection.counts
    covering = Covering(features_of("lite0", collection))
    classes = int((counts > 0).sum())
    rare = int(((counts > 0) & (counts < RARE_SHARE * len(labels))).sum())
    effective = 1 / float(np.square(counts / len(labels)).sum())
    alone = collection_modes(covering).number
    held = {"classes": 0, "rare": 0, "effective": 0}
    known = 0
    for seed in range(draws):
        asked = questions(covering, 50, seed)
        answers = [Answer(a, b, bool(labels[a] == labels[b])) for a, b, _ in asked]
        at_random = [
            one for one, (_, _, kind) in zip(answers, asked, strict=True) if kind == "random"
        ]
        found = collection_modes(covering, answers, at_random)
        held["classes"] += _holds(found.number, classes)
        held["rare"] += _holds(found.rare, rare)
        held["effective"] += found.effective is not None and _holds(found.effective, effective)
        known += found.number.is_known
    cells = [f"{alone.low:.0f} to {alone.high:.0f}", f"{held['classes']} of {draws}"]
    cells += [
        f"{held['rare']} of {draws}",
        f"{held['effective']} of {draws}",
        f"{known} of {draws}",
    ]
    return f"| `{name}` | {classes} | {rare} | {effective:.1f} | {' | '.join(cells)} |"


def _holds(interval: Between, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", help="Comma-separated (default: all that are there).")
    parser.add_argument("--draws", type=int, default=20)
    arguments = parser.parse_args()
    print(
        "| Set | Classes | Rare classes | 1 / sum p² | Modes without answers | Interval holds the classes |",
        end="",
    )
    print(" the rare ones | 1 / sum p² | Said to be known |\n|" + "---|" * 9)
    for name in arguments.sets.split(",") if arguments.sets else sets.available():
        print(row(name, arguments.draws), flush=True)


if __name__ == "__main__":
    main()
