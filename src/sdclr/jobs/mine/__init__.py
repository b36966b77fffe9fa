"""JOB: any images -> how rare each of them is, what looks alike, and a page to look at."""

from sdclr.jobs.mine.job import mine as mine

__all__ = ["mine"]
