"""Which tensors of a model are read, and their names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import keras

KINDS = ("activation", "activation_gradient", "weight", "weight_gradient")


class Tap(NamedTuple):
    """One place where a model's signal is read.

    Args:
        kind: `"activation"`, the layer's output (the first, where it returns several; all calls of a shared
            layer together); `"activation_gradient"`, the gradient of the loss that comes back through it;
            `"weight"`, the layer's kernels (see `kernels_of`) before the step; `"weight_gradient"`, the
            gradient of the loss with respect to them.
        layer: the layer's path in the model.
    """

    kind: str
    layer: str


def taps_of(layers: Iterable[str]) -> list[Tap]:
    """Every tap on the layers of these paths, in an order that is the same for everybody."""
    return [Tap(kind, layer) for kind in KINDS for layer in layers]


def kernels_of(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The weights that a layer's weight statistics speak of.

    Those of two axes or more (kernels, recurrent kernels, embeddings), for a bias of zeros beside them would
    only blur the figure; a layer that has none, such as BatchNormalization, stands with all it can train.
    """
    kernels = [weight for weight in layer.weights if len(weight.shape) > 1]
    return kernels or list(layer.trainable_weights)
