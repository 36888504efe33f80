"""Rules for what depth does to the signal: it vanishes or explodes on its way forward or back, or loses its rank."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from keras_initkit.diagnosis.evidence import Evidence, Reading, suffix
from keras_initkit.diagnosis.finding import Finding, beyond

# Ratios of mean squares, forward, and of standard deviations, backward; an error at their squares.
FORWARD, BACKWARD = 1e3, 1e3
RANK, RANK_BEFORE = 1.2, 4.0


def vanishing_activation(evidence: Evidence) -> Iterator[Finding]:
    """A signal that is lost on its way forward.

    Rule: from some layer on to the last hidden one, the mean square of every output is below 1/1000 of where the
    signal enters (3 % in standard deviation), or of 1 if that is less. Every, because a signal that a later layer
    still has went around: past a residual branch, through a normalization. Ten relu layers of Keras' default
    initializer stay just above, and train. An error at a millionth.
    """
    for step, readings in _moments(evidence):
        squares = _forward(evidence, readings)
        if not squares:
            continue
        entry = min(next(iter(squares.values())), 1.0)
        low = suffix(list(squares), [layer for layer, value in squares.items() if value < entry / FORWARD])
        if low and low[0] != next(iter(squares)):
            layer = _where(squares, low[0], -1)
            yield from _found("vanishing_activation", evidence, step, layer, squares, low[-1], entry, 1 / FORWARD)
            return


def exploding_activation(evidence: Evidence) -> Iterator[Finding]:
    """A signal that grows on its way forward.

    Rule: the mean square of a hidden output that no normalization follows is above 1000 times that of where the
    signal enters, and above 1000. An error at a million.
    """
    for step, readings in _moments(evidence):
        squares = _forward(evidence, readings, everything=True)
        if not squares:
            continue
        entry = max(next(iter(squares.values())), 1.0)
        high = [layer for layer, value in squares.items() if value > entry * FORWARD]
        if high:
            layer, worst = _where(squares, high[0], 1), max(high, key=squares.__getitem__)
            yield from _found("exploding_activation", evidence, step, layer, squares, worst, entry, FORWARD)
            return


def vanishing_gradient(evidence: Evidence) -> Iterator[Finding]:
    """Early layers that hardly learn, because the gradient is lost on its way back.

    Rule: from the first kernel to some other, every gradient relative to its kernel (standard deviations) is below
    1/1000 of the last kernel's. Relative to the kernel, since that is what an optimizer's step is measured against; to
    the last one, since all gradients fall as training converges. For a run, in the last three reports. A last kernel
    of 0 passes no gradient on at step 0, on purpose, and is no finding.
    """
    ratios = _lasting_gradients(evidence, max)
    if len(ratios) < 2:
        return
    reference = list(ratios.values())[-1]
    low = suffix(list(ratios)[::-1], [layer for layer, value in ratios.items() if value < reference / BACKWARD])
    if not low or reference == 0:
        return
    least = ratios[low[-1]]
    layer = _after(list(ratios), low[0])
    yield Finding(
        "vanishing_gradient",
        layer,
        evidence.reports[-1].step,
        "error" if least < reference / BACKWARD**2 else "warning",
        {
            "first_gradient_to_weight": least,
            "last_gradient_to_weight": reference,
            "layers_without_gradient": len(low),
            "healthy": "within a factor of 100 of each other",
        },
        'Use an activation whose slope reaches 1 ("relu", "tanh" in place of "sigmoid") with its own initializer, '
        'keras_initkit.initialize(model, "he_normal"); put keras.layers.LayerNormalization() between the layers, or '
        "add skip connections: x = keras.layers.Add()([x, block(x)]).",
        beyond(least, reference / BACKWARD),
    )


def exploding_gradient(evidence: Evidence) -> Iterator[Finding]:
    """Gradients that grow on their way back.

    Rule: the standard deviation of an early kernel's gradient, with no normalization after it, is more than 1000 times
    the last kernel's, in all of the last three reports. An error at a million.
    """
    gradients = _lasting_gradients(evidence, min, relative=False)
    if len(gradients) < 2:
        return
    reference = list(gradients.values())[-1]
    high = {layer: value for layer, value in gradients.items() if value > reference * BACKWARD}
    if not high or reference == 0:
        return
    layer, worst = list(high)[-1], max(high.values())
    yield Finding(
        "exploding_gradient",
        layer,
        evidence.reports[-1].step,
        "error" if worst > reference * BACKWARD**2 else "warning",
        {"gradient": worst, "last_gradient": reference, "healthy": "within a factor of 100 of the last kernel's"},
        'Draw the kernels on the scale of their layers, keras_initkit.initialize(model, "he_normal"), and clip '
        "gradients until they are found: keras.optimizers.Adam(1e-3, global_clipnorm=1.0).",
        beyond(worst, reference * BACKWARD),
    )


def rank_collapse(evidence: Evidence) -> Iterator[Finding]:
    """Outputs that are the same for all examples, so that no later layer can tell them apart.

    Rule: the effective rank of a hidden output of four units or more is below 1.2, of what the first layer reads, or
    else puts out, above 4: what the examples differ in is then less than a few percent of what they share. Only a
    probe measures it.
    """
    ranks = {
        layer: rank
        for layer, reading in evidence.last.items()
        if (rank := reading.rank) is not None and (reading.units or 0) >= 4
    }
    outputs = evidence.outputs
    hidden = [layer for layer in ranks if layer not in outputs]
    if not hidden or ranks[hidden[0]] < RANK_BEFORE:
        return
    collapsed = suffix(hidden, [layer for layer in hidden if ranks[layer] < RANK])
    if collapsed:
        yield Finding(
            "rank_collapse",
            collapsed[0],
            evidence.reports[-1].step,
            "warning",
            {"effective_rank": ranks[collapsed[0]], "first_layer": ranks[hidden[0]], "healthy": "above 2"},
            'Draw kernels that keep directions apart, kernel_initializer="orthogonal", or give layers a way around: '
            "x = keras.layers.Add()([x, block(x)]); batch normalization takes out what examples share.",
            beyond(max(ranks[collapsed[0]] - 1, 1e-9), RANK - 1),
        )


def _moments(evidence: Evidence) -> Iterator[tuple[int, dict[str, Reading]]]:
    """The first report and the last."""
    yield evidence.reports[0].step, evidence.first
    if len(evidence.reports) > 1:
        yield evidence.reports[-1].step, evidence.last


def _forward(evidence: Evidence, readings: Mapping[str, Reading], everything: bool = False) -> dict[str, float]:
    """Mean squares of hidden outputs whose scale matters, in the order of flow."""
    passed = evidence.scale_free | evidence.outputs
    found = {}
    for layer, reading in readings.items():
        if layer in passed or reading.output is None or reading.layer_type == "Embedding":
            continue
        if reading.output.nonfinite or not (everything or reading.has_kernel):
            continue
        if "Normalization" in reading.layer_type:
            continue
        found[layer] = reading.output.variance + reading.output.mean**2
    return found


def _lasting_gradients(evidence: Evidence, choose: object, relative: bool = True) -> dict[str, float]:
    """Of each kernel layer the largest (or least) gradient of the last three reports, in standard deviations."""
    found: dict[str, list[float]] = {}
    for readings in evidence.readings[-3:]:
        for layer, reading in readings.items():
            weight, gradient = reading.weight, reading.weight_gradient
            if not reading.has_kernel or reading.layer_type == "Embedding" or weight is None or gradient is None:
                continue
            if layer in evidence.scale_free or gradient.nonfinite or not weight.stddev > 0:
                continue
            found.setdefault(layer, []).append(gradient.stddev / (weight.stddev if relative else 1.0))
    return {layer: choose(values) for layer, values in found.items()}  # type: ignore[operator]


def _where(squares: Mapping[str, float], first: str, sign: int) -> str:
    """The layer of the largest step, where it makes out half of the way; else the first one beyond."""
    layers = list(squares)
    logs = [math.log(max(value, 1e-300)) * sign for value in squares.values()]
    steps = {layers[i]: logs[i] - logs[i - 1] for i in range(1, len(layers))}
    largest = max(steps, key=steps.__getitem__)
    return largest if steps[largest] >= (max(logs) - logs[0]) / 2 else first


def _after(layers: Sequence[str], layer: str) -> str:
    """The next layer, whose kernel the gradient came through."""
    return layers[min(layers.index(layer) + 1, len(layers) - 1)]


def _found(
    kind: str,
    evidence: Evidence,
    step: int,
    layer: str,
    squares: Mapping[str, float],
    worst: str,
    entry: float,
    limit: float,
) -> Iterator[Finding]:
    value = squares[worst]
    far = value < entry * limit**2 if limit < 1 else value > entry * limit**2
    figures: dict[str, float | str] = {"mean_square": value, "where_it_enters": entry, "worst_layer": worst}
    predicted = evidence.predicted(step, worst)
    if predicted is not None:
        figures["predicted_variance"] = predicted
    yield Finding(
        kind,
        layer,
        step,
        "error" if far or value == 0 else "warning",
        {**figures, "healthy": "within a factor of 10 of where it enters"},
        'Draw every kernel on the scale of its layer: keras_initkit.initialize(model, "lsuv", x), or '
        'keras_initkit.initialize(model, "he_normal") for relu; or keep the signal up by '
        "keras.layers.LayerNormalization() between the layers.",
        beyond(value, entry * limit),
    )
