"""How a small change of a recurrent layer's state grows over the steps of a sequence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit.diagnosis._evidence import Evidence

MOST_STEPS = 64
_EXAMPLES, _SIZE = 16, 1e-3  # of a change to its state, or to 1: much more than rounding in float32


def growth_over_steps(evidence: Evidence) -> Iterator[tuple[str, float, int]]:
    r"""Yields the path of each recurrent layer, the growth of a change of its state, and over how many steps.

    .. math:: \| \partial h_T / \partial h_0 \, v \| / \| v \| = \prod_t \| J_t v_t \| / \| v_t \|

    for random v, from the state 0, on Gaussian inputs of the mean and variance that the probe has measured: the factor
    by which a gradient grows on its way back through the same steps. After each step the change is scaled back to its
    size (Benettin et al. 1980), so that neither a bounded state nor rounding limits the product. Only before training,
    for cells with one recurrent kernel; a training step does not read inputs.

    References:
        - Giancarlo Benettin et al. (1980), "Lyapunov characteristic exponents for smooth dynamical systems and for
          Hamiltonian systems", https://doi.org/10.1007/BF02128236
        - Razvan Pascanu et al. (2013), "On the difficulty of training recurrent neural networks",
          https://arxiv.org/abs/1211.5063
    """
    if evidence.model is None or evidence.is_run or not evidence.is_initial:
        return
    recurrent = [context for context in evidence.model.kernels if context.kernel.role == "recurrent"]
    paths = [context.path for context in recurrent]
    for context in recurrent:
        reading, cell = evidence.first.get(context.path), context.kernel.layer
        inputs = [] if reading is None else reading.rows.get("input", [])
        shape = next((row.shape for row in inputs if row.shape and len(row.shape) == 3), None)
        if shape is None or paths.count(context.path) > 1 or not hasattr(cell, "get_initial_state"):
            continue
        moments = inputs[0].moments
        if moments.nonfinite:
            continue
        steps = min(shape[1], MOST_STEPS)
        x = np.random.default_rng(0).standard_normal((steps, _EXAMPLES, shape[2]))
        try:
            growth = _growth(cell, moments.mean + moments.stddev * x)
        except Exception:  # a cell of one's own may need more than its inputs and its state
            continue
        yield context.path, growth, steps


def _growth(cell: Any, x: np.ndarray) -> float:
    """Returns by what factor a small change of the first state grows, over inputs of shape `(steps, examples, n)`."""
    state: list[Any] = keras.tree.flatten(cell.get_initial_state(batch_size=_EXAMPLES))
    states = [to_numpy(each).astype("float64") for each in state]
    draw = np.random.default_rng(1).standard_normal
    changes = [draw(each.shape) for each in states]
    logarithm = 0.0
    for inputs in x:
        size = _norm(changes)
        if not 0 < size < math.inf:
            break
        scale = _SIZE * max(_norm(states), math.sqrt(sum(each.size for each in states)))
        changes = [each * (scale / size) for each in changes]
        before = _norm(changes)
        both = [np.concatenate([a, a + b]) for a, b in zip(states, changes, strict=True)]
        after = [np.split(each, 2) for each in _step(cell, np.concatenate([inputs, inputs]), both)]
        states, changes = [each[0] for each in after], [each[1] - each[0] for each in after]
        logarithm += math.log(max(_norm(changes), 1e-30) / before)
    return math.exp(min(logarithm, 700.0)) if math.isfinite(logarithm) else math.nan


def _step(cell: Any, x: np.ndarray, states: list[np.ndarray]) -> list[np.ndarray]:
    tensors = [keras.ops.convert_to_tensor(each, cell.compute_dtype) for each in (x, *states)]
    _, after = cell(tensors[0], tensors[1:], training=False)
    return [to_numpy(each).astype("float64") for each in keras.tree.flatten(after)]


def _norm(arrays: list[np.ndarray]) -> float:
    return math.sqrt(sum(np.square(each).sum() for each in arrays))
