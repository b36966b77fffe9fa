"""Training measurements -> a progress bar, a metrics file, or a user's own observers. Never changes a run."""

from sdclr.observers.image_records_file import ImageRecordsFile
from sdclr.observers.logs import LOGS, logs_named
from sdclr.observers.metrics_file import MetricsFile
from sdclr.observers.mlflow_log import MLflowLog
from sdclr.observers.observer import EpochDone, Observer, StepDone, TrainingBegins
from sdclr.observers.observers import Observers
from sdclr.observers.own import own_observers
from sdclr.observers.progress_bar import ProgressBar
from sdclr.observers.tensorboard_log import TensorBoardLog
from sdclr.observers.wandb_log import WandbLog

__all__ = [
    "LOGS",
    "EpochDone",
    "ImageRecordsFile",
    "MLflowLog",
    "MetricsFile",
    "Observer",
    "Observers",
    "ProgressBar",
    "StepDone",
    "TensorBoardLog",
    "TrainingBegins",
    "WandbLog",
    "logs_named",
    "own_observers",
]
