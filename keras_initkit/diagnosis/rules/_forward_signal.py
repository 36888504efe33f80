"""Rules for a signal that vanishes or explodes on its way forward through depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding, confidence_beyond, format_factor
from keras_initkit.diagnosis._readings import LayerReading, take_suffix
from keras_initkit.diagnosis._rule_registry import SCALE_CAUSES, register_rule
from keras_initkit.diagnosis.rules._signal_rank import is_collapsed
from keras_initkit.statistics._moments import Moments
from keras_initkit.theory._thresholds import HEALTHY_FACTOR, SIGNAL_FACTOR


@register_rule("vanishing_activation", causes=(*SCALE_CAUSES, "symmetric_units", "saturated_units", "dead_units"))
def find_vanishing_activation(evidence: Evidence) -> Iterator[Finding]:
    """Finds a signal that is lost on its way forward.

    From some layer on to the last hidden one, the variance of every output is below 1/1000 of that where the signal
    enters (3 % in standard deviation), or of 1 if that is less. The variance, because a sigmoid's output is 1/2
    whatever it gets; every, because a signal that a later layer still has went around: past a residual branch, through
    a normalization. An error at a millionth. What the gates of an LSTM or a GRU halve is not lost.
    """
    for step, readings in _read_ends(evidence):
        squares = _measure_hidden(evidence, readings, _variance)
        if not squares:
            continue
        entry = min(_entry(readings, next(iter(squares)), _variance), 1.0)
        lost = [layer for layer, value in squares.items() if value < entry / SIGNAL_FACTOR]
        # What no example changes any more may still differ from unit to unit, by a bias or the mean of a sigmoid.
        alike = [layer for layer in squares if is_collapsed(readings[layer])]
        low = [layer for layer in take_suffix(list(squares), {*lost, *alike}) if layer in lost]
        if low:
            layer = _where(squares, entry, low[0], -1)
            worst = min(low, key=squares.__getitem__)
            yield from _report_signal(
                "vanishing_activation", evidence, step, layer, squares, worst, entry, 1 / SIGNAL_FACTOR
            )
            return


@register_rule("exploding_activation", causes=SCALE_CAUSES)
def find_exploding_activation(evidence: Evidence) -> Iterator[Finding]:
    """Finds a signal that grows on its way forward.

    The mean square of a hidden output is above 1000 times that of where the signal enters, and above 1000. An error at
    a million. Residual branches and the stream that they add to count too, but where all ways to the model's output
    lead through a normalization or a bounded function.
    """
    for step, readings in _read_ends(evidence):
        squares = _measure_hidden(evidence, readings, _mean_square, everything=True)
        if not squares:
            continue
        entry = max(_entry(readings, next(iter(squares)), _mean_square), 1.0)
        high = [layer for layer, value in squares.items() if value > entry * SIGNAL_FACTOR]
        if high:
            layer, worst = _where(squares, entry, high[0], 1), max(high, key=squares.__getitem__)
            yield from _report_signal(
                "exploding_activation", evidence, step, layer, squares, worst, entry, SIGNAL_FACTOR
            )
            return


def _read_ends(evidence: Evidence) -> Iterator[tuple[int, dict[str, LayerReading]]]:
    """Yields step and readings of the first report and the last."""
    yield evidence.reports[0].step, evidence.first
    if len(evidence.reports) > 1:
        yield evidence.reports[-1].step, evidence.last


def _variance(moments: Moments) -> float:
    return moments.variance


def _mean_square(moments: Moments) -> float:
    return moments.mean_square


def _measure_hidden(
    evidence: Evidence, readings: Mapping[str, LayerReading], size: Callable[[Moments], float], everything: bool = False
) -> dict[str, float]:
    """The size of hidden outputs whose scale matters, in the order of flow."""
    free = evidence.closed if everything else evidence.scale_free | evidence.gated
    passed = free | evidence.outputs | evidence.constants
    found, halved = {}, 1.0
    for layer, reading in readings.items():
        if layer in passed or reading.output is None or evidence.is_embedding(reading):
            continue
        if reading.output.nonfinite or not (everything or reading.has_kernel):
            continue
        if evidence.is_normalization(reading):
            continue
        found[layer] = size(reading.output)
        if not everything:
            halved *= 4.0 ** _count_gates(reading.layer_type)
            found[layer] *= halved
    return found


def _count_gates(layer_type: str) -> int:
    """Returns how many gates a recurrent layer's output has come through; each, a sigmoid of about 0, halves it."""
    return 2 if layer_type.endswith(("LSTM", "LSTM1D", "LSTM2D", "LSTM3D")) else int(layer_type.endswith("GRU"))


def _entry(readings: Mapping[str, LayerReading], first: str, size: Callable[[Moments], float]) -> float:
    """The size of what the first layer reads; a training step does not read inputs.

    Then the output of the layer before it counts (an embedding, a normalization), or else its own output.
    """
    read = readings[first].moments("input")
    if read is not None:
        return size(read)
    layers = list(readings)
    before = readings[layers[max(layers.index(first) - 1, 0)]].output
    before = before if before is not None and not before.nonfinite else readings[first].output
    return math.nan if before is None else size(before)


def _where(squares: Mapping[str, float], entry: float, first: str, sign: int) -> str:
    """The layer of the largest step if it is half of the way; otherwise the first one beyond the limit.

    A signal that falls below what its type holds is 0 at once. That counts as a millionth of the least that is not 0,
    so that the long way there is not forgotten over its end.
    """
    layers = list(squares)
    least = min([value for value in (entry, *squares.values()) if value > 0], default=1.0)
    start, *logs = [math.log(value or least / 1e6) * sign for value in (entry, *squares.values())]
    steps = {layers[i]: logs[i] - before for i, before in enumerate([start, *logs[:-1]])}
    largest = max(steps, key=steps.__getitem__)
    return largest if steps[largest] >= (max(logs) - start) / 2 else first


def _report_signal(
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
    vanishes = limit < 1
    far = value < entry * limit**2 if vanishes else value > entry * limit**2
    name = "variance" if vanishes else "mean_square"
    numbers: dict[str, float | str] = {name: value, "where_it_enters": entry, "worst_layer": worst}
    predicted = evidence.predicted_variance(step, worst)
    if predicted is not None:
        numbers["predicted_variance"] = predicted
    factor = entry / value if vanishes and value > 0 else math.inf if vanishes else value / entry
    verb = "shrinks" if vanishes else "grows"
    change = f"{verb} {format_factor(factor)}-fold" if math.isfinite(factor) else "is lost"
    expected = "" if predicted is None else f" (theory expects a variance of {predicted:.3g})"
    yield Finding(
        kind,
        layer,
        step,
        "error" if far else "warning",
        {**numbers, "healthy": "within a factor of 10 of where it enters"},
        'Draw every kernel on the scale of what its layer reads: `keras_initkit.initialize(model, "lsuv", x)`. '
        "Normalization between the layers keeps it there.",
        confidence_beyond(value, entry * limit),
        message=f"The signal {change} from where it enters ({name.replace('_', ' ')} {entry:.3g}) to {worst} "
        f"({value:.3g}){expected}; healthy networks stay within {HEALTHY_FACTOR:g}x.",
    )
