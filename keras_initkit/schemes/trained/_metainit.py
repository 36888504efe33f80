"""MetaInit: norms of weights learned so that the gradient changes little along itself."""

from __future__ import annotations

from collections import deque
from typing import Any

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit._checks import checked_count, checked_number
from keras_initkit._progress_bar import progress_bar
from keras_initkit.capture.backends import derivatives_backend
from keras_initkit.inputs._batches import TrainingBatches
from keras_initkit.schemes._plan import Plan
from keras_initkit.schemes._registry import register_scheme
from keras_initkit.schemes.trained._scaled_loss import ScaledLoss, loss_of, scalable

WINDOW = 10  # steps over which the logarithm of the quotient, which differs from batch to batch, is averaged
SMALLEST = 0.01  # a norm stays above this share of what it was


@register_scheme("metainit")
def metainit(
    plan: Plan,
    steps: int = 500,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    batch_size: int = 128,
    loss: Any = None,
    verbose: int = 1,
) -> None:
    r"""Learns norms of kernels for which a gradient step changes the gradient little.

        GQ = 1/N sum_i |(g - H g)_i / (g_i + eps_i) - 1|,    eps_i = epsilon where g_i >= 0, else -epsilon

    with the gradient g and the Hessian H of the loss with respect to all N trainable weights. Signed gradient
    descent with momentum on the norms of the tensors of rank 2 and more; each keeps its direction. It takes the
    third derivative of the loss along the scales. Kept are the norms of the step where the mean of the last ten
    quotients was smallest: the last ones may have been thrown off by the momentum. Layers behave as in training.

    Args:
        plan: what may be set; with no data, inputs are drawn from N(0, 1) again for each step, and with no labels,
            labels at random to fit the loss: the paper uses no real data at all.
        steps: on the norms.
        learning_rate: of the norms, absolute.
        momentum: of the signs.
        epsilon: keeps the quotient finite where an element of g is zero, and counts elements that are much smaller
            as bad. The paper's value suits layers of some hundred units; with fewer, where healthy gradients are
            larger, kernels shrink until their gradients come near it, and 1e-3 serves better.
        batch_size: examples of a batch.
        loss: as `compile` takes it; `None` is the loss that the model is compiled with.
        verbose: 0 shows no progress bar.

    References:

    - Dauphin and Schoenholz (2019), "MetaInit: Initializing learning by learning to initialize", equation 3 and
      appendix A, https://papers.nips.cc/paper_files/paper/2019/hash/876e8108f87eb61877c6263228b67256-Abstract.html
    """
    steps = checked_count("steps", steps)
    learning_rate = checked_number("learning_rate", learning_rate, above=0)
    epsilon = checked_number("epsilon", epsilon, above=0)
    momentum = checked_number("momentum", momentum, least=0, below=1)
    scaled = scalable(plan, "metainit", rank=2)
    before = [to_numpy(variable).astype("float64") for variable in scaled]
    norms = np.array([np.linalg.norm(values) for values in before])
    with loss_of(plan, loss, "metainit") as used:
        batches = TrainingBatches(plan.model, plan.x, plan.y, batch_size, [plan.seed, 1], used)
        model = ScaledLoss("metainit", plan.model, scaled, plan.seed)
        quotient_of = model.compiled(gradient_quotient(model, epsilon))
        scales, velocity = np.ones(len(scaled)), np.zeros(len(scaled))
        best, smallest = scales, np.inf
        recent: deque[float] = deque(maxlen=WINDOW)
        with progress_bar("metainit", steps, bool(verbose)) as update:
            for step in range(steps):
                quotient, gradient = quotient_of(scales, *batches.take(batches.next_rows()), model.draw_seeds())
                model.check_finite(step, quotient, gradient)
                recent.append(np.log(max(quotient, 1e-30)))
                level = float(np.mean(recent))
                if len(recent) < WINDOW or level < smallest:
                    best, smallest = scales, level if len(recent) == WINDOW else np.inf
                velocity = momentum * velocity - learning_rate * np.sign(gradient)
                scales = np.maximum(scales + velocity / norms, SMALLEST)
                update(step + 1, f"metainit, gradient quotient {quotient:.3g}")
    for variable, values, scale in zip(scaled, before, best, strict=True):
        plan.assign(variable, scale * values)


def gradient_quotient(model: ScaledLoss, epsilon: float) -> Any:
    """GQ as a function of the scales and of data."""
    ops, gradients_of = keras.ops, derivatives_backend().value_and_gradients
    gradient_of = gradients_of(model)

    def half_square(values: list[Any], *data: Any) -> Any:
        return sum(ops.sum(ops.square(g)) for g in gradient_of(values, *data)[1]) / 2

    def quotient(scales: list[Any], *data: Any) -> Any:
        values = model.values(scales[0])
        _, gradients = gradient_of(values, *data)
        _, products = gradients_of(half_square)(values, *data)  # H g
        total, size = 0.0, 0
        for g, product in zip(gradients, products, strict=True):
            away_from_zero = g + ops.where(g >= 0, epsilon, -epsilon)
            total = total + ops.sum(ops.abs((g - product) / away_from_zero - 1))
            size += int(np.prod(g.shape))
        return total / size

    return quotient
