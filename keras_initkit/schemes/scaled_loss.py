"""The training loss of a model as a function of its weights, and of a scale for each of them."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.schemes.plan import Plan
from keras_initkit.signal.backends import derivatives_backend
from keras_initkit.signal.inputs import draw_inputs
from keras_initkit.signal.objective import is_compiled_with_loss, training_loss
from keras_initkit.signal.state import random_state_kept


class ScaledLoss:
    """The loss of a model whose weights are scaled, without a change of the model.

        L(s_1 W_1, ..., s_n W_n, rest)

    Args:
        scheme: its name, for errors.
        model: a built model.
        scaled: the variables that have a scale. The gradient is taken with respect to all trainable ones.
        seed: of dropout's masks.
    """

    def __init__(self, scheme: str, model: keras.Model, scaled: Sequence[keras.Variable], seed: int):
        self._scheme, self._model, self._scaled = scheme, model, list(scaled)
        self._trainable = list(model.trainable_variables)
        # State of the generators from which dropout draws: what Keras calls them is guarded by test_gradinit.py.
        self._seeds = [v for v in model.non_trainable_variables if v.name == "seed_generator_state"]
        self._generator = np.random.default_rng(seed)
        takes_training = "training" in inspect.signature(model.compute_loss).parameters
        self._options = {"training": True} if takes_training else {}

    def values(self, scales: Any) -> list[Any]:
        """The trainable variables' values under these scales, tensor of shape (scaled variables,)."""
        place = {id(variable): index for index, variable in enumerate(self._scaled)}
        return [
            variable.value * keras.ops.cast(scales[place[id(variable)]], variable.dtype)
            if id(variable) in place
            else keras.ops.convert_to_tensor(variable.value)
            for variable in self._trainable
        ]

    def __call__(self, values: list[Any], x: Any, y: Any, seeds: list[Any]) -> Any:
        """The loss in training mode where the trainable variables have these values; nothing is written."""
        mapping = [*zip(self._trainable, values, strict=True), *zip(self._seeds, seeds, strict=True)]
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True):
            y_pred = self._model(x, training=True)
            loss = self._model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=None, **self._options)
        return keras.ops.cast(loss, "float32")

    def draw_seeds(self) -> list[Any]:
        """States for dropout's generators: what is given them again draws the same masks again."""
        return [
            keras.ops.convert_to_tensor(
                self._generator.integers(0, 2**31, tuple(variable.shape)).astype("uint32"), dtype=variable.dtype
            )
            for variable in self._seeds
        ]

    def compiled(self, function: Callable[..., Any]) -> Callable[[np.ndarray, Any], tuple[float, np.ndarray]]:
        """A function of the scales and of data, `function([scales], *data)`, with its gradient; on the host, in float64.

        Raises:
            ValueError: by what it returns, if an operation of the model has no derivative of that order.
        """
        backend = derivatives_backend()
        run = backend.compiled(backend.value_and_gradients(function))

        def value_and_gradient(scales: np.ndarray, *data: Any) -> tuple[float, np.ndarray]:
            try:
                value, (gradient,) = run([keras.ops.convert_to_tensor(scales, dtype="float32")], *data)
            except Exception as error:
                if not backend.lacks_derivative(error):
                    raise
                raise ValueError(
                    f"{self._scheme}: an operation of {self._model.name!r} has no derivative of the order that this "
                    f"scheme needs on the {keras.backend.backend()} backend ({_first_line(error)}). Replace the layer "
                    "that uses it, use another backend, or take a scheme without derivatives, such as 'lsuv'."
                ) from error
            return float(_numpy(value)), _numpy(gradient)

        return value_and_gradient

    def check_finite(self, step: int, *values: Any) -> None:
        """Stops where something is NaN or infinite."""
        if not all(np.isfinite(value).all() for value in values):
            hint = (
                "The model overflows as it is: look for NaN in the data, or set it by 'auto' or 'lsuv' first."
                if step == 0
                else "Lower learning_rate."
            )
            raise ValueError(f"{self._scheme}: the loss or its gradient is not finite at step {step}. {hint}")


@contextlib.contextmanager
def loss_of(plan: Plan, loss: Any, scheme: str) -> Iterator[Any]:
    """The model's `compute_loss` uses `loss`, or the one it is compiled with, for a while; yields that loss.

    Raises:
        ValueError: if there is none.
    """
    if loss is None and not is_compiled_with_loss(plan.model):
        raise ValueError(
            f"{scheme}: the model {plan.model.name!r} is not compiled with a loss, and loss is None; expected either. "
            "Give loss=, or compile the model."
        )
    with random_state_kept(), training_loss(plan.model, loss):
        yield plan.model.loss if loss is None else loss


class Batches:
    """Batches of the plan's data, in the same order for the same seed; without data, of drawn inputs and labels.

    Args:
        plan: with `x` and `y`, or neither.
        batch_size: at most all examples.
        loss: what labels are drawn for where there are none.
        scheme: its name, for errors.
    """

    def __init__(self, plan: Plan, batch_size: int, loss: Any, scheme: str):
        if not (isinstance(batch_size, int) and batch_size > 0):
            raise ValueError(f"batch_size: got {batch_size!r}, expected a positive integer.")
        self._model, self._loss, self._scheme = plan.model, loss, scheme
        self._generator = np.random.default_rng([plan.seed, 1])
        self._x, self._y = (
            None if each is None else keras.tree.map_structure(_numpy, each) for each in (plan.x, plan.y)
        )
        self.size = batch_size
        if self._x is not None:
            self._examples = len(keras.tree.flatten(self._x)[0])
            self.size = min(batch_size, self._examples)
            self._rows = np.zeros(0, int)

    def next(self, overlap: Any = None) -> Any:
        """Rows of the data for `take`, of which `overlap` gives the first half."""
        if self._x is None:
            return int(self._generator.integers(2**31))
        if len(self._rows) < self.size:
            self._rows = self._generator.permutation(self._examples)
        rows, self._rows = self._rows[: self.size], self._rows[self.size :]
        return rows if overlap is None else np.concatenate([overlap[: self.size // 2], rows])[: self.size]

    def take(self, rows: Any) -> tuple[Any, Any]:
        """Inputs and labels as tensors."""
        if self._x is None:
            x = draw_inputs(self._model, self.size, seed=rows)
            generator = np.random.default_rng(rows)
        else:
            x = keras.tree.map_structure(lambda each: each[rows], self._x)
            generator = self._generator
        x = keras.tree.map_structure(keras.ops.convert_to_tensor, x)
        if self._y is None:
            y = draw_labels(self._model, x, self._loss, generator, self._scheme)
        else:
            y = keras.tree.map_structure(lambda each: each[rows], self._y)
        return x, keras.tree.map_structure(keras.ops.convert_to_tensor, y)


def draw_labels(model: keras.Model, x: Any, loss: Any, generator: np.random.Generator, scheme: str) -> np.ndarray:
    """Labels that a loss takes, drawn at random: classes, 0 or 1, or Gaussian numbers.

    Raises:
        ValueError: for a model with several outputs.
    """
    shapes = keras.tree.flatten(model.compute_output_shape(keras.tree.map_structure(lambda each: tuple(each.shape), x)))
    if not isinstance(shapes[0], int):
        raise ValueError(f"{scheme}: got no labels for a model with {len(shapes)} outputs, expected y. Give (x, y).")
    shape = tuple(shapes)
    shape = (len(keras.tree.flatten(x)[0]), *shape[1:])
    name = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", ""))
    name = str(name).replace("_", "").lower()
    if name.startswith("sparsecategorical"):
        return generator.integers(0, shape[-1], shape[:-1])
    if name.startswith("categorical"):
        return np.eye(shape[-1], dtype="float32")[generator.integers(0, shape[-1], shape[:-1])]
    if name.startswith("binary"):
        return generator.integers(0, 2, shape).astype("float32")
    return generator.standard_normal(shape).astype("float32")


class Adam:
    """Adam's step (Kingma and Ba 2015) on a few numbers on the host."""

    def __init__(self, learning_rate: float, size: int):
        self._rate, self._first, self._second, self._count = learning_rate, np.zeros(size), np.zeros(size), 0

    def step(self, gradient: np.ndarray) -> np.ndarray:
        """What to subtract."""
        self._count += 1
        self._first = 0.9 * self._first + 0.1 * gradient
        self._second = 0.999 * self._second + 0.001 * gradient**2
        first, second = self._first / (1 - 0.9**self._count), self._second / (1 - 0.999**self._count)
        return self._rate * first / (np.sqrt(second) + 1e-8)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _numpy(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))
