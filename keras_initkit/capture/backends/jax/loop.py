"""One call of a training step that is written by hand, measured on the JAX backend.

A step that `jax.jit` has compiled stays the program that it is. Before it another one, of the same Python function,
reads what the step is about to be given, and returns nothing but statistics; without `exact`, one program does both. A
step that is not compiled is read where it runs. Weights are those that a Keras optimizer is given, and those that it
returns.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import keras

from keras_initkit._compat import jax_jit_options, jax_trace
from keras_initkit._random_state import random_state_kept
from keras_initkit.capture._hooks import replaced, wrap_optimizer
from keras_initkit.capture.backends.jax.reading import JaxReading, has_begun, parts_in_sight
from keras_initkit.capture.step._captured import CapturedTensors
from keras_initkit.capture.step._loop import LoopMeter
from keras_initkit.capture.step._measurement import Begun, Value
from keras_initkit.capture.step._reduction import Update
from keras_initkit.statistics._sampling import take_sample
from keras_initkit.statistics._tap import Tap


class JaxLoopMeter(JaxReading, LoopMeter):
    """Measures single calls of a training step; see `LoopMeter`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._step: Any = None
        self._programs: dict[bool, Callable] = {}  # with histograms, and without

    def _run_measured(self, step: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, Any]:
        with self._unharmed("the layers"):
            if self._resolve_taps() or step is not self._step:
                self._step, self._programs = step, {}
                self._reducers.clear()
        if not hasattr(step, "lower"):  # nobody has compiled it
            return self._measure(step, args, kwargs)
        if not self._asked.exact:
            return self._run_inside(step, args, kwargs) or (step(*args, **kwargs), None)
        matrix = None
        with self._unharmed("the step"):
            matrix = self._read_apart(step, args, kwargs)
        return step(*args, **kwargs), matrix

    def _run_inside(self, step: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, jax.Array] | None:
        """Runs a program that does what the step does, and also reads; returns `None` if it cannot be made."""

        def measured(*args: Any, **kwargs: Any) -> tuple[Any, jax.Array]:
            return self._measure(step.__wrapped__, args, kwargs)

        try:
            if self._histograms not in self._programs:
                self._programs[self._histograms] = jax.jit(measured, **jax_jit_options(step, donated=True))
            return self._programs[self._histograms](*args, **kwargs)
        except Exception as error:
            if has_begun((args, kwargs)):
                raise
            self._failure = self._failure or ("the step", error)
            return None

    def _read_apart(self, step: Any, args: tuple, kwargs: dict[str, Any]) -> jax.Array:
        if self._histograms not in self._programs:

            def read(*args: Any, **kwargs: Any) -> jax.Array:
                return self._measure(step.__wrapped__, args, kwargs)[1]

            self._programs[self._histograms] = jax.jit(read, **jax_jit_options(step))
        with random_state_kept(), contextlib.ExitStack() as stack:  # the trace may draw random numbers
            for model in self._models.values():
                stack.enter_context(parts_in_sight(model))
            matrix = self._programs[self._histograms](*args, **kwargs)
        return jax.block_until_ready(matrix)  # or both programs would hold their tensors at the same time

    def _measure(self, step: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, jax.Array]:
        def train() -> Any:
            with self._tapped():
                return step(*args, **kwargs)

        return self._measure_step(jax_trace((args, kwargs)), train, lambda weight: weight.value)

    def _begin_step(self, scope: Any, value: Value) -> Begun:
        return Begun(CapturedTensors(scope, self._unscaling()), [], [])  # weights come with their optimizer

    @contextlib.contextmanager
    def _tapped_optimizer(self, optimizer: Any, owners: Mapping[int, str]) -> Iterator[None]:
        own_apply, is_stateless = optimizer.apply, threading.local()

        def read(variables: list[keras.Variable], grads: list[Any], before: list[Any], after: list[Any]) -> None:
            with self._unharmed("the weights"):
                paths = [owners.get(id(variable)) for variable in variables]
                self._read_update(optimizer, zip(paths, grads, strict=False))
                self._read_weights(paths, before, after)

        def stateless_apply(original: Callable, state: Any, grads: Any, weights: Any, *args: Any, **kwargs: Any) -> Any:
            grads, weights = list(grads), list(weights)
            is_stateless.now = True  # it calls `apply`
            try:
                result = original(state, grads, weights, *args, **kwargs)
            finally:
                is_stateless.now = False
            read(self._trained_by(optimizer), grads, weights, result[0])
            return result

        def apply(grads: Any, trainable_variables: Any = None) -> Any:
            if getattr(is_stateless, "now", False):
                return own_apply(grads, trainable_variables)
            grads = list(grads)
            variables = self._trained_by(optimizer) if trainable_variables is None else list(trainable_variables)
            before = [variable.value for variable in variables]
            result = own_apply(grads, trainable_variables)
            read(variables, grads, before, [variable.value for variable in variables])
            return result

        with wrap_optimizer(optimizer, stateless_apply), replaced(optimizer, "apply", apply):
            yield

    def _read_weights(self, paths: list[str | None], before: list[jax.Array], after: list[jax.Array]) -> None:
        captured = self._captured
        for path, old, new in zip(paths, before, after, strict=False):
            if captured is not None and path is not None and self._is_readable(new, captured.scope):
                captured.seen[Tap("weight", path)].append(old)
                update = Update(take_sample(old, self._asked.sample_size), new)
                captured.seen[Tap("weight_update", path)].append(update)


LOOP_METER = JaxLoopMeter
