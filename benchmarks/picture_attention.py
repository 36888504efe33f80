"""Figures of the kinds about attention: healthy and broken, for diagnosis_pictures.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from picture_panel import Panel

from keras_initkit import probe

WORDS, LENGTH, UNITS, BLOCKS = 20, 8, 16, 6
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(1, WORDS, (64, LENGTH)).astype("int32")
LABELS = TOKENS[:, 0] % 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SIGNAL = RNG.standard_normal((64, LENGTH, UNITS)).astype("float32")


def attention(scale: float = 1.0) -> layers.MultiHeadAttention:
    """Two heads, whose kernels of queries and keys are multiplied by a scale."""
    keras.utils.set_random_seed(0)
    layer = layers.MultiHeadAttention(2, UNITS // 2, name="attention")
    layer(SIGNAL, SIGNAL)
    for part in (layer.query_dense, layer.key_dense):
        part.kernel.assign(scale * part.kernel)
    return layer


def weights(layer: layers.MultiHeadAttention, x: Any = SIGNAL, **options: Any) -> np.ndarray:
    """Weights by example, head, query and key."""
    return ops.convert_to_numpy(layer(x, x, return_attention_scores=True, **options)[1])


def by_distance(found: np.ndarray) -> list[float]:
    """Mean weight by how far the key is behind the query."""
    mean = found.mean(axis=(0, 1))
    return [float(np.mean(np.diagonal(mean, offset))) for offset in range(1 - LENGTH, LENGTH)]


def classifier(positions: bool = True, without_sum: int | None = None, frozen: bool = False) -> keras.Model:
    """Blocks of attention over tokens."""
    keras.utils.set_random_seed(0)
    tokens = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(WORDS, UNITS, keras.initializers.RandomNormal(stddev=1.0))(tokens)
    if positions:
        x = layers.Add(name="embedded")(
            [x, layers.Embedding(LENGTH, UNITS)(ops.cumsum(ops.ones_like(tokens), axis=1) - 1)]
        )
    for block in range(BLOCKS if without_sum is not None else 1):
        layer = layers.MultiHeadAttention(2, UNITS // 2, name=f"attention_{block}")
        y = layer(x, x)
        layer.query_dense.trainable = layer.key_dense.trainable = not frozen
        x = y if block == without_sum else layers.Add(name=f"sum_{block}")([x, y])
    return keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def changes_by_order(model: keras.Model) -> np.ndarray:
    """How much the output of each of some examples changes when its tokens change places."""
    given, moved = (ops.convert_to_numpy(model(tokens)) for tokens in (TOKENS[:16], TOKENS[:16, ::-1]))
    return np.linalg.norm(given - moved, axis=1) / np.linalg.norm(given, axis=1) + 1e-9


def gradients_by_block(without_sum: int) -> list[float]:
    """Standard deviation of the gradient at the output of each block's attention."""
    model = classifier(without_sum=without_sum)
    rows = probe(model, TOKENS, LABELS, loss=LOSS).rows
    found = {row.tap.layer: row.moments.stddev for row in rows if row.tap.kind == "output_gradient"}
    return [found[f"attention_{block}/attention_output"] for block in range(BLOCKS)]


def moved(frozen: bool) -> list[float]:
    """How far the kernel of the queries has moved after each epoch, relative to its size."""
    model = classifier(frozen=frozen)
    model.compile(keras.optimizers.Adam(1e-3), LOSS)
    kernel = model.get_layer("attention_0").query_dense.kernel
    start, found = ops.convert_to_numpy(kernel).copy(), [0.0]
    for _ in range(8):
        model.fit(TOKENS, LABELS, batch_size=8, verbose=0)
        found.append(float(np.linalg.norm(ops.convert_to_numpy(kernel) - start) / np.linalg.norm(start)))
    return found


def entropies(scale: float) -> list[float]:
    """By how much the entropy lies below that of uniform weights, after every sixteen steps."""
    model = classifier()
    layer = model.get_layer("attention_0")
    for part in (layer.query_dense, layer.key_dense):
        part.kernel.assign(scale * part.kernel)
    model.compile(keras.optimizers.SGD(0.05), LOSS)
    reader, found = keras.Model(model.inputs, model.get_layer("embedded").output), []
    for _ in range(9):
        read = weights(layer, reader(TOKENS)).astype("float64")
        read /= read.sum(-1, keepdims=True)
        entropy = -(read * np.log(read)).sum(-1).mean()
        found.append(float(1 - entropy / np.log(LENGTH)))
        model.fit(TOKENS, LABELS, batch_size=8, epochs=2, verbose=0)
    return found


def panels() -> Iterator[Panel]:
    """Yields a panel for each kind."""
    layer = attention()
    offsets = np.arange(1 - LENGTH, LENGTH)
    masked = weights(layer, use_causal_mask=True)
    figures = map(by_distance, (masked, weights(layer)))
    yield Panel(
        "future_attended",
        "mean weight",
        *figures,
        x_label="position of the key relative to the query",
        x=offsets,
        across=0,
    )

    scores = np.log(weights(attention(2.0)))[0, 0]
    sums = (ops.convert_to_numpy(ops.softmax(scores, axis=axis)).sum(-1) for axis in (-1, -2))
    yield Panel("uneven_attention", "sum of the\nweights", *sums, x_label="query")

    keep = np.broadcast_to(np.arange(LENGTH) < 5, (len(SIGNAL), LENGTH, LENGTH))
    shares = (found[:, :, :5].mean((0, 1, 2)) for found in (weights(layer, attention_mask=keep), weights(layer)))
    yield Panel("padding_attended", "mean weight", *shares, x_label="key (5 to 7 are padding)", bars=True, across=4.5)

    changes = (changes_by_order(classifier(positions)) for positions in (True, False))
    yield Panel("positions_lost", "change of the output\nby order", *changes, x_label="example", log=True)

    figures = map(gradients_by_block, (-1, 3))
    yield Panel("residual_lost", "sd of gradients", *figures, x_label="block", log=True)

    ranked = (np.sort(weights(attention(scale)))[..., ::-1].mean((0, 1, 2)) for scale in (1.0, 4.0))
    yield Panel("collapsed_attention", "mean weight", *ranked, x_label="key, by its weight", bars=True)

    yield Panel("query_key_frozen", "change of the\nquery kernel", *map(moved, (False, True)), x_label="epoch")

    below = map(entropies, (1.0, 1e-3))
    steps = np.arange(0, 144, 16)
    yield Panel("uniform_attention", "1 - entropy\n/ uniform one", *below, 1e-5, "step", steps, log=True)
