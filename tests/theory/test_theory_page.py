"""Every number of docs/theory.md: its code prints what stands below it, and networks do what its text says."""

import contextlib
import io
import math
import pathlib
import re

import keras
import numpy as np
import pytest
from scipy.stats import norm

from keras_initkit.theory import gain
from keras_initkit.theory._activations import resolve
from keras_initkit.theory._mean_field import variance_slope

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "theory.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not beside the tests")
@pytest.mark.skipif(keras.backend.backend() == "jax", reason="the last digits are those of double precision")
def test_code_prints_what_the_page_shows():
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    namespace = {}
    for code, shown in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)
        assert printed.getvalue() == shown


def stack(sigma, depth, width=512, seed=3):
    """Outputs of every layer of a linear float32 stack of one N(0, 1) input."""
    normal = keras.initializers.RandomNormal
    h = np.random.default_rng(seed).standard_normal((1, width)).astype("float32")
    outputs = []
    for layer in range(depth):
        h = keras.layers.Dense(width, use_bias=False, kernel_initializer=normal(0.0, sigma, seed=seed + layer))(h)
        outputs.append(keras.ops.convert_to_numpy(h)[0].astype("float64"))
    return outputs


def assert_grows_by(outputs, factor):
    """Log mean squares within four standard errors: 2 / n a layer and for the input; they drift by -1 / n a layer."""
    for layer, values in enumerate(outputs, 1):
        error = math.sqrt(2 * (layer + 1) / 512)
        assert abs(np.log(np.mean(values**2)) - layer * math.log(factor)) < 4 * error + layer / 512


def test_a_stack_of_512_overflows_at_layer_29():
    """The deviation at layer 28 is a quarter of the largest number, at 29 six times it: 85 % of the layer overflow."""
    outputs = stack(1.0, 29)
    finite = [np.isfinite(values).mean() for values in outputs]
    assert finite[:27] == [1.0] * 27
    assert finite[27] > 0.99  # hardly any of 512; none, but for one seed in ten
    assert finite[28] < 0.3
    assert_grows_by(outputs[:27], 512)
    assert pytest.approx(8.5e37, rel=1e-2) == 512.0**14
    assert 1 / (2 * norm.sf(np.finfo("float32").max / 512.0**14)) == pytest.approx(16_000, rel=0.03)


def test_a_stack_of_512_with_001_vanishes():
    outputs = stack(0.01, 75)
    factor = 512 * 0.01**2
    assert math.sqrt(factor) == pytest.approx(0.2263, abs=5e-5)
    tiny = np.finfo("float32").tiny
    assert factor**29 > tiny > factor**29.5  # standard deviations of layers 58 and 59
    assert_grows_by(outputs[:55], factor)  # products below tiny may be flushed to zero a little earlier
    assert not np.any(outputs[74])


def test_a_stack_of_512_stays_flat():
    assert_grows_by(stack(512**-0.5, 50), 1.0)


def test_gelu_under_its_gain_is_not_stable():
    assert variance_slope(resolve("gelu"), gain("gelu"), 1.0) == pytest.approx(1.14, abs=5e-3)


def test_batch_normalisation_multiplies_gradients():
    """Ten layers of ReLU under normalisation: the mean growth, within 2 % of pi / (pi - 1) at width and batch 512."""
    random = np.random.default_rng(0)
    size, h, layers = 512, random.standard_normal((512, 512)), []
    for _ in range(14):
        kernel = random.standard_normal((size, size)) / math.sqrt(size)
        z = h @ kernel
        spread = z.std(axis=0)
        z = (z - z.mean(axis=0)) / spread
        layers.append((kernel, spread, z))
        h = np.maximum(z, 0)
    gradient, variances = random.standard_normal((size, size)), []
    for kernel, spread, z in layers[:1:-1]:  # the first two are still on their way to equal distances
        gradient = gradient * (z > 0)
        gradient = (gradient - gradient.mean(axis=0) - z * (gradient * z).mean(axis=0)) / spread @ kernel.T
        variances.append(gradient.var())
    growth = (variances[-1] / variances[0]) ** (1 / (len(variances) - 1))
    assert growth == pytest.approx(math.pi / (math.pi - 1), rel=0.02)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_twins_stay_twins(optimizer):
    """A constant network stays one of width 1; logistic regression from zeros learns."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    x = random.standard_normal((64, 3)).astype("float32")
    y = (x[:, :1] > x[:, 1:2]).astype("float32")

    def trained(*hidden, value):
        constant = keras.initializers.Constant(value)
        layers = [keras.layers.Dense(n, "tanh", kernel_initializer=constant) for n in hidden]
        model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(1, kernel_initializer=constant)])
        model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True))
        history = model.fit(x, y, batch_size=16, epochs=3, verbose=0, shuffle=False).history["loss"]
        return [np.asarray(each) for each in model.get_weights()], history

    weights, _ = trained(4, 5, value=0.3)
    first, bias, second, _, last, _ = weights
    for twins in (first.T, second, second.T, last, bias):  # equal along the units, to rounding of sums
        assert np.ptp(twins, axis=0).max() < 1e-6
    assert np.ptp(first, axis=0).max() > 0.01  # the inputs are no twins
    zeros, _ = trained(4, 5, value=0.0)
    assert not any(np.any(each) for each in zeros[:-1])
    assert np.any(zeros[-1])
    _, losses = trained(value=0.0)
    assert losses[-1] < losses[0]
