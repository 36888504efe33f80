"""A layer as the encoder of an auto-encoder."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit._progress_bar import progress_bar
from keras_initkit.capture._hooks import replaced
from keras_initkit.capture.backends import derivatives_backend
from keras_initkit.inputs._batches import shuffled_rows


class AutoEncoder:
    """A layer, and a decoder that shares its kernel."""

    def __init__(self, layer: keras.layers.Layer, given: np.ndarray):
        self._layer = layer
        self._unit_range = bool(given.min() >= 0 and given.max() <= 1)
        self._variables = [v for v in layer.trainable_variables if v is layer.kernel or v is layer.bias]
        self._values = [keras.ops.copy(v.value) for v in self._variables]
        offset = np.zeros(given.shape[_channel_axis(layer)])
        self._values.append(keras.ops.convert_to_tensor(offset, dtype="float32"))

    def learned(self) -> list[tuple[keras.Variable, Any]]:
        """The layer's own weights and what they are now."""
        return list(zip(self._variables, self._values, strict=False))

    def loss(self, values: list[Any], corrupted: Any, target: Any) -> Any:
        """How far the decoded code of `corrupted` is from `target`."""
        ops = keras.ops
        with self._holding(values):
            code = self._layer(corrupted)
        shape = [1] * len(target.shape)
        shape[_channel_axis(self._layer)] = -1
        decoded = self.transposed(values, code, target) + ops.reshape(values[-1], shape)
        target = ops.cast(target, "float32")
        if self._unit_range:
            # Binary cross-entropy from what the sigmoid is applied to, without overflow.
            return ops.mean(ops.maximum(decoded, 0) - decoded * target + ops.log1p(ops.exp(-ops.abs(decoded))))
        return ops.mean(ops.square(decoded - target))

    def transposed(self, values: list[Any], code: Any, like: Any) -> Any:
        """The adjoint of the layer's linear map, applied to `code`; of the shape of `like`, what the layer is given."""

        def along_code(inputs: list[Any], code: Any) -> Any:
            with self._holding(values), replaced(self._layer, "activation", keras.activations.linear):
                return keras.ops.sum(keras.ops.cast(code * self._layer(inputs[0]), "float32"))

        # The gradient of <h, W x + b> with respect to x is the adjoint of W applied to h, for any strides and padding.
        gradients_of = derivatives_backend().value_and_gradients(along_code)
        return keras.ops.cast(gradients_of([keras.ops.zeros_like(like)], code)[1][0], "float32")

    def _holding(self, values: list[Any]) -> keras.StatelessScope:
        return keras.StatelessScope(state_mapping=list(zip(self._variables, values, strict=False)))

    def fit(
        self,
        path: str,
        given: np.ndarray,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        noise: float,
        generator: np.random.Generator,
        title: str = "",
    ) -> list[float]:
        """Trains for so many epochs with Adam; returns the mean loss of each. A title shows a progress bar."""
        ops, backend = keras.ops, derivatives_backend()
        gradients_of = backend.value_and_gradients(self.loss)

        # Adam's update is part of the compiled step: Keras' own optimizers have no `stateless_apply` on TensorFlow, and
        # `apply`, called eagerly, takes three times as long there as the rest of the step.
        def step(values: list[Any], first: list[Any], second: list[Any], rates: Any, x: Any, target: Any) -> Any:
            loss, gradients = gradients_of(values, x, target)
            first = [0.9 * m + 0.1 * g for m, g in zip(first, gradients, strict=True)]
            second = [0.999 * v + 0.001 * ops.square(g) for v, g in zip(second, gradients, strict=True)]
            # rates: learning rate and bias correction of the second moment, of this step.
            values = [
                w - ops.cast(rates[0] * m / (ops.sqrt(v * rates[1]) + 1e-8), w.dtype)
                for w, m, v in zip(values, first, second, strict=True)
            ]
            return loss, values, first, second

        run = backend.compiled(step)
        first, second = ([ops.zeros_like(value) for value in self._values] for _ in range(2))
        size = min(batch_size, len(given))
        batches = len(given) // size
        rows, losses = shuffled_rows(len(given), size, generator), []
        with progress_bar(title, epochs * batches, bool(title)) as update:
            for count in range(1, epochs * batches + 1):
                target = given[next(rows)]
                kept = generator.random(target.shape) >= noise if noise else 1.0
                rates = np.array([learning_rate / (1 - 0.9**count), 1 / (1 - 0.999**count)], "float32")
                tensors = (
                    ops.convert_to_tensor(each) for each in (rates, (target * kept).astype(target.dtype), target)
                )
                loss, self._values, first, second = run(self._values, first, second, *tensors)
                losses.append(float(to_numpy(loss)))
                if not np.isfinite(losses[-1]):
                    raise ValueError(
                        f"pretraining: the auto-encoder of layer {path!r} diverged at step {count}. "
                        f"Lower learning_rate (it is {learning_rate:g}), or scale the data."
                    )
                update(count, f"{title}, loss {losses[-1]:.3g}")
        return np.mean(np.reshape(losses, (epochs, batches)), axis=1).tolist()


def _channel_axis(layer: keras.layers.Layer) -> int:
    return 1 if getattr(layer, "data_format", "channels_last") == "channels_first" else -1
