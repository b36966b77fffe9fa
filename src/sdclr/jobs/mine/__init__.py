"""JOB: any images -> how rare each of them is, which look alike, and a page to view them."""

from sdclr.jobs.mine.job import mine as mine
from sdclr.jobs.mine.ranking import check_order as check_order

__all__ = ["check_order", "mine"]
