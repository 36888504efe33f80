"""What a measured step says, against the same network in float64 NumPy and against TensorFlow's own gradients."""

import keras
import numpy as np
import pytest

from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.capture.backends import step_meter
from keras_initkit.capture.step._reduction import MeasurementSpec
from keras_initkit.signal import Moments, SignalReport, Tap
from keras_initkit.structure._layer_paths import weighted_layers

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="steps are measured on TensorFlow")


class Metered(keras.callbacks.Callback):
    """Measures every step, and keeps the reports: LayerStatsCallback without schedule, choice and log."""

    def __init__(self, histograms=False, **reading):
        super().__init__()
        self.reading, self.histograms, self.reports = (
            MeasurementSpec(**{"sample_size": None, **reading}),
            histograms,
            [],
        )

    def on_train_begin(self, logs=None):
        self.meter = step_meter(self.model, weighted_layers, self.reading)

    def on_train_batch_begin(self, batch, logs=None):
        self.meter.arm(self.histograms)

    def on_train_batch_end(self, batch, logs=None):
        self.reports.append(SignalReport.of_step(batch, 0, self.meter.collect()))


def measured(model, x, y, **reading):
    """The report of the first step of `fit` on all of x."""
    callback = Metered(**reading)
    model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0, callbacks=[callback])
    assert len(callback.reports) == 1
    return callback.reports[0]


def assert_equal(moments: Moments, tensor: np.ndarray):
    expected = Moments.of(tensor)
    for name in ("count", "mean", "variance", "minimum", "maximum", "zeros"):
        # Relative to the tensor's own size where a mean of both signs comes out near zero.
        slack = 1e-6 * expected.stddev if name == "mean" else 0
        assert getattr(moments, name) == pytest.approx(getattr(expected, name), rel=1e-5, abs=slack), name


def convolutional():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Activation("tanh")(x)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="conv_relu")(x)
    shared = keras.layers.Dense(8, "gelu", name="shared")
    x = keras.layers.Add()([shared(x), shared(shared(x))])
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))


def test_tensors_of_a_convolutional_model_against_a_gradient_tape():
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((16, 8, 8, 3)).astype("float32"), rng.integers(0, 4, 16)
    model = convolutional()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)

    # The same network by hand, from the same weights; every call of a layer under its name.
    tensors = {"conv": [], "norm": [], "conv_relu": [], "shared": [], "logits": []}

    def seen(name, tensor):
        tape.watch(tensor)
        tensors[name].append(tensor)
        return tensor

    get = model.get_layer
    with tf.GradientTape(persistent=True) as tape:
        h = seen("norm", get("norm")(seen("conv", get("conv")(tf.constant(x))), training=True))
        h = seen("conv_relu", get("conv_relu")(tf.tanh(h)))
        first = seen("shared", get("shared")(h))
        second = seen("shared", get("shared")(seen("shared", get("shared")(h))))
        h = tf.reduce_mean(first + second, axis=(1, 2))
        value = loss(y, seen("logits", get("logits")(h)))
    gradients = {name: [tape.gradient(value, tensor) for tensor in several] for name, several in tensors.items()}
    kernels = {name: get(name).weights[0] for name in tensors if name != "norm"}
    weights = {name: kernel.numpy() for name, kernel in kernels.items()}
    weight_gradients = {name: tape.gradient(value, kernel.value) for name, kernel in kernels.items()}

    keras.utils.set_random_seed(1)
    fresh = convolutional()  # the averages of `norm` have moved above
    fresh.compile("sgd", loss)
    report = measured(fresh, x, y)

    assert report.layers == list(tensors)
    for name, several in tensors.items():
        assert_equal(report.moments[Tap("output", name)], np.stack(several) if len(several) > 1 else several[0])
        assert_equal(report.moments[Tap("output_gradient", name)], np.stack(gradients[name]))
    for name, weight in weights.items():
        assert_equal(report.moments[Tap("weight", name)], weight)
        assert_equal(report.moments[Tap("weight_gradient", name)], weight_gradients[name])
    norm_weights = np.concatenate([np.ones(8), np.zeros(8)])  # gamma and beta
    assert_equal(report.moments[Tap("weight", "norm")], norm_weights)


def test_softmax_under_cross_entropy_counts_the_gradient_of_its_logits():
    keras.utils.set_random_seed(2)
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((32, 6)).astype("float32"), rng.integers(0, 3, 32)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax", name="out")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    probabilities = model.predict(x, verbose=0).astype("float64")
    report = measured(model, x, y, kinds=("output", "output_gradient", "pre_activation_gradient"))
    assert_equal(report.moments[Tap("output", "out")], probabilities)
    for kind in ("output_gradient", "pre_activation_gradient"):
        assert_equal(report.moments[Tap(kind, "out")], (probabilities - np.eye(3)[y]) / len(x))


def test_recurrent_layers_are_read_from_outside():
    keras.utils.set_random_seed(5)
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((8, 6, 3)).astype("float32"), rng.standard_normal((8, 1)).astype("float32")
    recurrent = keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True), name="both")
    model = keras.Sequential([keras.Input((6, 3)), recurrent, keras.layers.GRU(4, name="gru"), keras.layers.Dense(1)])
    model.layers[-1].name = "out"
    model.compile("sgd", "mse")
    forward = keras.Model(model.inputs, recurrent.output).predict(x, verbose=0)[..., :4]
    with pytest.warns(UserWarning, match=r"pre_activation of 'both/.*'gru': .* inside a loop"):
        report = measured(model, x, y, kinds=(*MeasurementSpec().kinds, "pre_activation"))
    assert [tap.layer for tap in report.moments if tap.kind == "pre_activation"] == ["out"]
    path = f"both/{recurrent.forward_layer.name}"
    assert set(report.layers) == {path, f"both/{recurrent.backward_layer.name}", "gru", "out"}
    assert_equal(report.moments[Tap("output", path)], forward)
    assert all(Tap("output_gradient", layer) in report.moments for layer in report.layers)


def test_a_layer_inside_a_loop_is_left_out_with_a_warning():
    import tensorflow as tf

    class Loops(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="loops")
            self.inner = keras.layers.Dense(4, name="inner")

        def build(self, shape):
            self.inner.build(shape)

        def call(self, x):
            return tf.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, self.inner(x)), [0, x])[1]

    model = keras.Sequential([keras.Input((4,)), Loops(), keras.layers.Dense(1, name="out")])
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="output of layer 'loops/inner'.*: made inside a loop, a branch"):
        report = measured(model, np.ones((2, 4)), np.ones((2, 1)))
    assert Tap("output", "loops/inner") not in report.moments
    assert Tap("weight", "loops/inner") in report.moments
    assert Tap("output", "out") in report.moments


def test_replicas_of_another_strategy_are_refused():
    import tensorflow as tf

    class TwoReplicas:
        num_replicas_in_sync = 2

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model._distribute_strategy = TwoReplicas()
    callback = LayerStatsCallback(None)
    callback.set_model(model)
    with pytest.raises(ValueError, match=r"trains on 2 replicas under TwoReplicas, expected tf\.distribute\.Mirrored"):
        callback.on_train_begin()
    assert tf.distribute.get_strategy().num_replicas_in_sync == 1


def test_a_step_that_draws_by_tensorflow_is_named():
    import tensorflow as tf

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.add(keras.layers.Lambda(lambda x: x + tf.random.normal((2,))))
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match=r"draws by tf.random \('.*random_normal/RandomStandardNormal'\)"):
        measured(model, np.ones((4, 3)), np.ones((4, 2)))
