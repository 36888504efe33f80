"""What a scheme works on: the weights that it may set, and the record of what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_initkit.structure import Kernel, kernels, weighted_layers
from keras_initkit.structure.variables import VariableMap
from keras_initkit.theory.fans import Fans


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


class Plan:
    """The weights of a model that a scheme may set.

    Args:
        model: a built model.
        layers: the chosen layers, by path.
        x, y: the data, or `None`.
        seed: of everything that is drawn.

    Attributes:
        kernels: the chosen layers' kernels (`structure.Kernel`), in the order of `structure.kernels`.
    """

    def __init__(
        self, model: keras.Model, layers: Mapping[str, keras.layers.Layer], x: Any = None, y: Any = None, seed: int = 0
    ):
        self.model, self.layers, self.x, self.y, self.seed = model, dict(layers), x, y, seed
        mine = {id(weight) for layer in self.layers.values() for weight in layer.weights}
        self.kernels: list[Kernel] = [k for k in kernels(model) if id(k.variable) in mine]
        owners = {}
        for path, layer in weighted_layers(model).items():
            for index, weight in enumerate(layer.weights):
                owners.setdefault(id(weight), (path, weight, index))
        self._changes: dict[int, WeightChange] = {}
        roles = VariableMap((kernel.variable, kernel) for kernel in kernels(model))
        for key, (path, weight, _) in owners.items():
            kernel = roles.get(weight)
            stddev = _stddev(weight)
            self._changes[key] = WeightChange(
                path,
                weight.name,
                tuple(weight.shape),
                kernel.role if kernel else "",
                kernel.fans if kernel else None,
                stddev,
                stddev,
                "" if key in mine else "left out by `layers`",
            )
        self._variables = {key: weight for key, (_, weight, _) in owners.items()}
        self._set: set[int] = set()
        self._positions = {key: position for position, key in enumerate(owners)}

    def seed_of(self, variable: keras.Variable) -> int:
        """A seed for this variable's draw, another for each variable of the model."""
        position = self._positions[id(variable)]
        return int(np.random.SeedSequence([self.seed, position]).generate_state(1)[0])

    def path_of(self, variable: keras.Variable) -> str:
        """Path of the layer that holds a variable."""
        return self._changes[id(variable)].layer

    def assign(self, variable: keras.Variable, values: Any) -> None:
        """Sets a variable."""
        variable.assign(values)
        self._set.add(id(variable))

    def skip(self, variable: keras.Variable, reason: str) -> None:
        """Says why a variable stays as it is."""
        self._changes[id(variable)] = replace(self._changes[id(variable)], skipped=reason)

    def note(self, variable: keras.Variable, note: str) -> None:
        """Says something of a variable that was set."""
        self._changes[id(variable)] = replace(self._changes[id(variable)], note=note)

    def changes(self) -> list[WeightChange]:
        """What became of every weight of the model."""
        result = []
        for key, change in self._changes.items():
            reason = "" if key in self._set else change.skipped or "no scheme touches it"
            result.append(replace(change, stddev_after=_stddev(self._variables[key]), skipped=reason))
        return result


def _stddev(variable: keras.Variable) -> float:
    values = np.asarray(keras.ops.convert_to_numpy(variable.value))
    return float(values.astype("float64").std()) if values.size else 0.0
