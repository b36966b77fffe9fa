"""Settings -> a method around a backbone."""

from __future__ import annotations

from sdclr.methods.config import MethodConfig
from sdclr.methods.method import Method, Parts
from sdclr.methods.table import METHODS
from sdclr.outside import load


def build_method(config: MethodConfig, parts: Parts) -> Method:
    """The method that ``config`` names. Raises ConfigError for one that is not in the table."""
    kind: type[Method] = load(METHODS.require(config.name).method)
    return kind.from_config(config, parts)
