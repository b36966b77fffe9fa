from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from browsers import chromium


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, for tests marked tools."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is missing: make test-tools"
    )
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()
