"""Declarations of what each known initializer draws."""

from keras_initkit.testing.declarations import _keras, _scalings_and_biases, _structures  # noqa: F401
