"""Reproduce the comparison on digits: SimCLR against SDCLR, over several splits, with intervals.

    python examples/digits_comparison.py OUT [section.key=value ...]

A few minutes on two CPU cores. `sdclr demo` does the same in one command.
"""

from __future__ import annotations

# %% Two arms with the same head and budget, several long-tailed splits
import sys
from pathlib import Path

import sdclr

out = Path(sys.argv[1])
overrides = sys.argv[2:]
splits = (1, 2, 3)
sdclr.keep_freed_memory()  # faster steps on a CPU

# %% Train; a run that is done is not trained again
runs = []
for arm in ("digits_simclr", "digits_sdclr"):
    for split in splits:
        config = sdclr.recipe(arm).with_overrides([f"data.split={split}", *overrides])
        runs.append(sdclr.pretrain(config, out / f"{arm}-{split}"))

# %% Measure: probes on the frozen backbone, accuracy by group
for run in runs:
    result = sdclr.evaluate(run)
    found = result.balancedness("few_shot")
    numbers = f"all {found.all:.3f}, few {found.few:.3f}, std {found.group_std:.3f}"
    print(run.folder.name, numbers)

# %% Compare: paired differences over the splits, with their intervals
folders = [run.folder for run in runs]
sdclr.write_report(folders, {"terminal", "html"}, out / "report.html")
print("Open", out / "report.html")
