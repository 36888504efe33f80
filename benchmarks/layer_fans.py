"""How a layer scales unit variance, forward and backward: Keras' own fans beside `layer_fans`.

    KERAS_BACKEND=jax python benchmarks/layer_fans.py

Prints a Markdown table. Each figure is a mean square over positions away from borders, averaged over fresh
kernels and fresh inputs: of the output for a standard normal input, kernels drawn with variance 1/fan_in
(`lecun_normal`); and of the gradient that reaches the input for a standard normal cotangent at the output,
kernels drawn with variance 1/fan_out. 1 is right. The gradient is the framework's own.

A recurrent cell is not linear, so what is measured there is the pre-activation of each gate, as its activation
function gets it: from the input with the state at zero, and from the state with the input at zero; the
figure is the mean over the gates. An attention layer is measured at each of its projections.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers
from scipy.stats import truncnorm

from keras_initkit.structure import kernels, sublayers

RANDOM = np.random.default_rng(0)  # NumPy, since JAX compiles its generator anew for every shape
TRUNCATED_NORMAL = truncnorm(-2, 2)
KERAS = {
    "fan_in": lambda: keras.initializers.LecunNormal(),
    "fan_out": lambda: keras.initializers.VarianceScaling(1.0, "fan_out", "truncated_normal"),
}


@dataclass(frozen=True)
class Case:
    """A layer, and the linear maps in it that are measured."""

    name: str
    make: Callable  # from a factory of initializers to a built layer
    shape: tuple[int, ...]  # of an input, batch included
    in_crop: int = 0  # inputs, and outputs below, near each border that are left out
    out_crop: int = 0
    maps: Callable = lambda layer: [layer]  # from the layer to functions of the input
    vocabulary: int | None = None  # inputs are integers below it, which have no gradient


def linear(name, layer_class, *args, shape, crop=0, stride=1, up=1, initializers=("kernel",), **options) -> Case:
    """A layer that is linear itself; `crop` counts positions of the coarser of its input and output."""

    def make(initializer):
        layer = layer_class(
            *args, **options, **{f"{which}_initializer": initializer() for which in initializers}, use_bias=False
        )
        layer.build((None, *shape[1:]))
        return layer

    return Case(name, make, shape, crop * stride, crop * up)


def conv(name, rank, *args, kind="Conv{}D", stride=1, **options) -> Case:
    up = stride if "Transpose" in kind else 1
    length = {1: 24, 2: 12, 3: 10}[rank] // up
    channels = options.pop("channels", {1: 64, 2: 32, 3: 16}[rank])
    return linear(
        name, getattr(layers, kind.format(rank)), *args, shape=(8, *[length] * rank, channels),
        crop=2, stride=1 if up > 1 else stride, up=up, padding="same", strides=stride, **options,
    )  # fmt: skip


def projections(name, layer_class, *args) -> list[Case]:
    """The projections of an attention layer, each by itself."""

    def case(which, channels):
        def make(initializer):
            layer = layer_class(*args, kernel_initializer=initializer(), use_bias=False)
            layer.build(*[(None, 8, 64)] * 3)
            # "attention_output" takes heads and their features; the others take the features of the model.
            return next(part for part in sublayers(layer) if part.name == which)

        return Case(f"{name} {which}", make, (32, 8, *channels))

    return [case("query", (64,)), case("key", (64,)), case("value", (64,)), case("attention_output", (4, 24))]


def recurrent(name, layer_class, *args, shape, crop=0, stride=1, cells=lambda layer: [layer.cell], **options):
    """The input and the recurrent kernel of an RNN, each by the pre-activations that it causes in the gates."""

    def make(initializer):
        def build():
            return layer_class(
                *args, use_bias=False, kernel_initializer=initializer(), recurrent_initializer=initializer(), **options
            )

        layer = layers.Bidirectional(build()) if cells is both_directions else build()
        layer.build((None, 2, *shape[1:]))
        return layer

    def gate_maps(layer, of_state):
        def gate_map(cell, gate):
            def pre_activation(values):
                seen = []

                def record(z):  # in place of the activations; ones keep a reset gate open
                    seen.append(z)
                    return keras.ops.ones_like(z)

                cell.activation = cell.recurrent_activation = record
                states = cell.get_initial_state(values.shape[0])
                states = list(states) if isinstance(states, list | tuple) else [states]
                if of_state:
                    states[0], values = values, keras.ops.zeros(shape)
                cell(values, states)
                return seen[gate]

            return pre_activation

        gates = len(kernels(layer)[0].gates) or 1
        return [gate_map(cell, gate) for cell in cells(layer) for gate in range(gates)]

    units = args[0]
    state_shape = (shape[0], *[length // stride for length in shape[1:-1]], units)
    return [
        Case(f"{name} input", make, shape, crop * stride, crop, lambda layer: gate_maps(layer, False)),
        Case(f"{name} recurrent", make, state_shape, crop, crop, lambda layer: gate_maps(layer, True)),
    ]


def both_directions(layer):
    return [layer.forward_layer.cell, layer.backward_layer.cell]


def shared_and_nested(initializer):
    shared = layers.Dense(256, use_bias=False, kernel_initializer=initializer())
    inner = keras.Sequential([keras.Input((256,)), shared])
    inputs = keras.Input((256,))
    head = layers.Dense(256, use_bias=False, kernel_initializer=initializer())
    return keras.Model(inputs, head(inner(inner(inputs))))


def embedding(initializer):
    layer = layers.Embedding(100, 64, embeddings_initializer=initializer())
    layer.build((None,))
    return layer


def time_distributed(initializer):
    layer = layers.TimeDistributed(layers.Dense(48, use_bias=False, kernel_initializer=initializer()))
    layer.build((None, 4, 64))
    return layer


def einsum(name, equation, output_shape, shape) -> Case:
    def make(initializer):
        layer = layers.EinsumDense(equation, output_shape, kernel_initializer=initializer())
        layer.build((None, *shape[1:]))
        return layer

    return Case(name, make, shape)


SEPARABLE = ("depthwise", "pointwise")
CASES = [
    linear("Dense 64->48", layers.Dense, 48, shape=(64, 64)),
    einsum("EinsumDense abc,cde->abde", "abc,cde->abde", (None, 6, 8), (16, 4, 64)),
    einsum("EinsumDense abc,bcd->abd", "abc,bcd->abd", (4, 48), (64, 4, 64)),
    *projections("MultiHeadAttention", layers.MultiHeadAttention, 4, 24),
    *projections("GroupQueryAttention", layers.GroupQueryAttention, 24, 4, 2),
    conv("Conv1D k5", 1, 48, 5),
    conv("Conv1D k4, stride 3", 1, 48, 4, stride=3),
    conv("Conv2D k3", 2, 24, 3),
    conv("Conv2D k3, groups 8", 2, 48, 3, groups=8),
    conv("Conv2D k3, stride 2", 2, 24, 3, stride=2),
    conv("Conv2D k3, dilation 2", 2, 24, 3, dilation_rate=2),
    conv("Conv3D k3", 3, 12, 3),
    conv("Conv3D k3, stride 2", 3, 12, 3, stride=2),
    conv("DepthwiseConv1D k5", 1, 5, kind="DepthwiseConv{}D", initializers=("depthwise",)),
    conv("DepthwiseConv2D k3", 2, 3, kind="DepthwiseConv{}D", channels=64, initializers=("depthwise",)),
    conv("DepthwiseConv2D k3, multiplier 3, stride 2", 2, 3, kind="DepthwiseConv{}D", stride=2, channels=64,
         depth_multiplier=3, initializers=("depthwise",)),
    conv("SeparableConv1D k5", 1, 48, 5, kind="SeparableConv{}D", initializers=SEPARABLE),
    conv("SeparableConv2D k3, stride 2", 2, 48, 3, kind="SeparableConv{}D", stride=2, initializers=SEPARABLE),
    conv("Conv1DTranspose k5", 1, 48, 5, kind="Conv{}DTranspose"),
    conv("Conv1DTranspose k2, stride 3", 1, 48, 2, kind="Conv{}DTranspose", stride=3),
    conv("Conv2DTranspose k3, 64->16", 2, 16, 3, kind="Conv{}DTranspose", channels=64),
    conv("Conv2DTranspose k3, stride 2", 2, 32, 3, kind="Conv{}DTranspose", stride=2),
    conv("Conv2DTranspose k4, stride 2", 2, 32, 4, kind="Conv{}DTranspose", stride=2),
    conv("Conv3DTranspose k3, 16->8", 3, 8, 3, kind="Conv{}DTranspose"),
    *recurrent("SimpleRNN", layers.SimpleRNN, 48, shape=(64, 64)),
    *recurrent("LSTM", layers.LSTM, 48, shape=(64, 64)),
    *recurrent("GRU", layers.GRU, 48, shape=(64, 64)),
    *recurrent("Bidirectional LSTM", layers.LSTM, 48, shape=(64, 64), cells=both_directions),
    *recurrent("ConvLSTM1D k3", layers.ConvLSTM1D, 32, 3, shape=(4, 16, 32), crop=2, padding="same"),
    *recurrent("ConvLSTM2D k3, stride 2", layers.ConvLSTM2D, 16, 3, shape=(4, 12, 12, 16), crop=2, stride=2,
               strides=2, padding="same"),
    *recurrent("ConvLSTM3D k3", layers.ConvLSTM3D, 8, 3, shape=(2, 6, 6, 6, 8), crop=2, padding="same"),
    Case("TimeDistributed Dense", time_distributed, (16, 4, 64)),
    Case("Embedding", embedding, (64, 8), vocabulary=100),
    Case("nested models, a Dense used twice", shared_and_nested, (64, 256)),
]  # fmt: skip


def gradient(function, inputs, cotangent_of):
    """What a cotangent at the output, `cotangent_of(output)`, becomes at the input."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = function(inputs)
        return tape.gradient(outputs, inputs, output_gradients=cotangent_of(outputs))
    if backend == "jax":
        import jax

        outputs, pull_back = jax.vjp(function, inputs)
        return pull_back(cotangent_of(outputs))[0]
    import torch

    inputs = inputs.detach().requires_grad_(True)
    outputs = function(inputs)
    return torch.autograd.grad(outputs, inputs, cotangent_of(outputs))[0]


def standard_normal(shape):
    return keras.ops.convert_to_tensor(RANDOM.standard_normal(tuple(shape), dtype="float32"))


def interior(tensor, crop: int) -> np.ndarray:
    values = keras.ops.convert_to_numpy(tensor).astype("float64")
    return values[(slice(None), *[slice(crop, -crop)] * (values.ndim - 2))] if crop else values


def prepared(case: Case, ours: bool, mode: str):
    """The case's layer with fresh kernels."""
    layer = case.make(KERAS[mode])
    for kernel in kernels(layer) if ours else ():
        stddev = 1 / math.sqrt(getattr(kernel.fans, mode))
        values = TRUNCATED_NORMAL.rvs(kernel.variable.shape, random_state=RANDOM) / TRUNCATED_NORMAL.std()
        kernel.variable.assign((stddev * values).astype("float32"))
    return layer


def measure(case: Case, ours: bool, mode: str, draws: int) -> float:
    """Mean square at the output (`mode` is fan_in) or of the gradient at the input (fan_out)."""
    if case.vocabulary and mode == "fan_out":
        return math.nan
    squares = []
    for _ in range(draws):
        layer = prepared(case, ours, mode)
        for function in case.maps(layer):
            if case.vocabulary:
                inputs = keras.ops.convert_to_tensor(RANDOM.integers(case.vocabulary, size=case.shape))
            else:
                inputs = standard_normal(case.shape)
            if mode == "fan_in":
                result = interior(function(inputs), case.out_crop)
            else:
                back = gradient(function, inputs, lambda outputs: standard_normal(outputs.shape))
                result = interior(back, case.in_crop)
            squares.append(np.mean(result**2))
    return float(np.mean(squares))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=20, help="kernels drawn for each figure")
    draws = parser.parse_args().draws
    keras.utils.set_random_seed(0)
    start = time.perf_counter()
    print("| layer | forward, Keras | forward, ours | backward, Keras | backward, ours |")
    print("|---|---|---|---|---|")
    for case in CASES:
        figures = [measure(case, ours, mode, draws) for mode in ("fan_in", "fan_out") for ours in (False, True)]
        print(f"| {case.name} | " + " | ".join("-" if math.isnan(f) else f"{f:.3f}" for f in figures) + " |")
    print(f"\nKeras {keras.__version__}, {keras.backend.backend()}, {draws} draws, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
