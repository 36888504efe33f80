"""Private names of Keras around training: losses, metrics, and the marks that it leaves on tensors."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import keras

from keras_initkit._compat._keras_tracing import IS_EARLY, auto_names_kept
from keras_initkit._compat._moved import unless_moved, warn_moved


def metric_functions(model: keras.Model) -> list[Callable]:
    """Returns the functions that a model was compiled with as metrics.

    `Model.metrics` shows what Keras has made of them once it has trained, and `get_compile_config` their names. If it
    moves: no metric is judged.
    """
    with unless_moved("keras.Model._compile_metrics", "metrics that are functions are not judged"):
        compiled = model._compile_metrics if model.compiled else None
        flat = [] if compiled is None else keras.tree.flatten(compiled._user_metrics)
        return [each for each in flat if callable(each) and not isinstance(each, keras.metrics.Metric)]
    return []


def is_compiled_with_loss(model: keras.Model) -> bool:
    """Returns whether training has a loss of its labels. If the name moves: `model.loss` is asked.

    That one stays when a model is compiled again without a loss.
    """
    with unless_moved("keras.Model._compile_loss", "a model that is compiled again without a loss seems to have one"):
        return model.compiled and model._compile_loss is not None
    return model.loss is not None


def fresh_compile_loss(model: keras.Model, loss: Any) -> tuple[str, Any]:
    """Returns the attribute that holds a model's compiled loss, and a new one for it that nobody has built yet.

    `CompileLoss` matches losses with outputs as `fit` does; it is built by its first call, so the model's own must not
    be called. No public name runs the loss of `compile`. If it moves: the attribute is `compute_loss`, and another
    model that is compiled with the loss computes it.

    Args:
        loss: Loss, or a structure of losses, as `compile` takes them; `None` is the one the model is compiled with, if
            there is one.
    """
    with unless_moved(
        "keras.src.trainers.compile_utils.CompileLoss",
        "where a model has a compute_loss of its own, a loss that is given to probe is not used",
    ):
        from keras.src.trainers.compile_utils import CompileLoss

        # Early versions have no such attribute before `compile`, and ask for it.
        like = None if IS_EARLY and not model.compiled else model._compile_loss
        if loss is not None:
            return "_compile_loss", CompileLoss(loss, output_names=getattr(model, "output_names", None))
        if like is None:
            return "_compile_loss", None
        return "_compile_loss", CompileLoss(like._user_loss, like._user_loss_weights, output_names=like.output_names)
    return "compute_loss", _loss_by_another(model, loss)


def _loss_by_another(model: keras.Model, loss: Any) -> Callable:
    """Returns a `compute_loss` for a model by one that is compiled with the loss and nothing else."""
    weights = None
    if loss is None:
        loss, weights = model.loss, (model.get_compile_config() or {}).get("loss_weights")
    if loss is None or type(model).compute_loss is not keras.Model.compute_loss:
        return model.compute_loss
    with auto_names_kept():
        another = keras.Model()
        if getattr(model, "output_names", None) is not None:
            another.output_names = model.output_names
        another.compile("sgd", loss, loss_weights=weights)

    def compute_loss(x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
        total = another.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)
        return sum(map(keras.ops.sum, model.losses), start=total)

    return compute_loss


def copy_keras_mask(source: Any, target: Any) -> None:
    """Gives a tensor the mask that Keras has set on another tensor of the same values.

    Keras' layers and losses look there for the mask. From 3.7 on Keras has functions for it: where arrays take no
    attributes, as in early versions of JAX, it keeps masks in a table. If they move: the attribute is copied.
    """
    try:
        from keras.src.backend.common.masking import get_keras_mask, set_keras_mask
    except ImportError:
        if not IS_EARLY:
            name = "keras.src.backend.common.masking.get_keras_mask"
            warn_moved(name, "a probe may lose masks that layers set on their outputs")
        mask = getattr(source, "_keras_mask", None)
        if mask is not None:
            with contextlib.suppress(AttributeError):
                target._keras_mask = mask
        return
    mask = get_keras_mask(source)
    if mask is not None:
        set_keras_mask(target, mask)


def keras_logits(tensor: Any) -> Any:
    """Returns the logits that Keras' softmax or sigmoid has left on its output for the loss; `None` without any.

    If it moves: gradients of such outputs are not read at the logits, and by a step that runs eagerly not at all.
    """
    logits = getattr(tensor, "_keras_logits", None)
    if logits is None and not keras_leaves_logits():
        warn_moved(
            "keras.activations.softmax(x)._keras_logits",
            "the gradients of softmax and sigmoid outputs are not read, and in eager steps those of no output",
        )
    return logits


@functools.cache
def keras_leaves_logits() -> bool:
    """Returns whether `keras_logits` finds what Keras leaves: tried on one number, outside of any graph."""
    import tensorflow as tf

    with tf.init_scope():
        return hasattr(keras.activations.softmax(tf.ones((1, 2))), "_keras_logits")


def set_keras_logits(tensor: Any, logits: Any) -> None:
    """Sets what `keras_logits` returns."""
    tensor._keras_logits = logits


def optimized_variables(optimizer: Any) -> list[keras.Variable]:
    """Returns the variables that a Keras optimizer was built for; an empty list before that.

    It is what `optimizer.apply(grads)` and `stateless_apply` take values to be of, by their places. If it moves: steps
    that are written by hand are taken to train all the trainable variables of their models, in their order.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # under loss scaling
    if not getattr(optimizer, "built", False):
        return []
    with unless_moved(
        "keras.optimizers.Optimizer._trainable_variables", "`watch` takes an optimizer to train all the models' weights"
    ):
        return list(optimizer._trainable_variables)
    return []
