"""Greedy layer-wise pre-training by auto-encoders."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_initkit.schemes.plan import Plan
from keras_initkit.schemes.registry import register_scheme
from keras_initkit.signal.backends import derivatives_backend
from keras_initkit.signal.state import random_state_kept, replaced

ENCODERS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


@register_scheme("pretraining")
def pretraining(
    plan: Plan,
    epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    noise: float = 0.0,
    verbose: int = 1,
) -> None:
    r"""Each Dense and Conv layer in turn learns, as an auto-encoder, to keep what it is given.

        h = f(W x~ + b),    x^ = g(W' h + c),    minimise the distance of x^ from x over W, b and c

    x is what the layer really gets, from the layers before it as they have been pre-trained, f its own activation,
    x~ is x with a share `noise` of its elements set to zero. W' is the adjoint of the layer's linear map: the
    transposed matrix of a Dense layer, the transposed convolution of a Conv layer with its strides, padding and
    groups. So the decoder has no kernel of its own (tied weights): a small W with a large W', which would leave the
    units in their linear range, is not possible. The decoder is thrown away.

    Where all x lie in [0, 1] (images, what a sigmoid puts out), g is a sigmoid and the distance the binary
    cross-entropy; else g is the identity and the distance the mean square. W starts from the weights that the layer
    has; Adam does the steps. Layers whose output is the model's are left for fine-tuning: they learn from labels.
    A layer that is called several times learns from its first call's input. Layers before it behave as in training.

    Args:
        plan: what may be set, and data.
        epochs: over the data, for each layer.
        batch_size: examples of a batch; what is left over after the last full batch of an epoch is not used.
        learning_rate: of Adam.
        noise: share of each example's elements that is masked, from 0 to below 1 (denoising auto-encoder).
        verbose: 0 shows no progress bar.

    Raises:
        ValueError: if there is no data, an option is out of range, there is no layer to pre-train, or training
            diverges; no weight has changed then.

    Source: Bengio et al. 2007; Vincent et al. 2008 (denoising, tied weights).
    """
    if plan.x is None:
        raise ValueError("pretraining: got no data, expected data=x: the layers learn to keep what they are given.")
    for name, value in {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}.items():
        if not value > 0:
            raise ValueError(f"{name}: got {value!r}, expected a positive number.")
    if not 0 <= noise < 1:
        raise ValueError(f"noise: got {noise!r}, expected a share from 0 to 1, 1 excluded.")
    x = keras.tree.map_structure(_numpy, plan.x)
    learned: dict[int, tuple[keras.Variable, Any]] = {}
    with random_state_kept():
        order = _order_of_flow(plan, x)
        for number, path in enumerate(order):
            layer = plan.layers[path]
            given = _given(plan.model, layer, x, list(learned.values()), batch_size)
            if not np.isfinite(given).all():
                raise ValueError(f"pretraining: what layer {path!r} is given is not finite. Look for NaN in the data.")
            if verbose:
                print(f"Pre-training {path} ({number + 1} of {len(order)})")
            generator = np.random.default_rng([plan.seed, number])
            encoder = _AutoEncoder(layer, given)
            encoder.fit(path, given, epochs, batch_size, learning_rate, noise, generator, verbose)
            learned |= {id(variable): (variable, value) for variable, value in encoder.learned()}
    for variable, value in learned.values():
        plan.assign(variable, value)


def _order_of_flow(plan: Plan, x: Any) -> list[str]:
    """Paths of the layers to pre-train in the order in which a forward pass calls them; the others are told why not."""
    called: list[str] = []
    outputs: dict[str, Any] = {}

    def noting(path: str, layer: keras.layers.Layer) -> Callable:
        original = layer.call

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if path not in outputs:
                called.append(path)
            outputs[path] = original(*args, **kwargs)
            return outputs[path]

        return call

    kernels = {plan.path_of(kernel.variable) for kernel in plan.kernels}
    with keras.StatelessScope(), contextlib.ExitStack() as wrapped:
        for path in kernels:
            wrapped.enter_context(replaced(plan.layers[path], "call", noting(path, plan.layers[path])))
        last = keras.tree.flatten(plan.model(_rows(x, slice(0, 2)), training=True))
    heads = {path for path in called if any(outputs[path] is each for each in last)} | set(called[-1:])
    reasons = {}
    for path in sorted(kernels):
        layer = plan.layers[path]
        if path not in outputs:
            reasons[path] = "the forward pass does not call its layer"
        elif not isinstance(layer, ENCODERS) or not isinstance(getattr(layer, "kernel", None), keras.Variable):
            reasons[path] = "pre-training is for Dense and Conv layers"
        elif path in heads:
            reasons[path] = "its output is the model's, which learns from labels"
    for kernel in plan.kernels:
        reason = reasons.get(plan.path_of(kernel.variable))
        if reason:
            plan.skip(kernel.variable, reason)
    order = [path for path in called if path not in reasons]
    if not order:
        raise ValueError(
            "pretraining: no layer to pre-train. Expected Dense or Conv layers before the last one; "
            f"got {', '.join(f'{path}: {reason}' for path, reason in reasons.items()) or 'no kernels'}."
        )
    return order


def _given(
    model: keras.Model, layer: keras.layers.Layer, x: Any, learned: list[tuple[keras.Variable, Any]], batch_size: int
) -> np.ndarray:
    """What a layer gets in its first call, over all examples, where the layers before it have learned."""
    seen: list[np.ndarray] = []
    original = layer.call

    @functools.wraps(original)
    def listening(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        batch.append(_numpy(inputs))
        return original(inputs, *args, **kwargs)

    size = max(batch_size, 256)
    examples = len(keras.tree.flatten(x)[0])
    with replaced(layer, "call", listening):
        for start in range(0, examples, size):
            batch: list[np.ndarray] = []
            with keras.StatelessScope(state_mapping=learned):
                model(_rows(x, slice(start, start + size)), training=True)
            seen.append(batch[0])
    return np.concatenate(seen)


class _AutoEncoder:
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
        ops, layer = keras.ops, self._layer
        own = list(zip(self._variables, values, strict=False))
        with keras.StatelessScope(state_mapping=own):
            code = layer(corrupted)

        def along_code(inputs: list[Any], code: Any) -> Any:
            with keras.StatelessScope(state_mapping=own), replaced(layer, "activation", None):
                return ops.sum(ops.cast(code * layer(inputs[0]), "float32"))

        # The gradient of <h, W x> with respect to x is the adjoint of W applied to h, for any linear layer.
        _, (decoded,) = derivatives_backend().value_and_gradients(along_code)([ops.zeros_like(target)], code)
        shape = [1] * len(target.shape)
        shape[_channel_axis(layer)] = -1
        decoded = ops.cast(decoded, "float32") + ops.reshape(values[-1], shape)
        target = ops.cast(target, "float32")
        if self._unit_range:
            # Binary cross-entropy from what the sigmoid is applied to, without overflow.
            return ops.mean(ops.maximum(decoded, 0) - decoded * target + ops.log1p(ops.exp(-ops.abs(decoded))))
        return ops.mean(ops.square(decoded - target))

    def fit(
        self,
        path: str,
        given: np.ndarray,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        noise: float,
        generator: np.random.Generator,
        verbose: int,
    ) -> list[float]:
        """Adam's steps over all epochs; returns the mean loss of each."""
        ops, backend = keras.ops, derivatives_backend()
        gradients_of = backend.value_and_gradients(self.loss)

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
        first = [ops.zeros_like(value) for value in self._values]
        second = [ops.zeros_like(value) for value in self._values]
        size = min(batch_size, len(given))
        batches = len(given) // size
        progress = keras.utils.Progbar(epochs * batches, verbose=verbose)
        means, count = [], 0
        for _ in range(epochs):
            rows, losses = generator.permutation(len(given)), []
            for start in range(0, batches * size, size):
                count += 1
                target = given[rows[start : start + size]]
                kept = generator.random(target.shape) >= noise if noise else 1.0
                rates = [learning_rate / (1 - 0.9**count), 1 / (1 - 0.999**count)]
                tensors = (np.array(rates, "float32"), (target * kept).astype(target.dtype), target)
                loss, self._values, first, second = run(
                    self._values, first, second, *(ops.convert_to_tensor(each) for each in tensors)
                )
                losses.append(float(_numpy(loss)))
                if not np.isfinite(losses[-1]):
                    raise ValueError(
                        f"pretraining: the auto-encoder of layer {path!r} diverged at step {count}. "
                        f"Lower learning_rate (it is {learning_rate:g}), or scale the data."
                    )
                progress.update(count, [("loss", losses[-1])])
            means.append(float(np.mean(losses)))
        return means


def _channel_axis(layer: keras.layers.Layer) -> int:
    return 1 if getattr(layer, "data_format", "channels_last") == "channels_first" else -1


def _rows(x: Any, rows: slice) -> Any:
    return keras.tree.map_structure(lambda each: keras.ops.convert_to_tensor(each[rows]), x)


def _numpy(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))
