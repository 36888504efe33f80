"""What a layer does, by its base class and public attributes: every folder asks here."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_initkit.theory._activations import NotElementwiseError, activation_range, evaluate


def _classes(pattern: str) -> tuple[type, ...]:
    """The classes of `keras.layers` whose names match; not every Keras version has all of them."""
    return tuple(found for name, found in vars(keras.layers).items() if re.fullmatch(pattern, name))


_NORMALIZATIONS = _classes("(Batch|Group|Layer|RMS|Unit)Normalization")
_ACTIVATIONS = _classes("Activation|ELU|LeakyReLU|PReLU|ReLU|Softmax")
_ATTENTIONS = _classes("Attention|GroupQueryAttention|MultiHeadAttention")
_PASSING = _classes(
    "(Adaptive|Global)?(Average|Max)Pooling[123]D|(ZeroPadding|Cropping|UpSampling)[123]D|Normalization|"
    "(Alpha|Gaussian|Spatial)?Dropout([123]D)?|GaussianNoise|Flatten|Reshape|Permute|RepeatVector|Concatenate|"
    "Identity|Rescaling|ActivityRegularization"
)


_COMPOSITES = _classes(
    "Layer|Wrapper|Lambda|Pipeline|ReversibleEmbedding|(Additive)?Attention|GroupQueryAttention|MultiHeadAttention"
)


_PLAIN = (None, 0, 0)  # limit, slope below 0 and threshold of a ReLU that is `keras.activations.relu`
SCALINGS = ("Multiply", "Divide", "TrueDivide")  # operations that multiply by elements
_MOVING = re.compile(
    "BroadcastTo|Cast|Concatenate|ExpandDims|Flip|GetItem|Identity|Moveaxis|Pad|Ravel|Repeat|Reshape|Roll|Slice|Split|"
    "Squeeze|Stack|StopGradient|Swapaxes|Take|TakeAlongAxis|Tile|Transpose|UnravelIndex|Unstack"
)
_PRODUCTS = re.compile(
    "Conv|ConvTranspose|DepthwiseConv|Dot|DotProductAttention|Einsum|Inner|Matmul|SeparableConv|Tensordot|Vdot"
)


def class_of_call(layer_class: type[keras.Layer]) -> type[keras.Layer]:
    """Returns the class that defines the `call` of a layer class: itself or one of its bases."""
    return next((base for base in layer_class.__mro__ if "call" in vars(base)), keras.Layer)


def is_elementary(layer: keras.Layer) -> bool:
    """Whether a layer computes what one of Keras' own classes does, and is not made of others.

    Classes that only `keras.applications` has are not among them.
    """
    runs = class_of_call(type(layer))
    if ".applications." in runs.__module__:
        return False
    return runs.__module__.startswith("keras.") and not issubclass(runs, keras.Model) and runs not in _COMPOSITES


def is_normalization(layer: Any) -> bool:
    """Whether a layer divides its input by statistics of it: the scale of its input does not matter.

    `keras.layers.Normalization`, whose constants `adapt` has fixed, and `SpectralNormalization`, which divides a
    kernel, do not.

    Args:
        layer: A layer, an operation, or the name of a layer's class, which is all that a report knows. The name of a
            class that Keras does not have counts as that of a subclass if it ends like one of Keras' names.
    """
    return _is_a(layer, _NORMALIZATIONS) or (
        isinstance(layer, str) and not hasattr(keras.layers, layer) and layer.endswith("Normalization")
    )


def is_activation(layer: Any) -> bool:
    """Whether a layer, or a class by its name, does nothing but apply an activation."""
    return _is_a(layer, _ACTIVATIONS)


def is_attention(layer: Any) -> bool:
    """Whether a layer, or a class by its name, mixes positions by weights that depend on what they hold."""
    return _is_a(layer, _ATTENTIONS)


def is_embedding(layer: Any) -> bool:
    """Whether a layer, or a class by its name, looks up rows of a table instead of summing over inputs."""
    return _is_a(layer, (keras.layers.Embedding,))


def is_recurrent(layer: Any) -> bool:
    """Whether a layer, or a class by its name, runs a cell over time."""
    return _is_a(layer, (keras.layers.RNN,))


def quantization_mode(layer: Any) -> str | None:
    """Returns how a layer is quantized: `"int8"` and the like; `None` if it is not."""
    return getattr(getattr(layer, "dtype_policy", None), "quantization_mode", None)


def is_opaque(layer: Any) -> bool:
    """Whether a layer's parts run inside a loop or on slices of its input, so that it is seen as a whole."""
    return _is_a(layer, (keras.layers.RNN, keras.layers.TimeDistributed))


def passes_through(layer: Any) -> bool:
    """Whether a layer, or a class by its name, only moves, drops, averages, chooses or normalizes elements."""
    return _is_a(layer, _PASSING) or is_normalization(layer)


def moves(operation: Any) -> bool:
    """Whether an operation that is no layer only moves, repeats, chooses or casts elements."""
    return not isinstance(operation, keras.Layer) and _MOVING.fullmatch(type(operation).__name__) is not None


def multiplies(operation: Any) -> bool:
    """Whether an operation that is no layer sums products of what it reads."""
    return not isinstance(operation, keras.Layer) and _PRODUCTS.fullmatch(type(operation).__name__) is not None


def shifts_or_scales(operation: Any) -> bool:
    """Whether an operation that is no layer adds or multiplies by elements."""
    return type(operation).__name__ in ("Add", "Subtract", *SCALINGS)


def own_activation(layer: Any) -> Callable | None:
    """Returns the activation that was given to a layer, `linear` included; `None` if it takes none."""
    activation = getattr(layer, "activation", None)
    return activation if callable(activation) else None


def applied_activation(layer: Any) -> Callable | None:
    """Returns the function that a layer applies to its result; `None` if it is linear or there is none.

    That is the activation it was given, a wrapped layer's, or what an activation layer computes. A `PReLU` counts with
    its mean slope.
    """
    layer = _unwrapped(layer)
    if is_activation(layer) and own_activation(layer) is None:
        if not isinstance(layer, keras.layers.PReLU):
            function = _named(layer.call, layer.name)  # past the casts of `__call__`
            if type(layer) is keras.layers.ReLU and (layer.max_value, layer.negative_slope, layer.threshold) == _PLAIN:
                function.keras_function = keras.activations.relu  # type: ignore[attr-defined]
            return function
        slope = float(np.mean(keras.ops.convert_to_numpy(layer.alpha.value)))
        return _named(lambda x: keras.ops.where(x > 0, x, slope * x), layer.name)
    activation = own_activation(layer)
    return None if activation is keras.activations.linear else activation


def has_slope_at_zero(layer: Any) -> bool:
    """Whether a layer's activation passes gradients at 0 and below: tanh and softmax do, relu does not."""
    activation = applied_activation(layer)
    try:
        return activation is not None and bool(evaluate(activation, np.full(4, -0.1))[0])
    except NotElementwiseError:
        return True
    except Exception:  # of any kind: a user's function was called on numbers that it was not made for
        return False


def is_nonlinear(layer: Any) -> bool:
    """Whether a layer or operation applies a nonlinear function to its result.

    Attention and pooling, whose results are sums or elements of what they read, do not.
    """
    layer = _unwrapped(layer)
    if not isinstance(layer, keras.Layer):
        return is_curved(layer)
    activation = own_activation(layer)
    if activation is not None:
        return activation is not keras.activations.linear
    return is_activation(layer) or is_recurrent(layer)


def output_limits(layer: Any) -> tuple[float, float] | None:
    """Returns the limits of a layer's activation; `None` where it does not act on each element by itself."""
    activation = own_activation(layer)
    if activation is None or isinstance(activation, keras.Layer):  # calling a layer may build it
        return None
    try:
        return activation_range(activation)
    except Exception:  # whatever a user's function raises on four numbers
        return None


def activation_name(activation: Any) -> str:
    """Returns an activation's name, for a reader."""
    return getattr(activation, "__name__", None) or getattr(activation, "name", None) or str(activation)


def _is_a(layer: Any, classes: tuple[type, ...]) -> bool:
    if not isinstance(layer, str):
        return isinstance(layer, classes)
    known = getattr(keras.layers, layer, None)
    if isinstance(known, type):
        return issubclass(known, classes)
    return layer.endswith(tuple(each.__name__ for each in classes))


def _unwrapped(layer: Any) -> Any:
    while isinstance(layer, keras.layers.Wrapper):
        layer = layer.layer
    return layer


def is_curved(operation: Any) -> bool:
    """Whether an operation on one tensor acts on each element by itself, and not along a straight line."""
    try:
        steps = np.diff(evaluate(operation, np.linspace(-3.0, 3.0, 13)))
    except Exception:  # of any kind: it was called on numbers that it was not made for
        return False
    return bool(np.ptp(steps) > 1e-4 * np.abs(steps).max())


def _named(function: Callable, name: str) -> Callable:
    def named(x: Any) -> Any:
        return function(x)

    named.__name__ = name
    return named
