"""METHODS: everything the rest of the program needs to know about a method, by its name in settings.

A row is light: help, lists and reports import no torch. Adding a method to the package is one file and one row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

from sdclr.config import OneOf
from sdclr.errors import ConfigError
from sdclr.methods.config import (
    BCLDConfig,
    BCLIConfig,
    ClusterBalancedConfig,
    FocalConfig,
    ForeignMethodConfig,
    GHConfig,
    LoTaRConfig,
    MethodConfig,
    MoCoConfig,
    SDCLRConfig,
    SimCLRConfig,
    TemperatureScheduleConfig,
    VICRegConfig,
)
from sdclr.outside import Table, is_outside, load_outside, origin_of, summary_of
from sdclr.safe_text import shown


class MethodRow(NamedTuple):
    """One method."""

    name: str
    display_name: str
    """Its name in tables and papers."""
    summary: str
    """One line for lists: what it does, who published it."""
    config: type[MethodConfig]
    method: Any
    """The :class:`~sdclr.methods.Method`, or "module:Class" of it, imported when a run is built."""
    origin: str = ""
    """ "module:Name" of an entry from outside the package; empty for one of ours."""


METHODS: Table[MethodRow] = Table(
    "method",
    [
        MethodRow(
            "simclr",
            "SimCLR",
            "One network sees both views (Chen et al., ICML 2020): the baseline.",
            SimCLRConfig,
            "sdclr.methods.simclr:SimCLR",
        ),
        MethodRow(
            "sdclr",
            "SDCLR",
            "A network contrasted with its own pruned self (Jiang et al., ICML 2021).",
            SDCLRConfig,
            "sdclr.methods.sdclr:SDCLR",
        ),
        MethodRow(
            "focal",
            "Focal NT-Xent",
            "SimCLR with the weight (1 - p)^gamma on every anchor: a control for mere re-weighting.",
            FocalConfig,
            "sdclr.methods.focal:FocalNTXent",
        ),
        MethodRow(
            "temperature_schedule",
            "TS",
            "SimCLR with a temperature that follows a cosine of the epoch (Kukleva et al., ICLR 2023).",
            TemperatureScheduleConfig,
            "sdclr.methods.temperature_schedule:TemperatureSchedule",
        ),
        MethodRow(
            "lotar",
            "LoTaR",
            "SimCLR with a weight by the distance of an image's two projections: a control for mere "
            "re-weighting.",
            LoTaRConfig,
            "sdclr.methods.lotar:LoTaR",
        ),
        MethodRow(
            "moco",
            "MoCo v2",
            "A momentum copy gives keys, a queue of them the negatives (Chen et al., 2020).",
            MoCoConfig,
            "sdclr.methods.moco:MoCo",
        ),
        MethodRow(
            "vicreg",
            "VICReg",
            "No negatives: variances stay, covariances vanish (Bardes et al., ICLR 2022).",
            VICRegConfig,
            "sdclr.methods.vicreg:VICReg",
        ),
        MethodRow(
            "bcl_i",
            "BCL-I",
            "SimCLR with stronger augmentation for images of a high loss (Zhou et al., ICML 2022).",
            BCLIConfig,
            "sdclr.methods.bcl:BCLI",
        ),
        MethodRow(
            "bcl_d",
            "BCL-D",
            "SDCLR with stronger augmentation for images of a high loss (Zhou et al., ICML 2022).",
            BCLDConfig,
            "sdclr.methods.bcl:BCLD",
        ),
        MethodRow(
            "gh",
            "GH",
            "Any contrastive method and soft labels of fixed, balanced directions (Zhou et al., NeurIPS "
            "2023).",
            GHConfig,
            "sdclr.methods.gh:GH",
        ),
        MethodRow(
            "cluster_balanced",
            "Cluster-balanced",
            "Any contrastive method on images drawn so that clusters come equally often (after Vo et al., "
            "2024).",
            ClusterBalancedConfig,
            "sdclr.methods.cluster_balanced:ClusterBalanced",
        ),
    ],
)
"""Name -> row."""

SECTION = OneOf("method", METHODS, ForeignMethodConfig)
"""The annotation of a settings field that contains one method's settings."""


def register_method(method: type[Any]) -> str:
    """Add a method of your own to :data:`METHODS`; return its name.

    ``method``: a subclass of :class:`~sdclr.methods.Method` with two class attributes: ``config``, its settings
    (a subclass of :class:`MethodConfig` whose ``name`` has a Literal type and a default), and ``display_name``. Raises
    ConfigError if one is missing, and for a name that is taken. See docs/extending.md.

    >>> from typing import Literal
    >>> from sdclr.methods.simclr import SimCLR
    >>> class CalmConfig(SimCLRConfig):
    ...     name: Literal["calm"] = "calm"
    ...     temperature: float = 0.5
    >>> class Calm(SimCLR):
    ...     "SimCLR at a high temperature."
    ...     config, display_name = CalmConfig, "Calm SimCLR"
    >>> with METHODS.temporarily():
    ...     register_method(Calm)
    'calm'
    """
    if problem := why_no_method(method):
        raise ConfigError(f"{shown(repr(method))} cannot be a method: {problem}.")
    config: type[MethodConfig] = method.config
    name = str(config.model_fields["name"].default)
    row = MethodRow(
        name, method.display_name, summary_of(method), config, method, origin_of(method)
    )
    METHODS.add(row)
    return name


def display_name(name: str, recorded: object = None) -> str:
    """A method's name in tables; for one that is not in METHODS, the name its run has ``recorded``, or its own."""
    if name in METHODS:
        return METHODS[name].display_name
    return recorded if isinstance(recorded, str) else name


def method_title(settings: Mapping[str, Any], recorded: object = None) -> str:
    """The name in tables of the method of flattened settings, including the methods it wraps.

    ``recorded``: the title that its run has recorded, for a method that is not in METHODS.

    >>> method_title({"method.name": "gh", "method.base.name": "sdclr"})
    'GH on SDCLR'
    """
    names, key = [], "method.name"
    while key in settings:
        names.append(str(settings[key]))
        key = key.removesuffix("name") + "base.name"
    if isinstance(recorded, str) and any(name not in METHODS for name in names):
        return recorded
    return " on ".join(map(display_name, names))


def competitor_settings(settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The settings of the method, or of one it wraps, that has a competitor; None if none has.

    ``settings``: those of a run, nested.

    >>> competitor_settings({"method": {"name": "gh", "base": {"name": "sdclr", "prune_ratio": 0.9}}})["prune_ratio"]
    0.9
    """
    method: Any = settings.get("method")
    while isinstance(method, Mapping):
        if method.get("prune_ratio") is not None:
            return method
        method = method.get("base")
    return None


def method_names(config: MethodConfig) -> dict[str, str]:
    """Setting -> name of a method and of those it wraps.

    >>> method_names(METHODS["gh"].config())
    {'method.name': 'gh', 'method.base.name': 'simclr'}
    """
    names: dict[str, str] = {}
    key = "method.name"
    current: MethodConfig | None = config
    while current is not None:
        names[key] = current.name
        key, current = key.removesuffix("name") + "base.name", getattr(current, "base", None)
    return names


def why_no_method(found: Any) -> str:
    """Why an object cannot be registered as a method, in words; empty if it can."""
    from sdclr.methods.method import Method

    if not (isinstance(found, type) and issubclass(found, Method)):
        return "it is not a subclass of sdclr.Method"
    config = getattr(found, "config", None)
    if not (isinstance(config, type) and issubclass(config, MethodConfig)):
        return "its class attribute config must be a subclass of sdclr.MethodConfig"
    names = get_args(config.model_fields["name"].annotation)
    if len(names) != 1 or config.model_fields["name"].default != names[0]:
        return f"{config.__name__} must say name: Literal['...'] = '...', the method's name in settings"
    if not isinstance(getattr(found, "display_name", None), str) or not found.display_name:
        return "its class attribute display_name must say how tables write it"
    return ""


def named_method(text: str) -> str:
    """The name of a method given as "sdclr", or as "module:Class", which is imported and registered."""
    if not is_outside(text):
        return text
    return register_method(load_outside(text, "method", why_no_method))
