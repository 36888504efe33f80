"""Weight initializers and signal instrumentation for Keras 3.

Importing it registers the initializers, so that `"keras_initkit>Name"` works wherever Keras takes one.
"""

from keras_initkit import initializers, structure, theory
from keras_initkit._version import __version__

__all__ = ["__version__", "initializers", "structure", "theory"]
