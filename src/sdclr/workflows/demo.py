"""The demo: SimCLR against SDCLR on long-tailed digits, from nothing to a report, in minutes on a CPU."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from sdclr.jobs.evaluate import evaluate
from sdclr.jobs.pretrain import pretrain
from sdclr.jobs.report import write_report
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.recipes import recipe

METHODS = {"simclr": "SimCLR", "sdclr": "SDCLR"}


def demo(
    out: Path | str = "runs/demo",
    *,
    num_splits: int = 3,
    overrides: tuple[str, ...] = (),
    progress: AnyProgress | None = None,
    console: Console | None = None,
) -> Path:
    """Pre-train, evaluate and compare both methods over ``num_splits`` splits; returns the HTML report's path.

    Same projector, same budget, same splits, same seeds. Finished parts are not done again.
    """
    out, show = Path(out), progress or NoProgress()
    runs = []
    for split in range(1, num_splits + 1):
        for method, title in METHODS.items():
            config = recipe(f"digits_{method}").with_overrides([*overrides, f"data.split={split}"])
            run = pretrain(config, out / f"{method}-{split}", progress=show, label=f"{title}, split {split}")
            if not run.evaluation_path("cached").exists():
                evaluate(run, protocol="cached", device=config.device, progress=show)
            runs.append(run.folder)
    runs.sort(key=lambda folder: not folder.name.startswith("simclr"))  # the baseline's rows come first
    write_report(runs, {"terminal", "html"}, out=out / "report.html", protocol="cached", console=console)
    return out / "report.html"
