"""Give the samples of a FiftyOne dataset the rank of `sdclr mine` as a field.

pip install fiftyone
sdclr mine runs/photos --out rare
python examples/fiftyone_field.py my-dataset rare/scores.csv photos
"""

from __future__ import annotations

import csv
import os
import sys
from typing import Any


def add_rarity(dataset: Any, scores: str, photos: str) -> None:
    """Fields ``rarity`` and ``rarity_rank`` of every sample whose file is in ``photos``."""
    with open(scores, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    places = [os.path.abspath(os.path.join(photos, row["path"])) for row in rows]
    known = set(dataset.values("filepath"))  # absolute paths
    for field, column, kind in (("rarity", "score", float), ("rarity_rank", "rank", int)):
        values = {
            place: kind(row[column])
            for place, row in zip(places, rows, strict=True)
            if place in known
        }
        dataset.set_values(field, values, key_field="filepath")


if __name__ == "__main__":
    import fiftyone

    chosen = fiftyone.load_dataset(sys.argv[1])
    add_rarity(chosen, sys.argv[2], sys.argv[3])
    fiftyone.launch_app(chosen.sort_by("rarity_rank")).wait()
