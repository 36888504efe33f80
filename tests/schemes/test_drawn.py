"""Any initializer, drawn with the fans, the axes and the blocks that a layer gives its kernel."""

import keras
import numpy as np
import pytest
from helpers import built, values
from keras import layers as L

import keras_initkit as ik
from keras_initkit.schemes.draw._kernel_draw import draw_kernel, scaled_variance
from keras_initkit.structure import kernels

pytestmark = pytest.mark.one_backend

I = ik.initializers  # noqa: E741  the package's usual short name in these tables
KURTOSIS = {"truncated_normal": 2.37, "untruncated_normal": 3.0, "uniform": 1.8}


def kernel_of(layer, shape, index=0):
    return kernels(built(layer, shape))[index]


# A layer and the fan-in and fan-out of its kernel by counting: inputs that feed an output, outputs that an input feeds.
LAYERS = {
    "dense": (lambda: kernel_of(L.Dense(96), (None, 256)), 256, 96),
    "conv": (lambda: kernel_of(L.Conv2D(64, 3), (None, 8, 8, 32)), 32 * 9, 64 * 9),
    "strided_conv": (lambda: kernel_of(L.Conv2D(64, 4, strides=2), (None, 8, 8, 32)), 32 * 16, 64 * 4),
    "grouped_conv": (lambda: kernel_of(L.Conv2D(64, 3, groups=4), (None, 8, 8, 64)), 16 * 9, 16 * 9),
    "depthwise": (lambda: kernel_of(L.DepthwiseConv2D(5, depth_multiplier=2), (None, 8, 8, 512)), 25, 50),
    "transpose": (lambda: kernel_of(L.Conv2DTranspose(32, 4, strides=2), (None, 8, 8, 64)), 64 * 4, 32 * 16),
    "einsum": (lambda: kernel_of(L.EinsumDense("abc,cde->abde", (None, 8, 32)), (None, 4, 128)), 128, 256),
    "lstm": (lambda: kernel_of(L.LSTMCell(48), (None, 96)), 96, 48),
    "lstm_recurrent": (lambda: kernel_of(L.LSTMCell(64), (None, 8), 1), 64, 64),
    "embedding": (lambda: kernel_of(L.Embedding(300, 64), (None, 4)), 1, 64),
}
SCALED = {
    "he_normal": (lambda i, o: 2 / i, "truncated_normal"),
    "glorot_uniform": (lambda i, o: 2 / (i + o), "uniform"),
    "keras_initkit>StandardUniform": (lambda i, o: 1 / (3 * i), "uniform"),
}


@pytest.mark.parametrize("name", sorted(LAYERS))
@pytest.mark.parametrize("initializer", sorted(SCALED))
def test_variance_scaling_has_the_layers_own_fans(name, initializer):
    kernel, fan_in, fan_out = LAYERS[name][0](), *LAYERS[name][1:]
    variance, distribution = SCALED[initializer]
    values = draw_kernel(kernel, keras.initializers.get(initializer), seed=7)
    assert values.shape == tuple(kernel.variable.shape)
    # The relative standard error of a standard deviation is sqrt((kurtosis - 1) / (4 n)); five of them.
    error = 5 * np.sqrt((KURTOSIS[distribution] - 1) / (4 * values.size))
    assert values.std() == pytest.approx(np.sqrt(variance(fan_in, fan_out)), rel=error)


@pytest.mark.parametrize(
    ("initializer", "expected"),
    [
        (I.RandomWalk("linear"), np.exp(1 / 50) / 50),
        (I.DepthScaling(n_layers=8), 1 / (16 * 50)),
        (I.DepthScaling(n_layers=8, rule="small", width=30), 1 / 30),
        (I.Siren(first=True), 1 / (3 * 50**2)),
        (I.Critical("relu"), 2 / 50),
        (keras.initializers.VarianceScaling(3.0, "fan_out"), 3 / 20),
    ],
)
def test_variance_of_the_scaling_family(initializer, expected):
    # JAX computes the critical point's activation in float32.
    assert scaled_variance(initializer, (50.0, 20.0)) == pytest.approx(expected, rel=1e-6)


class Doubled(keras.initializers.HeNormal):
    def __call__(self, shape, dtype=None):
        return 2 * super().__call__(shape, dtype)


def test_a_subclass_that_draws_in_its_own_way_keeps_it():
    kernel = kernel_of(L.Dense(64), (None, 256))
    assert draw_kernel(kernel, Doubled(), 0).std() == pytest.approx(2 * np.sqrt(2 / 256), rel=0.02)


def blocks(kernel, values):
    """Matrices (field and inputs, outputs) of each gate, group or depthwise channel."""
    axes = range(len(kernel.shape))
    rows = [a for a in axes if a not in (*kernel.out_axes, *kernel.batch_axes)]
    order = [*kernel.batch_axes, *rows, *kernel.out_axes]
    columns = int(np.prod([kernel.shape[a] for a in kernel.out_axes]))
    batch = int(np.prod([kernel.shape[a] for a in kernel.batch_axes]))
    return values.reshape(kernel.shape).transpose(order).reshape(batch, -1, columns)


@pytest.mark.parametrize("name", ["conv", "depthwise", "einsum", "grouped_conv", "lstm", "lstm_recurrent", "transpose"])
@pytest.mark.parametrize(
    "initializer",
    [keras.initializers.Orthogonal(gain=1.5), I.ScaledOrthogonal("linear", out_axes=(1, 2)), I.GatewiseOrthogonal(3)],
    ids=["keras", "scaled", "gatewise"],
)
def test_orthogonal_in_every_block(name, initializer):
    kernel = LAYERS[name][0]()
    gain = 1.5 if isinstance(initializer, keras.initializers.Orthogonal) else 1.0
    factor = 2.0 if name == "transpose" else 1.0  # sqrt(2 * 2): a quarter of the taps reaches each output
    for block in blocks(kernel, draw_kernel(kernel, initializer, 3).astype("float64")):
        thin = block.T @ block if block.shape[0] >= block.shape[1] else block @ block.T
        np.testing.assert_allclose(thin, (gain * factor) ** 2 * np.eye(len(thin)), atol=2e-5)


def test_blocks_are_drawn_apart():
    gates = blocks(*(lambda k: (k, draw_kernel(k, keras.initializers.Orthogonal(seed=1), 3)))(LAYERS["lstm"][0]()))
    assert all(abs(gates[i] - gates[j]).max() > 0.1 for i in range(4) for j in range(i))


def test_structured_kernels_of_a_grouped_convolution():
    kernel = kernel_of(L.Conv2D(16, 3, groups=4), (None, 8, 8, 8))
    # Dirac per group: output (g, j) is input (g, j), for as many as a group has.
    values = draw_kernel(kernel, I.Dirac(), 0)
    expected = np.zeros((3, 3, 2, 16))
    for group in range(4):
        expected[1, 1, :, 4 * group : 4 * group + 2] = np.eye(2)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(draw_kernel(kernel, I.Dirac(groups=4), 0), expected)
    delta = draw_kernel(kernel, I.DeltaOrthogonal(), 0)
    assert (delta != 0).any(axis=(2, 3)).sum() == 1
    for group in range(4):
        part = delta[1, 1, :, 4 * group : 4 * group + 4].astype("float64")
        np.testing.assert_allclose(part @ part.T, np.eye(2), atol=1e-5)


def test_icnr_keeps_its_copies_and_gets_a_seed_inside():
    kernel = kernel_of(L.Conv2D(12, 3), (None, 8, 8, 8))
    one, two = (draw_kernel(kernel, I.ICNR(2, keras.initializers.HeNormal(seed=4)), seed) for seed in (0, 1))
    for copy in range(1, 4):
        np.testing.assert_array_equal(one[..., :3], one[..., 3 * copy : 3 * copy + 3])
    assert abs(one - two).max() > 0.01
    # A name inside has no seed to replace, and draws by Python's random numbers.
    np.testing.assert_array_equal(draw_kernel(kernel, I.ICNR(2), 0), draw_kernel(kernel, I.ICNR(2), 0))
    assert abs(draw_kernel(kernel, I.ICNR(2), 0) - draw_kernel(kernel, I.ICNR(2), 1)).max() > 0.01


def test_kernels_whose_axes_stand_in_another_order():
    kernel = kernel_of(L.Conv2DTranspose(8, 3), (None, 8, 8, 4))  # (3, 3, outputs, inputs)
    widened = draw_kernel(kernel, I.Hadamard(), 0)[1, 1].T.astype("float64")
    np.testing.assert_allclose(widened, np.asarray(I.Hadamard()((4, 8))), atol=1e-6)
    sparse = draw_kernel(kernel, I.Sparse(nonzero=5), 0)
    assert {int((sparse[:, :, unit] != 0).sum()) for unit in range(8)} == {5}
    square = kernel_of(L.Conv2DTranspose(4, 4, strides=2), (None, 8, 8, 4))
    np.testing.assert_allclose(draw_kernel(square, I.BilinearUpsampling(), 0), I.BilinearUpsampling()((4, 4, 4, 4)))


def test_identity_zeros_and_constants():
    gates = blocks(*(lambda k: (k, draw_kernel(k, keras.initializers.Identity(), 0)))(LAYERS["lstm_recurrent"][0]()))
    for gate in gates:
        np.testing.assert_array_equal(gate, np.eye(64))
    einsum = LAYERS["einsum"][0]()
    np.testing.assert_array_equal(
        draw_kernel(einsum, keras.initializers.Identity(), 0).reshape(128, 256), np.eye(128, 256)
    )
    assert not draw_kernel(einsum, keras.initializers.Zeros(), 0).any()
    with pytest.raises(ValueError, match=r"(?s)Identity has no values for .*kernel.* \(conv\).*Leave its layer out"):
        draw_kernel(LAYERS["conv"][0](), keras.initializers.Identity(), 0)


@pytest.mark.parametrize(
    "initializer", [keras.initializers.RandomNormal(stddev=0.1), keras.initializers.TruncatedNormal]
)
def test_a_fixed_standard_deviation_whatever_the_fans(initializer):
    kernel = LAYERS["lstm"][0]()
    expected = 0.1 if isinstance(initializer, keras.initializers.RandomNormal) else 0.05 * 0.8796
    values = draw_kernel(kernel, keras.initializers.get(initializer), 2)
    assert values.std() == pytest.approx(expected, rel=5 * np.sqrt(2 / (4 * values.size)))


def test_half_precision_is_drawn_in_float32():
    kernel = kernel_of(L.Dense(64, dtype="bfloat16"), (None, 64))
    for initializer in ("he_normal", "orthogonal"):
        assert draw_kernel(kernel, keras.initializers.get(initializer), 0).dtype == "float32"


def small_model():
    inputs = keras.Input((6, 8))
    x = L.MultiHeadAttention(2, 8, name="attention")(inputs, inputs)
    x = L.LSTM(8, name="lstm")(x)
    x = L.Dense(8, "relu", name="one", bias_initializer="ones")(x)
    x = L.BatchNormalization(name="norm")(L.Dense(8, "relu", name="two")(x))
    return keras.Model(inputs, L.Dense(2, name="head")(x))


def test_an_initializer_with_a_seed_draws_apart_and_reproduces():
    model = small_model()

    def draw(seed):
        report = ik.initialize(model, keras.initializers.HeNormal(seed=1), seed=seed)
        assert report.seed == seed
        return {weight.path: values(weight) for weight in model.weights}

    first, again, other = draw(5), draw(5), draw(6)
    assert all((first[path] == again[path]).all() for path in first)
    kernels_ = [path for path in first if path.endswith("kernel")]
    assert all((first[path] != other[path]).any() for path in kernels_)
    query, key, value = (first[next(p for p in kernels_ if f"/{part}/" in p)] for part in ("query", "key", "value"))
    one, two = (first[next(p for p in kernels_ if p.endswith(f"{part}/kernel"))] for part in ("one", "two"))
    assert not any((a == b).any() for a, b in ((query, key), (query, value), (key, value), (one, two)))


@pytest.mark.parametrize(
    "initializer",
    [
        "lecun_normal",
        keras.initializers.LecunNormal,
        keras.initializers.LecunNormal(),
        {"class_name": "LecunNormal", "config": {"seed": None}},
        keras.initializers.serialize(keras.initializers.LecunNormal()),
        lambda layer: "lecun_normal",
    ],
    ids=["name", "class", "instance", "config", "serialized", "function"],
)
def test_every_way_to_name_an_initializer(initializer):
    model = keras.Sequential([keras.Input((64,)), L.Dense(256)])
    report = ik.initialize(model, initializer, seed=0)
    error = 5 * np.sqrt(1.37 / (4 * 64 * 256))
    assert report.kernels[0].scale == pytest.approx(1.0, rel=2 * error)  # a variance errs twice as much


def test_a_function_of_the_layer():
    model = small_model()
    before = values(model.get_layer("two").kernel)
    report = ik.initialize(model, lambda layer: {"one": "zeros", "two": None}.get(layer.name, "he_normal"))
    assert not values(model.get_layer("one").kernel).any()
    np.testing.assert_array_equal(values(model.get_layer("two").kernel), before)
    assert report.skipped["two/kernel"] == "the function of the layer gave no initializer"


def test_biases_get_their_own_initializers():
    model = small_model()
    model.set_weights([np.full(weight.shape, 7.0) for weight in model.get_weights()])
    report = ik.initialize(model, "he_normal")
    np.testing.assert_array_equal(values(model.get_layer("one").bias), 1)
    np.testing.assert_array_equal(values(model.get_layer("head").bias), 0)
    forget = values(model.get_layer("lstm").cell.bias).reshape(4, 8)
    np.testing.assert_array_equal(forget, np.repeat([[0], [1], [0], [0]], 8, axis=1))
    assert sorted(report.skipped) == [f"norm/{name}" for name in ("beta", "gamma", "moving_mean", "moving_variance")]
    assert (values(model.get_layer("norm").moving_mean) == 7).all()


def test_reset_starts_every_weight_anew():
    model = small_model()
    model.set_weights([np.full(weight.shape, 7.0) for weight in model.get_weights()])
    report = ik.initialize(model, "reset", seed=3)
    assert not report.skipped
    np.testing.assert_array_equal(values(model.get_layer("norm").moving_variance), 1)
    np.testing.assert_array_equal(values(model.get_layer("norm").beta), 0)
    np.testing.assert_array_equal(values(model.get_layer("one").bias), 1)
    kernel = values(model.get_layer("two").kernel)  # glorot_uniform
    assert 0 < abs(kernel).max() <= np.sqrt(6 / 16)
    recurrent = values(model.get_layer("lstm").cell.recurrent_kernel)  # orthogonal, as Keras has it: not by gates
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(8), atol=1e-5)
    ik.initialize(model, "reset", seed=3)
    np.testing.assert_array_equal(values(model.get_layer("two").kernel), kernel)


class NeedsMore(L.Layer):
    """Its configuration lacks the function; one weight is made too early for `build` to show how."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function
        self.early = self.add_weight(shape=(3,), name="early", initializer="ones")
        self.inner = L.Dense(3, name="inner")

    def build(self, shape):
        self.w = self.add_weight(shape=(3, 400), name="w", initializer="he_normal")
        self.scales = [self.add_weight((3,), "ones", name=f"scale{n}") for n in range(2)]
        self.inner.build(shape)

    def call(self, x):
        return self.function(self.inner(x) * self.early * self.scales[0])


def test_reset_leaves_what_it_cannot_make_again_or_was_learned():
    normalization = L.Normalization(name="adapted")
    normalization.adapt(np.random.default_rng(0).normal(5.0, 2.0, (64, 3)))
    model = keras.Sequential([keras.Input((3,)), normalization, NeedsMore(abs, name="odd"), L.Dense(2, name="head")])
    mean = values(normalization.adapt_mean)
    report = ik.initialize(model, "reset")
    np.testing.assert_array_equal(values(normalization.adapt_mean), mean)
    assert report.skipped["adapted/mean"] == "adapt() has learned it from data"
    assert "cannot be re-created from its config" in report.skipped["odd/early"]
    assert not any(name.startswith(("head", "odd/w", "odd/inner", "odd/scale")) for name in report.skipped)


def test_reset_of_a_layer_that_its_config_does_not_make():
    layer = NeedsMore(abs, name="odd")
    model = keras.Sequential([keras.Input((3,)), layer])
    parts, built = list(vars(layer)), [weight.path for weight in layer.weights]
    for weight in model.weights:
        weight.assign(7 * np.ones(weight.shape))
    ik.initialize(model, "reset", seed=1)
    assert (list(vars(layer)), [weight.path for weight in layer.weights]) == (parts, built)
    assert values(layer.w).var() == pytest.approx(2 / 3, rel=0.2)
    assert [values(each).tolist() for each in layer.scales] == [[1, 1, 1]] * 2
    assert values(layer.early).tolist() == [7, 7, 7]
    assert np.abs(values(layer.inner.kernel)).max() < 1
    first = values(layer.w)
    ik.initialize(model, "reset", seed=2)
    assert (values(layer.w) != first).all()


def test_unseeded_calls_differ_and_follow_set_random_seed():
    model = keras.Sequential([keras.Input((8,)), L.Dense(8)])

    def draw():
        ik.initialize(model, "he_normal")
        return values(model.layers[0].kernel)

    assert (draw() != draw()).all()
    keras.utils.set_random_seed(11)
    first = draw()
    keras.utils.set_random_seed(11)
    np.testing.assert_array_equal(draw(), first)
