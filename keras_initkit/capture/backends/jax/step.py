"""One training step, measured from the same state and batch, on the JAX backend.

Keras compiles a whole step into one program, and where a tensor inside it is also to come out XLA fuses less, and may
round otherwise: read inside, one step of a transformer block (JAX 0.10 on a CPU) left 3.4 % of 50,634 weights with
other last bits, five steps 13 %, by up to 7e-7; of an MLP, a residual CNN and an LSTM it left none. So the program
that trains stays the one that Keras compiled. Before a measured step another one, made of the same `train_step`,
reads the state and the batch that the step is about to get, and returns nothing but statistics; it computes no update,
which a third, small one reads in the weights that come out of the step. Without `exact`, one program does it all, and
trains. A step that is not compiled (`run_eagerly`, `jit_compile=False`) runs operation by operation, and is read where
it runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import keras

from keras_initkit._compat import jax_trace
from keras_initkit._random_state import random_state_kept
from keras_initkit.capture._hooks import replaced, wrap_optimizer
from keras_initkit.capture.backends.jax.reading import JaxReading, has_begun, parts_in_sight
from keras_initkit.capture.step._captured import Unscale
from keras_initkit.capture.step._measurement import Begun, Value
from keras_initkit.capture.step._meter import StepMeter
from keras_initkit.capture.step._reduction import Update, read_rows, reduce_taps
from keras_initkit.report._rows import TensorStats
from keras_initkit.statistics._tap import Tap

State = tuple[list[jax.Array], list[jax.Array], list[jax.Array], list[jax.Array]]


class JaxStepMeter(JaxReading, StepMeter):
    """Measures single training steps of `model`; see `StepMeter`."""

    _plain: Any = None
    _programs: dict[tuple[str, bool], Callable]  # what each does, with histograms or without
    _state: State  # from which the step that is traced or run begins
    _samples: list[jax.Array]
    _apart = False  # whether a program is traced that reads a step without its update
    _updates: jax.Array | None = None  # the matrix of `reduce_taps` for what such a program leaves out

    def _invalidate(self) -> None:
        self._plain = None

    def _run_measured(self, plain: Any, state: State, batches: Any) -> Any:
        """Runs one step; `batches` is Keras' iterator over an epoch, or in older versions a list of batches."""
        model = self._model
        if plain is not self._plain:
            with self._unharmed("the layers"):
                self._resolve_taps()
            self._plain, self._programs = plain, {}
            self._reducers.clear()
        self._updates = None
        if model.run_eagerly or not model.jit_compile:
            return self._measured_inside(plain, state, batches)
        again: Callable[[list[Any]], Any] = list if isinstance(batches, list) else iter
        taken = batches if isinstance(batches, list) else _taken(batches, model.steps_per_execution or 1)
        self._data = taken[-1]
        if self._asked.exact:
            if again is iter and len(taken) > 1:
                _, state = plain(state, iter(taken[:-1]))  # Keras' own loop over compiled steps ends with the iterator
                taken = taken[-1:]
            samples = self._read_apart(state, taken)
            result = plain(state, again(taken))
            self._read_after(samples, result[1])
            return result
        if len(taken) > 1:
            _, state = plain(state, again(taken[:-1]))
        return self._read_inside(state, taken[-1]) or plain(state, again(taken[-1:]))

    def _program(self, what: str, function: Callable, **options: Any) -> Callable:
        return self._programs.setdefault((what, self._histograms), jax.jit(function, **options))

    def _read_inside(self, state: State, batch: Any) -> tuple[Any, State] | None:
        """Trains by a program that also reads; returns `None` if it cannot be made."""

        def step(state: State, batch: Any) -> tuple[Any, jax.Array]:
            return self._measure(self._model.train_step, state, batch)

        try:
            result, self._matrix = self._program("inside", step, donate_argnums=0)(state, batch)
            return result
        except Exception as error:
            if has_begun(state):
                raise
            self._failure = self._failure or ("the step", error)
            return None

    def _read_apart(self, state: State, batches: Sequence[Any]) -> list[jax.Array]:
        """Reads the last of these steps by a program of its own; returns samples of the weights before that step."""

        def read(state: State, batches: Sequence[Any]) -> tuple[jax.Array, list[jax.Array]]:
            for batch in batches[:-1]:
                _, state = self._model.train_step(state, batch)
            self._apart, self._samples = True, []
            try:
                return self._measure(self._model.train_step, state, batches[-1])[1], self._samples
            finally:
                self._apart, self._samples = False, []

        with self._unharmed("the step"), random_state_kept(), parts_in_sight(self._model):  # a trace may draw numbers
            program = self._program("apart", read, out_shardings=_everywhere(state))
            # Waited for, or both programs would hold their tensors at the same time.
            self._matrix, samples = jax.block_until_ready(program(state, batches))
            return samples
        return []

    def _read_updates(self, begun: Begun, value: Value) -> None:
        if self._apart:
            self._samples = list(begun.samples)
        else:
            super()._read_updates(begun, value)

    def _read_after(self, samples: list[jax.Array], state: State) -> None:
        """Reads what a step has added to the weights, from samples before it and the state after it."""
        if not samples or self._failure is not None:
            return

        def reduce(samples: list[jax.Array], weights: list[jax.Array]) -> jax.Array:
            seen: dict[Tap, list[Update]] = {tap: [] for tap in self._taps if tap.kind == "weight_update"}
            for (path, _), before, after in zip(self._kernels(), samples, weights, strict=True):
                seen[Tap("weight_update", path)].append(Update(before, after))
            return reduce_taps(seen, self._limits, self._asked, self._histograms)

        with self._unharmed("the updates"):
            values = _values(self._model, state)
            weights = [values[id(weight)] for _, weight in self._kernels()]
            self._updates = self._program("after", reduce, out_shardings=_everywhere(state))(samples, weights)

    def _read_matrix(self, matrix: Any) -> list[TensorStats]:
        rows = super()._read_matrix(matrix)
        if self._updates is not None:
            taps = [tap for tap in self._taps if tap.kind == "weight_update"]
            types = {path: type(layer).__name__ for path, layer in self._layers.items()}
            rows += read_rows(taps, keras.ops.convert_to_numpy(self._updates), types)
        return rows

    def _measured_inside(self, plain: Any, state: State, batches: Any) -> Any:
        """Runs the step itself, read as it goes."""
        model, train_step = self._model, self._model.train_step

        def measured_step(state: State, data: Any) -> tuple[Any, State]:
            self._data = data
            result, self._matrix = self._measure(train_step, state, data)
            return result

        # Later versions of Keras look `train_step` up when they make the function, earlier ones when they call it.
        with replaced(model, "train_step", measured_step):
            try:
                model.train_function = None  # not `force=True`: a method of the user's own may take no argument
                model.make_train_function()
                measured = model.train_function
            finally:
                model.train_function = plain
            return measured(state, batches)

    def _measure(self, train_step: Callable, state: State, data: Any) -> tuple[tuple[Any, State], jax.Array]:
        """Returns what `train_step` returns, and the matrix of what it was seen to do."""
        self._state = state
        values = _values(self._model, state)

        def train() -> tuple[Any, State]:
            nonlocal values
            with self._tapped():
                logs, after = train_step(state, data)
            values = _values(self._model, after)
            return logs, after

        return self._measure_step(jax_trace((state, data)), train, lambda weight: values[id(weight)])

    def _loss_unscaling(self, optimizer: Any) -> Unscale:
        main = self._model.optimizer
        state = [] if main is None else list(zip(main.variables, self._state[2], strict=True))
        with keras.StatelessScope(state):
            return super()._loss_unscaling(optimizer)

    def _tapped_optimizer(self, optimizer: Any, owners: Mapping[int, str]) -> contextlib.AbstractContextManager[None]:
        # A step of the user's own may give it some of the trainable variables' values; which, is told by identity.
        variables = dict(zip(map(id, self._state[0]), self._model.trainable_variables, strict=True))
        paths = {value: owners.get(id(variable)) for value, variable in variables.items()}

        def stateless_apply(original: Callable, optimizer_variables: Any, grads: Any, trainable_variables: Any) -> Any:
            grads, trainable_variables = list(grads), list(trainable_variables)
            self._read_update(optimizer, zip((paths.get(id(x)) for x in trainable_variables), grads, strict=False))
            return original(optimizer_variables, grads, trainable_variables)

        return wrap_optimizer(optimizer, stateless_apply)


def _values(model: keras.Model, state: State) -> dict[int, jax.Array]:
    """Returns the value of each of the model's variables in this state, by the variable's identity."""
    pairs = [(model.trainable_variables, state[0]), (model.non_trainable_variables, state[1])]
    return {id(variable): value for each in pairs for variable, value in zip(*each, strict=True)}


def _taken(iterator: Iterator, number: int) -> list[Any]:
    """Returns the next batches of an epoch, up to `number`; its end is raised only where there is none."""
    batches = [next(iterator)]
    with contextlib.suppress(StopIteration):
        while len(batches) < number:
            batches.append(next(iterator))
    return batches


def _everywhere(state: State) -> Any:
    """Returns where the result goes under a `keras.distribution`: every device, for each process to read it."""
    for value in jax.tree_util.tree_leaves(state):
        if isinstance(value.sharding, jax.sharding.NamedSharding):
            return jax.sharding.NamedSharding(value.sharding.mesh, jax.sharding.PartitionSpec())
    return None


STEP_METER = JaxStepMeter
