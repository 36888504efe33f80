"""`initialize`: every kernel of a model by a scheme, in one call."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import random
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import keras

from keras_initkit._arrays import to_numpy
from keras_initkit._checks import checked_count
from keras_initkit._random_state import random_state_kept
from keras_initkit.inputs._data_argument import unpack_data
from keras_initkit.inputs._labels import prepared_labels
from keras_initkit.inputs._specs import prepared
from keras_initkit.schemes._initialization_report import InitializationReport
from keras_initkit.schemes._layer_variances import Variances, measure_signal, read_variances
from keras_initkit.schemes._plan import Plan, WeightChange
from keras_initkit.schemes._registry import find_scheme
from keras_initkit.schemes._undo import only_what_is_set
from keras_initkit.schemes.draw._draw_all import draw_all, initializer_chooser
from keras_initkit.structure import weighted_layers
from keras_initkit.structure._calls import calls, traced_once
from keras_initkit.structure._layer_paths import named_layers
from keras_initkit.structure._selection import Layers, named_one_by_one, select
from keras_initkit.structure._separate_parts import check_has_call, is_built


@traced_once()
def initialize(
    model: keras.Model,
    scheme: Any,
    x: Any = None,
    y: Any = None,
    *,
    layers: Layers = None,
    seed: int | None = None,
    **options: Any,
) -> InitializationReport:
    """Sets the kernels of a model in place, each by what its layer does with it.

    Kernels are weights that are multiplied into a signal, and tables that data are looked up in. Biases and gains,
    tables of positions, class and mask tokens, and weights whose use is not known stay as they are; the report says of
    each why (`skipped`).

    If anything is raised, an interrupt included, all weights are restored. The optimizer, the compile state, the
    `trainable` flags, moving statistics of normalization layers and all random states stay as they are; only
    `"reset"` resets moving statistics. Frozen layers are set like any other: exclude them by `layers`.

    Args:
        model: A `keras.Model`. If it is not built, `x` builds it.
        scheme: One of:

            - the name of a scheme: `"auto"`, `"lsuv"`, `"reset"`, ... (`schemes.scheme_names()` lists them);
            - an initializer, by name (`"he_normal"`, `"keras_initkit>ActivationScaling"`), config, class or instance.
              It is applied to each kernel with the fans of its layer, gate by gate to recurrent kernels; biases get
              their layers' own initializers;
            - a function that takes a layer and returns an initializer, or `None` to leave the layer alone.

        x: Array, or list or dictionary of arrays, as the model takes them. Some schemes require examples. The report
            compares the variances of the layers' pre-activations before and after on the first 256 examples; without
            `x`, on 32 examples drawn from the model's input specification.
        y: Labels of `x`, as the loss takes them. Some schemes require labels; with them the report has variances of
            gradients too.
        layers: Layers to initialize: a name or path, a compiled regular expression, a layer, a predicate of the
            layer, or a list of these. `None` selects all. Weights whose use is not known are set, read as those of a
            Dense or Conv layer, if this names their layer by path or name, or is the layer.
        seed: Integer from 0. Each kernel gets its own draw from it, whatever seed an initializer has. `None` takes
            the seed from Python's `random`, which `keras.utils.set_random_seed` seeds.
        **options: Options of the scheme.

    Returns:
        An `InitializationReport` of every weight of the model.

    Raises:
        ValueError: If a scheme, option or layer is unknown, data do not fit the model, the model is not built and
            there is no `x`, or the scheme cannot initialize the model.

    Example:

    >>> model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(400, "relu"), keras.layers.Dense(1)])
    >>> report = initialize(model, "he_normal", seed=0)
    >>> [(change.role, round(change.scale, 1)) for change in report.weights if change.role][:1]
    [('dense', 2.0)]
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"model: got {reprlib.repr(model)}, expected a keras.Model: initialize(model, scheme, x, y).")
    if isinstance(scheme, str):
        scheme = str(scheme)  # NumPy's strings are arrays too
    if hasattr(scheme, "shape"):  # Keras takes an array for an initializer, but of one weight alone
        raise ValueError(
            f"scheme: got {reprlib.repr(scheme)}, expected the name of a scheme or an initializer: "
            "initialize(model, scheme, x, y)."
        )
    x, y = unpack_data("initialize(model, scheme", model, x, y, options.pop("data", None), stacklevel=4)
    with random_state_kept():  # looking a name up, Keras makes an initializer, with a seed of its own
        function = _bind_options(scheme, options)
    seed = random.randint(0, 2**31 - 1) if seed is None else checked_count("seed", seed, least=0)
    x, y = _prepared(model, x, y)
    _build(model, x)
    with contextlib.suppress(ValueError):  # before any pass: what a user's `call` keeps in Python is that of the last
        calls(model, x)
    weighted = weighted_layers(model)
    plan = Plan(model, select(weighted, layers), x, y, seed, named_one_by_one(weighted, layers))
    reports = [measure_signal(model, x, y)]
    with random_state_kept(), only_what_is_set(model, plan.was_set):
        function(plan)
    reports.append(measure_signal(model, x, y))
    before, after = (read_variances(report, plan.paths_of_kernels()) for report in reports)
    changes = [_with_variances(change, before, after) for change in plan.changes()]
    notes = [*plan.notes]
    if x is None:
        notes.append(
            "Variances were measured on inputs drawn from the model's specification, because no data was given."
            if after
            else "No variances were measured: no data was given, and inputs could not be drawn."
        )
    return InitializationReport(_name(scheme), seed, tuple(changes), model.name, tuple(notes), *reports)


def _bind_options(scheme: Any, options: Mapping[str, Any]) -> Callable[[Plan], None]:
    """Returns the scheme as a function of the plan alone."""
    function = find_scheme(scheme)
    if function is None:
        try:
            choose = initializer_chooser(scheme)
        except ValueError as error:
            raise ValueError(f"scheme: {str(error).removeprefix('initializer: ')}") from error
        if options:
            raise ValueError(
                f"{next(iter(options))}: got an option, but {_name(scheme)!r} is an initializer, which has none."
            )
        return functools.partial(draw_all, initializer=choose)
    known = list(inspect.signature(function).parameters.values())[1:]
    names = [parameter.name for parameter in known if parameter.kind is not parameter.VAR_KEYWORD]
    unknown = [name for name in options if name not in names] if len(names) == len(known) else []
    if unknown:
        near = difflib.get_close_matches(unknown[0], names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        listed = ", ".join(map(repr, names)) if names else "none"
        raise ValueError(f"{unknown[0]}: {scheme!r} has no such option; it has {listed}.{hint}")
    missing = [p.name for p in known if p.default is p.empty and p.name in names and p.name not in options]
    if missing:
        raise ValueError(f"{missing[0]}: {scheme!r} requires this option.")
    return functools.partial(function, **options)


def _prepared(model: keras.Model, x: Any, y: Any) -> tuple[Any, Any]:
    """Examples and labels as arrays that fit the model."""
    if x is None:
        return None, None
    x = prepared(model, x)
    if y is not None:
        y = prepared_labels(y, "y", int(keras.tree.flatten(x)[0].shape[0]))
    return tuple(keras.tree.map_structure(lambda each: None if each is None else to_numpy(each), d) for d in (x, y))


def _build(model: keras.Model, x: Any) -> None:
    """Builds the model, and layers that a built one has not called yet."""
    if not is_built(model) and x is None:
        check_has_call(model)
        raise ValueError(
            f"model: {model.name} is not built, so it has no weights yet. Pass x, start the model with "
            "keras.Input, or call it once."
        )
    if x is not None and not (is_built(model) and all(layer.built for layer in named_layers(model).values())):
        try:  # by a batch of any size, for a Sequential model takes no other size ever after
            model(keras.tree.map_structure(lambda each: keras.KerasTensor((None, *each.shape[1:]), each.dtype), x))
        except Exception:  # of any kind: the model's own code needs numbers
            model(keras.tree.map_structure(lambda each: keras.ops.convert_to_tensor(each[:1]), x), training=False)
    if not model.weights:
        raise ValueError(f"model: {model.name} has no weights, so there is nothing to initialize.")


def _name(scheme: Any) -> str:
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
