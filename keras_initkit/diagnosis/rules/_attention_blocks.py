"""Rules for how attention is built into its model: residual sums, positions, and kernels that train."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import keras

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding
from keras_initkit.diagnosis._readings import is_zero
from keras_initkit.diagnosis._rule_registry import register_rule
from keras_initkit.diagnosis.context._model_context import ModelContext
from keras_initkit.diagnosis.rules._advice import BY_HAND
from keras_initkit.diagnosis.rules._attention_advice import add_positions
from keras_initkit.diagnosis.task._task_remedies import layer_code, recompile_code, write_remedy
from keras_initkit.statistics._moments import Moments
from keras_initkit.structure._attention_inputs import kernels_before
from keras_initkit.structure._attentions import Attention
from keras_initkit.structure._layer_paths import held_weights
from keras_initkit.theory._thresholds import NO_DEPENDENCE


@register_rule("residual_lost")
def find_lost_residuals(evidence: Evidence) -> Iterator[Finding]:
    """Finds a block whose input does not reach its output by a sum, though that of the other blocks does.

    Blocks are attentions whose queries are positions of an input, and groups of kernels of the same shapes as those of
    other residual branches. At least as many blocks of its kind have their sum, or, of a single attention, the
    feed-forward branch that follows it.
    """
    report, model = evidence.reports[-1], evidence.model
    if model is None or not report.attention:
        return
    for path, kind, others in (*_bare_attentions(model, report.attention), *_bare_feed_forward(model)):
        yield Finding(
            "residual_lost",
            path,
            report.step,
            "warning",
            {"block": kind, "others": others, "healthy": "every block has its sum"},
            "Add the block's input x to its output y, in the model's code: `x = keras.layers.Add()([x, y])`.",
            0.9,
            message=f"The input of the {kind} {path} does not reach its output by a sum, as that of {others} other "
            f"block{'s' * (others != 1)} does: signal and gradient have to go through it.",
        )


@register_rule("positions_lost")
def find_lost_positions(evidence: Evidence) -> Iterator[Finding]:
    """Finds models that do not see the order of their tokens.

    The output does not change when tokens change places (and its positions are put back), whatever the weights: there
    is no position table, rotation, mask or convolution between lookup and attention. A causal mask gives positions;
    so a decoder without a table is none. Sets of numbers that are no tokens are left alone. Without labels nothing says
    what the order is for, and it is information.
    """
    report = evidence.reports[-1]
    for row in report.order:
        if row.permuted is None or row.permuted > NO_DEPENDENCE:
            continue
        if row.next_tokens and row.future is not None and row.future > NO_DEPENDENCE:
            continue  # the causal mask that it lacks would give positions
        reading = next((each for each in report.attention if row.input in each.queries_from), None)
        yield Finding(
            "positions_lost",
            reading.layer if reading else row.input,
            report.step,
            "info" if report.loss is None and not evidence.is_run else "warning",
            {"change_by_order": row.permuted, "healthy": "above 0.01"},
            f"Add a table of positions to the embeddings x, in the model's code: {add_positions(row, reading)}. If "
            "order means nothing (a set of items), leave it.",
            0.9,
            message=f"The output does not change when the tokens of {row.input} change places: nothing between their "
            "lookup and the attention depends on position.",
        )


@register_rule("query_key_frozen", causes=("collapsed_attention",))
def find_frozen_scores(evidence: Evidence) -> Iterator[Finding]:
    """Finds attention whose queries or keys do not train while its values do.

    The kernels of the queries or of the keys are not trainable though that of the values is, or the gradients of both
    are exactly 0 (missing) and the values' is not. Where one of them is a kernel of zeros the other's is 0 at first.
    """
    report, model = evidence.reports[-1], evidence.model
    if model is None or not report.attention:
        return
    gradients = _weight_gradients(evidence)
    for attention in model.attentions:
        query, key, value = (
            kernels_before(model.calls, each) for each in (attention.query, attention.key, attention.value)
        )
        rows = [each for each in report.attention if each.layer == attention.path]
        if not (query.variables and key.variables and value.variables) or not rows or not rows[0].uniform_entropy > 0:
            continue
        if not any(each.trainable for each in value.variables):
            continue
        sides = (("query", query), ("key", key))
        held = [name for name, each in sides if not any(v.trainable for v in each.variables)]
        still = [name for name, each in sides if all(_is_still(v, gradients) for v in each.variables)]
        moves = not all(_is_still(each, gradients) for each in value.variables)
        cut = [name for name, each in sides if each.stopped]
        if held:
            which, reason = held, "not trainable"
        elif gradients and moves and (len(still) == 2 or (still and cut == still)):
            which, reason = still, "0"
        else:
            continue
        names = " and ".join("queries" if name == "query" else "keys" for name in which)
        why = "are not trainable" if held else "have a gradient of 0"
        yield Finding(
            "query_key_frozen",
            attention.path,
            report.step,
            "warning",
            {"gradient": reason, "kernels": ", ".join(which), "healthy": "trains as the values do"},
            _let_train(evidence, {id(v) for name in which for v in dict(sides)[name].variables}, held, cut),
            message=f"The kernels of the {names} of {attention.path} {why}, while its values train: what it looks at "
            "stays as it was drawn.",
        )


def _let_train(evidence: Evidence, kernels: set[int], held: Sequence[str], cut: Sequence[str]) -> str:
    """Returns the remedy for kernels of queries and keys that are not trainable, cut off, or zero."""
    assert evidence.model is not None
    model = evidence.model.model
    paths = list(dict.fromkeys(path for path, _, weight in held_weights(model) if id(weight) in kernels))
    if held:
        lines = [f"{code}.trainable = True" for path in paths if (code := layer_code(model, path))]
        return write_remedy("Let them train", *lines, recompile_code(model))
    if cut:
        return f"{BY_HAND}leave out ops.stop_gradient on queries, keys or scores, in the model's code."
    return write_remedy(
        "Draw them, since two kernels of zeros keep each other at 0",
        f'keras_initkit.initialize(model, "glorot_uniform", layers={paths})',
    )


def _bare_attentions(model: ModelContext, rows: Sequence) -> Iterator[tuple[str, str, int]]:
    """Yields attentions outside of residual branches, where others are inside."""
    inside = {(call.path, call.index) for branch in model.branches for call in branch.calls}
    read = {(row.layer, row.call): row for row in rows}
    blocks: list[Attention] = []
    for attention in model.attentions:
        row = read.get((attention.path, attention.index))
        if row is not None and row.queries_from and row.queries > 1:  # one query, or learned ones, gather a summary
            blocks.append(attention)
    bare = [each for each in blocks if (each.product.path, each.product.index) not in inside]
    covered = len(blocks) - len(bare)
    if len(blocks) == 1 and bare:
        covered = len(_feed_forward(model))
    if bare and covered >= len(bare):
        yield from ((each.path, "attention", covered) for each in bare)


def _bare_feed_forward(model: ModelContext) -> Iterator[tuple[str, str, int]]:
    """Yields the first layers of groups of kernels outside of branches, of the shapes of feed-forward branches."""
    branches = _feed_forward(model)
    counts = Counter(tuple(kernel.shape for kernel in branch.kernels) for branch in branches)
    inside = {id(kernel.variable) for branch in model.branches for kernel in branch.kernels}
    for attention in model.attentions:
        for tensor in (attention.query, attention.key, attention.value):
            inside |= {id(variable) for variable in kernels_before(model.calls, tensor).variables}
    outside = [each for each in model.kernels if id(each.kernel.variable) not in inside]
    for shapes, number in counts.items():
        starts = [
            place
            for place in range(len(outside) - len(shapes) + 1)
            if tuple(each.kernel.shape for each in outside[place : place + len(shapes)]) == shapes
        ]
        if starts and number >= len(starts):
            yield from ((outside[place].path, "feed-forward block", number) for place in starts)


def _feed_forward(model: ModelContext) -> list:
    """Returns the residual branches of two kernels or more that no attention is part of."""
    averages = {(each.product.path, each.product.index) for each in model.attentions}
    return [
        branch
        for branch in model.branches
        if len(branch.kernels) > 1 and not averages.intersection((call.path, call.index) for call in branch.calls)
    ]


def _weight_gradients(evidence: Evidence) -> dict[int, Moments | None]:
    """Returns the moments of each weight's gradient by its identity, where gradients were measured."""
    assert evidence.model is not None
    rows = {
        (row.tap.layer, row.tap.name): row.moments
        for row in evidence.reports[-1].rows
        if row.tap.kind == "weight_gradient"
    }
    if not rows:
        return {}
    return {id(weight): rows.get((path, weight.name)) for path, _, weight in held_weights(evidence.model.model)}


def _is_still(variable: keras.Variable, gradients: dict[int, Moments | None]) -> bool:
    moments = gradients.get(id(variable))
    return moments is None or is_zero(moments)
