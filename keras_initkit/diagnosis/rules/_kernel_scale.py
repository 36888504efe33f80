"""Rules for the scale of kernels: initializers and fans."""

from __future__ import annotations

import math
from collections.abc import Iterator

import keras
import numpy as np
from scipy import stats

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding, confidence_beyond
from keras_initkit.diagnosis._rule_registry import register_rule
from keras_initkit.diagnosis.context._kernel_context import KernelContext
from keras_initkit.diagnosis.context._model_context import ModelContext
from keras_initkit.theory._activations import activation_range
from keras_initkit.theory._fans import compute_fans
from keras_initkit.theory._gains import direction_for
from keras_initkit.theory._thresholds import (
    GRAVE_MISMATCH,
    GRAVE_WRONG_FANS,
    MISMATCH,
    MISMATCH_NOTED,
    MISMATCH_P_VALUE,
    WRONG_FANS,
)


@register_rule("initializer_mismatch")
def find_initializer_mismatch(evidence: Evidence) -> Iterator[Finding]:
    """Finds kernels on a scale that no initializer for their place would have given.

    The kernel's mean square is more than a factor of 30 from all healthy ones (LeCun's, He's with the gain of the
    activation that follows, Glorot's; forward and backward), and a chi-squared test with its number of elements rejects
    the nearest of them at 1e-6. Information from a factor of 10 on, which one layer bears; an error at 300. Only before
    training, and only where the scale matters:

    - At the output, in a residual branch, in a gate, before it or what it weighs, too little is no fault. Too much is
      one in what adds to the model's output, but where a normalization or a bounded function comes first. It is
      information under an optimizer that divides by the size of the gradient: only if the stream explodes is that
      harmful.
    - A normalization, and a gate's sigmoid, take the scale away but divide the step by it: of a kernel `s` times too
      large a step moves 1/s^2 of the usual part under SGD, 1/s under Adam. The others learn around one such kernel; it
      is a fault if more than half of all hidden kernels, or of all gates, are that slow.
    - Recurrent and embedding layers are left out: gates are bounded, and input kernels of 1/100 to 100 times their size
      learn as well.
    """
    model = evidence.model
    if model is None:
        return
    judged = [(*each, _compare(*each)) for each in _fresh_kernels(evidence)]
    normalized = {context: ratio for context, _, _, ratio in judged if context.normalized}
    gates = {context: ratio for context, _, _, ratio in judged if _is_gate(context, model)}
    hidden = sum(not context.is_output for context, *_ in judged)
    slow: set[KernelContext] = set()
    for group, of in ((normalized, hidden), (gates, len(gates))):
        if 2 * sum(ratio > MISMATCH for ratio in group.values()) > of:
            slow |= set(group)
    for context, mean_square, number, ratio in judged:
        factor = max(ratio, 1 / ratio)
        slowed = context in normalized or context in gates
        aside = not slowed and (context.in_branch or context.path in model.gated)
        limit = MISMATCH if slowed else GRAVE_MISMATCH if context.is_output else MISMATCH_NOTED
        p_value = _p_value(ratio, number)
        small_is_fine = slowed or aside or context.is_output or context.path in model.only_gating
        if factor <= limit or p_value > MISMATCH_P_VALUE or (ratio < 1 and small_is_fine):
            continue
        if (slowed and context not in slow) or (aside and context.path in model.closed):
            continue
        if not (slowed or aside) and _wrong_by_fans(context, mean_square) is not None:  # `wrong_fans` speaks of it
            continue
        harmless = factor <= MISMATCH or (aside and model.adapts_steps)
        healthy = context.healthy_variances
        initializer = _suggest_initializer(context)
        place = f"fan_in {context.kernel.fans.fan_in:g}, then {context.following.where}"
        band = f"stddev {math.sqrt(min(healthy)):.3g} to {math.sqrt(max(healthy)):.3g} ({place})"
        slower = math.sqrt(factor) if model.adapts_steps else factor
        effect = f" Its scale is taken away after it, but a step moves 1/{slower:.3g} of what it should." * slowed
        yield Finding(
            "initializer_mismatch",
            context.path,
            evidence.reports[0].step,
            "info" if harmless else "error" if factor > GRAVE_MISMATCH else "warning",
            {
                "stddev": math.sqrt(mean_square),
                "expected_stddev": math.sqrt(mean_square / ratio),
                "p_value": p_value,
                "healthy": band,
            },
            f"`kernel_initializer={initializer}`; in place, "
            f'`keras_initkit.initialize(model, {initializer}, layers="{context.path}")`.',
            1 - p_value,
            message=f"The kernel of {context.path} has stddev {math.sqrt(mean_square):.3g}; initializers for its place "
            f"give {band}.{effect}",
        )


def compare_kernels(evidence: Evidence) -> Iterator[tuple[KernelContext, float]]:
    """Yields freshly initialized kernels, and how many times the mean square of the nearest healthy one each has."""
    for context, mean_square, number in _fresh_kernels(evidence):
        yield context, _compare(context, mean_square, number)


def _compare(context: KernelContext, mean_square: float, number: int) -> float:
    """Returns how many times the mean square of the nearest healthy kernel this one has."""
    healthy = context.healthy_variances
    return mean_square / min(max(mean_square, min(healthy)), max(healthy))


def _is_gate(context: KernelContext, model: ModelContext) -> bool:
    """Whether a bounded function of the kernel's output, not normalized before, weighs another signal."""
    if context.normalized or context.path not in model.gated:
        return False
    return all(map(math.isfinite, activation_range(context.following.activation)))


@register_rule("wrong_fans")
def find_wrong_fans(evidence: Evidence) -> Iterator[Finding]:
    """Finds kernels that Keras scales by fans that are not theirs, as in depthwise and transposed convolutions.

    The initializer scales by fans, Keras reads other fans from the kernel's shape than the layer has (see
    `structure.layer_fans`) so that the variance comes out more than a factor of 2 wrong, and the kernel's is nearer to
    the wrong one. Information up to a factor of 10 in variance, which a plain auto-encoder bears, and where all ways to
    an output lead through a normalization, as from the patches of a vision transformer; a warning above. Only where the
    scale matters, as for `initializer_mismatch`.
    """
    model = evidence.model
    if model is None:
        return
    for context, mean_square, _ in _fresh_kernels(evidence):
        right = _wrong_by_fans(context, mean_square)
        if right is None or context.is_output or context.normalized or context.in_branch:
            continue
        factor = max(right / mean_square, mean_square / right)
        initializer, fans = context.initializer, context.kernel.fans
        read = compute_fans(tuple(context.kernel.variable.shape))
        scale = _activation_scaling(_activation_name(context))
        yield Finding(
            "wrong_fans",
            context.path,
            evidence.reports[0].step,
            "warning" if factor > GRAVE_WRONG_FANS and context.path not in model.normalized_away else "info",
            {
                "stddev": math.sqrt(mean_square),
                "expected_stddev": math.sqrt(right),
                "fan_in": fans.fan_in,
                "fan_out": fans.fan_out,
                "healthy": f"{type(initializer).__name__} with these fans",
            },
            f'Initialize it with its own fans: `keras_initkit.initialize(model, {scale}, layers="{context.path}")`.',
            confidence_beyond(factor, 1.0),
            message=f"The kernel of {context.path} has stddev {math.sqrt(mean_square):.3g}, since Keras reads "
            f"fan_in {read.fan_in:g} and fan_out {read.fan_out:g} from its shape; its own fans, "
            f"{fans.fan_in:g} and {fans.fan_out:g}, give {math.sqrt(right):.3g}.",
        )


def _fresh_kernels(evidence: Evidence) -> Iterator[tuple[KernelContext, float, int]]:
    """Yields freshly initialized kernels, with their mean square and number of elements."""
    model = evidence.model
    if model is None or not evidence.is_initial:
        return
    several = [each.path for each in model.kernels]
    for context in model.kernels:
        if (
            context.kernel.gates
            or context.kernel.role in ("embedding", "recurrent", "unknown")
            or context.path not in evidence.first
        ):
            continue
        number = int(np.prod(context.kernel.shape))
        if evidence.is_run:
            weight = evidence.first[context.path].weight
            if several.count(context.path) > 1 or weight is None:
                continue
            mean_square = weight.mean_square
        else:
            mean_square = float(np.square(context.columns, dtype="float64").mean())
        if mean_square > 0 and math.isfinite(mean_square):
            yield context, mean_square, number


def _p_value(ratio: float, number: int) -> float:
    """Returns the two-sided p-value of a mean square that is `ratio` times that of the distribution drawn from.

    For normal elements the mean square is chi-squared / n. Uniform and truncated ones have less kurtosis, which makes
    the test conservative.
    """
    return float(2 * min(stats.chi2.sf(ratio * number, number), stats.chi2.cdf(ratio * number, number)))


def _wrong_by_fans(context: KernelContext, mean_square: float) -> float | None:
    """Returns the variance that the initializer means, if it has used another because Keras misreads the fans."""
    initializer = context.initializer
    if not isinstance(initializer, keras.initializers.VarianceScaling):
        return None
    fans = {"fan_in": 0, "fan_out": 1}
    shape = tuple(context.kernel.variable.shape)
    keras_fans, own = compute_fans(shape), context.kernel.fans
    keras_fan, own_fan = (
        sum(pair) / 2 if initializer.mode == "fan_avg" else pair[fans[initializer.mode]] for pair in (keras_fans, own)
    )
    wrong, right = initializer.scale / max(keras_fan, 1.0), initializer.scale / max(own_fan, 1.0)
    if max(wrong / right, right / wrong) <= WRONG_FANS:
        return None
    return right if abs(math.log(mean_square / wrong)) < abs(math.log(mean_square / right)) else None


def _activation_name(context: KernelContext) -> str:
    activation = context.following.activation
    name = activation if isinstance(activation, str) else getattr(activation, "__name__", "")
    try:
        keras.activations.get(name)
    except ValueError:
        return "relu"
    return name or "linear"


def _suggest_initializer(context: KernelContext) -> str:
    name = _activation_name(context)
    known = {"relu": '"he_normal"', "linear": '"glorot_uniform"', "tanh": '"glorot_uniform"', "selu": '"lecun_normal"'}
    return known.get(name) or _activation_scaling(name)


def _activation_scaling(name: str) -> str:
    backward = ', direction="backward"' * (direction_for(name) == "backward")
    return f'keras_initkit.initializers.ActivationScaling("{name}"{backward})'
