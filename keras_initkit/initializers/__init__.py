"""What one weight is drawn from: Keras initializers, registered as `"keras_initkit>Name"`."""

from keras_initkit.initializers.scaling import ActivationScaling, StandardUniform

__all__ = ["ActivationScaling", "StandardUniform"]
