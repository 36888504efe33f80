"""The only files that import a framework; the active one's is loaded, when it is first needed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import keras

from keras_initkit.capture.step._reduction import MeasurementSpec


def step_meter(
    model: keras.Model, find_layers: Callable[[keras.Model], dict[str, keras.layers.Layer]], reading: MeasurementSpec
) -> Any:
    """What measures single training steps of `model` on the active backend.

    It has `arm(histograms=False)`, which has the next training step measured and the one after be a plain one
    again, whatever becomes of it; and `collect()`, which returns the measured step's rows (`TensorStats`), and
    none if it did not take place. Several meters of one model share a measured step.

    Args:
        model: a compiled model.
        find_layers: returns the layers of a built model that are to be read, by path.
        reading: what is read of them.

    Raises:
        ValueError: where steps cannot be measured.
    """
    backend = keras.backend.backend()
    modules = ("tensorflow", "jax", "torch")
    if backend not in modules:
        raise ValueError(
            f"LayerStatsCallback: the Keras backend is {backend!r}, expected one of {', '.join(map(repr, modules))}, "
            "those on which models train. Set KERAS_BACKEND before Keras is imported."
        )
    module = importlib.import_module(f"{__name__}.{backend}.step")
    return module.STEP_METER(model, find_layers, reading)


def writes_logs() -> bool:
    """Whether this process writes what all of them measured: the first, where several train one model.

    On JAX, after `keras.distribution.initialize`; every other backend that Keras trains on has one process.
    """
    if keras.backend.backend() != "jax":
        return True
    import jax

    return jax.process_index() == 0


def probe_backend() -> ModuleType:
    """What `probe` needs of the active framework: `tensorflow_probe`, `jax` or `torch`, each with

    - `observed(tensor, on_value, on_gradient)`: the same tensor, and what is to be called with its value and,
      in the backward pass, with its gradient, as arrays on the host (`None` for what a traced function holds);
    - `differentiate(function, inputs, variables)`: the scalar `function(inputs)` and its gradients, as host arrays;
    - `undisturbed(model)`: a context in which the framework's own state is kept, and functions run eagerly.
    """
    name = keras.backend.backend()
    names = ("tensorflow", "jax", "torch")
    if name not in names:
        raise ValueError(f"probe: the Keras backend is {name!r}, expected one of {', '.join(map(repr, names))}.")
    return importlib.import_module(f"{__name__}.{name}.probe")


def derivatives_backend() -> ModuleType:
    """Derivatives, of any order, on the active framework: `tensorflow_derivatives` and so on, each with

    - `value_and_gradients(function)`: a function of the same arguments that returns `function(values, ...)`, a
      scalar, and its gradients with respect to the tensors of the list `values`; it can be differentiated again;
    - `compiled(function)`: the same function, fast where it is called again with the same shapes. It takes and
      returns tensors alone, in lists or tuples;
    - `lacks_derivative(error)`: whether an error says that some operation has no derivative of that order.
    """
    name = keras.backend.backend()
    if name not in ("tensorflow", "jax", "torch"):
        raise ValueError(f"scheme: the Keras backend is {name!r}, expected 'tensorflow', 'jax' or 'torch'.")
    return importlib.import_module(f"{__name__}.{name}.derivatives")
