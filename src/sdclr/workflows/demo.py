"""The demo: SimCLR against SDCLR on long-tailed digits, from nothing to a report, in minutes on a CPU."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from sdclr.evaluation.probes import probes_under
from sdclr.jobs.mine import mine
from sdclr.jobs.report import require_replaceable, write_report
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.run import Run
from sdclr.settings import PretrainConfig
from sdclr.workflows.matrix import carry_out, plan, require_all
from sdclr.workflows.reports import report


def demo(
    out: Path | str = "runs/demo",
    *,
    num_splits: int = 3,
    overrides: tuple[str, ...] = (),
    progress: AnyProgress | None = None,
    console: Console | None = None,
) -> Path:
    """Pre-train, evaluate and compare both methods over ``num_splits`` splits; return the HTML report's path.

    Same projector, same budget, same splits, same seeds. Finished parts are not repeated. Beside the report is
    ``rare/``, the rare digits of the first split as found by the first SDCLR run, without labels; that run also has
    a page of its own.
    """
    out, splits = Path(out), range(1, num_splits + 1)
    require_replaceable(out / "report.html")
    cells = plan("digits", out, arms=("simclr", "sdclr"), splits=splits, overrides=overrides)
    show = progress or NoProgress()
    done = carry_out(cells, protocol="cached", probes=probes_under("cached"), progress=show)
    require_all(done, cells)
    # the baseline first
    runs = [cell.run.folder for arm in ("simclr", "sdclr") for cell in done if cell.arm == arm]
    page = out / "report.html"
    write_report(
        runs, {"terminal", "html"}, out=page, protocol="cached", console=console, ours=True
    )
    first = next(cell.run for cell in done if cell.arm == "sdclr")
    report([first.folder], {"html"}, progress=show, protocol="cached", console=console)
    _mine_rare_digits(first, out / "rare", show)
    return page


def _mine_rare_digits(run: Run, out: Path, show: AnyProgress) -> None:
    """A sheet of the digits that the run was trained on; their labels judge the ranking afterwards."""
    data = PretrainConfig.from_yaml(run.config_path).data
    mined = mine(run.folder, data, out, as_trained=True, overwrite=True, progress=show)
    show.print(f"rare digits: {out / 'index.html'}")
    show.print(mined.quality.sentence)
