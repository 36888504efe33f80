"""Rule for the scale of the data."""

from __future__ import annotations

import math
from collections.abc import Iterator

from scipy import stats

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding, beyond
from keras_initkit.structure._layer_kinds import is_embedding
from keras_initkit.theory._gains import gain

INPUT_LEAST, INPUT_LARGEST = 1e-4, 100.0
SPARSE = 0.9


def unscaled_input(evidence: Evidence) -> Iterator[Finding]:
    """Inputs far from mean square 1, which initializers assume.

    Rule: the mean square of what a first kernel reads is above 100 or below 1e-4 (a factor of 10 or 100 in its
    standard deviation); an error at ten times that, and information where a normalization follows, which takes it out
    again. Images of 0..255 have 7,000 to 20,000, scaled to 0..1 0.1 to 0.3; standardized data have 1, pixels divided by
    255 twice 1e-6. Data of which more than 90 % are zeros (one-hot, bags of words) may be small. A training step does
    not read inputs; there it is computed back from the first layer's output: E[x^2] = E[z^2] / (E[w^2] fan_in).
    """
    for layer, mean_square, mean in _inputs(evidence):
        if INPUT_LEAST <= mean_square <= INPUT_LARGEST or not math.isfinite(mean_square):
            continue
        small = mean_square < INPUT_LEAST
        figures: dict[str, float | str] = {"mean_square": mean_square}
        if mean is not None:
            figures |= {"mean": mean, "standard_deviation": math.sqrt(max(mean_square - mean * mean, 0.0))}
        yield Finding(
            "unscaled_input",
            layer,
            evidence.reports[0].step,
            _input_severity(evidence, layer, mean_square),
            {**figures, "healthy": "mean square near 1"},
            "Standardize the data, x = (x - x.mean(0)) / x.std(0), or inside the model: normalization = "
            "keras.layers.Normalization(); normalization.adapt(x) as its first layer; images of 0..255 by "
            "keras.layers.Rescaling(1 / 127.5, offset=-1).",
            beyond(mean_square, INPUT_LEAST if small else INPUT_LARGEST),
        )


def _input_severity(evidence: Evidence, layer: str, mean_square: float) -> str:
    if layer in evidence.scale_free:
        return "info"
    return "warning" if INPUT_LEAST / 10 <= mean_square <= INPUT_LARGEST * 10 else "error"


def _inputs(evidence: Evidence) -> Iterator[tuple[str, float, float | None]]:
    """First layers with a kernel, and mean square and mean of what they read."""
    structure, readings = evidence.structure, evidence.first
    if structure is None:
        layers = [layer for layer, reading in readings.items() if reading.has_kernel][:1]
    else:
        layers = structure.first_layers
    for layer in layers:
        reading = readings.get(layer)
        if reading is None or is_embedding(reading.layer_type):
            continue
        read = reading.moments("input")
        if read is not None:
            if read.nonfinite == 0 and (read.zero_fraction < SPARSE or read.mean_square > 1):
                yield layer, read.mean_square, read.mean
        elif evidence.is_initial:
            guess = _read_back(evidence, layer)
            if guess is not None:
                yield layer, guess, None


def _read_back(evidence: Evidence, layer: str) -> float | None:
    """The mean square of a first layer's input, from the mean square or the saturation of its output."""
    if evidence.structure is None:
        return None
    placed = [each for each in evidence.structure.kernels if each.path == layer]
    reading = evidence.first[layer]
    weight, output = reading.weight, reading.output
    if len(placed) != 1 or weight is None or output is None or output.nonfinite or placed[0].kernel.gates:
        return None
    per_input = placed[0].kernel.fans.fan_in * weight.mean_square
    activation = getattr(placed[0].kernel.layer, "activation", None)
    if not per_input > 0 or not callable(activation):
        return None
    saturated = reading.mean_share("saturated")
    try:
        if saturated is None:  # z of N(0, s^2) has E[f(z)^2] near s^2 / gain^2, as far as f is homogeneous
            return output.mean_square * gain(activation) ** 2 / per_input
    except ValueError:
        return None
    if not saturated > 0.5:
        return None
    reach = {"tanh": math.atanh(0.99), "sigmoid": math.log(0.995 / 0.005)}.get(getattr(activation, "__name__", ""))
    return None if reach is None else (reach / stats.norm.isf(min(saturated, 0.9999) / 2)) ** 2 / per_input
