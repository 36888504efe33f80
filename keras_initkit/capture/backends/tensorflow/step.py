"""One training step, measured from inside, on the TensorFlow backend.

`fit` looks up `model.train_function` at every step. For a measured step it finds a second function there,
which Keras built around the same `train_step`; while that is traced, the layers' `call` and the optimizer's
`apply` are wrapped, so that outputs and gradients can be read where they already are. Other steps run the
function that Keras compiled, untouched.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_initkit._compat import tensorflow_memory_optimizer_off
from keras_initkit.capture._hooks import replaced
from keras_initkit.capture.backends.tensorflow._graph import warn_of_draws
from keras_initkit.capture.backends.tensorflow.reading import TensorFlowReading
from keras_initkit.capture.step._meter import FindLayers, StepMeter
from keras_initkit.capture.step._reduction import MeasurementSpec, reduce_taps
from keras_initkit.statistics._ops import under_xla
from keras_initkit.statistics._tap import Tap


class TensorFlowStepMeter(TensorFlowReading, StepMeter):
    """Measures single training steps of `model`; see `StepMeter`.

    Under `tf.distribute.MirroredStrategy` the figures are those of the global batch.

    Raises:
        ValueError: Under a distribution strategy of several replicas that is another.
    """

    def __init__(self, model: keras.Model, find_layers: FindLayers, spec: MeasurementSpec):
        strategy = model.distribute_strategy
        self._replicas = strategy.num_replicas_in_sync
        multi_worker = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        # TensorFlow's own class has another name.
        name = "MultiWorkerMirroredStrategy" if multi_worker else type(strategy).__name__
        if multi_worker or (self._replicas > 1 and not isinstance(strategy, tf.distribute.MirroredStrategy)):
            raise ValueError(
                f"LayerStatsCallback: the model trains on {self._replicas} replicas under "
                f"{name}, expected tf.distribute.MirroredStrategy or one replica"
                f"{_MULTI_WORKER if multi_worker else ''}. Train under one of these to measure layers, or leave "
                "the callback out."
            )
        super().__init__(model, find_layers, spec)
        self._waited = False
        self._plain: Any = None
        self._structure: Any = None  # of a batch
        self._instrumented: dict[bool, Callable] = {}  # with histograms, and without

    def _invalidate(self) -> None:
        self._instrumented = {}

    def _run_measured(self, plain: Any, iterator: Any) -> Any:
        if plain is not self._plain:
            self._plain, self._instrumented = plain, {}
        if self._histograms not in self._instrumented:
            measured = None
            with self._unharmed("the step"):
                measured = self._build(iterator)
            if measured is None:
                return plain(iterator)
            self._instrumented[self._histograms] = measured
        # Keras up to 3.6 looks `train_step` up when it traces, later versions when they make the function.
        # Replicas trace in threads by turns, so their layers are wrapped once for all.
        model, is_graph = self._model, not (self._model.run_eagerly or tf.config.functions_run_eagerly())
        tapped = self._tapped() if self._replicas > 1 else contextlib.nullcontext()
        # Where TensorFlow expects a graph to fill a processor's memory, which it takes for 256 MB, its memory optimizer
        # (memory_optimizer.cc) has sums of three tensors and more added up one by one, as they come. A step that is
        # measured takes a little more memory than the plain one, which may be just enough.
        try:
            with replaced(model, "train_step", self._measured_step), tapped, tensorflow_memory_optimizer_off():
                logs, self._matrix, batch = self._instrumented[self._histograms](iterator)
        except tf.errors.OpError:  # of the step as it runs
            raise
        except Exception as error:
            if not is_graph:
                raise
            self._failure = self._failure or ("the step", error)  # while it was traced: nothing has run
            return plain(iterator)
        tensors = iter(batch)
        self._data = keras.tree.map_structure(lambda is_given: next(tensors) if is_given else None, self._structure)
        return logs

    def _build(self, iterator: Any) -> Callable | None:
        """Returns the training function of Keras, around a `train_step` that also returns the statistics.

        The layers of a subclassed model are built, and then known, once its step has been traced; where it
        cannot be traced without being run (eagerly, or on a Python iterator), the step is not measured.
        """
        model, self._train_step = self._model, self._model.train_step
        self._make_variables(iterator)
        if hasattr(self._plain, "get_concrete_function") and isinstance(iterator, tf.data.Iterator):
            # Keras up to 3.6, whose TensorBoard callback expects the first batch to have traced it.
            self._plain.get_concrete_function(iterator)
        if not model.built or not all(layer.built for layer in model.layers):
            eager = model.run_eagerly or tf.config.functions_run_eagerly()
            if not eager and isinstance(iterator, tf.data.Iterator | tf.distribute.DistributedIterator):
                tf.function(self._plain_step, autograph=False).get_concrete_function(iterator.element_spec)
            elif not self._waited:
                self._waited = True  # for a step in which all layers are built, but those that are never called
                return None
        if not self._instrumented:
            self._resolve_taps()
        with replaced(model, "train_step", self._measured_step):
            try:
                model.train_function = None  # not `force=True`: a method of the user's own may take no argument
                model.make_train_function()
                return model.train_function
            finally:
                model.train_function = self._plain

    def _make_variables(self, iterator: Any) -> None:
        """Makes what Keras would make while it traces the step. TensorFlow traces a step that makes variables twice.

        Of replicas it also runs such a step under a condition, in which TensorFlow 2.16 loses what they pass to
        conditions of their own; later versions of Keras do the same as this then.
        """
        model, optimizer = self._model, self._model.optimizer
        own = getattr(self._train_step, "__func__", None) is keras.Model.train_step
        if not model.built or not model.trainable_variables or optimizer is None or not (own or self._replicas > 1):
            return
        if not optimizer.built:
            scope = keras.name_scope(optimizer.name, caller=optimizer) if own else contextlib.nullcontext()
            with model.distribute_strategy.scope(), scope:
                optimizer.build(model.trainable_variables)
        if own and isinstance(iterator, tf.data.Iterator) and not all(_is_built(metric) for metric in model.metrics):
            _make_metrics(model, iterator.element_spec)

    def _plain_step(self, data: Any) -> Any:
        # Keras hands the `None` among the data over as an empty optional.
        data = tf.nest.map_structure(lambda x: None if isinstance(x, tf.experimental.Optional) else x, data)
        return self._model.distribute_strategy.run(self._train_step, args=(data,))

    def _measured_step(self, data: Any) -> tuple[Any, tf.Tensor, tuple[tf.Tensor, ...]]:
        def train() -> Any:
            with self._tapped() if self._replicas == 1 else contextlib.nullcontext():
                return self._train_step(data)

        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        with under_xla(self._model.jit_compile and not self._model.run_eagerly):
            logs, matrix = self._measure_step(graph, train, lambda weight: tf.convert_to_tensor(weight.value))
        if graph is not None:
            warn_of_draws(graph, self._user)
        return logs, matrix, self._batch_of(data)

    def _batch_of(self, data: Any) -> tuple[tf.Tensor, ...]:
        """Returns the tensors of a batch, which the step then returns too: it computes nothing for that.

        None come from several replicas or out of a loop over steps, where each batch may have another size.
        """
        leaves = [leaf for leaf in keras.tree.flatten(data) if leaf is not None]
        known = all(isinstance(leaf, tf.Tensor) for leaf in leaves)
        if not known or self._replicas > 1 or (self._model.steps_per_execution or 1) > 1:
            self._structure = None
            return ()
        self._structure = keras.tree.map_structure(lambda leaf: leaf is not None, data)
        return tuple(leaves)

    def _reduce(self, seen: Mapping[Tap, Sequence[Any]]) -> tf.Tensor:
        if self._replicas == 1:
            return super()._reduce(seen)
        replica = tf.distribute.get_replica_context()
        summed = {
            tap: [replica.all_reduce("SUM", x) for x in tensors]
            for tap, tensors in seen.items()
            if tap.kind == "weight_gradient"
        }
        over_replicas = functools.partial(replica.all_reduce, "SUM")
        options = self._limits, self._asked, self._histograms, over_replicas, self._rectified or ()
        rows = reduce_taps({**seen, **summed}, *options)
        return replica.all_gather(rows[None], axis=0)


def _is_built(metric: keras.Metric) -> bool:
    return getattr(metric, "built", True)  # what `compile` was given is; what it has yet to make of a name is not


def _make_metrics(model: keras.Model, element_spec: Any) -> None:
    """Traces what updates the metrics, and does not run it."""
    outputs: list[Any] = getattr(model, "outputs", None) or []
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(element_spec)
    plain = isinstance(y, tf.TensorSpec) and isinstance(sample_weight, tf.TensorSpec | None)
    if plain and len(outputs) == 1 and type(model).compute_metrics is keras.Model.compute_metrics:
        prediction = tf.TensorSpec(outputs[0].shape, outputs[0].dtype)
        update = tf.function(model.compute_metrics, autograph=False)
        update.get_concrete_function(x, y, prediction, sample_weight)


# What becomes of the training itself there, with or without a callback.
_MULTI_WORKER = " (Keras 3 does not train under MultiWorkerMirroredStrategy: keras issue 20585)"


STEP_METER = TensorFlowStepMeter
