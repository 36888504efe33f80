"""What the backends offer, as types."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from keras_initkit.report._rows import TensorStats

OnArray = Callable[[np.ndarray | None], Any]  # called with an array on the host; `None` for a symbolic tensor
Scalar = Callable[[list[Any]], Any]  # a scalar tensor, as a function of a list of tensors


class Meter(Protocol):
    """Measures single training steps. Several meters of one model share a measured step."""

    def arm(self, histograms: bool = False) -> None:
        """Has the next training step measured. Whatever becomes of it, the step after it is a plain one."""

    def collect(self) -> list[TensorStats]:
        """Returns the rows that the measured step read; none if it did not take place."""


class ProbeBackend(Protocol):
    """Values and gradients of a model's tensors in one eager pass."""

    def is_tensor(self, x: Any) -> bool:
        """Returns whether `x` is a dense tensor."""

    def observed(self, tensor: Any, on_value: OnArray, on_gradient: OnArray) -> Any:
        """Returns the same tensor for the model to go on with.

        `on_value` is called with its value and, in the backward pass, `on_gradient` with its gradient.
        """

    def differentiate(
        self, function: Scalar, inputs: Sequence[Any], variables: Sequence[keras.Variable]
    ) -> tuple[np.ndarray, list[np.ndarray | None]]:
        """Returns the scalar `function(inputs)` and its gradients with respect to the variables, as host arrays."""

    def no_gradients(self) -> contextlib.AbstractContextManager[None]:
        """A context in which nothing is recorded for a backward pass."""

    def undisturbed(self, model: keras.Model) -> contextlib.AbstractContextManager[None]:
        """A context that restores the framework's own state, and in which functions run eagerly."""


class DerivativesBackend(Protocol):
    """Derivatives of any order."""

    def value_and_gradients(self, function: Callable[..., Any]) -> Callable[..., tuple[Any, list[Any]]]:
        """Returns a function of the same arguments that returns `function(values, ...)` and its gradients.

        `function` returns a scalar; the gradients are those with respect to the tensors of the list `values`. The
        result can be differentiated again.
        """

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the same function, fast where it is called again with the same shapes.

        It takes and returns tensors alone, in lists or tuples.
        """

    def lacks_derivative(self, error: Exception) -> bool:
        """Returns whether an error says that some operation has no derivative of that order."""
