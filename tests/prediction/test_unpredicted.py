"""What cannot be predicted is named, and prediction goes on after it."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_initkit.prediction import InputMoments, predict
from keras_initkit.statistics._expected import Expected
from keras_initkit.statistics._tap import Tap

L = keras.layers


def chain(*layers, shape=(128,)):
    return keras.Sequential([keras.Input(shape), *layers])


def functional(build, shape=(128,)):
    inputs = keras.Input(shape)
    return keras.Model(inputs, build(inputs))


@pytest.mark.parametrize(
    "join",
    [
        lambda x: L.Add(name="join")([x, L.Dropout(0.5)(x)]),
        lambda x: L.Multiply(name="join")([x, L.Dropout(0.5)(x)]),
        lambda x: L.Average(name="join")([x, L.LayerNormalization()(x), L.Dense(128)(x)]),
    ],
    ids=["dropout", "product", "normalized"],
)
def test_dependent_branches_are_never_taken_as_independent(join):
    prediction = predict(functional(join), (0.0, 1.0))
    assert "correlated" in prediction.unpredicted["join"]
    assert Tap("output", "join", 0) not in prediction


def test_one_layer_on_both_branches_is_dependent():
    dense = L.Dense(128)
    prediction = predict(functional(lambda x: L.Add(name="join")([dense(x), dense(L.Dense(128)(x))])))
    assert "correlated" in prediction.unpredicted["join"]


def test_a_tensor_plus_itself_is_exact():
    prediction = predict(functional(lambda x: L.Add(name="twice")([x, x])))
    assert prediction[Tap("output", "twice", 0)] == Expected(0.0, 4.0)
    assert prediction[Tap("input_gradient", "twice", 0, "0")].variance == 4.0  # both together
    assert prediction.unpredicted == {}


def test_a_gaussian_plus_a_function_of_it_is_exact_forward():
    """z + relu(z) is 2 z above 0 and z below: E of its square is 5/2 of the variance."""

    def build(x):
        z = L.Dense(128, name="dense")(x)
        return L.Add(name="join")([z, L.ReLU(name="relu")(z)])

    model = functional(build)
    prediction = predict(model)
    q = prediction[Tap("output", "dense", 0)].variance
    mean, variance = prediction[Tap("output", "join", 0)]
    assert variance + mean**2 == pytest.approx(2.5 * q, rel=1e-6)
    assert mean == pytest.approx(np.sqrt(q / (2 * np.pi)), rel=1e-6)
    # Backward, the derivative is 2 or 1: E of its square is 5/2.
    kernel = keras.ops.convert_to_numpy(model.get_layer("dense").kernel.value).astype("float64")
    expected = 2.5 * 128 * np.mean(kernel**2)
    assert prediction[Tap("input_gradient", "dense", 0)].variance == pytest.approx(expected, rel=1e-6)
    assert prediction.unpredicted == {}


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (L.ReLU(name="layer"), "not Gaussian"),
        (L.Lambda(lambda x: x * float(x[0, 0]), output_shape=(128,), name="layer"), "runs arbitrary code"),
        (L.Softmax(name="layer"), "softmax"),
        (L.Activation("softmax", name="layer"), "not Gaussian"),
        (L.Dense(128, kernel_initializer="ones", name="layer"), "not a random draw of mean 0: its mean is 1"),
        (L.Dense(128, kernel_initializer="identity", name="layer"), "not a random draw"),
    ],
)
def test_reasons(layer, reason):
    prediction = predict(chain(layer, L.Dense(64, name="after"), L.LayerNormalization(name="norm")), (0.0, 1.0))
    assert reason in prediction.unpredicted["layer"]
    assert prediction.unpredicted["after"] == "its input is not predicted"
    assert prediction[Tap("output", "norm", 0)] == Expected(0.0, 1.0)
    assert Tap("output", "layer", 0) not in prediction


def test_softmax_at_the_end_of_a_dense_layer():
    prediction = predict(chain(L.Dense(64, "softmax", name="head")))
    assert "act on each element by itself" in prediction.unpredicted["head"]
    assert Tap("pre_activation", "head", 0) in prediction
    assert Tap("output", "head", 0) not in prediction


def test_operations_that_are_no_layers():
    prediction = predict(functional(lambda x: keras.ops.sin(L.Dense(64, name="dense")(x)) * 2.0))
    (first, second) = prediction.unpredicted.values()
    assert first == "predict has no rule for Sin"
    assert second == "its input is not predicted"


def test_prediction_resumes_from_what_was_measured():
    model = chain(L.LSTM(64, name="lstm"), L.Dense(64, name="dense", kernel_initializer="lecun_normal"), shape=(7, 16))
    forward, backward = Tap("output", "lstm", 0), Tap("output_gradient", "lstm", 0)
    measured = {forward: SimpleNamespace(mean=0.5, variance=0.75), backward: SimpleNamespace(mean=0.0, variance=3.0)}
    prediction = predict(model, measured=measured)
    assert list(prediction.unpredicted) == ["lstm"]
    kernel = keras.ops.convert_to_numpy(model.layers[1].kernel.value)
    expected = Expected(0.0, pytest.approx(64 * np.mean(kernel.astype("float64") ** 2)))  # E[x^2] = 1
    assert prediction[Tap("output", "dense", 0)] == expected
    assert forward not in prediction


def test_a_kernel_of_zeros_leaves_the_bias():
    bias = keras.initializers.Constant(0.5)
    prediction = predict(chain(L.Dense(64, "relu", kernel_initializer="zeros", bias_initializer=bias, name="dense")))
    assert prediction[Tap("output", "dense", 0)] == pytest.approx((0.5, 0.0))
    assert prediction[Tap("input_gradient", "dense", 0)].variance == 0.0


def test_what_runs_concrete_numbers_is_named_once_and_passed_by():
    class Gate(L.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.dense = L.Dense(128, name="inner")

        def build(self, shape):
            self.dense.build(shape)

        def call(self, x):
            x = keras.ops.tan(self.dense(x))
            return keras.ops.tan(keras.ops.tan(x)) + 1.0

    def build(x):
        y = Gate(name="gate")(L.LayerNormalization(name="norm1")(x))
        x = L.Add(name="add1")([x, y])
        y = L.Dense(256, "gelu", name="up")(L.LayerNormalization(name="norm2")(x))
        return L.LayerNormalization(name="norm3")(L.Add(name="add2")([x, L.Dense(128, name="down")(y)]))

    model = functional(build)
    prediction = predict(model)
    assert prediction.unpredicted["gate"] == "predict has no rule for Tan"
    assert not any(path.startswith("gate/") for path in prediction.unpredicted)
    assert {"add1", "add2"} < set(prediction.unpredicted)
    assert Tap("output", "gate/inner", 0) in prediction
    assert Tap("output", "down", 0) in prediction
    seen = SimpleNamespace(mean=0.0, variance=0.1)
    resumed = predict(model, measured={Tap("output", "gate", 0): seen})
    assert resumed[Tap("output", "add1", 0)].variance == pytest.approx(1.1)
    assert set(resumed.unpredicted) == {"gate"}
    assert Tap("input_gradient", "norm2", 0) in resumed


@pytest.mark.parametrize("moments", [(0.0,), "data", (0.0, -1.0), (np.nan, 1.0), [None, None], {"other": (0.0, 1.0)}])
def test_bad_input_moments(moments):
    with pytest.raises(ValueError, match=r"input_moments: got .*expected"):
        predict(chain(L.Dense(2)), moments)


def test_bad_arguments():
    model = chain(L.Dense(2))
    with pytest.raises(ValueError, match=r"output_gradient_variance: got \[1\.0, 2\.0\], expected .* 1 outputs"):
        predict(model, output_gradient_variance=[1.0, 2.0])
    with pytest.raises(ValueError, match="measured: got list, expected a mapping"):
        predict(model, measured=[])
    with pytest.raises(ValueError, match="array: got NaN"):
        InputMoments.from_array(np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match=r"array: got shape \(3,\)"):
        InputMoments.from_array(np.ones(3))
    with pytest.raises(ValueError, match="data with 1 axes of positions, expected 0"):
        predict(model, InputMoments.from_array(np.ones((2, 3, 128))))
