"""The plan of a scheme: weights that it may set, and a record of what it did."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit.structure import Kernel
from keras_initkit.structure._graph import Call
from keras_initkit.structure._kernels import WeightRoles
from keras_initkit.structure._layer_kinds import is_opaque, quantization_mode
from keras_initkit.structure._layer_paths import held_weights
from keras_initkit.structure._sublayers import walk_layers
from keras_initkit.structure._variables import VariableMap
from keras_initkit.theory._fans import Fans

UNTOUCHED = "no scheme touches it"


@dataclass(frozen=True)
class WeightChange:
    """How a scheme changed one weight.

    Args:
        layer: String. Path of the layer in the model.
        name: String. Name of the weight in the layer.
        shape: Tuple of integers. Shape of the weight.
        role: String. How the layer uses a kernel (see `structure.Kernel`); empty for other weights.
        fans: `Fans` of one gate or group of a kernel, or `None`.
        stddev_before, stddev_after: Floats. Standard deviation of the elements.
        skipped: String. Why the weight is unchanged; empty if it was set.
        note: String. The scheme's note.
        scale: Float. Mean square of a kernel's elements, afterwards, times its fan-in: 1 is LeCun's, 2 He's.
        forward_before, forward_after: Floats. Variance of the layer's pre-activation (its output, without an
            activation); `None` where it was not measured.
        backward_before, backward_after: Floats. Variance of the gradient of the loss with respect to it, or `None`.
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
    """The weights of a model that a scheme may set; every scheme takes a plan as its first argument.

    A scheme goes through `kernels` (or `layers`, for weights that are not kernels), sets weights by `assign` and says
    by `skip` why it leaves others unchanged. `note` and `notes` appear in the report. Draws take their seeds from
    `derive_seed`: no two weights share one. Whatever a scheme writes in another way is put back.
    Quantized layers and layers with a LoRA adapter may not be set, nor weights whose use is not known, unless their
    layer is `asked` for; they are recorded as skipped, like weights that are no kernels, each with the reason.

    Args:
        model: Built Keras model.
        layers: Dictionary of the chosen layers by path.
        x: Examples, or `None`.
        y: Labels, or `None`.
        seed: Integer. Seed of all draws.
        asked: Collection of paths of layers whose weights may be set even if their use is not known.

    Attributes:
        model, x, y, seed: The arguments.
        layers: Dictionary of the chosen layers that may be set, by path.
        kernels: List of their kernels (`structure.Kernel`), in the order of `structure.kernels`.
        notes: List of strings. Notes on the whole model; a scheme may append to it.

    Example:

    >>> from keras_initkit.structure import weighted_layers
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="head")])
    >>> plan = Plan(model, weighted_layers(model))
    >>> for kernel in plan.kernels:
    ...     plan.assign(kernel.variable, np.ones(kernel.variable.shape))
    >>> [(change.name, change.stddev_after, change.skipped) for change in plan.changes()]
    [('kernel', 0.0, ''), ('bias', 0.0, 'no scheme touches it')]
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Mapping[str, keras.layers.Layer],
        x: Any = None,
        y: Any = None,
        seed: int = 0,
        asked: Collection[str] = (),
    ):
        self.model: keras.Model = model
        self.x: Any = x
        self.y: Any = y
        self.seed: int = seed
        closed = {path: reason for path, layer in layers.items() if (reason := _closed(layer))}
        self.layers: dict[str, keras.layers.Layer] = {
            path: layer for path, layer in layers.items() if path not in closed
        }
        self._roles = WeightRoles(model)
        roles = VariableMap((kernel.variable, kernel) for kernel in self._roles.kernels)
        self._changes: dict[int, WeightChange] = {}
        self._variables: dict[int, keras.Variable] = {}
        for path, layer, weight in held_weights(model):
            kernel = roles.get(weight)
            reason = closed.get(path, "") if path in layers else "left out by `layers`"
            if kernel is not None and not _is_float(weight):
                reason = reason or f"its elements are {weight.dtype}"
            if kernel is not None and kernel.role == "unknown" and path not in asked:
                why = self._roles.reasons.get(id(weight), "how its layer uses it is not known")
                reason = reason or f"{why}; draw it with layers={path!r}, or describe it by register_kernels"
            elif kernel is None:
                reason = reason or self._roles.reasons.get(id(weight), "")
            change = WeightChange(path, _name(layer, weight), tuple(weight.shape), skipped=reason)
            if kernel is not None:
                change = replace(change, role=kernel.role, fans=(kernel.output_use if kernel.tied else kernel).fans)
            stddev = _stddev(_values(weight))
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

    def derive_seed(self, variable: keras.Variable) -> int:
        """Returns the seed of a variable's draw; each variable of the model has another."""
        position = self._positions[id(variable)]
        return int(np.random.SeedSequence([self.seed, position]).generate_state(1)[0])

    seed_of = derive_seed  # the older name, which users' schemes call

    def path_of(self, variable: keras.Variable) -> str:
        """Returns the path of the layer that owns a variable."""
        return self._changes[id(variable)].layer

    def assign(self, variable: keras.Variable, values: Any) -> None:
        """Sets a variable to an array of its shape.

        Raises:
            ValueError: If a value is not finite, or the shape differs.
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
        """Records why a variable is left unchanged."""
        self._changes[id(variable)] = replace(self._changes[id(variable)], skipped=reason)

    def note(self, variable: keras.Variable, note: str) -> None:
        """Adds a note on a variable to the report."""
        self._changes[id(variable)] = replace(self._changes[id(variable)], note=note)

    def paths_of_kernels(self) -> list[str]:
        """Returns the paths of all layers of the model that have kernels, chosen or not."""
        return list(dict.fromkeys(change.layer for change in self._changes.values() if change.role))

    def products_of(self, kernel: Kernel) -> list[Call]:
        """Returns the operations that multiply a kernel inside the `call` of its layer, where a trace shows them."""
        return self._roles.products.get(id(kernel.variable), [])

    def was_set(self, variable: keras.Variable) -> bool:
        """Returns whether `assign` has set a variable."""
        return id(variable) in self._set

    def changes(self) -> list[WeightChange]:
        """Returns a `WeightChange` for every weight of the model."""
        result = []
        for key, change in self._changes.items():
            values = _values(self._variables[key])
            reason = "" if key in self._set else change.skipped or UNTOUCHED
            scale = None
            if change.fans is not None and values.size:
                scale = float(np.mean(values**2)) * change.fans.fan_in
            result.append(replace(change, stddev_after=_stddev(values), skipped=reason, scale=scale))
        return result


def _closed(layer: keras.layers.Layer) -> str:
    """Why nobody may set a layer's weights; empty if one may."""
    for part in _as_one(layer):
        if quantization_mode(part) is not None:
            return f"its layer is quantized ({quantization_mode(part)})"
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
    return to_numpy(variable).astype("float64")


def _stddev(values: np.ndarray) -> float:
    return float(values.std()) if values.size else 0.0
