"""Rules for the last activation and the loss: whether they fit each other."""

from __future__ import annotations

from collections.abc import Iterator

import keras

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding, Severity
from keras_initkit.diagnosis._rule_registry import register_rule
from keras_initkit.diagnosis.task._heads import Head, is_normalization_call
from keras_initkit.diagnosis.task._losses import ACTIVATIONS, KnownLoss
from keras_initkit.diagnosis.task._task import Output, Task
from keras_initkit.diagnosis.task._task_remedies import (
    Mismatch,
    activation_code,
    compile_code,
    count_classes,
    layer_code,
    loss_code,
    units_code,
    without_layer,
    without_softmax,
    write_remedy,
)
from keras_initkit.theory._thresholds import SURE


@register_rule("softmax_of_one", causes=("constant_input",))
def find_softmax_of_one(evidence: Evidence) -> Iterator[Finding]:
    """Finds a softmax over an axis of one unit, which is 1 whatever comes in, and lets no gradient through.

    The axis is that of the layer or operation that applies it: the last one by default, also where there is a
    prediction for each position.
    """
    task = evidence.task
    for output in () if task is None else task.outputs:
        head = output.head
        if head.normalized_units != 1 or task is None:
            continue
        yield Finding(
            "softmax_of_one",
            head.path,
            evidence.reports[0].step,
            "error",
            {"units": 1, "healthy": "as many units as classes, or a sigmoid"},
            without_softmax(task, output),
            message=f"{head.path} applies a softmax to one unit: its output is 1 for every example, whatever it reads, "
            "and no gradient comes back through it.",
        )


@register_rule("head_loss_mismatch", causes=("constant_input",))
def find_head_loss_mismatch(evidence: Evidence) -> Iterator[Finding]:
    """Finds a last activation that does not fit the loss.

    A crossentropy without `from_logits` reads probabilities: over classes those of a softmax, of each unit by itself
    those of a sigmoid. With `from_logits` it applies the activation itself and reads what comes before it. Between the
    logits and the loss nothing else may change them, such as a dropout or a normalization, and the logits are no
    probabilities themselves: of numbers between 0 and 1 a softmax over ten classes makes 0.23 at most. It is an error
    where the predictions or the gradients cannot be right; a warning where training reaches the same by other ways, as
    behind TensorFlow's losses, which look up the logits behind Keras' own softmax and sigmoid. Losses of your own,
    several losses of one output, `compute_loss` and `add_loss` are left alone.
    """
    task = evidence.task
    for output, loss in () if task is None else task.with_loss:
        if task is None or output.head.normalized_units == 1 or task.adds_loss:
            continue
        found = next(filter(None, (rule(task, output, loss) for rule in _RULES)), None)
        if found is None:
            continue
        yield Finding(
            "head_loss_mismatch",
            output.head.path,
            evidence.reports[0].step,
            found.severity,
            {"activation": output.head.activation, "loss": loss.name, "healthy": found.healthy},
            found.remedy,
            message=found.message,
        )


def _classes_in_one_unit(task: Task, output: Output, loss: KnownLoss) -> Mismatch | None:
    if not loss.is_categorical or loss.kind == "divergence" or output.head.units != 1:
        return None
    head, classes = output.head, count_classes(output)
    message = f"{loss.name} compares the units of {head.path} with each other, and there is only one."
    if classes > 2:
        code = [units_code(task, head, classes, "softmax"), compile_code(task, output, loss_code(loss.kind, False))]
        return Mismatch("error", message, write_remedy("Give it one unit for each class", *code), f"{classes} units")
    logits = head.activation == "linear"
    bounded = logits or head.activation == "sigmoid"
    code = [
        "" if bounded else activation_code(task, head, "sigmoid"),
        compile_code(task, output, loss_code("binary", logits)),
    ]
    remedy = write_remedy("One unit takes a sigmoid and a binary crossentropy", *code)
    return Mismatch("error", message, remedy, "sigmoid and binary_crossentropy")


def _logits_of_probabilities(task: Task, output: Output, loss: KnownLoss) -> Mismatch | None:
    head = output.head
    if not loss.from_logits or head.activation in ("linear", "log_softmax", "") or is_normalization_call(head.after):
        return None
    fitting = (loss.kind == "binary" and head.activation == "sigmoid") or (
        loss.is_categorical and head.activation == "softmax"
    )
    low, high = head.limits or (0.0, 0.0)
    if not fitting and low < 0 < high:  # tanh and the like bound the logits, which costs confidence alone
        if high - low == float("inf"):
            return None
        severity: Severity = "warning"
    else:
        severity = "warning" if fitting and _looked_behind(head) else "error"
    applied = ACTIVATIONS[loss.kind]
    message = f"{loss.name} has from_logits=True and applies a {applied} itself, but {head.path} already applies a " + (
        f"{head.activation}: it sees numbers between {low:g} and {high:g} instead of logits."
        if head.activation in ("softmax", "sigmoid", "tanh")
        else f"{head.activation}, which cuts the logits off at {low:g}."
    )
    if fitting and _looked_behind(head):
        message += " TensorFlow takes the logits behind it, so that training works there, but on no other backend."
    if fitting:
        remedy = write_remedy(
            "Keep the activation and leave from_logits out", compile_code(task, output, loss_code(loss.kind, False))
        )
    else:
        remedy = write_remedy(
            f"Leave the activation out, since the loss applies a {applied} itself",
            activation_code(task, head, "linear"),
            compile_code(task, output),
        )
    return Mismatch(severity, message, remedy, f"{applied} once")


def _no_probabilities(task: Task, output: Output, loss: KnownLoss) -> Mismatch | None:
    """Crossentropies without `from_logits`."""
    head = output.head
    if loss.kind not in ACTIVATIONS or loss.from_logits or is_normalization_call(head.after) or head.limits is None:
        return None
    right, (low, high) = ACTIVATIONS[loss.kind], head.limits
    read = "one probability for each class, which sum up to 1" if loss.is_categorical else "a probability in each unit"
    expects = f"{loss.name} expects {read}"
    if loss.is_categorical:
        if head.activation == "softmax" or (loss.kind == "divergence" and (low, high) == (0.0, 1.0)):
            return None
        if low >= 0 and head.activation != "relu" and (low, high) != (0.0, 1.0):
            return None  # exponential, softplus: Keras divides by the sum
        if (low, high) == (0.0, 1.0):
            message = f"{expects}; the sigmoids of {head.path} are each between 0 and 1 by themselves."
            message = message.replace("sigmoids", f"{head.activation} units")
        else:
            message = f"{expects}; {head.path} gives {_described(head)}."
    elif low >= 0 and high <= 1:
        if head.activation != "softmax":
            return None
        several = output.labels is not None and bool((output.labels.row_sums > 1).any()) if head.units else False
        labels = output.labels
        sparse = labels is not None and labels.shape[-1] != head.units
        kind = "sparse_categorical" if sparse else "categorical"
        message = (
            f"{expects}, independent of the others; the softmax of {head.path} makes its {head.units} units share 1."
        )
        if several:
            code = [activation_code(task, head, "sigmoid"), compile_code(task, output)]
            return Mismatch("error", message, write_remedy("Several labels at once take sigmoids", *code), right)
        remedy = write_remedy(
            "One of several classes takes a categorical crossentropy",
            compile_code(task, output, loss_code(kind, False)),
        )
        return Mismatch("warning", message, remedy, "softmax and a categorical crossentropy")
    else:
        message = f"{expects}; {head.path} gives {_described(head)}."
    if head.activation == "linear" and loss.kind != "divergence":
        remedy = write_remedy(
            f"Say that the output is logits (or give it a {right})",
            compile_code(task, output, loss_code(loss.kind, True)),
        )
    else:
        remedy = write_remedy(f"Give it a {right}", activation_code(task, head, right), compile_code(task, output))
    return Mismatch("error", message, remedy, right)


def _squeezed_logits(task: Task, output: Output, loss: KnownLoss) -> Mismatch | None:
    """A softmax or sigmoid of numbers that another activation has bounded."""
    head = output.head
    below = head.argument
    if below is None or head.limits is None or loss.from_logits or head.activation != ACTIVATIONS.get(loss.kind):
        return None
    low, high = head.limits
    if high > SURE and (head.activation == "softmax" or low < 1 - SURE):
        return None
    ends = [f"above {high:.2g}"] * (high <= SURE)
    ends += [f"below {low:.2g}"] * (low >= 1 - SURE and head.activation == "sigmoid")
    message = (
        f"{head.path} applies a {head.activation} to the {below.activation} of {below.path}, whose limits leave no "
        f"probability {' or '.join(ends)}."
    )
    code = [activation_code(task, below, "linear"), compile_code(task, output)]
    grave = below.activation in ("softmax", "sigmoid") or not low < 0.5 < high
    remedy = write_remedy("Apply one activation, to logits that have no limits", *code)
    return Mismatch("error" if grave else "warning", message, remedy, head.activation)


def _over_another_axis(task: Task, output: Output, loss: KnownLoss) -> Mismatch | None:
    head = output.head
    if head.over_units or head.activation != "softmax" or not loss.is_categorical:
        return None
    message = (
        f"{head.path} applies a softmax over another axis than the last one, along which {loss.name} compares the "
        f"{head.units} classes: their probabilities do not sum up to 1."
    )
    place = layer_code(task.model.model, head.path)
    known = place and isinstance(head.layer, keras.layers.Softmax)
    code = f"{place}.axis = -1" if known else f"# in the model's code, a softmax over the last axis ({head.path})"
    remedy = write_remedy("Apply it over the last axis", code, compile_code(task, output))
    return Mismatch("error", message, remedy, "a softmax over the last axis")


def _no_rate(task: Task, output: Output, loss: KnownLoss) -> Mismatch | None:
    head = output.head
    if loss.kind != "poisson" or head.limits is None or head.limits[0] >= 0 or is_normalization_call(head.after):
        return None
    remedy = write_remedy(
        "Give it an activation that is positive", activation_code(task, head, "exponential"), compile_code(task, output)
    )
    message = f"{loss.name} takes the logarithm of the output, which {head.path} can make negative: {_described(head)}."
    return Mismatch("error", message, remedy, "exponential or softplus")


def _changed_on_the_way(task: Task, output: Output, loss: KnownLoss) -> Mismatch | None:
    head = output.head
    found = head.after or (head.before if loss.kind in ACTIVATIONS else ())
    if not found:
        return None
    call = found[0]
    normalizes = is_normalization_call(found)
    last = head.after or head.activation == "linear"
    if not normalizes and getattr(call.layer, "rate", 1) == 0:
        return None
    what = "normalizes" if is_normalization_call([call]) else "drops at random"
    of = "the predictions" if last else "the logits"
    grave = (normalizes and head.after and not loss.from_logits and loss.kind in ACTIVATIONS) or (
        not normalizes and last and getattr(call.layer, "rate", 1) >= 0.1
    )
    message = f"{call.path} {what} {of} between {head.path} and {loss.name}" + (
        ": in training they are not what the model predicts afterwards."
        if not normalizes
        else ": their size, which is the model's confidence, depends on the batch or the other units."
    )
    return Mismatch(
        "error" if grave else "warning",
        message,
        without_layer(task, call.path, f"Put {call.path} before the last kernel, or leave it out"),
        "nothing in between",
    )


def _looked_behind(head: Head) -> bool:
    return keras.backend.backend() == "tensorflow" and head.known_to_keras


def _described(head: Head) -> str:
    low, high = head.limits or (float("-inf"), float("inf"))
    if head.activation == "linear":
        return "any number, being linear"
    ends = (
        f"{low:g} to {high:g}" if high < float("inf") else f"{low:g} upwards" if low > float("-inf") else "any number"
    )
    return f"{ends}, being {head.activation}"


_RULES = (
    _classes_in_one_unit,
    _logits_of_probabilities,
    _over_another_axis,
    _squeezed_logits,
    _no_probabilities,
    _no_rate,
    _changed_on_the_way,
)
