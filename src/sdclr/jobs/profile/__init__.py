"""JOB: a folder of sdclr mine -> a profile of the whole collection."""

from sdclr.jobs.profile.job import profile as profile

__all__ = ["profile"]
