"""`initialize`: every kernel of a model by a scheme, in one call."""

from __future__ import annotations

import difflib
import functools
import inspect
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import keras

from keras_initkit.capture._random_state import random_state_kept
from keras_initkit.inputs._labels import prepared_labels
from keras_initkit.inputs._specs import prepared
from keras_initkit.schemes import _registry
from keras_initkit.schemes._initialization_report import InitializationReport
from keras_initkit.schemes._plan import Plan, WeightChange
from keras_initkit.schemes._undo import only_what_is_set
from keras_initkit.schemes.data_driven._measure import Variances, measured, measured_on_drawn
from keras_initkit.schemes.draw._draw_all import draw_all
from keras_initkit.structure import weighted_layers
from keras_initkit.structure._layer_paths import named_layers
from keras_initkit.structure._selection import Layers, select


def initialize(
    model: keras.Model,
    scheme: Any,
    data: Any = None,
    *,
    layers: Layers = None,
    seed: int | None = None,
    **options: Any,
) -> InitializationReport:
    """Sets the kernels of a model in place, each by what its layer does with it.

    All of it or nothing: whatever is raised, an interrupt included, the weights are what they were. The optimizer,
    the compile state, the `trainable` flags, what normalisation has averaged and all random states stay; only
    `"reset"` starts normalisation anew. A frozen layer is set like any other: leave out by `layers` what shall stay.

    Args:
        model: a Keras model; one that is not built yet is built by `data`.
        scheme: the name of a scheme (`"auto"`, `"lsuv"`, `"reset"`, ...; `schemes.scheme_names()` lists them), or
            any initializer: by name (`"he_normal"`), configuration, class or instance, or a function from a layer
            to one (`None` leaves the layer alone). An initializer is applied with layer-aware fans to each kernel,
            gate by gate to recurrent ones; biases get their layers' own initializers.
        data: examples (examples, ...), as the model takes them, or the tuple of them and their labels; some schemes
            need it. On its first 256 examples the report measures how the layers' variances have changed; without
            data, on 32 that are drawn from the model's input specification.
        layers: which layers: a name or path, a compiled regular expression, a layer, a predicate of the layer, or
            a list of these; `None` is all.
        seed: an integer makes the draw reproducible; `None` draws anew each time, from Python's `random`, so that
            `keras.utils.set_random_seed` makes it reproducible too. Either way each kernel has a draw of its own,
            whatever seed an initializer carries.
        options: the scheme's own.

    Returns:
        What became of every weight of the model.

    Raises:
        ValueError: for an unknown scheme, option or layer, for data that does not fit the model, for a model that
            is not built where there is no data, and where the scheme refuses.

    >>> model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(400, "relu"), keras.layers.Dense(1)])
    >>> report = initialize(model, "he_normal", seed=0)
    >>> [(change.role, round(change.scale, 1)) for change in report.weights if change.role][:1]
    [('dense', 2.0)]
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"model: got {model!r}, expected a keras.Model.")
    with random_state_kept():  # looking a name up, Keras makes an initializer, with a seed of its own
        function = _function(scheme, options)
    if seed is None:
        seed = random.randint(0, 2**31 - 1)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed: got {seed!r}, expected an integer from 0, or None.")
    x, y = _unpacked(model, data)
    _built(model, x)
    weighted = weighted_layers(model)
    plan = Plan(model, select(weighted, layers), x, y, seed)
    shown = {path: weighted[path] for path in plan.paths_of_kernels()}
    measure = functools.partial(measured if x is not None else measured_on_drawn, model, shown)
    before = measure(x, y)
    with random_state_kept(), only_what_is_set(model, plan.was_set):
        function(plan)
    after = measure(x, y)
    changes = [_with_variances(change, before, after) for change in plan.changes()]
    notes = [*plan.notes]
    if x is None:
        notes.append(
            "Variances are those on inputs drawn from the model's specification, for want of data."
            if after
            else "No variances: there are no data, and inputs could not be drawn."
        )
    return InitializationReport(_shown_name(scheme), seed, tuple(changes), model.name, tuple(notes))


def _function(scheme: Any, options: Mapping[str, Any]) -> Callable[[Plan], None]:
    """The scheme, with its options."""
    function = _registry.find(scheme)
    if function is None:
        if options:
            raise ValueError(f"{next(iter(options))}: got an option, but {scheme!r} is an initializer, which has none.")
        return functools.partial(draw_all, initializer=scheme)
    known = list(inspect.signature(function).parameters.values())[1:]
    names = [parameter.name for parameter in known if parameter.kind is not parameter.VAR_KEYWORD]
    if len(names) == len(known):
        for name in options:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                listed = ", ".join(map(repr, names)) if names else "none"
                raise ValueError(f"{name}: {scheme!r} has no such option; it has {listed}.{hint}")
    missing = [p.name for p in known if p.default is p.empty and p.name in names and p.name not in options]
    if missing:
        raise ValueError(f"{missing[0]}: {scheme!r} cannot do without this option.")
    return functools.partial(function, **options)


def _unpacked(model: keras.Model, data: Any) -> tuple[Any, Any]:
    """Examples and labels as arrays that fit the model."""
    x, y = data, None
    if isinstance(data, tuple):
        if len(data) not in (1, 2):
            raise ValueError(f"data: got a tuple of {len(data)}, expected x or (x, y); several inputs go in a list.")
        x, y = data if len(data) == 2 else (data[0], None)
    if x is None:
        if y is not None:
            raise ValueError("data: got labels without examples, expected x or (x, y).")
        return None, None
    x = prepared(model, x)
    if y is not None:
        y = prepared_labels(y, "y", int(keras.tree.flatten(x)[0].shape[0]))
        y = keras.tree.map_structure(keras.ops.convert_to_numpy, y)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, x), y


def _built(model: keras.Model, x: Any) -> None:
    if not model.built or not all(layer.built for layer in named_layers(model).values()):
        if x is not None:
            model(keras.tree.map_structure(lambda each: keras.ops.convert_to_tensor(each[:1]), x), training=False)
        elif not model.built:
            raise ValueError(
                f"model: {model.name} is not built, so it has no weights yet. Give data, start the model with "
                "keras.Input, or call it once."
            )
    if not model.weights:
        raise ValueError(f"model: {model.name} has no weights, so there is nothing to initialize.")


def _shown_name(scheme: Any) -> str:
    if isinstance(scheme, str):
        return scheme
    if isinstance(scheme, Mapping):
        return str(scheme.get("class_name", "a configuration"))
    return getattr(scheme, "__name__", type(scheme).__name__)


def _with_variances(change: WeightChange, before: Variances, after: Variances) -> WeightChange:
    if not change.role:
        return change
    forward_before, backward_before = before.get(change.layer, (None, None))
    forward_after, backward_after = after.get(change.layer, (None, None))
    return replace(
        change,
        forward_before=forward_before,
        forward_after=forward_after,
        backward_before=backward_before,
        backward_after=backward_after,
    )
