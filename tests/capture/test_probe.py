"""What a probe reads is what there is: forward against NumPy, backward against training itself and against NumPy."""

import collections

import keras
import numpy as np
import pytest
from helpers import CROSS_ENTROPY, Subclassed, TiedEmbedding, cross_entropy, mlp
from keras import layers, ops

from keras_initkit.capture._probe import probe
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._layer_paths import weighted_layers

BACKEND = keras.backend.backend()
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((32, 6)).astype("float32"), rng.integers(0, 3, 32)
IMAGES, SEQUENCES = (
    rng.standard_normal((8, 8, 8, 3)).astype("float32"),
    rng.standard_normal((8, 7, 4)).astype("float32"),
)
TOKENS = rng.integers(1, 12, (8, 7))
SEQUENCES[:, 5:] = TOKENS[:, 5:] = 0


class WithLoss(layers.Dense):
    def call(self, x):
        y = super().call(x)
        self.add_loss(ops.mean(ops.square(y)))
        return y


def residual_cnn():
    inputs = keras.Input((8, 8, 3))
    x = residual = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(inputs)))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", use_bias=False)(x))
    x = layers.MaxPooling2D()(layers.ReLU()(layers.Add()([x, residual])))
    x = layers.Flatten()(layers.SeparableConv2D(5, 3, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(3, "softmax")(x)), IMAGES, Y[:8], CROSS_ENTROPY


def transformer_with_mask():
    tokens = keras.Input((7,), dtype="int32")
    x = layers.Embedding(12, 8, mask_zero=True)(tokens)
    attended = layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)
    x = layers.LayerNormalization()(layers.Add()([x, attended]))
    x = layers.GlobalAveragePooling1D()(layers.Dense(8, "gelu")(x))
    return keras.Model(tokens, layers.Dense(3, "softmax")(x)), TOKENS, Y[:8], CROSS_ENTROPY


def masked_recurrent():
    stack = [layers.Input((7,), dtype="int32"), layers.Embedding(12, 5, mask_zero=True)]
    stack += [layers.Bidirectional(layers.LSTM(4, return_sequences=True)), layers.Dense(3, "softmax")]
    return keras.Sequential(stack), TOKENS, TOKENS % 3, CROSS_ENTROPY


def dict_inputs_and_outputs():
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    x = layers.Dense(8, "relu")(layers.Concatenate()([a, b]))
    outputs = {"p": layers.Dense(3, "softmax", name="p")(x), "q": layers.Dense(1, name="q")(x)}
    loss = {"p": CROSS_ENTROPY, "q": "mse"}
    return keras.Model({"a": a, "b": b}, outputs), {"a": X, "b": -X}, {"p": Y, "q": X[:, :1]}, loss


def nested_and_shared():
    inner = keras.Sequential([layers.Input((6,)), layers.Dense(6, "relu", name="dense")], name="inner")
    outer = keras.Sequential([layers.Input((6,)), inner, layers.Dense(6, name="dense")], name="outer")
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(3, "softmax", name="dense")(inner(outer(inputs)))), X, Y, CROSS_ENTROPY


def tied_embedding():
    return TiedEmbedding(), TOKENS, TOKENS, cross_entropy()


def frozen():
    model = mlp(layers.BatchNormalization(name="norm"), layers.Dense(4))
    model.get_layer("a").trainable = model.get_layer("norm").trainable = False
    return model, X, Y, CROSS_ENTROPY


MODELS = {
    "dense": lambda: (mlp(), X, Y, CROSS_ENTROPY),
    "random": lambda: (mlp(layers.GaussianNoise(0.1), layers.Dropout(0.3, seed=5)), X, Y, CROSS_ENTROPY),
    "sigmoid": lambda: (mlp(out="sigmoid"), X, np.eye(3)[Y], "binary_crossentropy"),
    "losses": lambda: (mlp(WithLoss(5), kernel_regularizer="l2", activity_regularizer="l1"), X, Y, CROSS_ENTROPY),
    "subclassed": lambda: (Subclassed(), X, X[:, :3], "mse"),
}
for _make in (
    residual_cnn,
    transformer_with_mask,
    masked_recurrent,
    dict_inputs_and_outputs,
    nested_and_shared,
    tied_embedding,
    frozen,
):
    MODELS[_make.__name__] = _make
VARIANTS = {
    "weighted": ("dict_inputs_and_outputs", {"loss_weights": {"p": 1.0, "q": 0.3}}, None),
    "eager": ("dense", {"run_eagerly": True}, None),
    "jit": ("dense", {"jit_compile": BACKEND != "torch"}, None),
    "mixed_float16": ("dense", {}, "mixed_float16"),
    "mixed_bfloat16": ("dense", {}, "mixed_bfloat16"),
}
CASES = {**{name: (name, {}, None) for name in MODELS}, **VARIANTS}
# What Keras does before a backend computes.
BY_KERAS = ("weighted", "eager", "mixed_bfloat16", "subclassed", "nested_and_shared")


def build(case):
    name, options, policy = CASES[case]
    if policy:
        keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(3)
    model, x, y, loss = MODELS[name]()
    # A large step, so that the gradient is not lost beside the weights; a power of 2, so that it adds no rounding.
    model.compile(keras.optimizers.SGD(1024.0), loss, **options)
    return model, x, y


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=[pytest.mark.one_backend] * (name in BY_KERAS)) for name in sorted(CASES)]
)
@pytest.mark.filterwarnings("ignore")
def test_weight_gradients_are_those_of_training(case):
    """SGD's step is the learning rate times the gradient, whatever Keras does to come to it."""
    model, x, y = build(case)
    weights = np.linspace(0.5, 1.5, len(Y)).astype("float32") if case == "weighted" else None
    report = probe(model, x, y, sample_weight=weights)
    before = {id(v): keras.ops.convert_to_numpy(v.value).astype("float64") for v in model.variables}
    model.train_on_batch(x, y, sample_weight=weights)
    after = {id(v): (before[id(v)] - keras.ops.convert_to_numpy(v.value)) / 1024 for v in model.trainable_variables}
    largest = max(np.abs(gradient).max() for gradient in after.values())
    compared = 0
    # float16 and bfloat16 hold 3 and 2 digits; in float32 compiled and eager kernels round differently.
    tolerance = {"mixed_float16": 1e-2, "mixed_bfloat16": 0.1}.get(case, 1e-4)
    for path, layer in weighted_layers(model).items():
        for variable in layer.trainable_variables:
            row = report.moments.get(Tap("weight_gradient", path, None, variable.name))
            if row is None or id(variable) not in before:
                continue
            gradient = after[id(variable)]
            # Beside the largest gradient some are rounding alone: a key's bias, a bias under BatchNormalization.
            error = tolerance * np.sqrt((gradient**2).mean()) + 1e-6 * largest
            assert row.mean == pytest.approx(gradient.mean(), abs=error), (path, variable.name)
            assert row.stddev == pytest.approx(gradient.std(), abs=error), (path, variable.name)
            compared += 1
    assert compared >= 2


def outputs_of(model, x, training):
    """Every layer's outputs by name, from a model that puts them all out."""
    inner = {layer.name: layer.output for layer in model.layers if not isinstance(layer, layers.InputLayer)}
    values = keras.Model(model.inputs, inner)(x, training=training)
    return {name: keras.ops.convert_to_numpy(value) for name, value in values.items()}


@pytest.mark.parametrize("name", ["dense", "residual_cnn", "transformer_with_mask"])
def test_outputs_are_the_models(name):
    model, x, *_ = MODELS[name]()
    report = probe(model, x, training=False)
    for layer, values in outputs_of(model, x, False).items():
        row = next((row for row in report.rows if row.tap == Tap("output", layer, 0)), None) or next(
            row for row in report.rows if row.tap.kind == "output" and row.tap.layer == f"{layer}/attention_output"
        )
        values = values.astype("float64")
        assert row.shape == values.shape
        assert row.moments.mean == pytest.approx(values.mean(), rel=1e-5, abs=1e-6 * values.std())
        assert row.moments.variance == pytest.approx(values.var(), rel=1e-5)
        assert (row.moments.minimum, row.moments.maximum) == pytest.approx((values.min(), values.max()), rel=1e-5)
        assert row.moments.count == values.size


def numpy_backpropagation(weights, x, cotangent):
    """A tanh network's tensors by kind, forward and backward, in float64."""
    signal, tensors = x.astype("float64"), []
    for kernel, bias in weights:
        z = signal @ kernel + bias
        tensors.append({"input": signal, "pre_activation": z, "output": np.tanh(z)})
        signal = tensors[-1]["output"]
    for (kernel, _), layer in zip(weights[::-1], tensors[::-1], strict=True):
        layer["output_gradient"] = cotangent
        layer["pre_activation_gradient"] = cotangent * (1 - layer["output"] ** 2)
        layer["weight_gradient"] = layer["input"].T @ layer["pre_activation_gradient"]
        cotangent = layer["input_gradient"] = layer["pre_activation_gradient"] @ kernel.T
    return tensors


@pytest.mark.parametrize("way", ["labels", "drawn"])
def test_every_tensor_is_that_of_numpy(way):
    model = keras.Sequential([layers.Input((6,)), *(layers.Dense(7, "tanh", name=f"d{i}") for i in range(4))])
    y = rng.standard_normal((32, 7)).astype("float32")
    weights = [[keras.ops.convert_to_numpy(w).astype("float64") for w in layer.weights] for layer in model.layers]
    output = numpy_backpropagation(weights, X, 0.0)[-1]["output"]
    cotangent = 2 * (output - y) / y.size if way == "labels" else np.random.default_rng(11).standard_normal((32, 7))
    report = probe(model, X, y, loss="mse") if way == "labels" else probe(model, X, seed=11)
    assert any("drawn" in note for note in report.notes) == (way == "drawn")
    for i, tensors in enumerate(numpy_backpropagation(weights, X, cotangent)):
        for kind, values in tensors.items():
            of_weight = kind == "weight_gradient"
            moments = report.moments[Tap(kind, f"d{i}", None if of_weight else 0, "kernel" if of_weight else "")]
            # float32 against float64: sums of a few terms, so some units in the last place.
            assert moments.mean == pytest.approx(values.mean(), abs=1e-5 * values.std()), (i, kind)
            assert moments.variance == pytest.approx(values.var(), rel=1e-5), (i, kind)
        ratio = next(row.gradient_ratio for row in report.rows if row.tap == Tap("output_gradient", f"d{i}", 0))
        assert ratio == pytest.approx(tensors["output_gradient"].std() / tensors["input_gradient"].std(), rel=1e-4)
    assert [row.tap.kind for row in report.rows][:6] == [
        *("input", "pre_activation", "output"),
        *("input_gradient", "pre_activation_gradient", "output_gradient"),
    ]


def test_every_layer_is_called_once_on_data_and_last():
    calls, last = collections.Counter(), {}

    class Counted(layers.Dense):
        def call(self, x):
            calls[self.name] += keras.ops.is_tensor(x)
            last[self.name] = x
            return super().call(x)

    model = keras.Sequential([layers.Input((6,)), *(Counted(6, "relu", name=f"d{i}") for i in range(5))])
    calls.clear()
    probe(model, X, X, loss="mse")
    assert calls == {f"d{i}": 1 for i in range(5)}
    assert all(map(keras.ops.is_tensor, last.values()))


def test_shared_layers_have_a_row_for_each_call():
    model, x, y, loss = nested_and_shared()
    report = probe(model, x, y, loss=loss)
    calls = [row.tap.call for row in report.rows if row.tap[:2] == ("output", "outer/inner/dense")]
    calls = calls or [row.tap.call for row in report.rows if row.tap[:2] == ("output", "inner/dense")]
    assert calls == [0, 1]
    assert not any(row.tap.layer in ("model", "inner", "outer") for row in report.rows)  # what their layers put out


def test_composite_layers_have_a_row_for_what_is_theirs():
    class Halved(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = layers.Dense(4, name="hidden")

        def call(self, x):
            y = self.hidden(x)
            return y, y * 0.5

    report = probe(Halved(), X)
    own = [row for row in report.rows if row.tap.layer == "model"]
    assert [(row.tap.kind, row.tap.name) for row in own] == [("output", "1"), ("output_gradient", "1")]
    of_part = report.moments[Tap("output", "hidden", 0)]
    assert own[0].moments.variance == pytest.approx(of_part.variance / 4, rel=1e-6)
    hidden = next(row for row in report.rows if row.tap == Tap("output", "hidden", 0))
    assert hidden.predicted is not None  # what is subclassed is traced too


def test_a_call_that_needs_numbers_is_measured_and_not_predicted():
    class Branching(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = layers.Dense(4, name="hidden")

        def call(self, x):
            y = self.hidden(x)
            return y if float(keras.ops.convert_to_numpy(keras.ops.stop_gradient(x)).sum()) > -1e9 else -y

    report = probe(Branching(), X, gradients=False)
    assert Tap("output", "hidden", 0) in report.moments
    assert report.notes == (report.notes[0],)
    assert report.notes[0].startswith("Nothing is predicted: the model's call does not run on symbolic tensors (")


def test_recurrent_layers_are_seen_from_outside():
    model, x, y, loss = masked_recurrent()
    report = probe(model, x, y, loss=loss)
    inside = [path for path in report.layers if "lstm" in path]
    assert inside == ["bidirectional/forward_lstm", "bidirectional/backward_lstm"] or all(
        "cell" not in p for p in inside
    )
    assert {row.tap.kind for row in report.rows if row.tap.layer == inside[0]} == {
        *("input", "output", "input_gradient", "output_gradient", "weight", "weight_gradient")
    }
    assert [row.shape for row in report.rows if row.tap.kind == "output" and "bidirectional" in row.tap.layer][-1] == (
        8,
        7,
        8,
    )


def test_not_a_number_is_found_where_it_first_appears():
    x = X.copy()
    x[3, 2] = np.nan
    assert "the data, input, example 3" in probe(mlp(), x).notes[1]
    model = mlp(layers.Lambda(lambda x: ops.log(x - 1e3), name="log"))
    report = probe(model, X)
    assert any("first appears in the output of log: 256 of 256" in note for note in report.notes)
    row = next(row for row in report.rows if row.tap == Tap("output", "log", 0))
    assert (row.moments.nonfinite, row.effective_rank, row.histogram) == (256, None, None)
    model.get_layer("a").bias.assign([np.inf] * 8)
    assert any("first appears in the weight bias of a: 8 of 8" in note for note in probe(model, X).notes)


def forward_rows(report):
    return [row for row in report.rows if "gradient" not in row.tap.kind]


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.filterwarnings("ignore")
def test_a_forward_probe_is_the_forward_part_of_a_probe(name):
    """The same rows, predictions and notes but for what gradients add; nothing of the model changes."""
    keras.utils.set_random_seed(3)
    model, x, _, loss = MODELS[name]()
    model.compile("sgd", loss)
    whole = probe(model, x)
    before = [keras.ops.convert_to_numpy(v.value) for v in model.variables]
    forward = probe(model, x, gradients=False)
    for one, other in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(one, keras.ops.convert_to_numpy(other.value))
    expected = forward_rows(whole)
    assert [row.tap for row in forward.rows] == [row.tap for row in expected]
    assert {row.tap.kind for row in forward.rows} >= {"input", "pre_activation", "output", "weight"}
    for row, other in zip(forward.rows, expected, strict=True):
        assert (row.layer_type, row.shape) == (other.layer_type, other.shape)
        assert row.moments.to_dict() == pytest.approx(other.moments.to_dict(), rel=1e-5, abs=1e-6, nan_ok=True)
        assert (row.predicted is None) == (other.predicted is None)
        if row.predicted is not None:
            assert row.predicted == pytest.approx(other.predicted, rel=1e-5, abs=1e-6)
    backward = ("drawn from N(0, 1)", ": backward: ")
    assert list(forward.notes) == [note for note in whole.notes if not any(each in note for each in backward)]
    assert (forward.step, forward.model) == (whole.step, whole.model)


def test_a_forward_probe_draws_inputs_and_finds_what_is_not_finite():
    model = mlp(layers.Lambda(lambda x: ops.log(x - 1e3), name="log"))
    notes = probe(model, gradients=False).notes
    assert notes[0].startswith("Inputs were drawn")
    assert any("first appears in the output of log: 256 of 256" in note for note in notes)


@pytest.mark.parametrize("given", [{"y": Y}, {"loss": "mse"}, {"sample_weight": np.ones(32)}, {"y": Y, "loss": "mse"}])
def test_a_forward_probe_takes_no_loss(given):
    with pytest.raises(ValueError, match=f"gradients: got False with {', '.join(given)}, expected x alone"):
        probe(mlp(), X, gradients=False, **given)


def test_a_classifier_costs_no_warning(recwarn):
    probe(keras.Sequential([keras.Input((6,)), layers.Dense(4, "relu"), layers.Dense(3, "softmax")]), X)
    assert not [str(each.message) for each in recwarn if "softmax" in str(each.message)]
