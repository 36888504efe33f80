"""How the signal flows, guessed from a report alone: of a model that could not be traced, or of rows made by hand."""

from __future__ import annotations

import math
import re

from keras_initkit.report._data import ReportData
from keras_initkit.report._flow import LayerFlow

_NO_KERNELS = re.compile("bias|beta|gamma|alpha|scale|offset|gain|mean|variance|position|embedding|token|state")
_ASIDE = re.compile(
    ".*(Normalization|Activation|ReLU|ELU|Softmax|Pooling[123]D|Dropout([123]D)?|Flatten|Reshape|Permute|Concatenate|"
    "Embedding|Identity|Rescaling|ZeroPadding[123]D|Cropping[123]D|UpSampling[123]D|GaussianNoise|RepeatVector)"
)
_ALIVE = re.compile(".*(Add|Embedding)|" + _ASIDE.pattern.replace("Activation|ReLU|ELU|Softmax|", ""))


def guess_flow(report: ReportData) -> tuple[LayerFlow, ...]:
    """Returns the flow through layers that follow each other in the order of the report.

    What has a matrix of weights and is no normalization or embedding is taken for a kernel (all the others, where no
    weight was measured); the last one and what follows it for the output. A normalization is taken to read the layer
    before it.
    """
    types = {row.tap.layer: row.layer_type for row in report.rows if row.tap.kind != "input_gradient"}
    shapes = {row.tap.layer: row.shape for row in report.rows if row.tap.kind == "output"}
    layers = list(types)
    logits = {row.tap.layer for row in report.rows if row.tap.kind == "pre_activation_gradient"}
    with_kernel = {
        row.tap.layer
        for row in report.rows
        if row.tap.kind == "weight" and len(row.shape or "--") > 1 and not _ASIDE.fullmatch(row.layer_type)
    }
    if not any(row.tap.kind == "weight" for row in report.rows):
        with_kernel = {layer for layer, kind in types.items() if not _ASIDE.fullmatch(kind)}
    places = [place for place, layer in enumerate(layers) if layer in with_kernel]
    last = max(places, default=len(layers) - 1)
    flows, gates = [], 1.0
    for place, layer in enumerate(layers):
        normalized = place + 1 < len(layers) and types[layers[place + 1]].endswith("Normalization")
        judged = layer in with_kernel and not normalized
        gates *= 2.0 ** count_gates(types[layer])
        flows.append(
            LayerFlow(
                layer,
                tuple(layers[max(place - 1, 0) : place]),
                gates if judged and place < last else None,
                math.prod((shapes.get(layer) or ())[1:]) / gates if judged else None,
                by_logits=place >= last and layer in logits,
                can_die=not _ALIVE.fullmatch(types[layer]),
                alive_at_zero=True,
                can_saturate=place < last,
            )
        )
    return tuple(flows)


def count_gates(layer_type: str) -> int:
    """Returns how many gates a recurrent layer's output has come through; each takes half of the variance."""
    return (
        2
        if re.fullmatch(".*LSTM([123]D)?(Cell)?", layer_type)
        else int(re.fullmatch(".*GRU(Cell)?", layer_type) is not None)
    )
