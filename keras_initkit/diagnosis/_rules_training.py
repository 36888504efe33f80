"""Rules for how weights move: too little, too much, or not at all."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding, beyond

TOO_SMALL, TOO_LARGE, FAR_TOO_LARGE = 1e-6, 0.2, 1.0
LEAST_REPORTS = 3


def update_too_small(evidence: Evidence) -> Iterator[Finding]:
    """Steps so small that weights never get anywhere.

    Rule: in every one of three reports or more, the standard deviation of a kernel's update is below a millionth of
    the kernel's, from the first on: a million steps to move by its own size. Every report, since a learning rate may
    warm up; from the first on, since updates of a trained network are small with reason. Sound runs lie near 1e-3.
    """
    ratios = evidence.update_ratios
    slow = {layer: max(r) for layer, r in ratios.items() if len(r) >= LEAST_REPORTS and max(r) < TOO_SMALL}
    slow = {layer: ratio for layer, ratio in slow.items() if ratio > 0}
    if not slow or not evidence.is_initial:
        return
    layer = min(slow, key=slow.__getitem__)
    typical = statistics.median(max(r) for r in ratios.values())
    everywhere = typical < TOO_SMALL
    factor = 1e-3 / typical if typical > 0 else 1e3
    yield Finding(
        "update_too_small",
        layer,
        evidence.reports[0].step,
        "error" if everywhere else "warning",
        {"update_to_weight": slow[layer], "layers": len(slow), "of": len(ratios), "healthy": "1e-4 to 1e-2"},
        f"Raise the learning rate by {factor:.0e}: model.optimizer.learning_rate = "
        f"model.optimizer.learning_rate * {factor:.0e}."
        if everywhere
        else "Only some layers stand still, so the learning rate is not to blame: use an optimizer that scales each "
        "weight's step, keras.optimizers.Adam(1e-3), and look for what weakens their gradient.",
        beyond(slow[layer], TOO_SMALL),
    )


def update_too_large(evidence: Evidence) -> Iterator[Finding]:
    """Steps of the size of the weights themselves.

    Rule: the standard deviation of a kernel's update exceeds the kernel's own (one step replaces what was drawn), or,
    in the median over three reports or more, a fifth of it. Sound runs lie near 1e-3; the first steps of Adam, which
    are as large as its learning rate whatever the gradient, at up to 0.1. Kernels that start near 0 are left out
    until they have grown.
    """
    ratios = evidence.update_ratios
    lasting = {layer: statistics.median(r) for layer, r in ratios.items() if len(r) >= LEAST_REPORTS}
    large = {layer: ratio for layer, ratio in lasting.items() if ratio > TOO_LARGE}
    large |= {layer: max(r) for layer, r in ratios.items() if r and max(r) > FAR_TOO_LARGE}
    if not large:
        return
    layer = max(large, key=large.__getitem__)
    step = next(
        report.step
        for report, readings in zip(evidence.reports, evidence.readings, strict=True)
        if layer in readings and (readings[layer].update_ratio or 0) > TOO_LARGE
    )
    factor = 1e-3 / large[layer]
    yield Finding(
        "update_too_large",
        layer,
        step,
        "error" if large[layer] > FAR_TOO_LARGE else "warning",
        {"update_to_weight": large[layer], "layers": len(large), "of": len(ratios), "healthy": "1e-4 to 1e-2"},
        f"Multiply the learning rate by {factor:.0e}: model.optimizer.learning_rate = model.optimizer.learning_rate * "
        f"{factor:.0e}; or clip gradients: global_clipnorm=1.0.",
        beyond(large[layer], TOO_LARGE),
    )


def frozen_weights(evidence: Evidence) -> Iterator[Finding]:
    """Trainable weights that the loss does not depend on.

    Rule: a trainable kernel without a gradient, or with one of exactly 0 in all its elements, in every report.
    Exactly 0 in one probe is not enough inside a residual branch, or below a kernel of 0, where the first step mends
    it. Weights that are not trainable are frozen on purpose.
    """
    zero_kernel = any(reading.weight is not None and reading.weight.m2 == 0 for reading in evidence.first.values())
    one_report = len(evidence.reports) == 1
    for layer, reading in evidence.last.items():
        if not reading.has_kernel or reading.weight is None or layer not in evidence.trainable:
            continue
        gradients = [r[layer].weight_gradient for r in evidence.readings if layer in r]
        missing = all(gradient is None for gradient in gradients)
        zero = all(gradient is not None and gradient.zeros == gradient.count for gradient in gradients)
        if missing and any(reading.weight_gradient for reading in evidence.last.values()):
            reason = "none"
        elif zero and not (one_report and (zero_kernel or layer in evidence.scale_free)):
            reason = "0"
        else:
            continue
        yield Finding(
            "frozen_weights",
            layer,
            evidence.reports[0].step,
            "warning",
            {"gradient": reason, "reports": len(evidence.reports), "healthy": "not 0"},
            "Connect it: nothing between it and the loss may be stop_gradient, an integer or a comparison, and its "
            f'output has to be used. If it is to stay as it is: model.get_layer("{layer}").trainable = False.',
        )
