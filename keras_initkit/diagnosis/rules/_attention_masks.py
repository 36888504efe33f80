"""Rules for what attention may look at: the future, padding, and the keys that its weights add up over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding, confidence_beyond
from keras_initkit.diagnosis._rule_registry import register_rule
from keras_initkit.diagnosis.rules._attention_advice import in_code
from keras_initkit.report._attention_rows import AttentionStats
from keras_initkit.theory._thresholds import (
    NO_DEPENDENCE,
    PADDING_ATTENDED,
    PADDING_ATTENDED_ONLY,
    UNEVEN_WEIGHTS,
)

_KEPT = "mask = keras.ops.not_equal(tokens, 0)"


@register_rule("future_attended")
def find_future_attended(evidence: Evidence) -> Iterator[Finding]:
    """Finds attention that sees the tokens which the model shall predict.

    Labels are the next tokens, and an output changes with a token behind it: the model copies what it should predict.
    Or, without such labels, at least as many attentions over the same tokens are causal, and this one is not. One that
    sees the future alone has its mask the wrong way round.
    """
    report = evidence.reports[-1]
    orders = {row.input: row for row in report.order}
    for name, rows in _by_input(report.attention).items():
        order = next((orders[each] for each in name if each in orders), None)
        seeing = [row for row in rows if row.future_allowed]
        causal = [row for row in rows if row.is_causal]
        reversed_rows = [row for row in seeing if row.past_allowed == 0]
        leaks = order is not None and order.future is not None and order.future > NO_DEPENDENCE
        if not seeing or (order is not None and order.future is not None and not leaks):
            continue
        predicted = leaks and order is not None and order.next_tokens is True
        odd = 0 < len(seeing) <= len(causal) and len(reversed_rows) < len(seeing)
        backward = bool(reversed_rows) and len(reversed_rows) == len(rows)
        if not (predicted or odd or backward):
            continue
        first = (reversed_rows or seeing)[0]
        turned = first in reversed_rows
        where = f"{first.layer}" + (f" and {len(seeing) - 1} more" if len(seeing) > 1 else "")
        why = "the labels are the next tokens" if predicted else f"{len(causal)} of {len(rows)} attentions are causal"
        does = (
            "looks at later positions alone"
            if turned
            else f"gives {first.future or 0:.0%} of its weight to later positions"
        )
        yield Finding(
            "future_attended",
            first.layer,
            report.step,
            "error" if predicted else "warning",
            {"future": first.future or 0.0, "layers": len(seeing), "of": len(rows), "healthy": "0 in a decoder"},
            ("Turn the mask round" if turned else "Mask later keys")
            + f", a query may look at keys up to its own position: {_causal_code(evidence, first.layer)}.",
            1.0 if predicted else 0.9,
            message=f"{where} {does}, though {why}" + (": it sees what it should predict." if predicted else "."),
        )


@register_rule("padding_attended")
def find_padding_attended(evidence: Evidence) -> Iterator[Finding]:
    """Finds attention that gives weight to padding, where the model knows which positions are padding.

    It knows by `Embedding(mask_zero=True)`, a `Masking` layer, a comparison of the tokens with a number, or an input of
    that name. Counted are queries that are no padding; their weight on padding is more than a tenth of what uniform
    weights would give it. Nearly all of it: the mask is the wrong way round.
    """
    report = evidence.reports[-1]
    read = [row for row in report.attention if row.padding is not None and row.padded_keys]
    lost = [row for row in read if (row.padding or 0) > PADDING_ATTENDED * (row.padded_keys or 1)]
    if not lost:
        return
    worst = next((row for row in lost if _is_turned(row)), lost[0])
    share, padded = worst.padding or 0.0, worst.padded_keys or 1.0
    where = worst.layer + (f" and {len(lost) - 1} more" if len(lost) > 1 else "")
    yield Finding(
        "padding_attended",
        worst.layer,
        report.step,
        "error" if _is_turned(worst) else "warning",
        {"padding": share, "padded_keys": padded, "layers": len(lost), "of": len(read), "healthy": "0"},
        f"Turn the mask round, in the model's code, where True is a key that may be read: `{_KEPT}`."
        if _is_turned(worst)
        else f"Hand the mask on, in the model's code: {_padding_code(evidence, worst)}. Keras hands it on through "
        "layers with supports_masking; x + y drops it, keras.layers.Add() does not, if both have it.",
        confidence_beyond(share, PADDING_ATTENDED * padded),
        message=f"{where} gives {share:.0%} of the weight to padding, which is {padded:.0%} of the keys: the model "
        "knows which positions are padding, but "
        + ("masks the others." if _is_turned(worst) else "the mask does not reach this attention."),
    )


@register_rule("uneven_attention")
def find_uneven_attention(evidence: Evidence) -> Iterator[Finding]:
    """Finds attention whose weights do not add up to 1 over the keys: its softmax is taken over another axis.

    In the median over queries, weights add up to something that is more than a tenth away from 1.
    """
    report = evidence.reports[-1]
    for row in report.attention:
        if row.sum_error > UNEVEN_WEIGHTS:
            yield Finding(
                "uneven_attention",
                row.layer,
                report.step,
                "error",
                {"sum_error": row.sum_error, "healthy": "0"},
                "Take the softmax over the axis that the average then runs over, in the model's code: "
                "`weights = keras.ops.softmax(scores, axis=-1)` of scores whose last axis is the keys'; mask scores, "
                "not weights.",
                confidence_beyond(row.sum_error, UNEVEN_WEIGHTS),
                message=f"The weights of a query in {row.layer} do not add up to 1 (off by {row.sum_error:.2g} in the "
                "median): the softmax is not taken over the keys.",
            )


def _causal_code(evidence: Evidence, path: str) -> str:
    """Returns the line of the model's code that masks later keys."""
    own = "`scores = keras.ops.where(keras.ops.tril(keras.ops.ones(scores.shape[-2:], bool)), scores, -1e9)`"
    by_keras = "`y = attention(x, x, use_causal_mask=True)`"
    return in_code(evidence, path, by_keras, own)


def _padding_code(evidence: Evidence, row: AttentionStats) -> str:
    """Returns the lines of the model's code that keep an attention from padding."""
    axes = ":, None, None, :" if row.heads > 1 else ":, None, :"
    own = f"`{_KEPT}; scores = keras.ops.where(mask[{axes}], scores, -1e9)`"
    by_keras = f"`{_KEPT}; y = attention(x, x, attention_mask=mask[:, None, :])`"
    return in_code(evidence, row.layer, by_keras, own)


def _by_input(rows: Sequence[AttentionStats]) -> dict[tuple[str, ...], list[AttentionStats]]:
    """Returns attentions of tokens over themselves by the inputs that these come from."""
    found: dict[tuple[str, ...], list[AttentionStats]] = {}
    for row in rows:
        if row.is_self and row.future_allowed is not None:
            found.setdefault(row.queries_from, []).append(row)
    return found


def _is_turned(row: AttentionStats) -> bool:
    return (row.padding or 0) > PADDING_ATTENDED_ONLY > (row.padded_keys or 0)
