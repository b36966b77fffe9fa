from __future__ import annotations

from pathlib import Path

import pytest

from sdclr import Run, pretrain, recipe


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A backbone that gives 32 features of any pictures."""
    tiny = [
        "backbone.width=4",
        "views.size=8",
        "batch_size=100",
        "epochs=1",
        "health_every_epochs=0",
    ]
    return pretrain(
        recipe("digits_sdclr").with_overrides(tiny), tmp_path_factory.mktemp("runs") / "x"
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """60 photographs of four kinds, of one only three."""
    from photo_folder import make_photos

    make_photos(tmp_path / "photos", {0: 30, 1: 17, 2: 10, 3: 3})
    return tmp_path / "photos"
