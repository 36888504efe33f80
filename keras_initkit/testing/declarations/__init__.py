"""What each initializer promises."""

from keras_initkit.testing.declarations import _keras, _scalings_and_biases, _structures  # noqa: F401
