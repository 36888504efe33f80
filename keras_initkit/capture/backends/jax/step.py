"""One training step, measured from the same state and batch, on the JAX backend.

Keras compiles a whole step into one program, and where a tensor inside it is also to come out XLA fuses less, and may
round otherwise: read inside, one step of a transformer block (JAX 0.10 on a CPU) left 3.4 % of 50,634 weights with
other last bits, five steps 13 %, by up to 7e-7; of an MLP, a residual CNN and an LSTM it left none. So the program
that trains stays the one that Keras compiled. Before a measured step another one, made of the same `train_step`,
reads the state and the batch that the step is about to get, and returns nothing but statistics. A step that is not
compiled (`run_eagerly`, `jit_compile=False`) runs operation by operation, and is read where it runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import keras

from keras_initkit.capture._random_state import random_state_kept, replaced
from keras_initkit.capture.backends.jax._taps import (
    Readings,
    State,
    level_of,
    loss_unscaling,
    parts_in_sight,
    tapped_activation,
    tapped_layer,
    tapped_optimizer,
)
from keras_initkit.capture.step._meter import StepMeter, optimizers_of
from keras_initkit.capture.step._reduction import Update, reduce_taps
from keras_initkit.capture.step._targets import units_last
from keras_initkit.statistics._sampling import take_sample
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._weights import main_weights


class JaxStepMeter(StepMeter):
    """Measures single training steps of `model`; see `StepMeter`."""

    _plain: Any = None
    _readers: dict[bool, Callable]  # with histograms, and without
    _reducers: dict[bool, Callable]

    def _forget(self) -> None:
        self._plain = None

    def _measured(self, plain: Any, state: State, batches: Any) -> Any:
        """Runs one step; `batches` is Keras' iterator over an epoch, or in older versions a list of batches."""
        model = self._model
        if plain is not self._plain:
            self._find()
            self._plain, self._readers, self._reducers = plain, {}, {}
        if model.run_eagerly or not model.jit_compile:
            return self._measured_inside(plain, state, batches)
        if isinstance(batches, list):
            self._matrix = self._read(state, batches)
            return plain(state, batches)
        taken = _taken(batches, model.steps_per_execution or 1)
        if len(taken) > 1:
            _, state = plain(state, iter(taken[:-1]))  # Keras' own loop over compiled steps ends with the iterator
        self._matrix = self._read(state, taken[-1:])
        return plain(state, iter(taken[-1:]))

    def _read(self, state: State, batches: Sequence[Any]) -> jax.Array:
        """The statistics of the last of these steps, from a program of its own; the state is left as it is."""
        if self._histograms not in self._readers:
            histograms = self._histograms

            def read(state: State, batches: Sequence[Any]) -> jax.Array:
                for batch in batches[:-1]:
                    _, state = self._model.train_step(state, batch)
                return self._read_step(self._model.train_step, state, batches[-1], histograms)[2]

            self._readers[histograms] = jax.jit(read, out_shardings=_everywhere(state))
        with random_state_kept(), parts_in_sight(self._model):  # the trace may draw random numbers
            matrix = self._readers[self._histograms](state, batches)
        return jax.block_until_ready(matrix)  # or both programs would hold their tensors at the same time

    def _measured_inside(self, plain: Any, state: State, batches: Any) -> Any:
        """Runs the step itself, read as it goes."""
        model, train_step = self._model, self._model.train_step

        def measured_step(state: State, data: Any) -> tuple[Any, State]:
            logs, state, self._matrix = self._read_step(train_step, state, data, self._histograms)
            return logs, state

        # Later versions of Keras look `train_step` up when they make the function, earlier ones when they call it.
        with replaced(model, "train_step", measured_step):
            try:
                model.make_train_function(force=True)
                measured = model.train_function
            finally:
                model.train_function = plain
            return measured(state, batches)

    def _read_step(
        self, train_step: Callable, state: State, data: Any, histograms: bool
    ) -> tuple[Any, State, jax.Array]:
        """What `train_step` returns, and the matrix of what it was seen to do."""
        model, readings = self._model, Readings(level_of((state, data)))
        before = _values(model, state)
        owners = {id(weight): path for path, layer in self._layers.items() for weight in main_weights(layer)}
        unscale = loss_unscaling(model.optimizer, model, state)
        with contextlib.ExitStack() as wrapped:
            for path, layer in self._layers.items():
                wrapped.enter_context(tapped_layer(layer, path, readings, unscale))
            for path, layer in self._activated.items():
                wrapped.enter_context(tapped_activation(layer, path, readings, unscale))
            for optimizer in optimizers_of(model):
                scaled = loss_unscaling(optimizer, model, state)
                wrapped.enter_context(tapped_optimizer(optimizer, model, state, owners, readings, scaled))
            logs, state = train_step(state, data)
        after = _values(model, state)
        for path, layer in self._layers.items():
            for weight in map(id, main_weights(layer)):
                readings.add(Tap("weight", path), before[weight])
                change = Update(take_sample(before[weight], self._sample_size), after[weight])
                readings.seen[Tap("weight_update", path)].append(change)
        readings.warn(self._taps)
        seen = [units_last(tap, self._layers[tap.layer], readings.seen[tap]) for tap in self._taps]
        if histograms not in self._reducers:

            def reduce(seen: list[list[Any]]) -> jax.Array:
                by_tap = dict(zip(self._taps, seen, strict=True))
                return reduce_taps(by_tap, self._limits, self._sample_size, histograms)

            # One program, where the step itself is none.
            self._reducers[histograms] = jax.jit(reduce)
        return logs, state, self._reducers[histograms](seen)


def _values(model: keras.Model, state: State) -> dict[int, jax.Array]:
    """The value of each of the model's variables in this state, by the variable's identity."""
    pairs = [(model.trainable_variables, state[0]), (model.non_trainable_variables, state[1])]
    return {id(variable): value for each in pairs for variable, value in zip(*each, strict=True)}


def _taken(iterator: Iterator, number: int) -> list[Any]:
    """The next batches of an epoch, up to `number`; its end is raised only where there is none."""
    batches = [next(iterator)]
    with contextlib.suppress(StopIteration):
        while len(batches) < number:
            batches.append(next(iterator))
    return batches


def _everywhere(state: State) -> Any:
    """Where the result goes under a `keras.distribution`: to every device, so that each process can read it."""
    for value in jax.tree_util.tree_leaves(state):
        if isinstance(value.sharding, jax.sharding.NamedSharding):
            return jax.sharding.NamedSharding(value.sharding.mesh, jax.sharding.PartitionSpec())
    return None


STEP_METER = JaxStepMeter
