"""JOB: config -> trained backbone in a run folder, resumable after any step; or a look at what that would be."""

from sdclr.jobs.pretrain.config import PretrainConfig
from sdclr.jobs.pretrain.job import pretrain, resume

__all__ = ["PretrainConfig", "pretrain", "resume"]
