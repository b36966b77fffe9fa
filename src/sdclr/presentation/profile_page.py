"""The profile of a collection as one self-contained page: numbers, sizes, pictures of typical images."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from sdclr.presentation.pages import template
from sdclr.presentation.profile import CollectionProfile


def render_profile_html(profile: CollectionProfile, pictures: Mapping[str, bytes]) -> str:
    """The whole page. ``pictures``: name -> a small JPEG; an image without one is its name alone."""
    galleries = [
        ("A typical image of each of the largest modes", profile.largest),
        ("And of the smallest ones", profile.rarest),
    ]
    return template("profile.html.j2").render(
        title=profile.title,
        profile=profile,
        galleries=[
            (heading, [(name, _address(pictures.get(name))) for name in names])
            for heading, names in galleries
            if names
        ],
    )


def _address(picture: bytes | None) -> str:
    if picture is None:
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode('ascii')}"
