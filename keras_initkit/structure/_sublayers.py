"""The layers that a layer is made of."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

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

    The path joins the layers' names by slashes; that of `layer` itself is empty. Of the parts of one layer that have
    one name, the second's ends in `_1`.
    """
    seen: set[int] = set()
    waiting = [("", layer)]
    while waiting:
        path, part = waiting.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield path, part
            parts = [(f"{path}/{inner.name}" if path else inner.name, inner) for inner in sublayers(part, into_loops)]
            own = {name for name, _ in parts}
            inside: dict[str, keras.Layer] = {}
            for name, inner in parts:
                inside[unused(name, own | inside.keys()) if name in inside else name] = inner
            waiting.extend(reversed(inside.items()))


def unused(path: str, found: Container[str]) -> str:
    """Returns `path`, numbered if it is in `found`."""
    number, candidate = 1, path
    while candidate in found:
        candidate, number = f"{path}_{number}", number + 1
    return candidate


def parts_of_kind(model: keras.Model, is_kind: Callable[[keras.Layer], bool]) -> dict[int, keras.Layer]:
    """Returns the layer that each part of a layer of a kind belongs to, by the part's identity."""
    return {id(part): layer for _, layer in walk_layers(model) if is_kind(layer) for _, part in walk_layers(layer)}
