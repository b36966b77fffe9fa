"""Room: what a training measured -> a progress bar, a metrics file, whatever a user adds. Never changes a run."""

from sdclr.observers.image_records_file import ImageRecordsFile
from sdclr.observers.metrics_file import MetricsFile
from sdclr.observers.observer import EpochDone, Observer, StepDone, TrainingBegins
from sdclr.observers.observers import Observers
from sdclr.observers.progress_bar import ProgressBar

__all__ = [
    "EpochDone",
    "ImageRecordsFile",
    "MetricsFile",
    "Observer",
    "Observers",
    "ProgressBar",
    "StepDone",
    "TrainingBegins",
]
