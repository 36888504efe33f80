"""The training loss of a model as a function of its weights, and of a scale for each of them."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit._compat import is_compiled_with_loss
from keras_initkit._random_state import random_state_kept
from keras_initkit.capture._objective import training_loss
from keras_initkit.capture.backends import derivatives_backend
from keras_initkit.schemes._plan import Plan


class ScaledLoss:
    """The loss L(s_1 W_1, ..., s_n W_n, rest) of a model whose `scaled` weights are scaled; the model stays unchanged.

    The gradient is taken with respect to all trainable weights; `seed` is that of dropout's masks.
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

    def compiled(self, function: Callable[..., Any]) -> Callable[..., tuple[float, np.ndarray]]:
        """The scalar `function([scales], *data)` and its gradient with respect to the scales, on the host."""
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
            return float(to_numpy(value)), to_numpy(gradient).astype("float64")

        return value_and_gradient

    def check_finite(self, step: int, *values: Any) -> None:
        """Stops where something is NaN or infinite."""
        if not all(np.isfinite(value).all() for value in values):
            hint = (
                "The model overflows with its present weights: look for NaN in the data, or initialize it by 'auto' or "
                "'lsuv' first."
                if step == 0
                else "Lower learning_rate."
            )
            raise ValueError(f"{self._scheme}: the loss or its gradient is not finite at step {step}. {hint}")


@contextlib.contextmanager
def loss_of(plan: Plan, loss: Any, scheme: str) -> Iterator[Any]:
    """The model's `compute_loss` uses `loss`, or the one it is compiled with, for a while; yields that loss."""
    if loss is None and not is_compiled_with_loss(plan.model):
        raise ValueError(
            f"{scheme}: the model {plan.model.name!r} is not compiled with a loss, and loss is None; expected either. "
            "Give loss=, or compile the model."
        )
    with random_state_kept(), training_loss(plan.model, loss):
        yield plan.model.loss if loss is None else loss


def scalable(plan: Plan, scheme: str, rank: int = 0) -> list[keras.Variable]:
    """Returns the plan's weights of this rank or more that a scale changes and that have a gradient; notes others."""
    trainable = {id(variable) for variable in plan.model.trainable_variables}
    found: dict[int, keras.Variable] = {}
    for weight in (weight for layer in plan.layers.values() for weight in layer.weights):
        if id(weight) not in trainable:
            plan.skip(weight, "it is not trainable: its gradient is not taken")
        elif len(weight.shape) < rank:
            plan.skip(weight, f"{scheme} sets weights of rank {rank} and more")
        elif not np.any(to_numpy(weight.value)):
            plan.skip(weight, "it is zero, whatever its scale")
        else:
            found[id(weight)] = weight
    if not found:
        raise ValueError(f"{scheme}: no trainable weight of the chosen layers differs from zero. Draw them first.")
    return list(found.values())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
