"""Hyperparameters of runs, for TensorBoard's HParams tab."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from keras_initkit.callbacks._event_log import EventLog

# The tab sorts them by name and shows the first five, so the fifth must be the initializer.
HPARAMS = {
    "activation": str,
    "data": str,
    "depth": float,
    "epochs": float,
    "initializer": str,
    "learning_rate": float,
    "seed": float,
    "training_batch_size": float,
    "units": float,
}
# As keras.callbacks.TensorBoard names them, in its runs `train` and `validation`.
METRICS = (
    ("validation", "epoch_accuracy", "test accuracy"),
    ("validation", "epoch_loss", "test loss"),
    ("train", "epoch_accuracy", "train accuracy"),
    ("train", "epoch_loss", "train loss"),
)


def write_experiment(log_dir: str) -> None:
    """Writes which hyperparameters the runs below `log_dir` have, and which metrics to show."""
    from tensorboard.plugins.hparams import api_pb2, summary

    types = {str: api_pb2.DATA_TYPE_STRING, float: api_pb2.DATA_TYPE_FLOAT64}
    infos = [api_pb2.HParamInfo(name=name, type=types[kind]) for name, kind in HPARAMS.items()]
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(group=group, tag=tag), display_name=title)
        for group, tag, title in METRICS
    ]
    log = EventLog(log_dir)
    log.summary(summary.experiment_pb(infos, metrics))


@contextlib.contextmanager
def session(log_dir: str | None, hparams: Mapping[str, Any]) -> Iterator[None]:
    """Logs a run with these hyperparameters, and whether it ended or raised."""
    if log_dir is None:
        yield
        return
    from tensorboard.plugins.hparams import api_pb2, summary

    log = EventLog(log_dir)
    status = api_pb2.STATUS_FAILURE
    try:
        renamed = {**hparams, "training_batch_size": hparams["batch_size"]}
        log.summary(summary.session_start_pb({name: renamed[name] for name in HPARAMS}))
        yield
        status = api_pb2.STATUS_SUCCESS
    finally:
        log.summary(summary.session_end_pb(status))
