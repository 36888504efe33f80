"""Code that mends a head, a loss or labels, to be pasted."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import keras

from keras_initkit._compat import calls_in_graphs
from keras_initkit.diagnosis._finding import Severity
from keras_initkit.diagnosis.task._heads import Head
from keras_initkit.diagnosis.task._task import Output, Task
from keras_initkit.structure._calls import has_graph
from keras_initkit.structure._layer_paths import weighted_layers


class Mismatch(NamedTuple):
    """What does not fit: how grave it is, what a finding says of it, and what would fit."""

    severity: Severity
    message: str
    remedy: str
    healthy: str
    confidence: float = 1.0


def write_remedy(sentence: str, *lines: str) -> str:
    """Returns a remedy: a sentence and the code that does what it says.

    A model of other layers takes over the optimizer's settings, and not its state, which is that of other weights.
    """
    code = [line for line in lines if line]
    if code and code[0].startswith("model = keras.Model("):
        fresh = "type(old.optimizer).from_config(old.optimizer.get_config())"
        rest = [line.replace("model.optimizer", fresh).replace("model.loss", "old.loss") for line in code[1:]]
        code = [f"old, model = model, {code[0].removeprefix('model = ')}", *rest]
    return "\n".join([f"{sentence}:" if code else f"{sentence}.", *code])


def compile_code(task: Task, output: Output, loss: str = "") -> str:
    """Returns the code that compiles a model anew with another loss of an output; by default with its own."""
    model = task.model.model
    if len(task.outputs) > 1:
        place = f"the loss of output {output.name!r} being {loss}" if loss else "with the losses it has"
        return f"# then compile the model again, {place}"
    return recompile_code(model, loss)


def recompile_code(model: keras.Model, loss: str = "") -> str:
    """Returns the code that compiles a model anew; empty for a model that was not, if there is no loss either."""
    own = getattr(model, "loss", None)
    if not (loss or own is not None):
        return ""
    written = loss or (repr(own) if isinstance(own, str) else "model.loss")
    metrics = ', metrics=["accuracy"]' if _has_accuracy(model) else ""
    if getattr(model, "optimizer", None) is None:
        return f'model.compile("adam", {written}{metrics})'
    return f"model.compile(model.optimizer, {written}{metrics})"


def activation_code(task: Task, head: Head, activation: str) -> str:
    """Returns the code that gives a head another activation, in place where its layer can; a comment otherwise."""
    code = layer_code(task.model.model, head.path)
    if code and callable(getattr(head.layer, "activation", None)):
        return f"{code}.activation = keras.activations.{activation}"
    return f"# in the model's code, {activation} in place of {head.activation} ({head.path})"


def units_code(task: Task, head: Head, units: int, activation: str) -> str:
    """Returns the code that replaces the last layer by one of other units."""
    model, layer = task.model.model, head.layer
    known = has_graph(model) and "/" not in head.path and isinstance(layer, keras.layers.Dense)
    if not known or calls_in_graphs(layer) != 1 or len(model.outputs) != 1:
        return f"# in the model's code, keras.layers.Dense({units}, {activation!r}) in place of {head.path}"
    return (
        f"model = keras.Model(model.inputs, keras.layers.Dense({units}, {activation!r})"
        f"(model.get_layer({head.path!r}).input))"
    )


def without_layer(task: Task, path: str, sentence: str) -> str:
    """Returns a remedy that leaves a layer out; with code where the model is a plain chain of layers."""
    model = task.model.model
    if isinstance(model, keras.Sequential) and "/" not in path:
        kept = f"[layer for layer in model.layers if layer.name != {path!r}]"
        return write_remedy(
            sentence,
            "optimizer, loss = model.optimizer, model.loss",
            f"model = keras.Sequential([keras.Input(model.input_shape[1:]), *{kept}])",
            "model.compile(type(optimizer).from_config(optimizer.get_config()), loss)",
        )
    return write_remedy(sentence)


def without_softmax(task: Task, output: Output) -> str:
    """Returns a remedy for a softmax over one unit."""
    head, loss, classes = output.head, output.loss, count_classes(output)
    if classes > 2:
        code = [units_code(task, head, classes, "softmax"), compile_code(task, output)]
        return write_remedy(f"Give it one unit for each of the {classes} classes", *code)
    other = loss_code("binary", False) if loss is not None and loss.is_categorical else ""
    sigmoid = "sigmoid" if head.activation == "softmax" else "log_sigmoid"
    return write_remedy(
        "One unit takes a sigmoid (two classes may also have two units and a softmax)",
        activation_code(task, head, sigmoid),
        compile_code(task, output, other),
    )


def count_classes(output: Output) -> int:
    """Returns the number of classes that labels from 0 on have; 0 where they are none."""
    labels = output.labels
    if labels is None or not labels.are_integers or labels.limits[0] < 0:
        return 0
    return int(labels.limits[1]) + 1


def layer_code(model: keras.Model, path: str) -> str:
    """Returns the code that looks a layer up by its path; empty for one inside others that has no weights."""
    if path in {layer.name for layer in model.layers}:
        return f"model.get_layer({path!r})"
    if path in weighted_layers(model):
        return f"keras_initkit.structure.weighted_layers(model)[{path!r}]"
    return ""


def labels_code(task: Task, output: Output, change: str = "", written: str = "") -> str:
    """Returns the code that changes the labels, by what is appended to them or by an expression of `y`."""
    written = written or f"y{change}"
    if len(task.outputs) > 1:
        return f"# the labels y of output {output.name!r}: {written}"
    return f"y = {written}"


def loss_code(kind: str, from_logits: bool) -> str:
    """Returns the code that makes a crossentropy."""
    names = {
        "binary": "BinaryCrossentropy",
        "categorical": "CategoricalCrossentropy",
        "sparse_categorical": "SparseCategoricalCrossentropy",
    }
    return f"keras.losses.{names[kind]}({'from_logits=True' if from_logits else ''})"


def _has_accuracy(model: Any) -> bool:
    if not getattr(model, "compiled", False):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metrics that are lambdas
        return "acc" in str((model.get_compile_config() or {}).get("metrics")).lower()
