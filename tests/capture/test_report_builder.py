"""What a probe's report makes of the tensors that it is given, one by one."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_initkit.capture._report_builder import ReportBuilder
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._layer_paths import named_layers

ONES = np.ones((2, 3), "float32")
SPREAD = np.array([[-1.0, 1.0], [1.0, -1.0]], "float32")  # of mean 0 and standard deviation 1


def builder(*parts, scale=1.0):
    model = keras.Sequential([keras.Input((3,)), *(parts or [layers.Dense(3, name=name) for name in "abc"])])
    readings = ReportBuilder(model, named_layers(model), scale)
    readings.read_weights()
    return model, readings


def test_layers_stand_as_they_were_called_with_their_weights_at_the_end():
    model, readings = builder()
    called = [
        Tap("input", "b", 0),
        Tap("output", "b", 0),
        Tap("input", "a", 0),
        *(Tap("output", "a", 0, str(number)) for number in range(11)),
        Tap("input", "b", 1),
        Tap("output", "b", 1),
    ]
    gradients = [Tap("output_gradient", "b", 1), Tap("output_gradient", "b", 0)]
    for tap in [*called, *gradients]:
        readings.read(tap, ONES)
    variables = model.get_layer("b").trainable_variables
    readings.read_weight_gradients(variables, [None, np.zeros(3)])
    of_b = [called[0], called[1], gradients[1], called[-2], called[-1], gradients[0]]
    weights = [Tap("weight", "b", None, "kernel"), Tap("weight", "b", None, "bias")]
    of_b += [*weights, weights[-1]._replace(kind="weight_gradient")]
    of_a, of_c = ([Tap("weight", layer, None, name) for name in ("kernel", "bias")] for layer in "ac")
    assert [row.tap for row in readings.rows({})] == [*of_b, *called[2:14], *of_a, *of_c]


def test_the_gradient_of_a_weight_stands_beside_it():
    model, readings = builder()
    variables = model.get_layer("a").trainable_variables
    readings.read_weight_gradients(variables, [np.zeros((3, 3)), np.zeros(3)])
    of_a = [(row.tap.kind, row.tap.name) for row in readings.rows({}) if row.tap.layer == "a"]
    assert of_a == [(kind, name) for name in ("kernel", "bias") for kind in ("weight", "weight_gradient")]


def test_the_gradient_of_a_variable_that_no_layer_holds_is_left_out():
    _, readings = builder()
    before = readings.rows({})
    readings.read_weight_gradients([keras.Variable(np.ones(2))], [np.ones(2)])
    assert [row.tap for row in readings.rows({})] == [row.tap for row in before]


def test_a_gradient_ratio_is_that_of_one_call_and_all_its_inputs():
    _, readings = builder()
    for call, (first, second, out) in enumerate([(3.0, 5.0, 2.0), (1.0, 1.0, 7.0)]):
        readings.read(Tap("input_gradient", "a", call, "0"), first * SPREAD)
        readings.read(Tap("input_gradient", "a", call, "1"), second * SPREAD)
        readings.read(Tap("output_gradient", "a", call), out * SPREAD)
    readings.read(Tap("input_gradient", "b", 0), 0 * SPREAD)
    readings.read(Tap("output_gradient", "b", 0), SPREAD)
    readings.read(Tap("output_gradient", "c", 0), SPREAD)  # of inputs that have none, such as integers
    ratios = {row.tap[1:3]: row.gradient_ratio for row in readings.rows({}) if row.tap.kind == "output_gradient"}
    assert ratios.pop(("a", 0)) == pytest.approx(2 / np.sqrt((9 + 25) / 2))
    assert ratios == {("a", 1): pytest.approx(7), ("b", 0): None, ("c", 0): None}


def test_the_first_example_that_is_not_finite_is_named():
    broken, later = np.ones((4, 3), "float32"), np.ones((4, 3), "float32")
    broken[2:, 1], later[0] = np.nan, np.inf
    _, readings = builder()
    readings.read(Tap("output", "a", 0), np.array([[np.nan]]))
    readings.read_data({"a": np.ones((4, 1), "int32"), "b": broken, "c": later})
    assert readings.notes == ["NaN or infinity first appears in the data, input 1, example 2."]


@pytest.mark.parametrize(
    ("tap", "place"),
    [
        (Tap("output", "b", 0), "output of b"),
        (Tap("output", "b", 1), "output of b (call 1)"),
        (Tap("input_gradient", "b", 2, "1"), "input gradient 1 of b (call 2)"),
    ],
)
def test_the_call_that_is_not_finite_is_named(tap, place):
    _, readings = builder()
    readings.note("Something else.")
    readings.read(tap, np.array([[1.0, np.inf, np.nan]]))
    readings.read(Tap("output", "c", 0), None)
    assert readings.notes == [
        f"NaN or infinity first appears in the {place}: 2 of 3.",
        "Something else.",
        "Inside a traced function, a loop or a scan, so not read: c.",
    ]


def test_gradients_are_divided_by_the_factor_of_the_loss_and_signals_are_not():
    model, readings = builder(layers.Dense(2, name="a"), scale=2.0**14)
    half = (1.5 * 2.0**-10 * SPREAD).astype("float16")  # divided in half precision, it would lose its 1.5
    for kind in ("input", "pre_activation", "output"):
        readings.read(Tap(kind, "a", 0), half)
        readings.read(Tap(kind, "a", 0).gradient, half)
    readings.read_weight_gradients(model.trainable_variables[:1], [half])
    for tap, moments in readings.moments.items():
        if tap.kind != "weight":
            assert moments.stddev == 1.5 * 2.0 ** (-24 if "gradient" in tap.kind else -10), tap
    kernel = keras.ops.convert_to_numpy(model.layers[0].kernel)
    assert readings.moments[Tap("weight", "a", None, "kernel")].maximum == kernel.max()


def test_units_are_channels_wherever_they_stand():
    x = np.ones((2, 3, 4, 5), "float32")
    x[:, 1] = 0
    for first in (True, False):
        pool = layers.MaxPooling2D(1, data_format="channels_first" if first else "channels_last", name="pool")
        model = keras.Sequential([keras.Input((3, 4, 5)), pool])
        readings = ReportBuilder(model, named_layers(model), 1.0)
        readings.read_weights()
        readings.read(Tap("output", "pool", 0), x)
        assert [row.dead_units for row in readings.rows({})] == [pytest.approx(1 / 3 if first else 0)]


def test_weights_of_one_name_are_numbered_and_integers_are_no_weights():
    class Several(layers.Layer):
        def build(self, shape):
            for _ in range(3):
                self.add_weight(shape=(2,), name="w")
            self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="count")

        def call(self, x):
            return x

    _, readings = builder(Several(name="several"))
    assert [row.tap.name for row in readings.rows({})] == ["w", "w_1", "w_2"]
