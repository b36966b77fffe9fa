"""The numbers of docs/mining.md: folding, groups and measures of quality on the sets of RareBench.

    python -m benchmarks.rarebench.mining [--sets digits,tiles] [--samples] [--rows 100000]

``--samples``: instead, what is folded of small random samples of the sets. ``--rows``: instead, the time of ranking so
many random rows x 512. Larger data by SDCLR_DATA.

N images, K clusters.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rarebench import sets
from rarebench.encoders import features_of
from rarebench.planted import plant
from rarebench.sets import Collection
from sdclr.evaluation.rarity import (
    SCORES,
    Evidence,
    agreement,
    judging,
    look_alike,
    near_duplicates,
    perceptual_hashes,
    spread,
    stability_over_dims,
    stability_over_images,
)
from sdclr.evaluation.rarity.duplicates import COPY_RULES, EQUAL, NEAR, rules_of_collection
from sdclr.evaluation.rarity.neighbours import Neighbours
from sdclr.jobs.mine.looking import LOOK
from sdclr.jobs.mine.ranking import SAMPLED, RankingOptions, ranked
from sdclr.presentation.progress import NoProgress

Floats = npt.NDArray[np.float64]


def folding(collection: Collection) -> None:
    """Shares of planted copies, planted bursts and own images that are folded, by either rules."""
    planted, n = plant(collection), len(collection.labels)
    labels = collection.labels[planted.sources]
    extra = Collection(f"{collection.name}-planted", planted.pixels, labels)
    features = torch.cat([features_of("lite0", collection), features_of("lite0", extra)])
    hashes = perceptual_hashes([*collection.pixels, *planted.pixels])
    found = Evidence(features).neighbours(200)
    near = found.first(NEAR)
    rows = torch.linspace(0, len(features) - 1, min(len(features), SAMPLED)).long().unique()
    around = Neighbours(found.distances[rows], found.indices[rows])
    trusted = [*rules_of_collection(near, around, hashes, rows), EQUAL]
    for rules in (list(COPY_RULES), trusted):
        folded = near_duplicates(near, hashes, rules).numpy()
        together = folded[n:] == folded[planted.sources]
        own = folded[:n] != np.arange(n)
        same = collection.labels[folded[:n][own]] == collection.labels[own]
        shares = [
            f"{kind} {together[planted.kinds == kind].mean():.0%}" for kind in ("copy", "burst")
        ]
        print(
            f"{collection.name}: rules {rules}: {', '.join(shares)}, own {own.mean():.1%} "
            f"(same class {same.mean():.0%}), largest {np.bincount(folded).max()}"
        )


def samples(collection: Collection) -> None:
    """Share of the images of small random samples that are folded, where few are copies of each other."""
    for size in (size for size in (100, 200, 400, 800, 1600) if size <= len(collection.labels)):
        folded = []
        for seed in range(5):
            rows = np.random.default_rng(seed).permutation(len(collection.labels))[:size]
            pixels = collection.pixels[rows]
            some = Collection(f"{collection.name}-some", pixels, collection.labels[rows])
            hashes, evidence = perceptual_hashes(pixels), Evidence(features_of("lite0", some))
            near, every = evidence.neighbours(min(NEAR, size - 1)), torch.arange(size)
            around = evidence.neighbours(min(200, size - 1))
            rules = [*rules_of_collection(near, around, hashes, every), EQUAL]
            found = near_duplicates(near, hashes, rules).numpy()
            folded.append(float((found != np.arange(size)).mean()))
        print(
            f"{collection.name}: {np.mean(folded):.1%} of {size} random images folded "
            f"({min(folded):.1%} .. {max(folded):.1%}, n = {len(folded)} samples)"
        )


def groups(collection: Collection) -> None:
    """B-cubed precision, recall and F of the images of few classes, of mutual nearest and k-means."""
    evidence = Evidence(features_of("lite0", collection))
    n = len(collection.labels)
    few = collection.of_smallest(1 / 3)
    alike = look_alike(evidence.neighbours(80), torch.arange(n))
    k_means = evidence.clusters_of(int(n**0.5)).labels
    for name, found in (("mutual 3 nearest", alike), ("k-means", k_means)):
        precision, recall = b_cubed(found.numpy(), collection.labels)
        p, r = float(precision[few].mean()), float(recall[few].mean())
        sizes = np.bincount(found.numpy())
        print(
            f"{collection.name}: {name}: P {p:.2f} R {r:.2f} F {2 * p * r / (p + r):.2f}, "
            f"{len(sizes)} groups, largest {sizes.max()}, alone {(sizes == 1).sum() / n:.0%}"
        )


def b_cubed(found: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """For each image the share of its group that has its class, and the share of its class in its group.

    >>> [part.tolist() for part in b_cubed(np.array([0, 0, 1]), np.array([5, 6, 6]))]
    [[0.5, 0.5, 1.0], [1.0, 0.5, 0.5]]
    """
    _, found = np.unique(found, return_inverse=True)
    _, labels = np.unique(labels, return_inverse=True)
    table = np.zeros((found.max() + 1, labels.max() + 1))
    np.add.at(table, (found, labels), 1)
    both = table[found, labels]
    return both / table.sum(axis=1)[found], both / table.sum(axis=0)[labels]


def quality(collection: Collection, encoder: str) -> None:
    """The measures without labels beside the AUROC, which has them."""
    features = features_of(encoder, collection)
    own = None if collection.groups is None else torch.from_numpy(collection.groups)
    evidence = Evidence(features, own)
    scores = {name: SCORES[name].score(evidence) for name in ("density", "mahalanobis", "lof_20")}
    few = collection.of_smallest(1 / 3)
    print(
        f"{collection.name}, {encoder}: AUROC {judging.auroc(scores['density'].numpy(), few):.2f}, "
        f"halves of images {stability_over_images(features):.2f}, of features "
        f"{stability_over_dims(features):.2f}, agreement {agreement(scores):.2f}, spread "
        f"{spread(scores['density']):.2f}",
        flush=True,
    )


def speed(num_rows: int) -> None:
    """Seconds and memory of a ranking, features given."""
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    centres = torch.randn(100, 512, generator=generator)
    blob = torch.randint(0, 100, (num_rows,), generator=generator)
    features: Tensor = centres[blob] + 0.7 * torch.randn(num_rows, 512, generator=generator)
    looks = np.zeros(num_rows, LOOK)
    looks["hash"] = rng.integers(0, 256, (num_rows, 8))
    looks["junk"][:, :3] = rng.uniform(0.2, 0.4, (num_rows, 3))
    start = time.perf_counter()
    ranked(features, looks, [str(row) for row in range(num_rows)], RankingOptions(), NoProgress())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    seconds = time.perf_counter() - start
    print(f"{num_rows:,} x 512: {seconds:.0f} s, {peak:.1f} GB, {torch.get_num_threads()} threads")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = [name for name in sets.available() if not name.startswith("cifar")]
    parser.add_argument("--sets", default=",".join(usual), help="names, with commas")
    parser.add_argument("--samples", action="store_true", help="folding in small samples instead")
    parser.add_argument("--rows", type=int, help="the time of so many rows instead")
    given = parser.parse_args()
    if given.rows is not None:
        speed(given.rows)
        return
    for name in given.sets.split(","):
        collection = sets.load(name)
        if given.samples:
            samples(collection)
            continue
        folding(collection)
        groups(collection)
        for encoder in ("lite0",) if name == "plankton" else ("lite0", "untrained"):
            quality(collection, encoder)


if __name__ == "__main__":
    main()
