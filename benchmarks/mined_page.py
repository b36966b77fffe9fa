"""What the page of `sdclr mine` costs as collections grow: its size, its first paint, a sort, a filter.

    python benchmarks/mined_page.py --json FILE

Rows are made up, with four other scores; 1,000 pictures are of noise, which JPEG cannot make small. Chromium is
headless, and the page comes from a file. Needs the extra "tools", and a chromium on the path.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from sdclr.compute.device import describe_device
from sdclr.presentation.mined import MinedImages, RankingQuality
from sdclr.presentation.mining.page import PICTURE_SIDE, pictured_rows, render_mined_html

SIZES = (10_000, 100_000)
ACTIONS = {
    "sort by path": ("sort", "path"),
    "sort by another score": ("sort", "component-1"),
    "find a text": ("find", "IMG_0012"),
}
"""Name -> a control of the page, and what is put into it."""
WAIT_FOR_TABLE = """([id, value]) => {
  document.getElementById(id).value = value;
  const begun = performance.now();
  return new Promise((resolve) => {
    const watch = new MutationObserver(() => {
      watch.disconnect();
      resolve(performance.now() - begun);
    });
    watch.observe(document.querySelector("#all tbody"), { childList: true });
    document.getElementById("filters").dispatchEvent(new Event("input"));
  });
}"""
"""The page waits 150 ms for more typing; they count."""
NOTE_WHEN_READY = """new MutationObserver(() => {
  if (document.documentElement?.dataset.ready && !window.readyAt) window.readyAt = performance.now();
}).observe(document, { subtree: true, attributes: true, childList: true });"""


def many_rows(n: int = 100_000) -> MinedImages:
    """Rows as a large collection has them; nothing is computed from pictures."""
    rng = np.random.default_rng(7)
    labels = np.minimum(rng.zipf(1.3, n) - 1, 1999).astype(np.int64)
    twins = np.arange(n, dtype=np.int64)
    copies = rng.choice(np.arange(1, n), n // 50, replace=False)
    copies = copies[~np.isin(copies - 1, copies)]
    twins[copies] = copies - 1
    labels[copies] = labels[copies - 1]
    score = rng.gamma(2, 1, n) + 4 / (1 + np.bincount(labels, minlength=2000)[labels])
    centres = rng.normal(size=(2000, 2)) * 10
    junk = {kind: rng.random(n) < 0.002 for kind in ("blank", "blurred", "overexposed")}
    components = {name: rng.gamma(2, 1, n) for name in ("knn_1", "knn_20", "lof_20", "loss")}
    names = [
        f"2025/camera {row % 37:02d}/session_{row // 1000:03d}/IMG_{row:06d}.jpg"
        for row in range(n)
    ]
    place = (centres[labels] + rng.normal(size=(n, 2))).astype(np.float32)
    return assembled(names, score, labels, twins, junk, place, components)


def assembled(
    names: Sequence[str],
    score: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    duplicate_of: npt.NDArray[np.int64],
    junk: dict[str, npt.NDArray[np.bool_]],
    place: npt.NDArray[np.float32],
    components: dict[str, npt.NDArray[np.float64]],
) -> MinedImages:
    """Groups are numbered by their mean score; the sheet goes group by group."""
    n = len(names)
    sizes = np.bincount(labels)
    means = np.bincount(labels, weights=score) / np.maximum(sizes, 1)
    by_score = np.argsort(-means, kind="stable")
    number = np.empty(len(means), dtype=np.int64)
    number[by_score] = np.arange(len(means))
    group = number[labels]
    rank = np.empty(n, dtype=np.int64)
    rank[np.argsort(-score, kind="stable")] = np.arange(1, n + 1)
    worth = (duplicate_of == np.arange(n)) & ~np.logical_or.reduce(list(junk.values()))
    order = np.lexsort((rank, group))
    return MinedImages(
        title="Images, mined with their pixels",
        names=list(names),
        root="/photos",
        score_name="knn_10",
        order_name="groups by their mean score, in each the highest score first",
        score=score,
        rank=rank,
        components=components,
        group=group,
        group_score=means[by_score],
        duplicate_of=duplicate_of,
        junk=junk,
        sheet=order[worth[order]],
        place=place,
        quality=RankingQuality(True, "An example of a verdict; nothing was computed for it."),
        remarks=["An example of a remark: 2 files are damaged and were left out, a.jpg and b.jpg."],
    )


def pictures(mined: MinedImages) -> dict[int, bytes]:
    """Noise for each row that the page has a picture of."""
    rng = np.random.default_rng(1)
    files = []
    for _ in range(20):
        noise = rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).resize((PICTURE_SIDE, PICTURE_SIDE)).save(file, "JPEG", quality=80)
        files.append(file.getvalue())
    rows = pictured_rows(mined, top=1000).tolist()
    return {row: files[place % len(files)] for place, row in enumerate(rows)}


def measured(browser: Any, path: Path) -> dict[str, float]:
    """Milliseconds from the start of loading, and from an action to its result."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.add_init_script(NOTE_WHEN_READY)
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    found = {"first paint": page.evaluate(paint), "ready": page.evaluate("window.readyAt")}
    for name, control in ACTIONS.items():
        found[name] = page.evaluate(WAIT_FOR_TABLE, list(control))
    page.close()
    return {name: round(value) for name, value in found.items()}


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    sizes = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for n in SIZES:
            mined = many_rows(n)
            seen = pictures(mined)
            begun = time.perf_counter()
            text = render_mined_html(mined, seen, top=1000)
            seconds = time.perf_counter() - begun
            path = Path(folder) / f"{n}.html"
            path.write_text(text, encoding="utf-8")
            one = {
                "rows": n,
                "page_bytes": path.stat().st_size,
                "picture_bytes": sum(map(len, seen.values())),
                "render_seconds": round(seconds, 2),
                "milliseconds": [measured(browser, path) for _ in range(given.rounds)],
            }
            sizes.append(one)
            print(json.dumps(one), flush=True)
        record = {
            "hardware": describe_device(torch.device("cpu")),
            "chromium": browser.version,
            "sizes": sizes,
        }
    if given.json:
        given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
