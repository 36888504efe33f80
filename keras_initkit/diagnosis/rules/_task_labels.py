"""Rules for the labels: whether they fit the output and the loss."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding, confidence_after
from keras_initkit.diagnosis._rule_registry import register_rule
from keras_initkit.diagnosis.task._label_facts import Labels
from keras_initkit.diagnosis.task._losses import KnownLoss
from keras_initkit.diagnosis.task._own_losses import find_repeated
from keras_initkit.diagnosis.task._task import Output, Task
from keras_initkit.diagnosis.task._task_remedies import (
    Mismatch,
    activation_code,
    compile_code,
    labels_code,
    loss_code,
    units_code,
    write_remedy,
)
from keras_initkit.theory._thresholds import ENOUGH_LABELS, MANY_LABELS


@register_rule("label_mismatch", causes=("softmax_of_one", "head_loss_mismatch"))
def find_label_mismatch(evidence: Evidence) -> Iterator[Finding]:
    """Finds labels that do not fit the output or the loss.

    These are shapes that do not fit, or only because Keras, a loss or a metric of the user's own repeats the smaller
    array in silence; classes that the output has no unit for, such as those that start at 1; numbers where the loss
    expects one-hot rows, and the other way around; one-hot rows behind independent sigmoids; several labels of one
    example behind a softmax; and labels that are all the same.
    """
    task = evidence.task
    if task is None:
        return
    named = False
    for output in task.outputs:
        labels, loss = output.labels, output.loss
        if labels is None:
            continue
        known = () if loss is None else (rule(task, output, labels, loss) for rule in _RULES)
        found = next(filter(None, known), None) or find_repeated(task, output, labels)
        if found is None:
            continue
        named = True
        least, largest = labels.limits
        numbers: dict[str, float | str] = {"least_label": least, "largest_label": largest, "healthy": found.healthy}
        path = output.head.path or output.name
        step = evidence.reports[0].step
        yield Finding(
            "label_mismatch",
            path,
            step,
            found.severity,
            numbers,
            found.remedy,
            confidence=found.confidence,
            message=found.message,
        )
    if task.label_problem and not named:
        path = (task.outputs[0].head.path or task.outputs[0].name) if task.outputs else "model"
        remedy = "Give labels of the shape that the loss expects for this output."
        yield Finding(
            "label_mismatch",
            path,
            evidence.reports[0].step,
            "error",
            {"healthy": "labels that fit the output"},
            remedy,
            message=task.label_problem,
        )


def _shapes(task: Task, output: Output, labels: Labels, loss: KnownLoss) -> Mismatch | None:
    """Labels of another shape than the output."""
    shape, given = output.head.shape, labels.shape
    if len(shape) < 2:
        return None
    units = shape[-1]
    fits = _fits(given, shape) or _fits((*given, 1), shape) or _fits(given, (*shape, 1))
    if loss.kind == "sparse_categorical":
        if _fits(given, shape[:-1]) or _fits(given, (*shape[:-1], 1)):
            return None
        if _fits(given, shape) and units > 1:
            one_hot = labels.are_one_hot
            again = compile_code(task, output, loss_code("categorical", loss.from_logits))
            message = f"{loss.name} expects one number for each example, the class; the labels are rows of {units}."
            sentence = "One-hot labels take categorical_crossentropy" if one_hot else "Distributions take"
            return Mismatch("error", message, write_remedy(sentence, again), "integers")
    elif fits:
        return None
    elif (_fits(given, shape[:-1]) or _fits(given, (*shape[:-1], 1))) and _are_classes(labels):
        classes = int(labels.limits[1]) + 1
        if loss.kind == "binary" and classes <= 2 and units > 2:
            message = (
                f"The output has {units} units, and the labels of shape {given} are one number each, which the loss "
                "compares with every unit."
            )
            code = [units_code(task, output.head, 1, "sigmoid"), compile_code(task, output)]
            return Mismatch("error", message, write_remedy("Two classes take one unit", *code), "shape (n, 1)")
        if loss.kind in ("categorical", "binary", "divergence"):
            logits = loss.from_logits or output.head.activation == "linear"
            code = [
                "" if logits or output.head.activation == "softmax" else activation_code(task, output.head, "softmax"),
                compile_code(task, output, loss_code("sparse_categorical", logits)),
            ]
            message = (
                f"{loss.name} expects rows of {units} numbers, one for each unit; the labels of shape {given} are "
                f"classes from {labels.limits[0]:g} to {labels.limits[1]:g}."
            )
            sentence = "Integer classes take sparse_categorical_crossentropy"
            return Mismatch("error", message, write_remedy(sentence, *code), "one-hot rows")
    return _broadcast(task, output, labels, loss)


def _are_classes(labels: Labels) -> bool:
    return labels.are_integers and labels.limits[0] >= 0


def _broadcast(task: Task, output: Output, labels: Labels, loss: KnownLoss) -> Mismatch:
    shape, given = output.head.shape, labels.shape
    known = (given[0], *shape[1:])
    sizes = ", ".join("n" if each is None else str(each) for each in shape)
    message = f"The labels have the shape {given}, and the output of {output.head.path} has ({sizes})"
    if len(known) == len(given) + 1 and known[-1] == 1:  # Keras takes an axis of size 1 away
        known = known[:-1]
    try:
        np.broadcast_shapes(given, known)
        message += ": the loss repeats one along the other, and compares every number with numbers of other units."
    except ValueError:
        message += f", which {loss.name} cannot compare."
    remedy = write_remedy("Give one label for each number that the model puts out")
    if len(shape) == 3 and (len(given) == 1 or (len(given) == 2 and given[1] == shape[2])):
        remedy = write_remedy(
            "There is an output for each position and one label for each example: the last recurrent layer takes "
            "return_sequences=False, or GlobalAveragePooling1D() joins the positions"
        )
    elif (len(shape) == 2 and len(given) == 1) or (len(given) == 2 and given[1] == 1):
        code = [units_code(task, output.head, 1, output.head.activation or "linear"), compile_code(task, output)]
        remedy = write_remedy("One number for each example takes one unit", *code)
    elif len(shape) == 2 and len(given) == 2:
        code = [units_code(task, output.head, given[1], output.head.activation or "linear"), compile_code(task, output)]
        remedy = write_remedy(f"Rows of {given[1]} numbers take {given[1]} units", *code)
    return Mismatch("error", message, remedy, "the shape of the output")


def _classes(task: Task, output: Output, labels: Labels, loss: KnownLoss) -> Mismatch | None:
    """Classes that the output has no unit for."""
    units = output.head.units
    if loss.kind != "sparse_categorical" or not units or units == 1:
        return None
    counted = labels.counted if loss.ignored is None else labels.counted[labels.counted != loss.ignored]
    if not counted.size:
        return None
    least, largest = counted.min(), counted.max()
    beyond = float(np.mean((counted < 0) | (counted >= units) | (counted != np.round(counted))))
    if not beyond or (least < 0 and task.masks):
        return None
    message = (
        f"{beyond:.1%} of the labels are none of the classes 0 to {units - 1} that the {units} units stand for: they "
        f"go from {least:g} to {largest:g}."
    )
    healthy = f"0 to {units - 1}"
    if not (counted == np.round(counted)).all():
        return Mismatch("error", message, write_remedy("Give integer classes, or use a loss of numbers"), healthy)
    if largest - least + 1 <= units and least != 0:
        remedy = write_remedy(
            f"Count the classes from 0, not from {least:g}", labels_code(task, output, f" - {least:g}")
        )
        return Mismatch("error", message, remedy, healthy)
    if len(labels.classes) <= units:
        remedy = write_remedy("Number the classes from 0 on", *numbered_code(task, output))
        return Mismatch("error", message, remedy, healthy)
    activation = output.head.activation or "softmax"
    code = [units_code(task, output.head, int(largest) + 1, activation), compile_code(task, output)]
    return Mismatch("error", message, write_remedy(f"Give the head {int(largest) + 1} units", *code), healthy)


def numbered_code(task: Task, output: Output) -> list[str]:
    if len(task.outputs) > 1:
        return [f"# the labels of output {output.name!r}: numpy.unique(labels, return_inverse=True)[1]"]
    return ["import numpy as np", "y = np.unique(y, return_inverse=True)[1].reshape(y.shape)"]


def _probabilities(task: Task, output: Output, labels: Labels, loss: KnownLoss) -> Mismatch | None:
    """Labels of a crossentropy that are no probabilities."""
    least, largest = labels.limits
    if loss.kind not in ("binary", "categorical") or not labels.are_integers or (least >= 0 and largest <= 1):
        return None
    if loss.kind == "binary" and least < 0 and task.masks:
        return None
    units, classes = output.head.units, labels.classes
    beyond = float(np.mean((labels.counted < 0) | (labels.counted > 1)))
    message = f"{loss.name} expects labels from 0 to 1; {beyond:.1%} are beyond: they go from {least:g} to {largest:g}."
    if len(classes) <= 2:
        low, width = classes.min(), np.ptp(classes) or classes.max()
        shifted = f"(y - {low:g})" if low > 0 else f"(y + {-low:g})" if low < 0 else "y"
        scaled = shifted if width == 1 else f"{shifted} / {width:g}"
        remedy = write_remedy("Turn them into 0 and 1", labels_code(task, output, "", scaled))
        return Mismatch("error", message, remedy, "0 and 1")
    if loss.kind == "binary" and units == 1 and len(classes) <= 1000 and least >= 0 and largest < 1000:
        count = int(largest) + 1
        message = f"The labels are {len(classes)} classes from {least:g} to {largest:g}, and one unit tells two apart."
        code = [
            units_code(task, output.head, count, "softmax"),
            compile_code(task, output, loss_code("sparse_categorical", False)),
        ]
        remedy = write_remedy(f"Give the head one unit for each of {count} classes", *code)
        return Mismatch("error", message, remedy, "0 and 1")
    scaled = f"y / {largest:g}" if least == 0 else f"(y - {least:g}) / {largest - least:g}"
    remedy = write_remedy("Scale the labels to 0..1", labels_code(task, output, "", scaled))
    return Mismatch("error", message, remedy, "0 to 1")


def _several_labels(task: Task, output: Output, labels: Labels, loss: KnownLoss) -> Mismatch | None:
    """One-hot rows behind independent units, and several labels behind a softmax."""
    head = output.head
    if not head.units or head.units < 2 or labels.shape[-1:] != (head.units,) or len(labels.row_sums) < ENOUGH_LABELS:
        return None
    if loss.kind == "binary" and labels.are_one_hot and head.activation in ("sigmoid", "linear"):
        logits = head.activation == "linear"
        code = [
            "" if logits else activation_code(task, head, "softmax"),
            compile_code(task, output, loss_code("categorical", logits)),
        ]
        message = (
            f"Each of {len(labels.row_sums)} examples has exactly one of the {head.units} labels, and {loss.name} "
            "judges every unit by itself: the predictions do not compete and need not sum up to 1."
        )
        return Mismatch("warning", message, write_remedy("One of several classes takes a softmax", *code), "softmax")
    if loss.kind == "categorical" and float(np.mean(labels.row_sums > 1.01)) > 0.01:
        share = float(np.mean(labels.row_sums > 1.01))
        logits = head.activation == "linear"
        code = [
            "" if logits else activation_code(task, head, "sigmoid"),
            compile_code(task, output, loss_code("binary", logits)),
        ]
        message = f"{share:.1%} of the examples have several labels, and a softmax gives each example one."
        return Mismatch("warning", message, write_remedy("Several labels take sigmoids", *code), "rows that sum to 1")
    return None


def _all_equal(task: Task, output: Output, labels: Labels, loss: KnownLoss) -> Mismatch | None:
    if not output.head.trains or len(labels.values) < ENOUGH_LABELS or (output.place > 0 and len(task.outputs) > 1):
        return None
    rows = labels.values.reshape(len(labels.values), -1)
    partly = task.in_order and task.steps is not None and task.steps > len(labels.batches)
    if labels.weights is not None or partly or not (rows == rows[:1]).all():
        return None
    value = f"{rows[0, 0]:g}" if rows.shape[1] == 1 else "the same row"
    message = f"All {len(rows)} labels are {value}: whatever the inputs are, a constant predicts them."
    rare = len(rows) < MANY_LABELS
    message += " A rare class may be the reason among so few." if rare else ""
    remedy = write_remedy("Look at how the labels are read; sorted data have to be shuffled before they are split")
    return Mismatch("info" if rare else "warning", message, remedy, "labels that differ", confidence_after(len(rows)))


_RULES = (_shapes, _classes, _probabilities, _several_labels, _all_equal)


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether an array has a shape, whose first axis is that of the examples; free sizes fit any."""
    return len(shape) == len(expected) and all(
        b is None or a == b for a, b in zip(shape[1:], expected[1:], strict=True)
    )
