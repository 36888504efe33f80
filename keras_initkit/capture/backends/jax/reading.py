"""How a training step's tensors and their gradients are read on the JAX backend."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import keras

from keras_initkit._compat import jax_is_elsewhere, jax_trace
from keras_initkit.capture._hooks import replaced
from keras_initkit.capture.backends.jax.probe import tapped
from keras_initkit.capture.step._captured import Unscale
from keras_initkit.capture.step._measurement import StepMeasurement
from keras_initkit.capture.step._reduction import reduce_taps
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._layer_paths import named_layers
from keras_initkit.structure._sublayers import sublayers


class JaxReading(StepMeasurement):
    """Reads a step where it is traced, or where it runs operation by operation; see `StepReader`."""

    def __init__(self, *arguments: Any) -> None:
        self._reducers: dict[bool, Callable] = {}  # with histograms, and without
        super().__init__(*arguments)

    def _is_readable(self, tensor: jax.Array, scope: Any) -> bool:
        return not isinstance(tensor, jax.core.Tracer) or jax_trace(tensor) is scope

    def _has_whole_gradient(self, output: jax.Array, outputs: list[Any], inputs: Any, added_loss: bool) -> bool:
        return not (added_loss or any(x is output for x in keras.tree.flatten(inputs)))

    def _read(self, tensor: jax.Array, tap: Tap, on_value: Unscale, on_gradient: Unscale | None) -> jax.Array:
        captured = self._captured
        if captured is None or self._is_readable(tensor, captured.scope):  # nothing that is differentiated leads here
            on_value(tensor)
            return tensor
        if jax_is_elsewhere(tensor, captured.scope):  # JAX keeps such a program, and the plain step would run it
            return tensor
        return tapped(tensor, on_value, on_gradient or (lambda _: None))

    def _reduce(self, seen: Mapping[Tap, Sequence[jax.Array]]) -> jax.Array:
        if self._histograms not in self._reducers:
            histograms = self._histograms

            def reduce(seen: list[Any]) -> jax.Array:
                by_tap = dict(zip(self._taps, seen, strict=True))
                return reduce_taps(by_tap, self._limits, self._asked, histograms, rectified=self._rectified or ())

            # One program, where the step itself is none.
            self._reducers[histograms] = jax.jit(reduce)
        return self._reducers[self._histograms](list(seen.values()))

    @contextlib.contextmanager
    def _tapped_layer(self, layer: keras.layers.Layer, path: str) -> Iterator[None]:
        original = layer.call
        recomputed = getattr(layer, "rematerialized_call", None)  # in later versions of Keras, under its `RematScope`
        with super()._tapped_layer(layer, path), contextlib.ExitStack() as wrapped:
            if recomputed is not None and not sublayers(layer, into_loops=False):

                def outside(_: Any, *args: Any, **kwargs: Any) -> Callable:
                    # Read from outside of what is computed anew in the backward pass.
                    return functools.partial(self._read_call, path, recomputed(original, *args, **kwargs))

                wrapped.enter_context(replaced(layer, "rematerialized_call", outside))
            yield


@contextlib.contextmanager
def parts_in_sight(model: keras.Model) -> Iterator[None]:
    """Recomputes only the innermost layers: under `keras.RematScope`, a block is opaque as a whole."""
    with contextlib.ExitStack() as wrapped:
        for layer in named_layers(model).values():
            if sublayers(layer, into_loops=False):
                wrapped.enter_context(replaced(layer, "rematerialized_call", lambda call, *_, **__: call))
        yield


def has_begun(donated: Any) -> bool:
    """Returns whether a program has taken any of the arrays that were donated to it."""
    return any(x.is_deleted() for x in jax.tree_util.tree_leaves(donated) if isinstance(x, jax.Array))
