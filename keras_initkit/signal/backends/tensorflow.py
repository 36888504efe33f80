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

from keras_initkit.signal.backends.norms import under_xla
from keras_initkit.signal.backends.tensorflow_graph import beside_product, is_bare_product, is_inside
from keras_initkit.signal.backends.tensorflow_taps import StepReadings, tapped_activation, tapped_apply, tapped_layer
from keras_initkit.signal.report import TensorStats
from keras_initkit.signal.sampling import sample_of
from keras_initkit.signal.state import replaced
from keras_initkit.signal.step import StepReading, Update, reduce_taps, rows_of
from keras_initkit.signal.taps import kernels_of, taps_of, units_last, with_activation
from keras_initkit.signal.units import output_limits
from keras_initkit.structure.taps import Tap


class StepMeter:
    """Measures single training steps of `model`; see `signal.backends.step_meter`.

    Under `tf.distribute.MirroredStrategy` the figures are those of the global batch.

    Raises:
        ValueError: under a distribution strategy of several replicas that is another.
    """

    def __init__(
        self,
        model: keras.Model,
        find_layers: Callable[[keras.Model], dict[str, keras.layers.Layer]],
        reading: StepReading,
    ):
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
        self._model, self._find_layers, self._reading = model, find_layers, reading
        self._sharing = [self]  # the meters that this one measures for
        self._layers: dict[str, keras.layers.Layer] = {}
        self._taps: list[Tap] = []
        self._activated: dict[str, keras.layers.Layer] = {}  # those whose pre-activations are read
        self._own: tuple[list[Tap], list[Tap]] = ([], [])  # what was measured last, and what of it was asked for here
        self._source = self  # the meter that measures for this one: another, where two callbacks share a step
        self._waited = self._histograms = False
        self._step = StepReadings()
        self._plain: Any = None
        self._instrumented: dict[bool, Callable] = {}  # with histograms, and without
        self._rows: Any = None

    def arm(self, histograms: bool = False) -> None:
        """Have the next training step measured. Whatever becomes of it, the one after is a plain one."""
        model, self._rows = self._model, None
        armed = getattr(model.train_function, "__self__", None)
        if isinstance(armed, StepMeter):  # by another callback, or for a step that never came
            self._source = armed
            armed._histograms |= histograms
            if self not in armed._sharing:
                armed._sharing.append(self)
                armed._instrumented = {}
            return
        self._source, self._replaced_function, self._histograms = self, model.train_function, histograms
        model.train_function = self._measured_function

    def _measured_function(self, iterator: Any) -> Any:
        """Stands in for the training function, once."""
        model = self._model
        model.train_function = self._replaced_function
        model.make_train_function()  # where `train_on_batch` has not yet
        if self._plain is not model.train_function:
            self._plain, self._instrumented = model.train_function, {}
        if self._histograms not in self._instrumented:
            measured = self._build(iterator)
            if measured is None:
                return self._plain(iterator)
            self._instrumented[self._histograms] = measured
        # Keras up to 3.6 looks `train_step` up when it traces, later versions when they make the function.
        # Replicas trace in threads by turns, so their layers are wrapped once for all.
        tapped = self._tapped() if self._replicas > 1 else contextlib.nullcontext()
        with replaced(model, "train_step", self._measured_step), tapped:
            logs, self._rows = self._instrumented[self._histograms](iterator)
        return logs

    def collect(self) -> list[TensorStats]:
        """The rows that the measured step read; none if it did not take place."""
        meter = self._source
        if meter._rows is None:
            return []
        if self._own[0] is not meter._taps:
            self._own = meter._taps, taps_of(self._find_layers(self._model), self._reading.kinds)
        types = {path: type(layer).__name__ for path, layer in meter._layers.items()}
        rows = {row.tap: row for row in rows_of(meter._taps, meter._rows, types)}
        return [rows[tap] for tap in self._own[1] if tap in rows]

    def _build(self, iterator: Any) -> Callable | None:
        """The training function of Keras, around a `train_step` that also returns the statistics.

        The layers of a subclassed model are built, and then known, once its step has been traced; where it
        cannot be traced without being run (eagerly, or on a Python iterator), the step is not measured.
        """
        model, self._train_step = self._model, self._model.train_step
        if self._replicas > 1 and model.built and model.optimizer is not None and not model.optimizer.built:
            # Later versions of Keras do this by themselves. Variables made while a step is traced would have it run
            # under a condition, in which TensorFlow 2.16 loses what replicas pass to conditions of their own.
            with model.distribute_strategy.scope():
                model.optimizer.build(model.trainable_variables)
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
            self._choose()
        with replaced(model, "train_step", self._measured_step):
            try:
                model.make_train_function(force=True)
                return model.train_function
            finally:
                model.train_function = self._plain

    def _choose(self) -> None:
        """What is to be read for all the meters that share the step."""
        readings = [meter._reading for meter in self._sharing]
        sizes = [reading.sample_size for reading in readings]
        self._sample_size = None if None in sizes else max(size for size in sizes if size is not None)
        self._layers = {path: x for meter in self._sharing for path, x in meter._find_layers(self._model).items()}
        self._taps = taps_of(self._layers, {kind for reading in readings for kind in reading.kinds})
        self._activated = with_activation(self._layers, self._taps)
        limits = {path: output_limits(layer) for path, layer in self._layers.items()}
        self._limits = {path: limit for path, limit in limits.items() if limit is not None}

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
            for optimizer in _optimizers(self._model):
                apply = tapped_apply(optimizer, self._model, self._layers, self._step)
                wrapped.enter_context(replaced(optimizer, "apply", apply))
            yield

    def _measured_step(self, data: Any) -> tuple[Any, tf.Tensor]:
        with under_xla(self._model.jit_compile and not self._model.run_eagerly):
            return self._measure(data)

    def _measure(self, data: Any) -> tuple[Any, tf.Tensor]:
        kinds, step = {tap.kind for tap in self._taps}, self._step
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        step.begin(graph, _optimizers(self._model), self._model.optimizer)
        readings = step.readings
        weights = [(path, weight) for path, layer in self._layers.items() for weight in kernels_of(layer)]
        # Read now: after the step they are others.
        before = [_value(weight) for _, weight in weights] if kinds & {"weight", "weight_update"} else []
        for (path, _), value in zip(weights, before, strict=False):
            readings[Tap("weight", path)].append(value)
        before = [sample_of(value, self._sample_size) for value in before] if "weight_update" in kinds else []
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


def _value(weight: keras.Variable) -> tf.Tensor:
    return tf.convert_to_tensor(weight.value)


# What becomes of the training itself there, with or without a callback.
_MULTI_WORKER = " (Keras 3 does not train under MultiWorkerMirroredStrategy: keras issue 20585)"


def _optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """The optimizer of `compile` and those that a model with its own `train_step` keeps as attributes."""
    candidates = [model.optimizer, *vars(model).values()]
    return list({id(x): x for x in candidates if isinstance(x, keras.optimizers.Optimizer)}.values())


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
        return [beside_product(x) if is_bare_product(x) else x for x in readable]
    return readable
