"""Which tensors of a model are read while it trains."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from keras_initkit.structure.taps import KINDS, Tap


def taps_of(layers: Iterable[str], kinds: Iterable[str]) -> list[Tap]:
    """The taps of these kinds on the layers of these paths, in an order that is the same for everybody.

    A layer's output is the first, where it returns several, in all its calls together; its weight is all its
    kernels together (see `kernels_of`).
    """
    layers, kinds = list(layers), set(kinds)
    return [Tap(kind, layer) for kind in KINDS if kind in kinds for layer in layers]


def kernels_of(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The weights that a layer's weight statistics speak of.

    Those of two axes or more (kernels, recurrent kernels, embeddings), for a bias of zeros beside them would
    only blur the figure; a layer that has none, such as BatchNormalization, stands with all it can train.
    """
    kernels = [weight for weight in layer.weights if len(weight.shape) > 1]
    return kernels or list(layer.trainable_weights)
