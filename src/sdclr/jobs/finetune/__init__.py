"""JOB: a trained backbone + labelled images -> a classifier, with what it is worth on images held out."""

from sdclr.jobs.finetune.config import FinetuneConfig
from sdclr.jobs.finetune.job import Finetuned, finetune

__all__ = ["FinetuneConfig", "Finetuned", "finetune"]
