"""The profile of a collection as one self-contained page: numbers, sizes, pictures of typical images."""

from __future__ import annotations

from collections.abc import Mapping

from sdclr.presentation.pages import template
from sdclr.presentation.profile import CollectionProfile


def render_profile_html(profile: CollectionProfile, pictures: Mapping[str, str]) -> str:
    """The whole page. ``pictures``: name -> a small JPEG in base64; an image without one is shown by its name."""
    return template("profile.html.j2").render(
        title=profile.title, profile=profile, galleries=profile.galleries(pictures)
    )
