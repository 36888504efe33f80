"""Contracts that every initializer of the catalogue keeps, and the catalogue itself."""

import inspect
import json

import keras
import numpy as np
import pytest
from helpers import values

from keras_initkit import initializers
from keras_initkit.initializers import catalogue

# Each class with arguments other than its defaults, and a shape that it has values for.
CASES = {
    "ActivationScaling": (
        {"activation": "gelu", "direction": "compromise", "in_axes": [0, 1], "out_axes": 2},
        (4, 5, 6),
    ),
    "StandardUniform": ({}, (20, 30)),
    "RandomWalk": ({"activation": "linear"}, (20, 30)),
    "DepthScaling": ({"n_layers": 3, "rule": "wang", "width": 7}, (20, 30)),
    "Critical": ({"activation": "tanh", "q": 1.0}, (20, 30)),
    "CriticalBias": ({"activation": "tanh", "q": 1.0}, (30,)),
    "ScaledOrthogonal": ({"activation": "relu", "out_axes": [1, 2]}, (12, 2, 3)),
    "DeltaOrthogonal": ({"gain": 2.0}, (3, 3, 4, 6)),
    "ConvOrthogonal": ({"gain": 2.0}, (3, 2, 4, 6)),
    "GatewiseOrthogonal": ({"gates": 3, "gain": 0.5}, (8, 15)),
    "Dirac": ({"groups": 2}, (3, 3, 2, 4)),
    "Hadamard": ({}, (5, 8)),
    "Sparse": ({"sparsity": 0.75, "stddev": 0.1}, (20, 30)),
    "Siren": ({"first": True, "omega_0": 10.0}, (20, 30)),
    "ICNR": ({"scale": 3, "initializer": "lecun_uniform"}, (3, 3, 2, 18)),
    "BilinearUpsampling": ({}, (4, 4, 3, 3)),
    "PriorProbabilityBias": ({"probability": [3.0, 1.0, 2.0], "activation": "softmax"}, (3,)),
    "UnitForgetGateBias": ({"value": 2.0}, (12,)),
    "ChronoBias": ({"max_steps": 50}, (40,)),
}
RANDOM = [name for name in CASES if "seed" in inspect.signature(getattr(initializers, name)).parameters]
BFLOAT16_ULP = 2.0**-8


def make(name, **more):
    return getattr(initializers, name)(**CASES[name][0], **more)


def seeded(name, seed=1):
    if name == "ICNR":
        return initializers.ICNR(3, keras.initializers.LecunUniform(seed=seed))
    return make(name, **({"seed": seed} if name in RANDOM else {}))


def classes(module):
    found = {c for c in vars(module).values() if inspect.isclass(c) and issubclass(c, keras.initializers.Initializer)}
    return found - {keras.initializers.Initializer}


def test_catalogue_has_every_public_initializer_once():
    entries = catalogue()
    # By class: older Keras has some under two names.
    for origin, module in (("keras_initkit", initializers), ("keras", keras.initializers)):
        names = [e.name for e in entries if e.origin == origin]
        assert len(set(names)) == len(names)
        assert {getattr(module, name) for name in names} == classes(module)
    assert all(e.formula and e.purpose for e in entries)
    assert all(e.paper for e in entries if e.origin == "keras_initkit")
    assert set(CASES) == {c.__name__ for c in classes(initializers)}


@pytest.mark.parametrize("name", CASES)
def test_default_by_string(name):
    assert type(keras.initializers.get(f"keras_initkit>{name}")) is getattr(initializers, name)


@pytest.mark.parametrize("name", CASES)
def test_configuration_is_the_constructors_arguments_and_round_trips(name):
    initializer = make(name)
    config = initializer.get_config()
    assert list(config) == list(inspect.signature(type(initializer)).parameters)
    assert {key: config[key] for key in CASES[name][0]} == CASES[name][0]
    assert config.get("seed") is None
    stored = json.loads(json.dumps(keras.initializers.serialize(initializer)))
    assert keras.initializers.deserialize(stored).get_config() == config
    assert initializer.clone().get_config() == config


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes_are_casts_of_one_draw(name, dtype):
    shape = CASES[name][1]
    tensor = seeded(name)(shape, dtype)
    expected = dtype
    if keras.backend.backend() == "jax" and dtype == "float64":
        expected = "float32"  # unless JAX is told to have float64
    assert keras.backend.standardize_dtype(tensor.dtype) == expected
    assert tuple(tensor.shape) == shape
    assert np.isfinite(values(tensor)).all()
    if dtype != "float64":  # which is another draw
        np.testing.assert_allclose(values(tensor), values(seeded(name)(shape, "float32")), rtol=BFLOAT16_ULP, atol=1e-6)


@pytest.mark.parametrize("name", [*RANDOM, "ICNR"])
def test_seeds(name):
    shape = CASES[name][1]
    one, again, other = seeded(name, 1), seeded(name, 1), seeded(name, 2)
    np.testing.assert_array_equal(values(one(shape)), values(one(shape)))
    np.testing.assert_array_equal(values(one(shape)), values(again(shape)))
    assert (values(one(shape)) != values(other(shape))).any()
    unseeded = make(name)
    assert (values(unseeded(shape)) != values(unseeded(shape))).any()
    generated = seeded(name, keras.random.SeedGenerator(3))
    assert (values(generated(shape)) != values(generated(shape))).any()


def test_icnr_of_an_unseeded_keras_instance_draws_anew():
    initializer = initializers.ICNR(2, keras.initializers.HeNormal())
    assert (values(initializer((3, 3, 2, 4))) != values(initializer((3, 3, 2, 4)))).any()


@pytest.mark.parametrize("name", CASES)
def test_empty_shapes(name):
    shape = list(CASES[name][1])
    if name == "PriorProbabilityBias":
        shape = [0, 3]
    elif name == "BilinearUpsampling":
        shape[-2:] = 0, 0
    else:
        shape[-2 if len(shape) > 1 else 0] = 0
    if name == "ScaledOrthogonal":
        shape = [0, 2, 3]
    assert tuple(make(name)(shape).shape) == tuple(shape)


@pytest.mark.parametrize(
    "name",
    sorted(set(CASES) - {"ActivationScaling", "StandardUniform", "RandomWalk", "DepthScaling", "Critical", "Siren"}),
)
def test_wrong_rank_is_told(name):
    with pytest.raises(ValueError, match=r"shape: got \(\) of rank 0, expected rank .*: (a|the) "):
        make(name)(())


@pytest.mark.parametrize("name", ["ActivationScaling", "Critical", "CriticalBias", "ScaledOrthogonal"])
def test_an_activation_in_a_configuration_runs_no_code(name):
    initializer = getattr(initializers, name)(lambda x: 0.5 * x + abs(x))
    with pytest.warns(UserWarning, match="includes a `lambda`"):
        config = keras.initializers.serialize(initializer)
    with pytest.raises(ValueError, match=r"deserialization of a .*lambda"):
        keras.initializers.deserialize(config)


def test_queries_and_keys_differ():
    for initializer in (initializers.ScaledOrthogonal(), initializers.DepthScaling(2), initializers.Sparse()):
        layer = keras.layers.MultiHeadAttention(2, 8, kernel_initializer=initializer)
        layer.build((1, 5, 16), (1, 5, 16))
        assert (values(layer.query_dense.kernel) != values(layer.key_dense.kernel)).any()


def test_inside_a_compiled_function():
    """As JAX does under a distribution whose layout shards a variable, and TensorFlow in a graph."""
    backend = keras.backend.backend()
    if backend == "torch":
        pytest.skip("PyTorch initializes eagerly")
    if backend == "jax":
        import jax

        compiled = lambda f: jax.jit(f)  # noqa: E731
    else:
        import tensorflow as tf

        compiled = lambda f: tf.function(f, jit_compile=True)  # noqa: E731
    same_as_activation_scaling = {"StandardUniform", "RandomWalk", "DepthScaling", "Critical", "CriticalBias"}
    for name, (_, shape) in CASES.items():
        if name in same_as_activation_scaling:
            continue
        initializer = seeded(name)
        inside = values(compiled(lambda i=initializer, s=shape: i(s))())
        assert inside.shape == shape, name
        assert np.isfinite(inside).all(), name
        if name not in (*RANDOM, "ICNR"):  # XLA's random numbers are not those of TensorFlow's eager mode
            np.testing.assert_array_equal(inside, values(initializer(shape)), err_msg=name)


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("ChronoBias", "UnitForgetGateBias")])
def test_a_saved_model_loads_in_safe_mode(name, tmp_path):
    shape = CASES[name][1]

    @keras.saving.register_keras_serializable("keras_initkit_tests", "Holder" + name)
    class Holder(keras.layers.Layer):
        def __init__(self, initializer, **kwargs):
            super().__init__(**kwargs)
            self.initializer = keras.initializers.get(initializer)

        def build(self, _):
            self.kernel = self.add_weight(shape=shape, initializer=self.initializer)

        def call(self, x):
            return x * keras.ops.sum(self.kernel)

        def get_config(self):
            return {**super().get_config(), "initializer": keras.initializers.serialize(self.initializer)}

    model = keras.Sequential([keras.Input((2,)), Holder(make(name))])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert loaded.layers[0].initializer.get_config() == model.layers[0].initializer.get_config()
    np.testing.assert_array_equal(values(loaded.layers[0].kernel), values(model.layers[0].kernel))
