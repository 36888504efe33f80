"""Rules for a signal that is lost or grows on its way forward through depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from keras_initkit.diagnosis._evidence import Evidence, Reading, suffix
from keras_initkit.diagnosis._finding import Finding, beyond
from keras_initkit.diagnosis._rules_rank import is_collapsed
from keras_initkit.statistics._moments import Moments
from keras_initkit.structure._layer_kinds import is_embedding, is_normalization

FORWARD = 1e3  # ratio of variances or mean squares; an error at its square


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
        alike = [layer for layer in squares if is_collapsed(readings[layer])]
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


def _moments(evidence: Evidence) -> Iterator[tuple[int, dict[str, Reading]]]:
    """The first report and the last."""
    yield evidence.reports[0].step, evidence.first
    if len(evidence.reports) > 1:
        yield evidence.reports[-1].step, evidence.last


def _variance(moments: Moments) -> float:
    return moments.variance


def _mean_square(moments: Moments) -> float:
    return moments.mean_square


def _forward(
    evidence: Evidence, readings: Mapping[str, Reading], size: Callable[[Moments], float], everything: bool = False
) -> dict[str, float]:
    """The size of hidden outputs whose scale matters, in the order of flow."""
    passed = evidence.scale_free | evidence.outputs
    found = {}
    for layer, reading in readings.items():
        if layer in passed or reading.output is None or is_embedding(reading.layer_type):
            continue
        if reading.output.nonfinite or not (everything or reading.has_kernel):
            continue
        if is_normalization(reading.layer_type):
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


def _where(squares: Mapping[str, float], entry: float, first: str, sign: int) -> str:
    """The layer of the largest step, where it makes out half of the way; else the first one beyond.

    A signal that falls below what its type holds is 0 at once. That counts as a millionth of the least that is not 0,
    so that the long way there is not forgotten over its end.
    """
    layers = list(squares)
    least = min([value for value in (entry, *squares.values()) if value > 0], default=1.0)
    start, *logs = [math.log(value or least / 1e6) * sign for value in (entry, *squares.values())]
    steps = {layers[i]: logs[i] - before for i, before in enumerate([start, *logs[:-1]])}
    largest = max(steps, key=steps.__getitem__)
    return largest if steps[largest] >= (max(logs) - start) / 2 else first


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
