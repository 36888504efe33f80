"""One training step, measured from inside, on the TensorFlow backend.

`fit` looks up `model.train_function` at every step. For a measured step it finds a second function there,
which Keras built around the same `train_step`; while that is traced, the layers' `call` and the optimizer's
`apply` are wrapped, so that outputs and gradients can be read where they already are. Other steps run the
function that Keras compiled, untouched.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_initkit.capture._random_state import replaced
from keras_initkit.capture.backends.tensorflow._graph import beside_readers, is_decided_later, is_inside, sums_kept
from keras_initkit.capture.backends.tensorflow._taps import (
    CapturedTensors,
    tapped_activation,
    tapped_apply,
    tapped_layer,
)
from keras_initkit.capture.step._meter import FindLayers, StepMeter, optimizers_of
from keras_initkit.capture.step._reduction import MeasurementSpec, Update, reduce_taps
from keras_initkit.capture.step._targets import units_last
from keras_initkit.statistics._ops import under_xla
from keras_initkit.statistics._sampling import take_sample
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._weights import main_weights


class TensorFlowStepMeter(StepMeter):
    """Measures single training steps of `model`; see `StepMeter`.

    Under `tf.distribute.MirroredStrategy` the figures are those of the global batch.

    Raises:
        ValueError: under a distribution strategy of several replicas that is another.
    """

    def __init__(self, model: keras.Model, find_layers: FindLayers, reading: MeasurementSpec):
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
        super().__init__(model, find_layers, reading)
        self._waited = False
        self._step = CapturedTensors()
        self._plain: Any = None
        self._instrumented: dict[bool, Callable] = {}  # with histograms, and without

    def _forget(self) -> None:
        self._instrumented = {}

    def _measured(self, plain: Any, iterator: Any) -> Any:
        if plain is not self._plain:
            self._plain, self._instrumented = plain, {}
        if self._histograms not in self._instrumented:
            measured = self._build(iterator)
            if measured is None:
                return plain(iterator)
            self._instrumented[self._histograms] = measured
        # Keras up to 3.6 looks `train_step` up when it traces, later versions when they make the function.
        # Replicas trace in threads by turns, so their layers are wrapped once for all.
        tapped = self._tapped() if self._replicas > 1 else contextlib.nullcontext()
        with replaced(self._model, "train_step", self._measured_step), tapped, sums_kept():
            logs, self._matrix = self._instrumented[self._histograms](iterator)
        return logs

    def _build(self, iterator: Any) -> Callable | None:
        """The training function of Keras, around a `train_step` that also returns the statistics.

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
            self._find()
        with replaced(model, "train_step", self._measured_step):
            try:
                model.make_train_function(force=True)
                return model.train_function
            finally:
                model.train_function = self._plain

    def _make_variables(self, iterator: Any) -> None:
        """What Keras would make while it traces the step. TensorFlow traces a step that makes variables twice.

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

    @contextlib.contextmanager
    def _tapped(self) -> Iterator[None]:
        """Layers and optimizers give away what passes through them."""
        with contextlib.ExitStack() as wrapped:
            for path, layer in self._layers.items():
                for name, function in tapped_layer(layer, path, self._step).items():
                    wrapped.enter_context(replaced(layer, name, function))
            for path, layer in self._activated.items():
                activation = tapped_activation(layer, path, self._step)
                wrapped.enter_context(replaced(layer, "activation", activation))
            for optimizer in optimizers_of(self._model):
                apply = tapped_apply(optimizer, self._model, self._layers, self._step)
                wrapped.enter_context(replaced(optimizer, "apply", apply))
            yield

    def _measured_step(self, data: Any) -> tuple[Any, tf.Tensor]:
        with under_xla(self._model.jit_compile and not self._model.run_eagerly):
            return self._measure(data)

    def _measure(self, data: Any) -> tuple[Any, tf.Tensor]:
        kinds, step = {tap.kind for tap in self._taps}, self._step
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        step.begin(graph, optimizers_of(self._model), self._model.optimizer)
        readings = step.readings
        weights = [(path, weight) for path, layer in self._layers.items() for weight in main_weights(layer)]
        # Read now: after the step they are others.
        before = [_value(weight) for _, weight in weights] if kinds & {"weight", "weight_update"} else []
        for (path, _), value in zip(weights, before, strict=False):
            readings[Tap("weight", path)].append(value)
        before = [take_sample(value, self._sample_size) for value in before] if "weight_update" in kinds else []
        try:
            with self._tapped() if self._replicas == 1 else contextlib.nullcontext():
                logs = self._train_step(data)
        finally:
            step.readings = None
        for (path, weight), value in zip(weights, before, strict=False):
            readings[Tap("weight_update", path)].append(Update(value, _value(weight)))
        seen = {
            tap: units_last(tap, self._layers[tap.layer], _readable(tap, readings[tap], graph)) for tap in self._taps
        }
        if self._replicas == 1:
            return logs, reduce_taps(seen, self._limits, self._sample_size, self._histograms)
        replica = tf.distribute.get_replica_context()
        seen |= {
            tap: [replica.all_reduce("SUM", x) for x in tensors]
            for tap, tensors in seen.items()
            if tap.kind == "weight_gradient"
        }
        over_replicas = functools.partial(replica.all_reduce, "SUM")
        rows = reduce_taps(seen, self._limits, self._sample_size, self._histograms, over_replicas)
        return logs, replica.all_gather(rows[None], axis=0)


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


def _value(weight: keras.Variable) -> tf.Tensor:
    return tf.convert_to_tensor(weight.value)


# What becomes of the training itself there, with or without a callback.
_MULTI_WORKER = " (Keras 3 does not train under MultiWorkerMirroredStrategy: keras issue 20585)"


def _readable(tap: Tap, tensors: list[tf.Tensor], graph: Any) -> list[tf.Tensor]:
    """What a tap saw and can be read here."""
    readable = [x for x in tensors if not is_inside(x[0] if isinstance(x, Update) else x, graph)]
    if len(readable) < len(tensors):
        warnings.warn(
            f"{tap.kind} of layer {tap.layer!r} is made inside a loop or a branch, where it cannot be read from "
            "outside; it is left out of the statistics.",
            stacklevel=2,
        )
    if tap.kind == "output":  # of the others, `beside` has been taken when they were made
        return [beside_readers(x) if is_decided_later(x) else x for x in readable]
    return readable


STEP_METER = TensorFlowStepMeter
