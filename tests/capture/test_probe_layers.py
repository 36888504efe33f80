"""Every layer of Keras is probed in a tiny model, or stands here with the reason why not."""

import keras
import pytest
from keras import layers

from keras_initkit.capture._probe import probe

VECTOR, SEQUENCE, IMAGE, VOLUME = (6,), (5, 6), (8, 8, 3), (4, 4, 4, 2)


def names(text):
    return text.split()


class Cell(layers.Layer):
    """A cell of one's own, for `RNN`."""

    state_size = output_size = 4

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1] + 4, 4), initializer="glorot_uniform", name="w")

    def call(self, x, states):
        h = keras.ops.tanh(keras.ops.matmul(keras.ops.concatenate([x, states[0]], -1), self.w))
        return h, [h]


# Shape of the input, or a list of them, and how the layer is made of its class.
ONE = {
    **dict.fromkeys(
        names(
            "ActivityRegularization BatchNormalization ELU Flatten Identity LayerNormalization LeakyReLU "
            "PReLU ReLU RMSNormalization Softmax UnitNormalization"
        ),
        (VECTOR, lambda kind: kind()),
    ),
    **dict.fromkeys(names("AlphaDropout Dropout GaussianDropout GaussianNoise"), (VECTOR, lambda kind: kind(0.3))),
    **dict.fromkeys(
        names("GlobalAveragePooling1D GlobalMaxPooling1D Masking MaxPooling1D UpSampling1D ZeroPadding1D Cropping1D"),
        (SEQUENCE, lambda kind: kind()),
    ),
    **dict.fromkeys(
        names(
            "GlobalAveragePooling2D GlobalMaxPooling2D MaxPooling2D UpSampling2D ZeroPadding2D Cropping2D "
            "RandomInvert RandomGrayscale RandomPerspective RandomElasticTransform RandomGaussianBlur RandomErasing "
            "Solarization"
        ),
        (IMAGE, lambda kind: kind()),
    ),
    **dict.fromkeys(
        names("GlobalAveragePooling3D GlobalMaxPooling3D MaxPooling3D UpSampling3D ZeroPadding3D"),
        (VOLUME, lambda kind: kind()),
    ),
    "Cropping3D": (VOLUME, lambda kind: kind(1)),
    **dict.fromkeys(names("Add Average Concatenate Maximum Minimum Multiply Subtract"), ([VECTOR] * 2, lambda k: k())),
    "Dot": ([VECTOR] * 2, lambda kind: kind(axes=1)),
    "Dense": (VECTOR, lambda kind: kind(4, "relu")),
    "EinsumDense": (SEQUENCE, lambda kind: kind("abc,cd->abd", (5, 4), activation="tanh")),
    "Activation": (VECTOR, lambda kind: kind("tanh")),
    "Lambda": (VECTOR, lambda kind: kind(lambda x: x * 2)),
    "Layer": (VECTOR, lambda kind: Doubled()),
    "Wrapper": (VECTOR, lambda kind: Wrapped(layers.Dense(3))),
    "SpectralNormalization": (VECTOR, lambda kind: kind(layers.Dense(3))),
    "GroupNormalization": (VECTOR, lambda kind: kind(2)),
    "Normalization": (VECTOR, lambda kind: kind(mean=[0.5] * 6, variance=[2.0] * 6)),
    "Rescaling": (VECTOR, lambda kind: kind(0.5)),
    "Reshape": (VECTOR, lambda kind: kind((2, 3))),
    "RepeatVector": (VECTOR, lambda kind: kind(3)),
    "Permute": (SEQUENCE, lambda kind: kind((2, 1))),
    "SpatialDropout1D": (SEQUENCE, lambda kind: kind(0.3)),
    "SpatialDropout2D": (IMAGE, lambda kind: kind(0.3)),
    "SpatialDropout3D": (VOLUME, lambda kind: kind(0.3)),
    "CenterCrop": (IMAGE, lambda kind: kind(4, 4)),
    "Resizing": (IMAGE, lambda kind: kind(4, 4)),
    **dict.fromkeys(names("SimpleRNN GRU LSTM"), (SEQUENCE, lambda kind: kind(4))),
    **dict.fromkeys(names("SimpleRNNCell GRUCell LSTMCell"), (SEQUENCE, lambda kind: layers.RNN(kind(4)))),
    "RNN": (SEQUENCE, lambda kind: kind(Cell())),
    "StackedRNNCells": (SEQUENCE, lambda kind: layers.RNN(kind([layers.GRUCell(4), Cell()]))),
    "Bidirectional": (SEQUENCE, lambda kind: kind(layers.GRU(4, return_sequences=True))),
    "TimeDistributed": (SEQUENCE, lambda kind: kind(layers.Dense(4))),
    "Attention": ([SEQUENCE] * 2, lambda kind: kind(use_scale=True)),
    "AdditiveAttention": ([SEQUENCE] * 2, lambda kind: kind()),
    "MultiHeadAttention": (SEQUENCE, lambda kind: SelfAttention(kind(2, 3))),
    "GroupQueryAttention": (SEQUENCE, lambda kind: SelfAttention(kind(3, 4, 2))),
    **dict.fromkeys(
        names(
            "RandomContrast RandomBrightness RandomRotation RandomZoom RandomShear RandomSharpness "
            "RandomColorDegeneration RandomPosterization RandomHue RandomSaturation"
        ),
        (IMAGE, lambda kind: kind(4) if kind.__name__ == "RandomPosterization" else kind(0.2)),
    ),
    "RandomTranslation": (IMAGE, lambda kind: kind(0.2, 0.2)),
    "RandomCrop": (IMAGE, lambda kind: kind(4, 4)),
    "RandomFlip": (IMAGE, lambda kind: kind()),
}
for _rank, _shape in enumerate((SEQUENCE, IMAGE, VOLUME), 1):
    for _name in ("Conv", "SeparableConv", "DepthwiseConv"):
        arguments = (2,) if _name == "DepthwiseConv" else (4, 2)
        ONE[f"{_name}{_rank}D"] = (_shape, lambda kind, arguments=arguments: kind(*arguments, activation="relu"))
    ONE[f"Conv{_rank}DTranspose"] = (_shape, lambda kind: kind(4, 2, strides=2))
    ONE[f"AveragePooling{_rank}D"] = (_shape, lambda kind: kind(2))
    ONE[f"ConvLSTM{_rank}D"] = ((3, *_shape), lambda kind: kind(2, 2))
    for _name in ("Average", "Max"):
        ONE[f"Adaptive{_name}Pooling{_rank}D"] = (_shape, lambda kind: kind(2))

INTEGERS = {
    "Embedding": ((5,), lambda kind: kind(7, 4, mask_zero=True)),
    "ReversibleEmbedding": ((5,), lambda kind: kind(7, 4)),
}
REASONS = {
    **dict.fromkeys(
        names("Hashing HashedCrossing IntegerLookup StringLookup TextVectorization Discretization CategoryEncoding"),
        "turns strings or integers into integers, before a model rather than in it",
    ),
    **dict.fromkeys(
        names(
            "AugMix AutoContrast ContrastLimitedAdaptiveHistogramEqualization CutMix Equalization MaxNumBoundingBoxes "
            "MixUp RandAugment RandomColorJitter"
        ),
        "prepares batches of images, with labels or with values from 0 to 255, before a model",
    ),
    **dict.fromkeys(names("MelSpectrogram STFTSpectrogram"), "takes sound; its weights are a fixed basis"),
    **dict.fromkeys(names("JaxLayer FlaxLayer"), "holds a function of JAX; as any layer with weights of its own"),
    "TFSMLayer": "holds a file in TensorFlow's own format",
    "TorchModuleWrapper": "test_probe_state.py",
    "InputLayer": "is never called",
    "Pipeline": "preprocesses data, before a model",
}


class Doubled(layers.Layer):
    def call(self, x):
        return 2 * x


class Wrapped(layers.Wrapper):
    def call(self, x):
        return 2 * self.layer(x)


class SelfAttention(layers.Layer):
    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def call(self, x):
        return self.attention(x, x)


ROUNDED = {"RandomPosterization"}  # no gradient goes through

CLASSES = {name: value for name, value in vars(layers).items() if isinstance(value, type)}


def on_one_backend(name):
    """Layers that other ranks, or others that draw images anew, stand for on a second backend."""
    return name.endswith(("1D", "3D", "1DTranspose", "3DTranspose")) or (
        name.startswith("Random") and name not in ("RandomFlip", "RandomRotation", "RandomContrast")
    )


PROBED = [
    pytest.param(name, marks=[pytest.mark.one_backend] * on_one_backend(name))
    for name in sorted({**ONE, **INTEGERS})
    if name in CLASSES
]


def test_every_layer_of_keras_is_here():
    listed = {CLASSES.get(name) for name in {**ONE, **INTEGERS, **REASONS}}
    unknown = sorted(name for name, kind in CLASSES.items() if issubclass(kind, keras.Layer) and kind not in listed)
    assert not unknown, "Keras has layers that this test does not know: probe each in a tiny model, or say why not."


@pytest.mark.parametrize("name", PROBED)
def test_is_probed(name):
    keras.utils.set_random_seed(1)
    shapes, make = {**ONE, **INTEGERS}[name]
    several = isinstance(shapes, list)
    integers = name in INTEGERS
    inputs = [keras.Input(shape, dtype="int32" if integers else None) for shape in (shapes if several else [shapes])]
    layer = make(CLASSES[name])
    outputs = layer(inputs if several else inputs[0])
    # A kernel before it, so that there are weights, and a gradient that comes from behind it.
    head = layers.Dense(3, name="head")(layers.Flatten(name="flat")(outputs))
    model = keras.Model(inputs, head)
    report = probe(model, batch_size=4)
    assert not any("NaN" in note for note in report.notes)
    own = [path for path in report.layers if path.split("/")[0] == layer.name]
    assert own, "no row of the layer"
    of_layer = {(row.tap.kind, row.tap.name) for row in report.rows if row.tap.layer in own}
    assert ("output", "") in of_layer
    assert (("output_gradient", "") in of_layer) == (name not in ROUNDED)
    trainable = {id(v) for v in layer.trainable_variables}
    gradients = [row for row in report.rows if row.tap.layer in own and row.tap.kind == "weight_gradient"]
    assert len(gradients) == len(trainable)
    flat = next(row for row in report.rows if row.tap[:2] == ("input", "flat"))
    last = [row for row in report.rows if row.tap.layer in own and row.tap.kind == "output"][-1]
    assert last.moments == flat.moments
