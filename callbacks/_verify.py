"""Compares one training step with and without measuring, to the last bit."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit._checks import checked_count
from keras_initkit._compat import seed_generator
from keras_initkit._random_state import random_state_kept
from keras_initkit.callbacks._layer_stats import LayerStatsCallback
from keras_initkit.callbacks._verification import Verification, find_differences
from keras_initkit.capture._optimizers import find_optimizers
from keras_initkit.structure._layer_paths import weighted_layers

_REPEATS = 8  # of the plain step, where the measured one differs
_SET_BY_FIT = ("train_function", "history", "stop_training")


def verify(
    model: keras.Model, x: Any, y: Any = None, *, sample_weight: Any = None, batch_size: int = 32
) -> Verification:
    """Compares a plain and a measured training step from one state, to the last bit; the model is left unchanged.

    Weights, states of optimizers, metrics and seed generators, and what `fit` logs are compared after a step on the
    first examples, as `LayerStatsCallback` measures it by default. Where they differ, plain steps are compared among
    themselves, and layers are measured in ever smaller groups to find those that make the difference.

    Weights, states, random numbers and `model.train_function` are then set back to what they were. What the first
    step of `fit` would make (a subclassed model's layers, the optimizer's variables, metrics) stays, with its initial
    values.

    Args:
        model: Keras model, compiled.
        x: Examples in the structure that the model takes: arrays of shape `(examples, ...)`.
        y: Labels, as `fit` takes them; `None` if the model trains without.
        sample_weight: Float array of shape `(examples,)`. Weights of the examples, as in `fit`.
        batch_size: Integer. Number of examples of the step, or all if there are fewer.

    Returns:
        A `Verification`: `equal`, `differences`, and `layers` that make them. Print it.

    Raises:
        ValueError: If the data are no arrays of equal length, or the model is not compiled, or keeps an optimizer of
            its own that has not been used yet.

    Example:

    >>> model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)], name="line")
    >>> model.compile("sgd", "mse")
    >>> print(verify(model, np.ones((4, 3), "float32"), np.zeros((4, 1), "float32")))
    One step of 'line' is the same to the last bit with and without measuring: 2 weights and seeds, 2 variables of
    optimizers, 2 of metrics, 1 logs.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"model: got {reprlib.repr(model)}, expected a keras.Model: verify(model, x, y).")
    if not getattr(model, "compiled", False):
        raise ValueError(
            f"model: got {model.name!r}, which is not compiled; expected a model that trains. Call "
            "model.compile(optimizer, loss) first."
        )
    steps = _Steps(model, (x, y, sample_weight), checked_count("batch_size", batch_size))
    try:
        return _compare(model, steps)
    finally:
        steps.restore()


def _compare(model: keras.Model, steps: _Steps) -> Verification:
    steps.run()  # what the first step makes draws random numbers
    plain = steps.run()
    callback = _measuring(None)
    measured = steps.run(callback)
    result = Verification(
        model.name, steps.describe(plain), bool(callback.reports), tuple(find_differences(plain, measured))
    )
    if result.equal:
        return result
    if any(any(find_differences(plain, steps.run())) for _ in range(_REPEATS)):
        return replace(result, repeats=False)

    def differs(paths: Sequence[str]) -> bool:
        return any(find_differences(plain, steps.run(_measuring(list(paths)))))

    return replace(result, layers=tuple(_culprits(list(weighted_layers(model)), differs)))


def _measuring(layers: list[str] | None) -> LayerStatsCallback:
    return LayerStatsCallback(None, "batch", layers, on_finding="ignore")


def _culprits(paths: list[str], differs: Callable[[Sequence[str]], bool]) -> list[str]:
    """Returns the layers that make a difference alone, among layers that make one together."""
    if len(paths) < 2:
        return paths if paths and differs(paths) else []
    halves = paths[: len(paths) // 2], paths[len(paths) // 2 :]
    return [path for half in halves if len(half) == 1 or differs(half) for path in _culprits(half, differs)]


def _check_rows(**data: Any) -> int:
    """Returns the number of examples of arrays, and raises if they are none or differ."""
    numbers = {name: [_rows_of(name, each) for each in _leaves(value)] for name, value in data.items()}
    if not numbers["x"]:
        raise ValueError("x: got no array, expected examples, as `fit` takes them.")
    examples = numbers["x"][0]
    for name, found in numbers.items():
        for number in found:
            if number != examples:
                raise ValueError(f"{name}: got {number} rows, expected {examples}, as many as the first array of x.")
    return examples


def _leaves(data: Any) -> list[Any]:
    return [] if data is None else keras.tree.flatten(data)


def _rows_of(name: str, array: Any) -> int:
    if not getattr(array, "shape", ()):
        raise ValueError(
            f"{name}: got {reprlib.repr(array)}, expected arrays of shape (examples, ...). Take a batch of a dataset "
            "or a loader, x, y = next(iter(dataset)), and make an array of a list of numbers."
        )
    return int(array.shape[0])


class _Steps:
    """Single training steps of a model, all from the state that it was in when this object was made."""

    def __init__(self, model: keras.Model, data: tuple[Any, Any, Any], batch_size: int):
        self._model = model
        given = _check_rows(x=data[0], y=data[1], sample_weight=data[2])
        examples = min(batch_size, given)
        # With several steps in one execution, each has the same examples.
        rows = np.tile(np.arange(examples), model.steps_per_execution or 1)
        self._x, self._y, self._weights = (
            None if each is None else keras.tree.map_structure(lambda array: to_numpy(array)[rows], each)
            for each in data
        )
        self._batch_size = examples
        attributes = vars(model)
        self._attributes = {name: attributes[name] for name in _SET_BY_FIT if name in attributes}
        self._make_variables()
        self._before = [(variable, np.array(to_numpy(variable))) for variable in self._variables().values()]

    def _make_variables(self) -> None:
        model = self._model
        if not model.built:
            model(keras.tree.map_structure(lambda array: array[:1], self._x))
        optimizer = getattr(model, "optimizer", None)
        if optimizer is not None and not getattr(optimizer, "built", True):
            optimizer.build(model.trainable_variables)
        if not all(getattr(each, "built", True) for each in find_optimizers(model)):
            raise ValueError(
                f"model: got {model.name!r}, an optimizer of which has no variables yet, so that they could not be set "
                "back. Train a step, or call optimizer.build(variables), first."
            )

    def _variables(self) -> dict[str, Any]:
        model, generator = self._model, seed_generator()
        of_optimizers = [each for optimizer in find_optimizers(model) for each in optimizer.variables]
        kinds = {"weights": model.variables, "optimizer": of_optimizers, "metrics": model.metrics_variables}
        found: dict[str, Any] = {}
        for kind, variables in kinds.items():
            for place, variable in enumerate(variables):
                name = f"{kind}/{variable.path}"
                found[f"{name} ({place})" if name in found else name] = variable
        return found if generator is None else {**found, "weights/random seeds": generator.state}

    def run(self, *callbacks: keras.callbacks.Callback) -> dict[str, np.ndarray]:
        """Returns all variables and logs after one step, by path."""
        self._set_back()
        with random_state_kept():
            logs = self._model.fit(
                self._x, self._y, sample_weight=self._weights, batch_size=self._batch_size, shuffle=False, verbose=0,
                callbacks=list(callbacks),
            ).history  # fmt: skip
        values = {path: np.array(to_numpy(variable)) for path, variable in self._variables().items()}
        return {**values, **{f"logs/{name}": np.asarray(value) for name, value in logs.items()}}

    def describe(self, state: dict[str, np.ndarray]) -> str:
        """Returns how many variables of each kind a state has."""
        kinds = Counter(path.partition("/")[0] for path in state)
        return (
            f"{kinds['weights']} weights and seeds, {kinds['optimizer']} variables of optimizers, "
            f"{kinds['metrics']} of metrics, {kinds['logs']} logs"
        )

    def _set_back(self) -> None:
        for variable, value in self._before:
            variable.assign(value)

    def restore(self) -> None:
        """Leaves the model in the state that all steps began with."""
        self._set_back()
        known = {id(variable) for variable, _ in self._before}
        for metric in self._model.metrics:
            if not known & {id(variable) for variable in metric.variables}:
                metric.reset_state()  # it has been made by the first step
        for name in _SET_BY_FIT:
            vars(self._model).pop(name, None)
        vars(self._model).update(self._attributes)
