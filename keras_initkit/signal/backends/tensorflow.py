"""One training step, measured from inside, on the TensorFlow backend.

`fit` looks up `model.train_function` at every step. For a measured step it finds a second function there,
which Keras built around the same `train_step`; while that is traced, the layers' `call` and the optimizer's
`apply` are wrapped, so that outputs and gradients can be read where they already are. Other steps run the
function that Keras compiled, untouched.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_initkit.signal.moments import EMPTY_ROW, Moments, reduce_on_device
from keras_initkit.signal.taps import Tap, kernels_of, taps_of

Readings = defaultdict[Tap, list[tf.Tensor]]


class StepMeter:
    """Measures single training steps of `model`.

    Args:
        model: a compiled model.
        layers: the layers to read, by path.

    Raises:
        ValueError: under a distribution strategy of several replicas.
    """

    def __init__(self, model: keras.Model, layers: dict[str, keras.layers.Layer]):
        replicas = model.distribute_strategy.num_replicas_in_sync
        if replicas > 1:
            raise ValueError(
                f"LayerStatsCallback: the model trains on {replicas} replicas ({model.distribute_strategy}), "
                "expected one. Train without a distribution strategy to measure layers, or leave the callback out."
            )
        self._model, self._layers = model, layers
        self._taps = taps_of(layers)
        self._plain: Any = None
        self._instrumented: Any = None
        self._rows: Any = None

    def arm(self) -> None:
        """Have the next training step measured. Whatever becomes of it, the one after is a plain one."""
        model, self._rows = self._model, None
        if self._instrumented is None or self._plain is not model.train_function:
            self._plain = model.train_function
            self._instrumented = self._build()
        model.train_function = self._measured_function

    def _measured_function(self, iterator: Any) -> Any:
        """Stands in for the training function, once."""
        try:
            # Keras up to 3.6 looks `train_step` up when it traces, later versions when they make the function.
            with _replaced(self._model, "train_step", self._measured_step):
                logs, self._rows = self._instrumented(iterator)
        finally:
            self._model.train_function = self._plain
        return logs

    def collect(self) -> dict[Tap, Moments]:
        """What the measured step read; empty if it did not take place."""
        if self._rows is None:
            return {}
        rows, self._rows = np.asarray(self._rows), None
        return {tap: Moments.from_row(row) for tap, row in zip(self._taps, rows, strict=True) if row[0]}

    def _build(self) -> Callable:
        """The training function of Keras, around a `train_step` that also returns the statistics."""
        model, self._train_step = self._model, self._model.train_step
        with _replaced(model, "train_step", self._measured_step):
            try:
                model.make_train_function(force=True)
                return model.train_function
            finally:
                model.train_function = self._plain

    def _measured_step(self, data: Any) -> tuple[Any, tf.Tensor]:
        model, readings = self._model, defaultdict(list)
        for path, layer in self._layers.items():  # read now: after the step they are others
            readings[Tap("weight", path)] = [tf.convert_to_tensor(weight.value) for weight in kernels_of(layer)]
        unscale = _loss_unscaling(model.optimizer)
        with contextlib.ExitStack() as wrapped:
            for path, layer in self._layers.items():
                wrapped.enter_context(_tapped_layer(layer, path, readings, unscale))
            if model.optimizer is not None:
                wrapped.enter_context(_tapped_optimizer(model, self._layers, readings, unscale))
            logs = self._train_step(data)
        return logs, tf.stack([_row(tap, readings[tap]) for tap in self._taps])


@contextlib.contextmanager
def _replaced(owner: Any, name: str, function: Callable) -> Iterator[None]:
    """`owner.name` is `function` for a while: on the instance alone, past the attribute tracking of Keras."""
    attributes = vars(owner)
    before = attributes.get(name)
    attributes[name] = function
    try:
        yield
    finally:
        if before is None:
            del attributes[name]
        else:
            attributes[name] = before


def _loss_unscaling(optimizer: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    """What undoes the loss scaling of mixed precision on a gradient; the identity where there is none."""
    one = tf.ones(())
    scale = one if optimizer is None else optimizer.scale_loss(one)
    if scale is one:
        return lambda gradient: gradient
    return lambda gradient: tf.cast(gradient, tf.float32) / tf.cast(scale, tf.float32)


def _tapped_layer(layer: keras.layers.Layer, path: str, readings: Readings, unscale: Callable) -> Any:
    original = layer.call

    @tf.custom_gradient
    def observed(output: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def backward(gradient: tf.Tensor) -> tf.Tensor:
            readings[Tap("activation_gradient", path)].append(unscale(tf.convert_to_tensor(gradient)))
            return gradient

        return tf.identity(output), backward

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        outputs = original(*args, **kwargs)
        flat = tf.nest.flatten(outputs)
        for index, output in enumerate(flat):
            if isinstance(output, tf.Tensor) and output.dtype.is_floating:
                readings[Tap("activation", path)].append(_beside(output))
                flat[index] = _with_keras_marks(output, observed)
                break
        return tf.nest.pack_sequence_as(outputs, flat)

    return _replaced(layer, "call", call)


# What TensorFlow's graph optimizer (remapper.cc) fuses with a bias and with an activation or sum that follows.
_FUSED_PRODUCTS = {"MatMul", "BatchMatMulV2", "Einsum", "Conv2D", "Conv3D", "DepthwiseConv2dNative"}
_FUSED_BIASES = {"BiasAdd", "AddV2"}


def _beside(output: tf.Tensor) -> tf.Tensor:
    """`output` for reading: itself, or computed once more where reading it would undo a fusion.

    A product or convolution runs as one kernel with the bias and the activation after it, as long as nothing
    else reads what is between; a fused kernel rounds differently from its parts. So a linear layer's output
    is read from a second product. `PlaceholderWithDefault` keeps the optimizer from merging the two.
    """
    if not tf.is_symbolic_tensor(output):
        return output
    with_bias = output.op.type in _FUSED_BIASES
    linear = output.op.inputs[0] if with_bias else output
    if linear.op.type not in _FUSED_PRODUCTS:
        return output
    inputs = [tf.raw_ops.PlaceholderWithDefault(input=x, shape=x.shape) for x in linear.op.inputs]
    again = _replayed(linear.op, inputs)
    return _replayed(output.op, [again, output.op.inputs[1]]) if with_bias else again


def _replayed(op: tf.Operation, inputs: list[tf.Tensor]) -> tf.Tensor:
    """The output of the same operation on these inputs."""
    function = getattr(tf.raw_ops, op.type)
    accepted = inspect.signature(function).parameters
    names = [argument.name for argument in op.op_def.input_arg]
    attributes = {a.name: op.get_attr(a.name) for a in op.op_def.attr if a.name in accepted}
    return function(**dict(zip(names, inputs, strict=True)), **attributes)


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
    model: keras.Model, layers: dict[str, keras.layers.Layer], readings: Readings, unscale: Callable
) -> Any:
    original = model.optimizer.apply
    owners = {id(weight): path for path, layer in layers.items() for weight in kernels_of(layer)}

    @functools.wraps(original)
    def apply(grads: Any, trainable_variables: Any = None) -> Any:
        grads = list(grads)
        variables = list(model.trainable_variables if trainable_variables is None else trainable_variables)
        for gradient, variable in zip(grads, variables, strict=False):
            if gradient is not None and id(variable) in owners:
                # An embedding's gradient is sparse; rows that no example used have a gradient of zero.
                dense = unscale(tf.convert_to_tensor(gradient))
                readings[Tap("weight_gradient", owners[id(variable)])].append(dense)
        return original(grads, trainable_variables)

    return _replaced(model.optimizer, "apply", apply)


def _row(tap: Tap, tensors: list[tf.Tensor]) -> tf.Tensor:
    """Moments of all that a tap saw, as one row; an empty row where it saw nothing that can be read here."""
    here = tf.compat.v1.get_default_graph() if not tf.executing_eagerly() else None
    readable = [x for x in tensors if not tf.is_symbolic_tensor(x) or x.graph is here]
    if len(readable) < len(tensors):
        warnings.warn(
            f"{tap.kind} of layer {tap.layer!r} is made inside a loop or a branch, where it cannot be read from "
            "outside; it is left out of the statistics.",
            stacklevel=2,
        )
    if not readable:
        return tf.constant(EMPTY_ROW, tf.float64)
    if len(readable) > 1:
        readable = [tf.concat([tf.reshape(x, [-1]) for x in readable], axis=0)]
    return reduce_on_device(readable[0])
