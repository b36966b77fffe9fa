"""JOB: a finished run -> probes on its frozen backbone -> accuracy per class, in RUN/evaluation/<protocol>.json."""

from sdclr.evaluation.probes import Protocol
from sdclr.jobs.evaluate.against import check_rivals, compare
from sdclr.jobs.evaluate.choices import AUTHORS_CLASSIFIER, Untested, check_protocol, check_untested
from sdclr.jobs.evaluate.images import evaluation_settings
from sdclr.jobs.evaluate.job import evaluate, evaluate_classifier
from sdclr.jobs.evaluate.label_budgets import few_labels

__all__ = [
    "AUTHORS_CLASSIFIER",
    "Protocol",
    "Untested",
    "check_protocol",
    "check_rivals",
    "check_untested",
    "compare",
    "evaluate",
    "evaluate_classifier",
    "evaluation_settings",
    "few_labels",
]
