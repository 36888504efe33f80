"""The layers that a layer is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras

from keras_initkit._compat import tracked_layers
from keras_initkit.structure._layer_kinds import is_opaque


def sublayers(layer: keras.Layer, into_loops: bool = True) -> list[keras.Layer]:
    """Returns the direct sublayers of a layer, each once, in the order in which Keras tracks them.

    Whatever Keras itself finds: attributes and lists of layers, a wrapper's layer, an RNN's cell, the
    projections inside an attention layer, the layers of a model.

    Args:
        layer: A layer or model.
        into_loops: Boolean. If False, recurrent and time-distributed layers, which run their parts inside a loop,
            have no sublayers.

    >>> [sublayer.name for sublayer in sublayers(keras.Sequential([keras.layers.Dense(2, name="head")]))]
    ['head']
    """
    if not into_loops and is_opaque(layer):
        return []
    return list({id(sublayer): sublayer for sublayer in tracked_layers(layer)}.values())


def walk_layers(layer: keras.Layer, into_loops: bool = True) -> Iterator[tuple[str, keras.Layer]]:
    """Yields a layer and every layer inside it, each once and before its own parts, with its path inside `layer`.

    The path joins the layers' names by slashes; that of `layer` itself is empty.
    """
    seen: set[int] = set()
    waiting = [("", layer)]
    while waiting:
        path, part = waiting.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield path, part
            inside = [(f"{path}/{inner.name}" if path else inner.name, inner) for inner in sublayers(part, into_loops)]
            waiting.extend(reversed(inside))


def parts_of_kind(model: keras.Model, is_kind: Callable[[keras.Layer], bool]) -> dict[int, keras.Layer]:
    """Returns the layer that each part of a layer of a kind belongs to, by the part's identity."""
    return {id(part): layer for _, layer in walk_layers(model) if is_kind(layer) for _, part in walk_layers(layer)}
