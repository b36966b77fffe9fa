from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

OWN_MODULES = r"(sdclr|tests|test_\w+|conftest|__main__)(\.|$)"
"""Of a warning: it was raised by us, or on behalf of us. pytest names its tests by path or by file."""


def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return  # it hands tests out and runs none, so it need not wait for torch; hence no import above
    import hypothesis
    import torch

    torch.set_num_threads(1)  # several test processes share few cores; and sums keep one order
    slow_machine = [hypothesis.HealthCheck.too_slow]  # and no deadline for an example either
    hypothesis.settings.register_profile("sdclr", deadline=None, suppress_health_check=slow_machine)
    hypothesis.settings.load_profile("sdclr")
    # old libraries warn of each other's newer versions
    if os.environ.get("SDCLR_TEST_WARNINGS") == "own":
        config.addinivalue_line("filterwarnings", "default")
        config.addinivalue_line("filterwarnings", f"error:::{OWN_MODULES}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What forks comes first: torch's autograd refuses to work in a fork of a process that has used its threads.

    Torch's compiler leaves threads behind, and so do other people's packages; what compiles comes last.
    """

    def turn(item: pytest.Item) -> int:
        if item.get_closest_marker("compiles"):
            return 2
        return 0 if item.get_closest_marker("processes") else 1

    items.sort(key=turn)  # stable: the rest keeps its order


def pytest_runtest_setup(item: pytest.Item) -> None:
    import torch

    # what a test draws does not depend on the tests that ran before it in its process
    torch.default_generator.manual_seed(0)
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Where nothing may be missing, a test that skips has failed: else a tier could rot unseen."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("SDCLR_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} skipped, and SDCLR_NO_SKIPS is set: {report.longrepr}"


@pytest.fixture
def started_from_a_terminal() -> Iterator[None]:
    """SIGHUP and SIGINT end a process, whether or not nohup or a shell's & started these tests."""
    ends = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    ignored = [number for number in ends if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, ends[number])
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def writing_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread writes the checkpoints of runs on the CPU too, as it does beside a CUDA device; forked ones' as well."""
    from sdclr.jobs.pretrain import checkpoint_writer

    monkeypatch.setattr(checkpoint_writer, "BESIDE_DEVICES", ("cpu",))


@pytest.fixture
def light_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages with empty figures: tests/support/empty_figures.py."""
    from empty_figures import draw_nothing

    draw_nothing(monkeypatch)


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
def cifar10_folder(sdclr_data: Path) -> Path:
    """The real CIFAR-10, unpacked once into a cache: torchvision's layout, its checksums, and cifar10.npz."""
    cache = Path(tempfile.gettempdir()) / f"sdclr-tests-cifar10-{os.getuid()}"
    if not cache.exists():
        spec = importlib.util.spec_from_file_location(
            "unpack", sdclr_data / "cifar10" / "unpack.py"
        )
        assert spec is not None
        assert spec.loader is not None
        unpack = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(unpack)
        fresh = Path(tempfile.mkdtemp(dir=cache.parent))
        with warnings.catch_warnings():
            # the data's own script leaves files to the collector
            warnings.simplefilter("ignore", ResourceWarning)
            unpack.write(str(sdclr_data / "cifar10"), str(fresh))
        try:
            fresh.rename(cache)  # atomic: several test processes may race
        except OSError:
            shutil.rmtree(fresh)
    return cache


@pytest.fixture(scope="session")
def cifar10_npz(cifar10_folder: Path) -> Path:
    return cifar10_folder / "cifar10.npz"


@pytest.fixture
def without_heif(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where pillow-heif is not installed."""
    from sdclr.data.decoding import decode
    from sdclr.data.sources import (
        finding,
        image_lists,
        imagenet,
        listing,
        tar_shards,
        webdataset_samples,
        zip_files,
    )

    plain = tuple(
        suffix for suffix in listing.IMAGE_SUFFIXES if suffix not in listing.HEIF_SUFFIXES
    )
    others = tuple(dict.fromkeys((*listing.HEIF_SUFFIXES, *listing.OTHER_PICTURES)))
    defaults = tuple(
        plain if one is listing.IMAGE_SUFFIXES else one
        for one in listing.list_images.__defaults__ or ()
    )
    monkeypatch.setattr(decode, "READS_HEIF", False)
    monkeypatch.setattr(listing, "OTHER_PICTURES", others)
    monkeypatch.setattr(listing.list_images, "__defaults__", defaults)
    for module in (
        listing,
        finding,
        image_lists,
        imagenet,
        tar_shards,
        webdataset_samples,
        zip_files,
    ):
        monkeypatch.setattr(module, "IMAGE_SUFFIXES", plain)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, for tests marked tools; a process can drive one only."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is missing: make test-tools"
    )
    from browsers import chromium

    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()
