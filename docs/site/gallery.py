"""Take the pictures of docs/gallery.md from the pages of `make demo`.

    python docs/site/gallery.py runs/demo

Writes docs/gallery/*.webp. Needs playwright (the extra `tools`) and a Chromium: SDCLR_CHROMIUM
names one, else `chromium` is looked for.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

OUT = Path(__file__).parents[1] / "gallery"


@dataclass(frozen=True)
class Shot:
    """A part of a page: from ``start`` (a CSS selector; the top without one), in CSS pixels."""

    page: str
    width: int = 1000
    height: int = 900
    start: str | None = None
    dark: bool = False
    sharp: float = 1.0


SHOTS = {
    "comparison": Shot("report.html"),
    "run": Shot("sdclr-split1-seed10/report.html"),
    "rare": Shot("rare/index.html"),
    "map": Shot("rare/index.html", height=760, start="#map"),
    "profile": Shot("rare/profile.html"),
    "phone": Shot("rare/index.html", width=390, height=800, dark=True, sharp=1.5),
}


def main(demo: Path) -> None:
    OUT.mkdir(exist_ok=True)
    chromium = os.environ.get("SDCLR_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, shot in SHOTS.items():
            page = browser.new_page(
                viewport={"width": shot.width, "height": shot.height},
                color_scheme="dark" if shot.dark else "light",
                device_scale_factor=shot.sharp,
            )
            page.goto((demo.absolute() / shot.page).as_uri())
            if shot.start is not None:
                for _ in range(
                    3
                ):  # what comes into sight is laid out only then, and moves the rest
                    page.locator(shot.start).evaluate("(element) => element.scrollIntoView()")
                    page.wait_for_timeout(300)
            picture = Image.open(io.BytesIO(page.screenshot()))
            picture.convert("RGB").save(OUT / f"{name}.webp", quality=80, method=6)
            page.close()
            print(OUT / f"{name}.webp")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
