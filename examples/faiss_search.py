"""Find the images that are most like one of them: FAISS over the features of `sdclr embed`.

pip install faiss-cpu
sdclr embed runs/photos --out features.npz
python examples/faiss_search.py features.npz photos/a.jpg
"""

from __future__ import annotations

import sys

import faiss
import numpy as np


def nearest(file: str, path: str, count: int = 5) -> list[tuple[str, float]]:
    """Paths of the most similar images and their cosines, the most similar first."""
    with np.load(file) as saved:
        features, paths = saved["features"].astype(np.float32), saved["path"].tolist()
    faiss.normalize_L2(features)
    index = faiss.IndexFlatIP(features.shape[1])  # exact; for millions: faiss.index_factory
    index.add(features)
    row = paths.index(path)
    cosines, rows = index.search(features[row : row + 1], count + 1)
    found = zip(rows[0].tolist(), cosines[0].tolist(), strict=True)
    return [(paths[other], cosine) for other, cosine in found if other != row][:count]


if __name__ == "__main__":
    for path, cosine in nearest(sys.argv[1], sys.argv[2]):
        print(f"{cosine:.3f}  {path}")
