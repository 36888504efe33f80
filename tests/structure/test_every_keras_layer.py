"""Every public layer of Keras has been looked at: a new one fails here until somebody sorts it in."""

import keras
import pytest
from keras import layers

from keras_initkit.structure._kernels import description

# Their weights are in sublayers of their own, which are described.
COMPOSITE = """
    Bidirectional GroupQueryAttention GRU LSTM MultiHeadAttention Pipeline RNN SimpleRNN StackedRNNCells
    TimeDistributed Wrapper
"""
# They hold the weights of another framework, or whatever the user adds: read by default, with a warning.
FOREIGN = "FlaxLayer JaxLayer Lambda Layer TFSMLayer TorchModuleWrapper"
WEIGHTLESS = """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
    AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AlphaDropout AugMix AutoContrast Average
    AveragePooling1D AveragePooling2D AveragePooling3D CategoryEncoding CenterCrop Concatenate
    ContrastLimitedAdaptiveHistogramEqualization Cropping1D Cropping2D Cropping3D CutMix Discretization Dot Dropout
    ELU Equalization Flatten GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D HashedCrossing Hashing Identity
    InputLayer IntegerLookup LeakyReLU Masking MaxNumBoundingBoxes MaxPooling1D MaxPooling2D MaxPooling3D Maximum
    MelSpectrogram Minimum MixUp Multiply Permute RandAugment RandomBrightness RandomColorDegeneration
    RandomColorJitter RandomContrast RandomCrop RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur
    RandomGrayscale RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation
    RandomSharpness RandomShear RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape Resizing Softmax
    Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D StringLookup Subtract TextVectorization
    UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
"""
SORTED = set(f"{COMPOSITE} {FOREIGN} {WEIGHTLESS}".split())
CLASSES = {
    value.__name__: value
    for value in vars(layers).values()
    if isinstance(value, type) and issubclass(value, keras.Layer)
}


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_is_described_or_sorted(name):
    exported = name if hasattr(layers, name) else {"GroupedQueryAttention": "GroupQueryAttention"}[name]
    described = description(CLASSES[name]) is not None
    assert described != (exported in SORTED), (
        f"keras.layers.{exported} is {'described and listed' if described else 'not known'}. Look at its weights: "
        "describe its kernels in structure/keras_layers.py, or register it there as having none, or, if it has no "
        "weights of its own, list it in this file; only one of these."
    )
