"""Layers and optimizers of a TensorFlow step that give away what passes through them."""

from __future__ import annotations

import functools
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_initkit.capture.backends.tensorflow._graph import beside, beside_joined, is_decided_later, is_inside
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._weights import main_weights


class CapturedTensors(threading.local):
    """What the step that this thread traces or runs has read so far: replicas have threads of their own."""

    readings: Any = None  # lists of tensors by tap; `None` outside a step
    losses: Counter[str]  # how often a layer has called `add_loss`
    graph: Any = None
    unscale: dict[int, Callable]  # by the optimizer's id

    def begin(self, graph: Any, optimizers: list[keras.optimizers.Optimizer], main: Any) -> None:
        """Nothing has been read, in a graph (`None`: eagerly), under these optimizers, of which one is the model's."""
        self.readings, self.losses, self.graph = defaultdict(list), Counter(), graph
        every = {id(x): _unless_inside(graph, _loss_unscaling(x)) for x in (main, *optimizers)}
        self.unscale, self.unscale_signal = every, every[id(main)]


def _loss_unscaling(optimizer: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    """What undoes the loss scaling of mixed precision on a gradient; the identity where there is none."""
    one = tf.ones(())
    scale = one if optimizer is None else optimizer.scale_loss(one)
    if scale is one:
        return lambda gradient: gradient
    return lambda gradient: tf.cast(gradient, tf.float32) / tf.cast(scale, tf.float32)


def _unless_inside(graph: Any, unscale: Callable) -> Callable[[tf.Tensor], tf.Tensor]:
    return lambda gradient: gradient if is_inside(gradient, graph) else unscale(beside_joined(gradient))


def tapped_layer(layer: keras.layers.Layer, path: str, step: CapturedTensors) -> dict[str, Callable]:
    """The layer's `call` and `add_loss`, listened to."""
    original, original_add_loss = layer.call, layer.add_loss

    observed = _observed(Tap("output_gradient", path), step)

    def add_loss(loss: Any) -> None:
        if step.readings is not None:
            step.losses[path] += 1
        original_add_loss(loss)

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        if step.readings is None:  # called beside the step
            return original(*args, **kwargs)
        losses = step.losses[path]
        outputs = original(*args, **kwargs)
        flat = tf.nest.flatten(outputs)
        signals = {id(x): x for x in flat if isinstance(x, tf.Tensor) and x.dtype.is_floating}
        if not signals:
            return outputs
        output = next(iter(signals.values()))
        if is_inside(output, step.graph):
            step.readings[Tap("output", path)].append(output)
            return outputs
        step.readings[Tap("output", path)].append(output if is_decided_later(output) else beside(output))
        # Where the layer itself goes on with its output, to a loss or a second output, the gradient has more
        # parts than come back through the outputs; summed in another order, its last bits would change.
        used = len(signals) > 1 and tf.is_symbolic_tensor(output) and output.consumers()
        if step.losses[path] > losses or used:
            return outputs
        marked = _with_keras_marks(output, observed)
        return tf.nest.pack_sequence_as(outputs, [marked if x is output else x for x in flat])

    return {"call": call, "add_loss": add_loss}


def tapped_activation(layer: keras.layers.Layer, path: str, step: CapturedTensors) -> Callable:
    """The layer's activation: what it is applied to is read, and the gradient that comes back through that."""
    original = layer.activation
    observed = _observed(Tap("pre_activation_gradient", path), step)

    @functools.wraps(original)
    def activation(x: Any, *args: Any, **kwargs: Any) -> Any:
        if step.readings is None or not isinstance(x, tf.Tensor) or not x.dtype.is_floating:
            return original(x, *args, **kwargs)
        seen = step.readings[Tap("pre_activation", path)]
        if is_inside(x, step.graph):
            seen.append(x)
            return original(x, *args, **kwargs)
        seen.append(beside(x))
        # An identity, which TensorFlow removes before it fuses.
        return original(observed(x), *args, **kwargs)

    return activation


def _observed(tap: Tap, step: CapturedTensors) -> Callable[[tf.Tensor], tf.Tensor]:
    """The identity; the gradient that comes back through it is read."""

    @tf.custom_gradient
    def observed(tensor: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        readings, unscale = step.readings, step.unscale_signal

        def backward(gradient: tf.Tensor) -> tf.Tensor:
            readings[tap].append(unscale(tf.convert_to_tensor(gradient)))
            return gradient

        return tf.identity(tensor), backward

    return observed


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


def tapped_apply(
    optimizer: Any, model: keras.Model, layers: dict[str, keras.layers.Layer], step: CapturedTensors
) -> Callable:
    """The optimizer's `apply`, listened to."""
    original = optimizer.apply
    owners = {id(weight): path for path, layer in layers.items() for weight in main_weights(layer)}

    @functools.wraps(original)
    def apply(grads: Any, trainable_variables: Any = None) -> Any:
        grads = list(grads)
        variables = model.trainable_variables if trainable_variables is None else list(trainable_variables)
        for gradient, variable in zip(grads, variables, strict=False):
            if step.readings is not None and gradient is not None and id(variable) in owners:
                # An embedding's gradient is sparse; rows that no example used have a gradient of zero.
                dense = step.unscale[id(optimizer)](tf.convert_to_tensor(gradient))
                step.readings[Tap("weight_gradient", owners[id(variable)])].append(dense)
        return original(grads, trainable_variables)

    return apply
