"""JOB: a trained backbone + labelled images -> a classifier, measured on held-out images."""

from sdclr.jobs.finetune.config import FinetuneConfig
from sdclr.jobs.finetune.job import Finetuned, finetune

__all__ = ["FinetuneConfig", "Finetuned", "finetune"]
