"""The rule for a signal that loses its rank: all examples look alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding, confidence_beyond
from keras_initkit.diagnosis._readings import LayerReading, take_suffix
from keras_initkit.diagnosis._rule_registry import SCALE_CAUSES, register_rule
from keras_initkit.diagnosis.rules._equal_units import has_equal_columns
from keras_initkit.statistics._host import effective_rank
from keras_initkit.theory._thresholds import COLLAPSED_RANK, FULL_RANK, RANKED_UNITS

_PROBES = 16
_SURELY_ENOUGH = 40 * COLLAPSED_RANK  # estimated ranks beyond need no exact one


@register_rule(
    "rank_collapse",
    causes=(*SCALE_CAUSES, "symmetric_units", "vanishing_activation", "saturated_units", "dead_units"),
)
def find_rank_collapse(evidence: Evidence) -> Iterator[Finding]:
    """Finds outputs that are the same for all examples, which no later layer can then distinguish.

    From some hidden layer of four units or more on, the effective rank of every output is below 1.2, while it is
    above 4 at the first: what examples differ in is then a few percent of what they share. Only a probe
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
            'Re-initialize it: `kernel_initializer="orthogonal"` has full rank; in place, '
            f'`keras_initkit.initialize(model, "orthogonal", layers="{layer}")`.',
            confidence_beyond(max(of_kernel - 1, 1e-9), COLLAPSED_RANK - 1),
            message=f"The kernel of {layer} lets a single direction through: its effective rank is {of_kernel:.3g}.",
        )
    ranks = {
        layer: rank
        for layer, reading in evidence.last.items()
        if (rank := reading.rank) is not None and (reading.units or 0) >= RANKED_UNITS
    }
    outputs = evidence.outputs
    hidden = [layer for layer in ranks if layer not in outputs]
    if not hidden or ranks[hidden[0]] < FULL_RANK:
        return
    collapsed = take_suffix(hidden, [layer for layer in hidden if ranks[layer] < COLLAPSED_RANK])
    if collapsed:
        yield Finding(
            "rank_collapse",
            collapsed[0],
            evidence.reports[-1].step,
            "warning",
            {"effective_rank": ranks[collapsed[0]], "first_layer": ranks[hidden[0]], "healthy": "above 2"},
            'Use kernels that keep directions apart, `kernel_initializer="orthogonal"`, or give layers a way around: '
            "`x = keras.layers.Add()([x, block(x)])`; batch normalization takes out what examples share.",
            confidence_beyond(max(ranks[collapsed[0]] - 1, 1e-9), COLLAPSED_RANK - 1),
            message=f"From {collapsed[0]} on all examples look alike: the effective rank of its output is "
            f"{ranks[collapsed[0]]:.3g}, that of the first layer's {ranks[hidden[0]]:.3g}; above 2 is healthy.",
        )


def is_collapsed(reading: LayerReading) -> bool:
    """Whether an output is the same for all examples, but for its size."""
    return reading.rank is not None and reading.rank < COLLAPSED_RANK and (reading.units or 0) >= RANKED_UNITS


def _flat_kernels(evidence: Evidence) -> Iterator[tuple[str, float]]:
    """Kernels that let one direction through, by their layer."""
    if evidence.model is None or not evidence.is_initial or len(evidence.reports) > 1:
        return
    for context in evidence.model.kernels:
        if context.kernel.role in ("embedding", "depthwise") or context.is_output:
            continue
        columns = context.columns
        if min(columns.shape) < RANKED_UNITS or _estimate_rank(columns) > _SURELY_ENOUGH:
            continue
        rank = effective_rank(columns) if np.isfinite(columns).all() else None
        if rank is not None and 0 < rank < COLLAPSED_RANK and not has_equal_columns(columns):
            yield context.path, rank


def _estimate_rank(matrix: np.ndarray) -> float:
    r"""Estimates $(\sum s^2)^2 / \sum s^4$ of the singular values $s$, a lower bound of the effective rank.

    $(\sum s^2)^2 / \sum s^4 \le \exp H(s^2 / \sum s^2) \le \exp H(s / \sum s)$: Renyi's entropy falls with its order,
    and the more a distribution is sharpened, the smaller is its entropy. $\sum s^4 = E |A^T A g|^2$ of Gaussian $g$;
    of 16 of these, the mean is below a 40th of it with a probability of $10^{-10}$ if the rank is one, and less if
    it is higher.

    References:
        - Hutchinson (1990), "A stochastic estimator of the trace of the influence matrix",
          https://doi.org/10.1080/03610919008812866
    """
    scale = max(matrix.max(initial=0.0), -matrix.min(initial=0.0))
    if not 0 < scale < np.inf:
        return 0.0
    x = matrix if 1e-8 < scale < 1e8 else matrix / scale  # the fourth powers stay within float32
    probes = np.random.default_rng(0).standard_normal((x.shape[1], _PROBES), "float32").astype(x.dtype, copy=False)
    fourth = np.square(x.T @ (x @ probes), dtype="float64").sum() / _PROBES
    return float(np.linalg.norm(x) ** 4 / fourth)
