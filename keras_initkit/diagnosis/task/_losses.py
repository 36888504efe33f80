"""The loss of each output of a model, as Keras resolves it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras

from keras_initkit.inputs._labels import known_loss

LossKind = Literal["binary", "categorical", "sparse_categorical", "divergence", "poisson", "hinge", "regression"]
_KINDS: dict[str, LossKind] = {
    "binarycrossentropy": "binary",
    "binaryfocalcrossentropy": "binary",
    "categoricalcrossentropy": "categorical",
    "categoricalfocalcrossentropy": "categorical",
    "sparsecategoricalcrossentropy": "sparse_categorical",
    "kldivergence": "divergence",
    "poisson": "poisson",
    "hinge": "hinge",
    "squaredhinge": "hinge",
    "meansquarederror": "regression",
    "meanabsoluteerror": "regression",
    "meanabsolutepercentageerror": "regression",
    "meansquaredlogarithmicerror": "regression",
    "huber": "regression",
    "logcosh": "regression",
}

# What a loss of probabilities reads, where it applies no activation itself.
ACTIVATIONS = {"binary": "sigmoid", "categorical": "softmax", "sparse_categorical": "softmax", "divergence": "softmax"}


@dataclass(frozen=True)
class KnownLoss:
    """A loss of Keras.

    Args:
        name: String. Its name, as `compile` takes it.
        kind: String. What it is a loss of, one of `LossKind`.
        from_logits: Boolean. Whether it applies the last activation itself.
        ignored: Integer. The class that it leaves out, if any.
        smoothed: Boolean. Whether it smooths the labels.
    """

    name: str
    kind: LossKind
    from_logits: bool = False
    ignored: int | None = None
    smoothed: bool = False

    @property
    def is_categorical(self) -> bool:
        """Whether it compares distributions over the last axis."""
        return self.kind in ("categorical", "sparse_categorical", "divergence")


def find_losses(model: keras.Model, loss: Any, names: Sequence[str]) -> list[Any]:
    """Returns the loss of each output as it was given, or `None` where there is none or it cannot be told.

    A model whose `compute_loss` or, without `loss`, `train_step` is its own may do something else with the loss.

    Args:
        model: Keras model.
        loss: The loss or losses, as `compile` takes them; `None` is what the model is compiled with.
        names: List of strings. The names of the outputs.
    """
    nothing = [None] * len(names)
    own_step = type(model).train_step is not keras.Model.train_step
    if type(model).compute_loss is not keras.Model.compute_loss or (loss is None and own_step):
        return nothing
    loss = getattr(model, "loss", None) if loss is None else loss
    if isinstance(loss, dict):
        flat = dict(loss)
        given = [flat.get(name) for name in names] if set(names) & set(flat) else keras.tree.flatten(loss)
    elif isinstance(loss, list | tuple):
        given = list(loss)
    else:
        given = [loss] * len(names)
    return given if len(given) == len(names) else nothing


def describe_loss(loss: Any, units: int | None = None) -> KnownLoss | None:
    """Returns what is known of a loss of Keras; `None` of any other.

    Example:

    >>> describe_loss(keras.losses.BinaryCrossentropy(from_logits=True)).from_logits
    True
    """
    options: dict[str, Any] = {}
    if isinstance(loss, functools.partial):
        loss, options = loss.func, dict(loss.keywords)
    if isinstance(loss, str) and loss.lower() in ("crossentropy", "ce"):  # Keras chooses by the output
        loss = "binary_crossentropy" if units == 1 else "sparse_categorical_crossentropy"
    if loss is None or isinstance(loss, list | tuple | dict):
        return None
    try:
        name = known_loss(loss)
    except ValueError:
        return None
    kind = _KINDS.get(name or "")
    if kind is None or name is None or options.get("axis", getattr(loss, "axis", -1)) not in (-1, None):
        return None
    called = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", name))
    return KnownLoss(
        str(called),
        kind,
        bool(options.get("from_logits", getattr(loss, "from_logits", False))),
        options.get("ignore_class", getattr(loss, "ignore_class", None)),
        bool(options.get("label_smoothing", getattr(loss, "label_smoothing", 0.0))),
    )
