"""What a model does with each of its weights: multiplies it into a signal, looks rows up in it, adds it, ..."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit._compat import VARIABLE
from keras_initkit.structure._calls import calls
from keras_initkit.structure._graph import Call, Tensor, signals
from keras_initkit.structure._kernel import Kernel
from keras_initkit.structure._layer_kinds import SCALINGS
from keras_initkit.structure._recorder import Recorder
from keras_initkit.structure._weight_products import (
    CONVOLUTIONS,
    AxisUse,
    axis_uses,
    collect_operands,
    describe_product,
    view_kernel,
)
from keras_initkit.structure._weight_views import View, looked_up, moved

How = Literal["multiplied", "looked up", "no kernel", "unknown"]

_BATCH = 2
_PRODUCTS = ("Matmul", "Einsum", "Dot", "Tensordot", *CONVOLUTIONS)
_REASONS = {
    "Add": "it is added to a signal, not multiplied into one",
    "Subtract": "it is added to a signal, not multiplied into one",
    "Multiply": "it multiplies a signal element by element; nothing is summed",
    "Divide": "it multiplies a signal element by element; nothing is summed",
    "TrueDivide": "it multiplies a signal element by element; nothing is summed",
    "Concatenate": "it is joined to a signal, as a token is",
    "Stack": "it is joined to a signal, as a token is",
    "Where": "it takes the place of a signal, as a mask token does",
}
FIXED_TABLE = "it is a table that is read at fixed places, as positions are"


@dataclass(frozen=True)
class Use:
    """One use of a weight.

    Args:
        how: String. Whether it is multiplied into a signal, looked up, neither, or not known.
        call: `Call` that does so.
        reason: String. Why the weight is no kernel, or its use is not known, for a reader.
        kernel: `Kernel`, where it is multiplied or looked up.
    """

    how: How
    call: Call
    reason: str = ""
    kernel: Kernel | None = None


def trace_uses(layer: keras.Layer) -> dict[int, list[Use]]:
    """Returns the uses of the weights of a built layer or model, as `collect_uses`; none where it cannot be traced.

    A layer that stands alone, or runs inside a loop, is traced on inputs of the shape that it was built for.
    """
    try:
        if isinstance(layer, keras.Model):
            return collect_uses(calls(layer))
        shape = (layer.get_build_config() or {})["input_shape"]
        states = [keras.KerasTensor((_BATCH, size)) for size in keras.tree.flatten(getattr(layer, "state_size", []))]
    except Exception:  # of any kind: it is not built, has no shape, or a user's own `get_build_config` raises
        return {}
    for dtype in ("float32", "int32"):
        recorder = Recorder(layer, _BATCH)
        try:
            symbols = keras.tree.map_shape_structure(
                lambda each, d=dtype: keras.KerasTensor([size or _BATCH * 4 for size in (_BATCH, *each[1:])], d), shape
            )
            recorder.run(symbols, *([states] if states else []))
        except Exception:  # of any kind, by a user's `call`
            continue
        return collect_uses(recorder.calls, states=len(states))
    return {}


def collect_uses(graph: list[Call], states: int = 0) -> dict[int, list[Use]]:
    """Returns the uses of each weight that a graph shows, by the variable's identity, in the order of the calls.

    A weight is followed through what only moves it (transposes, reshapes, casts, slices, broadcasting), multiplies it
    by constants or adds other weights to it, up to the operation that makes it part of a signal, which is whatever
    depends on the model's inputs.

    Args:
        graph: List of `Call`, as `calls` returns it.
        states: Integer. Number of the last inputs that are states of a recurrent cell.
    """
    return _Uses(graph, states).found


class _Uses:
    def __init__(self, graph: list[Call], states: int):
        self.found: dict[int, list[Use]] = {}
        self._signals = {tensor.number for tensor in signals(graph)}
        inputs = [tensor.number for tensor in graph[-1].inputs]
        self._states = set(inputs[len(inputs) - states :])
        self._views: dict[int, list[View]] = {}
        self._one_hot: set[int] = set()
        self._tables: dict[int, View] = {}  # of embedding layers, by the variable's identity
        for call in graph:
            if not call.opened:
                self._follow(call)

    def _follow(self, call: Call) -> None:
        kind = type(call.layer).__name__
        if kind == "OneHot" or (kind in ("Cast", "Reshape") and call.inputs[0].number in self._one_hot):
            self._one_hot.update(tensor.number for tensor in call.outputs)
        read = {tensor.number for tensor in call.inputs} & self._signals
        is_signal = bool(read)
        if is_signal:
            self._signals.update(tensor.number for tensor in call.outputs)
        if is_signal and read <= self._states:
            self._states.update(tensor.number for tensor in call.outputs)
        if isinstance(call.layer, keras.layers.Embedding) and isinstance(call.layer.embeddings, VARIABLE):
            view = View.from_variable(call.layer.embeddings)
            self._tables[id(view.variable)] = view
            if is_signal:
                self._note_lookup(view, 0, call)
            else:
                self._note(view, "no kernel", call, FIXED_TABLE)
        if is_signal and kind in _PRODUCTS:
            self._find_copies(call)
        for place, tensor in enumerate(call.inputs):
            for view in self._views_of(tensor):
                others = [each for other, each in enumerate(call.inputs) if other != place]
                self._use(call, view, tensor, others, is_signal)

    def _find_copies(self, call: Call) -> None:
        """Notes the use of a table of which a product reads a transposed copy, made outside of the trace.

        That is what `ops.transpose(self.embedding.embeddings)` leaves: the trace has symbols in place of a layer's own
        weights, but not of its parts'.
        """
        for constant in collect_operands(call):
            if isinstance(constant, Tensor):
                continue
            for table in self._tables.values():
                if tuple(constant.shape) == table.sizes[::-1] and _is_transposed(constant, table.variable):
                    kernel = view_kernel(table.picked((1, 0)), axis_uses(call, constant), "dense")
                    self._note(table, "multiplied", call, kernel=kernel)

    def _views_of(self, tensor: Tensor) -> list[View]:
        if tensor.number not in self._views and tensor.variable is not None:
            self._views[tensor.number] = [View.from_variable(tensor.variable)]
        return self._views.get(tensor.number, [])

    def _use(self, call: Call, view: View, tensor: Tensor, others: list[Tensor], is_signal: bool) -> None:
        """Notes what a call does with a weight, or with what was made of it."""
        kind = type(call.layer).__name__
        if isinstance(call.layer, keras.Layer):
            if call.reason:
                self._note(view, "unknown", call, f"{call.path} reads it, and its operations cannot be seen")
            else:
                reason = f"it is a signal itself, which {call.path} reads"
                self._note(view, "no kernel", call, _REASONS.get(kind, reason))
                self._signals.update(each.number for each in call.outputs)
            return
        taken = looked_up(call, view)
        if taken is not None and kind == "Take" and _is_number(taken[1]):
            self._go_on(call, view.picked(a for a in range(len(view.sizes)) if a != taken[0]))
        elif taken is not None:
            axis, indices = taken
            if not (isinstance(indices, Tensor) and indices.number in self._signals):
                self._note(view, "no kernel", call, FIXED_TABLE)
                self._go_on(call, replace(view, axes=None))
            elif indices.number != tensor.number:
                self._note_lookup(view, axis, call)
        elif kind in _PRODUCTS:
            self._use_in_product(call, view, tensor, others, is_signal)
        elif is_signal:
            reason = _REASONS.get(kind, f"{call.path} reads it, which multiplies it into no signal")
            self._note(view, "no kernel", call, reason)
        else:
            after = self._arranged(call, view)
            if after.axes is None and len(call.inputs) > 1:
                self._note(view, "no kernel", call, f"{call.path} combines it with other weights, which have more axes")
            else:
                self._go_on(call, after)

    def _arranged(self, call: Call, view: View) -> View:
        """Returns what an operation on weights and constants alone makes of a view."""
        kind = type(call.layer).__name__
        after = moved(call, view)
        if after is not None:
            return after
        shape = call.outputs[0].shape
        if view.axes is not None and _fits(view.sizes, shape):
            if kind in ("Add", "Subtract") or (kind in SCALINGS and len(call.inputs) > 1):
                return view
            constants = [each for each in (*call.args, *call.kwargs.values()) if not isinstance(each, Tensor)]
            if kind in SCALINGS and len(constants) == 1 and (kind == "Multiply" or constants[0] is not call.args[0]):
                size = _root_mean_square(constants[0])
                if size:
                    return replace(view, factor=view.factor * (size if kind == "Multiply" else 1 / size))
        if kind == "Concatenate" and view.axes is not None:
            axis = call.layer.axis % len(view.sizes)
            return view if shape[axis] is None else view.resized(axis, shape[axis])
        if kind == "Stack" and view.axes is not None:
            axis = call.layer.axis % len(shape)
            return view.picked([*range(axis), None, *range(axis, len(view.sizes))]).resized(axis, len(call.inputs))
        return replace(view, axes=None)

    def _use_in_product(self, call: Call, view: View, tensor: Tensor, others: list[Tensor], is_signal: bool) -> None:
        if tensor.number in self._signals or not is_signal:
            if not is_signal:
                self._note(view, "no kernel", call, "it is a factor of other weights, as in a LoRA adapter")
            return
        if view.axes is None:
            self._note(view, "unknown", call, f"{call.path} multiplies a signal by a function of it")
            return
        if any(each.number in self._one_hot for each in others):
            axis = next((axis for axis, use in enumerate(axis_uses(call, tensor)) if use == "in"), None)
            if axis is not None:
                self._note_lookup(view, axis, call)
                return
        try:
            kernel = describe_product(call, view, tensor)
        except (ValueError, TypeError, IndexError, KeyError) as error:  # an operation that has another form than ours
            self._note(view, "unknown", call, f"{call.path} multiplies it in a way that is not known ({error})")
        else:
            if kernel.role == "dense" and {each.number for each in others} & self._states:
                kernel = replace(kernel, role="recurrent")
            self._note(view, "multiplied", call, kernel=kernel)

    def _note_lookup(self, view: View, axis: int, call: Call) -> None:
        if view.axes is None:
            self._note(view, "unknown", call, f"{call.path} looks rows up in a function of it")
            return
        uses: list[AxisUse] = ["batch" if each == axis else "out" for each in range(len(view.sizes))]
        self._note(view, "looked up", call, kernel=view_kernel(view, uses, "embedding"))

    def _note(self, view: View, how: How, call: Call, reason: str = "", kernel: Kernel | None = None) -> None:
        self.found.setdefault(id(view.variable), []).append(Use(how, call, reason, kernel))

    def _go_on(self, call: Call, view: View) -> None:
        for output in call.outputs:
            if output.variable is None:
                self._views.setdefault(output.number, []).append(view)


def _is_transposed(constant: Any, variable: keras.Variable) -> bool:
    """Whether an array holds the values of a variable, transposed and perhaps cast."""
    copy, values = (to_numpy(each).astype("float32") for each in (constant, variable))
    return bool(np.allclose(copy, values.T, rtol=0.01)) and bool(values.any())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | np.integer) or (hasattr(value, "shape") and tuple(value.shape) == ())


def _fits(sizes: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    return len(sizes) == len(shape) and all(b is None or a == b for a, b in zip(sizes, shape, strict=True))


def _root_mean_square(constant: Any) -> float:
    """Returns the root mean square of a constant; 0 where it is none."""
    try:
        values = np.asarray(keras.ops.convert_to_numpy(constant), "float64")
    except Exception:  # whatever else an operation takes: a name, a shape, None
        return 0.0
    size = math.sqrt(float(np.mean(values**2))) if values.size else 0.0
    return size if math.isfinite(size) else 0.0
