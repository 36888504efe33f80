"""watch: the statistics of `LayerStatsCallback` for a training step that is written by hand."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

import keras

from keras_initkit._checks import checked_count, checked_flag
from keras_initkit.callbacks._arguments import (
    checked_log_dir,
    checked_on_finding,
    checked_sinks,
    listed_optimizers,
    named_models,
)
from keras_initkit.callbacks._progress import count_steps
from keras_initkit.callbacks._run_diagnosis import OnFinding
from keras_initkit.callbacks._run_record import RunRecord
from keras_initkit.callbacks._run_results import RunResults
from keras_initkit.callbacks._schedule import UpdateFreq, every, make_schedule
from keras_initkit.callbacks._sinks import Sink
from keras_initkit.capture._optimizers import find_optimizers
from keras_initkit.capture.backends import loop_meter
from keras_initkit.capture.step._reduction import DEFAULT_SAMPLE, MeasurementSpec
from keras_initkit.report._report import SignalReport
from keras_initkit.report._scalars import ATTENTION_STATISTICS, check_statistics
from keras_initkit.structure._layer_paths import weighted_layers
from keras_initkit.structure._selection import Layers, select

P = ParamSpec("P")
R = TypeVar("R")
Several = Any  # of something: one, a list, or a dictionary by name


def watch(
    train_step: Callable[P, R],
    model: keras.Model | Iterable[keras.Model] | Mapping[str, keras.Model],
    log_dir: str | os.PathLike[str] | None = "logs",
    update_freq: UpdateFreq = every(100),  # noqa: B008
    layers: Layers = None,
    statistics: Iterable[str] | None = None,
    histogram_freq: int = 0,
    sample_size: int | None = DEFAULT_SAMPLE,
    on_finding: OnFinding = "warn",
    keep: int | None = 1000,
    exact: bool = True,
    sinks: Iterable[Sink] = (),
    *,
    optimizer: Several = None,
    display: bool = False,
) -> WatchedStep[P, R]:
    """Returns a training step that does what `train_step` does, and measures the calls that are due.

    For loops that are written by hand, where there is no `fit` that a callback could run in. What is measured, logged
    and diagnosed is what `LayerStatsCallback` measures, logs and diagnoses.

    Calls that are not due run `train_step` itself. Of one that is due:

    - A `tf.function` is traced a second time, with the layers read, and that function runs instead; what it computes
      is the same.
    - A function that `jax.jit` has compiled runs as it is, after a program that reads the same arguments.
    - A function that `torch.compile` has compiled runs as it is, after an uncompiled pass whose changes to models and
      random numbers are undone. What else it does, to a scheduler say, it does twice.
    - Any other function runs once, and is read as it goes. A compiled function inside it cannot be read: watch that.

    Args:
        train_step: The function that makes one step. It calls the layers of `model` and updates their weights.
        model: Keras model; or a list or dictionary of models that are trained together (a GAN, actor and critic). The
            paths of their layers then begin with the model's name, or its key in the dictionary, and a slash.
        log_dir, layers, statistics, sample_size, on_finding, keep, exact, sinks, display: As those of
            `LayerStatsCallback`; statistics of attention need batches that a step does not show.
        update_freq: `"batch"` measures every call, an integer n every n-th, and a function of the number of calls
            before decides for each. The default measures the first ten calls, and every hundredth.
        histogram_freq: Integer. Number of measured calls from one with histograms to the next. 0 takes none.
        optimizer: Optimizer, or list or dictionary of optimizers, that the step gives gradients to: of Keras, on
            PyTorch also of `torch.optim`. `None` takes those that the models are compiled with or keep. Without one
            there are no statistics of weights' gradients; on JAX none of weights either.

    Returns:
        `WatchedStep`, which is called as `train_step` is.

    Raises:
        ValueError: If an argument is none of these.
        OSError: If `log_dir` cannot be written.

    Example:

    ```python
    @tf.function
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)
        return loss

    with keras_initkit.watch(train_step, model, "logs", optimizer=optimizer) as train_step:
        for x, y in dataset:
            loss = train_step(x, y)
    ```
    """
    if not callable(train_step):
        raise ValueError(f"train_step: got {train_step!r}, expected the function that makes one training step.")
    models, optimizers = named_models(model), listed_optimizers(optimizer)
    chosen = check_statistics(statistics)
    unread = [name for name in chosen if name in ATTENTION_STATISTICS]
    if unread:
        raise ValueError(
            f"statistics: got {unread[0]!r}, which takes the batch of a step, expected others: a step that is written "
            "by hand does not show its batch. Read attention by `keras_initkit.probe(model, x)`."
        )
    sample_size = sample_size if sample_size is None else checked_count("sample_size", sample_size)
    keep = keep if keep is None else checked_count("keep", keep, 2)
    return WatchedStep(
        train_step,
        models,
        optimizers or [each for model in models.values() for each in find_optimizers(model)],
        RunRecord(
            chosen,
            checked_on_finding(on_finding),
            keep,
            "watch",
            checked_sinks(sinks),
            checked_flag("display", display),
        ),
        make_schedule(update_freq, has_epochs=False),
        checked_count("histogram_freq", histogram_freq, 0),
        layers,
        MeasurementSpec.for_statistics(chosen, sample_size, checked_flag("exact", exact)),
        checked_log_dir(log_dir),
    )


class WatchedStep(RunResults, Generic[P, R]):
    """A training step that is measured; see `watch`, which makes it.

    Leaving it as a context, or `close`, writes the picture and the summary; calls after that are not measured.
    """

    def __init__(
        self,
        train_step: Callable[P, R],
        models: Mapping[str, keras.Model],
        optimizers: list[Any],
        record: RunRecord,
        due: Callable[[int, int, int], bool],
        histogram_freq: int,
        layers: Layers,
        spec: MeasurementSpec,
        log_dir: str | None,
    ):
        functools.update_wrapper(self, train_step, updated=())  # type: ignore[arg-type]
        self.__wrapped__ = train_step
        self._models, self._record, self._due = models, record, due
        self._histogram_freq, self._layers = histogram_freq, layers
        self._steps = max((count_steps(each) for each in optimizers), default=0)
        self._begun_at, self._measured, self._has_rows, self._is_open = self._steps, 0, False, True
        record.begin_by_hand(models, optimizers)
        with record.traced():
            self._meter = loop_meter(models, optimizers, self._find_layers, spec)
        if all(model.built and all(layer.built for layer in model.layers) for model in models.values()):
            self._find_layers()
        record.open(log_dir)
        if self._steps:
            record.log.write(lambda log: log.resumed_at(self._steps))
        else:
            record.log.warn_of_another_run()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Makes a step, and measures it if it is due; returns what the step returns."""
        step, self._steps = self._steps, self._steps + 1
        is_due = self._is_open and not self._meter.has_failed and self._due(step, step - self._begun_at, 1)
        if not is_due:
            return self.__wrapped__(*args, **kwargs)
        histograms = self._histogram_freq > 0 and self._measured % self._histogram_freq == 0
        result, rows = self._meter.run(self.__wrapped__, args, kwargs, histograms)
        if rows:
            self._measured += 1
            self._warn_of_no_signal(any(row.tap.kind == "output" for row in rows))
            if self._record.add(SignalReport.from_step(step, 0, rows), histograms=histograms):
                for model in self._models.values():
                    model.stop_training = True
            self._record.draw()
        return result

    def close(self) -> None:
        """Writes the run's last findings, its picture and summary, and measures nothing more."""
        if not self._is_open:
            return
        self._is_open = False
        if self._steps > self._begun_at and not self._measured and not self._meter.has_failed:
            self._record.warn(
                f"no call of the step was measured, of {self._steps - self._begun_at}: none was due, or the models "
                "were not built. Pass another `update_freq`, or build them before."
            )
        for diagnosis in self._record.diagnoses.values():
            diagnosis.end()
        self._record.end()

    def __enter__(self) -> WatchedStep[P, R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _warn_of_no_signal(self, has_signal: bool) -> None:
        if not has_signal and not self._has_rows:
            self._record.warn(
                "no layer of the models was seen to be called in the step. A compiled function that the step calls, "
                "and replicas of a distribution strategy, cannot be read from outside: watch the function that calls "
                "the layers. `fit` and `train_on_batch` are measured by LayerStatsCallback. Layers that are looked for "
                "are those of the models that `watch` was given."
            )
        self._has_rows = True

    def _find_layers(self) -> dict[str, keras.layers.Layer]:
        models = self._models.items()
        found = {prefix + path: layer for prefix, model in models for path, layer in weighted_layers(model).items()}
        return select(found, self._layers)
