"""What a model makes of the order of its tokens, and which of them are padding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_initkit.capture._replay import Replay
from keras_initkit.report._attention_rows import OrderStats
from keras_initkit.structure._graph import Call, Tensor

Arrays = Mapping[Tensor, np.ndarray]
_COMPARISONS = {"NotEqual": np.equal, "Equal": np.equal, "Greater": np.less_equal}
_SPREAD = 0.02  # least standard deviation of what is added to weights


class KnownPadding:
    """Which positions of the inputs are padding, where the model itself says so.

    It does where an embedding has `mask_zero`, by a `Masking` layer, where integers are compared with a number, and by
    an input of zeros and ones that is called a mask; 0 is padding there.
    """

    def __init__(self, graph: Sequence[Call], names: Mapping[Tensor, str]):
        self._rules: list[tuple[Tensor, Any]] = []
        inputs = set(graph[-1].inputs)
        for call in graph:
            first = call.inputs[0] if call.inputs else None
            if call.opened or first not in inputs or first is None:
                continue
            name = type(call.layer).__name__
            if isinstance(call.layer, keras.layers.Embedding) and call.layer.mask_zero:
                self._rules.append((first, lambda x: x == 0))
            elif isinstance(call.layer, keras.layers.Masking):
                self._rules.append((first, lambda x, v=call.layer.mask_value: (x == v).all(axis=-1)))
            elif name in _COMPARISONS and len(call.args) == 2 and _is_number(call.args[1]):
                value = float(np.asarray(call.args[1]))
                self._rules.append((first, lambda x, f=_COMPARISONS[name], v=value: f(x, v)))
        self._names = names
        flat = [tensor for tensor in names if len(tensor.shape) == 2]
        self._masks = {tensor: names[tensor] for tensor in flat if "mask" in names[tensor].lower()}

    def of(self, arrays: Arrays) -> dict[Tensor, np.ndarray]:
        """Returns boolean arrays of shape `(examples, positions)`, by input."""
        found: dict[Tensor, np.ndarray] = {}
        for tensor, rule in self._rules:
            padded = np.asarray(rule(np.asarray(arrays[tensor])))
            if padded.ndim == 2 and tensor not in self._masks:
                found[tensor] = found.get(tensor, False) | padded
        for mask, name in self._masks.items():
            values = np.asarray(arrays[mask])
            if not np.isin(values, (0, 1)).all():
                continue
            like = [
                tensor
                for tensor, array in arrays.items()
                if tensor not in self._masks and np.ndim(array) >= 2 and array.shape[:2] == values.shape
            ]
            prefix = name.lower().split("padding")[0].split("attention")[0].split("mask")[0].strip("_")
            named = [tensor for tensor in like if prefix and self._names[tensor].lower().startswith(prefix)]
            for tensor in named or like:
                found[tensor] = found.get(tensor, False) | (values == 0)
        return found

    def go_along(self, tokens: Iterable[Tensor]) -> list[Tensor]:
        """Returns masks that are inputs and have as many positions as these tokens."""
        sizes = {tensor.shape[1] for tensor in tokens if len(tensor.shape) > 1}
        return [mask for mask in self._masks if mask.shape[1] in sizes]


def are_next_tokens(tokens: np.ndarray, labels: Iterable[np.ndarray]) -> bool:
    """Returns whether some labels are the tokens one place to the left: what a decoder learns to predict.

    Args:
        tokens: Integer array of shape `(examples, positions)`.
        labels: Arrays, integers or one-hot.
    """
    for each in labels:
        if each.ndim == 3 and each.shape[-1] > 1:
            each = each.argmax(axis=-1)
        if each.shape[:2] != tokens.shape or each.size != tokens.size or tokens.shape[-1] < 3:
            continue
        each = each.reshape(tokens.shape)
        moves = tokens[:, 1:] != tokens[:, :-1]  # of equal neighbors nothing is learned
        if moves.sum() >= 3 and (each[:, :-1] == tokens[:, 1:])[moves].mean() > 0.95:
            return True
    return False


class OrderCheck:
    """Measures what becomes of the output when tokens change places, or one of them changes.

    Args:
        replay: `Replay` of the model.
        model: The model.
        inputs: All of the model's inputs.
        tokens: Those that hold the tokens, and what goes with them (segments, masks).
    """

    def __init__(self, replay: Replay, model: keras.Model, inputs: Sequence[Tensor], tokens: Sequence[Tensor]):
        self._replay, self._model, self._inputs, self._tokens = replay, model, inputs, tokens
        self._random = np.random.default_rng(0)

    def measure(self, name: str, arrays: Arrays, along: Sequence[Tensor], padded: np.ndarray | None) -> OrderStats:
        """Returns the figures for a few examples; `along` are inputs whose positions move with the tokens'."""
        first = arrays[self._tokens[0]]
        size = first.shape[1]
        real = np.arange(size) if padded is None else np.flatnonzero(~padded.any(axis=0))
        ids = np.unique(first)
        if len(real) < 4 or len(ids) < 2:
            return OrderStats(name)
        with keras.StatelessScope(state_mapping=self._generic_weights()):
            # The first and the last token stay: a model may read its answer there.
            inner = real[1:-1]
            order = np.arange(size)
            order[inner] = inner[::-1] if len(inner) < 4 else self._random.permutation(inner)
            moved = {**arrays, **{each: arrays[each][:, order] for each in (*self._tokens, *along)}}
            other = first.copy()
            other[:, inner] = self._random.choice(ids, other[:, inner].shape)
            middle, one = real[len(real) // 2], first.copy()
            one[:, middle] = ids[(np.searchsorted(ids, one[:, middle]) + 1) % len(ids)]
            several = (arrays, moved, {**arrays, self._tokens[0]: other}, {**arrays, self._tokens[0]: one})
            before, permuted, changed, after = self._replay.run_apart(
                [[each[tensor] for tensor in self._inputs] for each in several]
            )
        share = _relative_change(before, permuted, changed, size, order)
        future, past = _reach(before, after, size, middle)
        return OrderStats(name, share, future, past)

    def _generic_weights(self) -> list[tuple[keras.Variable, Any]]:
        """Returns weights to which noise of their own size is added: what was 0 counts then, as it will in training."""
        chosen = []
        for variable in self._model.trainable_variables:
            if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(variable.dtype)):
                continue
            value = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(variable.value, "float32")))
            spread = max(float(value.std()), _SPREAD) if value.size else 0.0
            noise = spread * self._random.standard_normal(value.shape)
            chosen.append((variable, keras.ops.cast(keras.ops.convert_to_tensor(value + noise), variable.dtype)))
        return chosen


def _relative_change(
    before: Sequence[Any], permuted: Sequence[Any], changed: Sequence[Any], size: int, order: np.ndarray
) -> float | None:
    """Returns the change of the outputs by another order over that by other tokens, the largest of all outputs."""
    shares = []
    for one, two, three in zip(before, permuted, changed, strict=True):
        if one is None or two is None or three is None or not np.isfinite(one).all() or one.dtype.kind != "f":
            continue
        scale = _size(three - one)
        if not scale > 0:
            continue
        differences = [_size(two - one)]
        if one.ndim > 1 and one.shape[1] == size:
            differences.append(_size(two - one[:, order]))
        shares.append(min(differences) / scale)
    return max(shares, default=None)


def _reach(before: Sequence[Any], after: Sequence[Any], size: int, place: int) -> tuple[float | None, float | None]:
    """Returns the change of outputs before and behind one position, relative to the largest change."""
    future, past = [], []
    for one, two in zip(before, after, strict=True):
        if one is None or two is None or one.ndim < 2 or one.shape[1] != size or one.dtype.kind != "f":
            continue
        change = np.abs(np.asarray(two - one, "float64"))
        change = change.max(axis=tuple(axis for axis in range(change.ndim) if axis != 1))
        if np.isfinite(change).all() and change.max() > 0:
            future.append(change[:place].max(initial=0.0) / change.max())
            past.append(change[place + 1 :].max(initial=0.0) / change.max())
    return (float(max(future)), float(max(past))) if future else (None, None)


def _is_number(value: Any) -> bool:
    return not isinstance(value, Tensor) and np.ndim(value) == 0


def _size(difference: np.ndarray) -> float:
    return float(np.sqrt(np.square(difference, dtype="float64").mean()))
