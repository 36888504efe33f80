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
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_initkit.signal.backends.tensorflow_graph import beside, beside_joined, is_inside
from keras_initkit.signal.report import TensorStats
from keras_initkit.signal.sampling import sample_of
from keras_initkit.signal.state import replaced
from keras_initkit.signal.step import StepReading, Update, reduce_taps, rows_of
from keras_initkit.signal.taps import kernels_of, taps_of
from keras_initkit.signal.units import output_limits
from keras_initkit.structure.taps import Tap

Readings = defaultdict[Tap, list[tf.Tensor]]


class StepMeter:
    """Measures single training steps of `model`; see `signal.backends.step_meter`.

    Raises:
        ValueError: under a distribution strategy of several replicas.
    """

    def __init__(
        self,
        model: keras.Model,
        find_layers: Callable[[keras.Model], dict[str, keras.layers.Layer]],
        reading: StepReading,
    ):
        replicas = model.distribute_strategy.num_replicas_in_sync
        if replicas > 1:
            raise ValueError(
                f"LayerStatsCallback: the model trains on {replicas} replicas ({model.distribute_strategy}), "
                "expected one. Train without a distribution strategy to measure layers, or leave the callback out."
            )
        self._model, self._find_layers, self._reading = model, find_layers, reading
        self._sharing = [self]  # the meters that this one measures for
        self._layers: dict[str, keras.layers.Layer] = {}
        self._taps: list[Tap] = []
        self._own: tuple[list[Tap], list[Tap]] = ([], [])  # what was measured last, and what of it was asked for here
        self._source = self  # the meter that measures for this one: another, where two callbacks share a step
        self._waited = self._histograms = False
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
        with replaced(model, "train_step", self._measured_step):
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
        if hasattr(self._plain, "get_concrete_function") and isinstance(iterator, tf.data.Iterator):
            # Keras up to 3.6, whose TensorBoard callback expects the first batch to have traced it.
            self._plain.get_concrete_function(iterator)
        if not model.built or not all(layer.built for layer in model.layers):
            eager = model.run_eagerly or tf.config.functions_run_eagerly()
            if not eager and isinstance(iterator, tf.data.Iterator):
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
        self._sample_size = None if None in sizes else max(sizes)
        self._layers = {path: x for meter in self._sharing for path, x in meter._find_layers(self._model).items()}
        self._taps = taps_of(self._layers, {kind for reading in readings for kind in reading.kinds})
        limits = {path: output_limits(layer) for path, layer in self._layers.items()}
        self._limits = {path: limit for path, limit in limits.items() if limit is not None}

    def _plain_step(self, data: Any) -> Any:
        # Keras hands the `None` among the data over as an empty optional.
        data = tf.nest.map_structure(lambda x: None if isinstance(x, tf.experimental.Optional) else x, data)
        return self._model.distribute_strategy.run(self._train_step, args=(data,))

    def _measured_step(self, data: Any) -> tuple[Any, tf.Tensor]:
        model, readings, kinds = self._model, defaultdict(list), {tap.kind for tap in self._taps}
        weights = [(path, weight) for path, layer in self._layers.items() for weight in kernels_of(layer)]
        # Read now: after the step they are others.
        before = [_value(weight) for _, weight in weights] if kinds & {"weight", "weight_update"} else []
        for (path, _), value in zip(weights, before, strict=False):
            readings[Tap("weight", path)].append(value)
        before = [sample_of(value, self._sample_size) for value in before] if "weight_update" in kinds else []
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        unscale = _unless_inside(graph, _loss_unscaling(model.optimizer))
        with contextlib.ExitStack() as wrapped:
            for path, layer in self._layers.items():
                wrapped.enter_context(_tapped_layer(layer, path, readings, unscale, graph))
            for optimizer in _optimizers(model):
                unscale = _unless_inside(graph, _loss_unscaling(optimizer))
                wrapped.enter_context(_tapped_optimizer(optimizer, model, self._layers, readings, unscale))
            logs = self._train_step(data)
        for (path, weight), value in zip(weights, before, strict=False):
            readings[Tap("weight_update", path)].append(Update(value, _value(weight)))
        seen = {tap: _readable(tap, readings[tap], graph) for tap in self._taps}
        return logs, reduce_taps(seen, self._limits, self._sample_size, self._histograms)


def _value(weight: keras.Variable) -> tf.Tensor:
    return tf.convert_to_tensor(weight.value)


def _optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """The optimizer of `compile` and those that a model with its own `train_step` keeps as attributes."""
    candidates = [model.optimizer, *vars(model).values()]
    return list({id(x): x for x in candidates if isinstance(x, keras.optimizers.Optimizer)}.values())


def _loss_unscaling(optimizer: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    """What undoes the loss scaling of mixed precision on a gradient; the identity where there is none."""
    one = tf.ones(())
    scale = one if optimizer is None else optimizer.scale_loss(one)
    if scale is one:
        return lambda gradient: gradient
    return lambda gradient: tf.cast(gradient, tf.float32) / tf.cast(scale, tf.float32)


def _unless_inside(graph: Any, unscale: Callable) -> Callable[[tf.Tensor], tf.Tensor]:
    return lambda gradient: gradient if is_inside(gradient, graph) else unscale(beside_joined(gradient))


def _tapped_layer(layer: keras.layers.Layer, path: str, readings: Readings, unscale: Callable, graph: Any) -> Any:
    original, original_add_loss = layer.call, layer.add_loss

    @tf.custom_gradient
    def observed(output: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def backward(gradient: tf.Tensor) -> tf.Tensor:
            readings[Tap("output_gradient", path)].append(unscale(tf.convert_to_tensor(gradient)))
            return gradient

        return tf.identity(output), backward

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        losses = []

        def add_loss(loss: Any) -> None:
            losses.append(loss)
            original_add_loss(loss)

        with replaced(layer, "add_loss", add_loss):
            outputs = original(*args, **kwargs)
        flat = tf.nest.flatten(outputs)
        signals = {id(x): x for x in flat if isinstance(x, tf.Tensor) and x.dtype.is_floating}
        if not signals:
            return outputs
        output = next(iter(signals.values()))
        if is_inside(output, graph):
            readings[Tap("output", path)].append(output)
            return outputs
        readings[Tap("output", path)].append(beside(output))
        # Where the layer itself goes on with its output, to a loss or a second output, the gradient has more
        # parts than come back through the outputs; summed in another order, its last bits would change.
        used = len(signals) > 1 and tf.is_symbolic_tensor(output) and output.consumers()
        if losses or used:
            return outputs
        marked = _with_keras_marks(output, observed)
        return tf.nest.pack_sequence_as(outputs, [marked if x is output else x for x in flat])

    return replaced(layer, "call", call)


def _with_keras_marks(output: tf.Tensor, observed: Callable) -> tf.Tensor:
    """`observed(output)`, so that Keras takes it for the same tensor.

    Keras' losses look for the logits behind a softmax or sigmoid output: in an attribute that its own
    activations set, or, in a graph, as the input of an op of that type. The first is carried over, and the
    gradient that comes back through the logits is the layer's. The second has no place on another tensor,
    so an output of `tf.nn.softmax` or `tf.nn.sigmoid` stays as it is, and its gradient is not read.
    """
    logits = getattr(output, "_keras_logits", None)
    if logits is None and tf.is_symbolic_tensor(output) and output.op.type in ("Softmax", "Sigmoid"):
        return output
    result = observed(output)
    if logits is not None:
        result._keras_logits = observed(logits)
    if hasattr(output, "_keras_mask"):  # of a layer that sets its mask by itself
        result._keras_mask = output._keras_mask
    return result


def _tapped_optimizer(
    optimizer: Any, model: keras.Model, layers: dict[str, keras.layers.Layer], readings: Readings, unscale: Callable
) -> Any:
    original = optimizer.apply
    owners = {id(weight): path for path, layer in layers.items() for weight in kernels_of(layer)}

    @functools.wraps(original)
    def apply(grads: Any, trainable_variables: Any = None) -> Any:
        grads = list(grads)
        variables = model.trainable_variables if trainable_variables is None else list(trainable_variables)
        for gradient, variable in zip(grads, variables, strict=False):
            if gradient is not None and id(variable) in owners:
                # An embedding's gradient is sparse; rows that no example used have a gradient of zero.
                dense = unscale(tf.convert_to_tensor(gradient))
                readings[Tap("weight_gradient", owners[id(variable)])].append(dense)
        return original(grads, trainable_variables)

    return replaced(optimizer, "apply", apply)


def _readable(tap: Tap, tensors: list[tf.Tensor], graph: Any) -> list[tf.Tensor]:
    """What a tap saw and can be read here."""
    readable = [x for x in tensors if not is_inside(x[0] if isinstance(x, Update) else x, graph)]
    if len(readable) < len(tensors):
        warnings.warn(
            f"{tap.kind} of layer {tap.layer!r} is made inside a loop or a branch, where it cannot be read from "
            "outside; it is left out of the statistics.",
            stacklevel=2,
        )
    return readable
