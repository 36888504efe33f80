"""One measured forward and backward pass."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_initkit.capture._expectations import NO_GRAPH, OutputGradients, expectations
from keras_initkit.capture._hooks import CaptureHooks, is_signal
from keras_initkit.capture._objective import is_compiled_with_loss, loss_scale, random_projection, training_loss
from keras_initkit.capture._random_state import random_state_kept
from keras_initkit.capture._readings import Readings
from keras_initkit.capture.backends import probe_backend
from keras_initkit.inputs._labels import check_labels, prepared_labels
from keras_initkit.inputs._specs import draw_inputs, input_specs, prepared
from keras_initkit.report._report import SignalReport
from keras_initkit.statistics._expected import Expected
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._layer_paths import named_layers


def probe(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    *,
    sample_weight: Any = None,
    loss: Any = None,
    training: bool = True,
    batch_size: int = 32,
    seed: int = 0,
) -> SignalReport:
    """Measures every layer of a model in one forward and one backward pass, and leaves the model as it was.

    Read are each layer's inputs, pre-activation (what its activation is applied to) and outputs, the gradients
    of the loss with respect to them, the weights and their gradients. The statistics are taken in float64.
    Recurrent and time-distributed layers are seen from outside. A layer that joins others has a row for an
    output that is not simply that of one of them. A softmax or sigmoid under a cross-entropy has no gradient of
    its own where Keras takes it through the logits: then that of the pre-activation stands for it.

    Args:
        model: any Keras model; a subclassed one that is not built yet is built by `x`.
        x: a batch in the structure that the model takes: arrays or tensors of shape (examples, ...). `None`
            draws one from the inputs' specification, Gaussian or, for integers, uniform.
        y: the labels. Without them the gradient at each output is drawn from N(0, 1).
        sample_weight: as in `fit`.
        loss: a loss, or several, as `compile` takes them; `None` is the one that the model is compiled with.
            Regularizers and `add_loss` count as they do in training.
        training: whether layers behave as in training (dropout, batch statistics).
        batch_size: number of examples to draw where `x` is `None`.
        seed: of what is drawn.

    Returns:
        A row for each tensor, beside what theory expects of it at initialization.

    Raises:
        ValueError: if data does not fit the inputs or labels do not fit the loss, there are labels but no loss,
            a loss but no labels, the model has no weights, or it is not built and there is no data.

    >>> model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4, "relu", name="hidden")])
    >>> report = probe(model, np.ones((2, 8)))
    >>> [row.tap.kind for row in report.rows][:3]
    ['input', 'pre_activation', 'output']
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"model: got {model!r}, expected a keras.Model.")
    if y is None and (loss is not None or sample_weight is not None):
        raise ValueError(f"y: got None with loss={loss!r}, expected labels. Give y, or neither loss nor sample_weight.")
    if y is not None and loss is None and not is_compiled_with_loss(model):
        raise ValueError(
            f"loss: got None with labels, and the model {model.name!r} is not compiled with one. Give loss, compile "
            "the model, or leave y out."
        )
    notes = []
    if x is None:
        x = draw_inputs(model, batch_size, seed)
        notes.append(f"Inputs were drawn from the model's specification: {_shapes(x)}.")
    x = prepared(model, x)
    examples = int(keras.tree.flatten(x)[0].shape[0])
    if y is not None:
        y = prepared_labels(y, "y", examples)
    if sample_weight is not None:
        sample_weight = prepared_labels(sample_weight, "sample_weight", examples)
    _build(model, x)
    layers, has_graph = named_layers(model), input_specs(model) is not None
    if y is not None and has_graph:
        check_labels(y, *_outputs(model), loss or model.loss)
    if not model.weights:
        raise ValueError(f"model: {model.name!r} has no weights, so there is no signal to set right.")

    scale = 1.0
    if y is None:
        notes.append("The gradients at the outputs were drawn from N(0, 1), for want of labels.")
    else:
        scale = loss_scale(model)

    at_outputs = OutputGradients()

    def objective(flat: list[Any]) -> Any:
        inputs = keras.tree.pack_sequence_as(x, flat)
        y_pred = at_outputs.observed(model(inputs, training=training))
        if y is None:
            signals = [each for each in keras.tree.flatten(y_pred) if is_signal(each)]
            return random_projection(signals, np.random.default_rng(seed))
        if not has_graph:
            check_labels(y, *_outputs(model, y_pred), loss or model.loss)
        options = {"training": training} if "training" in inspect.signature(model.compute_loss).parameters else {}
        return scale * model.compute_loss(x=inputs, y=y, y_pred=y_pred, sample_weight=sample_weight, **options)

    with random_state_kept(), probe_backend().undisturbed(model), contextlib.ExitStack() as stack:
        readings = Readings(model, layers, scale)
        readings.read_data(x)
        readings.read_weights()
        if y is not None:
            stack.enter_context(training_loss(model, loss))
        stack.enter_context(CaptureHooks(layers, readings.read).connected())
        variables = model.trainable_variables
        value, gradients = probe_backend().differentiate(objective, keras.tree.flatten(x), variables)
    readings.read_weight_gradients(variables, gradients)
    if not np.isfinite(value):
        readings.note("The loss is not finite.")
    optimizer = getattr(model, "optimizer", None)
    step = 0 if optimizer is None else int(keras.ops.convert_to_numpy(optimizer.iterations.value))
    expected: Mapping[Tap, Expected] = {}
    reasons = [NO_GRAPH]
    if has_graph:
        expected, reasons = expectations(model, x, readings.moments, at_outputs.variances(scale))
    return SignalReport(readings.rows(expected), step, 0, model.name, (*notes, *readings.notes, *reasons))


def _outputs(model: keras.Model, y_pred: Any = None) -> tuple[list[tuple[int | None, ...]], list[str]]:
    """Shapes and names of a model's outputs; those of `y_pred`, where only a call tells."""
    flat = keras.tree.flatten(y_pred) if y_pred is not None else model.outputs
    names = sorted(y_pred) if isinstance(y_pred, dict) else getattr(model, "output_names", None)
    names = names if names and len(names) == len(flat) else [str(place) for place in range(len(flat))]
    return [tuple(each.shape) for each in flat], names


def _shapes(x: Any) -> str:
    return ", ".join(f"{array.dtype} {tuple(array.shape)}" for array in keras.tree.flatten(x))


def _build(model: keras.Model, x: Any) -> None:
    """Has a model that is not built make its weights, as its first call would.

    That is done before anything is kept as it was: the numbers that its initializers draw are the model's.
    """
    if model.built and all(layer.built for layer in named_layers(model).values()):
        return
    was_built = model.built
    try:
        model(keras.tree.map_structure(lambda each: keras.KerasTensor(tuple(each.shape), _dtype(each)), x))
    except Exception:
        # Its code needs numbers; or, where a layer is never called and so not built, that of the layers before.
        if not was_built:
            model(x, training=False)


def _dtype(tensor: Any) -> str:
    return keras.backend.standardize_dtype(tensor.dtype)
