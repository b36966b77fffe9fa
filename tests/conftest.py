from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

import pytest
import torch


def pytest_configure() -> None:
    torch.set_num_threads(1)  # several test processes share few cores; and sums keep one order


@pytest.fixture(scope="session")
def golden() -> Path:
    """Numbers computed with the authors' arithmetic; see tests/golden/README.md."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def sdclr_data() -> Path:
    """The folder of larger real data, where SDCLR_DATA names one."""
    folder = os.environ.get("SDCLR_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SDCLR_DATA does not name a folder with the larger data")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def cifar10_npz(sdclr_data: Path) -> Path:
    """The real CIFAR-10 as one .npz, unpacked once into a cache."""
    cache = Path(tempfile.gettempdir()) / f"sdclr-cifar10-{os.getuid()}"
    target = cache / "cifar10.npz"
    if not target.exists():
        spec = importlib.util.spec_from_file_location("unpack", sdclr_data / "cifar10" / "unpack.py")
        assert spec is not None
        assert spec.loader is not None
        unpack = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(unpack)
        with tempfile.TemporaryDirectory(dir=cache.parent) as folder:
            unpack.write(str(sdclr_data / "cifar10"), folder)
            cache.mkdir(exist_ok=True)
            Path(folder, "cifar10.npz").replace(target)  # atomic: several test processes may race
    return target
