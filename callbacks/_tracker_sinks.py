"""Sinks for services that keep track of experiments: MLflow, and Weights & Biases."""

from __future__ import annotations

import itertools
import re
import weakref
from collections.abc import Mapping
from typing import Any

from keras_initkit._checks import required_package
from keras_initkit.diagnosis import Finding

_METRICS_AT_ONCE = 1000  # what a request to MLflow may hold
_LONGEST_NAME, _LONGEST_TAG = 250, 5000


class MLflowSink:
    """Logs statistics as metrics of an MLflow run, and findings as its tags `finding/<kind>/<layer>`.

    The run is that of `run_id`, else the one that is active (`mlflow.start_run()`), else one that is started for the
    sink, not active, in the active experiment: it ends when the sink is let go or Python exits. A copy of a sink
    that has started a run starts another. Characters of a layer's name that MLflow refuses become `_`.

    Args:
        run_id: String. The run to log to; `None` looks for the active one at each write.

    Raises:
        ImportError: If MLflow is not installed.
    """

    def __init__(self, run_id: str | None = None):
        required_package("MLflowSink", "mlflow", "mlflow")
        self.run_id = run_id
        self._own: str | None = None
        self._names: dict[str, str] = {}

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Logs the values as metrics at this step."""
        import mlflow

        run_id, metrics = self._run(), iter([(self._name(tag), float(value)) for tag, value in values.items()])
        while some := dict(itertools.islice(metrics, _METRICS_AT_ONCE)):
            mlflow.log_metrics(some, step=step, run_id=run_id, synchronous=True)

    def alert(self, finding: Finding) -> None:
        """Sets a tag to the finding as it is printed."""
        import mlflow

        name = self._name(f"finding/{finding.kind}/{finding.layer}")
        mlflow.MlflowClient().set_tag(self._run(), name, str(finding)[:_LONGEST_TAG])

    def _run(self) -> str:
        import mlflow

        active = None if self.run_id else mlflow.active_run()
        if active is not None:
            return active.info.run_id
        if self.run_id is not None:
            return self.run_id
        if self._own is None:
            self._own = mlflow.start_run().info.run_id
            mlflow.end_run("RUNNING")  # it is no longer the active one, where a user wants to start another
            weakref.finalize(self, mlflow.MlflowClient().set_terminated, self._own)
        return self._own

    def _name(self, tag: str) -> str:
        """Returns a name that MLflow takes, another one for each tag."""
        if tag not in self._names:
            name = "/".join(part if part.strip(".") else "_" for part in re.sub(r"[^/\w.\- ]", "_", tag).split("/"))
            half = _LONGEST_NAME // 2 - 5
            if len(name) > _LONGEST_NAME:
                name = f"{name[:half]}...{name[-half:]}"
            taken = set(self._names.values())
            others = (f"{name[: _LONGEST_NAME - 5]}_{number}" for number in itertools.count(2))
            self._names[tag] = next(each for each in itertools.chain([name], others) if each not in taken)
        return self._names[tag]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_own": None}


class WandbSink:
    """Logs statistics to a run of Weights & Biases, and findings as its alerts.

    The run is the given one, else `wandb.run`, else one that `wandb.init` makes for the sink at the first write; it
    ends when the sink is let go or Python exits. A copy of a sink makes a run for itself. Where the run is beyond a
    measured step, since something else logs to it, the figures stand at the run's own step: Weights & Biases takes
    none for the past.

    Args:
        run: A run that `wandb.init` returned.
        **options: Arguments for `wandb.init`, such as `project` and `mode="offline"`.

    Raises:
        ImportError: If wandb is not installed.
    """

    def __init__(self, run: Any = None, **options: Any):
        required_package("WandbSink", "wandb", "wandb")
        self.run, self.options = run, options
        self._own: Any = None

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Logs the values at this step."""
        run = self._run()
        run.log(dict(values), step=max(step, run.step))

    def alert(self, finding: Finding) -> None:
        """Sends an alert with the finding as it is printed."""
        level = {"error": "ERROR", "warning": "WARN", "info": "INFO"}[finding.severity]
        title = f"{finding.kind} in {finding.layer}"
        self._run().alert(title=title, text=str(finding), level=level, wait_duration=0)

    def _run(self) -> Any:
        import wandb

        if self.run is not None or wandb.run is not None:
            return self.run if self.run is not None else wandb.run
        if self._own is None:
            self._own = wandb.init(**{"reinit": "create_new", **self.options})
            weakref.finalize(self, self._own.finish).atexit = False  # which wandb does itself
        return self._own

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "run": None, "_own": None}
