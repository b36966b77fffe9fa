"""Make the cells that are missing, then the page.

    python -m benchmarks.rarebench [--sets digits,tiles] [--encoders lite0,untrained] [--page-only]
    make rarebench

Larger data by SDCLR_DATA. Every finished cell is a file in benchmarks/results/rarebench/ and is not
computed again; features and runs are kept in build/rarebench/.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from rarebench import cells, sets
from rarebench.encoders import ENCODERS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", default=",".join(sets.available()), help="names, with commas")
    parser.add_argument("--encoders", default=",".join(ENCODERS), help="names, with commas")
    parser.add_argument(
        "--page-only", action="store_true", help="make the page of the finished cells"
    )
    given = parser.parse_args()
    if not given.page_only:
        for cell in cells.cells(given.sets.split(","), given.encoders.split(",")):
            if cell.path.exists():
                continue
            start = time.perf_counter()
            cells.make(cell)
            print(f"{cell.path.name}: {time.perf_counter() - start:.0f} s", flush=True)
    from rarebench.page import write_page

    print(write_page())


if __name__ == "__main__":
    main()
