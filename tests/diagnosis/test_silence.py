"""Where scale does not matter, and where it does after all: branches, normalizations, gates, and the first step."""

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_initkit import diagnose, probe
from keras_initkit.diagnosis import _evidence
from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._judge import diagnose_reports
from keras_initkit.diagnosis.context._model_context import ModelContext
from keras_initkit.diagnosis.context._recurrent_growth import growth_over_steps
from keras_initkit.signal import SignalReport

pytestmark = pytest.mark.one_backend

X = np.random.default_rng(0).standard_normal((64, 16)).astype("float32")


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def scaled(factor, fan=16):
    return keras.initializers.RandomNormal(stddev=factor * fan**-0.5, seed=1)


def residual(factor, norm_after=None, last=None, stem=False):
    """A branch whose first kernel is `factor` times LeCun's; `norm_after` the branch, the sum, or nothing."""
    x = given = keras.Input((16,))
    x = L.Dense(16, name="stem")(x) if stem else x
    y = L.Dense(16, name="scaled", kernel_initializer=scaled(factor))(x)
    y = L.Dense(16, name="last", kernel_initializer=last or "glorot_uniform")(L.ReLU()(y))
    x = L.Add(name="sum")([x, L.LayerNormalization()(y) if norm_after == "branch" else y])
    x = L.LayerNormalization()(x) if norm_after == "sum" else x
    return keras.Model(given, L.Dense(3, name="head")(x))


def alarms(model, x=X):
    return {(f.kind, f.layer): f.severity for f in diagnose(model, x) if f.severity != "info"}


def optimizer_of(name):
    return {"SGD": keras.optimizers.SGD(1e-4), "Adam": keras.optimizers.Adam(), None: None}[name]


# Residual branches. He's variance, twice LeCun's, is the largest sound one before relu.


@pytest.mark.parametrize(
    ("factor", "optimizer", "severity"),
    [
        (1e-4, "SGD", None),
        (0.1, None, None),
        (6.0, "SGD", None),
        (9.0, "SGD", "warning"),
        (9.0, None, "warning"),
        (9.0, "Adam", None),
        (22.0, "SGD", "warning"),
        (27.0, "SGD", "error"),
        (27.0, "Adam", None),
    ],
)
def test_a_kernel_in_an_open_branch_may_be_small_but_not_large(factor, optimizer, severity):
    model = residual(factor)
    if optimizer:
        model.compile(optimizer_of(optimizer), "mse")
    assert alarms(model).get(("initializer_mismatch", "scaled")) == severity


@pytest.mark.parametrize("norm_after", ["branch", "sum"])
@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_a_branch_that_a_normalization_closes_may_have_any_scale(norm_after, factor):
    assert not alarms(residual(factor, norm_after))


@pytest.mark.parametrize(("factor", "named"), [(90.0, False), (240.0, True)])
def test_a_stream_explodes_where_nothing_closes_it(factor, named):
    model = residual(factor, stem=True)  # where the signal enters
    model.compile("adam", "mse")
    found = alarms(model)
    assert (("exploding_activation", "sum") in found) == named


def test_branches_that_begin_with_zeros_or_nearly_are_sound():
    small = keras.initializers.RandomNormal(stddev=0.02)  # whatever the width
    for last in ("zeros", small, scaled(1e-5)):
        assert not alarms(residual(1.0, last=last))
    assert not alarms(residual(0.02 * 4))


# Before a normalization


def normalized(*factors):
    x = given = keras.Input((16,))
    for number, factor in enumerate(factors):
        x = L.Dense(16, name=f"hidden_{number}", kernel_initializer=scaled(factor))(x)
        x = L.ReLU()(L.BatchNormalization()(x))
    return keras.Model(given, L.Dense(3, name="head")(x))


def test_kernels_before_a_normalization_are_slow_if_most_are_too_large():
    assert not alarms(normalized(100.0, 1.0, 1.0))
    assert not alarms(normalized(6.0, 6.0, 6.0))
    assert not alarms(normalized(0.03, 0.03, 0.03))
    found = diagnose(normalized(9.0, 1.0, 9.0), X)
    assert {f.layer: f.severity for f in found} == {"hidden_0": "warning", "hidden_2": "warning"}
    assert "a step moves 1/" in found[0].message
    assert set(alarms(normalized(100.0, 100.0, 100.0)).values()) == {"error"}


# Gates


def gated(gate, value, activation="sigmoid"):
    x = given = keras.Input((16,))
    for number in range(2):
        a = L.Dense(16, name=f"gate_{number}", kernel_initializer=scaled(gate if number else 1.0))(x)
        b = L.Dense(16, name=f"value_{number}", kernel_initializer=scaled(value if number else 1.0))(x)
        x = L.Multiply()([L.Activation(activation)(a), b])
    return keras.Model(given, L.Dense(3, name="head")(x))


def test_a_gate_may_be_small_and_a_value_not_large():
    assert ModelContext(gated(1.0, 1.0)).gated == {"gate_0", "value_0", "gate_1", "value_1"}
    assert not alarms(gated(0.01, 1.0))
    assert not alarms(gated(1.0, 0.01))
    assert not alarms(gated(6.0, 1.0))
    assert not alarms(gated(9.0, 1.0))  # one of two
    assert alarms(gated(1.0, 9.0))["initializer_mismatch", "value_1"] == "warning"
    assert ("initializer_mismatch", "gate_1") in alarms(gated(9.0, 1.0, "relu"))  # nothing bounds it


def test_what_is_closed():
    x = given = keras.Input((16,))
    y = L.LayerNormalization(name="norm")(L.Dense(16, name="before")(x))
    y = L.Dense(16, "sigmoid", name="bounded")(L.Dense(16, "relu", name="through")(y))
    x = L.Add()([y, L.Dense(16, name="around")(x)])
    model = keras.Model(given, L.Dense(3, "softmax", name="head")(x))
    closed = ModelContext(model).closed & {"before", "through", "bounded", "around", "head"}
    assert closed == {"before", "through", "bounded"}


def test_queries_are_closed_and_values_are_not():
    x = given = keras.Input((6, 16))
    x = L.Add()([x, L.MultiHeadAttention(2, 8, name="mix")(x, x)])
    model = keras.Model(given, L.Dense(3, name="head")(L.Flatten()(x)))
    closed = ModelContext(model).closed
    assert {"mix/query", "mix/key"} <= closed
    assert not {"mix/value", "mix/attention_output", "mix"} & closed


# The first step


def quadratic(rate, optimizer=keras.optimizers.SGD, **options):
    """A loss of curvature 8: the mean of (2 w)^2."""
    model = keras.Sequential([keras.Input((1,)), L.Dense(1, use_bias=False, kernel_initializer="ones", name="only")])
    model.compile(optimizer(rate, **options), "mse")
    return model, np.full((8, 1), 2.0, "float32"), np.zeros((8, 1), "float32")


@pytest.mark.parametrize(("rate", "severity"), [(0.24, None), (0.26, "warning"), (1.4, "warning"), (1.6, "error")])
def test_a_step_overshoots_beyond_two_over_the_curvature(rate, severity):
    model, x, y = quadratic(rate)
    found = {f.kind: f for f in diagnose(model, x, y)}.get("overshooting_step")
    assert (found and found.severity) == severity
    before = model.evaluate(x, y, verbose=0)
    model.train_on_batch(x, y)
    assert (model.evaluate(x, y, verbose=0) > before) == (severity is not None)
    if found:
        assert found.evidence["promised_decrease"] == pytest.approx(16 * rate * before, rel=1e-4)
        assert "model.optimizer.learning_rate = 0." in found.remedy
    assert "overshooting_step" not in [f.kind for f in diagnose(model, x, y)]  # not at the start any more


def test_only_gradient_descent_overshoots():
    for model, x, y in (quadratic(2.0, keras.optimizers.Adam), quadratic(2.0, global_clipnorm=1.0)):
        assert "overshooting_step" not in [f.kind for f in diagnose(model, x, y)]
    model, x, _ = quadratic(2.0)
    assert "overshooting_step" not in [f.kind for f in diagnose(model, x)]


@pytest.mark.parametrize(("factor", "named"), [(1.0, False), (4.2, True)])  # too little for a mismatch
def test_a_step_that_a_large_kernel_makes_too_long_is_named_by_it(factor, named):
    model = residual(factor)
    model.compile(keras.optimizers.SGD(2.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    found = [f for f in diagnose(model, X, np.arange(64) % 3) if f.severity != "info"]
    assert [(f.kind, f.layer) for f in found] == [("overshooting_step", "scaled")] * named
    assert not named or 'layers="scaled"' in found[0].remedy


def test_a_report_keeps_its_loss(tmp_path):
    model, x, y = quadratic(0.1)
    report = probe(model, x, y)
    assert report.loss == pytest.approx(4.0)
    report.to_json(tmp_path / "report.json")
    assert SignalReport.from_json(tmp_path / "report.json").loss == report.loss
    assert report.to_dict()["loss"] == report.loss
    assert probe(model, x).loss is None


# Recurrent kernels


def sequence_model(layer, part="", factor=1.0):
    layers = [keras.Input((8, 4)), layer, L.Dense(3, name="head")]
    model = keras.Sequential(layers)
    for variable in layer.trainable_variables:
        if variable.path.endswith(f"/{part}"):
            variable.assign(variable.value * factor)
    return model


def test_the_growth_over_the_steps_of_a_linear_cell_is_a_power():
    """An orthogonal matrix keeps every length, so that s times one makes each change s^T times as long."""
    x = np.random.default_rng(0).standard_normal((16, 8, 4)).astype("float32")
    for factor in (0.5, 1.5, 3.0):
        keras.utils.set_random_seed(0)
        layer = L.SimpleRNN(12, None, name="rnn")
        model = sequence_model(layer, "recurrent_kernel", factor)
        evidence = Evidence((probe(model, x),), ModelContext(model))
        ((path, growth, steps),) = growth_over_steps(evidence)
        assert (path, steps) == ("rnn", 8)
        assert growth == pytest.approx(factor**8, rel=1e-3)  # eight differences, each a thousandth of float32 numbers


@pytest.mark.parametrize("layer", [L.LSTM, L.GRU, L.SimpleRNN])
def test_a_recurrent_kernel_is_too_large_where_changes_of_the_state_grow(layer):
    x = np.random.default_rng(0).standard_normal((16, 8, 4)).astype("float32")

    def named(part, factor):
        found = diagnose(sequence_model(layer(32, name="rnn"), part, factor), x)
        return [f.severity for f in found if f.kind == "exploding_gradient"]

    assert named("recurrent_kernel", 1.0) == named("recurrent_kernel", 0.01) == []
    assert named("kernel", 100.0) == []  # the gates are flat, and hand nothing on
    assert named("recurrent_kernel", 30.0) != []


def test_a_cell_that_runs_on_no_other_batch_is_not_judged():
    def picky(x):
        if x.shape[0] == 32:
            raise ValueError("another number of examples")
        return keras.ops.tanh(x)

    model = sequence_model(L.SimpleRNN(12, picky, name="rnn"), "recurrent_kernel", 1.0)
    x = np.random.default_rng(0).standard_normal((24, 8, 4)).astype("float32")
    evidence = Evidence((probe(model, x),), ModelContext(model))
    assert [each.path for each in evidence.model.kernels if each.kernel.role == "recurrent"] == ["rnn"]
    assert list(growth_over_steps(evidence)) == []
    assert isinstance(diagnose(model, x), list)


def test_a_report_is_read_once_for_all_the_diagnoses_of_a_run(monkeypatch):
    model = normalized(1.0, 1.0)
    reports, context, read = [probe(model, X) for _ in range(3)], ModelContext(model), []
    collect = _evidence.collect_readings
    monkeypatch.setattr(
        _evidence, "collect_readings", lambda report, paths: read.append(report) or collect(report, paths)
    )
    for number in (1, 2, 3):
        diagnose_reports(reports[:number], context)
    assert list(map(id, read)) == list(map(id, reports))
