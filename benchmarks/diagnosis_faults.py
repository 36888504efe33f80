"""Faults, each of one kind at a known layer, in the architectures of `diagnosis_architectures.py`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np
from diagnosis_architectures import ARCHITECTURES, SOUND, Variant, dense_trunk, features_of

INITIALIZERS = keras.initializers


@keras.saving.register_keras_serializable("diagnosis_faults")
class RankOne(INITIALIZERS.Initializer):
    """He's variance, but every column is a multiple of one vector."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """A draw."""
        left, right = keras.random.normal((*shape[:-1], 1)), keras.random.normal((shape[-1],))
        return keras.ops.cast(left * right * float(np.sqrt(2 / np.prod(shape[:-1]))), dtype or "float32")


class Fault(NamedTuple):
    """One thing that is wrong with an architecture.

    Args:
        kind: the finding that it calls for.
        layers: the layers that the finding may name.
        variant: how the model is built.
        settings: initializers by layer and attribute.
        inputs: what the data's inputs become.
        rate: factor of the learning rate.
        spoiled: a layer whose kernel has a NaN.
        causes: kinds that name the same fault as well, at the same layers.
        repairable: whether it is the initialization's fault.
        sound: initializers of the sound version, by layer and attribute, where the variant's own are the fault.
    """

    kind: str
    layers: tuple[str, ...] = ()
    variant: Variant = SOUND
    settings: Mapping[tuple[str, str], Any] = MappingProxyType({})
    inputs: Callable[[np.ndarray], np.ndarray] | None = None
    rate: float = 1.0
    spoiled: str = ""
    causes: tuple[str, ...] = ()
    repairable: bool = True
    sound: Mapping[tuple[str, str], Any] = MappingProxyType({})


def faults(name: str) -> dict[str, Fault]:
    """The faults of an architecture, by a name for each."""
    architecture = ARCHITECTURES[name]
    trunk = tuple(f"trunk_{number}" for number in range(architecture.layers))
    dense = architecture.trunk is dense_trunk
    plain = dense or name == "CNN"  # what a trunk's kernels scale is not normalised away
    middle = trunk[len(trunk) // 2] if plain else "features"
    normal, constant = INITIALIZERS.RandomNormal, INITIALIZERS.Constant
    kernel = (middle, "kernel_initializer")
    taps = 9.0 if architecture.data == "image" else 3.0
    bounded = middle if name in ("MLP tanh", "MLP sigmoid") else "features"
    deep = tuple(f"deep_{number}" for number in range(8))
    pair = {("features", "kernel_initializer"): constant(0.1), ("logits", "kernel_initializer"): constant(0.1)}
    every = (*trunk, "wrong", *deep, "features", "logits")
    found = {
        "tiny kernel": Fault(
            "vanishing_activation", (middle,), settings={kernel: normal(stddev=1e-4)}, causes=("initializer_mismatch",)
        ),
        "deep, sigmoid": Fault(
            "vanishing_gradient",
            every,
            Variant("sigmoid", deep=8),
            causes=("vanishing_activation", "initializer_mismatch"),
            # No initialization that was tried makes eight sigmoids train in these few epochs (Glorot's, `auto`, `lsuv`,
            # 16 times Glorot's variance: accuracy 0.45 at most): what helps is another activation or a normalization.
            repairable=False,
        ),
        "saturated by kernel": Fault(
            "saturated_units",
            (bounded,),
            Variant(features="tanh" if bounded == "features" else None),
            {(bounded, "kernel_initializer"): normal(stddev=30.0)},
            causes=("initializer_mismatch",),
        ),
        "saturated by bias": Fault(
            "saturated_units",
            (bounded,),
            Variant(features="tanh" if bounded == "features" else None),
            {(bounded, "bias_initializer"): constant(30.0)},
        ),
        "equal weights": Fault("symmetric_units", ("features", "logits"), settings=pair),
        "zero weights": Fault(
            "symmetric_units",
            (*trunk, "features", "logits"),
            settings={(layer, "kernel_initializer"): "zeros" for layer in (*trunk, "features", "logits")},
        ),
        "softmax of one unit": Fault(
            "constant_output",
            ("logits",),
            Variant(one_unit=True),
            causes=("frozen_weights", "softmax_of_one"),
            repairable=False,
        ),
        "kernel of rank one": Fault("rank_collapse", (middle,), settings={kernel: RankOne()}),
        "raw pixels": Fault(
            "unscaled_input", every, inputs=lambda x: (x - x.min()) / np.ptp(x) * 255, repairable=False
        ),
        "RandomNormal(0.01)": Fault(
            "initializer_mismatch", (middle,), settings={kernel: normal(stddev=0.01)}, causes=("vanishing_activation",)
        ),
        "depthwise by Keras' fans": Fault(
            "wrong_fans",
            ("wrong",),
            Variant(wrong_fans=True),
            causes=("initializer_mismatch",),
            sound={("wrong", "depthwise_initializer"): normal(stddev=taps**-0.5)},
        ),
        "rate too small": Fault("update_too_small", rate=1e-6, repairable=False),
        "rate too large": Fault("update_too_large", rate=1000.0, repairable=False),
        "no gradient": Fault("frozen_weights", trunk, Variant(stop=True), repairable=False),
        "NaN in a kernel": Fault("nonfinite", (middle,), spoiled=middle),
    }
    if "relu" in (architecture.activation, features_of(name)):
        unit = middle if architecture.activation == "relu" else "features"
        found["dead by bias"] = Fault("dead_units", (unit,), settings={(unit, "bias_initializer"): constant(-30.0)})
    large = "features" if not (plain and architecture.activation == "relu") else middle
    if features_of(name) == "relu":
        found["huge kernel"] = Fault(
            "exploding_activation",
            (large,),
            settings={(large, "kernel_initializer"): normal(stddev=100.0)},
            causes=("initializer_mismatch",),
        )
    wide = {(layer, "kernel_initializer"): normal(stddev=2.0) for layer in deep}
    found["deep, large"] = Fault(
        "exploding_gradient",
        every,
        Variant("relu" if features_of(name) == "relu" else "tanh", deep=8),
        wide,
        causes=("exploding_activation", "saturated_units", "initializer_mismatch"),
    )
    return found


@contextlib.contextmanager
def at_fault(model: keras.Model, fault: Fault | None) -> Iterator[Callable[[], None]]:
    """The fault's layers draw their weights by its initializers; to be called after each draw for what is more."""
    settings = {} if fault is None else fault.settings
    holders = {key: _holder(model.get_layer(key[0])) for key in settings}
    before = {key: getattr(holder, key[1]) for key, holder in holders.items()}
    for key, initializer in settings.items():
        setattr(holders[key], key[1], INITIALIZERS.get(initializer))

    def spoil() -> None:
        if fault is not None and fault.spoiled:
            kernel = model.get_layer(fault.spoiled).trainable_weights[0]
            values = np.array(keras.ops.convert_to_numpy(kernel))
            values.flat[0] = np.nan
            kernel.assign(values)

    try:
        yield spoil
    finally:
        for key, initializer in before.items():
            setattr(holders[key], key[1], initializer)


def _holder(layer: keras.layers.Layer) -> keras.layers.Layer:
    """What holds a layer's initializers: of a recurrent one its cell."""
    return getattr(layer, "cell", layer)
