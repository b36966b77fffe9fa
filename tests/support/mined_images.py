"""Collections as mining leaves them: real digits and names that mean harm."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from mined_page import assembled
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from sdclr.presentation.mined import MinedImages, RankingQuality
from sdclr.presentation.mining.columns import DIGEST, digest_cell

HOSTILE_NAMES = [
    "<script>alert(1)</script>.jpg",
    '"><img src=x onerror="alert(1)">.jpg',
    "</script><script>alert(1)</script>.jpg",
    "<!--<script>.jpg",
    'it\'s "quoted", twice.jpg',
    "two\nlines.jpg",
    "carriage\rreturn\tand tab.jpg",
    "turned\u202egpj.exe",
    "no text \udcff\udc80.jpg",
    "line\u2028separator.jpg",
    "=HYPERLINK(1).jpg",
    "-1.jpg",
    "&amp;&lt;.jpg",
    "{{ 7 * 7 }}{% raw %}.jpg",
    "наука/写真/🦋 b\u0301.jpg",
    "__proto__",
    "\x7f\x00\x1b[31m.jpg",
    "100% # ? [a] !'()*~.jpg",
    "l" * 296 + ".jpg",
]


def digits(num_images: int = 360, seed: int = 0) -> tuple[MinedImages, dict[int, bytes]]:
    """Digits of scikit-learn with many zeros and few of the others; pictures of all of them."""
    found = load_digits()
    rng = np.random.default_rng(seed)
    keep = np.concatenate(
        [rng.permutation(np.flatnonzero(found.target == digit)) for digit in range(10)]
    )
    keep = keep[len(keep) - num_images + 12 :]
    keep = np.concatenate([keep, keep[-4:], keep[-4:], keep[-4:]])
    pixels = found.images[keep]
    names = [f"digits/{int(found.target[row])}/{i:04d}.png" for i, row in enumerate(keep)]
    features = pixels.reshape(len(keep), -1)
    pictures = {}
    for row, grey in enumerate(pixels):
        image = Image.fromarray((grey * 15.9).astype(np.uint8)).resize(
            (64, 64), Image.Resampling.NEAREST
        )
        pictures[row] = jpeg(image)
    return collection(names, features, seed), pictures


def in_memory() -> tuple[MinedImages, dict[int, bytes]]:
    """Images whose names are positions, with the digests of their pixels."""
    mined, pictures = digits(200)
    cells = [digest_cell(f"{row:016x}") for row in range(len(mined))]
    names = [str(row) for row in range(len(mined))]
    columns = {**mined.columns, DIGEST: cells}
    return replace(mined, names=names, root="", columns=columns), pictures


def collection(
    names: Sequence[str], features: npt.NDArray[np.float64], seed: int = 0, num_groups: int = 40
) -> MinedImages:
    """What mining would find, roughly: groups by k-means, the score by neighbours, equal rows as copies."""
    n = len(names)
    squares = (features**2).sum(axis=1)
    distance = np.sqrt(np.maximum(squares[:, None] + squares - 2 * features @ features.T, 0))
    distance[distance < 1e-6] = np.inf  # itself, and its copies
    near = np.sort(distance, axis=1)[:, : min(10, n) - 1]
    near = np.minimum(near, distance[np.isfinite(distance)].max())
    score = near.mean(axis=1) / 10
    labels = KMeans(min(num_groups, n), n_init=1, random_state=seed).fit(features).labels_
    centred = features - features.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    _, first, same = np.unique(features, axis=0, return_index=True, return_inverse=True)
    twins = first[same.reshape(-1)].astype(np.int64)
    rng = np.random.default_rng(seed)
    blank, blurred = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    blank[rng.choice(n, min(3, n // 10), replace=False)] = True
    blurred[rng.choice(n, min(5, n // 8), replace=False)] = True
    return assembled(
        names,
        score,
        labels.astype(np.int64),
        twins,
        {"blank": blank, "blurred": blurred},
        (centred @ directions[:2].T).astype(np.float32),
        {"knn_1": near[:, 0] / 10, "lof_20": score / near[:, -1]},
    )


def hostile() -> tuple[MinedImages, dict[int, bytes]]:
    """Names that mean harm, as names, in a user's column and in every other text."""
    n = len(HOSTILE_NAMES)
    features = np.random.default_rng(0).normal(size=(n, 8))
    harmless = collection(HOSTILE_NAMES, features, num_groups=6)
    word = HOSTILE_NAMES[2]
    score = harmless.score.copy()
    score[:6] = [1e-7, 12345678.0, 5.0, 1e16, -0.00012345, 1 / 3]
    return (
        MinedImages(
            **{
                **vars(harmless),
                "title": word,
                "root": f"/photos/{word}\u202e",
                "score": score,
                "order_name": word,
                "components": {word: score, "path": np.where(score > 1, np.nan, score)},
                "quality": RankingQuality(None, word),
                "columns": {word: HOSTILE_NAMES, "wanted": ["1", "0", *[""] * (n - 2)]},
                "remarks": [word],
            }
        ),
        {row: jpeg(Image.new("L", (32, 24), 10 * row)) for row in range(0, n, 2)},
    )


def jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()
