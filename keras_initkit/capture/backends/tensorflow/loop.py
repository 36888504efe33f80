"""One call of a training step that is written by hand, measured on the TensorFlow backend.

A `tf.function` is traced a second time, with layers and optimizers read, and this second function runs in its place for
that call. A plain function, which runs eagerly, is read where it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_initkit._compat import (
    tensorflow_autograph,
    tensorflow_function_like,
    tensorflow_is_compiled_by_xla,
    tensorflow_memory_optimizer_off,
)
from keras_initkit.capture.backends.tensorflow._graph import warn_of_draws
from keras_initkit.capture.backends.tensorflow.reading import TensorFlowReading
from keras_initkit.capture.step._loop import LoopMeter
from keras_initkit.statistics._ops import under_xla


class TensorFlowLoopMeter(TensorFlowReading, LoopMeter):
    """Measures single calls of a training step; see `LoopMeter`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._step: Any = None  # the one that has been traced
        self._measured: dict[bool, Callable] = {}  # with histograms, and without

    def _run_measured(self, step: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if not hasattr(step, "python_function") or tf.config.functions_run_eagerly():
            with self._unharmed("the layers"):
                self._resolve_taps()
            return self._measure(getattr(step, "python_function", step), args, kwargs)
        measured = None
        with self._unharmed("the step"):
            measured = self._build(step, args, kwargs)
        if measured is None:
            return step(*args, **kwargs), None
        try:
            with tensorflow_memory_optimizer_off():
                return measured(*args, **kwargs)
        except tf.errors.OpError:  # of the step as it runs
            raise
        except Exception as error:  # while it was traced: nothing has run
            self._failure = self._failure or ("the step", error)
            return step(*args, **kwargs), None

    def _build(self, step: Any, args: tuple, kwargs: dict[str, Any]) -> Callable:
        if step is not self._step:
            # Makes variables, of an optimizer say, in the user's own function, which then is as it would be.
            step.get_concrete_function(*args, **kwargs)
            self._step, self._measured = step, {}
        if self._resolve_taps():
            self._measured = {}
        if self._histograms not in self._measured:
            user = tensorflow_autograph(step)

            @tf.autograph.experimental.do_not_convert
            def measured(*args: Any, **kwargs: Any) -> tuple[Any, tf.Tensor]:
                with under_xla(tensorflow_is_compiled_by_xla(step)):
                    return self._measure(user, args, kwargs)

            self._measured[self._histograms] = tensorflow_function_like(step, measured)
        return self._measured[self._histograms]

    def _measure(self, step: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, Any]:
        def train() -> Any:
            with self._tapped():
                return step(*args, **kwargs)

        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        result = self._measure_step(graph, train, lambda weight: tf.convert_to_tensor(weight.value))
        if graph is not None:
            warn_of_draws(graph, self._user)
        return result


LOOP_METER = TensorFlowLoopMeter
