"""What of a training step is read on the JAX backend: outputs and the gradients through them, weights' gradients."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import keras

from keras_initkit.capture._random_state import replaced
from keras_initkit.capture.backends.jax.probe import is_tensor, tapped
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._layer_paths import named_layers
from keras_initkit.structure._sublayers import sublayers

State = tuple[list[jax.Array], list[jax.Array], list[jax.Array], list[jax.Array]]
Unscale = Callable[[jax.Array], jax.Array]


class Readings:
    """What the taps of one step saw; of tensors made inside a loop, only that they were there."""

    def __init__(self, level: Any):
        self._level = level
        self.seen: defaultdict[Tap, list[Any]] = defaultdict(list)
        self.calls: Counter[Tap] = Counter()

    def is_readable(self, tensor: jax.Array) -> bool:
        """Whether the step itself can read a tensor: none of a loop, a branch or a recomputed block inside it."""
        return not isinstance(tensor, jax.core.Tracer) or level_of(tensor) is self._level

    def add(self, tap: Tap, tensor: jax.Array) -> None:
        """Keeps a tensor for the statistics, if it can be read."""
        if self.is_readable(tensor):
            self.seen[tap].append(tensor)

    def marked(
        self, tensor: jax.Array, kind: str, path: str, unscale: Unscale, with_gradient: bool = True
    ) -> jax.Array:
        """The tensor for the model to go on with, once it and the gradient that comes back through it are read."""
        tap, gradient_tap = Tap(kind, path), Tap(f"{kind}_gradient", path)
        self.calls[tap] += 1
        if self.is_readable(tensor):  # nothing that is differentiated leads here
            self.add(tap, tensor)
            return tensor

        def on_gradient(gradient: jax.Array) -> None:
            if with_gradient:
                self.add(gradient_tap, unscale(gradient))

        return tapped(tensor, lambda x: self.add(tap, x), on_gradient)

    def warn(self, taps: Sequence[Tap]) -> None:
        """Says which of these taps saw tensors that could not be read."""
        for tap in taps:
            if len(self.seen[tap]) < self.calls[tap]:
                warnings.warn(
                    f"{tap.kind} of layer {tap.layer!r} is made inside a loop or a branch, where it cannot be read "
                    "from outside; it is left out of the statistics.",
                    stacklevel=2,
                )


def level_of(tensors: Any) -> Any:
    """The trace that tensors belong to; `None` for arrays.

    The attribute is private: JAX has no public name for it, and notices a tensor that left its trace only when the
    program is complete. test_step_meter_jax.py guards it.
    """
    tracers = (x for x in jax.tree_util.tree_leaves(tensors) if isinstance(x, jax.core.Tracer))
    return next((x._trace for x in tracers), None)


def loss_unscaling(optimizer: Any, model: keras.Model, state: State) -> Unscale:
    """What undoes the loss scaling of mixed precision on a gradient; the identity where there is none."""
    if optimizer is None:
        return lambda gradient: gradient
    one = keras.ops.ones(())
    with keras.StatelessScope(list(zip(model.optimizer.variables, state[2], strict=True))):
        scale = optimizer.scale_loss(one)
    return (lambda gradient: gradient) if scale is one else (lambda gradient: _single(gradient) / _single(scale))


def _single(tensor: jax.Array) -> jax.Array:
    return tensor if tensor.dtype == "float64" else keras.ops.cast(tensor, "float32")


@contextlib.contextmanager
def parts_in_sight(model: keras.Model) -> Iterator[None]:
    """What is made of layers is not computed anew in the backward pass as a whole, only the layers themselves.

    Under `keras.RematScope` a model and its blocks are so too, and what is inside could not be read.
    """
    with contextlib.ExitStack() as wrapped:
        for layer in named_layers(model).values():
            if sublayers(layer, into_loops=False):
                wrapped.enter_context(replaced(layer, "rematerialized_call", lambda call, *_, **__: call))
        yield


def tapped_layer(layer: keras.layers.Layer, path: str, readings: Readings, unscale: Unscale) -> Any:
    """A context in which a layer's outputs are read, and the gradients that come back through them."""
    original = layer.call

    def watched(call: Callable) -> Callable:
        @functools.wraps(original)
        def watching(*args: Any, **kwargs: Any) -> Any:
            losses: list[Any] = []
            add_loss = layer.add_loss

            def counted(loss: Any) -> None:
                losses.append(loss)
                add_loss(loss)

            with replaced(layer, "add_loss", counted):
                outputs = call(*args, **kwargs)
            flat = keras.tree.flatten(outputs)
            output = next(filter(_is_signal, flat), None)
            if output is None:
                return outputs
            # Of a tensor that is also the input, or that a loss of the layer's own reads, the gradient has more
            # parts than come back through the output.
            partly = bool(losses) or any(x is output for x in keras.tree.flatten((args, kwargs)))
            marked = readings.marked(output, "output", path, unscale, with_gradient=not partly)
            return keras.tree.pack_sequence_as(outputs, [marked if x is output else x for x in flat])

        return watching

    wrapped = contextlib.ExitStack()
    wrapped.enter_context(replaced(layer, "call", watched(original)))
    recomputed = getattr(layer, "rematerialized_call", None)  # in later versions of Keras, under its `RematScope`
    # Read from outside of what is computed anew in the backward pass.
    if recomputed is not None and not sublayers(layer, into_loops=False):

        def outside(_: Any, *args: Any, **kwargs: Any) -> Callable:
            return watched(recomputed(original, *args, **kwargs))

        wrapped.enter_context(replaced(layer, "rematerialized_call", outside))
    return wrapped


def tapped_activation(layer: keras.layers.Layer, path: str, readings: Readings, unscale: Unscale) -> Any:
    """A context in which what a layer's activation is applied to is read, and the gradients through that."""
    original = layer.activation

    def activation(x: Any, *args: Any, **kwargs: Any) -> Any:
        marked = readings.marked(x, "pre_activation", path, unscale) if _is_signal(x) else x
        return original(marked, *args, **kwargs)

    return replaced(layer, "activation", activation)


def _is_signal(x: Any) -> bool:
    return is_tensor(x) and jax.numpy.issubdtype(x.dtype, jax.numpy.floating)


def tapped_optimizer(
    optimizer: Any, model: keras.Model, state: State, owners: dict[int, str], readings: Readings, unscale: Unscale
) -> Any:
    """A context in which the gradients that an optimizer is given are read.

    A step of the user's own may give it some of the trainable variables' values; which, is told by identity.
    """
    original = optimizer.stateless_apply
    variables = dict(zip(map(id, state[0]), model.trainable_variables, strict=True))

    @functools.wraps(original)
    def stateless_apply(optimizer_variables: Any, grads: Any, trainable_variables: Any) -> Any:
        grads, trainable_variables = list(grads), list(trainable_variables)
        for gradient, value in zip(grads, trainable_variables, strict=False):
            path = owners.get(id(variables.get(id(value))))
            if gradient is not None and path is not None:
                readings.add(Tap("weight_gradient", path), unscale(gradient))
        return original(optimizer_variables, grads, trainable_variables)

    return replaced(optimizer, "stateless_apply", stateless_apply)
