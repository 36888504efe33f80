"""GradInit: a scale for each weight, learned for the first step of an optimizer."""

from __future__ import annotations

import math
from typing import Any, Literal

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit._checks import checked_count, checked_number, checked_option
from keras_initkit._progress_bar import progress_bar
from keras_initkit.capture.backends import derivatives_backend
from keras_initkit.inputs._batches import TrainingBatches
from keras_initkit.schemes._plan import Plan
from keras_initkit.schemes._registry import register_scheme
from keras_initkit.schemes.trained._scaled_loss import ScaledLoss, loss_of, scalable

LOWER_BOUND = 0.01  # the paper's alpha, of scales of whatever is not a bias


@register_scheme("gradinit")
def gradinit(
    plan: Plan,
    steps: int = 390,
    learning_rate: float = 1e-2,
    gamma: float | None = None,
    eta: float | None = None,
    optimizer: Literal["sgd", "adam"] = "sgd",
    batch_size: int = 128,
    loss: Any = None,
    verbose: int = 1,
) -> None:
    r"""Learns scales with which one step of an optimizer reaches the smallest loss, from a bounded gradient.

        minimize   L(theta_s - eta A[g]),    g = dL/dtheta (theta_s),    theta_s = (s_1 W_1, ..., s_n W_n)
        subject to ||g||_p <= gamma

    with A[g] = g and p = 2 for stochastic gradient descent, A[g] = sign(g) and p = 1 for Adam. Where the gradient on
    a batch is beyond gamma, a step of Adam on s lowers its norm; else one lowers the loss after the step, on a batch
    that shares half of its examples. The derivative goes through g, in whose place the authors' code has a constant.

    Every trainable weight of the chosen layers gets a scale: kernels, scales of normalization and biases, but for
    those that are zero, which no scale changes. Layers behave as in training.

    Args:
        plan: what may be set, and data with labels.
        steps: on the scales; the paper takes an epoch of batches.
        learning_rate: of the scales.
        gamma: bound of the gradient's norm. Left out, 1 for SGD and sqrt(N) for Adam, N being the number of trainable
            elements: the same bound for a gradient that is spread evenly over them.
        eta: learning rate of the optimizer's step. Left out, 0.1 for SGD and 1e-3 for Adam.
        optimizer: `"sgd"` or `"adam"`, what the model is to be trained by.
        batch_size: examples of a batch.
        loss: as `compile` takes it; `None` is the loss that the model is compiled with.
        verbose: 0 shows no progress bar.

    References:

    - Zhu et al. (2021), "GradInit: Learning to initialize neural networks for stable and efficient training",
      algorithm 1, https://arxiv.org/abs/2102.08098
    """
    if plan.x is None or plan.y is None:
        missing = "data" if plan.x is None else "labels"
        raise ValueError(f"gradinit: got no {missing}, expected x and y: it minimizes the loss of the labels.")
    adam = checked_option("optimizer", optimizer, ("sgd", "adam")) == "adam"
    size = sum(int(np.prod(variable.shape)) for variable in plan.model.trainable_variables)
    gamma = (math.sqrt(size) if adam else 1.0) if gamma is None else gamma
    eta = (1e-3 if adam else 0.1) if eta is None else eta
    steps = checked_count("steps", steps)
    learning_rate, eta = checked_number("learning_rate", learning_rate, above=0), checked_number("eta", eta, above=0)
    if not gamma > 0:  # infinity sets no bound
        raise ValueError(f"gamma: got {gamma!r}, expected a positive number.")

    scaled = scalable(plan, "gradinit")
    with loss_of(plan, loss, "gradinit") as used:
        batches = TrainingBatches(plan.model, plan.x, plan.y, batch_size, [plan.seed, 1], used)
        model = ScaledLoss("gradinit", plan.model, scaled, plan.seed)
        norm_of, loss_after = objectives(model, eta, adam)
        added = ("bias", "beta")
        bounds = np.array([0.0 if variable.name.split("/")[-1] in added else LOWER_BOUND for variable in scaled])
        scales = keras.Variable(np.ones(len(scaled)), dtype="float32", name="scales")
        # Gradients are clipped, as the authors have it: one steep batch would slow Adam down for a thousand steps.
        constraint, objective = (
            keras.optimizers.Adam(learning_rate, epsilon=1e-8, clipnorm=1.0, name=name)
            for name in ("constraint", "objective")
        )
        with progress_bar("gradinit", steps, bool(verbose)) as update:
            for step in range(steps):
                rows = batches.next_rows()
                batch, seeds = batches.take(rows), model.draw_seeds()
                norm, gradient = norm_of(to_numpy(scales), *batch, seeds)
                model.check_finite(step, norm, gradient)
                shown = f"gradinit, gradient norm {norm:.3g}"
                if norm > gamma:
                    constraint.apply([keras.ops.convert_to_tensor(gradient, "float32")], [scales])
                else:
                    after, gradient = loss_after(
                        to_numpy(scales), *batch, *batches.take(batches.next_rows(rows)), seeds
                    )
                    model.check_finite(step, after, gradient)
                    shown += f", loss after a step {after:.3g}"
                    objective.apply([keras.ops.convert_to_tensor(gradient, "float32")], [scales])
                scales.assign(np.maximum(to_numpy(scales), bounds))
                update(step + 1, shown)
    for variable, scale in zip(scaled, to_numpy(scales), strict=True):
        plan.assign(variable, scale * to_numpy(variable).astype("float64"))


def objectives(model: ScaledLoss, eta: float, adam: bool) -> tuple[Any, Any]:
    """The gradient's norm, and the loss after a step, each with its gradient with respect to the scales."""
    ops, gradients_of = keras.ops, derivatives_backend().value_and_gradients(model)

    def norm(scales: list[Any], x: Any, y: Any, seeds: Any) -> Any:
        _, gradients = gradients_of(model.values(scales[0]), x, y, seeds)
        if adam:
            return sum(ops.sum(ops.abs(ops.cast(g, "float32"))) for g in gradients)
        return ops.sqrt(sum(ops.sum(ops.square(ops.cast(g, "float32"))) for g in gradients))

    def loss_after(scales: list[Any], x: Any, y: Any, next_x: Any, next_y: Any, seeds: Any) -> Any:
        values = model.values(scales[0])
        _, gradients = gradients_of(values, x, y, seeds)
        steps = [ops.stop_gradient(ops.sign(g)) if adam else g for g in gradients]
        return model([v - eta * step for v, step in zip(values, steps, strict=True)], next_x, next_y, seeds)

    return model.compiled(norm), model.compiled(loss_after)
