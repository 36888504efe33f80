"""The table of rules: by class of layer, what theory says that it does to a signal and to its gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from keras_initkit.prediction._signals import Passage, Signal, UnpredictableError
from keras_initkit.structure._calls import Call
from keras_initkit.structure._layer_kinds import is_embedding

Rule = Callable[[Call, Sequence[Signal]], Passage]

_RULES: dict[type, Rule] = {}
_RESUMES: set[type] = set()
_REASONS: dict[type, str] = {}
_OPERATIONS = {"Add": "Add", "Subtract": "Subtract", "Multiply": "Multiply"}


def rule(*names: str, resumes: bool = False) -> Callable[[Rule], Rule]:
    """Register a function as the rule of these classes of `keras.layers`, those that this Keras has.

    Args:
        names: of the classes; a subclass that overrides nothing of `call` follows the same rule.
        resumes: the output is known even where the input is not (normalisation).
    """

    def register(function: Rule) -> Rule:
        for layer_class in (getattr(keras.layers, name) for name in names if hasattr(keras.layers, name)):
            _RULES[layer_class] = function
            if resumes:
                _RESUMES.add(layer_class)
        return function

    return register


def unpredicted(reason: str, *names: str) -> None:
    """Register the reason why classes of `keras.layers` cannot be predicted."""
    for name in names:
        if hasattr(keras.layers, name):
            _REASONS[getattr(keras.layers, name)] = reason


def passage(call: Call, inputs: Sequence[Signal]) -> Passage:
    """What a call does to the signal, by the rule of its layer.

    Raises:
        UnpredictableError: if there is no rule, or it does not hold here.
    """
    layer_class = _known_class(call.layer)
    if layer_class is None or layer_class not in _RULES:
        kind = type(call.layer).__name__
        reason = _REASONS.get(layer_class) if layer_class is not None else None
        raise UnpredictableError(reason or f"{kind} is no layer that predict has a rule for")
    if layer_class not in _RESUMES and not all(signal.known for signal in inputs):
        raise UnpredictableError("what it reads is not predicted")
    if not inputs:
        raise UnpredictableError("it reads no tensor")
    if not is_embedding(call.layer) and not all(tensor.is_float for tensor in call.inputs):
        raise UnpredictableError("it reads integers")
    if getattr(call.layer, "data_format", None) == "channels_first":
        raise UnpredictableError("its data_format is channels_first; predict reads channels_last only")
    return _RULES[layer_class](call, inputs)


def status(layer_class: type[keras.Layer]) -> str:
    """`"predicted"`, the reason why not, or an empty string for a class that nobody looked at."""
    return "predicted" if layer_class in _RULES else _REASONS.get(layer_class, "")


def _known_class(layer: object) -> type | None:
    """The class of Keras whose `call` a layer runs; `None` where that is not one of its own layers."""
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
    "a recurrent layer sums over time by one kernel": "RNN SimpleRNN LSTM GRU Bidirectional ConvLSTM1D ConvLSTM2D "
    "ConvLSTM3D SimpleRNNCell LSTMCell GRUCell StackedRNNCells",
    "softmax attention mixes positions by weights that depend on them": "Attention AdditiveAttention "
    "GroupQueryAttention",
    "softmax joins the units of an example": "Softmax",
    "which positions it joins differs from output to output": "AdaptiveAveragePooling1D AdaptiveAveragePooling2D "
    "AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D",
    "the distribution of an extreme of several branches is not tracked": "Maximum Minimum",
    "products of one example's positions are not tracked": "Dot",
    "it runs code of its own": "Lambda Layer Wrapper TimeDistributed Pipeline FlaxLayer JaxLayer TFSMLayer "
    "TorchModuleWrapper",
    "it divides its kernel by a norm as it is called": "SpectralNormalization",
    "it reads a table that it also writes with": "ReversibleEmbedding",
    "it masks positions by what they hold": "Masking",
    "it is preprocessing of data; predict starts from what it puts out": "AugMix AutoContrast CategoryEncoding "
    "CenterCrop ContrastLimitedAdaptiveHistogramEqualization CutMix Discretization Equalization HashedCrossing Hashing "
    "IntegerLookup MaxNumBoundingBoxes MelSpectrogram MixUp Normalization RandAugment RandomBrightness "
    "RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop RandomElasticTransform RandomErasing "
    "RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective RandomPosterization "
    "RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation RandomZoom Resizing STFTSpectrogram "
    "Solarization StringLookup TextVectorization",
}.items():
    unpredicted(_reason, *_names.split())
