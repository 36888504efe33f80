"""Rules for how evenly attention looks at its keys."""

from __future__ import annotations

import math
from collections.abc import Iterator

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding, confidence_beyond
from keras_initkit.diagnosis._rule_registry import SCALE_CAUSES, register_rule
from keras_initkit.diagnosis.rules._advice import BY_HAND
from keras_initkit.diagnosis.rules._attention_advice import scale_scores
from keras_initkit.report._attention_rows import AttentionStats
from keras_initkit.theory._thresholds import (
    ATTENTION_KEYS,
    COLLAPSED_ENTROPY,
    GRAVE_ENTROPY,
    GROWN_LOGIT,
    TRAINED_STEPS,
    UNIFORM_ENTROPY,
)

_GROWN = (
    f"{BY_HAND}normalize queries and keys before their product, keras.layers.LayerNormalization() of each, which keeps "
    "logits from growing, and train again."
)


@register_rule("collapsed_attention", causes=(*SCALE_CAUSES, "exploding_activation"))
def find_collapsed_attention(evidence: Evidence) -> Iterator[Finding]:
    r"""Finds attention of which every head looks at a single key.

    At initialization the entropy of all heads is below a quarter of what uniform weights have, an error below a
    twentieth. Gaussian scores of standard deviation s over n keys freeze onto their largest beyond
    $s = \sqrt{2 \ln n}$; scaled by $1 / \sqrt{d}$ they have a standard deviation near 1. In a run also where the
    entropy falls below a twentieth while the largest logit has grown tenfold and beyond 50. Heads of a trained model
    may look at single keys.
    """
    report = evidence.reports[-1]
    before = {(row.layer, row.call): row for each in evidence.reports[:-1] for row in each.attention[::-1]}
    judged = [row for row in report.attention if _is_judged(row)]
    collapsed = []
    for row in judged:
        start = before.get((row.layer, row.call))
        grown = start is not None and max(row.largest_logit) > max(GROWN_LOGIT, 10 * max(start.largest_logit))
        initial = report.step == 0 and row.relative_entropy < COLLAPSED_ENTROPY
        if initial or (grown and row.relative_entropy < GRAVE_ENTROPY):
            collapsed.append(row)
    if not collapsed:
        return
    worst = min(collapsed, key=lambda row: row.relative_entropy)
    largest, share = max(worst.largest_logit), worst.relative_entropy
    yield Finding(
        "collapsed_attention",
        worst.layer,
        report.step,
        "error" if share < GRAVE_ENTROPY else "warning",
        {
            "entropy": max(worst.entropy),
            "uniform_entropy": worst.uniform_entropy,
            "largest_logit": largest,
            "layers": len(collapsed),
            "of": len(judged),
            "healthy": "near that of uniform weights at initialization",
        },
        _GROWN if report.step > 0 else scale_scores(evidence, worst),
        confidence_beyond(max(share, 1e-12), COLLAPSED_ENTROPY),
        message=f"Every head of {worst.layer} looks at little more than one key: the entropy of its weights is at most "
        f"{max(worst.entropy):.2g} nats, that of uniform ones {worst.uniform_entropy:.2g} (largest logit "
        f"{largest:.3g}).",
    )


@register_rule("uniform_attention", causes=("query_key_frozen", "vanishing_activation"))
def find_uniform_attention(evidence: Evidence) -> Iterator[Finding]:
    r"""Finds attention that after a hundred steps or more still gives every key the same weight, in every head.

    The entropy is within 1e-5 of its maximum: logits of standard deviation s lack about $s^2 / 2$ nats, so that s is
    below 0.01. At initialization that is healthy, small kernels do it.
    """
    report = evidence.reports[-1]
    if report.step < TRAINED_STEPS:
        return
    judged = [row for row in report.attention if _is_judged(row)]
    uniform = [row for row in judged if 1 - min(row.entropy) / row.uniform_entropy < UNIFORM_ENTROPY]
    if not uniform:
        return
    row = uniform[0]
    yield Finding(
        "uniform_attention",
        row.layer,
        report.step,
        "warning",
        {
            "entropy": min(row.entropy),
            "uniform_entropy": row.uniform_entropy,
            "layers": len(uniform),
            "of": len(judged),
            "healthy": "below that of uniform weights after training",
        },
        scale_scores(evidence, row),
        0.9,
        message=f"After {report.step} steps every head of {row.layer} gives all keys the same weight: it averages, and "
        "does not choose.",
    )


def _is_judged(row: AttentionStats) -> bool:
    """Whether there are keys to choose from, and weights to judge."""
    finite = all(map(math.isfinite, (*row.entropy, row.uniform_entropy, *row.largest_logit)))
    return finite and row.uniform_entropy >= math.log(ATTENTION_KEYS)
