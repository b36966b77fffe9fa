"""JOB: config -> trained backbone in a run folder, resumable after any step; or a preview of that."""

from sdclr.jobs.pretrain.job import pretrain
from sdclr.jobs.pretrain.preview import Preview, preview
from sdclr.jobs.pretrain.resuming import resume

__all__ = ["Preview", "pretrain", "preview", "resume"]
