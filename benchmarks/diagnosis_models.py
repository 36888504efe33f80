"""Sound models and training runs, on which a diagnosis has nothing to say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import layers as L

FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Case(NamedTuple):
    """A training run.

    Args:
        build: makes the model, not yet compiled.
        data: name of its data set.
        optimizer: makes its optimizer.
    """

    build: Callable[[], keras.Model]
    data: str = "flat"
    optimizer: Callable[[], keras.optimizers.Optimizer] = keras.optimizers.Adam
    loss: Any = FROM_LOGITS
    epochs: int = 5
    batch_size: int = 32


def adam(rate: float = 1e-3) -> Callable[[], keras.optimizers.Optimizer]:
    return lambda: keras.optimizers.Adam(rate)


def sgd(rate: float, momentum: float = 0.0) -> Callable[[], keras.optimizers.Optimizer]:
    return lambda: keras.optimizers.SGD(rate, momentum)


def mlp(
    depth: int,
    width: int,
    activation: Any,
    initializer: Any = "glorot_uniform",
    norm: type[keras.layers.Layer] | None = None,
    dropout: float = 0.0,
    inputs: int = 64,
    outputs: int = 10,
    head: str | None = None,
    **options: Any,
) -> keras.Model:
    """Hidden layers of one width, normalised before their activations if at all."""
    x = given = keras.Input((inputs,))
    for _ in range(depth):
        x = L.Dense(width, None if norm else activation, kernel_initializer=initializer, **options)(x)
        if norm is not None:
            x = L.Activation(activation)(norm()(x))
        if dropout:
            x = L.Dropout(dropout)(x)
    return keras.Model(given, L.Dense(outputs, head)(x))


def residual_mlp(branches: int, zero_last: bool = False, inputs: int = 64) -> keras.Model:
    """Branches of two layers on a stream, without normalisation."""
    given = keras.Input((inputs,))
    x = L.Dense(32)(given)
    for _ in range(branches):
        y = L.Dense(32, "relu", kernel_initializer="he_normal")(x)
        x = L.Add()([x, L.Dense(32, kernel_initializer="zeros" if zero_last else "glorot_uniform")(y)])
    return keras.Model(given, L.Dense(10)(x))


def cnn(
    filters: Sequence[int],
    size: int = 8,
    activation: str = "relu",
    norm: type[keras.layers.Layer] | None = None,
    initializer: str = "glorot_uniform",
    flatten: bool = True,
) -> keras.Model:
    """Convolutions, each second one with a stride of two."""
    x = given = keras.Input((size, size, 1))
    for number, count in enumerate(filters):
        x = L.Conv2D(count, 3, 1 + number % 2, "same", use_bias=norm is None, kernel_initializer=initializer)(x)
        x = L.Activation(activation)(x if norm is None else norm()(x))
    x = L.Flatten()(x) if flatten else L.GlobalAveragePooling2D()(x)
    return keras.Model(given, L.Dense(10)(x))


def resnet(blocks: int, size: int = 8, pre_activation: bool = False, zero_gamma: bool = False) -> keras.Model:
    """Residual blocks of two convolutions with batch normalisation (He et al. 2016, both orders)."""
    given = keras.Input((size, size, 1))
    x = L.Conv2D(12, 3, padding="same", use_bias=False)(given)
    if not pre_activation:
        x = L.ReLU()(L.BatchNormalization()(x))
    for _ in range(blocks):
        y = x
        for last in (False, True):
            if pre_activation:
                y = L.ReLU()(L.BatchNormalization()(y))
            y = L.Conv2D(12, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(y)
            if not pre_activation:
                gamma = "zeros" if last and zero_gamma else "ones"
                y = L.BatchNormalization(gamma_initializer=gamma)(y)
                y = y if last else L.ReLU()(y)
        x = L.Add()([x, y]) if pre_activation else L.ReLU()(L.Add()([x, y]))
    if pre_activation:
        x = L.ReLU()(L.BatchNormalization()(x))
    return keras.Model(given, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


def mobile(size: int = 8) -> keras.Model:
    """Depthwise and pointwise convolutions, each with batch normalisation."""
    x = given = keras.Input((size, size, 1))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 3, padding="same", use_bias=False)(x)))
    for _ in range(2):
        x = L.ReLU(6.0)(L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same", use_bias=False)(x)))
        x = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(24, 1, use_bias=False)(x)))
    return keras.Model(given, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


def transformer(blocks: int = 1, tokens: int | None = None, pre_norm: bool = True, outputs: int = 10) -> keras.Model:
    """Blocks of attention and two layers, on tokens or on the rows of an image."""
    given = keras.Input((16,), dtype="int32") if tokens else keras.Input((8, 8))
    x = L.Embedding(tokens, 32)(given) if tokens else L.Dense(32)(given)
    for _ in range(blocks):
        y = L.LayerNormalization()(x) if pre_norm else x
        x = L.Add()([x, L.MultiHeadAttention(4, 8)(y, y)])
        x = x if pre_norm else L.LayerNormalization()(x)
        y = L.LayerNormalization()(x) if pre_norm else x
        x = L.Add()([x, L.Dense(32)(L.Dense(64, "gelu")(y))])
        x = x if pre_norm else L.LayerNormalization()(x)
    x = L.Flatten()(L.LayerNormalization()(x) if pre_norm else x)
    return keras.Model(given, L.Dense(outputs)(x))


def recurrent(layer: Callable[..., Any], stacked: int = 1, tokens: int | None = None) -> keras.Model:
    """Recurrent layers on tokens or on the rows of an image."""
    given = keras.Input((16,), dtype="int32") if tokens else keras.Input((8, 8))
    x = L.Embedding(tokens, 16)(given) if tokens else given
    for _ in range(stacked - 1):
        x = layer(24, return_sequences=True)(x)
    return keras.Model(given, L.Dense(4 if tokens else 10)(layer(32)(x)))


def auto_encoder(activation: str, bottleneck: int = 12, head: str | None = None) -> keras.Model:
    """With a linear bottleneck."""
    given = keras.Input((64,))
    x = L.Dense(bottleneck)(L.Dense(48, activation)(given))
    return keras.Model(given, L.Dense(64, head)(L.Dense(48, activation)(x)))


def frozen_backbone() -> keras.Model:
    """The first two layers do not train."""
    model = mlp(3, 64, "relu", "he_normal")
    for layer in model.layers[1:3]:
        layer.trainable = False
    return model


def shared_layer() -> keras.Model:
    """One layer, applied three times."""
    given = keras.Input((64,))
    x, shared = L.Dense(32, "tanh")(given), L.Dense(32, "tanh")
    return keras.Model(given, L.Dense(10)(shared(shared(shared(x)))))


def two_paths() -> keras.Model:
    """A wide and a deep path, concatenated."""
    given = keras.Input((64,))
    deep = L.Dense(32, "relu")(L.Dense(32, "relu")(given))
    return keras.Model(given, L.Dense(10)(L.Concatenate()([given, deep])))


def bag_of_words() -> keras.Model:
    """The mean of embeddings."""
    given = keras.Input((20,), dtype="int32")
    x = L.Dense(16, "relu")(L.GlobalAveragePooling1D()(L.Embedding(40, 16)(given)))
    return keras.Model(given, L.Dense(1, "sigmoid")(x))


def normalised_inputs() -> keras.Model:
    """Raw pixels of 0 to 255, which the model's own first layers scale."""
    given = keras.Input((64,))
    x = L.Rescaling(1 / 0.376, -0.305 / 0.376)(given)
    return keras.Model(given, L.Dense(10)(L.Dense(64, "relu", kernel_initializer="he_normal")(x)))


def conv1d() -> keras.Model:
    """Dilated convolutions over time."""
    x = given = keras.Input((8, 8))
    for rate in (1, 2):
        x = L.Conv1D(24, 3, padding="causal", dilation_rate=rate, activation="relu")(x)
    return keras.Model(given, L.Dense(10)(L.Flatten()(x)))


def healthy() -> dict[str, Case]:
    """The sound runs by name; those that begin with `mnist` need the file."""
    batch, layer_norm, bce = L.BatchNormalization, L.LayerNormalization, "binary_crossentropy"
    one = {"outputs": 1, "inputs": 10}
    return {
        "logistic regression, sgd": Case(lambda: mlp(0, 0, None), optimizer=sgd(0.1)),
        "relu 2x64, adam": Case(lambda: mlp(2, 64, "relu")),
        "relu 3x128 he, sgd": Case(lambda: mlp(3, 128, "relu", "he_normal"), optimizer=sgd(0.05)),
        "relu 6x64 he, adam": Case(lambda: mlp(6, 64, "relu", "he_uniform")),
        "relu 10x64 he, adam": Case(lambda: mlp(10, 64, "relu", "he_normal")),
        "relu 4x32, momentum": Case(lambda: mlp(4, 32, "relu"), optimizer=sgd(0.05, 0.9), epochs=8),
        "relu 1x512, rmsprop": Case(lambda: mlp(1, 512, "relu"), optimizer=lambda: keras.optimizers.RMSprop(1e-3)),
        "relu 2x16, adam 1e-2": Case(lambda: mlp(2, 16, "relu"), optimizer=adam(1e-2)),
        "relu 2x128, adam, converged": Case(lambda: mlp(2, 128, "relu"), optimizer=adam(3e-3), epochs=30),
        "relu 3x64, adamw": Case(lambda: mlp(3, 64, "relu"), optimizer=lambda: keras.optimizers.AdamW(1e-3)),
        "relu 2x64, adagrad": Case(lambda: mlp(2, 64, "relu"), optimizer=lambda: keras.optimizers.Adagrad(0.05)),
        "relu 2x64, l2": Case(lambda: mlp(2, 64, "relu", kernel_regularizer=keras.regularizers.L2(1e-3))),
        "tanh 3x64, sgd": Case(lambda: mlp(3, 64, "tanh"), optimizer=sgd(0.1)),
        "tanh 8x64 orthogonal, adam": Case(lambda: mlp(8, 64, "tanh", "orthogonal")),
        "sigmoid 2x64, adam": Case(lambda: mlp(2, 64, "sigmoid"), optimizer=adam(3e-3), epochs=8),
        "selu 5x64 lecun, sgd": Case(lambda: mlp(5, 64, "selu", "lecun_normal"), optimizer=sgd(0.02)),
        "gelu 4x64, adam": Case(lambda: mlp(4, 64, "gelu")),
        "silu 4x64 he, adam": Case(lambda: mlp(4, 64, "silu", "he_normal")),
        "elu 4x64, nadam": Case(lambda: mlp(4, 64, "elu"), optimizer=lambda: keras.optimizers.Nadam(1e-3)),
        "leaky relu 3x64, adam": Case(lambda: mlp(3, 64, "leaky_relu", "he_normal")),
        "mish 3x64, adam": Case(lambda: mlp(3, 64, "mish")),
        "softplus 2x64, adam": Case(lambda: mlp(2, 64, "softplus")),
        "relu 3x64, dropout": Case(lambda: mlp(3, 64, "relu", dropout=0.3), epochs=8),
        "relu 4x64, batch norm": Case(lambda: mlp(4, 64, "relu", norm=batch)),
        "tanh 6x64, batch norm, sgd": Case(lambda: mlp(6, 64, "tanh", norm=batch), optimizer=sgd(0.1)),
        "relu 6x64, layer norm": Case(lambda: mlp(6, 64, "relu", norm=layer_norm)),
        "softmax output, cce": Case(
            lambda: mlp(2, 64, "relu", head="softmax"), "onehot", loss="categorical_crossentropy"
        ),
        "softmax output, mse": Case(lambda: mlp(2, 64, "relu", head="softmax"), "onehot", loss="mse", epochs=10),
        "parity, sigmoid output": Case(lambda: mlp(2, 64, "relu", outputs=1, head="sigmoid"), "parity", loss=bce),
        "parity, logit": Case(
            lambda: mlp(2, 64, "tanh", outputs=1),
            "parity",
            loss=keras.losses.BinaryCrossentropy(from_logits=True),
        ),
        "regression, one unit, mse": Case(lambda: mlp(2, 64, "relu", **one), "regression", loss="mse"),
        "regression, tanh, huber": Case(lambda: mlp(2, 64, "tanh", **one), "regression", loss="huber", epochs=10),
        "regression, mae, rmsprop": Case(
            lambda: mlp(3, 32, "elu", **one), "regression", lambda: keras.optimizers.RMSprop(2e-3), "mae"
        ),
        "linear regression, sgd": Case(lambda: mlp(0, 0, None, inputs=20, outputs=3), "linear", sgd(0.1), "mse"),
        "deep linear regression": Case(lambda: mlp(2, 20, None, inputs=20, outputs=3), "linear", sgd(0.05), "mse"),
        "auto-encoder, linear bottleneck": Case(
            lambda: auto_encoder("relu"), "autoencoder", adam(3e-3), "mse", epochs=15
        ),
        "auto-encoder, sigmoid output": Case(
            lambda: auto_encoder("tanh", head="sigmoid"), "denoising", adam(3e-3), bce, epochs=15
        ),
        "residual mlp, 8 branches": Case(lambda: residual_mlp(8), optimizer=adam(5e-4)),
        "residual mlp, zero branches": Case(lambda: residual_mlp(8, zero_last=True)),
        "frozen backbone": Case(frozen_backbone, optimizer=adam(3e-3)),
        "shared layer": Case(shared_layer),
        "two paths": Case(two_paths),
        "rescaled in the model": Case(normalised_inputs, "raw"),
        "pixels in 0..1": Case(lambda: mlp(2, 64, "relu"), "raw", epochs=8),
        "cnn": Case(lambda: cnn((8, 16)), "image"),
        "cnn, tanh": Case(lambda: cnn((8, 16, 16), activation="tanh"), "image"),
        "cnn he, 6 layers, pooled": Case(
            lambda: cnn((12, 16, 16, 24, 24, 24), initializer="he_normal", flatten=False), "image", epochs=10
        ),
        "cnn, batch norm": Case(lambda: cnn((8, 16, 16), norm=batch), "image", epochs=8),
        "cnn, group norm": Case(lambda: cnn((8, 16), norm=lambda: L.GroupNormalization(4)), "image"),
        "resnet": Case(lambda: resnet(3), "image", epochs=8, optimizer=adam(3e-3)),
        "resnet, pre-activation": Case(lambda: resnet(3, pre_activation=True), "image", epochs=8, optimizer=adam(3e-3)),
        "resnet, zero gamma, sgd": Case(lambda: resnet(2, zero_gamma=True), "image", optimizer=sgd(0.1, 0.9), epochs=8),
        "mobile net": Case(mobile, "image", epochs=10, optimizer=adam(5e-3)),
        "conv1d": Case(conv1d, "rows"),
        "transformer on rows": Case(lambda: transformer(2), "rows", epochs=6),
        "transformer, post-norm": Case(lambda: transformer(1, pre_norm=False), "rows"),
        "transformer on tokens": Case(lambda: transformer(1, 30, outputs=4), "tokens", adam(2e-3), epochs=8),
        "lstm on rows": Case(lambda: recurrent(L.LSTM), "rows", adam(5e-3), epochs=6),
        "two lstms on tokens": Case(lambda: recurrent(L.LSTM, 2, 30), "tokens", adam(5e-3), epochs=8),
        "gru on tokens": Case(lambda: recurrent(L.GRU, 1, 30), "tokens", adam(5e-3), epochs=8),
        "simple rnn on rows": Case(lambda: recurrent(L.SimpleRNN), "rows", adam(2e-3), epochs=6),
        "bidirectional lstm": Case(
            lambda: recurrent(lambda n, **options: L.Bidirectional(L.LSTM(n, **options))), "rows", adam(3e-3)
        ),
        "bag of words": Case(bag_of_words, "bag", adam(5e-3), bce, epochs=8),
        "mnist cnn": Case(lambda: cnn((8, 16), 14), "mnist"),
        "mnist resnet": Case(lambda: resnet(2, 14), "mnist", epochs=6, optimizer=adam(3e-3)),
        "mnist cnn, batch norm, sgd": Case(lambda: cnn((8, 16), 14, norm=batch), "mnist", sgd(0.1)),
    }
