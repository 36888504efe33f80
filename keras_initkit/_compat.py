"""Private names of Keras and its backends, one function each: what it reads, why, and what to do when it moves.

tests/test_compat.py guards them.
"""

from __future__ import annotations

from typing import Any

import keras


def tracked_layers(layer: keras.Layer) -> list[keras.Layer]:
    """Return the layers that Keras tracks in `layer`, in order, with repetitions.

    Keras shows the sublayers of a model (`Model.layers`) but not those of a layer, a MultiHeadAttention's say.
    `Layer._layers` is what `Model.layers` and `Layer.weights` read. When it moves: follow these two.
    """
    return layer._layers


def producing_node(symbol: Any) -> Any:
    """Return the node that made a symbolic tensor: its `operation`, `input_tensors` and `output_tensors`.

    Keras shows the layers of a graph, but not their calls. `KerasTensor._keras_history` holds the operation that made
    the tensor and in which of its calls, and `Operation._inbound_nodes` lists these calls; both have had these names
    since Keras 2. When they move: follow `keras.src.ops.function.map_graph`, which walks the same graph.
    """
    operation, index, _ = symbol._keras_history
    return operation._inbound_nodes[index]


def attention_projections(layer: keras.layers.MultiHeadAttention) -> list[keras.Layer]:
    """Return the query, value and key projections of a built attention layer.

    Keras shows them as properties since 3.4; before that only the private attributes exist. When these move, the
    properties are there.
    """
    names = ("query_dense", "value_dense", "key_dense")
    return [getattr(layer, name, None) or getattr(layer, f"_{name}") for name in names]
