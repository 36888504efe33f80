"""Weight initializers and signal instrumentation for Keras 3.

Importing it registers the initializers, so that `"keras_initkit>Name"` works wherever Keras takes one.
"""

from typing import Any

from keras_initkit._version import __version__

try:
    from keras_initkit import initializers, structure, theory
except ImportError as error:
    raise ImportError(
        f"keras_initkit: Keras did not start ({error}). It needs a backend: pip install 'keras-initkit[tensorflow]', "
        "or [jax], or [torch] with KERAS_BACKEND set to its name."
    ) from error

__all__ = [
    "Finding",
    "__version__",
    "compare",
    "diagnose",
    "initialize",
    "initializers",
    "predict",
    "probe",
    "repair",
    "structure",
    "theory",
]


def __getattr__(name: str) -> Any:
    if name == "compare":  # its module loads scikit-learn and matplotlib
        from keras_initkit.comparison import compare

        return compare
    if name in ("Finding", "diagnose", "repair"):
        from keras_initkit import diagnosis

        return getattr(diagnosis, name)
    if name == "initialize":
        from keras_initkit.schemes import initialize

        return initialize
    if name == "predict":
        from keras_initkit.prediction import predict

        return predict
    if name == "probe":
        from keras_initkit.capture._probe import probe

        return probe
    raise AttributeError(f"module 'keras_initkit' has no attribute {name!r}")
