"""The table of rules: how each class of layer changes a signal and the gradient that comes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from keras_initkit.prediction._signals import LayerPropagation, Signal, UnpredictableError
from keras_initkit.structure._graph import Call
from keras_initkit.structure._layer_kinds import is_embedding

Rule = Callable[[Call, Sequence[Signal]], LayerPropagation]

_RULES: dict[type, Rule] = {}
_RESUMES: set[type] = set()
_REASONS: dict[type, str] = {}
_OPERATIONS = {"Add": "Add", "Subtract": "Subtract", "Multiply": "Multiply"}


def rule(*names: str, resumes: bool = False) -> Callable[[Rule], Rule]:
    """Registers a function as the rule of classes of `keras.layers`, and of subclasses that do not override `call`.

    With `resumes` the output is known even where the input is not (normalization).
    """

    def register(function: Rule) -> Rule:
        for layer_class in (getattr(keras.layers, name) for name in names if hasattr(keras.layers, name)):
            _RULES[layer_class] = function
            if resumes:
                _RESUMES.add(layer_class)
        return function

    return register


def unpredicted(reason: str, *names: str) -> None:
    """Registers the reason why classes of `keras.layers` cannot be predicted."""
    for name in names:
        if hasattr(keras.layers, name):
            _REASONS[getattr(keras.layers, name)] = reason


def propagate(call: Call, inputs: Sequence[Signal]) -> LayerPropagation:
    """Propagates signals through a call by the rule of its layer; raises `UnpredictableError` where none holds."""
    layer_class = _known_class(call.layer)
    if layer_class is None or layer_class not in _RULES:
        kind = type(call.layer).__name__
        reason = _REASONS.get(layer_class) if layer_class is not None else None
        raise UnpredictableError(reason or f"predict has no rule for {kind}")
    if layer_class not in _RESUMES and not all(signal.known for signal in inputs):
        raise UnpredictableError("its input is not predicted")
    if not inputs:
        raise UnpredictableError("it has no input")
    if not is_embedding(call.layer) and not all(tensor.is_float for tensor in call.inputs):
        raise UnpredictableError("its input holds integers")
    if getattr(call.layer, "data_format", None) == "channels_first":
        raise UnpredictableError("its data_format is channels_first; predict reads channels_last only")
    return _RULES[layer_class](call, inputs)


def status(layer_class: type[keras.Layer]) -> str:
    """Returns `"predicted"`, the reason why not, or an empty string for a class that this table does not know."""
    return "predicted" if layer_class in _RULES else _REASONS.get(layer_class, "")


def _known_class(layer: object) -> type | None:
    """Returns the class in the table whose `call` a layer runs; `None` if there is none."""
    if not isinstance(layer, keras.Layer):  # an operation: x + y
        name = type(layer).__name__
        return getattr(keras.layers, _OPERATIONS[name]) if name in _OPERATIONS else None
    for base in type(layer).__mro__:
        if base in _RULES or base in _REASONS:
            return base
        if "call" in vars(base):  # a user's own
            return None
    return None


for _reason, _names in {
    "a recurrent layer applies one kernel at every step": "RNN SimpleRNN LSTM GRU Bidirectional ConvLSTM1D ConvLSTM2D "
    "ConvLSTM3D SimpleRNNCell LSTMCell GRUCell StackedRNNCells",
    "attention mixes positions by weights that depend on them": "Attention AdditiveAttention GroupQueryAttention",
    "softmax normalizes over the units of an example": "Softmax",
    "its windows differ from output to output": "AdaptiveAveragePooling1D AdaptiveAveragePooling2D "
    "AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D",
    "the distribution of an extreme of several branches is not tracked": "Maximum Minimum",
    "products of one example's positions are not tracked": "Dot",
    "it runs arbitrary code": "Lambda Layer Wrapper TimeDistributed Pipeline FlaxLayer JaxLayer TFSMLayer "
    "TorchModuleWrapper",
    "it divides its kernel by a norm at each call": "SpectralNormalization",
    "it uses one table as embedding and as output kernel": "ReversibleEmbedding",
    "it masks positions by their values": "Masking",
    "it preprocesses data; predict starts from its output": "AugMix AutoContrast CategoryEncoding "
    "CenterCrop ContrastLimitedAdaptiveHistogramEqualization CutMix Discretization Equalization HashedCrossing Hashing "
    "IntegerLookup MaxNumBoundingBoxes MelSpectrogram MixUp Normalization RandAugment RandomBrightness "
    "RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop RandomElasticTransform RandomErasing "
    "RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective RandomPosterization "
    "RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation RandomZoom Resizing STFTSpectrogram "
    "Solarization StringLookup TextVectorization",
}.items():
    unpredicted(_reason, *_names.split())
