"""Small random models, whose training `test_random_graphs.py` compares with and without measuring.

A program is a list of steps `(kind, first, second, number)`: each makes one more tensor of six units from two earlier
ones. Its loss, optimizer and rank of tensors belong to it. So hypothesis can shrink what it finds to a few steps, which
then stand as an example.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers, ops

UNITS = 6
# All that is not exact in binary, so that another order of operations shows.
NUMBERS = (0.1, 0.3, 0.7, 1.1, 3.3, 7.0, 10.0)


class Program(NamedTuple):
    """What a model computes, and what it learns."""

    steps: tuple[tuple[str, int, int, float], ...]
    loss: str = "mse"
    optimizer: str = "sgd"
    sequences: bool = False


class Weighted(layers.Layer):
    """A layer with one weight, whose output ends in an operation of the reader's choice; it is measured there."""

    def __init__(self, shape: tuple[int, ...], function: Callable[..., Any], start: Any = "glorot_uniform"):
        super().__init__()
        self.function = function
        self.w = self.add_weight(shape=shape, initializer=start, name="w")

    def call(self, a: Any, b: Any) -> Any:
        return self.function(self.w, a, b)

    def compute_output_shape(self, a_shape: Any, b_shape: Any) -> Any:
        return a_shape


def _matrix(function: Callable[..., Any]) -> Callable[[], layers.Layer]:
    return lambda: Weighted((UNITS, UNITS), function)


def _vector(function: Callable[..., Any]) -> Callable[[], layers.Layer]:
    return lambda: Weighted((UNITS,), function, keras.initializers.RandomUniform(0.5, 1.5, seed=1))


# What needs a weight, so that its output is read; `c` is the step's number.
LAYERS: dict[str, Callable[[float], layers.Layer]] = {
    **{f"dense_{f}": lambda c, f=f: layers.Dense(UNITS, f) for f in ("linear", "relu", "gelu", "tanh", "silu", "elu")},
    "dense_no_bias": lambda c: layers.Dense(UNITS, use_bias=False),
    "dense_regularized": lambda c: layers.Dense(UNITS, kernel_regularizer=keras.regularizers.L2(c / 100)),
    "product_times": lambda c: _matrix(lambda w, a, b: ops.matmul(a, w) * c)(),
    "product_over": lambda c: _matrix(lambda w, a, b: ops.matmul(a, w) / c)(),
    "product_plus": lambda c: _matrix(lambda w, a, b: ops.matmul(a, w) + c)(),
    "number_minus_product": lambda c: _matrix(lambda w, a, b: c - ops.matmul(a, w))(),
    "product_and_product": lambda c: _matrix(lambda w, a, b: ops.matmul(a, w) * b)(),
    "product_and_sum": lambda c: _matrix(lambda w, a, b: ops.matmul(a, w) + b)(),
    "gain": lambda c: _vector(lambda w, a, b: a * w)(),
    "gain_times": lambda c: _vector(lambda w, a, b: a * w * c)(),
    "number_gain": lambda c: _vector(lambda w, a, b: (c * w) * a)(),
    "over_gain": lambda c: _vector(lambda w, a, b: a / w)(),
    "shift": lambda c: _vector(lambda w, a, b: a + w)(),
    "minus_shift": lambda c: _vector(lambda w, a, b: (a - w) / c)(),
    "gated": lambda c: _vector(lambda w, a, b: a * ops.sigmoid(b * w))(),
    "mixed": lambda c: _vector(lambda w, a, b: a * w + b * (1 - w))(),
    "exponential": lambda c: _vector(lambda w, a, b: ops.exp(-ops.square(a * w)))(),
    "softmax": lambda c: _vector(lambda w, a, b: ops.softmax(a * w / c))(),
    "layer_normalization": lambda c: layers.LayerNormalization(),
    "batch_normalization": lambda c: layers.BatchNormalization(),
    "rms_normalization": lambda c: _vector(
        lambda w, a, b: a * ops.rsqrt(ops.mean(ops.square(a), -1, keepdims=True) + 1e-3) * w
    )(),
    "prelu": lambda c: layers.PReLU(shared_axes=[1]),
}
# What stands between them.
OPERATIONS: dict[str, Callable[[Any, Any, float], Any]] = {
    "add": lambda a, b, c: a + b,
    "subtract": lambda a, b, c: a - b,
    "multiply": lambda a, b, c: a * b,
    "divide": lambda a, b, c: a / (ops.square(b) + 1),
    "times": lambda a, b, c: a * c,
    "over": lambda a, b, c: a / c,
    "plus": lambda a, b, c: a + c,
    "number_minus": lambda a, b, c: c - a,
    "number_over": lambda a, b, c: c / (ops.square(a) + 1),
    "negative": lambda a, b, c: -a,
    "relu": lambda a, b, c: ops.relu(a),
    "tanh": lambda a, b, c: ops.tanh(a),
    "sigmoid": lambda a, b, c: ops.sigmoid(a),
    "exp_minus_one": lambda a, b, c: ops.exp(ops.tanh(a)) - 1,
    "log_plus_one": lambda a, b, c: ops.log(ops.square(a) + 1),
    "square": lambda a, b, c: ops.square(a),
    "stopped": lambda a, b, c: ops.stop_gradient(a),
    "centered": lambda a, b, c: a - ops.mean(a, -1, keepdims=True),
    "summed": lambda a, b, c: a * ops.sum(b, -1, keepdims=True),
    "softmax_of": lambda a, b, c: ops.softmax(a / c),
    "sum_of_three": lambda a, b, c: a + b + ops.tanh(b),
    "joined": lambda a, b, c: ops.concatenate([ops.tanh(a)[..., :3], ops.tanh(b)[..., 3:]], -1),
    "dropout": lambda a, b, c: layers.Dropout(min(c, 0.5), seed=3)(a),
}
KINDS = (*LAYERS, *OPERATIONS)


def _softened(y: Any, p: Any, temperature: float) -> Any:
    return keras.losses.kl_divergence(ops.softmax(y / temperature), ops.softmax(p / temperature)) * temperature**2


LOSSES: dict[str, Callable[[Any, Any], Any] | str] = {
    "mse": "mse",
    "mae": "mae",
    "softened_10": lambda y, p: _softened(y, p, 10),
    "softened_3": lambda y, p: _softened(y, p, 3),
    "soft_labels": lambda y, p: keras.losses.categorical_crossentropy(ops.softmax(y), p / 0.7, from_logits=True),
    "cosine": lambda y, p: keras.losses.cosine_similarity(y, p),
    "half_square": lambda y, p: ops.mean(ops.square(p * 0.3 - y), -1) / 2,
}


def programs(most: int = 9) -> st.SearchStrategy[Program]:
    """Draws programs of up to `most` steps, the last tensors more often read than the first."""
    place = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 5])  # how far back
    step = st.tuples(st.sampled_from(KINDS), place, place, st.sampled_from(NUMBERS))
    steps = st.lists(step, min_size=3, max_size=most).map(tuple)
    optimizer = st.sampled_from(["sgd", "adam", "momentum"])
    return st.builds(Program, steps, st.sampled_from(sorted(LOSSES)), optimizer, st.booleans())


def build(program: Program, jit_compile: bool = False) -> keras.Model:
    """Returns the compiled model of a program."""
    keras.utils.set_random_seed(7)
    inputs = keras.Input((4, UNITS) if program.sequences else (UNITS,))
    made = [inputs, layers.Dense(UNITS, name="first")(inputs)]
    for kind, first, second, number in program.steps:
        a, b = made[-1 - first % len(made)], made[-1 - second % len(made)]
        if kind in LAYERS:
            layer = LAYERS[kind](number)
            made.append(layer(a, b) if isinstance(layer, Weighted) else layer(a))
        else:
            made.append(OPERATIONS[kind](a, b, number))
    outputs = layers.Dense(UNITS, name="last")(made[-1])
    model = keras.Model(inputs, outputs)
    optimizers = {"sgd": keras.optimizers.SGD(0.1), "momentum": keras.optimizers.SGD(0.1, 0.9), "adam": "adam"}
    model.compile(optimizers[program.optimizer], LOSSES[program.loss], jit_compile=jit_compile)
    return model


def batches(program: Program, examples: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs and targets."""
    rng = np.random.default_rng(0)
    shape = (examples, 4, UNITS) if program.sequences else (examples, UNITS)
    return rng.standard_normal(shape).astype("float32"), rng.standard_normal(shape).astype("float32")


def differences(program: Program, callback: Callable[[], Any], jit_compile: bool = False) -> dict[str, float]:
    """Returns what a few steps leave different when a callback runs: paths of variables, and by how much at most."""

    def trained(callbacks: list[Any]) -> list[tuple[str, np.ndarray]]:
        keras.backend.clear_session()
        model = build(program, jit_compile)
        x, y = batches(program)
        history = model.fit(x, y, batch_size=8, shuffle=False, verbose=0, epochs=2, callbacks=callbacks).history
        variables = [*model.variables, *model.optimizer.variables]
        values = [(each.path, keras.ops.convert_to_numpy(each.value)) for each in variables]
        return [*values, *((name, np.asarray(value)) for name, value in history.items())]

    pairs = zip(trained([]), trained([callback()]), strict=True)
    return {
        path: float(np.nanmax(np.abs(np.subtract(a, b, dtype="float64"))))
        for (path, a), (_, b) in pairs
        if a.tobytes() != b.tobytes()
    }
