"""What a measured step on PyTorch says, against the same network in float64 NumPy and against PyTorch's gradients."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_initkit.capture.backends import step_meter
from keras_initkit.capture.step._reduction import MeasurementSpec
from keras_initkit.signal import Moments, Tap
from keras_initkit.structure import weighted_layers

pytestmark = pytest.mark.skipif(keras.backend.backend() != "torch", reason="the step meter of PyTorch")
if keras.backend.backend() == "torch":
    import torch

KINDS = (*MeasurementSpec().kinds, "pre_activation", "pre_activation_gradient")
rng = np.random.default_rng(0)


def measured(model, x, y, kinds=KINDS):
    """Rows that a measured step on all of x reads, by tap."""
    meter = step_meter(model, weighted_layers, MeasurementSpec(kinds, sample_size=None))
    meter.arm()
    model.train_on_batch(x, y)
    return {row.tap: row for row in meter.collect()}


def assert_equal(moments: Moments, tensor: np.ndarray, rel=1e-5):
    expected = Moments.of(tensor)
    for name in ("count", "mean", "variance", "minimum", "maximum", "zeros"):
        # Relative to the tensor's own size where it, or a mean of both signs, comes out near zero.
        slack = 0 if name in ("count", "variance", "zeros") else 1e-6 * expected.stddev
        assert getattr(moments, name) == pytest.approx(getattr(expected, name), rel=rel, abs=slack), name


def numpy_of(weight):
    return keras.ops.convert_to_numpy(weight).astype("float64")


def tanh_network(**options):
    """Two tanh layers and a linear one, with biases that are not zero."""
    keras.utils.set_random_seed(0)
    stack = [layers.Dense(20, "tanh", name=f"dense_{i}") for i in range(2)]
    model = keras.Sequential([keras.Input((30,)), *stack, layers.Dense(5, name="out")])
    biases = np.random.default_rng(1)
    for layer in model.layers:
        layer.bias.assign(0.1 * biases.standard_normal(layer.bias.shape))
    model.compile(options.pop("optimizer", None) or keras.optimizers.SGD(0.1), "mse", **options)
    return model


X, Y = rng.standard_normal((40, 30)).astype("float32"), rng.standard_normal((40, 5)).astype("float32")


def test_every_statistic_against_numpy():
    model = tanh_network()
    kernels = [numpy_of(layer.kernel) for layer in model.layers]
    biases = [numpy_of(layer.bias) for layer in model.layers]

    rows = measured(model, X, Y)

    signal, inputs, before, outputs = X.astype("float64"), [], [], []
    for index, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        inputs.append(signal)
        before.append(signal @ kernel + bias)
        signal = np.tanh(before[-1]) if index < 2 else before[-1]
        outputs.append(signal)
    gradient = 2 * (signal - Y) / signal.size
    for index in reversed(range(3)):
        path, slope = model.layers[index].name, 1 - outputs[index] ** 2 if index < 2 else 1
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
            assert_equal(rows[Tap(kind, path)].moments, tensor)
        # The difference of two float32 weights near 0.5 is known to 6e-8, an update of 1e-3 to 1e-4 of itself.
        assert_equal(rows[Tap("weight_update", path)].moments, -0.1 * of_kernel, rel=1e-3)
        gradient = (gradient * slope) @ kernels[index].T
    assert rows[Tap("output", "dense_0")].saturated == pytest.approx((np.abs(outputs[0]) > 0.99).mean())
    assert "call" not in vars(model.layers[0])
    assert "apply" not in vars(model.optimizer)


class InPlace(layers.Layer):
    """Doubles its input where it lies."""

    def call(self, x):
        return x.mul_(2.0)


def test_what_is_read_is_what_was_there_before_an_operation_in_place():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(5, name="out"), InPlace()])
    model.compile("sgd", "mse")
    kernel = numpy_of(model.layers[0].kernel)
    rows = measured(model, X, Y)
    assert_equal(rows[Tap("output", "out")].moments, X @ kernel)
    assert_equal(rows[Tap("output_gradient", "out")].moments, 2 * 2 * (2 * X @ kernel - Y) / Y.size)


def test_a_shared_layer_is_read_in_all_its_calls():
    keras.utils.set_random_seed(0)
    shared, inputs = layers.Dense(30, "tanh", use_bias=False, name="shared"), keras.Input((30,))
    model = keras.Model(inputs, shared(shared(inputs)))
    model.compile("sgd", "mse")
    kernel = torch.tensor(numpy_of(shared.kernel), requires_grad=True)
    first = torch.tanh(torch.tensor(X, dtype=torch.float64) @ kernel)
    second = torch.tanh(first @ kernel)
    loss = ((second - torch.tensor(X)) ** 2).mean()
    *of_outputs, of_kernel = torch.autograd.grad(loss, [first, second, kernel])
    rows = measured(model, X, X)
    assert_equal(rows[Tap("output", "shared")].moments, np.stack([x.detach() for x in (first, second)]))
    assert_equal(rows[Tap("output_gradient", "shared")].moments, np.stack(of_outputs))
    assert_equal(rows[Tap("weight_gradient", "shared")].moments, of_kernel.numpy())


def test_loss_scaling_is_divided_out():
    plain = measured(tanh_network(), X, Y)
    scaled = measured(tanh_network(optimizer=keras.optimizers.SGD(0.1, loss_scale_factor=1024.0)), X, Y)
    assert set(plain) == set(scaled)
    for tap, row in plain.items():  # a power of two costs no digits
        assert scaled[tap].moments.variance == pytest.approx(row.moments.variance, rel=1e-6)


def test_half_precision_says_what_single_precision_says():
    single = measured(tanh_network(), X, Y)
    keras.config.set_dtype_policy("mixed_float16")
    half = measured(tanh_network(), X, Y)
    for tap in (tap for tap in single if "gradient" in tap.kind):
        assert half[tap].moments.variance == pytest.approx(single[tap].moments.variance, rel=5e-3)


def test_an_embedding_counts_the_rows_that_no_example_used():
    model = keras.Sequential(
        [keras.Input((3,), dtype="int32"), layers.Embedding(10, 4, name="words"), layers.Flatten()]
    )
    model.compile("sgd", "mse")
    x = np.array([[1, 2, 2], [1, 5, 2]])
    before = numpy_of(model.get_layer("words").embeddings)
    expected = np.zeros((10, 4))
    np.add.at(expected, x, 2 * before[x] / (x.size * 4))
    rows = measured(model, x, np.zeros((2, 12)))
    assert_equal(rows[Tap("weight_gradient", "words")].moments, expected)
    assert rows[Tap("weight_gradient", "words")].moments.zeros == 7 * 4


def test_gradients_that_a_later_backward_pass_adds_to_are_read_as_they_were_applied():
    class Twice(keras.Sequential):
        def train_step(self, data):
            x, y = data[:2]
            self.zero_grad()
            ((self(x) - torch.as_tensor(y)) ** 2).mean().backward()
            variables = self.trainable_variables
            with torch.no_grad():
                self.optimizer.apply([each.value.grad for each in variables], variables)
            (1000 * self(x).sum()).backward()
            return {}

    keras.utils.set_random_seed(0)
    model = Twice([keras.Input((30,)), layers.Dense(5, use_bias=False, name="out")])
    model.compile("sgd")
    kernel = numpy_of(model.layers[0].kernel)
    rows = measured(model, X, Y)
    assert_equal(rows[Tap("weight_gradient", "out")].moments, X.T @ (2 * (X @ kernel - Y) / Y.size))


def test_units_of_channels_first_are_its_channels():
    model = keras.Sequential(
        [keras.Input((3, 8, 8)), layers.Conv2D(4, 3, activation="relu", data_format="channels_first", name="conv")]
    )
    model.compile("sgd", "mse")
    model.layers[0].bias.assign([-100.0, 1.0, 1.0, -100.0])
    row = measured(model, rng.standard_normal((2, 3, 8, 8)), np.zeros((2, 4, 6, 6)))[Tap("output", "conv")]
    assert row.dead_units == 0.5


@pytest.mark.skipif(not hasattr(keras, "RematScope"), reason="came with Keras 3.9")
def test_a_rematerialized_layer_is_read_once():
    def network(mode):
        with keras.RematScope(mode):
            return tanh_network()

    plain, again = (measured(network(mode), X, Y, MeasurementSpec().kinds) for mode in (None, "full"))
    assert {tap: row.moments for tap, row in plain.items()} == {tap: row.moments for tap, row in again.items()}


def test_meters_of_one_model_share_a_step_and_each_gets_what_it_asked_for():
    model = tanh_network()
    outputs = step_meter(model, lambda m: {"out": m.layers[-1]}, MeasurementSpec(("output",), 64))
    weights = step_meter(model, weighted_layers, MeasurementSpec(("weight",), None))
    model.make_train_function()
    plain = model.train_function
    for meter in (outputs, weights):
        meter.arm()
    model.train_on_batch(X, Y)
    assert model.train_function is plain
    assert [row.tap for row in outputs.collect()] == [Tap("output", "out")]
    assert [row.tap for row in weights.collect()] == [Tap("weight", x.name) for x in model.layers]
    assert outputs.collect()[0].moments.count == 200  # of all elements, for the other meter reads them all
    weights.arm(histograms=True)
    model.train_on_batch(X, Y)
    assert all(row.histogram for row in weights.collect())


def test_an_exception_in_a_measured_step_leaves_nothing_behind():
    class Interrupted(layers.Layer):
        on = False

        def call(self, x):
            if self.on:
                raise KeyboardInterrupt
            return x

    model = keras.Sequential([keras.Input((30,)), layers.Dense(5), Interrupted()])
    model.compile("sgd", "mse")
    model.train_on_batch(X, Y)
    plain, model.layers[1].on = model.train_function, True
    meter = step_meter(model, weighted_layers, MeasurementSpec())
    meter.arm()
    with pytest.raises(KeyboardInterrupt):
        model.train_on_batch(X, Y)
    assert model.train_function is plain
    assert not meter.collect()
    assert "call" not in vars(model.layers[0])
    assert "apply" not in vars(model.optimizer)


def test_the_pass_beside_a_compiled_step_puts_everything_back(monkeypatch):
    """What is compiled is left out: the same operations, so that the update is the one of a plain step."""
    monkeypatch.setattr(torch, "compile", lambda function: function)
    model = keras.Sequential(
        [keras.Input((30,)), layers.Dense(5), layers.BatchNormalization(), layers.Dropout(0.5), layers.GaussianNoise(1)]
    )
    model.compile("adam", "mse", metrics=["mae"], jit_compile=True)
    model.train_on_batch(X, Y)
    variables = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    keras.random.normal(())  # Keras' generator of seeds is there
    seen = []

    def plain(data):
        seen.append([numpy_of(each.value).copy() for each in variables])
        seen.append([each.value.grad for each in model.trainable_variables])
        seen.append([torch.rand(()).item(), np.random.rand(), float(keras.random.normal(()))])  # noqa: NPY002
        return {}

    keras.utils.set_random_seed(5)
    before = [numpy_of(each.value).copy() for each in variables]
    gradients = [each.value.grad for each in model.trainable_variables]
    copies = [each.clone() for each in gradients]
    meter = step_meter(model, weighted_layers, MeasurementSpec())
    model.train_function = plain
    meter.arm()
    model.train_function([(X, Y)])
    np.testing.assert_equal(seen[0], before)
    assert all(now is then for now, then in zip(seen[1], gradients, strict=True))
    assert all(torch.equal(*pair) for pair in zip(gradients, copies, strict=True))
    keras.utils.set_random_seed(5)
    assert seen[2][:2] == [torch.rand(()).item(), np.random.rand()]  # noqa: NPY002
    kinds = {row.tap.kind for row in meter.collect()}
    assert kinds == set(MeasurementSpec().kinds)
