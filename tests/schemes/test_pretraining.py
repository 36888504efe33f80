import keras
import numpy as np
import pytest
from helpers import Terminal, plan_of, values
from sklearn.datasets import load_digits

from keras_initkit.schemes.trained._auto_encoder import AutoEncoder
from keras_initkit.schemes.trained._pretraining import pretraining

L = keras.layers


def glorot(units, seed, activation=None, **options):
    return L.Dense(units, activation, kernel_initializer=keras.initializers.GlorotUniform(seed=seed), **options)


def digits(examples=None):
    data = load_digits()
    return (data.data[:examples] / 16).astype("float32"), data.target[:examples]


def sigmoid_net():
    """From glorot_uniform, drawn by NumPy so that all backends start from one net."""
    model = keras.Sequential([keras.Input((64,)), *(L.Dense(64, "sigmoid") for _ in range(5)), L.Dense(10, "softmax")])
    draws = np.random.default_rng(0)
    for layer in model.layers:
        limit = np.sqrt(6 / sum(layer.kernel.shape))
        layer.kernel.assign(draws.uniform(-limit, limit, layer.kernel.shape))
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    return model


CONVOLUTIONS = {
    "1d causal": (L.Conv1D, (9, 4), {"padding": "causal", "dilation_rate": 2}),
    "1d strided, odd": (L.Conv1D, (10, 4), {"strides": 2, "padding": "same"}),
    "2d": (L.Conv2D, (6, 5, 4), {}),
    "2d grouped": (L.Conv2D, (6, 6, 4), {"groups": 2, "padding": "same"}),
    "2d strided, rest": (L.Conv2D, (8, 7, 4), {"strides": (3, 2)}),
    "3d": (L.Conv3D, (4, 4, 4, 2), {"padding": "same"}),
}


@pytest.mark.parametrize("name", sorted(CONVOLUTIONS))
def test_the_decoder_is_the_adjoint_of_a_convolution(name):
    """<h, W x> = <W' h, x> for any h and x, with W x from the layer itself, its bias taken off."""
    kind, shape, options = CONVOLUTIONS[name]
    layer = kind(6, 3, activation="tanh", bias_initializer="ones", **options)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *shape)).astype("float32")
    layer.build(x.shape)
    linear = kind(6, 3, use_bias=False, **options)
    linear.build(x.shape)
    linear.set_weights(layer.get_weights()[:1])
    wx = values(linear(x))
    code = rng.standard_normal(wx.shape)
    encoder = AutoEncoder(layer, x)
    tensor = keras.ops.convert_to_tensor(code.astype("float32"))
    back = encoder.transposed([v.value for v in layer.weights], tensor, keras.ops.convert_to_tensor(x))
    assert tuple(back.shape) == x.shape
    # Rounding of float32 in sums of up to 1e3 terms of size 1.
    np.testing.assert_allclose((values(back) * x).sum(), (code * wx).sum(), atol=1e-3)


@pytest.mark.parametrize("unit_range", [False, True])
def test_the_loss_of_a_dense_layer_and_its_first_step(unit_range):
    """Against NumPy; Adam's first step moves each weight by the learning rate against its gradient's sign."""
    rng = np.random.default_rng(0)
    x = rng.random((20, 6)) if unit_range else rng.standard_normal((20, 6))
    layer = glorot(4, 0, "tanh")
    layer.build((None, 6))
    kernel, bias = (values(w.value) for w in layer.weights)

    def loss(kernel, bias, offset):
        z = np.tanh(x @ kernel + bias) @ kernel.T + offset
        if not unit_range:
            return ((z - x) ** 2).mean()
        p = 1 / (1 + np.exp(-z))
        return -(x * np.log(p) + (1 - x) * np.log(1 - p)).mean()

    encoder = AutoEncoder(layer, x.astype("float32"))
    history = encoder.fit("layer", x.astype("float32"), 1, 20, 0.01, 0.0, np.random.default_rng(0))
    np.testing.assert_allclose(history, [loss(kernel, bias, 0)], rtol=1e-5)
    gradient = np.zeros_like(kernel)
    for index in np.ndindex(*kernel.shape):
        step = np.zeros_like(kernel)
        step[index] = 1e-5
        gradient[index] = (loss(kernel + step, bias, 0) - loss(kernel - step, bias, 0)) / 2e-5
    new_kernel, new_bias = (values(value) for _, value in encoder.learned())
    clear = np.abs(gradient) > 1e-4  # else the sign is a matter of rounding, and Adam's epsilon counts
    assert clear.mean() > 0.9
    np.testing.assert_allclose((new_kernel - kernel)[clear], -0.01 * np.sign(gradient)[clear], rtol=1e-3)
    assert np.abs(np.abs(new_bias) - 0.01).max() < 1e-4


def test_pretraining_lowers_the_loss_after_the_first_epoch_on_digits():
    x, y = digits()
    losses = []
    for prepared in (False, True):
        model = sigmoid_net()
        if prepared:
            pretraining(plan_of(model, x), epochs=4, batch_size=64, learning_rate=5e-3, verbose=0)
        model.fit(x, y, epochs=1, batch_size=32, shuffle=False, verbose=0)
        losses.append(model.evaluate(x, y, verbose=0))
    assert losses[0] > 2.25  # ln 10 is 2.303: the plain net has not left the plateau
    assert losses[1] < 2.1


def convolutional():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            L.Conv2D(4, 3, activation="relu", kernel_initializer=keras.initializers.HeNormal(seed=0), name="conv"),
            L.BatchNormalization(name="norm"),
            L.MaxPooling2D(name="pool"),
            L.Flatten(name="flat"),
            L.Dropout(0.2, seed=1),
            glorot(12, 1, "tanh", name="dense"),
            glorot(10, 2, "softmax", name="head"),
        ]
    )


def test_layers_learn_from_what_they_really_get(monkeypatch):
    """What reaches the second layer is the pre-trained first one's output, through pooling and normalisation."""
    x, _ = digits(64)
    x = x.reshape(-1, 8, 8, 1)
    model = convolutional()
    seen = {}
    fit = AutoEncoder.fit
    monkeypatch.setattr(
        AutoEncoder,
        "fit",
        lambda self, path, given, *rest: (seen.update({path: given}), fit(self, path, given, *rest))[1],
    )
    model.layers[4].rate = 0.0
    pretraining(plan_of(model, x), epochs=2, verbose=0)
    assert list(seen) == ["conv", "dense"]
    np.testing.assert_array_equal(seen["conv"], x)
    h = values(model.get_layer("conv")(x))
    h = (h - h.mean((0, 1, 2))) / np.sqrt(h.var((0, 1, 2)) + model.get_layer("norm").epsilon)  # in training mode
    h = h.reshape(64, 3, 2, 3, 2, 4).max((2, 4)).reshape(64, -1)
    np.testing.assert_allclose(seen["dense"], h, atol=1e-4)


def test_what_is_left_is_said_and_nothing_else_changes():
    x, _ = digits(64)
    x = x.reshape(-1, 8, 8, 1)
    results = []
    for seed, options in ((0, {}), (0, {}), (1, {}), (0, {"noise": 0.5})):
        model = convolutional()
        plan, before = plan_of(model, x, seed=seed), {v.path: values(v.value) for v in model.variables}
        pretraining(plan, epochs=1, verbose=0, **options)
        changed = {v.path.split("/")[-2] for v in model.variables if (before[v.path] != values(v.value)).any()}
        assert changed == {"conv", "dense"}
        results.append(model.get_layer("dense").get_weights()[0])
        skipped = {(change.layer, change.name): change.skipped for change in plan.changes()}
        assert skipped["head", "kernel"] == "its output is the model's output, which is trained on labels"
        assert skipped["conv", "kernel"] == skipped["dense", "bias"] == ""
    np.testing.assert_array_equal(results[0], results[1])
    assert all(np.abs(results[0] - other).max() > 1e-4 for other in results[2:])


def test_layers_that_are_left_out_shared_or_of_another_kind():
    x = np.random.default_rng(0).standard_normal((32, 5, 8)).astype("float32")
    inputs = keras.Input((5, 8))
    shared = glorot(8, 0, "tanh", name="shared")
    h = shared(shared(inputs))
    h = L.LSTM(4, name="lstm")(h)
    model = keras.Model(inputs, glorot(2, 2, name="head")(glorot(6, 1, "relu", name="last")(h)))
    plan, before = plan_of(model, x), model.get_weights()
    pretraining(plan, epochs=1, verbose=0)
    skipped = {change.layer: change.skipped for change in plan.changes() if change.name == "kernel"}
    assert skipped == {
        "shared": "",
        "lstm": "only Dense and Conv layers are pre-trained",
        "last": "",
        "head": "its output is the model's output, which is trained on labels",
    }
    model.set_weights(before)
    pretraining(plan_of(model, x, layers=["shared"]), epochs=1, verbose=0)
    same = [bool((old == new).all()) for old, new in zip(before, model.get_weights(), strict=True)]
    assert same == [False, False] + [True] * 7


def test_a_progress_bar_on_a_terminal_unless_told_otherwise(capsys, monkeypatch):
    x, _ = digits(64)
    model = keras.Sequential([keras.Input((64,)), glorot(4, 0, "tanh", name="first"), glorot(10, 1)])
    for verbose in (0, 1):
        stderr = Terminal(monkeypatch)
        monkeypatch.setattr("sys.stderr", stderr)
        pretraining(plan_of(model, x), epochs=1, verbose=verbose)
        assert ("pre-training first (1 of 1)" in stderr.getvalue()) == bool(verbose)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: got 0, expected a positive integer"),
        ({"noise": 1.0}, r"noise: got 1\.0, expected a finite number of at least 0 and below 1"),
        ({"learning_rate": 1e30}, r"layer 'first' diverged at step \d+\. Lower learning_rate \(it is 1e\+30\)"),
    ],
)
def test_options_and_divergence_leave_the_weights(options, message):
    x = np.random.default_rng(0).standard_normal((64, 5)).astype("float32")
    model = keras.Sequential([keras.Input((5,)), glorot(4, 0, name="first"), glorot(3, 1, name="head")])
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        pretraining(plan_of(model, x), verbose=0, **options)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_no_data_bad_data_and_nothing_to_pretrain():
    model = keras.Sequential([keras.Input((5,)), glorot(4, 0, name="first"), glorot(3, 1, name="head")])
    with pytest.raises(ValueError, match="pretraining: got no data, expected x:"):
        pretraining(plan_of(model))
    x = np.full((4, 5), np.nan, "float32")
    with pytest.raises(ValueError, match=r"the input of layer 'first' is not finite\. Look for NaN"):
        pretraining(plan_of(model, x), verbose=0)
    with pytest.raises(ValueError, match=r"no layer to pre-train.*head: its output is the model's"):
        pretraining(plan_of(keras.Sequential([keras.Input((5,)), glorot(3, 1, name="head")]), np.zeros((4, 5))))
