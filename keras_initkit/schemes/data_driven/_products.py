"""Products of weights and signals inside a layer's `call`, computed on the numbers that the layer is called with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_initkit.structure._graph import Call, Tensor
from keras_initkit.structure._recorder import Recorder
from keras_initkit.structure._weight_uses import collect_uses


class InnerProducts:
    """The operations that multiply weights into signals inside the layers of a model.

    Args:
        model: A built Keras model.
        x: The examples that it will run on; the operations are those for their sizes.
    """

    def __init__(self, model: keras.Model, x: Any):
        recorder = Recorder(model, None)
        try:
            recorder.run(keras.tree.map_structure(lambda each: keras.KerasTensor(each.shape, _dtype(each)), x))
        except Exception:  # of any kind, by a user's `call`: nothing is shown
            self._calls: list[Call] = []
        else:
            self._calls = recorder.calls
        uses = collect_uses(self._calls) if self._calls else {}
        self._products = {
            id(use.call): key for key, each in uses.items() for use in each if use.how == "multiplied"
        }  # the weight's identity by the call's

    def inside(self, layer: keras.Layer, index: int) -> dict[int, list[Call]]:
        """Returns the products inside a layer's call of this number by the weight's identity, in the order of flow.

        Those inside the layer's parts count too.
        """
        found: dict[int, list[Call]] = {}
        for call in self._calls_inside(layer, index):
            if id(call) in self._products:
                found.setdefault(self._products[id(call)], []).append(call)
        return found

    def are_shown(self, variable: keras.Variable, layer: keras.Layer) -> bool:
        """Whether there is any such product of a weight."""
        number = sum(call.layer is layer for call in self._calls)
        return any(id(variable) in self.inside(layer, index) for index in range(number))

    def compute(
        self, products: Sequence[Call], layer: keras.Layer, index: int, args: tuple, kwargs: Mapping[str, Any]
    ) -> list[Any]:
        """Returns the results of products inside a call of a layer, whose arguments are given, with the weights as set.

        Raises:
            LookupError: If a product needs something that the arguments and the weights do not hold.
        """
        *inside, call = self._calls_inside(layer, index)
        # A part's own call stands behind the calls inside it and makes the same tensors: the part is called as a whole.
        makers = {tensor: each for each in inside for tensor in each.outputs}
        known: dict[Tensor, Any] = {}
        for noted, given in (
            (call.args, args),
            *((call.kwargs[name], kwargs[name]) for name in call.kwargs if name in kwargs),
        ):
            symbols, values = keras.tree.flatten(noted), keras.tree.flatten(given)
            if len(symbols) == len(values):
                known.update((s, value) for s, value in zip(symbols, values, strict=True) if isinstance(s, Tensor))

        def value(tensor: Any) -> Any:
            if not isinstance(tensor, Tensor):
                return tensor
            if tensor not in known:
                if tensor.variable is not None:
                    known[tensor] = keras.ops.cast(tensor.variable.value, tensor.dtype)
                else:
                    maker = makers[tensor]
                    known.update(zip(maker.outputs, run(maker), strict=True))
            return known[tensor]

        def run(each: Call) -> list[Any]:
            given, options = keras.tree.map_structure(value, (each.args, dict(each.kwargs)))
            options.pop("training", None)  # as in the call around it
            return keras.tree.flatten(each.layer(*given, **options))

        return [run(product)[0] for product in products]

    def _calls_inside(self, layer: keras.Layer, index: int) -> list[Call]:
        """Returns the calls inside a layer's call of this number, and that call; none if it has no such call."""
        ends = [place for place, call in enumerate(self._calls) if call.layer is layer and call.opened]
        if index >= len(ends):
            return []
        return self._calls[ends[index - 1] + 1 if index else 0 : ends[index] + 1]


def _dtype(array: Any) -> str:
    return keras.backend.standardize_dtype(array.dtype)
