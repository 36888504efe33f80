"""What a measured step on JAX says, against the same network in float64 NumPy and against JAX's own gradients."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.capture.backends import step_meter, writes_logs
from keras_initkit.capture.step._reduction import MeasurementSpec
from keras_initkit.signal import Moments, Tap
from keras_initkit.structure import weighted_layers

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the step meter of JAX")
if keras.backend.backend() == "jax":
    import jax

KINDS = MeasurementSpec().kinds
ALL_KINDS = (*KINDS, "pre_activation", "pre_activation_gradient")
MODES = {"jit": {}, "eager": {"jit_compile": False}}


def meter_of(model, kinds=KINDS):
    return step_meter(model, weighted_layers, MeasurementSpec(kinds, sample_size=None))


def measured(model, x, y, kinds=KINDS):
    """The moments that a measured step on all of x reads, by tap."""
    meter = meter_of(model, kinds)
    meter.arm()
    model.train_on_batch(x, y)
    return {row.tap: row.moments for row in meter.collect()}


def assert_equal(moments: Moments, tensor: np.ndarray, rel=1e-5):
    expected = Moments.of(tensor)
    for name in ("count", "mean", "variance", "minimum", "maximum", "zeros"):
        # Relative to the tensor's own size where it, or a mean of both signs, comes out near zero.
        slack = 0 if name in ("count", "variance", "zeros") else 1e-6 * expected.stddev
        assert getattr(moments, name) == pytest.approx(getattr(expected, name), rel=rel, abs=slack), name


def convolutional():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    shared = layers.Dense(4, "gelu", name="shared")
    x = layers.Add()([shared(x), shared(shared(x))])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, "softmax", name="out")(x))


def test_tensors_of_a_convolutional_model_against_gradients_of_jax():
    """Every output moved by a zero, with respect to which JAX differentiates; all calls of a layer together."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((8, 6, 6, 3)).astype("float32"), rng.integers(0, 3, 8)
    model = convolutional()
    loss = keras.losses.SparseCategoricalCrossentropy()
    model.compile("sgd", loss)
    get, seen = model.get_layer, {}

    def forward(zeros):
        def moved(name, tensor):
            seen[name] = tensor
            return tensor + zeros.get(name, 0)

        h = moved("norm", get("norm")(moved("conv", get("conv")(x)), training=True))
        first = moved("shared", get("shared")(h))
        second = moved("shared_2", get("shared")(moved("shared_1", get("shared")(h))))
        return loss(y, moved("out", get("out")(ops.mean(first + second, axis=(1, 2)))))

    @jax.jit
    def outputs_and_gradients():
        with keras.StatelessScope():
            forward({})
            outputs = dict(seen)
            return outputs, jax.grad(forward)({name: ops.zeros_like(tensor) for name, tensor in outputs.items()})

    outputs, gradients = outputs_and_gradients()
    together = {"shared": ["shared", "shared_1", "shared_2"], **{name: [name] for name in ("conv", "norm", "out")}}
    weights = {name: get(name).weights[0] for name in together if name != "norm"}
    weights = {name: ops.convert_to_numpy(weight) for name, weight in weights.items()}

    moments = measured(model, x, y)

    for name, calls in together.items():
        assert_equal(moments[Tap("output", name)], np.stack([outputs[call] for call in calls]))
        assert_equal(moments[Tap("output_gradient", name)], np.stack([gradients[call] for call in calls]), rel=1e-4)
    for name, weight in weights.items():
        assert_equal(moments[Tap("weight", name)], weight)
    assert_equal(moments[Tap("weight", "norm")], np.concatenate([np.ones(4), np.zeros(4)]))  # gamma and beta


def test_recurrent_layers_are_read_from_outside():
    keras.utils.set_random_seed(5)
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((8, 6, 3)).astype("float32"), rng.standard_normal((8, 1)).astype("float32")
    recurrent = layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")
    inputs = keras.Input((6, 3))
    sequence = recurrent(inputs)[0]
    model = keras.Model(inputs, layers.Dense(1, name="out")(layers.GRU(4, name="gru")(sequence)))
    model.compile("sgd", "mse")
    expected = keras.Model(inputs, sequence).predict(x, verbose=0)
    moments = measured(model, x, y)
    assert_equal(moments[Tap("output", "lstm")], expected)
    for layer in ("lstm", "gru", "out"):
        assert all(Tap(kind, layer) in moments for kind in KINDS)


class Loops(layers.Layer):
    def __init__(self):
        super().__init__(name="loops")
        self.inner = layers.Dense(4, name="inner")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return jax.lax.scan(lambda x, _: (self.inner(x), None), x, None, length=3)[0]


@pytest.mark.parametrize("mode", ["jit", "eager"])
def test_a_layer_inside_a_loop_is_left_out_with_a_warning(mode):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="in"), Loops(), layers.Dense(1, name="out")])
    model.compile("sgd", "mse", **MODES[mode])
    with pytest.warns(UserWarning, match="output of layer 'loops/inner'.*: made inside a loop, a branch"):
        moments = measured(model, np.ones((2, 4)), np.ones((2, 1)))
    assert Tap("output", "loops/inner") not in moments
    assert Tap("weight_gradient", "loops/inner") in moments
    assert Tap("output_gradient", "in") in moments
    assert Tap("output_gradient", "out") in moments


def test_what_is_computed_anew_in_the_backward_pass_is_read():
    if not hasattr(keras, "RematScope"):
        pytest.skip("keras.RematScope came with Keras 3.9")
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((8, 5)).astype("float32"), rng.standard_normal((8, 1)).astype("float32")
    seen = []
    for mode in (None, "full"):
        keras.utils.set_random_seed(6)
        with keras.RematScope(mode=mode):
            model = keras.Sequential([keras.Input((5,)), layers.Dense(4, "tanh", name="a")])
            model.add(layers.Dense(1, name="b"))
        model.compile("sgd", "mse")
        seen.append(measured(model, x, y))
    assert len(seen[0]) == 10
    assert set(seen[0]) == set(seen[1])
    for tap, moments in seen[0].items():
        assert seen[1][tap].variance == pytest.approx(moments.variance, rel=1e-5)


class TwoOptimizers(keras.Model):
    """A step of its own, in which a second optimizer moves one part of the model."""

    def __init__(self):
        super().__init__()
        self.first, self.last = layers.Dense(3, "tanh", name="first"), layers.Dense(1, name="last")
        self.never = layers.Dense(1, name="never")
        self.slow = keras.optimizers.SGD(0.5)

    def build(self, shape):
        self.first.build(shape)
        self.last.build((None, 3))
        self.slow.build(self.last.trainable_variables)
        super().build(shape)

    def call(self, x):
        return self.last(self.first(x))

    def train_step(self, state, data):
        trainable, other, optimizer_variables, metrics = state
        x, y = data[:2]

        def loss(trainable):
            predicted, _ = self.stateless_call(trainable, other, x)
            return ops.mean(ops.square(predicted - y))

        value, gradients = jax.value_and_grad(loss)(trainable)
        slow = [v.value for v in self.slow.variables]
        moved, _ = self.slow.stateless_apply(slow, gradients[2:], trainable[2:])
        return {"loss": value}, ([*trainable[:2], *moved], other, optimizer_variables, metrics)


def test_a_step_of_ones_own_with_an_optimizer_of_ones_own():
    keras.utils.set_random_seed(7)
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((16, 4)).astype("float32"), rng.standard_normal((16, 1)).astype("float32")
    model = TwoOptimizers()
    model.compile("sgd", "mse")
    model.build((None, 4))
    hidden = np.tanh(x.astype("float64") @ ops.convert_to_numpy(model.first.kernel).astype("float64"))
    kernel = ops.convert_to_numpy(model.last.kernel).astype("float64")
    gradient = hidden.T @ (2 * (hidden @ kernel - y) / len(y))
    moments = measured(model, x, y)
    assert_equal(moments[Tap("weight_gradient", "last")], gradient)
    assert_equal(moments[Tap("weight_update", "last")], -0.5 * gradient, rel=1e-4)
    assert moments[Tap("weight_update", "first")].zeros == 12
    assert Tap("weight_gradient", "first") not in moments  # nobody applied it
    assert Tap("output", "never") not in moments


def test_the_last_of_the_steps_that_run_at_once_is_measured():
    keras.utils.set_random_seed(8)
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((56, 4)).astype("float32"), rng.standard_normal((56, 1)).astype("float32")
    batches = []

    class Spy(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            meter.arm()

        def on_train_batch_end(self, batch, logs=None):
            batches.append({row.tap: row.moments for row in meter.collect()})

    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, use_bias=False, name="out")])
    model.compile(keras.optimizers.SGD(0.1), "mse", steps_per_execution=3)
    kernel = ops.convert_to_numpy(model.layers[0].kernel).astype("float64")
    meter = meter_of(model)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[Spy()])
    kernels = [kernel]
    for start in range(0, 56, 8):
        xs, ys = x[start : start + 8].astype("float64"), y[start : start + 8]
        kernels.append(kernels[-1] - 0.1 * xs.T @ (2 * (xs @ kernels[-1] - ys) / 8))
    assert len(batches) == 3  # steps 0 to 2, 3 to 5, and 6
    for moments, step in zip(batches, (2, 5, 6), strict=True):
        assert_equal(moments[Tap("weight", "out")], kernels[step])
        assert_equal(moments[Tap("output", "out")], x[8 * step : 8 * step + 8] @ kernels[step])
    np.testing.assert_allclose(ops.convert_to_numpy(model.layers[0].kernel), kernels[-1], rtol=1e-5)


@pytest.mark.parametrize("mode", ["jit", "eager"])
def test_the_function_that_keras_made_is_back_after_every_step(mode):
    def train_step(state, data):
        raise KeyboardInterrupt

    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, name="out")])
    model.compile("sgd", "mse", **MODES[mode])
    x, y = np.ones((2, 4)), np.ones((2, 1))
    model.train_on_batch(x, y)
    plain, meter = model.train_function, meter_of(model)
    meter.arm()
    assert model.train_function is not plain
    model.train_on_batch(x, y)
    assert model.train_function is plain
    assert meter.collect()
    assert "call" not in vars(model.layers[0])
    assert "stateless_apply" not in vars(model.optimizer)
    object.__setattr__(model, "train_step", train_step)
    model.make_train_function(force=True)
    plain = model.train_function
    meter.arm()
    with pytest.raises(KeyboardInterrupt):
        model.train_on_batch(x, y)
    assert model.train_function is plain
    assert not meter.collect()
    assert "call" not in vars(model.layers[0])
    assert "stateless_apply" not in vars(model.optimizer)


def test_a_measured_step_reads_again_what_has_changed():
    """Another batch size, more layers to read, a model that was compiled anew."""
    rng = np.random.default_rng(9)
    x, y = rng.standard_normal((12, 4)).astype("float32"), rng.standard_normal((12, 1)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.Dense(1, name="b")])
    model.compile("sgd", "mse")

    def only(name):
        return lambda model: {name: model.get_layer(name)}

    meters = [step_meter(model, only(name), MeasurementSpec(("output", "weight"), None)) for name in ("a", "b")]

    def step(number, *meters):
        for meter in meters:
            meter.arm()
        model.train_on_batch(x[:number], y[:number])
        return [{row.tap.layer: row.moments.count for row in meter.collect()} for meter in meters]

    assert step(12, meters[0]) == [{"a": 12}]  # the weights', the last row
    assert step(5, *meters) == [{"a": 12}, {"b": 3}]
    model.compile("adam", "mse")
    assert step(12, *reversed(meters)) == [{"b": 3}, {"a": 12}]
    rows = {row.tap: row.moments.count for row in meters[0].collect()}
    assert rows == {Tap("output", "a"): 36, Tap("weight", "a"): 12}


def test_a_process_alone_writes():
    assert writes_logs()


@pytest.mark.parametrize("steps", [1, 3])
def test_a_step_that_is_measured_in_the_program_that_trains(steps):
    """The same figures as by a program apart, and the same weights but for some last bits."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((56, 6, 6, 3)).astype("float32"), rng.integers(0, 3, 56)

    def train(exact):
        keras.utils.set_random_seed(1)
        model = convolutional()
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(), steps_per_execution=steps)
        callback = LayerStatsCallback(None, "batch", sample_size=None, on_finding="ignore", exact=exact)
        history = model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[callback])
        return callback.reports, model.get_weights(), history.history

    (reports, weights, history), (expected, others, losses) = train(False), train(True)
    places = {1: [0, 1, 2, 3, 4, 5, 6], 3: [2, 5, 6]}[steps]
    assert [report.step for report in reports] == [report.step for report in expected] == places
    for report, other in zip(reports, expected, strict=True):
        assert [row.tap for row in report.rows] == [row.tap for row in other.rows]
        found, wanted = report.scalars(), other.scalars()
        np.testing.assert_allclose(list(found.values()), [wanted[tag] for tag in found], rtol=1e-3, atol=1e-9)
    for weight, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(weight, other, atol=1e-5)
    np.testing.assert_allclose(history["loss"], losses["loss"], rtol=1e-5)


def test_what_goes_wrong_inside_costs_a_warning(monkeypatch):
    model = convolutional()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy())
    callback = LayerStatsCallback(None, "batch", on_finding="ignore", exact=False)

    def broken(*_):
        raise TypeError("a private name was renamed")

    monkeypatch.setattr(type(meter_of(model)), "_read", broken)
    x, y = np.zeros((16, 6, 6, 3), "float32"), np.zeros(16)
    with pytest.warns(UserWarning, match="could not be measured .TypeError: a private name"):
        model.fit(x, y, batch_size=8, verbose=0, callbacks=[callback])
    assert int(model.optimizer.iterations) == 2
    assert callback.reports == []
