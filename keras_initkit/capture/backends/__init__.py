"""The only files that import a framework. The active backend is imported when it is first needed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_initkit._compat import tensorflow_is_deterministic
from keras_initkit.capture.backends._protocols import DerivativesBackend, Meter, ProbeBackend
from keras_initkit.capture.step._reduction import MeasurementSpec

BACKENDS = ("tensorflow", "jax", "torch")


def step_meter(
    model: keras.Model, find_layers: Callable[[keras.Model], dict[str, keras.layers.Layer]], spec: MeasurementSpec
) -> Meter:
    """Returns what measures single training steps of `model` on the active backend.

    Raises:
        ValueError: If steps cannot be measured on this backend, or under the model's distribution strategy.
    """
    return _load("LayerStatsCallback", "step").STEP_METER(model, find_layers, spec)


def loop_meter(
    models: Mapping[str, keras.Model], optimizers: Sequence[Any], find_layers: Any, spec: MeasurementSpec
) -> Any:
    """Returns what measures single calls of a training step that is written by hand; see `LoopMeter`.

    Raises:
        ValueError: If steps cannot be measured on this backend.
    """
    return _load("watch", "loop").LOOP_METER(models, optimizers, find_layers, spec)


def probe_backend() -> ProbeBackend:
    """Returns what a probe needs of the active framework."""
    return _load("probe", "probe")


def derivatives_backend() -> DerivativesBackend:
    """Returns derivatives, of any order, on the active framework."""
    return _load("scheme", "derivatives")


def _load(user: str, module: str) -> Any:
    name = keras.backend.backend()
    if name not in BACKENDS:
        raise ValueError(
            f"{user}: the Keras backend is {name!r}, expected one of {', '.join(map(repr, BACKENDS))}, those on which "
            "models train. Set KERAS_BACKEND before Keras is imported."
        )
    return importlib.import_module(f"{__name__}.{name}.{module}")


def is_signal(x: Any) -> bool:
    """Returns whether `x` is a dense tensor of floating-point numbers."""
    return probe_backend().is_tensor(x) and keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype))


def missing_determinism() -> str:
    """Returns what makes operations deterministic, where a GPU is used and they are not; otherwise an empty string."""
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU") and not tensorflow_is_deterministic():
            return "tf.config.experimental.enable_op_determinism()"
    elif name == "torch":
        import torch

        if torch.cuda.is_available() and not torch.are_deterministic_algorithms_enabled():
            return "torch.use_deterministic_algorithms(True)"
    elif name == "jax":
        import jax

        flag = "--xla_gpu_deterministic_ops=true"
        if jax.default_backend() == "gpu" and flag not in os.environ.get("XLA_FLAGS", ""):
            return f"XLA_FLAGS={flag} in the environment"
    return ""


def writes_logs() -> bool:
    """Returns whether this process writes the logs: the first, where several train one model (on JAX only)."""
    if keras.backend.backend() != "jax":
        return True
    import jax

    return jax.process_index() == 0
