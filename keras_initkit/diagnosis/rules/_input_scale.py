"""The rule for the scale of the data."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy import stats

from keras_initkit._arrays import to_numpy
from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding, Severity, confidence_beyond
from keras_initkit.diagnosis._rule_registry import register_rule
from keras_initkit.statistics._moments import Moments
from keras_initkit.structure._layer_kinds import activation_name, own_activation
from keras_initkit.theory._activations import activation_range
from keras_initkit.theory._gains import gain
from keras_initkit.theory._thresholds import (
    GRAVE_INPUT_FACTOR,
    INPUT_MEAN_SQUARES,
    SATURATION_DEPTH,
    SPARSE_INPUT_FRACTION,
)

_LEAST, _LARGEST = INPUT_MEAN_SQUARES
# Where less than this fraction of an output's mean square varies, a bias has made the rest.
_VARYING = 0.1
# Pre-activations from which on an output counts as saturated.
_SATURATING = {
    "tanh": math.atanh(SATURATION_DEPTH),
    "sigmoid": math.log((1 + SATURATION_DEPTH) / (1 - SATURATION_DEPTH)),
}


@register_rule("unscaled_input")
def find_unscaled_input(evidence: Evidence) -> Iterator[Finding]:
    """Finds inputs far from mean square 1, which initializers assume.

    The mean square of what a first kernel reads is above 100 or below 1e-4 (a factor of 10 or 100 in its standard
    deviation). It is an error at ten times that, and information if a normalization follows, which takes the scale
    out again. Data of which more than 90 % are zeros (one-hot vectors, bags of words) may be small. A training step
    does not read inputs; there the mean square is computed back from the first layer's output: E[x^2] = E[z^2] /
    (E[w^2] fan_in), without what a bias has made of it. Data that a layer joins with others, such as a number
    beside an embedding, are judged by themselves.
    """
    for layer, mean_square, mean, place in _read_inputs(evidence):
        if _LEAST <= mean_square <= _LARGEST or not math.isfinite(mean_square):
            continue
        numbers: dict[str, float | str] = {"mean_square": mean_square}
        known = "estimated from its output"
        if mean is not None:
            numbers |= {"mean": mean, "standard_deviation": math.sqrt(max(mean_square - mean * mean, 0.0))}
            known = f"mean {mean:.3g}, standard deviation {numbers['standard_deviation']:.3g}"
        yield Finding(
            "unscaled_input",
            layer,
            evidence.reports[0].step,
            _judge(evidence, layer, mean_square),
            {**numbers, "healthy": "mean square near 1"},
            "Standardize the data, later ones by the same figures: `x = (x - x.mean(0)) / (x.std(0) + 1e-7)`. Inside "
            "the model a first layer keras.layers.Normalization does it, once it is adapted to x.",
            confidence_beyond(mean_square, _LEAST if mean_square < _LEAST else _LARGEST),
            message=f"{f'Input {place}' if place else 'The input'} of {layer} has mean square {mean_square:.3g} "
            f"({known}); initializers assume a mean square near 1.",
        )


def _judge(evidence: Evidence, layer: str, mean_square: float) -> Severity:
    if layer in evidence.scale_free:
        return "info"
    return "warning" if _LEAST / GRAVE_INPUT_FACTOR <= mean_square <= _LARGEST * GRAVE_INPUT_FACTOR else "error"


def _read_inputs(evidence: Evidence) -> Iterator[tuple[str, float, float | None, str]]:
    """Yields layers that read data, the mean square and mean of what they read, and which of several inputs it is."""
    readings = evidence.first
    if evidence.model is None:
        layers = [layer for layer, reading in readings.items() if reading.has_kernel][:1]
    else:
        layers = evidence.model.first_layers
    for layer in layers:
        reading = readings.get(layer)
        if reading is None or evidence.is_embedding(reading):
            continue
        read = reading.moments("input")
        if read is not None:
            if _can_be_judged(read):
                yield layer, read.mean_square, read.mean, ""
        elif evidence.is_initial:
            guess = _estimate_input(evidence, layer)
            if guess is not None:
                yield layer, guess, None, ""
    joined = () if evidence.model is None else evidence.model.joined_inputs
    for row in evidence.reports[0].rows if joined else ():
        if row.tap in joined and _can_be_judged(row.moments):
            yield row.tap.layer, row.moments.mean_square, row.moments.mean, row.tap.name


def _can_be_judged(read: Moments) -> bool:
    return read.nonfinite == 0 and (read.zero_fraction < SPARSE_INPUT_FRACTION or read.mean_square > 1)


def _estimate_input(evidence: Evidence, layer: str) -> float | None:
    """Estimates the mean square of a first layer's input from its output's mean square or saturation."""
    if evidence.model is None:
        return None
    contexts = [each for each in evidence.model.kernels if each.path == layer]
    reading = evidence.first[layer]
    weight, output = reading.weight, reading.output
    if len(contexts) != 1 or weight is None or output is None or output.nonfinite or contexts[0].kernel.gates:
        return None
    per_input = contexts[0].kernel.fans.fan_in * weight.mean_square
    held = contexts[0].kernel.layer
    activation = own_activation(held)
    if not per_input > 0 or activation is None:
        return None
    bias = getattr(held, "bias", None)
    offset = 0.0 if bias is None else float(np.sqrt(np.square(to_numpy(bias), dtype="float64").mean()))
    saturated = reading.statistics("saturated")
    if not saturated:  # z of N(0, s^2) has E[f(z)^2] near s^2 / gain^2, as far as f is homogeneous
        try:
            square = output.mean_square * gain(activation) ** 2
        except ValueError:
            return None
        # What a bias makes of the output says nothing about the input, neither what all units share nor the rest.
        varying = min(output.variance, max(math.sqrt(output.mean_square) - offset, 0.0) ** 2)
        explained = bias is not None and varying < _VARYING * output.mean_square
        if not explained:
            return square / per_input
        return varying / per_input if varying > _LARGEST * per_input else None
    fraction, reach = sum(saturated) / len(saturated), _SATURATING.get(activation_name(activation))
    low, high = activation_range(activation)
    one_sided = output.variance < _VARYING * ((high - low) / 2) ** 2  # all units at one end: a bias, not a scale
    if reach is None or not fraction > 0.5 or (bias is not None and (one_sided or offset > reach)):
        return None
    return (reach / stats.norm.isf(min(fraction, 0.9999) / 2)) ** 2 / per_input
