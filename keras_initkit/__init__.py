"""Weight initializers and signal instrumentation for Keras 3.

Importing it registers the initializers: `"keras_initkit>Name"` then works wherever Keras takes an initializer.
Everything else is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING

from keras_initkit._version import __version__

try:
    from keras_initkit import initializers
except ImportError as error:
    raise ImportError(
        f"keras_initkit: Keras did not start ({error}). It needs a backend: pip install 'keras-initkit[tensorflow]', "
        "or [jax], or [torch] with KERAS_BACKEND set to its name."
    ) from error

if TYPE_CHECKING:
    from keras_initkit import (
        callbacks,
        capture,
        cli,
        comparison,
        diagnosis,
        examples,
        inputs,
        plots,
        prediction,
        report,
        schemes,
        signal,
        statistics,
        structure,
        testing,
        theory,
    )
    from keras_initkit.callbacks import LayerStatsCallback, verify, watch
    from keras_initkit.capture import probe
    from keras_initkit.comparison import compare
    from keras_initkit.diagnosis import Finding, diagnose, repair
    from keras_initkit.prediction import predict
    from keras_initkit.report import SignalReport
    from keras_initkit.schemes import initialize
    from keras_initkit.structure import layer_fans

__all__ = [
    "Finding",
    "LayerStatsCallback",
    "SignalReport",
    "__version__",
    "callbacks",
    "capture",
    "cli",
    "compare",
    "comparison",
    "diagnose",
    "diagnosis",
    "examples",
    "initialize",
    "initializers",
    "inputs",
    "layer_fans",
    "plots",
    "predict",
    "prediction",
    "probe",
    "repair",
    "report",
    "schemes",
    "signal",
    "statistics",
    "structure",
    "testing",
    "theory",
    "verify",
    "watch",
]

_HOMES = {
    "Finding": "diagnosis",
    "LayerStatsCallback": "callbacks",
    "SignalReport": "report",
    "compare": "comparison",
    "diagnose": "diagnosis",
    "initialize": "schemes",
    "layer_fans": "structure",
    "predict": "prediction",
    "probe": "capture",
    "repair": "diagnosis",
    "verify": "callbacks",
    "watch": "callbacks",
}

if not TYPE_CHECKING:  # a type checker would take every unknown name for one of these

    def __getattr__(name):
        if name in _HOMES:
            value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        elif name in __all__:
            value = importlib.import_module(f"{__name__}.{name}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*__all__, "__doc__", "__file__", "__name__", "__path__"})
