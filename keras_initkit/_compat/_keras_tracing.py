"""Private names of Keras around layers and their calls: what they are made of, graphs, names, seeds."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from keras_initkit._compat._moved import unless_moved
from keras_initkit._threads import replaced_in_this_thread

# Whether Keras is older than 3.7, whose names stay as they are.
IS_EARLY = tuple(map(int, keras.__version__.split(".")[:2])) < (3, 7)

# What every variable is an instance of. Until Keras 3.5 `keras.Variable` is a subclass of it, which layers do not use.
VARIABLE: type = next((base for base in keras.Variable.__mro__ if base.__name__ == "KerasVariable"), keras.Variable)

# Attributes in which a layer lists its variables, beside those that its own code has set. If one moves: symbolic
# weights stand in that list too while a model is traced.
TRACKERS = frozenset({"_trainable_variables", "_non_trainable_variables", "_tracker"})


_GLOBAL_STATE = (
    "keras.src.backend.common.global_state",
    "a probe may number the names of later layers higher, and change what keras.random draws without a seed",
)


def tracked_layers(layer: keras.Layer) -> list[keras.Layer]:
    """Returns the direct sublayers of a layer, as Keras tracks them.

    Keras shows the sublayers of a model (`Model.layers`) but not those of a layer, a MultiHeadAttention's say. This
    list is what `Model.layers` and `Layer.weights` read. If it moves: `Model.layers`, or what the attributes hold.
    """
    with unless_moved("keras.Layer._layers", "parts of layers are looked for in their attributes, in another order"):
        return layer._layers
    return layer.layers if isinstance(layer, keras.Model) else _layers_in_attributes(layer)


def _layers_in_attributes(layer: keras.Layer) -> list[keras.Layer]:
    found: list[keras.Layer] = []
    seen = {id(layer)}
    waiting = [vars(layer)]
    while waiting:
        value: Any = waiting.pop(0)
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, keras.Layer):
            found.append(value)
        elif isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple | set):
            waiting.extend(value)
    return found


def calls_in_graphs(layer: keras.Layer) -> int:
    """Returns how often a layer was called on symbolic tensors.

    `Layer.input` shows the first of these calls, and not whether there are more. If it moves: 0.
    """
    with unless_moved("keras.Layer._inbound_nodes", "remedies that replace a layer are written as comments"):
        return len(layer._inbound_nodes)
    return 0


def describe_error(error: BaseException) -> str:
    """Returns the kind of an error and the first line of its message, less what Keras puts before a layer's own.

    If its wording moves: its sentence is shown, which names the layer alone.
    """
    message = re.sub(r"^Exception encountered when calling .*\n*|\x1b\[\d*m", "", str(error))
    return f"{type(error).__name__}: {message.partition(chr(10))[0]}"


def symbolic_call(layer: keras.Layer) -> Callable:
    """Returns what runs a layer on symbolic tensors: its `call`, but for graphs in early versions of Keras.

    There the `call` of a Functional model makes backend tensors of its inputs. Later versions, whose
    `keras.ops.convert_to_tensor` takes symbolic tensors, need no private name.
    """
    graph = getattr(layer, "_functional", layer) if IS_EARLY else layer  # of a Sequential model
    if not IS_EARLY or not hasattr(graph, "_run_through_graph"):
        return layer.call
    return lambda inputs, **options: graph._run_through_graph(inputs, lambda operation: operation)


@contextlib.contextmanager
def graph_nodes_off() -> Iterator[None]:
    """Has this thread's symbolic calls leave no node in the layers that are called, and take away no loss of theirs.

    Keras notes each symbolic call of a layer in the layer, which then holds the tensors for good, and refuses outputs
    that are no tensors; each call of a model empties the list of losses that its last call has left. No public name
    keeps it from either. If they move: it does so.
    """

    def nothing(_: Callable) -> Callable:
        return lambda *args, **kwargs: None

    with contextlib.ExitStack() as stack:
        with unless_moved(
            "keras.src.ops.operation.Node", "tracing a model leaves symbolic tensors in its layers, which take memory"
        ):
            from keras.src.layers import layer
            from keras.src.ops import operation

            places = (operation, layer) if hasattr(layer, "Node") else (operation,)  # until 3.10 the latter has none
            for place in places:
                stack.enter_context(replaced_in_this_thread(place, "Node", nothing))
        with unless_moved("keras.Layer._clear_losses", "tracing a model empties its losses of the last call"):
            stack.enter_context(replaced_in_this_thread(keras.Layer, "_clear_losses", nothing))
        yield


@contextlib.contextmanager
def auto_names_kept() -> Iterator[None]:
    """Has layers that are made afterwards get the names that they would get had nothing been made in here.

    Keras numbers the names of layers and operations by a counter that only grows. If it moves: names of later layers
    are numbered higher.
    """
    counts = _name_counts()
    before = dict(counts or {})
    try:
        yield
    finally:
        counts = _name_counts()
        if counts is not None:
            counts.clear()
            counts.update(before)


def _name_counts() -> dict[str, int] | None:
    with unless_moved(*_GLOBAL_STATE):
        from keras.src.backend.common.global_state import get_global_attribute

        counts = get_global_attribute("object_name_uids")
        if not isinstance(counts, dict | None):
            raise TypeError
        return counts
    return None


def seed_generator() -> keras.random.SeedGenerator | None:
    """Returns Keras' global generator of seeds; `None` where nothing has needed it yet.

    `keras.random` makes it when it is first used, so no public name tells whether there is one. If it moves: `None`,
    and a probe leaves behind the generator that it has made, or numbers drawn from it.
    """
    with unless_moved(*_GLOBAL_STATE):
        from keras.src.backend.common.global_state import get_global_attribute

        return get_global_attribute("global_seed_generator")
    return None


def set_seed_generator(generator: keras.random.SeedGenerator | None) -> None:
    """Makes `generator` Keras' global generator of seeds; see `seed_generator`."""
    with unless_moved(*_GLOBAL_STATE):
        # Both: where `seed_generator` did not find one, none is set.
        from keras.src.backend.common.global_state import get_global_attribute, set_global_attribute  # noqa: F401

        set_global_attribute("global_seed_generator", generator)
