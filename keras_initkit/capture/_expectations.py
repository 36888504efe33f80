"""What theory expects of the tensors that a probe has read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.capture.backends import is_signal, probe_backend
from keras_initkit.prediction import InputMoments, predict
from keras_initkit.statistics._expected import Expected
from keras_initkit.statistics._moments import Moments
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._calls import calls, leaves_in_order
from keras_initkit.structure._graph import Tensor
from keras_initkit.theory._gains import expectation


class OutputGradients:
    """Reads the gradients that come to a model's outputs."""

    def __init__(self) -> None:
        self._variances: list[float | None] = []

    def observed(self, outputs: Any) -> Any:
        """The outputs, whose gradients will be read."""
        flat = keras.tree.flatten(outputs)
        tensors = [place for place, each in enumerate(flat) if keras.ops.is_tensor(each)]
        self._variances = [None] * len(tensors)

        def reader(place: int) -> Any:
            def read(gradient: np.ndarray | None) -> None:
                if gradient is not None:
                    self._variances[place] = Moments.from_array(gradient).variance

            return read

        for number, place in enumerate(tensors):
            if is_signal(flat[place]):
                flat[place] = probe_backend().observed(flat[place], lambda _: None, reader(number))
        return keras.tree.pack_sequence_as(outputs, flat)

    def variances(self, scale: float) -> list[float | None]:
        """Variances of the gradients, where some came; `scale` is what the loss was multiplied by."""
        return [None if variance is None else variance / scale**2 for variance in self._variances]


def expectations(
    model: keras.Model, x: Any, moments: Mapping[Tap, Moments], variances: Sequence[float | None] | None
) -> tuple[Mapping[Tap, Expected], list[str]]:
    """Returns what theory expects, by tap, and why it expects nothing where it does not.

    Args:
        variances: Variance of the gradient at each output; `None` where it came through the logits, and for all
            where no gradient was measured.
    """
    outputs = calls(model)[-1].outputs
    known = (
        [1.0] * len(outputs)
        if variances is None
        else [
            variance if variance is not None else _through_logits(model, tensor, moments)
            for variance, tensor in zip(variances, outputs, strict=True)
        ]
    )
    if not all(np.isfinite(known)):
        return {}, ["Nothing is predicted: the gradients at the outputs are not finite."]
    try:
        data = [InputMoments.from_array(each) for each in leaves_in_order(model, x)]
    except ValueError as error:  # NaN, strings
        return {}, [f"Nothing is predicted from such data: {error}"]
    prediction = predict(model, data, output_gradient_variance=known, measured=moments)
    return prediction, [
        f"No prediction for {path}: {reason.rstrip('.')}." for path, reason in prediction.unpredicted.items()
    ]


def _through_logits(model: keras.Model, output: Tensor, moments: Mapping[Tap, Moments]) -> float:
    """The variance of the gradient at an output that would give what was measured at the logits.

    Keras takes the gradient of a cross-entropy there, past the softmax or sigmoid. That of a softmax is not
    predicted from its output anyway; for a sigmoid E[g_z^2] = E[f'(z)^2] E[g_y^2] is solved for the latter.
    """
    for call in calls(model):
        at_logits = moments.get(Tap("pre_activation_gradient", call.path, call.index))
        z = moments.get(Tap("pre_activation", call.path, call.index))
        if output in call.outputs and at_logits is not None and z is not None:
            try:
                slope = expectation(call.layer.activation, 2, derivative=True, mean=z.mean, variance=z.variance)
            except ValueError:  # softmax
                return 1.0
            return at_logits.variance / slope if slope > 0 else 1.0
    return 1.0
