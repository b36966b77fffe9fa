"""What all our HTML pages share: how their templates are filled in, and the mark they begin with."""

from __future__ import annotations

import base64
import hashlib

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from sdclr.safe_text import visible

MARK = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="sdclr">
"""
"""What our pages begin with: by it they are known for ours."""


def template(name: str) -> Template:
    """A template of ``templates``: it escapes everything, and shows what is invisible as escapes."""
    return _environment().get_template(name)


def has_template(name: str) -> bool:
    """Whether there is a template of that name."""
    environment = _environment()
    assert environment.loader is not None
    return name in environment.loader.list_templates()


def allowed(text: str) -> str:
    """A source of a Content-Security-Policy that allows this very text as a script or a style."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def source(name: str) -> str:
    """A file of ``templates`` as it is: a style or a script that a page has within it."""
    environment = _environment()
    assert environment.loader is not None
    text, _, _ = environment.loader.get_source(environment, name)
    return text


def _environment() -> Environment:
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
