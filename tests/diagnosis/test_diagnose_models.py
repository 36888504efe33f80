"""diagnose on small models: what only the model can tell, and real probes and runs."""

import keras
import numpy as np
import pytest
from keras import layers as L
from scipy import stats

from keras_initkit import diagnose, probe
from keras_initkit.diagnosis.context._model_context import ModelContext
from keras_initkit.diagnosis.rules._kernel_scale import _p_value
from keras_initkit.signal import SignalReport

X = np.random.default_rng(0).standard_normal((64, 16)).astype("float32")


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def normal(stddev):
    return keras.initializers.RandomNormal(stddev=stddev, seed=1)


def mlp(*hidden, inputs=16, head=3):
    """Hidden layers, and a linear head."""
    return keras.Sequential([keras.Input((inputs,)), *hidden, L.Dense(head, name="head")])


def kinds(findings):
    return [(finding.kind, finding.layer, finding.severity) for finding in findings]


# The scale of kernels


@pytest.mark.parametrize(
    ("stddev", "severity"),
    [
        (0.07, None),
        (0.04, "info"),
        (0.025, "warning"),
        (0.9, None),
        (1.5, "info"),
        (2.5, "warning"),
        (5.0, "warning"),
        (8.0, "error"),
    ],
)
def test_initializer_mismatch_is_a_factor_of_ten_from_every_scheme(stddev, severity):
    # The sound variances of 16 inputs and 32 units before relu lie between 1 / 32 and 2 / 16.
    model = mlp(L.Dense(32, "relu", kernel_initializer=normal(stddev), name="a"))
    found = {f.kind: f for f in diagnose(model, X)}.get("initializer_mismatch")
    assert (found and found.severity) == severity
    if found:
        assert found.evidence["stddev"] == pytest.approx(stddev, rel=5 * (2 * 16 * 32) ** -0.5)
        assert found.evidence["expected_stddev"] in (pytest.approx(32**-0.5), pytest.approx(8**-0.5))
        assert 'keras_initkit.initialize(model, "he_normal", layers="a")' in found.remedy


@pytest.mark.parametrize(("activation", "backward"), [("sigmoid", True), ("gelu", False)])
def test_the_remedy_is_what_auto_draws(activation, backward):
    model = mlp(L.Dense(32, activation, kernel_initializer=normal(8.0), name="a"))
    (found,) = [f for f in diagnose(model, X) if f.kind == "initializer_mismatch"]
    direction = ', direction="backward"' if backward else ""
    scaling = f'keras_initkit.initializers.ActivationScaling("{activation}"{direction})'
    assert f'keras_initkit.initialize(model, {scaling}, layers="a")' in found.remedy


def test_a_slight_mismatch_explains_nothing():
    """Or a factor of ten in the first layer would be to blame for units that are dead by their bias in the last."""
    dead = L.Dense(
        64, "relu", kernel_initializer="he_normal", bias_initializer=keras.initializers.Constant(-30), name="b"
    )
    found = diagnose(mlp(L.Dense(32, "relu", kernel_initializer=normal(0.04), name="a"), dead), X)
    assert [(f.kind, f.layer, f.severity, f.consequence_of) for f in found if f.layer in "ab"][:1] == [
        ("dead_units", "b", "error", "")
    ]
    assert ("initializer_mismatch", "info") in {(f.kind, f.severity) for f in found}


def test_the_scale_of_a_kernel_that_is_normalized_or_in_a_branch_is_of_no_consequence():
    for initializer in (normal(1e-3), normal(10.0)):
        normalized = mlp(
            L.Dense(32, kernel_initializer=initializer), L.BatchNormalization(), L.ReLU(), L.Dense(32, "relu")
        )
        assert diagnose(normalized, X) == []
    given = keras.Input((16,))
    branch = L.Dense(16, kernel_initializer=normal(1e-3))(L.Dense(16, "relu", kernel_initializer="he_normal")(given))
    assert diagnose(keras.Model(given, L.Dense(3)(L.Add()([given, branch]))), X) == []


def test_the_test_of_a_variance_has_the_power_and_the_level_that_it_says():
    rng = np.random.default_rng(0)
    n, sigma = 40, 0.7
    ratios = np.square(rng.normal(0, sigma, (4000, n))).mean(axis=1) / sigma**2
    p = [_p_value(ratio, n) for ratio in ratios]
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    # An F-test against a variance that is known has infinitely many degrees of freedom below.
    assert _p_value(1.5, n) == pytest.approx(2 * stats.f.sf(1.5, n, 1e9), rel=1e-5)


@pytest.mark.parametrize(("p_value", "expected"), [(0.7e-6, "info"), (1.5e-6, None)])
def test_a_mismatch_that_chance_makes_once_in_a_million_is_none(p_value, expected):
    # Two elements have a chi-squared distribution of two degrees of freedom: p = 2 exp(-ratio).
    model = mlp(L.Dense(2, "relu", name="a"), inputs=1)
    model.layers[0].kernel.assign(np.array([[1.0, -1.0]]) * (2 * -np.log(p_value / 2)) ** 0.5)  # He's variance is 2
    found = {f.layer: f for f in diagnose(model, X[:, :1]) if f.kind == "initializer_mismatch"}
    assert (found and found["a"].severity) == (expected or {})
    if expected:
        assert found["a"].evidence["p_value"] == pytest.approx(p_value, rel=1e-4)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("normalized", "head", "severity"), [(True, True, "info"), (True, False, "info"), (False, True, "warning")]
)
def test_wrong_fans_of_patches_whose_stream_is_normalized(normalized, head, severity):
    # Glorot's 2 / (192 + 64 * 64) for 2 / (192 + 64): read without overlap, an element has 64 outputs.
    x = inputs = keras.Input((32, 32, 3))
    x = L.Conv2D(64, 8, strides=8, name="patches")(x)
    x = L.Reshape((16, 64))(x)
    x = L.Add(name="stream")([x, L.Dense(64, name="branch")(L.LayerNormalization(name="inner")(x))])
    x = L.LayerNormalization(name="last")(x) if normalized else x
    x = L.Dense(3, name="head")(L.GlobalAveragePooling1D()(x)) if head else x
    found = [each for each in diagnose(keras.Model(inputs, x)) if each.kind == "wrong_fans"]
    assert [(each.layer, each.severity) for each in found] == [("patches", severity)]


def test_wrong_fans_of_a_depthwise_convolution():
    images = np.random.default_rng(0).standard_normal((8, 6, 6, 64)).astype("float32")

    def model(*after):
        wrong = L.DepthwiseConv2D(3, name="wrong")
        return keras.Sequential([keras.Input((6, 6, 64)), wrong, *after, L.Flatten(), L.Dense(3)])

    (found,) = diagnose(model(), images)
    assert kinds([found]) == [("wrong_fans", "wrong", "warning")]  # glorot's: 2 / (576 + 9) for 2 / (9 + 9)
    assert found.evidence["expected_stddev"] == pytest.approx(9**-0.5)
    assert diagnose(model(L.BatchNormalization()), images) == []
    # One that it is drawn by with its own fans has none of this.
    sound = model()
    sound.layers[0].kernel.assign(np.random.default_rng(0).normal(0, 1 / 3, (3, 3, 64, 1)))
    assert diagnose(sound, images) == []


# Inputs


def test_unscaled_input_and_its_remedy():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 16)).astype("float32")
    findings = diagnose(mlp(L.Dense(32, "tanh", name="a")), pixels)
    assert kinds(findings)[0] == ("unscaled_input", "a", "error")
    assert all(finding.consequence_of for finding in findings[1:])
    scaled = mlp(L.Rescaling(1 / 127.5, offset=-1), L.Dense(32, "tanh", name="a"))
    assert diagnose(scaled, pixels) == []
    normalized = mlp(L.Dense(32, name="a"), L.BatchNormalization(), L.ReLU())
    assert kinds(diagnose(normalized, pixels)) == [("unscaled_input", "a", "info")]


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_step_shows_unscaled_inputs_by_the_first_layers_output(activation, scale):
    model = mlp(L.Dense(64, activation, name="a"), L.Dense(32, activation))
    probed = probe(model, X * scale)
    step = SignalReport(tuple(row for row in probed.rows if row.tap.kind != "input"))
    found = {finding.kind: finding for finding in diagnose(step, model=model)}
    assert ("unscaled_input" in found) == (scale > 10)
    if scale > 10 and activation == "relu":  # E[x^2] = 10^4; 64 units of 16 inputs scatter by sqrt(5 / 64)
        assert found["unscaled_input"].evidence["mean_square"] == pytest.approx(1e4, rel=4 * (5 / 64) ** 0.5)


# Units


@pytest.mark.parametrize("initializer", ["zeros", "ones"])
def test_symmetric_units(initializer):
    model = mlp(L.Dense(16, "relu"), L.Dense(8, "tanh", kernel_initializer=initializer, name="a"), L.Dense(8, "relu"))
    findings = diagnose(model, X)
    assert kinds(findings)[0] == ("symmetric_units", "a", "error")
    assert all(finding.consequence_of for finding in findings[1:])


def test_columns_that_are_alike_though_rows_differ():
    model = mlp(L.Dense(8, "tanh", name="a"))
    model.layers[0].kernel.assign(np.repeat(X[:1].T / 4, 8, axis=1))
    assert kinds(diagnose(model, X))[0] == ("symmetric_units", "a", "error")


def test_zeros_that_are_sound():
    zero = {"kernel_initializer": "zeros"}
    given = keras.Input((16,))
    branch = L.Dense(16, **zero)(L.Dense(16, "relu")(given))
    model = keras.Model(given, L.Dense(3, **zero)(L.Add()([given, branch])))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert diagnose(model, X, np.arange(64) % 3) == []


def test_zeros_before_an_activation_at_the_end_of_a_branch_are_sound():
    given = keras.Input((16,))
    branch = L.Dense(16, "tanh", kernel_initializer="zeros", name="last")(L.Dense(16, "relu")(given))
    assert diagnose(keras.Model(given, L.Dense(3)(L.Add()([given, branch]))), X) == []
    plain = keras.Model(given, L.Dense(3)(branch))
    assert kinds(diagnose(plain, X))[0] == ("symmetric_units", "last", "error")


def test_constant_output_of_a_softmax_over_one_unit():
    model = keras.Sequential([keras.Input((16,)), L.Dense(8, "relu"), L.Dense(1, "softmax", name="head")])
    model.compile("sgd", "binary_crossentropy")
    cause, *found = diagnose(model, X, np.arange(64.0)[:, None] % 2)
    assert kinds([cause]) == [("softmax_of_one", "head", "error")]
    assert {each.consequence_of for each in found if each.kind == "constant_output"} == {"softmax_of_one"}


def test_dead_by_bias_and_not_by_chance():
    far = keras.initializers.Constant(-30.0)
    dead = mlp(L.Dense(32, "relu"), L.Dense(32, "relu", bias_initializer=far, name="a"))
    assert kinds(diagnose(dead, X))[0] == ("dead_units", "a", "error")
    deep = mlp(*[L.Dense(32, "relu", kernel_initializer="he_normal") for _ in range(12)])
    assert [f for f in diagnose(deep, X) if f.kind == "dead_units"] == []


# Depth and rank


def test_a_kernel_of_rank_one():
    model = mlp(L.Dense(16, "relu", name="a"), L.Dense(16, "relu", name="b"))
    rng = np.random.default_rng(0)
    model.layers[1].kernel.assign(np.outer(rng.standard_normal(16), rng.standard_normal(16)) / 3)
    assert ("rank_collapse", "b", "error") in kinds(diagnose(model, X))


def test_deep_sigmoids_have_a_vanishing_gradient():
    findings = diagnose(mlp(*[L.Dense(32, "sigmoid") for _ in range(9)]), X)
    assert "vanishing_gradient" in {finding.kind for finding in findings}


def test_frozen_on_purpose_and_not():
    class Stop(L.Layer):
        def call(self, x):
            return keras.ops.stop_gradient(x)

    def model():
        return mlp(L.Dense(16, "relu", kernel_initializer="he_normal", name="a"), Stop(), L.Dense(16, "relu", name="b"))

    assert kinds(diagnose(model(), X)) == [("frozen_weights", "a", "warning")]
    frozen = model()
    frozen.layers[0].trainable = False
    assert diagnose(frozen, X) == []


def test_a_nan_in_a_kernel():
    model = mlp(L.Dense(16, "relu"), L.Dense(16, "relu", name="b"))
    values = np.array(model.layers[1].kernel)
    values[0, 0] = np.nan
    model.layers[1].kernel.assign(values)
    assert kinds(diagnose(model, X)) == [("nonfinite", "b", "error")]


# What the model is made of


def test_circumstances():
    given = keras.Input((8, 8, 1))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, padding="same", name="stem")(given)))
    y = L.Conv2D(4, 3, padding="same", name="second")(
        L.Conv2D(4, 3, padding="same", activation="relu", name="first")(x)
    )
    x = L.Dense(3, name="head")(L.Flatten()(L.Add()([x, y])))
    found = ModelContext(keras.Model(given, x))
    assert found.first_layers == ["stem"]
    assert found.normalized & {"stem", "first", "second", "head"} == {"stem"}
    assert found.in_branches == {"first", "second"}
    assert {placed.path for placed in found.kernels if placed.is_output} == {"head"}
    assert [call.path for call in found.heads] == ["head"]
    assert found.is_nonlinear("first")
    assert not found.is_nonlinear("second")
    kernel = next(placed for placed in found.kernels if placed.path == "first")
    np.testing.assert_array_equal(kernel.columns, keras.ops.convert_to_numpy(kernel.kernel.variable).reshape(36, 4))


def test_a_kernel_that_the_model_never_reads_is_not_judged():
    class Pair(L.Layer):
        def build(self, shape):
            self.used = self.add_weight(shape=(shape[-1], 8), name="used", initializer="random_normal")
            self.spare = self.add_weight(shape=(shape[-1], 8), name="spare", initializer="zeros")

        def call(self, x):
            return x @ self.used

    model = keras.Sequential([keras.Input((8,)), Pair(name="pair"), L.Dense(2, name="head")])
    found = [(placed.path, placed.kernel.variable.name) for placed in ModelContext(model).kernels]
    assert found == [("pair", "used"), ("head", "kernel")]


def test_a_subclassed_model_is_judged_by_its_report():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = L.Dense(8, "relu", bias_initializer=keras.initializers.Constant(-50.0), name="hidden")
            self.head = L.Dense(3, name="head")

        def call(self, x):
            return self.head(self.hidden(x))

    assert kinds(diagnose(Model(), X))[0] == ("dead_units", "hidden", "error")


def test_a_raw_column_beside_an_embedding_is_judged_by_itself():
    number, category = keras.Input((1,), name="number"), keras.Input((1,), dtype="int32", name="category")
    embedded = L.Flatten()(L.Embedding(10, 4)(category))
    hidden = L.Dense(16, "relu", name="first")(L.Concatenate(name="both")([number, embedded]))
    model = keras.Model([number, category], L.Dense(1)(hidden))
    generator = np.random.default_rng(0)
    column, categories = generator.standard_normal((64, 1)), generator.integers(0, 10, (64, 1))
    assert not [f for f in diagnose(model, [column, categories]) if f.kind == "unscaled_input"]
    first = diagnose(model, [2900 + 280 * column, categories])[0]
    assert (first.kind, first.layer, first.severity) == ("unscaled_input", "both", "error")
    assert "Input 0 of both" in first.message
    assert first.evidence["mean"] == pytest.approx(2900 + 280 * column.mean(), rel=1e-4)


def test_data_that_a_kernel_reads_too_are_named_once():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, L.Dense(2)(L.Add()([inputs, L.Dense(8, name="read")(inputs)])))
    found = diagnose(model, 100 * np.random.default_rng(0).standard_normal((64, 8)))
    assert [f.layer for f in found if f.kind == "unscaled_input"] == ["read"]


# What the graph tells of saturation and of biases


@pytest.mark.parametrize(("activation", "depth", "stddev"), [("sigmoid", 8, 1.0), ("tanh", 5, 2.0)])
@pytest.mark.parametrize("known", [True, False])
def test_the_sources_saturated_networks(activation, depth, stddev, known):
    model = mlp(*[L.Dense(128, activation, kernel_initializer=normal(stddev)) for _ in range(depth)], inputs=128)
    report = probe(model, np.random.default_rng(0).standard_normal((128, 128)))
    found = [f for f in diagnose(report, model=model if known else None) if f.kind == "saturated_units"]
    assert len(found) == depth
    assert {f.severity for f in found} == {"error" if activation == "tanh" else "warning"}
    healthy = mlp(*[L.Dense(64, activation, kernel_initializer="he_normal") for _ in range(depth)], inputs=64)
    assert not [f for f in diagnose(healthy, np.random.default_rng(0).standard_normal((128, 64))) if "sat" in f.kind]


def test_a_gate_that_is_sure_is_not_saturated():
    given = keras.Input((16,))

    def model(gate):
        signal = L.Dense(16, "tanh", name="signal")(given)
        closed = L.Reshape((16,))(L.Dense(16, "sigmoid", kernel_initializer=normal(9.0), name="gate")(given))
        joined = L.Multiply()([signal, closed]) if gate else L.Add()([signal, closed])
        return keras.Model(given, L.Dense(3, name="head")(joined))

    assert ("saturated_units", "gate") not in [(f.kind, f.layer) for f in diagnose(model(True), X)]
    assert ("saturated_units", "gate") in [(f.kind, f.layer) for f in diagnose(model(False), X)]


def test_a_classifier_that_is_sure_by_a_separate_sigmoid_is_not_saturated():
    wide = normal(30.0)
    model = keras.Sequential([keras.Input((16,)), L.Dense(8, "relu"), L.Dense(3, kernel_initializer=wide)])
    model.add(L.Activation("sigmoid", name="sure"))
    assert not [f for f in diagnose(model, X) if f.kind == "saturated_units"]
    assert not [f for f in diagnose(probe(model, X)) if f.kind == "saturated_units"]


@pytest.mark.parametrize("cell", [L.LSTM, L.GRU])
def test_fresh_recurrent_layers_are_sound_with_the_model_and_without(cell):
    recurrent = [cell(16, return_sequences=True) for _ in range(3)]
    model = keras.Sequential([keras.Input((8, 16)), *recurrent, L.Dense(3)])
    report = probe(model, np.random.default_rng(0).standard_normal((32, 8, 16)))
    assert diagnose(report) == diagnose(report, model=model) == []


@pytest.mark.parametrize("activation", [None, "relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_a_bias_is_no_unscaled_input(activation, scale):
    bias = keras.initializers.Constant(300.0)
    model = mlp(L.Dense(64, activation, bias_initializer=bias, kernel_initializer="he_normal", name="a"), L.Dense(8))
    step = SignalReport(tuple(row for row in probe(model, X * scale).rows if row.tap.kind != "input"))
    found = {f.kind for f in diagnose(step, model=model)}
    assert ("unscaled_input" in found) == (scale > 1 and activation in (None, "relu"))  # the others are at one end


def test_units_behind_a_separate_relu_are_dead_where_nothing_is_above_zero():
    from keras_initkit.callbacks import LayerStatsCallback

    def found(bias, *between, units=32):
        def far(shape, dtype=None):
            return keras.ops.convert_to_tensor(np.where(np.arange(32) < units, bias, 0.0), dtype)

        model = mlp(L.Dense(32, bias_initializer=far, name="a"), *between, L.Dense(8, name="b"))
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        callback = LayerStatsCallback(None, "batch", on_finding=lambda finding: None)
        model.fit(X, np.arange(64) % 3, batch_size=16, verbose=0, callbacks=[callback])
        dead = [f for f in callback.findings if f.kind == "dead_units"]
        return {f.layer: (f.severity, pytest.approx(f.evidence["dead_units"]), f.confidence < 1) for f in dead}

    assert found(-60.0, L.ReLU()) == {"a": ("error", 1.0, True)}
    assert found(-60.0, L.Activation("relu"), units=28) == {"a": ("warning", 28 / 32, True)}
    assert found(-60.0, L.ReLU(), units=16) == {}  # as many as where a kernel is drawn around 0
    assert found(0.0, L.ReLU()) == {}
    assert found(-60.0) == {}  # linear: what is below 0 passes
    assert found(-60.0, L.BatchNormalization(), L.ReLU()) == {}
    assert found(-60.0, L.LeakyReLU()) == {}


def test_a_branch_that_a_gain_of_zero_closes_is_not_frozen():
    class Gain(L.Layer):
        def build(self, shape):
            self.alpha = self.add_weight(shape=(), initializer="zeros", name="alpha")

        def call(self, x):
            return self.alpha * x

    given = keras.Input((16,))
    for end in (Gain(), L.BatchNormalization(gamma_initializer="zeros")):
        branch = end(L.Dense(16)(L.Dense(16, "relu")(given)))
        assert diagnose(keras.Model(given, L.Dense(3)(L.Add()([given, branch]))), X) == []
