"""JOB: a folder of sdclr mine -> what the collection looks like as a whole."""

from sdclr.jobs.profile.job import profile as profile

__all__ = ["profile"]
