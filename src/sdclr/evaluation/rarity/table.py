"""The rarity scores by name. A new one is one function and one row; every list and table reads it.

A row is light: reading this table imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sdclr.errors import ConfigError, DataError
from sdclr.outside import Table, load, load_outside, origin_of, summary_of
from sdclr.safe_text import shown

if TYPE_CHECKING:
    from torch import Tensor

    from sdclr.evaluation.rarity.evidence import Evidence

_FEATURES = ("features",)
_BRANCHES = ("view_losses", "competitor_view_losses")
_OURS = "this package"
_TYPICLUST = "TypiClust: Hacohen et al., ICML 2022"
_K_CENTRE = "Gonzalez, 1985; Sener and Savarese, ICLR 2018"
_SDCLR = "Jiang et al., ICML 2021"


class ScoreRow(NamedTuple):
    """A row of the table: all that the rest of the program needs to know of a score."""

    name: str
    display_name: str
    """Its heading in every table."""
    summary: str
    """What it is, in one line."""
    needs: tuple[str, ...]
    """What it reads, of evidence.NEEDS."""
    function: Any
    """Evidence -> [N], or "module:name" of it."""
    is_order: bool = False
    """Whether it is meant as an order that shows many kinds early, not as a degree of rarity."""
    origin: str = ""
    """ "module:Name" of a score from outside the package."""
    neighbours: int = 0
    """How many neighbours it compares an image with, if this does not depend on the size of the collection."""
    words: str = ""
    """Its formula in words, if the summary is not enough; docs/rarebench.md shows it."""
    source: str = ""
    """The source of the formula; empty if no single source is known."""

    def applies_to(self, evidence: Evidence) -> bool:
        """Whether all that it needs is known."""
        return all(evidence.has(need) for need in self.needs)

    def score(self, evidence: Evidence) -> Tensor:
        """Float64 [N], higher = rarer.

        Raises DataError if the evidence lacks something, and if the score is not one finite number
        for each image.
        """
        if lacking := [need for need in self.needs if not evidence.has(need)]:
            raise DataError(
                f"the score {self.name} needs {' and '.join(lacking)}, which are not given."
            )
        return _checked(self.name, load(self.function)(evidence), evidence.num_images)


def _checked(name: str, values: Any, num_images: int) -> Tensor:
    import torch

    scores = torch.as_tensor(values)
    if scores.shape != (num_images,) or scores.dtype == torch.bool or scores.is_complex():
        raise DataError(
            f"the score {name} must give one number for each of {num_images} images, "
            f"got {scores.dtype} of shape {tuple(scores.shape)}."
        )
    scores = scores.detach().double().cpu()
    if not (finite := scores.isfinite()).all():
        raise DataError(
            f"the score {name} is not a finite number for {int((~finite).sum())} of {num_images} "
            f"images, the first of them in row {int((~finite).nonzero()[0])}."
        )
    return scores


def _row(
    name: str,
    display_name: str,
    summary: str,
    *needs: str,
    is_order: bool = False,
    neighbours: int = 0,
    words: str = "",
    source: str = "",
) -> ScoreRow:
    return ScoreRow(
        name,
        display_name,
        summary,
        needs or _FEATURES,
        f"sdclr.evaluation.rarity.scoring:{name}",
        is_order,
        neighbours=neighbours,
        words=words,
        source=source,
    )


SCORES: Table[ScoreRow] = Table(
    "score",
    [
        ScoreRow(
            "random",
            "Random",
            "uniform numbers from the seed",
            (),
            "sdclr.evaluation.rarity.scoring:random",
        ),
        _row("knn_1", "Nearest neighbour", "distance to the nearest other image"),
        _row(
            "fiftyone",
            "FiftyOne uniqueness",
            "weighted distance to the 3 nearest, .6 .3 .1",
            words="(.6 d1 + .3 d2 + .1 d3) / 3 with the cosine distances d to the 3 nearest, "
            "divided by its maximum",
            source="FiftyOne's uniqueness",
        ),
        _row(
            "cleanlab",
            "cleanlab",
            "mean cosine distance to the 10 nearest",
            neighbours=10,
            words="mean cosine distance (1 - cosine) to the 10 nearest, before cleanlab's exponential",
            source="cleanlab: Kuan and Mueller, 2022",
        ),
        _row(
            "knn_20",
            "LightlyStudio typicality",
            "mean distance to the 20 nearest, as in TypiClust",
            neighbours=20,
            words="mean distance to the 20 nearest, which is one over TypiClust's typicality",
            source=f"{_TYPICLUST}; LightlyStudio sorts by it",
        ),
        _row("knn_50", "50 neighbours", "mean distance to the 50 nearest", neighbours=50),
        _row("knn_200", "200 neighbours", "mean distance to the 200 nearest", neighbours=200),
        ScoreRow(
            "density",
            "Density",
            "mean distance to the nearest twentieth of the images, 10 to 50 of them",
            _FEATURES,
            "sdclr.evaluation.rarity.scoring:density_of_surroundings",
            source=_OURS,
        ),
        _row(
            "white_knn_20",
            "20 neighbours, whitened",
            "the same on 128 whitened principal components",
            neighbours=20,
            words="mean distance to the 20 nearest, on the 128 largest principal components scaled "
            "to variance one (on N / 4 components where N images have fewer)",
        ),
        _row(
            "white_knn_200",
            "200 neighbours, whitened",
            "the same on 128 whitened principal components",
            neighbours=200,
            words="the same with the 200 nearest",
        ),
        _row(
            "lof_20",
            "Local outlier factor",
            "density of the 20 nearest over one's own",
            neighbours=20,
            words="mean density of the 20 nearest over the image's own density; density is 1 / mean "
            "reach, and reach is the distance, but at least the neighbour's distance to its own 20th",
            source="LOF: Breunig et al., SIGMOD 2000",
        ),
        _row(
            "centre_distance",
            "Distance to centre",
            "distance to the centre of its k-means cluster",
            words="distance to the centre of its cluster: k-means with √N clusters, at most 500, on "
            "the largest principal components",
        ),
        _row(
            "cluster_size",
            "Cluster size",
            "minus the size of its k-means cluster",
            words="minus the number of images in its cluster, of the same k-means",
        ),
        _row(
            "k_centre",
            "k-centre",
            "greedy covering, farthest first",
            is_order=True,
            words="each step takes the image farthest from the mean and from all taken before; the "
            "score is that distance",
            source=_K_CENTRE,
        ),
        _row(
            "covering_2",
            "Covering, 2",
            "k-centre over modes, averages of 3 images",
            is_order=True,
            words="k-centre over directions from the mean, each averaged with its 2 nearest",
            source=f"{_K_CENTRE}; the averaging: {_OURS}",
        ),
        _row(
            "covering_4",
            "Covering, 4",
            "k-centre over modes, averages of 5 images",
            is_order=True,
            words="the same, averaged with the 4 nearest",
            source=f"{_K_CENTRE}; the averaging: {_OURS}",
        ),
        _row(
            "typiclust",
            "TypiClust",
            "one typical image a cluster, largest first",
            is_order=True,
            words="rounds over the clusters, the largest first; each round takes the image of each "
            "cluster with the smallest mean distance to its 20 nearest that is left",
            source=_TYPICLUST,
        ),
        _row(
            "rare_clusters",
            "Rare clusters",
            "one typical image a cluster, loneliest first",
            is_order=True,
            words="the same rounds, but the cluster first whose images have the largest mean "
            "distance to their 50 nearest",
            source=f"the rounds of TypiClust; the order: {_OURS}",
        ),
        _row(
            "mahalanobis",
            "Mahalanobis",
            "distance from the mean of unit rows, whitened",
            words="√((x - m)' S⁺ (x - m)) with the mean m and the covariance S of the unit rows, on "
            "the largest principal components",
            source="Mahalanobis, 1936",
        ),
        _row("loss", "Loss", "the last loss of each image", "losses"),
        _row(
            "loss_average",
            "Loss average",
            "moving average (.97) of the loss, as in BCL",
            "losses",
            words="moving average of the loss: .97 of the average so far, .03 of the new loss",
            source="BCL: Zhou et al., ICML 2022",
        ),
        _row(
            "colt",
            "COLT",
            "minus the moving average of the 10 hardest negatives' mass",
            "masses",
            words="minus the same average of the share of the softmax over negatives that the 10 "
            "hardest hold",
            source="COLT: Bai et al., ICLR 2023",
        ),
        _row(
            "disagreement_cosine",
            "Disagreement, cosine",
            "1 - cosine between dense and pruned projections",
            "projections",
            "competitor_projections",
            words="1 - cosine between the dense and the pruned branch's projections, mean over views",
            source=f"{_OURS}, after {_SDCLR}",
        ),
        _row(
            "disagreement_loss",
            "Disagreement, loss",
            "loss of the pruned less the dense branch",
            *_BRANCHES,
            words="loss of the pruned branch minus that of the dense one, mean over views",
            source=_SDCLR,
        ),
        _row(
            "disagreement_rank",
            "Disagreement, rank",
            "places lost when the branch is pruned",
            *_BRANCHES,
            words="places that the image moves up when images are sorted by the pruned instead of "
            "the dense branch's loss, in shares of N, mean over views",
            source=f"{_OURS}, after {_SDCLR}",
        ),
    ],
)
"""By name, in the order of every table."""

DEFAULT = "density"
"""The default degree of rarity; docs/rarebench.md gives the reasons."""

DEFAULT_ORDER = "covering_4"
"""The default order of a sheet; it shows more kinds early: docs/rarebench.md."""


def register_score(score: type) -> ScoreRow:
    """Add a score of your own, and return its row; it then appears in every list and table.

    ``score`` is a class with these attributes (docs/extending.md has an example):

    - ``name``: as on the command line and in files; ``display_name``: its heading in tables;
    - ``score(self, evidence)``: an :class:`~sdclr.evaluation.rarity.evidence.Evidence` -> one
      number for each image, higher = rarer.

    Optional are ``needs`` (``("features",)``), what it reads from the evidence, and ``is_order``. It
    is called without arguments, is deterministic, and changes nothing. Raises ConfigError naming what
    is missing.

    >>> class Length:
    ...     "Length of the feature vector."
    ...     name, display_name = "length", "Length"
    ...     def score(self, evidence):
    ...         return evidence.features.norm(dim=1)
    >>> with SCORES.temporarily():
    ...     row = register_score(Length)
    >>> row.needs, row.summary
    (('features',), 'Length of the feature vector.')
    """
    if problem := why_no_score(score):
        called = origin_of(score) if isinstance(score, type) else shown(repr(score)[:100])
        raise ConfigError(f"{called} is not a score: {problem}.")
    row = _row_of(score)
    SCORES.add(row)
    return row


def load_score(text: str) -> ScoreRow:
    """Import a score named ``module:Name`` on the command line, and register it."""
    return register_score(load_outside(text, "score", why_no_score))


def _row_of(score: Any) -> ScoreRow:
    summary = summary_of(score) or score.display_name
    needs = tuple(getattr(score, "needs", _FEATURES))
    is_order = bool(getattr(score, "is_order", False))

    def function(evidence: Evidence) -> Any:
        return score().score(evidence)

    return ScoreRow(
        score.name, score.display_name, summary, needs, function, is_order, origin_of(score)
    )


def why_no_score(score: Any) -> str:
    """Why an object is not a score, in words; empty if it is one."""
    from sdclr.evaluation.rarity.evidence import NEEDS

    if not isinstance(score, type):
        return f"it must be a class, got {type(score).__name__}"
    for text in ("name", "display_name"):
        if not isinstance(getattr(score, text, None), str):
            return f"it needs {text}, a text"
    if not callable(getattr(score, "score", None)):
        return "it has no score()"
    needs = getattr(score, "needs", _FEATURES)
    if not isinstance(needs, tuple | list) or set(needs) - set(NEEDS):
        return f"needs must be a tuple of {', '.join(NEEDS)}, got {needs!r}"
    return ""
