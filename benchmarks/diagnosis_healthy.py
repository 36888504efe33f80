"""Sound models and training runs, on which a diagnosis has nothing to say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from diagnosis_models import (
    FROM_LOGITS,
    auto_encoder,
    bag_of_words,
    cnn,
    conv1d,
    frozen_backbone,
    mlp,
    mobile,
    normalised_inputs,
    recurrent,
    residual_mlp,
    resnet,
    shared_layer,
    transformer,
    two_paths,
)
from keras import layers as L


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
