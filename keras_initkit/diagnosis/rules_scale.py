"""Rules for the scale of what goes in and of what it is multiplied by: inputs, initializers, fans."""

from __future__ import annotations

import math
from collections.abc import Iterator

import keras
import numpy as np
from scipy import stats

from keras_initkit.diagnosis.circumstances import Placed
from keras_initkit.diagnosis.evidence import Evidence
from keras_initkit.diagnosis.finding import Finding, beyond
from keras_initkit.theory.fans import compute_fans
from keras_initkit.theory.gains import gain

INPUT_LEAST, INPUT_LARGEST = 1e-4, 100.0
SPARSE = 0.9
SURPRISE = 1e-6
OFF, FAR_OFF = 10.0, 100.0
WRONG_FANS = 2.0


def unscaled_input(evidence: Evidence) -> Iterator[Finding]:
    """Inputs far from mean square 1, which initializers assume.

    Rule: the mean square of what a first kernel reads is above 100 or below 1e-4 (a factor of 10 or 100 in its
    standard deviation). For information where a normalization follows, which takes it out again. Images of 0..255 have
    7,000 to 20,000, scaled to 0..1 0.1 to 0.3; standardized data have 1, pixels divided by 255 twice 1e-6. Data of
    which more than 90 % are zeros (one-hot, bags of words) may be small. A training step does not read inputs; there
    the mean square is computed back from the first layer's output: E[x^2] = E[z^2] / (E[w^2] fan_in).
    """
    for layer, mean_square, mean in _inputs(evidence):
        if INPUT_LEAST <= mean_square <= INPUT_LARGEST or not math.isfinite(mean_square):
            continue
        small = mean_square < INPUT_LEAST
        distance = max(mean_square, 1 / max(mean_square, 1e-300))
        figures: dict[str, float | str] = {"mean_square": mean_square}
        if mean is not None:
            figures |= {"mean": mean, "standard_deviation": math.sqrt(max(mean_square - mean**2, 0.0))}
        yield Finding(
            "unscaled_input",
            layer,
            evidence.reports[0].step,
            _input_severity(evidence, layer, distance),
            {**figures, "healthy": "mean square near 1"},
            "Standardize the data, x = (x - x.mean(0)) / x.std(0), or inside the model: normalization = "
            "keras.layers.Normalization(); normalization.adapt(x) as its first layer; images of 0..255 by "
            "keras.layers.Rescaling(1 / 127.5, offset=-1).",
            beyond(mean_square, INPUT_LEAST if small else INPUT_LARGEST),
        )


def _input_severity(evidence: Evidence, layer: str, distance: float) -> str:
    if layer in evidence.scale_free:
        return "info"
    return "error" if distance > 1e3 else "warning"


def _inputs(evidence: Evidence) -> Iterator[tuple[str, float, float | None]]:
    """First layers with a kernel, and mean square and mean of what they read."""
    structure, readings = evidence.structure, evidence.first
    if structure is None:
        layers = [layer for layer, reading in readings.items() if reading.has_kernel][:1]
    else:
        layers = structure.first_layers
    for layer in layers:
        reading = readings.get(layer)
        if reading is None or reading.layer_type == "Embedding":
            continue
        read = reading.moments("input")
        if read is not None:
            if read.nonfinite == 0 and (read.zero_fraction < SPARSE or read.variance + read.mean**2 > 1):
                yield layer, read.variance + read.mean**2, read.mean
        elif structure is not None and evidence.is_initial:
            guess = _read_back(evidence, layer)
            if guess is not None:
                yield layer, guess, None


def _read_back(evidence: Evidence, layer: str) -> float | None:
    """The mean square of a first layer's input, from the mean square or the saturation of its output."""
    assert evidence.structure is not None
    placed = [each for each in evidence.structure.kernels if each.path == layer]
    reading = evidence.first[layer]
    weight, output = reading.weight, reading.output
    if len(placed) != 1 or weight is None or output is None or output.nonfinite or placed[0].kernel.gates:
        return None
    per_input = placed[0].kernel.fans.fan_in * (weight.variance + weight.mean**2)
    activation = getattr(placed[0].kernel.layer, "activation", None)
    if not per_input > 0 or not callable(activation):
        return None
    saturated = reading.mean_share("saturated")
    try:
        if saturated is None:  # z of N(0, s^2) has E[f(z)^2] near s^2 / gain^2, as far as f is homogeneous
            return (output.variance + output.mean**2) * gain(activation) ** 2 / per_input
    except ValueError:
        return None
    if not saturated > 0.5:
        return None
    reach = {"tanh": math.atanh(0.99), "sigmoid": math.log(0.995 / 0.005)}.get(getattr(activation, "__name__", ""))
    return None if reach is None else (reach / stats.norm.isf(min(saturated, 0.9999) / 2)) ** 2 / per_input


def initializer_mismatch(evidence: Evidence) -> Iterator[Finding]:
    """Kernels on a scale that no scheme for their place would have drawn.

    Rule: the kernel's mean square is more than a factor of 10 from all of the sound ones (LeCun's, He's with the gain
    of the activation that follows, Glorot's; forward and backward), and a chi-squared test with its number of
    elements n rejects the nearest of them at 1e-6. The factor, because two such layers already leave 1 % of the
    signal, or a hundredfold; less is a matter of taste. Only before training, and only where the scale matters: not
    before a normalization, inside a residual branch or attention, in a recurrent or embedding layer, or, if too small,
    at the output.
    """
    for placed, mean_square, number in _judged(evidence):
        sound = _sound_variances(placed)
        nearest = min(max(mean_square, min(sound)), max(sound))
        ratio = mean_square / nearest
        factor = max(ratio, 1 / ratio) if ratio > 0 else math.inf
        limit = FAR_OFF if placed.is_output else OFF
        surprise = _surprise(ratio, number)
        if factor <= limit or surprise > SURPRISE or mean_square == 0 or (placed.is_output and ratio < 1):
            continue
        if _wrong_by_fans(placed, mean_square) is not None:  # `wrong_fans` speaks of it
            continue
        scheme = _scheme_for(placed)
        yield Finding(
            "initializer_mismatch",
            placed.path,
            evidence.reports[0].step,
            "error" if factor > FAR_OFF else "warning",
            {
                "stddev": math.sqrt(mean_square),
                "expected_stddev": math.sqrt(nearest),
                "p_value": surprise,
                "healthy": f"stddev {math.sqrt(min(sound)):.3g} to {math.sqrt(max(sound)):.3g} "
                f"(fan_in {placed.kernel.fans.fan_in:g}, then {placed.following.where})",
            },
            f"kernel_initializer={scheme}; in place, "
            f'keras_initkit.initialize(model, {scheme}, layers="{placed.path}").',
            1 - surprise,
        )


def wrong_fans(evidence: Evidence) -> Iterator[Finding]:
    """Kernels that Keras scales by fans that are not theirs, as in depthwise and transposed convolutions.

    Rule: the initializer scales by fans, Keras reads other fans from the kernel's shape than the layer has (see
    `structure.layer_fans`) so that the variance comes out more than a factor of 2 wrong, and the kernel's is nearer to
    the wrong one. Information up to a factor of 10 in variance, which a plain auto-encoder bears; a warning above. Only
    where the scale matters, as for `initializer_mismatch`.
    """
    for placed, mean_square, _ in _judged(evidence):
        right = _wrong_by_fans(placed, mean_square)
        if right is None or placed.is_output:
            continue
        factor = max(right / mean_square, mean_square / right)
        initializer = placed.initializer
        scale = f'keras_initkit.initializers.ActivationScaling("{_activation_name(placed)}")'
        yield Finding(
            "wrong_fans",
            placed.path,
            evidence.reports[0].step,
            "warning" if factor > OFF else "info",
            {
                "stddev": math.sqrt(mean_square),
                "expected_stddev": math.sqrt(right),
                "fan_in": placed.kernel.fans.fan_in,
                "fan_out": placed.kernel.fans.fan_out,
                "healthy": f"{type(initializer).__name__} with these fans",
            },
            f"Keras takes {_keras_fans(placed)} for its fans. Draw it with its own: keras_initkit.initialize(model, "
            f'{scale}, layers="{placed.path}").',
            beyond(factor, 1.0),
        )


def _judged(evidence: Evidence) -> Iterator[tuple[Placed, float, int]]:
    """Kernels whose scale matters, as they were drawn: mean square and number of elements."""
    structure = evidence.structure
    if structure is None or not evidence.is_initial:
        return
    several = [each.path for each in structure.kernels]
    for placed in structure.kernels:
        matters = not (placed.normalized or placed.in_branch or placed.kernel.gates)
        if (
            not matters
            or placed.kernel.role in ("embedding", "recurrent", "unknown")
            or placed.path not in evidence.first
        ):
            continue
        number = int(np.prod(placed.kernel.shape))
        if evidence.is_run:
            weight = evidence.first[placed.path].weight
            if several.count(placed.path) > 1 or weight is None:
                continue
            mean_square = weight.variance + weight.mean**2
        else:
            values = placed.values
            mean_square = float(np.square(values).mean())
        if mean_square > 0 and math.isfinite(mean_square):
            yield placed, mean_square, number


def _sound_variances(placed: Placed) -> list[float]:
    fans = placed.kernel.fans
    gains = [1.0]
    if placed.following.activation != "linear":
        for direction in ("forward", "backward"):
            try:
                gains.append(gain(placed.following.activation, direction) ** 2)
            except ValueError:
                continue
    fan_in, fan_out = max(fans.fan_in, 1.0), max(fans.fan_out, 1.0)
    return [g / fan for g in gains for fan in (fan_in, fan_out, (fan_in + fan_out) / 2)]


def _surprise(ratio: float, number: int) -> float:
    """Two-sided p-value of a mean square that is `ratio` times that of the distribution drawn from.

    For normal elements it is chi-squared / n. Uniform and truncated ones have less kurtosis, so that the test only
    finds less surprise than there is.
    """
    return float(2 * min(stats.chi2.sf(ratio * number, number), stats.chi2.cdf(ratio * number, number)))


def _wrong_by_fans(placed: Placed, mean_square: float) -> float | None:
    """The variance that the initializer means, if it has drawn another for want of the layer's fans."""
    initializer = placed.initializer
    if not isinstance(initializer, keras.initializers.VarianceScaling):
        return None
    fans = {"fan_in": 0, "fan_out": 1}
    shape = tuple(placed.kernel.variable.shape)
    keras_fans, own = compute_fans(shape), placed.kernel.fans
    keras_fan, own_fan = (
        sum(pair) / 2 if initializer.mode == "fan_avg" else pair[fans[initializer.mode]] for pair in (keras_fans, own)
    )
    wrong, right = initializer.scale / max(keras_fan, 1.0), initializer.scale / max(own_fan, 1.0)
    if max(wrong / right, right / wrong) <= WRONG_FANS:
        return None
    return right if abs(math.log(mean_square / wrong)) < abs(math.log(mean_square / right)) else None


def _keras_fans(placed: Placed) -> str:
    fans = compute_fans(tuple(placed.kernel.variable.shape))
    return f"fan_in {fans.fan_in:g} and fan_out {fans.fan_out:g}"


def _activation_name(placed: Placed) -> str:
    activation = placed.following.activation
    name = activation if isinstance(activation, str) else getattr(activation, "__name__", "")
    try:
        keras.activations.get(name)
    except ValueError:
        return "relu"
    return name or "linear"


def _scheme_for(placed: Placed) -> str:
    name = _activation_name(placed)
    known = {"relu": '"he_normal"', "linear": '"glorot_uniform"', "tanh": '"glorot_uniform"', "selu": '"lecun_normal"'}
    return known.get(name, f'keras_initkit.initializers.ActivationScaling("{name}")')
