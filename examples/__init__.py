"""The sources' experiments, one script each; installed and imported as `keras_initkit.examples`."""

from __future__ import annotations

from typing import Any

# In the order of the gallery. Each is the file `plot_<name>.py` beside this one.
NAMES = (
    "six_layers",
    "xavier_he",
    "batch_norm_rescue",
    "dense_128",
    "saturation",
    "cost_surfaces",
    "standard_normalized",
    "batch_norm_gradients",
    "batch_norm_by_hand",
    "batch_norm_gamma_beta",
    "zero",
    "pretraining",
    "preprocessing",
    "linear_100",
)

__all__ = ["NAMES", "Example", "reproduce", "start"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # their module loads matplotlib
        from keras_initkit.examples import _form

        return getattr(_form, name)
    raise AttributeError(f"module 'keras_initkit.examples' has no attribute {name!r}")
