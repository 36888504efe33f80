"""Rules for the inputs, and for normalizations that have nothing to normalize by."""

from __future__ import annotations

import math
from collections.abc import Iterator

import keras
import numpy as np

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding
from keras_initkit.diagnosis._rule_registry import register_rule
from keras_initkit.diagnosis.rules._advice import BY_HAND
from keras_initkit.diagnosis.task._task_remedies import without_layer
from keras_initkit.structure._graph import Call


@register_rule("constant_input")
def find_constant_input(evidence: Evidence) -> Iterator[Finding]:
    """Finds inputs that are the same for every example, or that hold NaN or infinity.

    An error if no feature of any input differs between examples. An input of several that does not is information, for
    it may be meant. A feature with NaN is named by its column, unless the model gives finite numbers all the same.
    """
    task = evidence.task
    if task is None or not task.inputs:
        return
    step, several = evidence.reports[0].step, len(task.inputs) > 1
    constant = [each for each in task.inputs if each.is_constant and each.is_float]
    for inputs in constant:
        least, largest = float(inputs.least.min()), float(inputs.largest.max())
        value = f"{least:g} everywhere" if least == largest else "the same row for every example"
        name = f"Input {inputs.place}" if several else "The input"
        yield Finding(
            "constant_input",
            task.reader_of(inputs.place),
            step,
            "error" if all(each.is_constant for each in task.inputs) else "info",
            {"examples": inputs.examples, "least": least, "largest": largest, "healthy": "examples that differ"},
            f"{BY_HAND}look at how the data are read and scaled. Integers divided by integers, x // 255, are 0, and so "
            "is x / 255 cast to integers; take x.astype('float32') / 255.",
            message=f"{name} is {value} in all {inputs.examples} examples: there is nothing to tell them apart by.",
        )
    for inputs in task.inputs:
        columns = np.flatnonzero(inputs.broken)
        if not len(columns) or (evidence.is_initial and evidence.reports[0].first_nonfinite is None):
            continue
        worst, name = int(inputs.broken.max()), f"Input {inputs.place}" if several else "The data"
        listed = ", ".join(map(str, columns[:5])) + (f" and {len(columns) - 5} more" if len(columns) > 5 else "")
        many = "columns" if len(columns) > 1 else "column"
        yield Finding(
            "constant_input",
            task.reader_of(inputs.place),
            step,
            "error",
            {"columns": len(columns), "examples": worst, "first_column": int(columns[0]), "healthy": "finite numbers"},
            "Fill or drop them:\nimport numpy as np\n"
            "x = np.where(np.isfinite(x), x, np.nanmean(np.where(np.isfinite(x), x, np.nan), axis=0))",
            message=f"{name} has NaN or infinity in {many} {listed} (up to {worst} of {inputs.examples} examples): "
            "the loss and every weight become NaN.",
        )


@register_rule("normalization_of_one", causes=("constant_input",))
def find_normalization_of_one(evidence: Evidence) -> Iterator[Finding]:
    """Finds normalizations of each example over a single element.

    A `LayerNormalization` over one unit, or a `GroupNormalization` with one channel a group at one position, subtracts
    the element from itself: what it gives is its offset, for every example, and no gradient comes back. Without
    centering (`RMSNormalization`, `UnitNormalization`) only the sign is left. A warning inside a residual branch.
    """
    task = evidence.task
    if task is None:
        return
    if "normalization_of_one" not in task.known:
        task.known["normalization_of_one"] = [call for call in task.model.graph if _elements(call) == 1]
    for call in task.known["normalization_of_one"]:
        in_branch = call.path in task.model.in_branches
        centers = isinstance(call.layer, keras.layers.LayerNormalization | keras.layers.GroupNormalization)
        left = "its offset is all that is left" if centers else "the sign is all that is left"
        yield Finding(
            "normalization_of_one",
            call.path,
            evidence.reports[0].step,
            "warning" if in_branch else "error",
            {"elements": 1, "healthy": "several units, or BatchNormalization over the examples"},
            without_layer(task, call.path, f"Leave {call.path} out, or put BatchNormalization in its place"),
            message=f"{call.path} normalizes each example over one element: {left}, whatever it reads.",
        )


def _elements(call: Call) -> int | None:
    """Returns the number of elements that a normalization takes its statistics of; `None` if that is not known."""
    layer = call.layer
    if not call.inputs or not isinstance(layer, keras.Layer):
        return None
    shape = call.inputs[0].shape
    unit = (keras.layers.LayerNormalization, keras.layers.UnitNormalization)
    if isinstance(layer, (*unit, getattr(keras.layers, "RMSNormalization", unit[0]))):
        axes = layer.axis if isinstance(layer.axis, list | tuple) else (layer.axis,)
        sizes = [shape[axis] for axis in axes]
    elif isinstance(layer, keras.layers.GroupNormalization):
        axis = layer.axis % len(shape)
        groups = shape[axis] if layer.groups == -1 else layer.groups
        sizes = [size for place, size in enumerate(shape) if place not in (0, axis)]
        sizes.append((shape[axis] or 0) // (groups or 1))
    else:
        return None
    return None if None in sizes else math.prod(sizes)
