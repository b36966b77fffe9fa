"""A folder of photographs, shared by the tests of sources."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from image_folder_stand_in import make_folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 6, 4 and 2 images; nothing is to be changed in it."""
    root = tmp_path_factory.mktemp("collection") / "photos"
    make_folder(root)
    return root


@pytest.fixture
def own(photos: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(photos, tmp_path / "photos"))
