"""Schemes that take optimization steps."""

from keras_initkit.schemes.trained import _gradinit, _metainit, _pretraining  # noqa: F401  they register their schemes
