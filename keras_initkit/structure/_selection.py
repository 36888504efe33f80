"""Selection of layers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras

from keras_initkit.structure._layer_paths import named_layers

Layers: TypeAlias = (
    str | re.Pattern[str] | keras.layers.Layer | Callable[[keras.layers.Layer], bool] | Sequence[Any] | None
)


def select(layers: dict[str, keras.layers.Layer], chosen: Layers) -> dict[str, keras.layers.Layer]:
    """Returns the layers chosen by path, name, pattern, object or predicate; a choice that matches nothing is an error.

    `None` chooses all. A path, or the path or name of a composite layer, chooses all its parts; a compiled regular
    expression is searched in the path; a list joins choices.
    """
    if chosen is None:
        return dict(layers)
    choices = chosen if isinstance(chosen, list | tuple | set) else [chosen]
    if not choices:
        raise ValueError(f"layers: got {chosen!r}, expected at least one layer, or None for all.")
    found: set[str] = set()
    for choice in choices:
        matches = {path for path, layer in layers.items() if _matches(choice, path, layer)}
        if not matches:
            near = difflib.get_close_matches(str(choice), layers, n=3)
            known = f"near names: {', '.join(near)}" if near else f"known: {', '.join(list(layers)[:10])}"
            raise ValueError(f"layers: got {choice!r}, which matches no layer with weights; {known}.")
        found |= matches
    return {path: layer for path, layer in layers.items() if path in found}


def named_one_by_one(layers: dict[str, keras.layers.Layer], chosen: Layers) -> set[str]:
    """Returns the paths of the layers that a choice names themselves: by path, by name, or by the layer."""
    choices = chosen if isinstance(chosen, list | tuple | set) else [chosen]
    return {
        path for path, layer in layers.items() if any(each in (path, layer.name) or each is layer for each in choices)
    }


def _matches(choice: object, path: str, layer: keras.layers.Layer) -> bool:
    if isinstance(choice, str):
        return path == choice or layer.name == choice or path.startswith(f"{choice}/") or f"/{choice}/" in path
    if isinstance(choice, re.Pattern):
        return bool(choice.search(path))
    if isinstance(choice, keras.layers.Layer):
        return any(part is layer for part in named_layers(choice).values())
    if callable(choice) and not isinstance(choice, type):
        return bool(choice(layer))
    raise ValueError(
        f"layers: got {choice!r}, expected a name, a compiled regular expression, a layer, a predicate "
        "of the layer, or a list of these."
    )
