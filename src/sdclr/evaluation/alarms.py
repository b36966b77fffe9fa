"""Detect problems of a training from its measurements: a fixed list of causes, each with a remedy.

Uses measurements only, never settings: they are compared with closed forms, with the untrained
network and with the run's own first check. An alarm is a suspicion with a number; it stops nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sdclr.evaluation.health import collapsed_top1
from sdclr.safe_text import first_of


class Threshold(NamedTuple):
    """The limit at which an alarm is raised."""

    value: float
    reason: str


THRESHOLDS: Mapping[str, Threshold] = {
    "blank_views": Threshold(
        0.3, "share of views of one colour; photographs and digits have below 0.02"
    ),
    "crop_likeness": Threshold(
        0.95, "median correlation of crops of one picture; crops of their own have 0.3 to 0.7"
    ),
    "identical_views": Threshold(
        0.3, "share of images whose views differ by less than 0.01 a pixel; usual is below 0.02"
    ),
    "temperature_low": Threshold(
        0.02, "published ones are 0.05 to 1; below, one candidate decides"
    ),
    "temperature_high": Threshold(
        5.0, "above, the loss can leave log(2B - 1) by 2/5 at most, and gradients vanish"
    ),
    "change_low": Threshold(
        2e-5, "relative change of the weights in the first epoch; 0.002 to 10 with a usual rate"
    ),
    "steps": Threshold(3, "steps of an epoch: one or two may be those of a warm-up or of the end"),
    "change_high": Threshold(
        120.0,
        "the same, since the last check; batches of 8 at the usual rate have 10, of 3 have 100",
    ),
    "change_of_others": Threshold(
        1e-6,
        "below this the whole network rests, as at the end of a schedule, and no layer is judged",
    ),
    "change_with_masks": Threshold(
        1e-2,
        "weights that change more than this move some across the border, in small networks, too",
    ),
    "spread": Threshold(
        0.02, "share of the largest deviation 1/sqrt(D); untrained networks have 0.1 and more"
    ),
    "top1_of_chance": Threshold(
        3.0, "as multiples of 1/(2B - 1), which a collapsed network has exactly"
    ),
    "top1": Threshold(0.05, "the same where a sample is so small that chance is no small number"),
    "images_for_labels": Threshold(
        100,
        "in fewer images of a few classes good labels, too, are often within two deviations of chance",
    ),
    "knn_deviations": Threshold(
        2.0,
        "standard deviations above the same vote with labels in a random order; pixels alone have 4 to 40 on digits, "
        "CIFAR-10 and photographs of clothes",
    ),
}


@dataclass(frozen=True)
class Findings:
    """What is known of a run at one check."""

    values: Mapping[str, float]
    """Measured now, by the names in docs/health.md."""
    layers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Names of the layers counted by ``frozen``, ``constant`` and ``dead_norms``."""
    untrained: Mapping[str, float] = field(default_factory=dict)
    """The values of the network before training; empty if unknown."""
    first: Mapping[str, float] = field(default_factory=dict)
    """The values at the run's first check; empty at that check itself."""
    num_images: int = 256
    """B of the sample."""
    num_steps: int = 100
    """Steps since the last check."""
    is_last: bool = False
    """Whether the run ends here: its last steps are small."""

    def get(self, name: str, otherwise: float) -> float:
        return self.values.get(name, otherwise)


@dataclass(frozen=True)
class Alarm:
    """One suspicion."""

    cause: str
    """Key of :data:`CAUSES`."""
    words: str
    """What was measured, what is usual, what to do."""


class Cause(NamedTuple):
    """One entry of the list."""

    measured: Callable[[Findings], str | None]
    """What was measured and what is usual; None if there is no suspicion."""
    remedy: str
    explained_by: tuple[str, ...] = ()
    """Causes of which this one is a consequence: if one of them is reported, this one is not."""


def alarms(found: Findings) -> list[Alarm]:
    """The suspicions that a check raises, causes before consequences; empty for a healthy run.

    >>> alarms(Findings({"blank_views": 0.0, "temperature": 0.2}))
    []
    >>> (alarm,) = alarms(Findings({"blank_views": 0.75, "identical_views": 0.75}))
    >>> alarm.cause
    'blank_images'
    >>> print(alarm.words.split(";")[0])
    75% of the views show a single colour, usual are below 2%
    """
    raised: list[Alarm] = []
    named: set[str] = set()
    for name, cause in CAUSES.items():
        if named & set(cause.explained_by):
            continue
        if (measured := cause.measured(found)) is not None:
            named.add(name)
            raised.append(Alarm(name, f"{measured}; {cause.remedy} (docs/health.md, {name})."))
    return raised


def _limit(name: str) -> float:
    return THRESHOLDS[name].value


def _blank_images(found: Findings) -> str | None:
    share = found.get("blank_views", 0)
    if share <= _limit("blank_views"):
        return None
    return f"{share:.0%} of the views show a single colour, usual are below 2%"


def _one_crop(found: Findings) -> str | None:
    likeness = found.get("crop_likeness", 0)
    if likeness <= _limit("crop_likeness"):
        return None
    return (
        f"crops of one picture under different numbers correlate by {likeness:.2f}, usual is 0.3 to 0.7: "
        "all images are cut at one place"
    )


def _identical_views(found: Findings) -> str | None:
    share = found.get("identical_views", 0)
    if share <= _limit("identical_views"):
        return None
    return f"both views of an image are the same picture for {share:.0%} of the images, usual are below 2%"


def _constant_weights(found: Findings) -> str | None:
    return _layers(found, "constant", "hold one number in all their weights")


def _dead_norms(found: Findings) -> str | None:
    return _layers(
        found, "dead_norms", "give the same output for every image in half of their channels"
    )


def _frozen_layer(found: Findings) -> str | None:
    if found.get("weight_change", 0) <= _limit("change_of_others"):
        return None
    return _layers(
        found, "frozen", "have not changed by a bit since the last check while others have"
    )


def _layers(found: Findings, kind: str, words: str) -> str | None:
    names = found.layers.get(kind, ())
    if not names:
        return None
    return f"{len(names)} layers ({first_of(names, 3)}) {words}; usual are 0"


def _temperature(found: Findings) -> str | None:
    temperature = found.values.get("temperature")
    if temperature is None or _limit("temperature_low") <= temperature <= _limit(
        "temperature_high"
    ):
        return None
    at = f"temperature {temperature:.3g}" if temperature < 1000 else "a temperature above 1000"
    return f"the loss is NT-Xent at {at}, usual are 0.05 to 1"


def _learning_rate(found: Findings) -> str | None:
    change = found.values.get("weight_change")
    if change is None:
        return None
    if change > _limit("change_high"):
        return f"the weights have changed by {change:.3g} times their size, usual is below 10: steps are far too large"
    warmed_up = found.num_steps >= _limit("steps") and not found.is_last
    is_first = not found.first and bool(found.untrained)
    if is_first and warmed_up and change < _limit("change_low"):
        return (
            f"the weights have changed by {change:.2g} of their size in the first epoch, usual is 0.002 to 10: "
            "the network hardly learns"
        )
    return None


def _stale_masks(found: Findings) -> str | None:
    changed = found.values.get("masks_changed")
    # at the first check the masks are those of the untrained network
    if not found.first or changed != 0 or found.get("pruned", 0) == 0:
        return None
    change = found.get("weight_change", 0)
    if change <= _limit("change_with_masks"):
        return None
    return (
        f"no mask of the competitor has changed since the last check although the weights have, by {change:.2g} of "
        "their size; usual is a share of 0.001 and more"
    )


def _collapsed(found: Findings) -> str | None:
    top1, spread = found.get("top1", 1), found.get("spread", 1)
    chance = collapsed_top1(found.num_images)
    limit = min(_limit("top1_of_chance") * chance, _limit("top1"))
    if spread > _limit("spread") or top1 > limit:
        return None
    before = found.untrained.get("spread")
    was = "" if before is None else f", {before:.2f} before training"
    return (
        f"all images have nearly the same projection: spread {spread:.2g} of 1{was}, and views find their partner for "
        f"{top1:.2%}, by chance {chance:.2%}"
    )


def _labels(found: Findings) -> str | None:
    now, pixels = found.values.get("knn_deviations"), found.values.get("pixel_knn_deviations")
    if now is None or pixels is None or found.num_images < _limit("images_for_labels"):
        return None
    if max(now, pixels, found.untrained.get("knn_deviations", now)) >= _limit("knn_deviations"):
        return None
    chance = collapsed_top1(found.num_images)
    if found.get("top1", 0) <= _limit("top1_of_chance") * chance:
        return None  # poor features show nothing about labels
    return (
        f"neighbours guess the labels right for {found.get('knn', 0):.0%}, which is chance, by these features, by "
        "those before training and by pixels, although views find their partner; usual is that even "
        "pixels are far better than chance"
    )


_INPUT = ("blank_images", "one_crop", "identical_views")
_WEIGHTS = ("constant_weights", "dead_norms", "frozen_layer")

CAUSES: Mapping[str, Cause] = {
    "blank_images": Cause(
        _blank_images,
        "look at the images (sdclr pretrain --dry-run draws views), their files and how they are read",
    ),
    "one_crop": Cause(
        _one_crop,
        "look at views.area and at code of your own that cuts views: each image needs a crop of its own",
        ("blank_images",),
    ),
    "identical_views": Cause(
        _identical_views,
        "there is nothing to learn from them; look at the settings of views, and at code of your own that cuts them",
        ("blank_images",),
    ),
    "constant_weights": Cause(
        _constant_weights, "look at what initialises or overwrites these layers", ("blank_images",)
    ),
    "dead_norms": Cause(
        _dead_norms,
        "look at what sets their scale, at the weight decay of norms, and at what comes into them",
        ("blank_images", "constant_weights"),
    ),
    "temperature": Cause(_temperature, "set method.temperature to 0.1 or 0.2"),
    "learning_rate": Cause(
        _learning_rate,
        "look at optimizer.learning_rate, optimizer.warmup_epochs and optimizer.weight_decay",
        (*_INPUT, *_WEIGHTS[:2], "temperature"),
    ),
    "frozen_layer": Cause(
        _frozen_layer,
        "look for layers without a gradient (requires_grad, a detach), or that no image passes through",
        ("constant_weights", "learning_rate"),
    ),
    "stale_masks": Cause(
        _stale_masks,
        "refresh them in on_epoch_start: the competitor is to be the latest self",
        ("learning_rate", *_WEIGHTS),
    ),
    "collapsed": Cause(
        _collapsed,
        "lower optimizer.learning_rate or optimizer.weight_decay, and look at the projector's norms",
        (*_INPUT, *_WEIGHTS, "temperature", "learning_rate"),
    ),
    "labels": Cause(
        _labels,
        "check that labels and images are of one set and in one order; training does not use labels, evaluation does",
        (*_INPUT, *_WEIGHTS, "collapsed"),
    ),
}
"""Name -> row; causes before their consequences."""
