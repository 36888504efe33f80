"""Rules for units or outputs that are the same: equal units of a layer, an output that is constant."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding, confidence_after
from keras_initkit.diagnosis._readings import LayerReading, is_constant, is_zero
from keras_initkit.diagnosis._rule_registry import TASK_CAUSES, register_rule
from keras_initkit.diagnosis.task._losses import ACTIVATIONS
from keras_initkit.diagnosis.task._task_remedies import activation_code, compile_code, without_softmax, write_remedy
from keras_initkit.structure._layer_kinds import activation_name, own_activation
from keras_initkit.theory._thresholds import EQUAL_TOLERANCE

_ONE_UNIT = (
    'For two classes: keras.layers.Dense(1, "sigmoid") with loss="binary_crossentropy"; for k classes '
    'keras.layers.Dense(k, "softmax").'
)


@register_rule("symmetric_units")
def find_symmetric_units(evidence: Evidence) -> Iterator[Finding]:
    """Finds hidden layers whose units compute the same thing, because their weights are the same.

    All columns of a kernel are equal up to 1e-4 of its largest element, as a zero or constant initializer leaves them.
    Equal units get equal gradients, so they stay equal but for rounding: a processor that sums some units in other
    lanes than the rest parts them by 1e-7 at first and, before relu, slowly more. Output layers, residual branches
    (whose last kernel may start at 0 on purpose) and kernels that no known activation follows are left out. If the
    model is not known, a kernel has to be constant.
    """
    for layer in _symmetric_layers(evidence):
        yield Finding(
            "symmetric_units",
            layer,
            evidence.reports[0].step,
            "error",
            {"distinct_units": 1, "healthy": "as many as units"},
            'Initialize it at random: `kernel_initializer="he_normal"` (before relu) or `"glorot_uniform"` (before '
            f'tanh); in place, `keras_initkit.initialize(model, "he_normal", layers="{layer}")`.',
            message=f"All units of {layer} have the same weights, so they compute the same thing, get the same "
            "gradient and stay equal.",
        )


def _symmetric_layers(evidence: Evidence) -> Iterator[str]:
    if evidence.model is None:
        for layer, reading in evidence.first.items():
            several = [row.moments for row in reading.kernel_rows if row.shape and row.shape[-1] > 1]
            if layer not in evidence.outputs and reading.has_kernel and any(map(is_constant, several)):
                yield layer
        return
    found = set()
    for context in evidence.model.kernels:
        weight = evidence.first[context.path].weight if context.path in evidence.first else None
        was_constant = evidence.is_run and weight is not None and is_constant(weight)
        if evidence.is_run and weight is not None and not was_constant:  # weights of today are not those of then
            continue
        skipped = context.is_output or context.in_branch or context.kernel.role in ("embedding", "depthwise", "unknown")
        if skipped or context.path in found or not context.following.certain:
            continue
        if context.units > 1 and (was_constant or has_equal_columns(context.columns)):
            found.add(context.path)
            yield context.path


def has_equal_columns(columns: np.ndarray) -> bool:
    """Whether all columns of a matrix are the same, up to rounding."""
    size = np.abs(columns).max(initial=0.0)
    return bool(np.isfinite(size) and np.ptp(columns, axis=1).max(initial=0.0) <= EQUAL_TOLERANCE * size)


@register_rule(
    "constant_output",
    causes=(
        "softmax_of_one",
        *TASK_CAUSES,
        "symmetric_units",
        "update_too_large",
        "vanishing_activation",
        "saturated_units",
        "dead_units",
    ),
)
def find_constant_output(evidence: Evidence) -> Iterator[Finding]:
    """Finds outputs that do not depend on the data and never will.

    That is a softmax over one unit, which is 1 whatever comes in, or an output of one value whose kernel gets a
    gradient of 0. A zero kernel at the output makes it constant too, but gets a gradient, and is healthy.
    """
    last = evidence.last
    for each in () if evidence.task is None else evidence.task.outputs:
        if each.head.normalized_units == 1 and evidence.task is not None:
            yield Finding(
                "constant_output",
                each.head.path,
                evidence.reports[-1].step,
                "error",
                {"output": 1.0, "variance": 0.0, "healthy": "depends on the example"},
                without_softmax(evidence.task, each),
                message=f"The output of {each.head.path} is 1 for every example, as of any softmax over one unit.",
            )
            return
    heads = {call.path for call in evidence.model.heads} if evidence.model else {list(last)[-1]}
    for layer in heads & set(last):
        reading = last[layer]
        output, gradient = reading.output, reading.weight_gradient
        if output is None or output.nonfinite or output.count < 2:
            continue
        one_unit = _is_softmax_over_one_unit(evidence, reading)
        if not one_unit and not (is_constant(output) and gradient is not None and is_zero(gradient)):
            continue
        yield Finding(
            "constant_output",
            layer,
            evidence.reports[-1].step,
            "error",
            {"output": output.mean, "variance": 0.0, "healthy": "depends on the example"},
            _ONE_UNIT if one_unit else _revive(evidence, layer),
            1.0 if one_unit else confidence_after(evidence.count_examples(layer)),
            message=f"The output of {layer} is {output.mean:.3g} for every example, "
            + ("as a softmax over one unit always is." if one_unit else "and no gradient reaches its kernel."),
        )


def _revive(evidence: Evidence, layer: str) -> str:
    """Returns the remedy for an output that its activation keeps at one value."""
    fresh = f'keras_initkit.initialize(model, "reset", layers="{layer}")'
    task = evidence.task
    output = None if task is None else next((each for each in task.outputs if each.head.path == layer), None)
    if task is None or output is None:
        return (
            f"Give the output an activation that is never flat (none, a sigmoid or a softmax) and draw it: `{fresh}`."
        )
    loss = output.loss
    right = "linear" if loss is None or loss.from_logits else ACTIVATIONS.get(loss.kind, "linear")
    return write_remedy(
        f"Give it an activation that is never flat ({right}), and draw its kernel again",
        activation_code(task, output.head, right),
        fresh,
        compile_code(task, output),
    )


def _is_softmax_over_one_unit(evidence: Evidence, reading: LayerReading) -> bool:
    """Whether an output is 1 for every input; if the model is not known, whether it is one unit that is always 1."""
    if evidence.model is None:
        output = reading.output
        return (
            output is not None
            and reading.units in (1, None)
            and is_constant(output)
            and abs(output.maximum - 1) <= EQUAL_TOLERANCE
        )
    call = next(call for call in evidence.model.heads if call.path == reading.layer)
    name = activation_name(own_activation(call.layer) or type(call.layer)).lower()
    axis = getattr(call.layer, "axis", -1)
    return name == "softmax" and isinstance(axis, int) and call.outputs[0].shape[axis] == 1
