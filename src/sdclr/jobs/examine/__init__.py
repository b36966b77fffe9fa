"""JOB: a finished run -> RUN/examination/: what a report shows besides the numbers written by other jobs."""

from sdclr.jobs.examine.by_group import group_records
from sdclr.jobs.examine.job import examine
from sdclr.jobs.examine.layers import layer_densities

__all__ = ["examine", "group_records", "layer_densities"]
