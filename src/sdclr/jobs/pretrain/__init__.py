"""JOB: config -> trained backbone in a run folder, resumable after any step; or a look at what that would be."""

from sdclr.jobs.pretrain.job import pretrain
from sdclr.jobs.pretrain.preview import Preview, preview
from sdclr.jobs.pretrain.resuming import resume

__all__ = ["Preview", "pretrain", "preview", "resume"]
