"""Read the scores of `sdclr mine` with pandas: the rarest images, and how rare each folder is.

pip install pandas
sdclr mine runs/photos --out rare
python examples/pandas_scores.py rare
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd


def summary(rare: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The ten rarest images that are not junk, and the mean rank of each folder of images."""
    parquet = Path(rare, "scores.parquet")  # written where pyarrow is installed
    scores = pd.read_parquet(parquet) if parquet.exists() else pd.read_csv(f"{rare}/scores.csv")
    shown = scores[scores["junk"].isna() | (scores["junk"] == "")]
    rarest = shown.sort_values("rank").head(10)[["path", "rank", "score", "group"]]
    folder = scores["path"].map(lambda path: str(Path(path).parent))
    folders = scores.groupby(folder)["rank"].agg(["count", "mean"]).sort_values("mean")
    return rarest, folders


if __name__ == "__main__":
    for table in summary(sys.argv[1]):
        print(table, end="\n\n")
