"""What `initialize` reports: variances against NumPy, the table, the dictionary, the picture."""

import json

import keras
import numpy as np
import pytest
from helpers import values
from keras import layers as L

import keras_initkit as ik
from keras_initkit.report._health import signal_decades

RNG = np.random.default_rng(1)
X, Y = RNG.normal(size=(64, 8)).astype("float32"), RNG.normal(size=(64, 2)).astype("float32")


def make(compiled=True):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            L.Dense(16, "tanh", name="one"),
            L.BatchNormalization(name="norm"),
            L.Dense(2, name="head"),
        ],
        name="small",
    )
    if compiled:
        model.compile("sgd", "mse")
    return model


def oracle(model):
    """Variances of both layers' pre-activations and of the gradients there, in float64."""
    one, norm, head = (model.get_layer(name) for name in ("one", "norm", "head"))
    z = X.astype("float64") @ values(one.kernel) + values(one.bias)
    h = np.tanh(z)
    deviation = np.sqrt(h.var(axis=0) + norm.epsilon)
    normed = (h - h.mean(axis=0)) / deviation
    out = normed @ values(head.kernel) + values(head.bias)
    back = 2 * (out - Y) / out.size
    g = back @ values(head.kernel).T
    g = (g - g.mean(axis=0) - normed * (g * normed).mean(axis=0)) / deviation * (1 - h**2)
    return {"one": (z.var(), g.var()), "head": (out.var(), back.var())}


def test_variances_before_and_after_are_numpys():
    model = make()
    before = oracle(model)
    report = ik.initialize(model, "he_normal", X, Y, seed=2)
    after = oracle(model)
    for change in report.kernels:
        assert change.forward_before == pytest.approx(before[change.layer][0], rel=1e-4)
        assert change.forward_after == pytest.approx(after[change.layer][0], rel=1e-4)
        assert change.backward_before == pytest.approx(before[change.layer][1], rel=1e-4)
        assert change.backward_after == pytest.approx(after[change.layer][1], rel=1e-4)
        kernel = values(model.get_layer(change.layer).kernel)
        assert change.stddev_after == pytest.approx(kernel.std(), rel=1e-5)
        assert change.scale == pytest.approx((kernel**2).mean() * kernel.shape[0], rel=1e-5)
        assert (change.role, change.fans) == ("dense", kernel.shape)
    worst = max(abs(np.log10(forward)) for forward, _ in after.values())
    assert report.spread == pytest.approx(worst, rel=1e-3)


def test_without_labels_or_a_loss_there_is_no_gradient():
    for model, *data in ((make(), X), (make(compiled=False), X, Y)):
        report = ik.initialize(model, "he_normal", *data, seed=2)
        after = oracle(model)
        for change in report.kernels:
            assert change.forward_after == pytest.approx(after[change.layer][0], rel=1e-4)
            assert change.backward_after is None


def test_without_data_inputs_are_drawn():
    report = ik.initialize(make(), "lecun_normal", seed=2)
    assert "inputs drawn from the model's specification" in report.notes[-1]
    assert 0.3 < report.kernels[0].forward_after < 3  # 1, of 32 examples and 16 units with 8 inputs each


def test_a_model_that_says_nothing_of_its_inputs():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(2, name="dense")

        def call(self, x):
            assert keras.ops.is_tensor(x), "it needs numbers"
            return self.dense(x)

    model = Own()
    model(X)
    report = ik.initialize(model, "he_normal")
    assert report.notes[-1].startswith("No variances")
    assert report.spread is None
    with pytest.raises(ValueError, match=r"plot: nothing was measured\. Pass x, or x and y"):
        report.plot()


def test_only_the_first_examples_are_measured():
    many = np.concatenate([RNG.normal(size=(256, 8)), np.full((300, 8), np.nan)]).astype("float32")
    report = ik.initialize(make(), "he_normal", many)
    assert np.isfinite(report.kernels[0].forward_after)


def test_printed_in_a_hundred_columns():
    model = make()
    text = str(ik.initialize(model, "he_normal", X, Y, seed=2))
    assert max(map(len, text.splitlines())) <= 100
    assert "small: 'he_normal' set 2 of 2 kernels (seed 2)" in text
    for part in ("one/kernel", "head/kernel", "dense", "fan", "scale", "var.", "grad."):
        assert part in text
    assert "no scheme touches it: norm/gamma, norm/beta, norm/moving_mean," in " ".join(text.split())
    assert "one/kernel" in str(ik.initialize(model, "he_normal", layers="head"))


def test_long_models_are_folded():
    model = keras.Sequential([keras.Input((4,)), *(L.Dense(4, name=f"layer_{i}") for i in range(60))])
    text = str(ik.initialize(model, "he_normal"))
    for part in ("... 20 more", "layer_19/kernel", "layer_40/kernel"):
        assert part in text
    assert "layer_20/kernel" not in text


def test_to_dict_is_plain():
    report = ik.initialize(make(), "auto", X, Y, seed=2)
    data = json.loads(json.dumps(report.to_dict()))
    assert (data["scheme"], data["seed"], data["model"]) == ("auto", 2, "small")
    first = data["weights"][0]
    assert (first["layer"], first["name"], first["shape"], first["fans"]) == ("one", "kernel", [8, 16], [8, 16])
    assert first["forward_after"] == report.kernels[0].forward_after
    assert [row["name"] for row in data["weights"] if row["layer"] == "norm"] == [
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
    ]


def test_plot_shows_before_and_after_as_the_reports_do():
    report = ik.initialize(make(), "he_normal", X, Y)
    figure = report.plot()
    panels = [panel for panel in figure.axes if panel.get_ylabel().startswith("factor")]
    for panel, direction in zip(panels, (0, 1), strict=True):
        lines = {line.get_label(): line.get_ydata() for line in panel.lines}
        for name, measured in (("before", report.before), ("after", report.after)):
            drawn = [10**value for value in signal_decades(measured)[direction].values()]
            assert [*lines.get(name, [])] == pytest.approx(drawn)
    assert set(lines) >= {"before", "after"}  # backward: the head is judged
    assert report.after.statistic("pre_activation_variance")["one"] == report.kernels[0].forward_after
    assert report.to_dict().keys() == {"scheme", "seed", "model", "notes", "weights"}


def test_a_shared_names_weights_are_told_apart():
    cells = [L.LSTMCell(4), L.LSTMCell(4)]
    model = keras.Sequential([keras.Input((5, 8)), L.RNN(cells, name="stack")])
    report = ik.initialize(model, "he_normal")
    names = [f"{change.layer}/{change.name}" for change in report.weights]
    assert len(set(names)) == len(names) == 6
