"""The pages of the documentation: complete, executed, true to the source, and a site that works from a disk."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import sdclr
from browsers import DESKTOP, PHONE, sideways
from page_blocks import DOCS, blocks, labelled_photos, run_page, small_photos
from sdclr import cli

pytestmark = pytest.mark.usefixtures("light_figures")

ROOT = DOCS.parent
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
TROUBLE = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
EXECUTED = [
    "start/photos.md",
    # its commands are README's, too
    pytest.param("start/research.md", marks=pytest.mark.slow),
    "how-to/resume.md",
    "how-to/pre-trained.md",
]


def pages_of(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in pages_of(part)]


def builder(name: str) -> ModuleType:
    """A module of docs/site, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "site" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_navigation_once() -> None:
    written = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    listed = pages_of(CONFIG["nav"])
    assert sorted(listed) == sorted(written | {"changelog.md"})  # made of CHANGELOG.md


def test_every_public_name_is_on_one_page_of_the_reference() -> None:
    pages = [page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md")]
    found = re.findall(r"^::: sdclr\.(\w+)$", "\n".join(pages), flags=re.MULTILINE)
    assert sorted(found) == sorted(sdclr.__all__)


def test_the_pictures_of_the_idea_are_what_the_script_draws() -> None:
    for name, draw in builder("drawings").DRAWINGS.items():
        assert (DOCS / "figures" / name).read_text(encoding="utf-8") == draw(), (
            "run: python docs/site/drawings.py"
        )


def test_the_gallery_is_small_and_shows_every_picture() -> None:
    pictures = sorted((DOCS / "gallery").iterdir())
    assert sum(picture.stat().st_size for picture in pictures) < 1_500_000
    shown = re.findall(r"\]\((gallery/[^)]+)\)", (DOCS / "gallery.md").read_text(encoding="utf-8"))
    assert sorted(shown) == [f"gallery/{picture.name}" for picture in pictures]


def test_the_site_fetches_nothing_from_other_hosts() -> None:
    assert CONFIG["theme"]["font"] is False
    assert CONFIG["strict"] is True
    for key in ("extra_css", "extra_javascript"):
        assert not [link for link in CONFIG.get(key, []) if "//" in link]
    assert CONFIG["extra"]["polyfills"] == ["javascripts/iframe-worker.js"]


@pytest.mark.journeys
@pytest.mark.parametrize("page", EXECUTED)
def test_the_blocks_of_a_page_run_one_after_another(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    labelled_photos(tmp_path)
    assert blocks(page)
    run_page(page, monkeypatch)


def test_no_page_has_a_block_that_no_test_runs() -> None:
    tests = "".join(
        path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("test_*.py")
    )
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).as_posix()
        if re.search(r"^```python$", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
            known = f'"{name}"' in tests or f"docs/{name}" in tests
            assert known, f"no test names {name}"


def provoked() -> list[tuple[str, str]]:
    """(command, message) of the page."""
    found = re.findall(r"^```console\n\$ (.*)\nerror: (.*)\n```", TROUBLE, flags=re.MULTILINE)
    return [(command, message) for command, message in found]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands of the page go wrong."""
    place = tmp_path_factory.mktemp("trouble")
    labelled_photos(place)
    small_photos(place / "few", 5)
    small_photos(place / "bad", 40)
    (place / "bad" / "zz.jpg").write_bytes(b"\xff\xd8\xff broken")
    (place / "empty").mkdir()
    (place / "taken.npz").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        values = {"epochs": 1, "views.size": 8, "backbone.width": 2}
        sdclr.pretrain(sdclr.recipe("digits_sdclr").with_values(values), "runs/tiny")
    return place


@pytest.mark.parametrize(("command", "message"), provoked(), ids=lambda value: value[:60])
def test_an_error_is_printed_as_the_page_has_it(
    command: str,
    message: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    tiny = ["epochs=1", "backbone.width=2", "views.size=8"] * ("runs/tiny seed" in command)
    monkeypatch.setattr(sys, "argv", shlex.split(command) + tiny)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code not in (0, None, 70)
    said = " ".join(capsys.readouterr().err.split())
    pattern = ".*".join(re.escape(part.strip()) for part in message.split("..."))
    assert re.search("error: " + pattern, said), said


def strings_of_the_source() -> Iterator[str]:
    """Every string of the package; what is filled in is `...`."""
    for path in Path(sdclr.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    part.value if isinstance(part, ast.Constant) else "..." for part in node.values
                ]
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_other_messages_of_the_page_are_in_the_source() -> None:
    messages = re.findall(r"^```text\n(.*)\n```", TROUBLE, flags=re.MULTILINE)
    assert len(messages) >= 4
    source = list(strings_of_the_source())
    for message in messages:
        parts = [re.escape(part.strip()) for part in message.split("...")]
        pattern = re.compile(".*".join(parts), flags=re.DOTALL)
        assert any(pattern.search(string) for string in source), message


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site, built strictly."""
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip('no mkdocs: pip install ".[docs]"')
    out = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--quiet",
        "--strict",
        "--site-dir",
        str(out),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.tools
def test_docstrings_become_markdown() -> None:
    pytest.importorskip("griffe")
    as_markdown = builder("docstrings").as_markdown
    docstring = "Half.\n>>> half(4)\n2\n\nSee :class:`~sdclr.Run`, :func:`half`.\n\n>>> half(2)\n1"
    assert as_markdown(docstring).splitlines() == [
        "Half.",
        "",
        "```pycon",
        ">>> half(4)",
        "2",
        "```",
        "",
        "See [`Run`][sdclr.Run], `half`.",
        "",
        "```pycon",
        ">>> half(2)",
        "1",
        "```",
    ]


@pytest.mark.tools
def test_the_built_site_has_every_name_and_command(site: Path) -> None:
    api = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    for name in sdclr.__all__:
        assert f'id="sdclr.{name}"' in api, name
    assert "&gt;&gt;&gt; " in api or ">>> " in api
    assert ":class:" not in api
    assert "prune_ratio" in api.partition('id="sdclr.SelfCompetitor"')[2][:3000], "its signature"
    assert 'id="sdclr.PretrainConfig.batch_size"' in api, "the fields of a config"
    commands = (site / "commands.html").read_text(encoding="utf-8")
    for verb in ("pretrain", "mine", "predict"):
        assert f"<code>sdclr {verb}</code>" in commands
    assert "Which command" not in commands, "the heading of the README stays there"


@pytest.mark.tools
@pytest.mark.parametrize("size", [PHONE, DESKTOP])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_site_works_from_a_disk(
    site: Path, browser: Any, size: tuple[int, int], scheme: Any
) -> None:
    trouble: list[str] = []
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page.on(
        "request",
        lambda request: (
            trouble.append(request.url)
            if not request.url.startswith(("file:", "data:", "about:"))
            else None
        ),
    )
    page.on("pageerror", lambda error: trouble.append(str(error)))
    for name in ("index", "concepts", "troubleshooting", "api/images", "results", "commands"):
        page.goto((site / f"{name}.html").as_uri())
        assert sideways(page) == 0, name
    if size == DESKTOP:
        page.locator(".md-search__input").click()
        page.keyboard.type("prune_ratio", delay=20)
        page.wait_for_selector(".md-search-result__item")
    page.close()
    assert trouble == []
