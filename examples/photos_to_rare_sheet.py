"""From your own photos to a sheet of the rare ones, cell by cell.

    python examples/photos_to_rare_sheet.py PHOTOS OUT [section.key=value ...]

Editors that know `# %%` run the cells one by one.
"""

from __future__ import annotations

# %% What to look at
import sys
from pathlib import Path

import rich.console

import sdclr
from sdclr.workflows.own_images import own_config

photos, out = sys.argv[1], Path(sys.argv[2])
overrides = sys.argv[3:]

# %% Settings are chosen from the images and the machine, and each has a reason
config, choices = own_config(str(Path(photos).absolute()), {}, out / "run", rich.console.Console())
config = config.with_overrides(overrides)

# %% Train without labels; the same cell resumes a stopped training
run = sdclr.pretrain(config, out / "run", choices=choices)

# %% What did the training change? Needs no labels
changed = sdclr.examine(run)
for name in ("before", "trained"):
    rank, found = changed[name]["effective_rank"], changed[name]["found"]
    print(f"{name}: effective rank {rank:.1f}, views that find their partner {found:.0%}")

# %% Which images are rare?
mined = sdclr.mine(run, config.data, out / "rare", top=50)
for row in mined.sheet[:10]:
    print(f"{mined.rank[row]:4d}  {mined.names[row]}")

# %% A page to look at, and to mark what is wanted
print("Open", out / "rare" / "index.html")
