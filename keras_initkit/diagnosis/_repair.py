"""repair(): re-initializes the layers whose initialization is at fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit.capture._probe import probe
from keras_initkit.diagnosis._finding import Finding
from keras_initkit.diagnosis._judge import diagnose_model
from keras_initkit.diagnosis._readings import is_constant
from keras_initkit.inputs._data_argument import unpack_data
from keras_initkit.report._report import SignalReport
from keras_initkit.schemes import initialize
from keras_initkit.statistics._moments import Moments
from keras_initkit.structure import weighted_layers
from keras_initkit.structure._calls import calls
from keras_initkit.structure._following import following_activations
from keras_initkit.structure._kernels import kernels_by_layer
from keras_initkit.structure._weights import own_weights
from keras_initkit.theory._thresholds import SMALLEST_NORMAL

# Faults of a layer's own weights. The rest asks for other data, another architecture or another rate.
REPAIRABLE = (
    "symmetric_units",
    "wrong_fans",
    "initializer_mismatch",
    "exploding_activation",
    "vanishing_activation",
    "saturated_units",
    "dead_units",
    "exploding_gradient",
    "vanishing_gradient",
    "rank_collapse",
    "nonfinite",
)
_BY_BIAS = ("dead_units", "saturated_units")  # a bias can cause these as well as a kernel
# Facts about a layer's own weights, whatever else explains what the layer does with its signal.
_OWN = ("symmetric_units", "wrong_fans", "initializer_mismatch")


def repair(
    model: keras.Model,
    findings: Sequence[Finding],
    x: Any = None,
    y: Any = None,
    *,
    loss: Any = None,
    data: Any = None,
) -> SignalReport:
    """Re-initializes the faulty layers in place; healthy layers keep their weights.

    A layer that a finding names as a root cause gets its kernels by `initialize(model, "auto", layers=...)` and its
    biases by its own initializers, or zeros if its units are dead or saturated; a normalization gets a scale of one and
    an offset of zero. If the finding names a layer without weights, the layers before it are re-initialized. Then the
    model is diagnosed again, since one fault can hide another; a layer that is named again is scaled on the data, by
    `"lsuv"`. Among findings that are mere information, only wrong fans are repaired. A head of zeros is re-initialized
    only behind layers of zeros.

    The architecture, the optimizer and the data stay unchanged: findings that ask for one of these
    (`unscaled_input`, `update_too_large`, ...) are listed in the report's notes with their remedies. Whatever the
    re-initialized layers had learned is lost.

    Args:
        model: A built Keras model.
        findings: Sequence of `Finding`. What `diagnose` found in the model.
        x: Inputs, as the model takes them. Without them no layer is scaled on data.
        y: Labels, as `keras_initkit.probe` takes them.
        loss: The loss of the labels, as `compile` takes it. `None` uses the loss that the model is compiled with.
        data: Deprecated. Inputs, or the pair of inputs and labels; write `x` and `y` instead.

    Returns:
        `SignalReport`: the probe of the model afterwards; its notes begin with what was done.

    Raises:
        ValueError: If `model` is not a model, `findings` are not findings, a finding names a layer that the model
            does not have, or the data does not fit.

    Example:

    >>> from keras import layers
    >>> from keras_initkit import diagnose
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([keras.Input((50,)), layers.Dense(80, "relu", kernel_initializer="zeros", name="a"),
    ...     layers.Dense(2, name="b")])
    >>> report = repair(model, diagnose(model))
    >>> print(report.notes[0])
    repair: a/kernel re-initialized for symmetric_units: own relu (standard deviation 0 -> 0.202)
    >>> diagnose(report, model=model)
    <Findings: nothing is wrong>

    References:
        - Kaiming He et al. (2015), "Delving deep into rectifiers", https://arxiv.org/abs/1502.01852
        - Dmytro Mishkin and Jiri Matas (2016), "All you need is a good init", https://arxiv.org/abs/1511.06422
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"model: got {type(model).__name__}, expected a keras.Model. The order is repair(model, findings, x, y)."
        )
    if not isinstance(findings, Sequence) or not all(isinstance(each, Finding) for each in findings):
        raise ValueError(
            f"findings: got {type(findings).__name__}, expected what diagnose(model) returns, a list of Finding."
        )
    x, y = unpack_data("repair(model, findings", model, x, y, data)
    known = weighted_layers(model)
    notes: list[str] = []
    drawn: set[str] = set()
    scaled: set[str] = set()
    current = findings
    while True:  # a fault that another had hidden shows now; each layer is re-initialized once and scaled once
        wanted = _find_layers(model, current)
        # Whatever else is wrong with a layer, its bias may be to blame where units are dead or saturated.
        flat = {path for each in current if each.kind in _BY_BIAS for path in _find_weighted(model, each)}
        fresh = {path: kind for path, kind in wanted.items() if path not in drawn}
        again = {path: kind for path, kind in wanted.items() if path in drawn - scaled}
        if fresh:
            notes += _initialize(model, known, fresh, "auto", None, flat)
        elif again and x is not None:
            notes += _initialize(model, known, again, "lsuv", x, flat)
            scaled |= set(again)
        else:
            break
        drawn |= set(fresh)
        current = diagnose_model(model, x, y, loss)
    if not notes:
        notes.append("repair: nothing was changed; none of the findings is about initialization.")
    for finding in findings:
        if finding.kind not in REPAIRABLE and not finding.consequence_of:
            notes.append(f"repair: {finding.kind} in {finding.layer} is left to you. {finding.remedy}")
    report = probe(model, x, y, loss=loss)
    return replace(report, notes=(*notes, *report.notes))


def _find_layers(model: keras.Model, findings: Sequence[Finding]) -> dict[str, str]:
    """The layers to re-initialize, each with the kind of finding that asks for it."""
    wanted: dict[str, str] = {}
    for finding in findings:
        # Information asks for nothing, but wrong fans are a fact at any factor.
        asks = finding.severity != "info" or finding.kind == "wrong_fans"
        if finding.kind == "nonfinite":
            for path in _find_nonfinite(model):
                wanted.setdefault(path, finding.kind)
        elif finding.kind in (REPAIRABLE if not finding.consequence_of else _OWN) and asks:
            for path in _find_weighted(model, finding):
                wanted.setdefault(path, finding.kind)
            if finding.kind == "symmetric_units":
                for path in _find_constant(model, finding.layer):
                    wanted.setdefault(path, finding.kind)
    return wanted


def _find_constant(model: keras.Model, beside: str) -> list[str]:
    """Layers with a constant kernel, like the layer at path `beside`.

    Zeros may be intended at the end of a residual branch or in a head, but not in a head behind layers of zeros.
    """
    constants: dict[str, float] = {}
    for path, held in kernels_by_layer(model).items():
        for values in (to_numpy(kernel.variable) for kernel in held):
            if values.size > 1 and is_constant(Moments.from_array(values)):
                constants[path] = max(constants.get(path, 0.0), float(np.abs(values).max()))
    following = following_activations(model)
    zeros = constants.get(beside, 1.0) < SMALLEST_NORMAL
    heads = {path for path in constants if path in following and following[path].where == "output"}
    return [path for path, constant in constants.items() if constant >= SMALLEST_NORMAL or (zeros and path in heads)]


def _find_nonfinite(model: keras.Model) -> list[str]:
    """Layers with a weight that is not finite."""
    return [
        path
        for path, layer in weighted_layers(model).items()
        if not all(np.isfinite(to_numpy(weight)).all() for weight in own_weights(layer))
    ]


def _find_weighted(model: keras.Model, finding: Finding) -> list[str]:
    """The finding's layer, or, if it has no weights, those before it back to the nearest kernels."""
    known = weighted_layers(model)
    if finding.layer in known:
        return [finding.layer]
    graph = calls(model)
    if finding.layer not in {call.path for call in graph}:
        raise ValueError(
            f"findings: {finding.kind} names layer {finding.layer!r}, which {model.name!r} does not have. Repair the "
            "model that was diagnosed."
        )
    with_kernel = kernels_by_layer(model)
    makers = {tensor.number: call for call in graph for tensor in call.outputs if call.path != "model"}
    ahead = [tensor.number for call in graph if call.path == finding.layer for tensor in call.inputs]
    found: dict[str, None] = {}
    while ahead:
        call = makers.get(ahead.pop())
        if call is None:
            continue
        if call.path in known:
            found[call.path] = None
        if call.path not in with_kernel:
            ahead += [tensor.number for tensor in call.inputs]
    return list(found)


def _initialize(
    model: keras.Model,
    known: dict[str, keras.layers.Layer],
    wanted: dict[str, str],
    scheme: str,
    x: Any,
    flat: set[str],
) -> list[str]:
    """Re-initializes the layers, sets the biases of those in `flat` to zero, and returns notes on what was done."""
    notes = []
    with_kernel = [path for path in wanted if path in kernels_by_layer(model)]
    if with_kernel:
        report = initialize(model, scheme, x, layers=lambda layer: any(layer is known[path] for path in with_kernel))
        verb = "re-initialized" if scheme == "auto" else "scaled on the data"
        for change in report.kernels:
            if change.layer in with_kernel:
                done = f"unchanged ({change.skipped})" if change.skipped else f"{verb} for {wanted[change.layer]}"
                about = f": {change.note}" if change.note else ""
                sizes = f"standard deviation {change.stddev_before:.3g} -> {change.stddev_after:.3g}"
                notes.append(f"repair: {change.layer}/{change.name} {done}{about} ({sizes})")
    for path, kind in wanted.items():
        layer = known[path]
        for holder in (layer, getattr(layer, "cell", None)):
            bias = getattr(holder, "bias", None)
            if bias is not None and path in flat and path in with_kernel:
                bias.assign(_plain_bias(holder))
                notes.append(f"repair: {path}/{bias.name} set to zero: units are dead or saturated")
        if path not in with_kernel:
            for name, value in (("gamma", np.ones), ("beta", np.zeros)):
                weight = getattr(layer, name, None)
                if weight is not None:
                    weight.assign(value(tuple(weight.shape)))
                    notes.append(f"repair: {path}/{name} set to {'one' if name == 'gamma' else 'zero'} for {kind}")
    return notes


def _plain_bias(holder: Any) -> np.ndarray:
    """Zeros, except for the forget gate of an LSTM with `unit_forget_bias`: input, forget, cell, output."""
    values = np.zeros(tuple(holder.bias.shape))
    if getattr(holder, "unit_forget_bias", False):
        units = values.shape[-1] // 4
        values[..., units : 2 * units] = 1
    return values
