"""predict(): the mean and variance that theory expects of every tensor of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import keras

import keras_initkit.prediction._rules_elementwise
import keras_initkit.prediction._rules_extremes
import keras_initkit.prediction._rules_linear
import keras_initkit.prediction._rules_merging
import keras_initkit.prediction._rules_normalization
import keras_initkit.prediction._rules_positions  # noqa: F401
from keras_initkit.prediction._input_moments import input_signals, number_of_examples
from keras_initkit.prediction._prediction import Prediction
from keras_initkit.prediction._rules import propagate
from keras_initkit.prediction._signals import Gradient, LayerPropagation, Signal, UnpredictableError, add_gradients
from keras_initkit.statistics._expected import Expected
from keras_initkit.statistics._tap import Kind, Tap
from keras_initkit.structure._calls import calls
from keras_initkit.structure._graph import Call, Tensor
from keras_initkit.structure._layer_paths import named_layers


def predict(
    model: keras.Model,
    input_moments: Any = None,
    *,
    output_gradient_variance: float | Sequence[float] | None = None,
    measured: Mapping[Tap, Any] | None = None,
) -> Prediction:
    r"""Predicts mean and variance of every tensor of a wide model at initialization, forward and backward.

    Signals are followed from the inputs through every layer's call, and gradients from the outputs back:

    .. math::

        E[z^2] = \sigma_w^2 n_{in} E[x^2] + E[b^2], \qquad E[g_x^2] = \sigma_w^2 n_{out} E[g_z^2]

    through a dense layer or a convolution $z = W x + b$, and

    .. math::

        E[y^2] = E[f(z)^2], \qquad E[g_z^2] = E[f'(z)^2] E[g_y^2]

    through an activation $y = f(z)$. Here $z$ is Gaussian (a sum of many independent terms), and gradients are
    independent of the activations. Layers act as in training. Variances are over all elements: examples, positions and
    units. $\sigma_w^2$ is the mean square of the kernel's present values, close to its initializer's variance. A
    kernel that is not a random draw of mean 0, such as the identity, is not predicted.

    Args:
        model: A Functional or built Sequential model. Nested models are opened.
        input_moments: Statistics of the inputs. `None` means independent $N(0, 1)$ elements, a pair
            `(mean, variance)` for independent elements with these moments. `InputMoments` adds the correlations
            between positions and examples, and the batch size, which the weights' gradients need. For several
            inputs, a list of these or a dictionary by input name.
        output_gradient_variance: Float, or list of floats for several outputs. Variance of the gradient of the loss
            with respect to the model's output, whose elements are taken as independent. `None` means 1.
        measured: Mapping from `Tap` to moments (`.mean`, `.variance`). Where a layer cannot be predicted, prediction
            resumes from its measured output, and backward from the measured gradient of an output.

    Returns:
        A `Prediction`, which maps each `Tap` to `Expected(mean, variance)`. Its `.unpredicted` holds the reason for
        each layer that cannot be predicted, or whose gradient cannot. After such a layer, prediction resumes at the
        next normalization that fixes mean and variance.

    Raises:
        ValueError: If the model has no graph (subclassed, or not built), or arguments do not fit it.

    Example:

    >>> model = keras.Sequential([keras.Input((512,)), keras.layers.Dense(512, "relu", name="dense",
    ...     kernel_initializer=keras.initializers.HeNormal(seed=0))])
    >>> prediction = predict(model)
    >>> mean, variance = prediction[Tap("output", "dense", 0)]
    >>> round(mean, 2), round(variance, 1)  # sqrt(1 / pi), 1 - 1 / pi
    (0.56, 0.7)
    >>> round(prediction[Tap("input_gradient", "dense", 0)].variance, 1)
    1.0

    References:
        - Xavier Glorot and Yoshua Bengio (2010), "Understanding the difficulty of training deep feedforward neural
          networks", https://proceedings.mlr.press/v9/glorot10a.html
        - Kaiming He et al. (2015), "Delving deep into rectifiers", https://arxiv.org/abs/1502.01852
        - Ben Poole et al. (2016), "Exponential expressivity in deep neural networks through transient chaos",
          https://arxiv.org/abs/1606.05340
        - Samuel S. Schoenholz et al. (2017), "Deep information propagation", https://arxiv.org/abs/1611.01232
        - Lechao Xiao et al. (2018), "Dynamical isometry and a mean field theory of CNNs",
          https://arxiv.org/abs/1806.05393
        - Greg Yang et al. (2019), "A mean field theory of batch normalization", https://arxiv.org/abs/1902.08129
    """
    if measured is not None and not isinstance(measured, Mapping):
        raise ValueError(f"measured: got {type(measured).__name__}, expected a mapping from Tap to moments.")
    graph = calls(model)
    whole = graph[-1]
    examples = number_of_examples(model, input_moments)
    signals = input_signals(model, whole.inputs, input_moments)
    walk = _Propagation(model, graph, measured or {}, examples)
    walk.forward(signals)
    walk.backward(_output_gradients(model, whole, output_gradient_variance))
    return Prediction(walk.expected, walk.unpredicted)


def _output_gradients(model: keras.Model, whole: Call, variance: Any) -> dict[int, list[Gradient]]:
    count = len(whole.outputs)
    given = 1.0 if variance is None else variance
    values = list(given) if isinstance(given, Sequence) else [given] * count
    fine = all(isinstance(v, Real) and 0 <= float(v) < math.inf for v in values)
    if len(values) != count or not fine:
        raise ValueError(
            f"output_gradient_variance: got {variance!r}, expected a non-negative number, or a list of one for each of "
            f"the {count} outputs of {model.name}."
        )
    found: dict[int, list[Gradient]] = {}
    for place, (tensor, value) in enumerate(zip(whole.outputs, values, strict=True)):
        found.setdefault(tensor.number, []).append(Gradient(float(value), sources=frozenset({("output", place)})))
    return found


class _Propagation:
    """Propagates signals forward and gradients backward over a model's calls."""

    def __init__(self, model: keras.Model, graph: list[Call], measured: Mapping[Tap, Any], examples: int | None):
        self.expected: dict[Tap, Expected] = {}
        self.unpredicted: dict[str, str] = {}
        self.graph, self.measured, self.examples = graph, measured, examples
        self.paths = {id(layer): path for path, layer in named_layers(model).items()}
        self.propagations: dict[int, LayerPropagation] = {}
        self.signals: dict[int, Signal] = {}
        self.resumed: set[int] = set()  # tensors whose signal is the measured one
        self.gradients: dict[int, list[Gradient | None]] = {}  # None: a part that is not known

    def forward(self, signals: Mapping[int, Signal]) -> None:
        self.signals.update(signals)
        for place, call in enumerate(self.graph):
            if not call.opened:
                self._propagate_forward(place, call)
            elif not all(tensor.number in self.signals for tensor in call.outputs):
                self._resume(call)
            for tap, tensor in [*_tapped("input", call, call.inputs), *_tapped("output", call, call.outputs)]:
                if tensor.number not in self.resumed:
                    self._expect(tap, self.signals.get(tensor.number))

    def _propagate_forward(self, place: int, call: Call) -> None:
        inputs = [self.signals.get(tensor.number) or Signal.unknown(tensor.shape[1:-1]) for tensor in call.inputs]
        try:
            found = propagate(_with_examples(call, self.examples), inputs)
            for layer, read, written in found.parts:
                path = self.paths.get(id(layer), f"{call.path}/{layer.name}")
                self._expect(Tap("input", path, call.index), read)
                self._expect(Tap("output", path, call.index), written)
            self._expect(Tap("pre_activation", call.path, call.index), found.pre_activation)
            if not found.output.known:
                raise UnpredictableError(
                    "attention mixes positions by weights that depend on them"
                    if found.parts
                    else found.reason or "its output has no finite mean square"
                )
        except UnpredictableError as error:
            self.unpredicted.setdefault(call.path, str(error))
            self._resume(call)
            return
        self.propagations[place] = found
        self.signals[call.outputs[0].number] = found.output

    def _resume(self, call: Call) -> None:
        """Goes on from what was measured at a call's outputs."""
        for tap, tensor in _tapped("output", call, call.outputs):
            seen = self._measured_at(tap)
            if seen is not None:
                sources = frozenset({("measured", tensor.number)})
                self.resumed.add(tensor.number)
                self.signals[tensor.number] = Signal(*seen, tensor.shape[1:-1], sources=sources)

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
        if gradient is not None:
            self.expected[tap] = Expected(0.0, gradient.second_moment)

    def backward(self, cotangents: Mapping[int, list[Gradient]]) -> None:
        self.gradients.update({number: list(gradients) for number, gradients in cotangents.items()})
        for place in reversed(range(len(self.graph))):
            call = self.graph[place]
            arrived = {tensor.number: self._arriving(call, tensor) for tensor in call.outputs}
            for tap, tensor in _tapped("output_gradient", call, call.outputs):
                if not self._has_margin(tensor):
                    self._expect_gradient(tap, arrived[tensor.number])
            if not call.opened:
                self._propagate_backward(place, call, arrived[call.outputs[0].number])

    def _has_margin(self, tensor: Tensor) -> bool:
        """Whether a tensor has a border of zeros, whose gradients are not followed."""
        return tensor.number in self.signals and bool(self.signals[tensor.number].margin)

    def _arriving(self, call: Call, tensor: Tensor) -> Gradient | None:
        """Returns the gradient that arrives at a tensor from all its consumers, or else the measured one."""
        parts = self.gradients.get(tensor.number, [])
        known = [part for part in parts if part is not None]
        if known and len(known) == len(parts):
            try:
                return add_gradients(known)
            except UnpredictableError as error:
                self.unpredicted.setdefault(call.path, str(error))
        for tap, output in _tapped("output_gradient", call, call.outputs):
            seen = self._measured_at(tap) if output == tensor else None
            if seen is not None:
                gradient = Gradient(seen[1], white=False, sources=frozenset({("measured gradient", tensor.number)}))
                self.gradients[tensor.number] = [gradient]  # for the call inside this one that made the tensor
                return gradient
        return None

    def _propagate_backward(self, place: int, call: Call, gradient: Gradient | None) -> None:
        found = self.propagations.get(place)
        back: list[Gradient | None] = [None] * len(call.inputs)
        if found is not None and gradient is not None:
            try:
                back = [*found.backward(gradient), *back][: len(call.inputs)]
                self._expect_inside(call, found, gradient)
            except UnpredictableError as error:
                self.unpredicted.setdefault(call.path, f"backward: {error}")
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
        return tuple(replace(tensor, shape=(tensor.shape[0] or examples, *tensor.shape[1:])) for tensor in tensors)

    return replace(call, inputs=sized(call.inputs), outputs=sized(call.outputs))
