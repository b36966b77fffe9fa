"""The probes by name. A new one is one file and one row here; every list and table reads it.

A row is light: reading this table imports no torch. The class behind a row is imported when the
probe is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

from sdclr.errors import ConfigError
from sdclr.outside import Table, load, load_outside, origin_of, summary_of

if TYPE_CHECKING:
    from sdclr.evaluation.probe import Probe
    from sdclr.evaluation.probe_settings import ProbeConfig

Protocol = Literal["cached", "sdclr", "bcl", "ts"]
"""How an evaluation is done. Numbers of two protocols never share a table."""
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
PROTOCOL_SUMMARIES: Mapping[Protocol, str] = {
    "cached": "seconds, for development",
    "sdclr": "the paper's: SGD on random crops",
    "bcl": "as BCL's authors evaluate: Adam on fixed features, with all labels and few",
    "ts": "as TS's authors do: nearest neighbours and linear SVMs of the long-tailed images",
}
"""A short description of each, for help and documentation."""
Subset = Literal["train", "few_shot", "long_tail"]
SUBSETS: tuple[Subset, ...] = get_args(Subset)
Need = Literal["features", "crops"]
NEEDS: tuple[Need, ...] = get_args(Need)


class Fitter(NamedTuple):
    """How a probe is fitted under one protocol."""

    probe: Any
    """The class, or "module:Class" of it."""
    config: Any
    """The class of its settings, or "module:Class" of it."""
    needs: Need = "features"
    """What it is fitted on: features extracted once, or random crops passed through the network."""
    requires_validation: bool = False
    """Whether it cannot be fitted without validation images."""


class ProbeRow(NamedTuple):
    """A row of the table: all that the rest of the program needs to know of a probe."""

    name: str
    display_name: str
    """Its heading in every table."""
    summary: str
    """What it is, in one line."""
    fitters: Mapping[str, Fitter]
    """By protocol; a probe need not have all of them."""
    subset: Subset = "train"
    """The training images that it learns from."""
    shots: int | None = None
    """Labelled images of each class, drawn from the subset; None: all of it."""
    published: bool = False
    """Whether the paper reports it."""
    origin: str = ""
    """ "module:Name" of a probe from outside the package."""

    def build(self, protocol: str) -> tuple[Probe, ProbeConfig]:
        """An unfitted probe and the settings it was built with."""
        self.require(protocol)
        fitter = self.fitters[protocol]
        probe, config = load(fitter.probe), load(fitter.config)
        settings = config()
        return probe(settings), settings

    def settings(self, protocol: str) -> dict[str, Any]:
        """The settings it is built with, as plain values."""
        values: dict[str, Any] = load(self.fitters[protocol].config)().to_dict()
        return values

    def completed_settings(self, recorded: Mapping[str, Any], protocol: str) -> dict[str, Any]:
        """Settings recorded by an earlier version, with the defaults of newer ones added; unchanged if that fails."""
        if protocol not in self.fitters:
            return dict(recorded)
        try:
            values: dict[str, Any] = load(self.fitters[protocol].config).parse(recorded).to_dict()
        except (ConfigError, TypeError, ValueError):
            return dict(recorded)
        return values

    def has_measured(self, recorded: Mapping[str, Any], protocol: str) -> bool:
        """Whether a recorded result was produced by this probe with these settings.

        Values that an earlier version did not record are assumed to be the same.
        """
        if recorded.get("display_name") is None:
            return True
        same_origin = (recorded.get("origin") or "") == self.origin
        return same_origin and (recorded.get("settings") or {}) == self.settings(protocol)

    def require(self, protocol: str) -> None:
        """Raise ConfigError if the probe is not defined under this protocol."""
        if protocol not in self.fitters:
            raise ConfigError(
                f"probe {self.name} is not defined under protocol {protocol}, only under {', '.join(self.fitters)}."
            )


_LOGISTIC = Fitter(
    "sdclr.evaluation.cached_probes:LogisticOnFeatures",
    "sdclr.evaluation.probe_settings:LogisticConfig",
)
_SGD = Fitter(
    "sdclr.evaluation.sgd_probes:LinearOnCrops",
    "sdclr.evaluation.probe_settings:ProbeConfig",
    "crops",
    requires_validation=True,
)
_KNN = Fitter(
    "sdclr.evaluation.cached_probes:NearestNeighbours",
    "sdclr.evaluation.probe_settings:NeighboursConfig",
)

_ADAM = Fitter(
    "sdclr.evaluation.adam_probe:LinearByAdam",
    "sdclr.evaluation.probe_settings:AdamConfig",
)
_SVM = Fitter(
    "sdclr.evaluation.svm_probe:LinearSVM",
    "sdclr.evaluation.probe_settings:SVMConfig",
)

PROBES: Table[ProbeRow] = Table(
    "probe",
    [
        ProbeRow(
            "linear",
            "Linear probe",
            "a linear classifier fitted on all labelled training images",
            {"cached": _LOGISTIC, "sdclr": _SGD, "bcl": _ADAM},
            published=True,
        ),
        ProbeRow(
            "few_shot",
            "Few-shot probe",
            "the same on a small balanced subset of them",
            {"cached": _LOGISTIC, "sdclr": _SGD},
            subset="few_shot",
            published=True,
        ),
        ProbeRow(
            "knn",
            "k-nearest neighbours",
            "a vote of the nearest training images, nothing is fitted",
            {"cached": _KNN, "sdclr": _KNN},
        ),
        ProbeRow(
            "shot_100",
            "100-shot linear probe",
            "the linear probe of bcl on 100 labelled images of each class",
            {"bcl": _ADAM},
            shots=100,
        ),
        ProbeRow(
            "shot_50",
            "50-shot linear probe",
            "the same on 50",
            {"bcl": _ADAM},
            shots=50,
        ),
        ProbeRow(
            "knn_1",
            "kNN@1",
            "the class of the nearest image of the long-tailed set",
            {
                "ts": Fitter(
                    "sdclr.evaluation.cached_probes:EqualNeighbours",
                    "sdclr.evaluation.probe_settings:NearestConfig",
                )
            },
            subset="long_tail",
        ),
        ProbeRow(
            "knn_10",
            "kNN@10",
            "the class of most of its 10 nearest images, each with one vote",
            {
                "ts": Fitter(
                    "sdclr.evaluation.cached_probes:EqualNeighbours",
                    "sdclr.evaluation.probe_settings:EqualNeighboursConfig",
                )
            },
            subset="long_tail",
        ),
        ProbeRow(
            "few_shot_svm",
            "Few-shot linear SVM",
            "a linear SVM fitted on the small balanced subset",
            {"ts": _SVM},
            subset="few_shot",
        ),
        ProbeRow(
            "long_tail_svm",
            "Long-tail linear SVM",
            "a linear SVM fitted on the whole long-tailed set",
            {"ts": _SVM},
            subset="long_tail",
        ),
    ],
)
"""By name, in the order of every table."""


def published_probes(protocol: str | None = None) -> tuple[str, ...]:
    """The probes of the paper's tables; with ``protocol``, only those defined under it."""
    return tuple(
        row.name
        for row in PROBES.values()
        if row.published and (protocol is None or protocol in row.fitters)
    )


def probes_under(protocol: str) -> tuple[str, ...]:
    """All probes that are defined under this protocol, in the order of every table."""
    return tuple(row.name for row in PROBES.values() if protocol in row.fitters)


def few_label_probe(protocol: str) -> ProbeRow:
    """The probe with which a protocol measures few labels: its few-shot probe, or its linear probe on few images."""
    ours = [row for row in PROBES.values() if not row.origin and protocol in row.fitters]
    for row in ours:
        if row.subset == "few_shot":
            return row
    return next(row for row in ours if row.name == "linear")._replace(subset="few_shot")


def protocols_help() -> str:
    """Every protocol and its description, in one line."""
    return "; ".join(f"{name}, {summary}" for name, summary in PROTOCOL_SUMMARIES.items())


def register_probe(probe: type) -> ProbeRow:
    """Add a probe of your own, and return its row; it then appears in every table and report.

    ``probe`` is a class with these attributes (docs/extending.md has an example):

    - ``name``: as in ``--probes`` and in files; ``display_name``: its heading in tables;
    - ``fit(self, task)``: learn from a :class:`~sdclr.evaluation.probe.ProbeTask`;
    - ``predict(self, features)``: features [N, F] -> the class of each image, whole numbers [N].

    Optional are ``detail`` (a text: what was chosen while fitting), ``subset`` ("train", "few_shot" or
    "long_tail"), ``protocols`` (``("cached",)``), ``needs`` ("features" or "crops") and ``Config``,
    a subclass of :class:`~sdclr.evaluation.probe.ProbeConfig`; with it the class is called with
    its settings, otherwise without arguments. A probe is deterministic, and changes neither the features
    nor the network. Raises ConfigError naming what is missing.

    >>> class Majority:
    ...     "Predicts the most frequent class, whatever the features are."
    ...     name = "majority"
    ...     display_name = "Majority class"
    ...     def fit(self, task):
    ...         self.best = task.labels[0]
    ...     def predict(self, features):
    ...         return [self.best] * len(features)
    >>> with PROBES.temporarily():
    ...     row = register_probe(Majority)
    >>> row.summary
    'Predicts the most frequent class, whatever the features are.'
    """
    if problem := why_no_probe(probe):
        raise ConfigError(f"{_called(probe)} is not a probe: {problem}.")
    row = _row(probe)
    PROBES.add(row)
    return row


def load_probe(text: str) -> ProbeRow:
    """Import a probe named ``module:Name`` on the command line, and register it."""
    return register_probe(load_outside(text, "probe", why_no_probe))


def _row(probe: Any) -> ProbeRow:
    from sdclr.evaluation.probe_settings import ProbeConfig

    config = getattr(probe, "Config", ProbeConfig)
    built = probe if hasattr(probe, "Config") else _WithoutSettings(probe)
    fitter = Fitter(built, config, getattr(probe, "needs", "features"))
    return ProbeRow(
        probe.name,
        probe.display_name,
        summary_of(probe) or probe.display_name,
        MappingProxyType(dict.fromkeys(getattr(probe, "protocols", ("cached",)), fitter)),
        subset=getattr(probe, "subset", "train"),
        origin=origin_of(probe),
    )


class _WithoutSettings:
    """Builds a probe that has no settings."""

    def __init__(self, probe: type) -> None:
        self.probe = probe

    def __call__(self, _: ProbeConfig) -> Probe:
        return cast("Probe", self.probe())


def _called(probe: object) -> str:
    return origin_of(probe) if isinstance(probe, type) else repr(probe)[:100]


def why_no_probe(probe: Any) -> str:
    """Why an object is not a probe, in words; empty if it is one."""
    if not isinstance(probe, type):
        return f"it must be a class, got {type(probe).__name__}"
    for text in ("name", "display_name"):
        if not isinstance(getattr(probe, text, None), str):
            return f"it needs {text}, a text"
    for method in ("fit", "predict"):
        if not callable(getattr(probe, method, None)):
            return f"it has no {method}()"
    return _wrong_choice(probe)


def _wrong_choice(probe: Any) -> str:
    from sdclr.evaluation.probe_settings import ProbeConfig

    protocols = getattr(probe, "protocols", ("cached",))
    if not isinstance(protocols, tuple | list) or not protocols or set(protocols) - set(PROTOCOLS):
        return f"protocols must be a tuple of some of {', '.join(PROTOCOLS)}, got {protocols!r}"
    for name, choices in (("subset", SUBSETS), ("needs", NEEDS)):
        if (value := getattr(probe, name, choices[0])) not in choices:
            return f"{name} must be one of {', '.join(choices)}, got {value!r}"
    config = getattr(probe, "Config", ProbeConfig)
    if not isinstance(config, type) or not issubclass(config, ProbeConfig):
        return "Config must be a subclass of ProbeConfig"
    try:
        config.parse({})
    except ConfigError as error:
        return f"every field of Config needs a default: {str(error).removesuffix('.')}"
    return ""
