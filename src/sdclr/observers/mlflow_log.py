"""Log every epoch's measurements to MLflow; to an SQLite file unless a server is named."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from sdclr.observers.logged_values import finite, flat, folder_of, require_package
from sdclr.observers.observer import EpochDone, Observer, TrainingBegins

_LONGEST_VALUE = 500
_AT_ONCE = 100
"""Settings that MLflow accepts in one call."""
_FOLDER_TAG = "sdclr.run_folder"


class MLflowLog(Observer):
    """An MLflow run: settings, and one point per epoch over the number of steps; needs ``sdclr[mlflow]``.

    ``tracking_uri``: a server or a database; None: the variable MLFLOW_TRACKING_URI, or by default
    RUN/mlflow.db, which ``mlflow ui --backend-store-uri sqlite:///RUN/mlflow.db`` shows.
    ``experiment``: its MLflow experiment. A resumed run continues the same MLflow run. Raises
    ConfigError if the package is not installed.

    >>> log = MLflowLog("sqlite:///all-runs.db")  # doctest: +SKIP
    >>> sdclr.pretrain(config, "runs/x", observers=[log])  # doctest: +SKIP
    """

    def __init__(self, tracking_uri: str | None = None, *, experiment: str = "sdclr") -> None:
        require_package("mlflow")
        self._uri, self._experiment = tracking_uri, experiment
        self._client: Any = None
        self._run = ""

    def on_begin(self, begins: TrainingBegins) -> None:
        from mlflow import MlflowClient

        own = f"sqlite:///{os.path.abspath(folder_of(begins, 'mlflow.db', None))}"
        uri = self._uri or os.environ.get("MLFLOW_TRACKING_URI") or own
        self._client = MlflowClient(tracking_uri=uri)
        place = os.path.abspath(begins.folder or ".")
        experiment = self._experiment_id(Path(place))
        self._run = self._earlier(experiment, place) or self._new(experiment, place, begins)

    def on_epoch(self, done: EpochDone) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = {**finite(done.measured), "epoch": float(done.epoch)}
        metrics = [Metric(name, value, now, done.step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def on_end(self, done: EpochDone) -> None:
        self._client.set_terminated(self._run)

    def _experiment_id(self, place: Path) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is not None:
            return str(found.experiment_id)
        # files that are attached later belong beside the run, not in the current folder
        return str(
            self._client.create_experiment(
                self._experiment, artifact_location=(place / "mlflow-files").as_uri()
            )
        )

    def _earlier(self, experiment: str, place: str) -> str | None:
        """The MLflow run of the same run folder that has not ended."""
        for run in self._client.search_runs([experiment], "attributes.status = 'RUNNING'"):
            if run.data.tags.get(_FOLDER_TAG) == place:
                return str(run.info.run_id)
        return None

    def _new(self, experiment: str, place: str, begins: TrainingBegins) -> str:
        from mlflow.entities import Param

        run = self._client.create_run(
            experiment, run_name=begins.label, tags={_FOLDER_TAG: place}
        ).info.run_id
        params = [
            Param(re.sub(r"[^\w./ -]", "_", name), str(value)[:_LONGEST_VALUE])
            for name, value in flat(begins.settings)
        ]
        for first in range(0, len(params), _AT_ONCE):
            self._client.log_batch(run, params=params[first : first + _AT_ONCE])
        return str(run)
