from __future__ import annotations

from pathlib import Path

import pytest

from digits_run import train_digits
from sdclr import Run


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A backbone that gives 32 features of any pictures."""
    return train_digits(tmp_path_factory.mktemp("runs") / "x")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """60 photographs of four kinds, of one only three."""
    from photo_folder import make_photos

    make_photos(tmp_path / "photos", {0: 30, 1: 17, 2: 10, 3: 3})
    return tmp_path / "photos"
