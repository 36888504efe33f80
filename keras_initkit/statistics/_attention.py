r"""Statistics of attention, in float64: pure functions of weights, logits and masks.

Weights and logits have the shape (examples, heads, queries, keys); a mask holds `True` for the keys that a query may
read and has any shape that broadcasts to it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NEGLIGIBLE = 50.0  # a key whose logit is moved down by this much gets less than 1e-21 of the weight


class Entropies(NamedTuple):
    """Entropy in nats by head, and that of uniform weights, both averaged over queries with two keys or more."""

    by_head: np.ndarray
    uniform: float


def softmax(logits: np.ndarray, allowed: np.ndarray | None = None) -> np.ndarray:
    """Returns the softmax over the last axis; keys that are not allowed get 0, and all do where none is; NaN stays.

    Example:

    >>> softmax(np.array([[0.0, np.log(3.0)], [5.0, 5.0]])).round(3).tolist()
    [[0.25, 0.75], [0.5, 0.5]]
    """
    logits = np.asarray(logits, "float64")
    if allowed is not None:
        logits = np.where(allowed, logits, -np.inf)
    top = logits.max(axis=-1, keepdims=True)
    powers = np.exp(logits - np.where(np.isfinite(top), top, 0.0))
    total = powers.sum(axis=-1, keepdims=True)
    return np.divide(powers, total, out=np.zeros_like(powers), where=~(total <= 0))


def allowed_keys(bias: np.ndarray) -> np.ndarray:
    """Returns which keys a query may read, where `bias` is what its logits are if all scores are 0.

    A key is masked if its bias alone leaves it less than $e^{-50}$ of the weight of the largest.

    Example:

    >>> allowed_keys(np.array([0.0, -1e9, -0.5, -np.inf])).tolist()
    [True, False, True, False]
    """
    bias = np.asarray(bias, "float64")
    top = bias.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.isfinite(bias) & (bias > -1e4) & (bias >= top - NEGLIGIBLE)


def entropies(weights: np.ndarray, allowed: np.ndarray) -> Entropies:
    r"""Measures how evenly heads look at their keys.

    The entropy of a query's weights p is $-\sum_s p_s \ln p_s$: 0 where one key has all the weight, and $\ln n$ where n
    keys share it evenly.

    Example:

    >>> even = np.full((1, 2, 3, 4), 0.25)
    >>> found = entropies(even, np.ones((1, 1, 3, 4), bool))
    >>> (found.by_head / np.log(4)).round(6).tolist(), round(float(found.uniform / np.log(4)), 6)
    ([1.0, 1.0], 1.0)
    """
    p = np.asarray(weights, "float64")
    logs = np.log(np.where(p > 0, p, 1.0))
    entropy = -(p * logs).sum(axis=-1)
    keys = np.broadcast_to(allowed, p.shape).sum(axis=-1)
    judged = keys > 1
    with np.errstate(invalid="ignore", divide="ignore"):
        by_head = np.where(judged, entropy, 0.0).sum(axis=(0, 2)) / judged.sum(axis=(0, 2))
        uniform = np.log(keys[judged]).mean() if judged.any() else np.nan
    return Entropies(by_head, float(uniform))


def largest_logits(logits: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Returns the largest logit of each head among the keys that may be read.

    Example:

    >>> largest_logits(np.array([[[[1.0, 9.0]], [[2.0, -3.0]]]]), np.array([True, False])).tolist()
    [1.0, 2.0]
    """
    return np.where(allowed, np.asarray(logits, "float64"), -np.inf).max(axis=(0, 2, 3))


def weight_after(weights: np.ndarray, positions: np.ndarray) -> float:
    """Returns the fraction of weight that queries give to keys behind their own position.

    Args:
        weights: Array of shape `(examples, heads, queries, keys)`.
        positions: Array of the queries' positions among the keys.

    Example:

    >>> weight_after(np.full((1, 1, 2, 2), 0.5), np.arange(2)), weight_after(np.ones((1, 1, 1, 4)), np.array([0]))
    (0.25, 0.75)
    """
    p = np.asarray(weights, "float64")
    later = np.arange(p.shape[-1]) > np.asarray(positions)[:, None]
    total = p.sum()
    return float((p * later).sum() / total) if not total <= 0 else 0.0


def weight_on(weights: np.ndarray, keys: np.ndarray, queries: np.ndarray | None = None) -> float:
    """Returns the fraction of weight that some keys get.

    Args:
        weights: Array of shape `(examples, heads, queries, keys)`.
        keys: Boolean array of shape `(examples, keys)`. The keys that count, such as padding.
        queries: Boolean array of shape `(examples, queries)`. The queries that count; `None` is all.

    Example:

    >>> weight_on(np.array([[[[0.75, 0.25], [0.0, 1.0]]]]), np.array([[False, True]]), np.array([[True, False]]))
    0.25
    """
    p = np.asarray(weights, "float64")
    if queries is not None:
        p = p * queries[:, None, :, None]
    total = p.sum()
    return float((p * keys[:, None, None, :]).sum() / total) if not total <= 0 else 0.0


def cosine(one: np.ndarray, two: np.ndarray) -> float:
    """Returns the mean cosine between vectors along the last axis; vectors of 0 are left out, NaN where all are.

    Example:

    >>> cosine(np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[1.0, 1.0], [3.0, 4.0]])) ** 2 - 0.5 < 1e-15
    True
    """
    a, b = np.asarray(one, "float64"), np.asarray(two, "float64")
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    judged = norms > 0
    return float(((a * b).sum(axis=-1)[judged] / norms[judged]).mean()) if judged.any() else float("nan")
