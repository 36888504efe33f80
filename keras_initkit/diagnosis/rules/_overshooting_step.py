"""Rule for a first step that is too long for the slope that it goes down."""

from __future__ import annotations

import math
from collections.abc import Iterator

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding, confidence_beyond
from keras_initkit.diagnosis._rule_registry import SCALE_CAUSES, TASK_CAUSES, register_rule
from keras_initkit.diagnosis.rules._advice import multiply_rate
from keras_initkit.diagnosis.rules._kernel_scale import compare_kernels
from keras_initkit.theory._thresholds import GRAVELY_OVERSHOT, OVERSHOT

_MOST = 100.0  # by which a rate is divided at once


@register_rule(
    "overshooting_step",
    causes=(*TASK_CAUSES, *SCALE_CAUSES, "exploding_activation", "exploding_gradient"),
    judges="report",
    direction="backward",
)
def find_overshooting_step(evidence: Evidence) -> Iterator[Finding]:
    """Finds a learning rate of gradient descent that is too large for the model as it is initialized.

    The first step promises to lower the loss by rate * |gradient|^2. More than 4 times the whole loss is more than
    there is to go down: the step ends higher up on the other side. An error at 24 times. Only for a probe with labels,
    before training, under SGD without clipping: steps of other optimizers do not grow with the gradient. Kernels before
    a normalization do not count: what they overshoot makes them longer, and the next step shorter. Named is the kernel
    farthest above the scale of its place, to which the other kernels owe their gradients, or else the layer with the
    largest gradient.

    References:
        - Aitor Lewkowycz et al. (2020), "The large learning rate phase of deep learning: the catapult mechanism",
          https://arxiv.org/abs/2003.02218
    """
    model, report = evidence.model, evidence.reports[0]
    if model is None or report.loss is None or not 0 < report.loss < math.inf or not evidence.is_initial:
        return
    rate = model.gradient_rate
    if rate is None:
        return
    squares = {}
    for layer, reading in evidence.first.items():
        if layer in model.normalized:
            continue
        rows = reading.rows.get("weight_gradient", [])
        squares[layer] = sum(row.moments.mean_square * math.prod(row.shape or (row.moments.count,)) for row in rows)
    promised = rate * sum(squares.values()) / report.loss
    if not OVERSHOT < promised < math.inf:
        return
    ratios = {context.path: ratio for context, ratio in compare_kernels(evidence) if not context.normalized}
    layer = max(ratios, key=ratios.__getitem__, default="")
    large = ratios.get(layer, 0.0) > 2
    if not large:
        layer = max(squares, key=squares.__getitem__)
    remedy = f"Lower the learning rate: `{multiply_rate(evidence, 1 / min(promised, _MOST))}`."
    cause = ""
    if large:
        remedy = f'Draw {layer} on the scale of its place: `keras_initkit.initialize(model, "auto", layers="{layer}")`.'
        cause = f"; the kernel of {layer} has {math.sqrt(ratios[layer]):.3g} times the usual stddev"
    yield Finding(
        "overshooting_step",
        layer,
        report.step,
        "error" if promised > GRAVELY_OVERSHOT else "warning",
        {
            "promised_decrease": promised * report.loss,
            "loss": report.loss,
            "learning_rate": rate,
            "healthy": "a decrease of less than the loss",
        },
        remedy,
        confidence_beyond(promised, OVERSHOT),
        message=f"At a learning rate of {rate:g} the first step promises to lower the loss of {report.loss:.3g} by "
        f"{promised * report.loss:.3g}; it ends higher up on the other side{cause}.",
    )
