"""Keras initializers for single weights, registered as `"keras_initkit>Name"`."""

from keras_initkit._compat import name_initializers
from keras_initkit.initializers._biases import ChronoBias, PriorProbabilityBias, UnitForgetGateBias
from keras_initkit.initializers._catalogue import catalogue
from keras_initkit.initializers._core import PACKAGE
from keras_initkit.initializers._edge_of_chaos import Critical, CriticalBias
from keras_initkit.initializers._lookup import get
from keras_initkit.initializers._orthogonal import ConvOrthogonal, DeltaOrthogonal, GatewiseOrthogonal, ScaledOrthogonal
from keras_initkit.initializers._scaling import ActivationScaling, DepthScaling, RandomWalk, StandardUniform
from keras_initkit.initializers._structured import Dirac, Hadamard, Siren, Sparse
from keras_initkit.initializers._upsampling import ICNR, BilinearUpsampling

__all__ = [
    "ICNR",
    "ActivationScaling",
    "BilinearUpsampling",
    "ChronoBias",
    "ConvOrthogonal",
    "Critical",
    "CriticalBias",
    "DeltaOrthogonal",
    "DepthScaling",
    "Dirac",
    "GatewiseOrthogonal",
    "Hadamard",
    "PriorProbabilityBias",
    "RandomWalk",
    "ScaledOrthogonal",
    "Siren",
    "Sparse",
    "StandardUniform",
    "UnitForgetGateBias",
    "catalogue",
    "get",
]

name_initializers({f"{PACKAGE}>{name}": globals()[name] for name in __all__ if isinstance(globals()[name], type)})
