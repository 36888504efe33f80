"""Two variables never get equal draws by accident, and what has a seed reproduces."""

import copy
import json
import warnings

import keras
import numpy as np
import pytest

from keras_initkit.initializers import ActivationScaling, StandardUniform, _core
from keras_initkit.testing._subject import to_numpy

SHAPE = (4, 3)


def draw(initializer):
    return to_numpy(initializer(SHAPE))


def kernels(model_or_layer):
    return [to_numpy(variable.value) for variable in model_or_layer.variables if "kernel" in variable.path]


def all_differ(arrays):
    arrays = [array.ravel() for array in arrays]
    return not any(np.array_equal(arrays[i], other) for i in range(len(arrays)) for other in arrays[i + 1 :])


def attention(seed, kind=keras.layers.MultiHeadAttention, heads=(2, 4)):
    layer = kind(*heads, kernel_initializer=ActivationScaling(seed=seed))
    layer.build((None, 5, 8), (None, 5, 8))
    query, key, value, output = kernels(layer)
    assert query.shape == key.shape == value.shape == (8, 2, 4)
    return query, key, value, output


def group_attention(seed):
    return attention(seed, keras.layers.GroupQueryAttention, (4, 2, 2))


def small_model(first, second=None):
    layers = [keras.Input((6,)), keras.layers.Dense(6, kernel_initializer=first)]
    return keras.Sequential([*layers, keras.layers.Dense(6, kernel_initializer=second or first)])


@pytest.mark.parametrize("attention", [attention, group_attention])
@pytest.mark.parametrize("generator", [False, True])
def test_attention_kernels_differ_without_a_seed_and_with_a_generator(attention, generator):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert all_differ(attention(keras.random.SeedGenerator(7) if generator else None)[:3])


def test_attention_with_a_generator_reproduces():
    runs = [attention(keras.random.SeedGenerator(7)) for _ in range(2)]
    for one, two in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("attention", [attention, group_attention])
def test_attention_kernels_repeat_an_integer_seed_with_a_warning_that_names_the_remedy(attention):
    with pytest.warns(UserWarning, match=r"ActivationScaling: got a clone with the integer seed 7.*MultiHeadAttention"):
        query, key, value, _ = attention(7)
    np.testing.assert_array_equal(query, key)
    np.testing.assert_array_equal(query, value)
    with pytest.warns(UserWarning, match=r"Pass seed=keras.random.SeedGenerator\(7\).*keras_initkit.initialize\("):
        attention(7)


def test_no_warning_where_no_kernel_repeats():
    initializer = ActivationScaling(seed=7)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        layer = keras.layers.EinsumDense("ab,bc->ac", output_shape=5, kernel_initializer=initializer)
        layer.build((None, 4))
        keras.models.clone_model(small_model(initializer, StandardUniform(seed=8)))
        copies = [initializer.clone(), copy.deepcopy(initializer), copy.copy(initializer)]
    for each in copies:
        assert type(each) is ActivationScaling
        assert each.get_config() == initializer.get_config()
        np.testing.assert_array_equal(draw(each), draw(initializer))


def test_einsum_dense_with_an_integer_seed_draws_what_the_initializer_draws():
    layer = keras.layers.EinsumDense("ab,bc->ac", output_shape=3, kernel_initializer=ActivationScaling(seed=7))
    layer.build((None, 4))
    np.testing.assert_array_equal(kernels(layer)[0], draw(ActivationScaling(seed=7)))


def test_the_configuration_is_plain_data_and_stays_the_constructors_arguments():
    generator = keras.random.SeedGenerator(7)
    for seed, plain in ((None, None), (7, 7), (generator, keras.saving.serialize_keras_object(generator))):
        initializer = StandardUniform(seed=seed)
        draw(initializer)
        config = initializer.get_config()
        assert config == {"in_axes": None, "out_axes": None, "seed": plain}
        assert json.loads(json.dumps(config)) == config
        assert initializer.clone().get_config() == config


def test_clones_and_deep_copies_share_a_generator():
    generator = keras.random.SeedGenerator(7)
    initializer = ActivationScaling(seed=generator)
    copies = [
        initializer,
        initializer.clone(),
        ActivationScaling.from_config(initializer.get_config()),
        copy.deepcopy(initializer),
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(initializer)),
    ]
    assert all(each.seed is generator for each in copies)
    assert all_differ([draw(each) for each in copies])


def test_generators_of_equal_seeds_are_streams_of_their_own():
    if "name" not in keras.random.SeedGenerator(7).get_config():
        pytest.skip("this Keras' generators have no name: docs/seeding.md")
    one, two = (ActivationScaling(seed=keras.random.SeedGenerator(7)) for _ in range(2))
    assert one.clone().seed is one.seed
    assert two.clone().seed is two.seed
    np.testing.assert_array_equal(draw(one), draw(two))


def test_in_a_new_process_a_generator_starts_from_its_configuration(monkeypatch):
    initializer = ActivationScaling(seed=keras.random.SeedGenerator(7))
    config, first = dict(initializer.get_config()), draw(initializer)
    monkeypatch.setattr(_core, "_STREAMS", {})
    np.testing.assert_array_equal(draw(ActivationScaling.from_config(config)), first)


def test_another_object_with_the_generators_name_and_seed_is_no_seed():
    generator = keras.random.SeedGenerator(7, name="rate")
    held = ActivationScaling(seed=generator)
    dropout = keras.saving.serialize_keras_object(keras.layers.Dropout(0.5, seed=7, name="rate"))
    with pytest.raises(ValueError, match=r"seed: got <Dropout .*, expected an integer"):
        ActivationScaling(seed=dropout)
    assert held.clone().seed is generator


@pytest.mark.parametrize("seed", [None, "generator"])
def test_one_instance_in_two_layers_draws_twice_and_so_does_a_cloned_model(seed):
    initializer = ActivationScaling(seed=keras.random.SeedGenerator(7) if seed else None)
    model = small_model(initializer)
    assert all_differ(kernels(model) + kernels(keras.models.clone_model(model)))


def test_one_instance_with_an_integer_seed_repeats_as_in_keras():
    one, two = kernels(small_model(ActivationScaling(seed=7)))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(draw(ActivationScaling(seed=7)), draw(ActivationScaling(seed=7)))


def test_set_random_seed_makes_unseeded_models_reproducible():
    def build():
        keras.utils.set_random_seed(3)
        return kernels(small_model(ActivationScaling()))

    first, second = build(), build()
    assert all_differ(first)
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("seed", [None, 7, "generator"])
def test_save_and_load_keep_weights_and_configuration(tmp_path, seed):
    generator = keras.random.SeedGenerator(7)
    initializer = ActivationScaling("gelu", seed=generator if seed == "generator" else seed)
    model = small_model(initializer)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    for one, two in zip(kernels(model), kernels(loaded), strict=True):
        np.testing.assert_array_equal(one, two)
    restored = loaded.layers[0].kernel_initializer
    assert keras.saving.serialize_keras_object(restored)["config"]["activation"] == "gelu"
    assert (restored.seed is generator) if seed == "generator" else (restored.seed == seed)


def test_an_architecture_from_json_has_its_layers_on_one_stream(monkeypatch):
    model = small_model(ActivationScaling(seed=keras.random.SeedGenerator(7)))
    first = kernels(model)
    assert all_differ(first + kernels(keras.models.model_from_json(model.to_json())))
    monkeypatch.setattr(_core, "_STREAMS", {})  # as in a new process
    for one, two in zip(first, kernels(keras.models.model_from_json(model.to_json())), strict=True):
        np.testing.assert_array_equal(one, two)
