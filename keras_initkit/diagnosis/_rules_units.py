"""Rules for units that say nothing: dead, saturated, all alike, or a whole output that is constant."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import stats

from keras_initkit.diagnosis._evidence import Evidence, Reading
from keras_initkit.diagnosis._finding import Finding, beyond
from keras_initkit.statistics._moments import Moments
from keras_initkit.structure._layer_kinds import is_embedding, passes_through

DEAD_SHARE, DEAD_SURPRISE = 0.5, 1e-3
FAINT = 1e-72  # mean square: products with weights of 0.01 leave float32's normal numbers, and are taken for 0
SATURATED_SHARE = 0.5
# Relative to the largest. Rounding parts equal units: 37 of them before relu, whose gradients are
# summed in lanes of another number, by 4e-7 after an epoch and 2e-6 after three, before it grows to 2e-2 after ten.
ALIKE = 1e-4


def is_constant(moments: Moments) -> bool:
    """Whether all elements are one value, up to rounding."""
    return moments.maximum - moments.minimum <= ALIKE * max(abs(moments.maximum), abs(moments.minimum))


def dead_units(evidence: Evidence) -> Iterator[Finding]:
    """Units that are zero for every example, of the last three measured batches together.

    Rule: more than half of a layer's units are dead, by a binomial test at 0.1 %. Half, because a unit whose weights
    are drawn around 0 is as likely negative as positive: even if all examples look alike to it, it is dead with
    probability 1/2 and no more. An error where at most one unit in 20 is left. Not behind a signal so faint that its
    products are zeros in float32, of which `vanishing_activation` speaks.
    """
    faint = _faint(evidence)
    for layer, share in evidence.lasting("dead_units").items():
        if share <= DEAD_SHARE or layer in faint or _is_linear(evidence, layer):
            continue
        reading = evidence.last.get(layer) or evidence.first[layer]
        if reading.weight is not None and reading.weight.nonfinite:  # relu of NaN is 0, and `nonfinite` says so
            continue
        units = _units(evidence, reading)
        chance = float(stats.binom.sf(round(share * units) - 1, units, DEAD_SHARE))
        all_dead = share == 1.0
        if not all_dead and chance >= DEAD_SURPRISE:
            continue
        yield Finding(
            "dead_units",
            layer,
            _first_step(evidence, layer, "dead_units", share),
            "error" if share >= 0.95 else "warning",
            {"dead_units": share, "units": units, "p_value": chance, "healthy": "half or fewer"},
            "Draw the layer anew with bias 0, "
            f'keras_initkit.initialize(model, "reset", layers="{layer}"), and lower the learning rate; '
            'or use an activation that is never flat: activation="leaky_relu".',
            1.0 if all_dead else 1 - chance,
        )


def _faint(evidence: Evidence) -> set[str]:
    """The layers behind the first that puts out next to nothing, and not just nothing."""
    readings = evidence.last or evidence.first
    for place, reading in enumerate(readings.values()):
        if reading.output is not None and 0 < reading.output.mean_square < FAINT:
            return set(list(readings)[place + 1 :])
    return set()


def saturated_units(evidence: Evidence) -> Iterator[Finding]:
    """Hidden units at an end of their activation's range for nearly every example, in the last three batches.

    Rule: more than half of a hidden layer's units (`theory` and `signal.units` say when one is saturated). A unit with
    pre-activation N(0, s^2) over the examples reaches 95 % of examples beyond 99 % of tanh's range only if s > 40, or
    its mean lies far out: no sound scale comes near. An output layer is left out: a classifier that is sure saturates.
    """
    for layer, share in evidence.lasting("saturated_units").items():
        reading = evidence.last.get(layer) or evidence.first[layer]
        if layer in evidence.outputs or share <= SATURATED_SHARE or _half_open(reading):
            continue
        yield Finding(
            "saturated_units",
            layer,
            _first_step(evidence, layer, "saturated_units", share),
            "error" if share >= 0.95 else "warning",
            {"saturated_units": share, "healthy": "fewer than 0.1 at initialization"},
            "Scale what the layer reads to unit variance: "
            f'keras_initkit.initialize(model, "lsuv", x, layers="{layer}"), and '
            "put keras.layers.LayerNormalization() before it if it saturates again.",
            beyond(share, SATURATED_SHARE) if share < 1 else 1.0,
        )


def symmetric_units(evidence: Evidence) -> Iterator[Finding]:
    """Units of a hidden layer that compute the same thing, because their weights are the same.

    Rule: all columns of a kernel are equal to 1e-6 of its largest element, as a zero or constant initializer leaves
    them. Equal units get equal gradients, so they stay equal. Output layers, residual branches (whose last kernel may
    start at 0 on purpose) and kernels that no known activation follows are left out. Without the model, a kernel of
    variance exactly 0.
    """
    for layer in _symmetric_layers(evidence):
        yield Finding(
            "symmetric_units",
            layer,
            evidence.reports[0].step,
            "error",
            {"distinct_units": 1, "healthy": "as many as units"},
            'Draw it at random: kernel_initializer="he_normal" (before relu) or "glorot_uniform" (before tanh); in '
            f'place, keras_initkit.initialize(model, "he_normal", layers="{layer}").',
        )


def _symmetric_layers(evidence: Evidence) -> Iterator[str]:
    if evidence.structure is None:
        names = list(evidence.first)
        for layer, reading in evidence.first.items():
            rows = [row for row in reading.rows.get("weight", []) if row.shape and len(row.shape) > 1]
            if layer != names[-1] and any(row.moments.m2 == 0 and row.moments.count > 1 for row in rows):
                yield layer
        return
    found = set()
    for placed in evidence.structure.kernels:
        weight = evidence.first[placed.path].weight if placed.path in evidence.first else None
        if evidence.is_run and weight is not None and weight.m2 > 0:  # weights of today are not those of then
            continue
        skipped = placed.is_output or placed.in_branch or placed.kernel.role in ("embedding", "depthwise", "unknown")
        if skipped or placed.path in found or not placed.following.certain:
            continue
        columns = placed.columns
        if (columns.shape[1] > 1 and _alike(columns)) or (weight is not None and evidence.is_run and weight.m2 == 0):
            found.add(placed.path)
            yield placed.path


def _alike(columns: np.ndarray) -> bool:
    scale = np.abs(columns).max(initial=0.0)
    return bool(np.isfinite(scale) and np.abs(columns - columns[:, :1]).max(initial=0.0) <= ALIKE * scale)


def constant_output(evidence: Evidence) -> Iterator[Finding]:
    """An output that does not depend on the data and never will.

    Rule: a softmax over one unit (which is 1 whatever comes in), or an output without any variance whose kernel gets a
    gradient of exactly 0. A zero kernel at the output also makes it constant, but gets a gradient, and is sound.
    """
    last = evidence.last
    heads = {call.path for call in evidence.structure.heads} if evidence.structure else {list(last)[-1]}
    for layer in heads & set(last):
        reading = last[layer]
        output, gradient = reading.output, reading.weight_gradient
        if output is None or output.nonfinite or output.count < 2:
            continue
        ones = _is_softmax_over_one_unit(evidence, reading)
        stuck = is_constant(output) and gradient is not None and gradient.zeros == gradient.count
        if not ones and not stuck:
            continue
        yield Finding(
            "constant_output",
            layer,
            evidence.reports[-1].step,
            "error",
            {"output": output.mean, "variance": 0.0, "healthy": "depends on the example"},
            'For two classes: keras.layers.Dense(1, "sigmoid") with loss="binary_crossentropy"; for k classes '
            'keras.layers.Dense(k, "softmax").'
            if ones
            else 'Give the output a linear activation (or "sigmoid", "softmax") and draw it anew: '
            f'keras_initkit.initialize(model, "reset", layers="{layer}").',
        )


def _is_softmax_over_one_unit(evidence: Evidence, reading: Reading) -> bool:
    """Whether an output is 1 for every input; of a bare report, whether it is one unit that is 1 up to rounding."""
    if evidence.structure is None:
        output = reading.output
        return reading.units in (1, None) and is_constant(output) and abs(output.maximum - 1) <= ALIKE
    call = next(call for call in evidence.structure.heads if call.path == reading.layer)
    name = getattr(getattr(call.layer, "activation", None), "__name__", type(call.layer).__name__.lower())
    axis = getattr(call.layer, "axis", -1)
    return name == "softmax" and isinstance(axis, int) and call.outputs[0].shape[axis] == 1


def _units(evidence: Evidence, reading: Reading) -> int:
    if reading.units:
        return reading.units
    if evidence.structure is not None:
        counts = [p.units for p in evidence.structure.kernels if p.path == reading.layer]
        if counts:
            return counts[-1]
    return 10  # not known: few, so that the test asks for more


def _is_linear(evidence: Evidence, layer: str) -> bool:
    """Whether zeros are no death: what is linear is 0 where its kernel or its input is, and lets gradients pass."""
    reading = evidence.last.get(layer) or evidence.first[layer]
    if evidence.structure is not None:
        return not evidence.structure.bends(layer)
    weights = reading.rows.get("weight", [])
    zero = any(row.moments.zeros == row.moments.count and len(row.shape or "--") > 1 for row in weights)
    kind = reading.layer_type
    return zero or kind == "Add" or is_embedding(kind) or passes_through(kind)


def _half_open(reading: Reading) -> bool:
    """Whether the lower end is 0 and the upper one beyond 1, as in relu6: units at 0 are dead instead."""
    output = reading.output
    return output is not None and output.minimum == 0.0 and output.maximum > 1.0


def _first_step(evidence: Evidence, layer: str, name: str, share: float) -> int:
    """The first step at which the share was what lasts."""
    for report, readings in zip(evidence.reports, evidence.readings, strict=True):
        if layer in readings and (readings[layer].share(name) or 0.0) >= share:
            return report.step
    return evidence.reports[-1].step
