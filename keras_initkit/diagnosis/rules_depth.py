"""Rules for what depth does to the signal: it vanishes or explodes on its way forward or back, or loses its rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from keras_initkit.diagnosis.evidence import Evidence, Reading, suffix
from keras_initkit.diagnosis.finding import Finding, beyond
from keras_initkit.diagnosis.rules_units import ALIKE
from keras_initkit.signal.moments import Moments
from keras_initkit.signal.statistics import effective_rank

# Ratios of mean squares or variances, forward, and of standard deviations, backward; an error at their squares.
FORWARD, VANISHED, EXPLODED = 1e3, 1e3, 1e2
RANK, RANK_BEFORE = 1.2, 4.0


def vanishing_activation(evidence: Evidence) -> Iterator[Finding]:
    """A signal that is lost on its way forward.

    Rule: from some layer on to the last hidden one, the variance of every output is below 1/1000 of that where the
    signal enters (3 % in standard deviation), or of 1 if that is less. The variance, because a sigmoid puts out 1/2
    whatever it gets; every, because a signal that a later layer
    still has went around: past a residual branch, through a normalization. Ten relu layers of Keras' default
    initializer stay just above, and train. An error at a millionth.
    """
    for step, readings in _moments(evidence):
        squares = _forward(evidence, readings, _variance)
        if not squares:
            continue
        entry = min(_entry(readings, next(iter(squares)), _variance), 1.0)
        lost = [layer for layer, value in squares.items() if value < entry / FORWARD]
        # What no example changes any more may still differ from unit to unit, by a bias or the mean of a sigmoid.
        alike = [layer for layer in squares if _is_collapsed(readings[layer])]
        low = [layer for layer in suffix(list(squares), {*lost, *alike}) if layer in lost]
        if low:
            layer = _where(squares, entry, low[0], -1)
            worst = min(low, key=squares.__getitem__)
            yield from _found("vanishing_activation", evidence, step, layer, squares, worst, entry, 1 / FORWARD)
            return


def exploding_activation(evidence: Evidence) -> Iterator[Finding]:
    """A signal that grows on its way forward.

    Rule: the mean square of a hidden output that no normalization follows is above 1000 times that of where the
    signal enters, and above 1000. An error at a million.
    """
    for step, readings in _moments(evidence):
        squares = _forward(evidence, readings, _mean_square, everything=True)
        if not squares:
            continue
        entry = max(_entry(readings, next(iter(squares)), _mean_square), 1.0)
        high = [layer for layer, value in squares.items() if value > entry * FORWARD]
        if high:
            layer, worst = _where(squares, entry, high[0], 1), max(high, key=squares.__getitem__)
            yield from _found("exploding_activation", evidence, step, layer, squares, worst, entry, FORWARD)
            return


def vanishing_gradient(evidence: Evidence) -> Iterator[Finding]:
    """Early layers that hardly learn, because the gradient is lost on its way back.

    Rule: from the first kernel to some other, every gradient relative to its kernel (standard deviations) is below
    1/1000 of the last kernel's. Relative to the kernel, since that is what an optimizer's step is measured against; to
    the last one, since all gradients fall as training converges. For a run, in the last three reports. A last kernel
    of 0 passes no gradient on at step 0, on purpose, and is no finding.
    """
    ratios = _lasting(evidence, max, _gradient_to_weight)
    if len(ratios) < 2:
        return
    reference = list(ratios.values())[-1]
    low = suffix(list(ratios)[::-1], [layer for layer, value in ratios.items() if value < reference / VANISHED])
    if not low or reference == 0:
        return
    least = ratios[low[-1]]
    layer = _after(list(ratios), low[0])
    yield Finding(
        "vanishing_gradient",
        layer,
        evidence.reports[-1].step,
        "error" if least < reference / VANISHED**2 else "warning",
        {
            "first_gradient_to_weight": least,
            "last_gradient_to_weight": reference,
            "layers_without_gradient": len(low),
            "healthy": "within a factor of 100 of each other",
        },
        'Use an activation whose slope reaches 1 ("relu", "tanh" in place of "sigmoid") with its own initializer, '
        'keras_initkit.initialize(model, "he_normal"); put keras.layers.LayerNormalization() between the layers, or '
        "add skip connections: x = keras.layers.Add()([x, block(x)]).",
        beyond(least, reference / VANISHED),
    )


def exploding_gradient(evidence: Evidence) -> Iterator[Finding]:
    """Gradients that grow on their way back.

    Rule: the standard deviation of the gradient at the output of a layer with a kernel, and no normalization after it,
    is more than 100 times that at the last such layer, in all of the last three reports. An error at 10,000. The
    kernels' own gradients do not show it: where the signal explodes too, all of them are equally large.
    """
    gradients = _lasting(evidence, min, _gradient)
    if len(gradients) < 2:
        return
    reference = list(gradients.values())[-1]
    high = {layer: value for layer, value in gradients.items() if value > reference * EXPLODED}
    if not high or reference == 0:
        return
    layer, worst = list(high)[-1], max(high.values())
    yield Finding(
        "exploding_gradient",
        layer,
        evidence.reports[-1].step,
        "error" if worst > reference * EXPLODED**2 else "warning",
        {"gradient": worst, "last_gradient": reference, "healthy": "within a factor of 10 of the last layer's"},
        'Draw the kernels on the scale of their layers, keras_initkit.initialize(model, "he_normal"), and clip '
        "gradients until they are found: keras.optimizers.Adam(1e-3, global_clipnorm=1.0).",
        beyond(worst, reference * EXPLODED),
    )


def rank_collapse(evidence: Evidence) -> Iterator[Finding]:
    """Outputs that are the same for all examples, so that no later layer can tell them apart.

    Rule: from some hidden layer of four units or more on, the effective rank of every output is below 1.2, while it is
    above 4 at the first: what the examples differ in is then less than a few percent of what they share. Only a probe
    measures it. Or, before training, a hidden kernel of four inputs and four units or more has an effective rank
    below 1.2 by itself, without being the same for all units.
    """
    for layer, of_kernel in _flat_kernels(evidence):
        yield Finding(
            "rank_collapse",
            layer,
            evidence.reports[0].step,
            "error",
            {"effective_rank_of_kernel": of_kernel, "healthy": "near the smaller of inputs and units"},
            'Draw it anew: kernel_initializer="orthogonal" has full rank; in place, '
            f'keras_initkit.initialize(model, "orthogonal", layers="{layer}").',
            beyond(max(of_kernel - 1, 1e-9), RANK - 1),
        )
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


def _is_collapsed(reading: Reading) -> bool:
    return reading.rank is not None and reading.rank < RANK and (reading.units or 0) >= 4


def _flat_kernels(evidence: Evidence) -> Iterator[tuple[str, float]]:
    """Kernels that let one direction through, by their layer."""
    if evidence.structure is None or not evidence.is_initial or len(evidence.reports) > 1:
        return
    for placed in evidence.structure.kernels:
        columns = placed.columns
        if placed.kernel.role in ("embedding", "depthwise") or placed.is_output or min(columns.shape) < 4:
            continue
        rank = effective_rank(columns) if np.isfinite(columns).all() else None
        if rank is not None and 0 < rank < RANK and np.ptp(columns, axis=1).max() > ALIKE * np.abs(columns).max():
            yield placed.path, rank


def _moments(evidence: Evidence) -> Iterator[tuple[int, dict[str, Reading]]]:
    """The first report and the last."""
    yield evidence.reports[0].step, evidence.first
    if len(evidence.reports) > 1:
        yield evidence.reports[-1].step, evidence.last


def _variance(moments: Moments) -> float:
    return moments.variance


def _mean_square(moments: Moments) -> float:
    return moments.variance + moments.mean**2


def _forward(
    evidence: Evidence, readings: Mapping[str, Reading], size: Callable[[Moments], float], everything: bool = False
) -> dict[str, float]:
    """The size of hidden outputs whose scale matters, in the order of flow."""
    passed = evidence.scale_free | evidence.outputs
    found = {}
    for layer, reading in readings.items():
        if layer in passed or reading.output is None or reading.layer_type == "Embedding":
            continue
        if reading.output.nonfinite or not (everything or reading.has_kernel):
            continue
        if "Normalization" in reading.layer_type:
            continue
        found[layer] = size(reading.output)
    return found


def _entry(readings: Mapping[str, Reading], first: str, size: Callable[[Moments], float]) -> float:
    """The size of what the first layer reads.

    A training step does not read inputs; then of what the layer before it puts out (an embedding, a normalization), or
    else of its own output.
    """
    read = readings[first].moments("input")
    if read is not None:
        return size(read)
    layers = list(readings)
    before = readings[layers[max(layers.index(first) - 1, 0)]].output
    before = before if before is not None and not before.nonfinite else readings[first].output
    return math.nan if before is None else size(before)


def _lasting(
    evidence: Evidence, choose: Callable[[list[float]], float], figure: Callable[[Reading], float | None]
) -> dict[str, float]:
    """Of each layer with a kernel whose scale matters, the largest (or least) of a figure in the last three reports."""
    found: dict[str, list[float]] = {}
    for readings in evidence.readings[-3:]:
        for layer, reading in readings.items():
            if not reading.has_kernel or reading.layer_type == "Embedding" or layer in evidence.scale_free:
                continue
            value = figure(reading)
            if value is not None and math.isfinite(value):
                found.setdefault(layer, []).append(value)
    return {layer: choose(values) for layer, values in found.items()}


def _gradient(reading: Reading) -> float | None:
    return None if reading.gradient is None else reading.gradient.stddev


def _gradient_to_weight(reading: Reading) -> float | None:
    weight, gradient = reading.weight, reading.weight_gradient
    if weight is None or gradient is None or not weight.stddev > 0 or gradient.stddev == 0:
        return None  # a gradient of exactly 0 did not vanish over depth: something blocks it (`frozen_weights`)
    return gradient.stddev / weight.stddev


def _where(squares: Mapping[str, float], entry: float, first: str, sign: int) -> str:
    """The layer of the largest step, where it makes out half of the way; else the first one beyond."""
    layers = list(squares)
    logs = [math.log(max(value, 1e-300)) * sign for value in squares.values()]
    start = math.log(max(entry, 1e-300)) * sign
    steps = {layers[i]: logs[i] - before for i, before in enumerate([start, *logs[:-1]])}
    largest = max(steps, key=steps.__getitem__)
    return largest if steps[largest] >= (max(logs) - start) / 2 else first


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
    name = "variance" if limit < 1 else "mean_square"
    figures: dict[str, float | str] = {name: value, "where_it_enters": entry, "worst_layer": worst}
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
