"""What a scheme works on: the weights that it may set, and the record of what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_initkit.structure import Kernel, kernels
from keras_initkit.structure._layer_kinds import is_opaque
from keras_initkit.structure._layer_paths import held_weights
from keras_initkit.structure._sublayers import walk_layers
from keras_initkit.structure._variables import VariableMap
from keras_initkit.theory._fans import Fans

UNTOUCHED = "no scheme touches it"


@dataclass(frozen=True)
class WeightChange:
    """What became of one weight.

    Args:
        layer: the layer's path in the model.
        name: the weight's name in it.
        shape: its shape.
        role: what its layer does with it (`structure.Kernel`), empty for what is no kernel.
        fans: of one gate or group.
        stddev_before, stddev_after: standard deviation of its elements.
        skipped: why it was left as it was; empty if it was set.
        note: what the scheme says of it.
        scale: mean square of a kernel's elements, afterwards, times its fan-in: 1 is LeCun's, 2 He's.
        forward_before, forward_after: variance of its layer's pre-activation (or output, without an activation);
            `None` where it was not measured.
        backward_before, backward_after: variance of the gradient of the loss with respect to that.
    """

    layer: str
    name: str
    shape: tuple[int, ...]
    role: str = ""
    fans: Fans | None = None
    stddev_before: float = 0.0
    stddev_after: float = 0.0
    skipped: str = ""
    note: str = ""
    scale: float | None = None
    forward_before: float | None = None
    forward_after: float | None = None
    backward_before: float | None = None
    backward_after: float | None = None


class Plan:
    """The weights of a model that a scheme may set.

    Layers that are quantized, or that LoRA adapts, are nobody's to set: their weights are recorded as skipped.

    Args:
        model: a built model.
        layers: the chosen layers, by path.
        x, y: the data, or `None`.
        seed: of everything that is drawn.

    Attributes:
        layers: those of the chosen layers that may be set, by path.
        kernels: their kernels (`structure.Kernel`), in the order of `structure.kernels`.
        notes: what the report says of the whole; a scheme may add to it.
    """

    def __init__(
        self, model: keras.Model, layers: Mapping[str, keras.layers.Layer], x: Any = None, y: Any = None, seed: int = 0
    ):
        self.model, self.x, self.y, self.seed = model, x, y, seed
        closed = {path: reason for path, layer in layers.items() if (reason := _closed(layer))}
        self.layers = {path: layer for path, layer in layers.items() if path not in closed}
        roles = VariableMap((kernel.variable, kernel) for kernel in kernels(model))
        self._changes: dict[int, WeightChange] = {}
        self._variables: dict[int, keras.Variable] = {}
        for path, layer, weight in held_weights(model):
            kernel = roles.get(weight)
            reason = closed.get(path, "") if path in layers else "left out by `layers`"
            if kernel is not None and not _is_float(weight):
                reason = reason or f"its elements are {weight.dtype}"
            change = WeightChange(path, _name(layer, weight), tuple(weight.shape), skipped=reason)
            if kernel is not None:
                change = replace(change, role=kernel.role, fans=kernel.fans)
            stddev = _stddev(weight)
            self._changes[id(weight)] = replace(change, stddev_before=stddev, stddev_after=stddev)
            self._variables[id(weight)] = weight
        self.kernels: list[Kernel] = [
            kernel
            for variable, kernel in roles.items()
            if id(variable) in self._changes and not self._changes[id(variable)].skipped
        ]
        self.notes: list[str] = []
        self._set: set[int] = set()
        self._positions = {key: position for position, key in enumerate(self._changes)}

    def seed_of(self, variable: keras.Variable) -> int:
        """A seed for this variable's draw, another for each variable of the model."""
        position = self._positions[id(variable)]
        return int(np.random.SeedSequence([self.seed, position]).generate_state(1)[0])

    def path_of(self, variable: keras.Variable) -> str:
        """Path of the layer that holds a variable."""
        return self._changes[id(variable)].layer

    def assign(self, variable: keras.Variable, values: Any) -> None:
        """Sets a variable.

        Raises:
            ValueError: if a value is not finite, or their shape is another.
        """
        host = np.asarray(keras.ops.convert_to_numpy(values))
        place = f"{self.path_of(variable)}: the scheme's values for {self._changes[id(variable)].name}"
        if host.shape != tuple(variable.shape):
            raise ValueError(f"{place} have shape {host.shape}, expected {tuple(variable.shape)}.")
        if _is_float(variable) and not np.isfinite(host).all():
            raise ValueError(f"{place} are not all finite.")
        variable.assign(values)
        self._set.add(id(variable))

    def skip(self, variable: keras.Variable, reason: str) -> None:
        """Says why a variable stays as it is."""
        self._changes[id(variable)] = replace(self._changes[id(variable)], skipped=reason)

    def note(self, variable: keras.Variable, note: str) -> None:
        """Says something of a variable that was set."""
        self._changes[id(variable)] = replace(self._changes[id(variable)], note=note)

    def paths_of_kernels(self) -> list[str]:
        """Paths of all layers of the model that have kernels, chosen or not."""
        return list(dict.fromkeys(change.layer for change in self._changes.values() if change.role))

    def was_set(self, variable: keras.Variable) -> bool:
        """Whether the scheme has set a variable."""
        return id(variable) in self._set

    def changes(self) -> list[WeightChange]:
        """What became of every weight of the model."""
        result = []
        for key, change in self._changes.items():
            values = _values(self._variables[key])
            reason = "" if key in self._set else change.skipped or UNTOUCHED
            scale = None
            if change.fans is not None and values.size:
                scale = float(np.mean(values**2)) * change.fans.fan_in
            after = float(values.std()) if values.size else 0.0
            result.append(replace(change, stddev_after=after, skipped=reason, scale=scale))
        return result


def _closed(layer: keras.layers.Layer) -> str:
    """Why nobody may set a layer's weights; empty if one may."""
    for part in _as_one(layer):
        if getattr(part, "quantization_mode", None) is not None:
            return f"its layer is quantized ({part.quantization_mode})"
        if getattr(part, "lora_enabled", False):
            return "its layer has a LoRA adapter, which was trained for these weights"
    return ""


def _as_one(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """A layer, and whatever is in it without a path of its own."""
    return [part for _, part in walk_layers(layer)] if is_opaque(layer) else [layer]


def _name(layer: keras.layers.Layer, weight: keras.Variable) -> str:
    """The weight's name, after its part's (`"lstm_cell_1/kernel"`) where a layer's parts have weights of one name."""
    if sum(weight.name == other.name for other in layer.weights) == 1 or not is_opaque(layer):
        return weight.name
    owner = [part for part in _as_one(layer) if any(weight is each for each in part.weights)][-1]
    return f"{owner.name}/{weight.name}"


def _is_float(variable: keras.Variable) -> bool:
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(variable.dtype))


def _values(variable: keras.Variable) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable.value)).astype("float64")


def _stddev(variable: keras.Variable) -> float:
    values = _values(variable)
    return float(values.std()) if values.size else 0.0
