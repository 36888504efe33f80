"""What several test files share: arrays, event files, other processes, models.

`from helpers import ...` works in every folder: pytest puts `tests`, where `conftest.py` is, on the path of imports,
and `run_python` hands that path on to other processes.
"""

from __future__ import annotations

import io
import math
import os
import pathlib
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import integrate
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from keras_initkit._arrays import to_numpy
from keras_initkit.report._scalars import DEFAULT_STATISTICS
from keras_initkit.schemes._plan import Plan
from keras_initkit.statistics._moments import Moments
from keras_initkit.structure import weighted_layers

CROSS_ENTROPY = "sparse_categorical_crossentropy"
COMMANDS = ["diagnose", "repair", "initialize", "probe", "verify", "compare", "list", "reproduce", "doctor"]


# Arrays


def values(tensor: Any) -> np.ndarray:
    """Returns a copy of a tensor's or a variable's values in float64."""
    return to_numpy(tensor).astype("float64")


def state_of(model: keras.Model) -> list[tuple[str, np.ndarray]]:
    """Returns copies of all variables of a model and its optimizer, by path below the model."""
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer is not None else [])]
    return [(each.path.removeprefix(f"{model.name}/"), np.array(to_numpy(each.value))) for each in variables]


def assert_moments(
    moments: Moments, tensor: np.ndarray, rel: float = 1e-5, near_zero: Sequence[str] = ("mean",)
) -> None:
    """Asserts that moments are a tensor's; figures that may come out near zero, relative to the tensor's size."""
    expected = Moments.of(tensor)
    for name in ("count", "mean", "variance", "minimum", "maximum", "zeros"):
        slack = 1e-6 * expected.stddev if name in near_zero else 0
        assert getattr(moments, name) == pytest.approx(getattr(expected, name), rel=rel, abs=slack), name


def gaussian_mean(function: Callable[[float], float], variance: float = 1.0) -> float:
    """Returns E[function(x)] for x ~ N(0, variance), by SciPy's quadrature."""
    stddev = math.sqrt(variance)
    integral = integrate.quad(lambda z: function(stddev * z) * math.exp(-z * z / 2), -12, 12, limit=200)[0]
    return integral / math.sqrt(2 * math.pi)


def second_moment(function: Callable[[float], float], variance: float = 1.0) -> float:
    """Returns E[function(x)^2] for x ~ N(0, variance)."""
    return gaussian_mean(lambda x: function(x) ** 2, variance)


def dead_units(outputs: np.ndarray) -> np.ndarray:
    """Returns which units are zero for every example and position."""
    return (outputs.reshape(-1, outputs.shape[-1]) == 0).all(axis=0)


def saturated_units(outputs: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns which units lie in the outer 1 % of the range in 95 % of their examples and positions."""
    from_middle = np.abs(outputs.reshape(-1, outputs.shape[-1]) - (low + high) / 2)
    return (from_middle > 0.99 * (high - low) / 2).mean(axis=0) >= 0.95


# Event files


def read_events(directory: str | os.PathLike) -> EventAccumulator:
    """Returns every scalar and tensor of a directory's event files, as TensorBoard reads them."""
    accumulator = EventAccumulator(str(directory), size_guidance={"tensors": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def events(*paths: str | os.PathLike) -> list:
    """Returns the events of files, one by one; of a directory, those of the files that lie in it itself."""
    files: list[pathlib.Path] = []
    for path in map(pathlib.Path, paths):
        files += sorted(path.glob("events.out.tfevents.*")) if path.is_dir() else [path]
    return [event for file in files for event in EventFileLoader(str(file)).Load()]


def default_tags(*names: str, bounded: Sequence[str] = ()) -> set[str]:
    """Returns the tags that `LayerStatsCallback` writes by default; saturation is that of bounded activations."""
    statistics = [name for name in DEFAULT_STATISTICS if name != "saturated_units"]
    saturation = {f"saturated_units/{layer}" for layer in bounded}
    return {f"{statistic}/{name}" for statistic in statistics for name in names} | saturation


def together_tags(signal: Sequence[str] = ("forward", "backward"), bounded: bool = False) -> set[str]:
    """Returns the tags of all layers together that `LayerStatsCallback` writes by default.

    `signal` has the directions in which a layer is judged: neither where all are normalized or at the output.
    """
    charts = [*(f"Signal decades/{way}" for way in signal), "Units/dead", *["Units/saturated"] * bounded]
    charts += ["Weights log10/update ratio", "Weights log10/gradient variance"]
    return {f"{chart} {part}" for chart in charts for part in ("min", "median", "max")} | {"Values/NaN or infinite"}


# Other processes


def python_command(*arguments: Any) -> list[str]:
    """Returns the command that runs this interpreter; code after `-c` may be indented."""
    return [sys.executable, *(textwrap.dedent(str(argument)) for argument in arguments)]


def python_environment(**changes: str) -> dict[str, str]:
    """Returns this process' environment, with its path of imports and what is changed."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), **changes}


def run_python(
    *arguments: Any, status: int | None = 0, prefix: Sequence[str] = (), environment: dict | None = None, **options: Any
) -> subprocess.CompletedProcess:
    """Runs Python with these arguments in another process, and asserts how it ends (`None`: in any way)."""
    options = {"capture_output": True, "text": True, "timeout": 300, "check": False, **options}
    command = [*prefix, *python_command(*arguments)]
    done = subprocess.run(command, env=python_environment(**(environment or {})), **options)
    assert status is None or done.returncode == status, done.stderr[-4000:]
    return done


def command_status(*arguments: str) -> int:
    """Runs `keras-initkit` in this process and returns its exit status, argparse's for wrong arguments included."""
    from keras_initkit import cli

    try:
        return cli.main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        super().__init__()
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TERM", "xterm")

    def isatty(self) -> bool:
        return True


# Models


def built(layer: keras.Layer, *shapes: tuple) -> keras.Layer:
    layer.build(*shapes)
    return layer


def mlp(*inner: keras.Layer, out: Any = "softmax", kind: type = keras.Sequential, **options: Any) -> keras.Model:
    """Six inputs, a relu layer `a` with these options, what stands between, and three outputs `z`."""
    first = layers.Dense(8, "relu", name="a", **options)
    return kind([layers.Input((6,)), first, *inner, layers.Dense(3, out, name="z")])


class Subclassed(keras.Model):
    """Layers in lists and dicts, one called twice, one whose output goes nowhere, one never called."""

    def __init__(self):
        super().__init__()
        self.several = [layers.Dense(6, "relu", name=f"several_{i}") for i in range(2)]
        self.named = {"shared": layers.Dense(6, "tanh", name="shared"), "last": [layers.Dense(3, name="last")]}
        self.aside, self.never = layers.Dense(2, name="aside"), layers.Dense(2, name="never")
        self.attention = layers.MultiHeadAttention(2, 3, name="attention")

    def call(self, x, training=None):
        for layer in self.several:
            x = layer(x)
        self.aside(x)
        x = self.named["shared"](self.named["shared"](x))
        x = ops.expand_dims(x, 1)
        return self.named["last"][0](ops.squeeze(self.attention(x, x), 1))


class TiedEmbedding(keras.Model):
    """An embedding whose table is also the last layer's kernel."""

    def __init__(self):
        super().__init__()
        self.embedding, self.hidden = layers.Embedding(12, 5), layers.Dense(5, "relu")

    def call(self, x):
        return ops.matmul(self.hidden(self.embedding(x)), ops.transpose(self.embedding.embeddings))


def cross_entropy() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


# Schemes


def plan_of(model: keras.Model, x: Any = None, y: Any = None, seed: int = 0, layers: Sequence[str] = ()) -> Plan:
    """Returns the plan of a scheme for these layers of a model, or all."""
    chosen = {name: layer for name, layer in weighted_layers(model).items() if not layers or name in layers}
    return Plan(model, chosen, x, y, seed)
