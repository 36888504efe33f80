"""What a probe draws where it is given nothing, and what it says of data that does not fit."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_initkit.capture._probe import probe
from keras_initkit.inputs._specs import draw_inputs, input_specs

X, Y = np.random.default_rng(0).standard_normal((8, 6)).astype("float32"), np.arange(8) % 3


def mlp(**options):
    model = keras.Sequential([layers.Input((6,)), layers.Dense(4, "relu"), layers.Dense(3, "softmax")])
    if options:
        model.compile(**options)
    return model


def two_inputs():
    a, b = keras.Input((6,), name="a"), keras.Input((2,), name="b")
    return keras.Model([a, b], layers.Dense(3)(layers.Concatenate()([a, b])))


def tokens(dtype="int32", inner=None):
    inputs = keras.Input((None,), dtype=dtype, name="tokens")
    x = layers.Embedding(7, 4)(inputs) if inner is None else inner(inputs)
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))


def nested_tokens():
    inner = keras.Sequential([keras.Input((5,), dtype="int32"), layers.Embedding(3, 4)])
    return tokens(inner=inner)


def test_floats_are_gaussian_in_the_shape_that_the_model_takes():
    x = draw_inputs(mlp(), batch_size=4096)
    assert x.shape == (4096, 6)
    # Standard errors of mean and variance of 24576 numbers: 0.0064 and 0.0090; five of each.
    assert abs(x.mean()) < 0.032
    assert abs(x.var() - 1) < 0.045
    np.testing.assert_array_equal(draw_inputs(mlp(), seed=3), draw_inputs(mlp(), seed=3))
    assert [each.shape for each in draw_inputs(two_inputs(), 4)] == [(4, 6), (4, 2)]
    a, b = keras.Input((6,), name="first"), keras.Input(batch_shape=(5, None, 2), name="second")
    model = keras.Model({"z": a, "b": b}, [layers.Dense(1)(a), layers.Dense(1)(b)])
    assert {key: value.shape for key, value in draw_inputs(model, 5).items()} == {"z": (5, 6), "b": (5, 16, 2)}
    flags = keras.Model((flag := keras.Input((3,), dtype="int32")), layers.Dense(2)(layers.Rescaling(1.0)(flag)))
    assert set(np.unique(draw_inputs(flags))) == {0, 1}


@pytest.mark.parametrize(("make", "rows", "length"), [(tokens, 7, 16), (nested_tokens, 3, 5)])
def test_integers_stay_below_the_rows_of_the_embedding_that_reads_them(make, rows, length):
    x = draw_inputs(make(), batch_size=256)
    assert x.shape == (256, length)
    assert set(np.unique(x)) == set(range(rows))
    assert input_specs(make())[0].rows.tolist() == [rows]
    assert any(f"int32 (32, {length})" in note for note in probe(make()).notes)


def test_floats_that_an_embedding_reads_are_whole():
    x = draw_inputs(tokens("float32"))
    assert x.dtype == "float32"
    np.testing.assert_array_equal(x, np.round(x))


def test_data_in_every_form():
    model = mlp()
    expected = probe(model, X, training=False).rows
    as_list = keras.tree.map_structure(float, X.tolist())
    for x in (X.astype("float64"), keras.ops.convert_to_tensor(X), as_list, [X]):
        assert [row.moments.mean for row in probe(model, x, training=False).rows] == pytest.approx(
            [row.moments.mean for row in expected], rel=1e-6, abs=1e-9
        )
    by_order = probe(two_inputs(), [X, X[:, :2]])
    assert [row.tap.name for row in by_order.rows if row.tap.kind == "input"][:2] == ["0", "1"]
    assert probe(two_inputs(), {"a": X, "b": X[:, :2]}).rows
    assert probe(two_inputs(), (X, X[:, :2])).rows


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


CE, MSE = "sparse_categorical_crossentropy", "mse"
WRONG = {
    "number": (two_inputs, {"x": [X]}, r"x: got 1 arrays, expected 2, one for each of the inputs \['a', 'b'\]"),
    "names": (two_inputs, {"x": {"a": X, "c": X}}, r"x: got inputs named \['a', 'c'\], expected \['a', 'b'\]"),
    "shape": (mlp, {"x": X[:, :5]}, r"got shape \(8, 5\), expected \(None, 6\)"),
    "rank": (mlp, {"x": X[0]}, r"got shape \(6,\), expected \(None, 6\)"),
    "strings": (mlp, {"x": np.full((8, 6), "a")}, "got dtype <U1, expected float32. Turn strings into numbers"),
    "not_whole": (tokens, {"x": X}, r"x\['tokens'\]: got .* \(dtype float32\), expected integers from 0 to 6"),
    "rows": (tokens, {"x": np.full((8, 5), 7)}, "got numbers from 7 to 7, expected integers from 0 to 6"),
    "empty": (mlp, {"x": X[:0]}, "x: got no examples, expected at least one"),
    "lengths": (two_inputs, {"x": [X, X[:5, :2]]}, r"x: got inputs of \[5, 8\] examples"),
    "y_length": (mlp, {"x": X, "y": Y[:5], "loss": CE}, "y: got 5 examples, expected 8, as in x"),
    "weight_length": (mlp, {"x": X, "y": Y, "loss": CE, "sample_weight": Y[:5]}, "sample_weight: got 5 examples"),
    "classes": (mlp, {"x": X, "y": Y + 1, "loss": CE}, "y: got numbers from 1 to 3, expected classes 0 to 2"),
    "one_hot": (mlp, {"x": X, "y": np.eye(3)[Y], "loss": CE}, "Use categorical_crossentropy for one-hot labels"),
    "integers": (
        mlp,
        {"x": X, "y": Y, "loss": "categorical_crossentropy"},
        r"y: got shape \(8,\), expected the output's \(None, 3\).*sparse_categorical_crossentropy",
    ),
    "y_shape": (mlp, {"x": X, "y": X, "loss": keras.losses.MeanSquaredError()}, r"y: got shape \(8, 6\), expected"),
    "y_strings": (mlp, {"x": X, "y": Y.astype(str), "loss": CE}, "y: got dtype <U21, expected numbers"),
    "y_number": (two_inputs, {"x": [X, X[:, :2]], "y": [X, X], "loss": MSE}, "y: got 2 arrays, expected 1"),
    "no_loss": (mlp, {"x": X, "y": Y}, "loss: got None with labels, and the model .* is not compiled with one"),
    "no_labels": (mlp, {"x": X, "loss": MSE}, "y: got None with loss='mse', expected labels"),
    "unknown_loss": (mlp, {"x": X, "y": Y, "loss": "mean_sqared"}, "loss: got 'mean_sqared', expected the name"),
    "no_loss_at_all": (
        mlp,
        {"x": X, "y": Y, "loss": 3},
        "loss: got 3, expected the name of a Keras loss or a callable",
    ),
    "no_data": (Own, {}, "x: got None for the model 'own.*', which is not built; expected a batch of data"),
    "own_labels": (Own, {"x": X, "y": X, "loss": MSE}, r"y: got shape \(8, 6\), expected the output's \(8, 3\)"),
    "no_weights": (lambda: keras.Sequential([layers.Input((6,)), layers.ReLU()]), {"x": X}, "has no weights"),
    "batch_size": (mlp, {"batch_size": 0}, "batch_size: got 0, expected a positive integer"),
    "seed_float": (mlp, {"seed": 1.5}, "seed: got 1.5, expected an integer of at least 0"),
    "seed_negative": (mlp, {"seed": -1}, "seed: got -1, expected an integer of at least 0"),
    "array_for_model": (
        lambda: np.zeros((50, 50)),
        {"x": X},
        r"model: got array.{1,40}, expected a keras.Model",
    ),
    "no_model": (lambda: layers.Dense(3), {"x": X}, "model: got <Dense.*, expected a keras.Model"),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_error_says_what_was_received_and_what_was_expected(case):
    make, arguments, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        probe(make(), **arguments)


def test_compiled_labels_are_checked_too():
    with pytest.raises(ValueError, match="expected classes 0 to 2"):
        probe(mlp(loss=CE), X, Y + 1)
    assert probe(mlp(loss=CE), X, Y).rows
    assert probe(mlp(loss=CE), X, Y[:, None]).rows
    assert probe(mlp(loss=lambda y, p: keras.ops.mean((p - keras.ops.mean(y)) ** 2, -1)), X, X).rows
