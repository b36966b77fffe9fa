"""A run folder: its files, what may be written to it, what it refuses, and what to do with it next."""

from sdclr.run.folder import Run

__all__ = ["Run"]
