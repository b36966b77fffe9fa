"""Log every epoch's measurements to MLflow; to an SQLite file unless a server is named."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path
from typing import Any

from sdclr.observers.log_ids import record_id, recorded_id
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
    ``experiment``: its MLflow experiment. A resumed run continues the same MLflow run, whose id is in
    RUN/logs.json. Raises ConfigError if the package is not installed.

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

        uri = self._uri or os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            self._client = _in_file(os.path.abspath(folder_of(begins, "mlflow.db", None)))
        else:
            self._client = MlflowClient(tracking_uri=uri)
        earlier = self._earlier(recorded_id(begins.folder, "mlflow"))
        if earlier is None:
            place = os.path.abspath(begins.folder or ".")
            self._run = self._new(self._experiment_id(Path(place)), place, begins)
            record_id(begins.folder, "mlflow", self._run)
        else:
            self._run = earlier

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

    def _earlier(self, recorded: str | None) -> str | None:
        """The MLflow run that this training has begun, where it has not ended; None: it belongs to another server."""
        from mlflow.exceptions import MlflowException

        if recorded is None:
            return None
        try:
            run = self._client.get_run(recorded)
        except MlflowException:
            return None
        return recorded if run.info.status == "RUNNING" else None

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


def _in_file(path: str) -> Any:
    """A client of an SQLite file. MLflow decodes its address, in which % ? and # have a meaning."""
    from mlflow import MlflowClient

    address = re.sub("[%?#]", lambda sign: f"%{ord(sign[0]):02X}", path)
    client = MlflowClient(tracking_uri=f"sqlite:///{address}")
    if address != path:
        # it also makes the folder that the address names as it is written
        with contextlib.suppress(OSError):
            os.removedirs(os.path.dirname(address))
    return client
