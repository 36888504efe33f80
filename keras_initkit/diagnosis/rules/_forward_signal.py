"""Rules for a signal that vanishes or explodes on its way forward through depth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding, confidence_beyond, format_factor
from keras_initkit.diagnosis._rule_registry import SCALE_CAUSES, register_rule
from keras_initkit.report._health import Decades, mark_decades
from keras_initkit.theory._thresholds import HEALTHY_FACTOR


@register_rule("vanishing_activation", causes=(*SCALE_CAUSES, "symmetric_units", "saturated_units", "dead_units"))
def find_vanishing_activation(evidence: Evidence) -> Iterator[Finding]:
    """Finds a signal that is lost on its way forward.

    The variance of an output is below 1/10,000 of that where the signal enters (1 % in standard deviation). The
    variance, because a sigmoid's output is 1/2 whatever it gets. An error below the square of that. What the gates of
    an LSTM or a GRU halve is not lost, and branches, gates and what a normalization reads may be as small as they like.
    """
    yield from _find_outside(evidence, "vanishing_activation", -1)


@register_rule("exploding_activation", causes=SCALE_CAUSES)
def find_exploding_activation(evidence: Evidence) -> Iterator[Finding]:
    """Finds a signal that grows on its way forward.

    The variance of an output is above 10,000 times that of where the signal enters. An error above the square of that.
    """
    yield from _find_outside(evidence, "exploding_activation", 1)


def _find_outside(evidence: Evidence, kind: str, sign: int) -> Iterator[Finding]:
    """Judges the first report and the last: one layer is named."""
    for place in dict.fromkeys((0, len(evidence.reports) - 1)):
        entries = evidence.entries(place)[0]
        decades = {
            layer: value
            for layer, value in evidence.decades(place)[0].items()
            if not math.isnan(value) and _variance(evidence, place, entries[layer].layer) > 0
        }
        outside = [layer for layer, value in decades.items() if mark_decades(value) and value * sign > 0]
        if not outside:
            continue
        worst = max(outside, key=lambda layer: decades[layer] * sign)
        entry = entries[worst].layer
        value, at_entry = _variance(evidence, place, worst), _variance(evidence, place, entry)
        step = evidence.reports[place].step
        predicted = evidence.predicted_variance(step, worst)
        numbers: dict[str, float | str] = {"variance": value, "where_it_enters": at_entry, "worst_layer": worst}
        numbers |= {} if predicted is None else {"predicted_variance": predicted}
        verb = "shrinks" if sign < 0 else "grows"
        factor = 10.0 ** min(abs(decades[worst]), 300.0)
        change = f"{verb} {format_factor(factor)}-fold" if value > 0 else "is lost on its way"
        expected = "" if predicted is None else f" (theory expects a variance of {predicted:.3g})"
        yield Finding(
            kind,
            _where(decades, outside, sign),
            step,
            "error" if abs(decades[worst]) > 2 * math.log10(HEALTHY_FACTOR) else "warning",
            {**numbers, "healthy": f"within a factor of {HEALTHY_FACTOR:,.0f} of where it enters"},
            'Draw every kernel on the scale of what its layer reads: `keras_initkit.initialize(model, "lsuv", x)`. '
            "Normalization between the layers keeps it there.",
            confidence_beyond(value * entries[worst].ratio, at_entry * HEALTHY_FACTOR**sign),
            message=f"The variance of the signal {change} from {entry} ({at_entry:.3g}) to {worst} ({value:.3g})"
            f"{expected}; healthy networks stay within {HEALTHY_FACTOR:,.0f}x.",
        )
        return


def _variance(evidence: Evidence, place: int, layer: str) -> float:
    output = evidence.readings[place][layer].output
    return math.nan if output is None else output.variance


def _where(decades: Decades, outside: Sequence[str], sign: int) -> str:
    """The layer outside whose step is the largest, if that is half of the way; otherwise the first one.

    A signal that falls below what its type holds is 0 at once. That counts as six decades below the least that is not
    0, so that the long way there is not forgotten over its end.
    """
    least = min([value for value in decades.values() if math.isfinite(value)], default=0.0) - 6
    values = [0.0, *((value if math.isfinite(value) else least) * sign for value in decades.values())]
    steps = {layer: values[place + 1] - values[place] for place, layer in enumerate(decades)}
    largest = max(outside, key=steps.__getitem__)
    return largest if steps[largest] >= max(values) / 2 else outside[0]
