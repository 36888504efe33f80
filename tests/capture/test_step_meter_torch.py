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


@pytest.mark.skipif(not hasattr(keras, "RematScope"), reason="came with Keras 3.9")
def test_a_rematerialized_layer_is_read_once():
    def network(mode):
        with keras.RematScope(mode):
            return tanh_network()

    plain, again = (measured(network(mode), X, Y, MeasurementSpec().kinds) for mode in (None, "full"))
    assert {tap: row.moments for tap, row in plain.items()} == {tap: row.moments for tap, row in again.items()}


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
