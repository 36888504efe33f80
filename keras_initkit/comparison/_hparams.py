"""Hyperparameters of runs, for TensorBoard's HParams tab."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from keras_initkit.callbacks._event_log import EventLog

# The verdict on a run: no parameters, but the tab has no other columns for words.
VERDICT = ("learns", "signal backward", "signal forward")
# The tab shows five, those that differ between runs first, each group by name.
_DIFFER = ("initializer", "seed", *VERDICT)
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
    **dict.fromkeys(VERDICT, str),
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
    for info in infos:
        info.differs = info.name in _DIFFER
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(group=group, tag=tag), display_name=title)
        for group, tag, title in METRICS
    ]
    log = EventLog(log_dir)
    log.summary(summary.experiment_pb(infos, metrics))


@contextlib.contextmanager
def session(log_dir: str | None, hparams: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Logs a run with these hyperparameters, and whether it ended or raised.

    Yields a dictionary, to which the run adds its verdict. The tab reads the parameters of a run once, so they are
    written when it is over.
    """
    outcome: dict[str, Any] = dict.fromkeys(VERDICT, "")
    if log_dir is None:
        yield outcome
        return
    from tensorboard.plugins.hparams import api_pb2, summary

    log, began = EventLog(log_dir), time.time()
    status = api_pb2.STATUS_FAILURE
    try:
        yield outcome
        status = api_pb2.STATUS_SUCCESS
    finally:
        shown = {**hparams, "training_batch_size": hparams["batch_size"], **outcome}
        log.summary(summary.session_start_pb({name: shown[name] for name in HPARAMS}, start_time_secs=began))
        log.summary(summary.session_end_pb(status))
