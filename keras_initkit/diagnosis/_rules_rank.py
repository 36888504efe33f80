"""Rule for a signal that loses its rank, so that all examples look alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_initkit.diagnosis._evidence import Evidence, Reading, suffix
from keras_initkit.diagnosis._finding import Finding, beyond
from keras_initkit.diagnosis._rules_units import ALIKE
from keras_initkit.statistics._host import effective_rank

RANK, RANK_BEFORE = 1.2, 4.0


def rank_collapse(evidence: Evidence) -> Iterator[Finding]:
    """Outputs that are the same for all examples, so that no later layer can tell them apart.

    Rule: from some hidden layer of four units or more on, the effective rank of every output is below 1.2, while it is
    above 4 at the first: what the examples differ in is then less than a few percent of what they share. Only a probe
    measures it. Or, before training, a hidden kernel of four inputs and four units or more has an effective rank
    below 1.2 by itself, without being the same for all units.
    """
    for layer, of_kernel in _flat_kernels(evidence):
        yield Finding(
            "rank_collapse",
            layer,
            evidence.reports[0].step,
            "error",
            {"effective_rank_of_kernel": of_kernel, "healthy": "near the smaller of inputs and units"},
            'Draw it anew: kernel_initializer="orthogonal" has full rank; in place, '
            f'keras_initkit.initialize(model, "orthogonal", layers="{layer}").',
            beyond(max(of_kernel - 1, 1e-9), RANK - 1),
        )
    ranks = {
        layer: rank
        for layer, reading in evidence.last.items()
        if (rank := reading.rank) is not None and (reading.units or 0) >= 4
    }
    outputs = evidence.outputs
    hidden = [layer for layer in ranks if layer not in outputs]
    if not hidden or ranks[hidden[0]] < RANK_BEFORE:
        return
    collapsed = suffix(hidden, [layer for layer in hidden if ranks[layer] < RANK])
    if collapsed:
        yield Finding(
            "rank_collapse",
            collapsed[0],
            evidence.reports[-1].step,
            "warning",
            {"effective_rank": ranks[collapsed[0]], "first_layer": ranks[hidden[0]], "healthy": "above 2"},
            'Draw kernels that keep directions apart, kernel_initializer="orthogonal", or give layers a way around: '
            "x = keras.layers.Add()([x, block(x)]); batch normalization takes out what examples share.",
            beyond(max(ranks[collapsed[0]] - 1, 1e-9), RANK - 1),
        )


def is_collapsed(reading: Reading) -> bool:
    """Whether an output is the same for all examples, but for its size."""
    return reading.rank is not None and reading.rank < RANK and (reading.units or 0) >= 4


def _flat_kernels(evidence: Evidence) -> Iterator[tuple[str, float]]:
    """Kernels that let one direction through, by their layer."""
    if evidence.structure is None or not evidence.is_initial or len(evidence.reports) > 1:
        return
    for placed in evidence.structure.kernels:
        columns = placed.columns
        if placed.kernel.role in ("embedding", "depthwise") or placed.is_output or min(columns.shape) < 4:
            continue
        if not np.isfinite(columns).all() or _least_rank(columns) > RANK:
            continue
        rank = effective_rank(columns)
        if rank is not None and 0 < rank < RANK and np.ptp(columns, axis=1).max() > ALIKE * np.abs(columns).max():
            yield placed.path, rank


def _least_rank(matrix: np.ndarray) -> float:
    r"""What the effective rank is no less than, from one product.

        (sum s^2)^2 / sum s^4 <= exp(H(s^2 / sum s^2)) <= exp(H(s / sum s)),    s the singular values

    Source: Renyi's entropy falls with its order; the more a distribution is sharpened, the less is its entropy.
    """
    scale = np.abs(matrix).max(initial=0.0)
    if scale == 0:
        return 0.0
    x = (matrix / scale).astype("float32")
    gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
    return float(np.trace(gram, dtype="float64") ** 2 / np.square(gram, dtype="float64").sum())
