"""Rules for what `fit` makes of the data: their order, and averages that lag behind."""

from __future__ import annotations

import math
from collections.abc import Iterator

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding
from keras_initkit.diagnosis._rule_registry import register_rule
from keras_initkit.diagnosis.task._label_facts import Labels
from keras_initkit.diagnosis.task._task_remedies import layer_code, write_remedy
from keras_initkit.theory._thresholds import (
    ENOUGH_LABELS,
    FEWEST_STEPS,
    GRAVE_LAG,
    LAG,
    LAGGING_FRACTION,
    MIXED_BATCHES,
    ORDERED_DEVIATIONS,
)


@register_rule("unshuffled_labels")
def find_unshuffled_labels(evidence: Evidence) -> Iterator[Finding]:
    """Finds labels that come in order: all of one class, then all of the next.

    There are far fewer runs of equal labels than in a random order (Wald and Wolfowitz; six standard deviations), and,
    of the batches that `fit` takes, a batch holds less than 70 % of the mixture (Gini) of all of them, or all that were
    seen hold one class. Of data that are passed to `diagnose` it is information, for `fit` shuffles arrays by default.
    Recurrent layers that keep their state need the order and are left alone.
    """
    task = evidence.task
    if task is None or any(getattr(call.layer, "stateful", False) is True for call in task.model.graph):
        return
    for output in task.outputs[:1]:
        labels = output.labels
        if labels is None or labels.sequence is None or not output.head.trains:
            continue
        judged = _judge_order(labels, task.in_order, task.steps)
        if judged is None:
            continue
        runs, expected = judged
        where = "The batches that fit takes have" if task.in_order else "The examples have"
        yield Finding(
            "unshuffled_labels",
            output.head.path or output.name,
            evidence.reports[0].step,
            "warning" if task.in_order else "info",
            {"runs": runs, "expected_runs": expected, "examples": len(labels.sequence), "healthy": "a random order"},
            write_remedy(
                "Shuffle the examples before they are split or fed (fit does so with arrays, not with a generator, and "
                "not before validation_split; a tf.data.Dataset takes .shuffle(10_000))",
                "import numpy as np",
                "order = np.random.default_rng(0).permutation(len(x))",
                "x, y = x[order], y[order]",
            ),
            message=f"{where} their labels in order: {runs:,} runs of equal labels among {len(labels.sequence):,} "
            f"examples, where a random order has about {expected:,.0f}. Each step then learns one class and forgets "
            "the others.",
        )


def _judge_order(labels: Labels, in_order: bool, steps: int | None) -> tuple[int, float] | None:
    """Returns the number of runs and the expected one, where labels are in order; `None` where they are not."""
    sequence = labels.sequence
    if sequence is None or len(sequence) < 2 * ENOUGH_LABELS:
        return None
    classes, counts = np.unique(sequence, return_counts=True)
    n, runs = len(sequence), 1 + int(np.count_nonzero(sequence[1:] != sequence[:-1]))
    if len(classes) == 1:
        partly = in_order and steps is not None and steps > len(labels.batches)
        return (1, n / 2) if partly and labels.weights is None else None
    if len(classes) > n // 4:
        return None
    squares, cubes = float((counts**2.0).sum()), float((counts**3.0).sum())
    expected = 1 + n - squares / n
    variance = (squares * (squares + n * (n + 1)) - 2 * n * cubes - n**3) / (n**2 * (n - 1))
    if runs > expected - ORDERED_DEVIATIONS * math.sqrt(max(variance, 0.0)):
        return None
    if in_order and labels.batches:
        ends = np.cumsum(labels.batches)
        within = [_gini(part) * len(part) / n for part in np.split(sequence, ends[:-1])]
        if len(within) > 1 and sum(within) > MIXED_BATCHES * _gini(sequence):
            return None
    return runs, expected


def _gini(sequence: np.ndarray) -> float:
    shares = np.unique(sequence, return_counts=True)[1] / max(len(sequence), 1)
    return 1 - float((shares**2).sum())


@register_rule("batch_norm_lag")
def find_batch_norm_lag(evidence: Evidence) -> Iterator[Finding]:
    r"""Finds batch normalizations whose averages still hold much of what they started from when training ends.

    After t steps a moving average with momentum m is $m^t$ of its start (mean 0, variance 1) and $1 - m^t$ of what the
    batches had, which can be computed back. Where a tenth or more of the start remains after all steps, and inference
    would divide by twice or half of what training does, or shift by one standard deviation, in the median unit, it is a
    warning; beyond ten and three an error. Fewer than ten steps are a trial, and are not judged. Only layers that are
    known to have started there are judged: those of a run, or whose averages agree with what a probe reads.
    """
    task = evidence.task
    if task is None:
        return
    done = evidence.reports[-1].step + int(evidence.is_run)
    steps = max(task.steps or 0, done) if evidence.is_run else done
    if done < 2 or steps < FEWEST_STEPS:
        return
    for call in task.model.graph:
        layer = call.layer
        if not isinstance(layer, keras.layers.BatchNormalization) or not layer.trainable or not layer.built:
            continue
        remains = layer.momentum**steps
        if remains < LAGGING_FRACTION or (task.fresh is not None and call.path not in task.fresh):
            continue
        judged = _judge_lag(layer, done, remains)
        if judged is None or (task.fresh is None and not _agrees(evidence, call.path, judged[2])):
            continue
        factor, shift, _ = judged
        if 1 / LAG < factor < LAG and shift < 1:
            continue
        momentum = max(0.0, math.floor(100 * 0.01 ** (1 / steps)) / 100)
        grave = not 1 / GRAVE_LAG < factor < GRAVE_LAG or shift > 3
        yield Finding(
            "batch_norm_lag",
            call.path,
            evidence.reports[-1].step,
            "error" if grave else "warning",
            {"momentum": layer.momentum, "steps": steps, "remains": remains, "factor": factor, "healthy": "below 0.1"},
            write_remedy(
                f"Train for more steps, or let the averages follow faster, here with momentum {momentum:g}",
                f"{layer_code(task.model.model, call.path)}.momentum = {momentum:g}",
                *([] if task.model.is_by_hand else ["model.compile(model.optimizer, model.loss)"]),
            ),
            message=f"After {steps} steps the averages of {call.path} (momentum {layer.momentum:g}) are still "
            f"{remains:.0%} what they started from: inference divides by {factor:.3g} times what training divides by"
            + (f" and is {shift:.2g} standard deviations off." if shift >= 1 else "."),
        )


def _judge_lag(layer: keras.layers.BatchNormalization, done: int, remains: float) -> tuple[float, float, float] | None:
    """Returns by what inference is off when training ends, as a factor and a shift, and the batches' mean square."""
    start = layer.momentum**done
    moving = to_numpy(layer.moving_mean.value).astype("float64"), to_numpy(layer.moving_variance.value)
    mean = moving[0] / (1 - start)
    variance = (moving[1] - start) / (1 - start)
    if not np.isfinite(mean).all() or not (variance > -1e-3).all():
        return None  # it did not start from 0 and 1
    variance = np.maximum(variance, 0) + layer.epsilon
    factors = np.sqrt((remains + (1 - remains) * variance) / variance)
    shifts = np.abs(remains * mean) / np.sqrt(variance)
    return float(np.median(factors)), float(np.median(shifts)), float(np.mean(variance + mean**2))


def _agrees(evidence: Evidence, path: str, mean_square: float) -> bool:
    reading = evidence.last.get(path)
    read = None if reading is None else reading.moments("input")
    return read is not None and read.nonfinite == 0 and 1 / 3 < mean_square / max(read.mean_square, 1e-30) < 3
