"""Propagates signals forward and gradients backward over the calls of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras

from keras_initkit.prediction._known_values import KnownValues
from keras_initkit.prediction.algebra._layout import from_values, usual_axes
from keras_initkit.prediction.algebra._resuming import is_by_chance, is_doubtful, moved_to
from keras_initkit.prediction.algebra._signals import (
    Gradient,
    LayerPropagation,
    Signal,
    UnpredictableError,
    add_gradients,
)
from keras_initkit.prediction.operation_rules import (  # noqa: F401  importing a file registers its rules
    _averages,
    _depthwise,
    _elementwise,
    _extremes,
    _factors,
    _functions,
    _kernel_products,
    _linear,
    _matrix_products,
    _merging,
    _moving,
    _normalization,
    _positions,
    _softmax,
    _sums,
    _table_rows,
)
from keras_initkit.prediction.operation_rules._rule_table import propagate
from keras_initkit.statistics._expected import Expected
from keras_initkit.statistics._tap import Kind, Tap
from keras_initkit.structure._graph import Call, Tensor
from keras_initkit.structure._layer_paths import named_layers

_CHANCE = "its few units are much alike in all examples, so the draw of a few weights decides on its scale"
_DOUBT = "backward: few examples or units have left too large an error, so it goes on from the measured gradient"
_CONSEQUENCE = "its input is not predicted"


class Propagation:
    """Propagates signals forward and gradients backward over a model's calls."""

    def __init__(
        self,
        model: keras.Model,
        graph: list[Call],
        measured: Mapping[Tap, Any],
        examples: int | None,
        known_values: KnownValues,
    ):
        self.expected: dict[Tap, Expected] = {}
        self.unpredicted: dict[str, str] = {}
        self.graph, self.measured, self.examples, self.known_values = graph, measured, examples, known_values
        self.paths = {id(layer): path for path, layer in named_layers(model).items()}
        self.propagations: dict[int, LayerPropagation] = {}
        self.signals: dict[int, Signal] = {}
        self.resumed: set[int] = set()  # tensors whose signal is the measured one
        self.twins: dict[tuple, int] = {}  # the first output of layers that are alike, by input and configuration
        self.by_chance: set[int] = set()  # tensors on whose moments a few weights decide
        self.resumed_back: set[int] = set()  # the same for gradients
        self.gradients: dict[int, list[Gradient | None]] = {}  # None: a part that is not known

    def forward(self, signals: Mapping[int, Signal]) -> None:
        floats = {tensor.number for tensor in self.graph[-1].inputs if tensor.is_float}
        self.signals.update({number: signal for number, signal in signals.items() if number in floats})
        for place, call in enumerate(self.graph):
            if not call.opened:
                self._propagate_forward(place, call)
            elif not all(self._signal(tensor).known or tensor in self.known_values for tensor in call.outputs):
                self._resume(call)
            for tap, tensor in [*_tapped("input", call, call.inputs), *_tapped("output", call, call.outputs)]:
                if tensor.number not in self.resumed:
                    self._expect(tap, self._with_moments(tensor))

    def _signal(self, tensor: Tensor) -> Signal:
        """Returns the signal of a tensor, the same one each time."""
        if tensor.number not in self.signals:
            known, fields = self.known_values, {}
            if tensor in known:
                fields = {"values": known.of(tensor), "sources": known.sources(tensor)}
                fields["note"] = "data" if known.has_data(tensor) else None
            self.signals[tensor.number] = Signal.unknown(tensor.shape[1:-1], **fields)
        return self.signals[tensor.number]

    def _with_moments(self, tensor: Tensor) -> Signal | None:
        """Returns a tensor's signal, measured where its values are known."""
        found = self.signals.get(tensor.number)
        if found is None or found.values is None:
            return found
        if not tensor.shape:  # a single number, such as the factor of attention's scores
            return None
        try:
            return from_values(found, tensor.shape, usual_axes(len(tensor.shape)))
        except UnpredictableError:
            return None

    def _propagate_forward(self, place: int, call: Call) -> None:
        if all(tensor in self.known_values for tensor in call.outputs):
            return
        twin = self._twin(call)
        try:
            found = propagate(_with_examples(call, self.examples), self._signal)
            if twin is not None:  # the same numbers once more
                found = replace(found, output=twin)
            self._expect(Tap("pre_activation", call.path, call.index), found.pre_activation)
            if not found.output.known and found.output.note is None and found.output.values is None:
                raise UnpredictableError(found.reason or "its output has no finite mean square")
        except UnpredictableError as error:
            self._explain(call, str(error))
            self._resume(call, error.guess)
            return
        self.propagations[place] = found
        for tensor, signal in zip(call.outputs, (found.output, *found.others), strict=False):
            self.signals[tensor.number] = signal
            if is_by_chance(signal, tensor.shape[-1] if tensor.shape else None):
                self._resume(call, signal)
                if tensor.number in self.resumed:
                    self.by_chance.add(tensor.number)
                    self._explain(call, _CHANCE)

    def _twin(self, call: Call) -> Signal | None:
        """Returns the output of an earlier layer that is like this one and reads the same tensor."""
        if not isinstance(call.layer, keras.layers.Layer) or "Pooling" not in type(call.layer).__name__:
            return None
        config = {name: value for name, value in call.layer.get_config().items() if name != "name"}
        key = (call.inputs[0].number, type(call.layer), str(config))
        first = self.twins.setdefault(key, call.outputs[0].number)
        return self.signals.get(first) if first != call.outputs[0].number else None

    def _explain(self, call: Call, reason: str) -> None:
        """Notes why a call is not predicted: once for each layer, with the parts of it that are no layers."""
        path = call.path
        if not isinstance(call.layer, keras.Layer):
            named = set(self.paths.values())
            parts = path.split("/")
            outer = ["/".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]
            path = next((each for each in outer if each in named), path)
        if reason != _CONSEQUENCE or not any(path.startswith(f"{each}/") or path == each for each in self.unpredicted):
            self.unpredicted.setdefault(path, reason)

    def _resume(self, call: Call, guess: Signal | None = None) -> None:
        """Goes on from what was measured at a call's outputs."""
        for tap, tensor in _tapped("output", call, call.outputs):
            seen = self._measured_at(tap)
            if seen is not None:
                sources: frozenset = frozenset({("measured", tensor.number)})
                if not getattr(call.layer, "weights", None):  # nothing new makes it independent of what it reads
                    sources = sources.union(*(self._signal(each).sources for each in call.inputs))
                self.resumed.add(tensor.number)
                resumed = Signal(*seen, tensor.shape[1:-1], sources=sources)
                if guess is not None and guess.known and guess.variance > 0 and guess.axes is None:
                    resumed = replace(guess, mean=seen[0], second_moment=seen[1], **moved_to(guess, resumed),
                                      sources=guess.sources or sources, argument=None, function=None)  # fmt: skip
                self.signals[tensor.number] = resumed

    def _measured_at(self, tap: Tap) -> tuple[float, float] | None:
        """Returns mean and mean square of what was measured at a tap."""
        if tap not in self.measured:
            return None
        mean, variance = float(self.measured[tap].mean), float(self.measured[tap].variance)
        second = variance + mean**2
        return (mean, second) if math.isfinite(second) else None

    def _expect(self, tap: Tap, signal: Signal | None) -> None:
        if signal is not None and signal.known:
            seen = signal.with_margin()
            self.expected[tap] = Expected(seen.mean, seen.variance)

    def _expect_gradient(self, tap: Tap, gradient: Gradient | None) -> None:
        if gradient is not None and math.isfinite(gradient.second_moment):
            self.expected[tap] = Expected(0.0, gradient.second_moment)

    def backward(self, cotangents: Mapping[int, list[Gradient]]) -> None:
        self.gradients.update({number: list(gradients) for number, gradients in cotangents.items()})
        for place in reversed(range(len(self.graph))):
            call = self.graph[place]
            arrived = {tensor.number: self._arriving(call, tensor) for tensor in call.outputs}
            for tap, tensor in _tapped("output_gradient", call, call.outputs):
                if not self._has_margin(tensor) and tensor.number not in self.resumed_back:
                    self._expect_gradient(tap, arrived[tensor.number])
            if not call.opened:
                self._propagate_backward(place, call, list(arrived.values()))

    def _has_margin(self, tensor: Tensor) -> bool:
        """Whether a tensor has a border of zeros, whose gradients are not followed."""
        return tensor.number in self.signals and bool(self.signals[tensor.number].margin)

    def _arriving(self, call: Call, tensor: Tensor) -> Gradient | None:
        """Returns the gradient that arrives at a tensor from all its consumers, or else the measured one."""
        parts = self.gradients.get(tensor.number, [])
        if not parts and len(call.outputs) > 1 and not call.opened:
            return Gradient(0.0)  # nothing reads it
        known = [part for part in parts if part is not None and math.isfinite(part.second_moment)]
        if known and len(known) == len(parts):
            try:
                found = add_gradients(known)
            except UnpredictableError as error:
                self._explain(call, str(error))
            else:
                seen = self._measured_gradient(call, tensor, found) if is_doubtful(found) else None
                if seen is not None:
                    self._explain(call, _DOUBT)
                return found if seen is None else seen
        seen = self._measured_gradient(call, tensor)
        rest = [part for part in parts if part not in known]
        if seen is None or len(rest) != 1 or rest[0] is None or rest[0].chosen is None or seen.second_moment <= 0:
            return seen
        # What is measured beyond the parts that are known reaches the elements that a max pooling chose.
        fraction = max(1 - sum(part.second_moment for part in known) / seen.second_moment, 0.0)
        seen = replace(seen, chosen=rest[0].chosen, chosen_fraction=fraction)
        self.gradients[tensor.number] = [seen]
        return seen

    def _measured_gradient(self, call: Call, tensor: Tensor, guess: Gradient | None = None) -> Gradient | None:
        """Returns the gradient that was measured at a tensor, with the correlations of a guess."""
        for tap, output in _tapped("output_gradient", call, call.outputs):
            seen = self._measured_at(tap) if output == tensor else None
            if seen is not None:
                gradient = Gradient(seen[1], white=False, sources=frozenset({("measured gradient", tensor.number)}))
                if guess is not None and guess.second_moment > 0:
                    scaled = guess.scaled(seen[1] / guess.second_moment, values=guess.values, chosen=guess.chosen)
                    gradient = replace(scaled, balanced=guess.balanced, doubt=0.0)
                self.gradients[tensor.number] = [gradient]  # for the call inside this one that made the tensor
                self.resumed_back.add(tensor.number)
                return gradient
        return None

    def _propagate_backward(self, place: int, call: Call, gradients: list[Gradient | None]) -> None:
        found = self.propagations.get(place)
        back: list[Gradient | None] = [None] * len(call.inputs)
        gradient = gradients[0] if gradients else None
        if found is not None and (gradient is not None or found.others):
            try:
                parts = found.backward(gradients if found.others else gradient)  # type: ignore[arg-type]
                back = [*parts, *back][: len(call.inputs)]
                if any(tensor.number in self.by_chance for tensor in call.outputs):
                    back = [part and replace(part, doubt=math.inf) for part in back]
                if gradient is not None:
                    self._expect_inside(call, found, gradient)
                lost = [tensor for tensor, part in zip(call.inputs, back, strict=True) if part is None]
                if any(self._signal(tensor).known for tensor in lost):
                    self._explain(call, "backward: what a gate gets of its gradient is not known")
            except UnpredictableError as error:
                self._explain(call, f"backward: {error}")
                back[:1] = [error.part]
        for tensor, part in zip(call.inputs, back, strict=True):
            self.gradients.setdefault(tensor.number, []).append(part)
        for (tap, tensor), part in zip(_tapped("input_gradient", call, call.inputs), back, strict=False):
            if not self._has_margin(tensor):
                self._expect_gradient(tap, part)

    def _expect_inside(self, call: Call, found: LayerPropagation, gradient: Gradient) -> None:
        """Records the gradients of the pre-activation and of the weights."""
        if found.through_activation is not None:
            tap = Tap("pre_activation_gradient", call.path, call.index)
            self._expect_gradient(tap, found.through_activation(gradient))
        once = sum(other.layer is call.layer for other in self.graph) == 1
        if found.weights is not None and self.examples and once and call.layer.trainable:
            for name, second in found.weights(gradient, self.examples).items():
                self.expected[Tap("weight_gradient", call.path, None, name)] = Expected(0.0, second)


def _tapped(kind: Kind, call: Call, tensors: Sequence[Tensor]) -> list[tuple[Tap, Tensor]]:
    """Pairs a call's floating-point tensors with their taps, numbered where there are several."""
    floats = [tensor for tensor in tensors if tensor.is_float]
    names = [""] if len(floats) == 1 else [str(place) for place in range(len(floats))]
    return [(Tap(kind, call.path, call.index, name), tensor) for name, tensor in zip(names, floats, strict=True)]


def _with_examples(call: Call, examples: int | None) -> Call:
    """Returns the call with this batch size in its shapes, where the model leaves it open."""

    def sized(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(
            replace(each, shape=(each.shape[0] or examples, *each.shape[1:])) if each.shape else each
            for each in tensors
        )

    return replace(call, inputs=sized(call.inputs), outputs=sized(call.outputs))
