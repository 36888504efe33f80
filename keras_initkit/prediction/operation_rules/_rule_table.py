"""The table of rules: how each class of layer changes a signal and the gradient that comes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import keras

from keras_initkit.prediction.algebra._layout import standardize
from keras_initkit.prediction.algebra._signals import LayerPropagation, Signal, UnpredictableError
from keras_initkit.structure._graph import Call, Tensor
from keras_initkit.structure._layer_kinds import is_embedding, quantization_mode

Rule = Callable[[Call, Sequence[Signal]], LayerPropagation]

_RULES: dict[type | str, Rule] = {}
_RESUMES: set[type | str] = set()
_ANYWHERE: set[type | str] = set()
_PARTED: set[type | str] = set()
_REASONS: dict[type, str] = {}


def rule(
    *names: str, operations: str = "", resumes: bool = False, anywhere: bool = False, parted: bool = False
) -> Callable[[Rule], Rule]:
    """Registers a function as the rule of classes of `keras.layers` and of operations.

    A layer's rule also holds for subclasses that do not override `call`. It gets inputs whose last axis holds units.

    Args:
        names: Names of layers.
        operations: String. Names of operations' classes, as they stand in the trace. Their rules get any input:
            unknown ones, those of known values, and those whose positions are not in the usual place.
        resumes: Boolean. Whether the output is known even where the input is not (normalization).
        parted: Boolean. Whether the rule reads the parts of a signal, which others do not see.
        anywhere: Boolean. Whether a layer's rule takes the same inputs as that of an operation.
    """

    def register(function: Rule) -> Rule:
        keys: list[type | str] = [getattr(keras.layers, name) for name in names if hasattr(keras.layers, name)]
        for key in keys + operations.split():  # type: ignore[operator]
            _RULES[key] = function
            if resumes:
                _RESUMES.add(key)
            if parted:
                _PARTED.add(key)
            if anywhere or isinstance(key, str):
                _ANYWHERE.add(key)
        return function

    return register


def unpredicted(reason: str, *names: str) -> None:
    """Registers the reason why classes of `keras.layers` cannot be predicted."""
    for name in names:
        if hasattr(keras.layers, name):
            _REASONS[getattr(keras.layers, name)] = reason


def propagate(call: Call, signal: Callable[[Tensor], Signal]) -> LayerPropagation:
    """Propagates signals through a call by the rule of its layer; raises `UnpredictableError` where none holds.

    Args:
        call: The call.
        signal: Returns the signal of a tensor.
    """
    key = _key(call.layer)
    if key is None or key not in _RULES:
        kind = type(call.layer).__name__
        reason = _REASONS.get(key) if isinstance(key, type) else None
        if call.reason and not reason:
            reason = f"its call does not run on symbolic tensors ({call.reason[:100].strip()})"
        raise UnpredictableError(reason or f"predict has no rule for {kind}")
    if quantization_mode(call.layer) not in (None, "float8"):
        raise UnpredictableError("its kernel is quantized")
    if not call.inputs:
        raise UnpredictableError("it has no input")
    inputs = [signal(tensor) for tensor in call.inputs]
    if key not in _PARTED:
        inputs = [
            replace(each, parts=(), units=None) if each.parts or each.units is not None else each for each in inputs
        ]
    if key in _ANYWHERE:
        masks = [each for each in keras.tree.flatten(dict(call.kwargs)) if isinstance(each, Tensor)]
        masks = [each for each in masks if each not in call.inputs]  # a layer's `inputs` are without them
        call = replace(call, inputs=(*call.inputs, *masks))
        return _RULES[key](call, [*inputs, *map(signal, masks)])
    if key not in _RESUMES and not all(each.known or each.values is not None for each in inputs):
        raise UnpredictableError("its input is not predicted")
    if not is_embedding(call.layer):
        if not all(tensor.is_float for tensor in call.inputs):
            raise UnpredictableError("its input holds integers")
        inputs = [standardize(each, tensor.shape) for each, tensor in zip(inputs, call.inputs, strict=True)]
    if getattr(call.layer, "data_format", None) == "channels_first":
        raise UnpredictableError("its data_format is channels_first; predict reads channels_last only")
    return _RULES[key](call, inputs)


def status(layer_class: type[keras.Layer]) -> str:
    """Returns `"predicted"`, the reason why not, or an empty string for a class that this table does not know."""
    return "predicted" if layer_class in _RULES else _REASONS.get(layer_class, "")


def _key(layer: object) -> type | str | None:
    """Returns the class in the table whose `call` a layer runs, or an operation's name; `None` if there is none."""
    if not isinstance(layer, keras.Layer):  # an operation: x + y
        return type(layer).__name__
    for base in type(layer).__mro__:
        if base in _RULES or base in _REASONS:
            return base
        if "call" in vars(base):  # a user's own
            return None
    return None


for _reason, _names in {
    "a recurrent layer applies one kernel at every step": "RNN SimpleRNN LSTM GRU Bidirectional ConvLSTM1D ConvLSTM2D "
    "ConvLSTM3D SimpleRNNCell LSTMCell GRUCell StackedRNNCells",
    "its call does not run on symbolic tensors": "Attention AdditiveAttention GroupQueryAttention "
    "MultiHeadAttention ReversibleEmbedding",
    "its windows differ from output to output": "AdaptiveAveragePooling1D AdaptiveAveragePooling2D "
    "AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D",
    "the distribution of an extreme of several branches is not tracked": "Maximum Minimum",
    "products of one example's positions are not tracked": "Dot",
    "it runs arbitrary code": "Lambda Layer Wrapper TimeDistributed Pipeline FlaxLayer JaxLayer TFSMLayer "
    "TorchModuleWrapper",
    "it divides its kernel by a norm at each call": "SpectralNormalization",
    "it masks positions by their values": "Masking",
    "it preprocesses data; predict starts from its output": "AugMix AutoContrast CategoryEncoding "
    "CenterCrop ContrastLimitedAdaptiveHistogramEqualization CutMix Discretization Equalization HashedCrossing Hashing "
    "IntegerLookup MaxNumBoundingBoxes MelSpectrogram MixUp RandAugment RandomBrightness "
    "RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop RandomElasticTransform RandomErasing "
    "RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective RandomPosterization "
    "RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation RandomZoom Resizing STFTSpectrogram "
    "Solarization StringLookup TextVectorization",
}.items():
    unpredicted(_reason, *_names.split())
