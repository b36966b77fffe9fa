"""Write the rarest images of `sdclr mine` as tasks for Label Studio's import.

    sdclr mine runs/photos --out rare
    python examples/label_studio_import.py rare/scores.csv tasks.json 100

Label Studio has to serve the folder of the photos: LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true
and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=PHOTOS. The labelling configuration is in
docs/mining-page.md.
"""

from __future__ import annotations

import csv
import json
import sys
from typing import Any
from urllib.parse import quote


def tasks(scores: str, count: int) -> list[dict[str, Any]]:
    """One task for each of the ``count`` rarest images, the rarest first."""
    with open(scores, newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["rank"]))
    return [
        {
            "data": {
                "image": f"/data/local-files/?d={quote(row['path'])}",
                "rank": int(row["rank"]),
                "score": float(row["score"]),
            }
        }
        for row in rows[:count]
    ]


if __name__ == "__main__":
    with open(sys.argv[2], "w", encoding="utf-8") as out:
        json.dump(tasks(sys.argv[1], int(sys.argv[3])), out, indent=1)
