"""Did pre-training pay off? A run's probes compared with those of the alternatives to it, paired image by image.

N test images. RUN/against.json records the answer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sdclr.backbones import BackboneConfig, build_backbone
from sdclr.backbones.encoder import LIBRARIES, open_encoder
from sdclr.backbones.weights import load_backbone, read_backbone
from sdclr.compute.process_state import default_generators
from sdclr.compute.stateless_random import Stream, derive
from sdclr.config import user_path
from sdclr.data import Data
from sdclr.data.grouping import group_images
from sdclr.errors import ConfigError, DataError, NoLabelsError
from sdclr.evaluation.balancedness import OF_DATA, class_groups
from sdclr.evaluation.features import Labels
from sdclr.evaluation.paired import Floats, PairedDifference, paired_difference
from sdclr.evaluation.probe import no_progress
from sdclr.evaluation.probes import ProbeRow, Protocol
from sdclr.evaluation.rarity import nearest_in, perceptual_hashes
from sdclr.evaluation.rarity.duplicates import differing_bits
from sdclr.evaluation.rivals import Colours, Pixels
from sdclr.jobs.evaluate.against_unlabelled import Unlabelled, compare_without_labels
from sdclr.jobs.evaluate.choices import Untested, check_untested, chosen_probes
from sdclr.jobs.evaluate.cross_validation import CrossValidation, cross_validated_rows
from sdclr.jobs.evaluate.frozen_features import FrozenFeatures
from sdclr.jobs.evaluate.images import Evaluated, evaluated_data, usable
from sdclr.jobs.evaluate.job import placed
from sdclr.jobs.evaluate.measurement import Measurement
from sdclr.jobs.evaluate.record import measured_on
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.run import Run
from sdclr.run.files import AGAINST_FILE
from sdclr.safe_text import shown
from sdclr.settings import PretrainConfig

WAYS, WAYS_OF_FEW = 5, 10
"""Ways to deal out the folds where there is no test set: probes on a test set have no seed of their own. A few-shot
probe, whose images are drawn anew each time, has more of them (unless images are grouped)."""
LEAK_BITS = 2
"""Of the 64 bits of the perceptual hashes: a test image this close to its nearest training image is nearly the same
picture."""
OURS = "this run"
PROTOCOL: Protocol = "cached"


@dataclass(frozen=True)
class Against:
    """One probe on one rival, compared with the same probe on the run."""

    probe: str
    rival: str
    ours: float
    """Accuracy, mean over the classes, in [0, 1]."""
    theirs: float
    all: PairedDifference
    few: PairedDifference | None
    """Over the few classes only; None if none of them is tested."""
    num_tested: int
    num_few_tested: int
    """Tested images of the few classes."""
    num_ways: int = 1
    """Ways to deal the folds over which the accuracies are averaged; 1 with a test set."""

    def sentence(self) -> str:
        """The verdict on this pair."""
        effect = {
            "better": f"pre-training paid off against {self.rival}",
            "worse": f"{self.rival} would have been better than pre-training",
            "open": f"no difference to {self.rival} is shown",
        }[self.all.verdict]
        d = [100 * value for value in self.all]
        return (
            f"{self.probe}: {effect}: {100 * self.ours:.1f} % and {100 * self.theirs:.1f} %, {d[0]:+.1f} points "
            f"[{d[1]:+.1f}, {d[2]:+.1f}], n = {self.num_tested} images"
            + (f", {self.num_ways} ways to deal the folds." if self.num_ways > 1 else ".")
        )

    def to_dict(self) -> dict[str, Any]:
        """For RUN/against.json."""
        few = None if self.few is None else self.few._asdict()
        return {**asdict(self), "all": self.all._asdict(), "few": few, "verdict": self.all.verdict}


@dataclass(frozen=True)
class Comparison:
    """All rivals and probes."""

    pairs: list[Against]
    num_leaks: int | None
    """Test images that are nearly identical to a training image; None without a test set."""
    leaks: list[str]
    """The names of the first few."""
    num_groups: int | None = None
    """Groups among the tested images, which are resampled whole; None if images are not grouped."""
    unlabelled: Unlabelled | None = None
    """The comparison without labels, if there are none."""

    def sentences(self) -> list[str]:
        """One for each probe and rival; without labels, what is known regardless."""
        if self.unlabelled is not None:
            return self.unlabelled.sentences()
        return [pair.sentence() for pair in self.pairs]

    def verdict(self) -> str:
        """One sentence per rival, by the first probe."""
        if self.unlabelled is not None:
            return " ".join(self.unlabelled.sentences())
        first = [pair for pair in self.pairs if pair.probe == self.pairs[0].probe]
        return " ".join(pair.sentence() for pair in first)

    def to_dict(self) -> dict[str, Any]:
        """For RUN/against.json."""
        if self.unlabelled is not None:
            return self.unlabelled.to_dict()
        pairs = [pair.to_dict() for pair in self.pairs]
        leaks = {"num_leaks": self.num_leaks, "leaks": self.leaks}
        return {
            "pairs": pairs,
            **leaks,
            "num_groups": self.num_groups,
            "verdict": self.verdict(),
        }


def compare(
    run: Run | Path | str,
    against: Sequence[str],
    *,
    probes: Sequence[str] | None = None,
    labels: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    untested: Untested | None = None,
    progress: AnyProgress | None = None,
) -> Comparison:
    """Measure a run and its rivals with the same probes on the same images; write RUN/against.json.

    ``against``: untrained (the run's network as it started, or would have), pixels (the image reduced to 8 x 8),
    colours (a histogram), imagenet (the run's network with ImageNet weights, downloaded once), timm:NAME or
    torchvision:NAME likewise, or a run folder or file of weights. ``probes``, ``labels``, ``settings`` and ``untested``
    are those of :func:`evaluate`, protocol ``cached``. Intervals are paired: they cover the variation from other
    images (other groups if data.group_by forms any) and, without a test set, from other ways to deal the folds, the
    same for both sides; they do not cover the variation between training runs.
    Without any labels ``pairs`` is empty, ``unlabelled`` has what can be measured, and RUN/to_label.csv lists images
    whose labels would give the answer. Raises ConfigError for an unknown rival.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> found = sdclr.compare(run, ["untrained", "pixels"], probes=["knn"])
    >>> [pair.rival for pair in found.pairs]
    ['untrained', 'pixels']
    """
    run = (run if isinstance(run, Run) else Run(run)).require()
    show = progress or NoProgress()
    rows = chosen_probes(probes, PROTOCOL, run)
    if not against:
        raise ConfigError(f"--against needs a rival: {', '.join(PLAIN)}, timm:NAME, or a FILE.")
    check_rivals(against)
    later = labels is not None or "data.labels" in (settings or {})
    rule = check_untested(untested or ("leave_out" if later else "raise"))
    with run:
        try:
            found = evaluated_data(
                run, dict(settings or {}), None if labels is None else user_path(str(labels))
            )
        except NoLabelsError:
            if probes is not None:  # they cannot be measured
                raise
            comparison = _without_labels(run, against, settings or {}, device, show)
            identity = {"backbone": run.backbone_identity()}
        else:
            if found.data.test is None:
                rows = cross_validated_rows(rows, PROTOCOL, named=probes is not None)
            comparison = _with_labels(run, against, found, rows, rule, device, show)
            identity = measured_on(run, found)
        if comparison.unlabelled is not None and _has_answer(run):
            warnings.warn(
                f"{shown(run.folder)} was compared with labels before, and that answer stays in {AGAINST_FILE}; with "
                "--labels FILE the rivals are measured on them again.",
                stacklevel=2,
            )
        else:
            run.write_json(AGAINST_FILE, identity | comparison.to_dict())
    return comparison


def _has_answer(run: Run) -> bool:
    """Whether rivals were measured with labels on the current weights."""
    content = run.read_side_file(AGAINST_FILE, optional=True)
    return bool(content.get("pairs")) and content.get("backbone") == run.backbone_identity()


def _without_labels(
    run: Run, against: Sequence[str], settings: Mapping[str, Any], device: str, show: AnyProgress
) -> Comparison:
    config = PretrainConfig.from_yaml(run.config_path, foreign=True).with_values(settings)
    return Comparison(
        [],
        None,
        [],
        unlabelled=compare_without_labels(
            run, config, _networks(run, against, config), device, show
        ),
    )


def _with_labels(
    run: Run,
    against: Sequence[str],
    found: Evaluated,
    rows: Sequence[ProbeRow],
    rule: Untested,
    device: str,
    show: AnyProgress,
) -> Comparison:
    data = usable(run, found.config, found.data, show)
    measured: dict[str, dict[str, _Right]] = {}
    leaks: list[str] = []
    group_by = found.config.data.group_by
    for name, (network, size) in _networks(run, against, found.config).items():
        precision = found.config.precision if name == OURS else "fp32"
        frozen = FrozenFeatures(placed(network, device), data, size, show, precision)
        measured[name] = _measured(frozen, rows, PROTOCOL, rule, found.config.data.split, group_by)
        if name == OURS and data.test is not None:
            leaks = _leaks(frozen)
    groups = next(iter(measured[OURS].values())).groups
    return Comparison(
        _pairs(measured, rows, data),
        None if data.test is None else len(leaks),
        leaks[:5],
        None if groups is None else len(np.unique(groups)),
    )


def _networks(run: Run, against: Sequence[str], config: PretrainConfig) -> dict[str, _Rival]:
    """The run's own and its rivals' networks; all are loaded before any work."""
    rivals = {name: _rival(name, run, config) for name in against}
    return {OURS: (load_backbone(run.folder), config.views.size), **rivals}


@dataclass(frozen=True)
class _Right:
    """Which tested images were classified correctly, 1 or 0, [S, N]: S ways to deal the folds, or one test."""

    labels: Labels
    right: Floats
    groups: Labels | None
    """The group of each tested image; None if images are not grouped."""


def _measured(
    frozen: FrozenFeatures,
    rows: Sequence[ProbeRow],
    protocol: Protocol,
    rule: Untested,
    seed: int,
    group_by: str | None,
) -> dict[str, _Right]:
    measures: list[Measurement | CrossValidation]
    groups: Labels | None
    if (test := frozen.data.test) is not None:
        measures = [Measurement(frozen, rule)]
        groups = None if group_by is None else group_images(test, group_by).of_image
        tested = frozen.labels("test")
    else:
        # a class that falls into a single fold in one way is left out of all: with groups, more ways would lose more
        num_ways = WAYS_OF_FEW if group_by is None else WAYS
        folds = [
            CrossValidation(frozen, rule, seed=seed + n, progress=no_progress)
            for n in range(num_ways)
        ]
        measures, groups, tested = [*folds], folds[0].tested_groups(), folds[0].tested_labels()
    # with folds: each seed may put another class into a single fold
    lost = {c for one in measures for c in one.untested}
    if groups is not None:
        groups = groups[~np.isin(tested, list(lost))]
    found = {}
    for row in rows:
        right = []
        ways = measures[: WAYS_OF_FEW if row.subset == "few_shot" else WAYS]
        # a single test shows its own progress
        progress = frozen.progress if len(ways) > 1 else no_progress
        with progress(f"cross-validation ({row.name})", len(ways), "ways") as advance:
            for measure in ways:
                labels, guess = measure.predictions(protocol, row)
                kept = ~np.isin(labels, list(lost))
                labels = labels[kept]
                right.append(guess[kept] == labels)
                advance(1)
        found[row.name] = _Right(labels, np.array(right, dtype=np.float64), groups)
    return found


def _pairs(
    measured: Mapping[str, Mapping[str, _Right]], rows: Sequence[ProbeRow], data: Data
) -> list[Against]:
    assert data.split is not None
    assert data.train.labels is not None
    counts = data.split.counts("long_tail", data.train.labels, len(data.class_names))
    few = class_groups(counts, OF_DATA[data.conventions])["few"]
    pairs = []
    for row in rows:
        ours = measured[OURS][row.name]
        for rival, theirs in measured.items():
            if rival == OURS:
                continue
            other, labels = theirs[row.name].right, ours.labels
            num_few = int(np.isin(labels, few).sum())
            few_difference = None
            if num_few:
                few_difference = paired_difference(
                    ours.right, other, labels, few, groups=ours.groups
                )
            pairs.append(
                Against(
                    row.name,
                    rival,
                    _mean_over_classes(ours.right, labels),
                    _mean_over_classes(other, labels),
                    paired_difference(ours.right, other, labels, groups=ours.groups),
                    few_difference,
                    len(labels),
                    num_few,
                    len(other),
                )
            )
    return pairs


def _mean_over_classes(right: Floats, labels: Labels) -> float:
    return float(np.mean([right[:, labels == c].mean() for c in np.unique(labels)]))


_Rival = tuple[nn.Module, int]
"""A network and the side of its input images, in pixels."""


def check_rivals(names: Sequence[str]) -> None:
    """Raise ConfigError for an unknown rival."""
    for name in names:
        _require_known(name)


def _require_known(name: str) -> None:
    if name not in PLAIN and not name.startswith(LIBRARIES) and not user_path(name).exists():
        raise ConfigError(
            f"there is no rival {shown(name)}: {', '.join(PLAIN)}, timm:NAME, torchvision:NAME, or a run folder or "
            "file of weights that exists."
        )


def _rival(name: str, run: Run, config: PretrainConfig) -> _Rival:
    if name == "colours" and config.data.channels != 3:
        raise ConfigError(
            f"the rival colours counts red, green and blue, and the images of {shown(run.folder)} have "
            f"{config.data.channels} channels. Use pixels or untrained."
        )
    if name in PLAIN:
        return PLAIN[name](run, config)
    encoder = open_encoder(name if name.startswith(LIBRARIES) else user_path(name))
    return encoder.backbone, encoder.image_size


def _untrained(run: Run, config: PretrainConfig) -> _Rival:
    """The run's own network with fresh weights, from the run's seed."""
    architecture = read_backbone(run.folder).described.architecture
    if architecture.name == "custom":
        raise ConfigError(
            "untrained is not known for a network of your own, whose first weights are yours; give a file of them."
        )
    fresh = architecture.model_copy(update={"pretrained": False})
    with default_generators(derive(config.seed, Stream.WEIGHTS), torch.device("cpu")):
        return build_backbone(fresh, config.data.channels), config.views.size


def _imagenet(run: Run, config: PretrainConfig) -> _Rival:
    architecture: BackboneConfig = read_backbone(run.folder).described.architecture
    if not architecture.name.startswith(LIBRARIES):
        raise ConfigError(
            f"there are no ImageNet weights for {architecture.name} in this form; name a network: --against "
            "timm:resnet18."
        )
    encoder = open_encoder(architecture.name)
    return encoder.backbone, encoder.image_size


PLAIN: Mapping[str, Callable[[Run, PretrainConfig], _Rival]] = {
    "untrained": _untrained,
    "pixels": lambda run, config: (Pixels(), config.views.size),
    "colours": lambda run, config: (Colours(), config.views.size),
    "imagenet": _imagenet,
}
"""Rivals with a name of their own."""


def _leaks(frozen: FrozenFeatures) -> list[str]:
    """Names of test images that are nearly identical to their nearest training image."""
    if len(frozen.images("train")) < 2:
        raise DataError("a leak check needs at least 2 training images.")
    near = nearest_in(frozen.features("train").float(), frozen.features("test").float(), 1)
    learned, tested = (perceptual_hashes(_each(frozen, part)) for part in ("train", "test"))
    bits = differing_bits(learned[near.indices[:, 0].numpy()], tested)
    names = frozen.images("test").names
    return [str(names[row]) for row in np.flatnonzero(bits <= LEAK_BITS).tolist()]


def _each(frozen: FrozenFeatures, part: str) -> Iterator[torch.Tensor]:
    for batch in frozen.images(part).stills(frozen.size):
        yield from batch
