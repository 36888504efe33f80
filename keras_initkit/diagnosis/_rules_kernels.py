"""Rules for the scale of what the signal is multiplied by: initializers and fans."""

from __future__ import annotations

import math
from collections.abc import Iterator

import keras
import numpy as np
from scipy import stats

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding, beyond
from keras_initkit.diagnosis._model_context import KernelContext
from keras_initkit.theory._fans import compute_fans
from keras_initkit.theory._gains import direction_for, gain

SURPRISE = 1e-6
NOTED, OFF, FAR_OFF = 10.0, 30.0, 300.0
WRONG_FANS, GRAVE_FANS = 2.0, 10.0


def initializer_mismatch(evidence: Evidence) -> Iterator[Finding]:
    """Kernels on a scale that no scheme for their place would have drawn.

    Rule: the kernel's mean square is more than a factor of 30 from all of the sound ones (LeCun's, He's with the gain
    of the activation that follows, Glorot's; forward and backward), and a chi-squared test with its number of
    elements n rejects the nearest of them at 1e-6. The factor, because two such layers already leave 1/1000 of the
    signal, or make it a thousandfold, while what people use and train with, such as Keras' RandomNormal with its
    stddev of 0.05 in layers of 13 to 10,000 units, lies within. Information from a factor of 10 on, which one layer
    bears; an error at 300. Only before training, and only where
    the scale matters: not before a normalization, inside a residual branch or attention, in a recurrent or embedding
    layer, or, if too small, at the output.
    """
    for placed, mean_square, number in _judged(evidence):
        sound = _sound_variances(placed)
        nearest = min(max(mean_square, min(sound)), max(sound))
        ratio = mean_square / nearest
        factor = max(ratio, 1 / ratio) if ratio > 0 else math.inf
        limit = FAR_OFF if placed.is_output else NOTED
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
            "error" if factor > FAR_OFF else "warning" if factor > OFF else "info",
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
        scale = _activation_scaling(_activation_name(placed))
        yield Finding(
            "wrong_fans",
            placed.path,
            evidence.reports[0].step,
            "warning" if factor > GRAVE_FANS else "info",
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


def _judged(evidence: Evidence) -> Iterator[tuple[KernelContext, float, int]]:
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
            mean_square = weight.mean_square
        else:
            values = placed.values
            mean_square = float(np.square(values).mean())
        if mean_square > 0 and math.isfinite(mean_square):
            yield placed, mean_square, number


def _sound_variances(placed: KernelContext) -> list[float]:
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


def _wrong_by_fans(placed: KernelContext, mean_square: float) -> float | None:
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


def _keras_fans(placed: KernelContext) -> str:
    fans = compute_fans(tuple(placed.kernel.variable.shape))
    return f"fan_in {fans.fan_in:g} and fan_out {fans.fan_out:g}"


def _activation_name(placed: KernelContext) -> str:
    activation = placed.following.activation
    name = activation if isinstance(activation, str) else getattr(activation, "__name__", "")
    try:
        keras.activations.get(name)
    except ValueError:
        return "relu"
    return name or "linear"


def _scheme_for(placed: KernelContext) -> str:
    name = _activation_name(placed)
    known = {"relu": '"he_normal"', "linear": '"glorot_uniform"', "tanh": '"glorot_uniform"', "selu": '"lecun_normal"'}
    return known.get(name) or _activation_scaling(name)


def _activation_scaling(name: str) -> str:
    backward = ', direction="backward"' * (direction_for(name) == "backward")
    return f'keras_initkit.initializers.ActivationScaling("{name}"{backward})'
