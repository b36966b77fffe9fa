"""A page in headless Chromium, with everything that went wrong on it: for the tests marked tools."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
AXE = ROOT / "build" / "tools" / "node_modules" / "axe-core" / "axe.min.js"
TOOLS_PYTHON = ROOT / "build" / "tools" / "bin" / "python"
PHONE, DESKTOP = (360, 780), (1280, 900)


def chromium() -> str:
    """The browser of the tests, or a skip that says how to get one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("SDCLR_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.skip("no Chromium: install Debian's chromium, or let SDCLR_CHROMIUM name one")
    return found


def tools_python() -> str:
    """The Python that has other people's tools, or a skip that says how to get it."""
    found = Path(os.environ.get("SDCLR_TOOLS_PYTHON", TOOLS_PYTHON))
    if not found.exists():
        pytest.skip(
            f"{found} does not exist: make test-tools builds it, or SDCLR_TOOLS_PYTHON names one"
        )
    return str(found)


@contextmanager
def open_page(
    browser: Any,
    path: Path,
    size: tuple[int, int] = DESKTOP,
    scheme: str = "light",
    script: bool = True,
) -> Iterator[Any]:
    """The page of a file; at the end nothing may have gone wrong: no message, no request, no dialog."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        java_script_enabled=script,
        accept_downloads=True,
    )
    context.set_default_timeout(1000 * PATIENCE_SECONDS)
    page = context.new_page()
    trouble: list[str] = []
    address = path.as_uri()

    def note_request(request: Any) -> None:
        if request.url != address and not request.url.startswith(("data:", "blob:file:")):
            trouble.append(f"request: {request.url}")

    def note_dialog(dialog: Any) -> None:
        trouble.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("console", lambda message: trouble.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
    page.on("request", note_request)
    page.on("dialog", note_dialog)
    page.goto(address)
    if script and page.locator("#data").count() + page.locator("#dock").count():
        page.wait_for_selector("html[data-ready]", state="attached")
    yield page
    context.close()
    assert trouble == []


def serious_findings(page: Any) -> list[str]:
    """What axe-core finds serious or critical, one line each."""
    path = Path(os.environ.get("SDCLR_AXE", AXE))
    if not path.exists():
        pytest.skip(f"{path} does not exist: npm was not there when make test-tools prepared it")
    page.evaluate(path.read_text(encoding="utf-8"))
    found = json.loads(page.evaluate("axe.run().then((found) => JSON.stringify(found.violations))"))
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def sideways(page: Any) -> int:
    """Pixels by which the page is wider than the window."""
    return int(
        page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    )
