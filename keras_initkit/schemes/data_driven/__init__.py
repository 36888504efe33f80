"""Schemes that measure data on its way through the model."""

from keras_initkit.schemes.data_driven import _data_dependent, _lsuv  # noqa: F401  they register their schemes
