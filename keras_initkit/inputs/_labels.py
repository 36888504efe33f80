"""Whether labels fit a model's outputs and its loss."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


class LabelError(ValueError):
    """Raised where labels do not fit the outputs or the loss."""


def prepared_labels(y: Any, name: str, examples: int) -> Any:
    """Returns labels or sample weights as backend tensors, floats as `fit` has them."""
    if isinstance(y, list | tuple) and all(isinstance(leaf, int | float) for leaf in keras.tree.flatten(y)):
        y = np.asarray(y)

    def prepare(leaf: Any) -> Any:
        if leaf is None:
            return None
        if not keras.ops.is_tensor(leaf):
            leaf = np.asarray(leaf)
            if leaf.dtype.kind in "USO":
                raise ValueError(f"{name}: got dtype {leaf.dtype}, expected numbers.")
        if len(leaf.shape) == 0 or int(leaf.shape[0]) != examples:
            length = "a single number" if len(leaf.shape) == 0 else f"{int(leaf.shape[0])} examples"
            raise ValueError(f"{name}: got {length}, expected {examples}, as in x.")
        dtype = keras.backend.standardize_dtype(leaf.dtype)
        return keras.ops.convert_to_tensor(leaf, keras.backend.floatx() if "float" in dtype else None)

    return keras.tree.map_structure(prepare, y)


def check_labels(y: Any, shapes: list[tuple[int | None, ...]], names: list[str], loss: Any) -> None:
    """Checks labels against the outputs' shapes, batch included, if the loss is one of Keras'; others take anything."""
    leaves = [y[name] for name in names] if isinstance(y, dict) and set(y) == set(names) else keras.tree.flatten(y)
    if len(leaves) != len(shapes):
        raise LabelError(f"y: got {len(leaves)} arrays, expected {len(shapes)}, one for each of the outputs {names}.")
    if isinstance(loss, dict):
        losses = [loss.get(name) for name in names]
    elif isinstance(loss, list | tuple):
        losses = list(loss) if len(loss) == len(shapes) else [None] * len(shapes)
    else:
        losses = [loss] * len(shapes)
    for labels, shape, name, each in zip(leaves, shapes, names, losses, strict=True):
        known = known_loss(each)
        if labels is not None and known is not None:
            _check_one(labels, shape, "y" if len(leaves) == 1 else f"y[{name!r}]", known, each)


def known_loss(loss: Any) -> str | None:
    """The name of a loss of Keras whose labels have the output's shape, or are classes; `None` of any other."""
    if not callable(loss):
        try:
            loss = keras.losses.get(loss)
        except (TypeError, ValueError) as error:
            raise ValueError(f"loss: got {loss!r}, expected the name of a Keras loss or a callable.") from error
    kind = type(loss) if isinstance(loss, keras.losses.Loss) else loss
    exported = vars(keras.losses).values()
    if not callable(loss) or not any(kind is each for each in exported):
        return None
    name = kind.__name__.lower().replace("_", "")
    return None if name in ("ctc", "circle") else name


def _check_one(labels: Any, output: tuple[int | None, ...], name: str, known: str, loss: Any) -> None:
    shape = tuple(labels.shape)
    called = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", known))
    if known == "sparsecategoricalcrossentropy":
        expected, classes = output[:-1], output[-1] or 0
        if not (_fit(shape, expected) or _fit(shape, (*expected, 1))):
            hint = " Use categorical_crossentropy for one-hot labels." if _fit(shape, output) else ""
            raise LabelError(
                f"{name}: got shape {shape}, expected {expected} for {called}: one class for each example.{hint}"
            )
        values = keras.ops.convert_to_numpy(labels)
        ignored = getattr(loss, "ignore_class", None)
        values = values[values != ignored] if ignored is not None else values
        if values.size and not (values.min() >= 0 and values.max() < classes and (values == np.round(values)).all()):
            raise LabelError(
                f"{name}: got numbers from {values.min():g} to {values.max():g}, expected classes 0 to {classes - 1} "
                f"for {called}, since the output has {classes} units."
            )
    elif not any(_fit(a, b) for a in (shape, (*shape, 1)) for b in (output, (*output, 1))):
        hint = " Use sparse_categorical_crossentropy for integer classes." if known.startswith("categorical") else ""
        raise LabelError(f"{name}: got shape {shape}, expected the output's {output} for {called}.{hint}")


def _fit(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(b is None or a == b for a, b in zip(shape, expected, strict=True))


def draw_labels(shape: tuple[int, ...], loss: Any, generator: np.random.Generator) -> np.ndarray:
    """Returns random labels for an output: classes, 0 or 1, or else Gaussian numbers, as the loss takes them."""
    name = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", ""))
    name = str(name).replace("_", "").lower()
    if name.startswith("sparsecategorical"):
        return generator.integers(0, shape[-1], shape[:-1])
    if name.startswith("categorical"):
        return np.eye(shape[-1], dtype="float32")[generator.integers(0, shape[-1], shape[:-1])]
    if name.startswith("binary"):
        return generator.integers(0, 2, shape).astype("float32")
    return generator.standard_normal(shape).astype("float32")
