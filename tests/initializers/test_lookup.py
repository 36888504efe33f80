"""Every form that an initializer can be given in names the same initializer; everything else is a ValueError."""

import keras
import numpy as np
import pytest

from keras_initkit import initializers
from keras_initkit.initializers import get

CONFIG = keras.initializers.serialize(initializers.Sparse(nonzero=3))


@pytest.mark.parametrize(
    ("identifier", "kind"),
    [
        ("he_normal", keras.initializers.HeNormal),
        ("HeNormal", keras.initializers.HeNormal),
        ("one", keras.initializers.Ones),  # one of Keras' short names
        ("activation_scaling", initializers.ActivationScaling),
        ("ActivationScaling", initializers.ActivationScaling),
        ("keras_initkit>ActivationScaling", initializers.ActivationScaling),
        ("icnr", initializers.ICNR),
        (CONFIG, initializers.Sparse),
        (keras.initializers.serialize(keras.initializers.HeNormal()), keras.initializers.HeNormal),
        (initializers.DepthScaling, initializers.DepthScaling),
        (keras.initializers.Zeros, keras.initializers.Zeros),
    ],
)
def test_forms(identifier, kind):
    found = get(identifier)
    assert type(found) is kind
    assert get(identifier) is not found
    if identifier is CONFIG:
        assert found.nonzero == 3


@pytest.mark.parametrize("entry", initializers.catalogue(), ids=lambda entry: entry.name)
def test_class_name_and_snake_case_of_the_whole_catalogue(entry):
    module = initializers if entry.origin == "keras_initkit" else keras.initializers
    snake = "".join("_" + letter.lower() if letter.isupper() else letter for letter in entry.name).lstrip("_")
    for name in (entry.name, entry.name.lower() if entry.name.isupper() else snake):
        assert type(get(name)) is getattr(module, entry.name)


def test_instances_and_functions_are_returned_as_they_are():
    def ramp(shape, dtype=None):
        return keras.ops.reshape(keras.ops.arange(np.prod(shape), dtype=dtype), shape)

    for each in (initializers.Dirac(), keras.initializers.HeNormal(seed=1), ramp):
        assert get(each) is each


def test_an_array_is_a_constant_that_a_configuration_keeps():
    values = np.arange(6.0).reshape(2, 3)
    found = get(values)
    again = keras.initializers.deserialize(keras.initializers.serialize(found))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(again((2, 3))), values)


class NeedsGain(keras.initializers.Initializer):
    def __init__(self, gain):
        self.gain = gain


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("he_norml", r"got 'he_norml', expected the name of an initializer\. Did you mean 'he_normal'"),
        ("keras_initkit>activation_scalin", "Did you mean 'activation_scaling'"),
        ("relu", r"got 'relu', expected the name of an initializer\. `keras-initkit list` shows them"),
        ("", "got ''"),
        (None, "got None, expected an initializer, its name"),
        (3, "got 3, expected an initializer"),
        ([1.0], r"got \[1\.0\], expected an initializer"),
        ({"class_name": "function", "config": "relu"}, "expected an initializer, its name"),
        ({"class_name": "HeNormal", "config": {"scale": 2}}, "unexpected keyword argument 'scale'"),
        (NeedsGain, r"expected an initializer class that needs no arguments\. Give an instance\..*'gain'"),
        (keras.initializers.Initializer, "Give an instance"),
        (keras.layers.Dense, "Give an instance"),
        (keras.layers.ReLU, "Give an instance"),
        (keras.layers.ReLU(), "got <ReLU"),
        (dict, "Give an instance"),
    ],
)
def test_what_is_none_is_a_value_error(identifier, message):
    with pytest.raises(ValueError, match="^initializer: (?s:.*)" + message):
        get(identifier)


@pytest.mark.parametrize("given", [keras.initializers.HeNormal, initializers.Dirac, "lecun_uniform", "dirac"])
def test_icnr_of_any_form_is_saved_and_loaded(given, tmp_path):
    layer = keras.layers.Conv2D(8, 3, kernel_initializer=initializers.ICNR(2, given))
    model = keras.Sequential([keras.Input((8, 8, 3)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").layers[0].kernel_initializer
    assert type(get(loaded.initializer)) is type(get(given))
    assert isinstance(loaded.initializer, str) == isinstance(given, str)
