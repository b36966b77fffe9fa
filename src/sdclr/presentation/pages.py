"""Shared parts of all our HTML pages: how their templates are rendered, and the mark they begin with."""

from __future__ import annotations

import base64
import hashlib
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from sdclr.safe_text import visible

MARK = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="sdclr">
"""
"""The start of our pages, by which they are recognised."""


def template(name: str) -> Template:
    """A template from ``templates``: it escapes everything, and shows invisible characters as escapes."""
    return _environment().get_template(name)


def has_template(name: str) -> bool:
    """Whether there is a template of that name."""
    environment = _environment()
    assert environment.loader is not None
    return name in environment.loader.list_templates()


def allowed(text: str) -> str:
    """A Content-Security-Policy source that allows exactly this text as a script or a style."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def source(name: str) -> str:
    """The text of a file in ``templates``: a style or a script to embed in a page."""
    environment = _environment()
    assert environment.loader is not None
    text, _, _ = environment.loader.get_source(environment, name)
    return text


@cache
def _environment() -> Environment:
    """One for the process: it keeps compiled templates, and to compile one takes longer than to render it."""
    return Environment(
        loader=PackageLoader("sdclr.presentation", "templates"),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _visible(value: object) -> object:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
