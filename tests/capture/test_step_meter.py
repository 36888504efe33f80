"""What a measured step says on every backend, against the same network in float64 NumPy; nothing is left behind."""

import warnings

import keras
import numpy as np
import pytest
from helpers import assert_moments, values
from keras import layers

from keras_initkit.capture.backends import step_meter
from keras_initkit.capture.step._captured import CapturedTensors
from keras_initkit.capture.step._reduction import MeasurementSpec
from keras_initkit.signal import SignalReport, Tap
from keras_initkit.structure import weighted_layers

KINDS = MeasurementSpec().kinds
ALL_KINDS = (*KINDS, "pre_activation", "pre_activation_gradient")
MODES = {
    "tensorflow": {"graph": {"jit_compile": False}, "jit": {"jit_compile": True}, "eager": {"run_eagerly": True}},
    "jax": {"jit": {}, "eager": {"jit_compile": False}},
    "torch": {"eager": {}},
}[keras.backend.backend()]
NEAR_ZERO = ("mean", "minimum", "maximum")
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((40, 30)).astype("float32"), rng.standard_normal((40, 5)).astype("float32")
in_every_mode = pytest.mark.parametrize("mode", sorted(MODES))


class Armed(keras.callbacks.Callback):
    """Measures every step, and keeps the rows by tap."""

    def __init__(self, *meters, histograms=False):
        super().__init__()
        self.meters, self.histograms, self.steps = meters, histograms, []

    def on_train_batch_begin(self, batch, logs=None):
        for meter in self.meters:
            meter.arm(self.histograms)

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append([{row.tap: row for row in meter.collect()} for meter in self.meters])


def fit(model, x, y, *callbacks):
    model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0, callbacks=list(callbacks))


def measured(model, x, y, kinds=KINDS):
    """Rows by tap of a measured step on all of x."""
    armed = Armed(step_meter(model, weighted_layers, MeasurementSpec(kinds, sample_size=None)))
    fit(model, x, y, armed)
    return armed.steps[0][0]


def left_behind(model):
    """Names that stand on a model's layers and optimizer though their classes have them."""
    names = {"call", "add_loss", "rematerialized_call", "apply", "stateless_apply", "train_step"}
    return [names & set(vars(each)) for each in (model, *model.layers, model.optimizer) if names & set(vars(each))]


def tanh_network(mode="eager", **options):
    """Three tanh layers and a linear one, with biases that are not zero."""
    keras.utils.set_random_seed(0)
    stack = [layers.Dense(20, "tanh", name=f"dense_{i}") for i in range(3)]
    model = keras.Sequential([keras.Input((30,)), *stack, layers.Dense(5, name="out", dtype="float32")])
    biases = np.random.default_rng(1)
    for layer in model.layers:
        layer.bias.assign(0.1 * biases.standard_normal(layer.bias.shape))
    model.compile(options.pop("optimizer", None) or keras.optimizers.SGD(0.1), "mse", **MODES[mode])
    return model


@in_every_mode
def test_every_statistic_against_numpy(mode):
    model = tanh_network(mode)
    kernels, biases = ([values(getattr(x, name)) for x in model.layers] for name in ("kernel", "bias"))

    rows = measured(model, X, Y, ALL_KINDS)

    signal, inputs, before, outputs = X.astype("float64"), [], [], []
    for index, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        inputs.append(signal)
        before.append(signal @ kernel + bias)
        signal = np.tanh(before[-1]) if index < 3 else before[-1]
        outputs.append(signal)
    gradient = 2 * (signal - Y) / signal.size
    for index in reversed(range(4)):
        path, slope = model.layers[index].name, 1 - outputs[index] ** 2 if index < 3 else 1
        of_kernel = inputs[index].T @ (gradient * slope)
        expected = {
            "output": outputs[index],
            "output_gradient": gradient,
            "pre_activation": before[index],
            "pre_activation_gradient": gradient * slope,
            "weight": kernels[index],
            "weight_gradient": of_kernel,
        }
        for kind, tensor in expected.items():
            assert_moments(rows[Tap(kind, path)].moments, tensor, near_zero=NEAR_ZERO)
        # The difference of two float32 weights near 0.5 is known to 6e-8, an update of 1e-3 to 1e-4 of itself.
        update = rows[Tap("weight_update", path)].moments
        assert_moments(update, -0.1 * of_kernel, rel=1e-3, near_zero=NEAR_ZERO)
        assert update.stddev == pytest.approx(0.1 * of_kernel.std(), rel=1e-4)
        assert update.minimum == pytest.approx(-0.1 * of_kernel.max(), abs=1.2e-7)
        gradient = (gradient * slope) @ kernels[index].T
    assert len(rows) == len(ALL_KINDS) * 4
    report = SignalReport.from_step(0, 0, rows.values())
    assert report.layers == ["dense_0", "dense_1", "dense_2", "out"]
    assert report.statistic("weight_variance")["out"] == pytest.approx(kernels[-1].var(), rel=1e-5)
    assert rows[Tap("output", "dense_0")].saturated == pytest.approx((np.abs(outputs[0]) > 0.99).mean())
    assert not left_behind(model)


@in_every_mode
def test_a_shared_layer_is_read_in_all_its_calls(mode):
    keras.utils.set_random_seed(0)
    shared, inputs = layers.Dense(30, "tanh", use_bias=False, name="shared"), keras.Input((30,))
    model = keras.Model(inputs, shared(shared(inputs)))
    model.compile("sgd", "mse", **MODES[mode])
    kernel, x = values(shared.kernel), X.astype("float64")
    first = np.tanh(x @ kernel)
    second = np.tanh(first @ kernel)
    at_second = 2 * (second - x) / x.size
    through = at_second * (1 - second**2)
    at_first = through @ kernel.T
    rows = measured(model, X, X)
    assert_moments(rows[Tap("output", "shared")].moments, np.stack([first, second]), near_zero=NEAR_ZERO)
    assert_moments(rows[Tap("output_gradient", "shared")].moments, np.stack([at_first, at_second]), near_zero=NEAR_ZERO)
    of_kernel = first.T @ through + x.T @ (at_first * (1 - first**2))
    assert_moments(rows[Tap("weight_gradient", "shared")].moments, of_kernel, near_zero=NEAR_ZERO)


def test_of_several_outputs_the_first_is_read():
    class Two(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(30, 5), name="kernel")

        def call(self, x):
            y = keras.ops.matmul(x, self.kernel)
            return y, 10 * y

    two, inputs = Two(name="two"), keras.Input((30,))
    one, ten = two(inputs)
    model = keras.Model(inputs, layers.Add()([one, ten]))
    model.compile("sgd", "mse", **MODES["eager"])
    expected = X.astype("float64") @ values(two.kernel)
    assert_moments(measured(model, X, Y)[Tap("output", "two")].moments, expected, near_zero=NEAR_ZERO)


@in_every_mode
def test_loss_scaling_is_divided_out(mode):
    plain = measured(tanh_network(mode), X, Y, ALL_KINDS)
    scaled_model = tanh_network(mode, optimizer=keras.optimizers.SGD(0.1, loss_scale_factor=1024.0))
    scaled = measured(scaled_model, X, Y, ALL_KINDS)
    assert set(plain) == set(scaled)
    for tap, row in plain.items():  # a power of two costs no digits
        assert scaled[tap].moments.variance == pytest.approx(row.moments.variance, rel=1e-6)


@in_every_mode
def test_half_precision_says_what_single_precision_says(mode):
    """Under its loss scale of 2^15, to half precision."""
    single = measured(tanh_network(mode), X, Y, ALL_KINDS)
    keras.config.set_dtype_policy("mixed_float16")
    half = measured(tanh_network(mode), X, Y, ALL_KINDS)
    assert set(single) == set(half)
    for tap in (tap for tap in single if "gradient" in tap.kind):
        assert half[tap].moments.variance == pytest.approx(single[tap].moments.variance, rel=5e-3), tap


def test_an_embedding_counts_the_rows_that_no_example_used():
    model = keras.Sequential(
        [keras.Input((3,), dtype="int32"), layers.Embedding(10, 4, name="words"), layers.Flatten()]
    )
    model.compile("sgd", "mse")
    x = np.array([[1, 2, 2], [1, 5, 2]])
    before = values(model.get_layer("words").embeddings)
    expected = np.zeros((10, 4))
    np.add.at(expected, x, 2 * before[x] / (x.size * 4))
    row = measured(model, x, np.zeros((2, 12)))[Tap("weight_gradient", "words")]
    assert_moments(row.moments, expected, near_zero=NEAR_ZERO)
    assert row.moments.zeros == 7 * 4


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_dead_units_are_channels_wherever_they_stand(data_format):
    keras.utils.set_random_seed(2)
    first = data_format == "channels_first"
    x = np.random.default_rng(2).standard_normal((4, 2, 7, 7) if first else (4, 7, 7, 2)).astype("float32")
    conv = layers.Conv2D(8, 3, activation="relu", data_format=data_format, name="conv")
    model = keras.Sequential([keras.Input(x.shape[1:]), conv, layers.Flatten(), layers.Dense(1)])
    model.compile("sgd", "mse")
    if first:
        try:
            fit(model, x, np.ones((4, 1)))
        except Exception as error:
            if type(error).__name__ not in ("InvalidArgumentError", "UnimplementedError"):
                raise
            pytest.skip("TensorFlow without oneDNN cannot train this on a processor, with or without a measured step")
    conv.bias.assign([-1e6, -1e6, *[1.0] * 6])
    assert measured(model, x, np.ones((4, 1)))[Tap("output", "conv")].dead_units == pytest.approx(2 / 8)


def test_frozen_layers_have_no_gradient_but_outputs():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu", name="frozen"), layers.Dense(1, name="out")])
    model.get_layer("frozen").trainable = False
    model.compile("sgd", "mse")
    rows = measured(model, np.ones((2, 4)), np.ones((2, 1)))
    assert Tap("output", "frozen") in rows
    assert Tap("weight", "frozen") in rows
    # TensorFlow goes back to frozen weights all the same.
    assert (Tap("output_gradient", "frozen") in rows) == (keras.backend.backend() == "tensorflow")
    assert Tap("weight_gradient", "frozen") not in rows
    assert Tap("output_gradient", "out") in rows


def test_meters_of_one_model_share_a_step_and_each_gets_what_it_asked_for():
    model = tanh_network()
    outputs = step_meter(model, lambda m: {"out": m.layers[-1]}, MeasurementSpec(("output",), 64))
    weights = step_meter(model, weighted_layers, MeasurementSpec(("weight",), None))
    fit(model, X, Y)
    plain, armed = model.train_function, Armed(outputs, weights)
    fit(model, X, Y, armed)
    assert model.train_function is plain
    of_outputs, of_weights = armed.steps[0]
    assert list(of_outputs) == [Tap("output", "out")]
    assert list(of_weights) == [Tap("weight", x.name) for x in model.layers]
    assert of_outputs[Tap("output", "out")].moments.count == 200  # of all, for the other meter reads them all
    armed = Armed(weights, histograms=True)
    fit(model, X, Y, armed)
    assert all(row.histogram for row in armed.steps[0][0].values())


def test_meters_of_one_model_share_the_larger_sample_and_histograms_if_any_asks_for_them():
    model = tanh_network()
    small, large = (step_meter(model, weighted_layers, MeasurementSpec(("output",), size)) for size in (64, 128))

    class Armed(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            small.arm()
            large.arm(histograms=True)
            small.arm()

    fit(model, X, Y, Armed())
    for meter in (small, large):
        rows = {row.tap.layer: row for row in meter.collect()}
        assert rows["out"].moments.count == 128  # of 200, in blocks of 8
        assert sum(rows["out"].histogram[0]) == 128


@in_every_mode
def test_a_meter_that_joins_later_gets_what_it_asks_for(mode):
    """The measured step has then been made for the first alone; and is not made again when both go on."""
    traced = []

    class Counted(layers.Dense):
        def call(self, x):
            traced.append(x)
            return super().call(x)

    model = keras.Sequential([keras.Input((30,)), Counted(5, name="out")])
    model.compile("sgd", "mse", **MODES[mode])
    first = step_meter(model, weighted_layers, MeasurementSpec(("output",), None))
    later = step_meter(model, weighted_layers, MeasurementSpec(("weight",), None))
    fit(model, X, Y, Armed(first))
    fit(model, X, Y, armed := Armed(first, later))
    assert [list(rows) for rows in armed.steps[0]] == [[Tap("output", "out")], [Tap("weight", "out")]]
    traced.clear()
    fit(model, X, Y, armed := Armed(first, later))
    assert [list(rows) for rows in armed.steps[0]] == [[Tap("output", "out")], [Tap("weight", "out")]]
    assert len(traced) == (1 if mode == "eager" else 0)


def test_another_layer_at_the_same_path_is_measured_by_its_own_range():
    chosen = {"out": layers.Dense(1, "tanh")}
    meter = step_meter(tanh_network(), lambda _: dict(chosen), MeasurementSpec(ALL_KINDS))
    meter._resolve_taps()
    assert meter._limits == {"out": (-1, 1)}
    chosen["out"] = layers.Dense(1, "sigmoid")
    meter._resolve_taps()
    assert meter._limits == {"out": (0, 1)}
    assert meter._activated == chosen


def test_taps_are_warned_of_that_missed_one_of_their_tensors():
    all_seen, one_missed, none_seen, _ = taps = [Tap("output", name) for name in "abcd"]
    captured = CapturedTensors(None, {})
    captured.seen.update({all_seen: [1, 2], one_missed: [1]})
    captured.expected.update({all_seen: 2, one_missed: 2, none_seen: 1})
    with pytest.warns(UserWarning, match="^output of layer 'b' and 1 more: .* cannot be read from outside") as caught:
        captured.warn(taps)
    assert len(caught) == 1
    captured.seen.update({one_missed: [1, 2], none_seen: [1]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        captured.warn(taps)


@in_every_mode
def test_an_exception_in_a_measured_step_leaves_nothing_behind(mode):
    class Interrupted(layers.Layer):
        on = False

        def call(self, x):
            if self.on:
                raise KeyboardInterrupt
            return x

    model = keras.Sequential([keras.Input((30,)), layers.Dense(5), Interrupted()])
    model.compile("sgd", "mse", **MODES[mode])
    fit(model, X, Y)
    meter = step_meter(model, weighted_layers, MeasurementSpec())
    plain, model.layers[1].on = model.train_function, True
    with pytest.raises(KeyboardInterrupt):
        fit(model, X, Y, Armed(meter))
    assert model.train_function is plain
    assert meter._captured is None  # nothing keeps the step's tensors
    assert not meter.collect()
    assert not left_behind(model)
