"""The older ways to pass data, `data=` and a pair `(x, y)`, which warn and are to go after one release."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from keras_initkit.structure._calls import has_graph


def unpack_data(
    call: str, model: keras.Model, x: Any, y: Any, data: Any = None, stacklevel: int = 3
) -> tuple[Any, Any]:
    """Returns examples and labels, passed as `x` and `y`, as a pair in `x`, or as `data=`.

    `call` is the call to recommend, up to the examples, such as `"initialize(model, scheme"`.
    """
    old = data is not None
    if old:
        if x is not None or y is not None:
            raise ValueError(f"data: got data= beside x or y, expected {call}, x, y).")
        x = data
    # Of a model with several inputs, a tuple of as many arrays is its `x`.
    inputs = len(model.inputs) if has_graph(model) else 1
    if y is None and isinstance(x, tuple) and (inputs == 1 or len(x) != inputs or keras.tree.is_nested(x[0])):
        if len(x) not in (1, 2):
            name = "data" if old else "x"
            raise ValueError(
                f"{name}: got a tuple of {len(x)}, expected examples. Pass several inputs as a list, and labels as y."
            )
        old, x, y = True, x[0], x[1] if len(x) == 2 else None
    if old:
        written = f"{call}, x)" if y is None else f"{call}, x, y)"
        warnings.warn(
            f"Passing data= or a tuple of data is deprecated; write {written}.",
            DeprecationWarning,
            stacklevel=stacklevel,
        )
    if x is None and y is not None:
        raise ValueError("y: got labels without examples, expected x and y. Pass x too.")
    return x, y
