"""How a training step's tensors and their gradients are read on the TensorFlow backend."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_initkit._compat import copy_keras_mask, keras_leaves_logits, keras_logits, set_keras_logits
from keras_initkit.capture.backends import is_signal
from keras_initkit.capture.backends.tensorflow._graph import is_inside, unfused_copy
from keras_initkit.capture.step._captured import Unscale
from keras_initkit.capture.step._measurement import StepMeasurement
from keras_initkit.statistics._tap import Tap


class TensorFlowReading(StepMeasurement):
    """Reads a step where it is traced, or where it runs eagerly; see `StepReader`."""

    def _is_readable(self, tensor: tf.Tensor, scope: Any) -> bool:
        return not is_inside(tensor, scope)

    def _has_whole_gradient(self, output: tf.Tensor, outputs: list[Any], inputs: Any, added_loss: bool) -> bool:
        several = len({id(x) for x in outputs if is_signal(x)}) > 1
        return not (added_loss or (several and tf.is_symbolic_tensor(output) and output.consumers()))

    def _read(self, tensor: tf.Tensor, tap: Tap, on_value: Unscale, on_gradient: Unscale | None) -> tf.Tensor:
        captured = self._captured
        if captured is None or is_inside(tensor, captured.scope):
            return tensor
        on_value(tensor)
        if on_gradient is None:
            return tensor
        observed = functools.partial(_observed, on_gradient=on_gradient)
        # An identity, which TensorFlow removes before it fuses.
        return _with_keras_marks(tensor, observed) if tap.kind == "output" else observed(tensor)

    def _dense(self, gradient: Any) -> tf.Tensor:
        # An embedding's gradient is sparse; rows that no example used have a gradient of zero.
        return tf.convert_to_tensor(gradient)

    def _loss_unscaling(self, optimizer: Any) -> Unscale:
        unscale, one = super()._loss_unscaling(optimizer), tf.ones(())
        if unscale(one) is one:
            return unscale
        return lambda gradient: unscale(unfused_copy(gradient, is_gradient=True, is_complete=False))

    def _finished(self, tap: Tap, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        if tap.kind in ("weight", "weight_update"):
            return tensors
        # Only now is it known what else reads them.
        return [unfused_copy(x, is_gradient=tap.kind.endswith("gradient")) for x in tensors]


def _observed(tensor: tf.Tensor, on_gradient: Unscale) -> tf.Tensor:
    """Returns the same values; the gradient that comes back through them is read."""

    @tf.custom_gradient
    def identity(tensor: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def backward(gradient: tf.Tensor) -> tf.Tensor:
            on_gradient(tf.convert_to_tensor(gradient))
            return gradient

        return tf.identity(tensor), backward

    return identity(tensor)


def _with_keras_marks(output: tf.Tensor, observed: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Returns `observed(output)`, which Keras takes for the same tensor.

    Keras' losses look for the logits behind a softmax or sigmoid output: in an attribute that its own
    activations set, or, in a graph, as the input of an op of that type. The first is carried over, and the
    gradient that comes back through the logits is the layer's. The second has no place on another tensor,
    so an output of `tf.nn.softmax` or `tf.nn.sigmoid` stays as it is, and its gradient is not read.
    """
    logits = keras_logits(output)
    if logits is None and tf.is_symbolic_tensor(output) and output.op.type in ("Softmax", "Sigmoid"):
        return output
    if not keras_leaves_logits() and not tf.is_symbolic_tensor(output):  # any may be one whose logits Keras looks for
        return output
    result = observed(output)
    if logits is not None:
        set_keras_logits(result, observed(logits))
    copy_keras_mask(output, result)  # of a layer that sets its mask by itself
    return result
