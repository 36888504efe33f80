"""One measured forward and backward pass."""

from __future__ import annotations

import contextlib
import inspect
import reprlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_initkit._checks import checked_count
from keras_initkit._compat import describe_error, is_compiled_with_loss
from keras_initkit._random_state import random_state_kept
from keras_initkit.capture._attention_pass import AttentionSections, read_attention
from keras_initkit.capture._expectations import OutputGradients, expectations
from keras_initkit.capture._layer_hooks import CaptureHooks
from keras_initkit.capture._objective import loss_scale, random_projection, training_loss
from keras_initkit.capture._report_builder import ReportBuilder
from keras_initkit.capture._signal_flow import signal_flow
from keras_initkit.capture.backends import is_signal, probe_backend
from keras_initkit.inputs._labels import check_labels, prepared_labels
from keras_initkit.inputs._specs import draw_inputs, prepared
from keras_initkit.report._report import SignalReport
from keras_initkit.statistics._expected import Expected
from keras_initkit.statistics._tap import SIGNALS, Tap
from keras_initkit.structure._calls import calls, has_graph, traced_once
from keras_initkit.structure._layer_paths import named_layers
from keras_initkit.structure._separate_parts import check_has_call
from keras_initkit.structure._signal_outputs import trains_by_itself


def probe(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    *,
    sample_weight: Any = None,
    loss: Any = None,
    gradients: bool = True,
    training: bool = True,
    batch_size: int = 32,
    seed: int = 0,
) -> SignalReport:
    """Measures every layer of a model in one forward and one backward pass; the model is left unchanged.

    The report has rows for each layer's inputs, pre-activations (what its activation is applied to) and outputs, for
    the gradients of the loss with respect to them, and for the weights and their gradients. Statistics are computed
    in float64. Recurrent and time-distributed layers are measured from outside, as one layer. A composite layer has
    a row for each output that is not the output of one of its sublayers. Where Keras computes a cross-entropy from
    logits, the softmax or sigmoid output has no gradient; the gradient of the pre-activation is reported instead.

    Args:
        model: Keras model. A subclassed model that is not built yet is built from `x`.
        x: Batch in the structure that the model takes: arrays or tensors of shape `(examples, ...)`. `None` draws
            a batch from the specification of the inputs: Gaussian, or uniform for integers.
        y: Labels. Without labels, the loss is what the model itself adds (`add_loss`), if it trains by that and is
            compiled with no other; otherwise the gradient at each output is drawn from N(0, 1).
        sample_weight: Float array. Weights of the examples, as in `fit`.
        loss: Loss, or a structure of losses, as `compile` takes them. `None` uses the loss of `compile`.
            Regularizers and `add_loss` count as they do in training.
        gradients: Boolean. `False` runs the forward pass alone, without a loss; the rows of gradients are left out.
        training: Boolean. Whether layers behave as in training (dropout, batch statistics).
        batch_size: Integer. Number of examples to draw if `x` is `None`.
        seed: Integer. Seed for generated inputs and output gradients.

    Returns:
        A `SignalReport` with a row for each tensor, beside what theory expects of it at initialization.

    Raises:
        ValueError: If data does not fit the inputs or labels do not fit the loss, there are labels but no loss, a
            loss but no labels, labels or a loss with `gradients=False`, the model has no weights, or the model is
            not built and there is no data.

    Example:

    >>> model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4, "relu", name="hidden")])
    >>> report = probe(model, np.ones((2, 8)))
    >>> [row.tap.kind for row in report.rows][:3]
    ['input', 'pre_activation', 'output']
    """
    return measure(
        model, x, y, sample_weight=sample_weight, loss=loss, gradients=gradients, training=training,
        batch_size=batch_size, seed=seed,
    )  # fmt: skip


@traced_once()
def measure(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    *,
    sample_weight: Any = None,
    loss: Any = None,
    gradients: bool = True,
    training: bool = True,
    batch_size: int = 32,
    seed: int = 0,
    with_attention: bool = True,
) -> SignalReport:
    """Probes a model; `with_attention=False` leaves out what is read of attention, which takes passes of its own."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"model: got {reprlib.repr(model)}, expected a keras.Model: probe(model, x, y).")
    seed = checked_count("seed", seed, least=0)
    if not gradients and not (y is loss is sample_weight is None):
        given = [
            name for name, each in (("y", y), ("loss", loss), ("sample_weight", sample_weight)) if each is not None
        ]
        raise ValueError(
            f"gradients: got False with {', '.join(given)}, expected x alone: a forward pass has no loss. Leave "
            f"{' and '.join(given)} out, or pass gradients=True."
        )
    if y is None and (loss is not None or sample_weight is not None):
        raise ValueError(f"y: got None with loss={loss!r}, expected labels. Give y, or neither loss nor sample_weight.")
    if y is not None and loss is None and not is_compiled_with_loss(model):
        raise ValueError(
            f"loss: got None with labels, and the model {model.name!r} is not compiled with one. Give loss, compile "
            "the model, or leave y out."
        )
    check_has_call(model)
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
    layers, graph, untraced = named_layers(model), [], ""
    try:  # before the pass: whatever a user's `call` keeps in Python is then that of the pass
        graph = calls(model, x)
    except ValueError as error:
        cause = str(error.__cause__).partition("\n")[0]
        untraced = f"Nothing is predicted: the model's call does not run on symbolic tensors ({cause})."
    if y is not None and has_graph(model):
        check_labels(y, *_outputs(model), loss or model.loss)
    if not model.weights:
        raise ValueError(f"model: {model.name!r} has no weights, so there is nothing to probe.")

    scale = 1.0
    measured = None
    adds_loss = y is None and not is_compiled_with_loss(model) and bool(graph) and trains_by_itself(graph)
    if adds_loss and gradients:
        notes.append("The gradients are those of the loss that the model itself adds (`add_loss`).")
        scale = loss_scale(model)
    elif y is None and gradients:
        notes.append("The gradients at the outputs were drawn from N(0, 1), because no labels were given.")
    elif gradients:
        scale = loss_scale(model)

    at_outputs = OutputGradients()

    def objective(flat: list[Any]) -> Any:
        inputs = keras.tree.pack_sequence_as(x, flat)
        y_pred = at_outputs.observed(model(inputs, training=training))
        if y is None and not adds_loss:
            signals = [each for each in keras.tree.flatten(y_pred) if is_signal(each)]
            return random_projection(signals, np.random.default_rng(seed))
        if y is not None and not has_graph(model):
            check_labels(y, *_outputs(model, y_pred), loss or model.loss)
        options = {"training": training} if "training" in inspect.signature(model.compute_loss).parameters else {}
        return scale * model.compute_loss(x=inputs, y=y, y_pred=y_pred, sample_weight=sample_weight, **options)

    with random_state_kept(), probe_backend().undisturbed(model), contextlib.ExitStack() as stack:
        readings = ReportBuilder(model, layers, scale)
        readings.read_data(x)
        readings.read_weights()
        if y is not None or adds_loss:
            stack.enter_context(training_loss(model, loss))
        stack.enter_context(CaptureHooks(layers, readings.read, graph).connected())
        if gradients:
            variables = model.trainable_variables
            value, of_weights = probe_backend().differentiate(objective, keras.tree.flatten(x), variables)
            readings.read_weight_gradients(variables, of_weights)
            measured = None if y is None and not adds_loss else float(value) / scale
            if not np.isfinite(value):
                readings.note("The loss is not finite.")
        else:
            # Whatever the pass writes (averages, seeds) stays in the scope. Copies, for a layer may work in place.
            with probe_backend().no_gradients(), keras.StatelessScope():
                model(keras.tree.map_structure(keras.ops.copy, x), training=training)
    optimizer = getattr(model, "optimizer", None)
    step = 0 if optimizer is None else int(keras.ops.convert_to_numpy(optimizer.iterations.value))
    expected: Mapping[Tap, Expected] = {}
    reasons = [untraced]
    if not untraced:
        of_gradients = at_outputs.variances(scale) if gradients else None
        expected, reasons = expectations(model, x, readings.moments, of_gradients)
        if graph[-1].losses and (adds_loss or y is not None):  # gradients come from there too
            expected = {tap: each for tap, each in expected.items() if tap.kind in SIGNALS}
    sections = AttentionSections()
    try:
        sections = read_attention(model, graph, x, y) if graph and with_attention else sections
    except Exception as error:  # whatever a user's layer raises on two examples
        reasons.append(f"Attention was not read ({describe_error(error)}).")
    about = (*notes, *readings.notes, *reasons, *sections.notes)
    return SignalReport(
        readings.rows(expected), step, 0, model.name, about, *sections[:3], measured, signal_flow(model)
    )


def _outputs(model: keras.Model, y_pred: Any = None) -> tuple[list[tuple[int | None, ...]], list[str]]:
    """Shapes and names of a model's outputs; those of `y_pred`, where only a call tells."""
    flat = keras.tree.flatten(y_pred) if y_pred is not None else model.outputs
    names = sorted(y_pred) if isinstance(y_pred, dict) else getattr(model, "output_names", None)
    names = names if names and len(names) == len(flat) else [str(place) for place in range(len(flat))]
    return [tuple(each.shape) for each in flat], names


def _shapes(x: Any) -> str:
    return ", ".join(f"{array.dtype} {tuple(array.shape)}" for array in keras.tree.flatten(x))


def _build(model: keras.Model, x: Any) -> None:
    """Builds a model by its first call, before states are saved: the numbers that its initializers draw are its own."""
    if model.built and all(layer.built for layer in named_layers(model).values()):
        return
    was_built = model.built
    try:
        model(keras.tree.map_structure(lambda each: keras.KerasTensor(tuple(each.shape), each.dtype), x))
    except Exception:
        # Its code needs numbers; or, where a layer is never called and so not built, that of the layers before.
        if not was_built:
            model(x, training=False)
