"""Only what is looked up in a table is bound to its rows: what the trace shows, element by element."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initkit.capture._probe import probe
from keras_initkit.inputs._specs import draw_inputs, input_specs, prepared


class TokenAndPosition(layers.Layer):
    def __init__(self):
        super().__init__()
        self.token, self.position = layers.Embedding(500, 8), layers.Embedding(10, 8)

    def call(self, x):
        return self.token(x) + self.position(ops.arange(10))


class OwnTable(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape=(30, 4), name="table")

    def call(self, x):
        return ops.take(self.table, ops.cast(x[:, 1:], "int32"), axis=0)


class Columns(layers.Layer):
    """Categories of three columns, each with a table, beside a number."""

    def __init__(self):
        super().__init__()
        self.tables = [layers.Embedding(rows, 4) for rows in (3, 50, 7)]

    def call(self, x):
        parts = [table(x[:, place]) for place, table in enumerate(self.tables)]
        return ops.concatenate([*parts, x[:, 3:]], axis=-1)


class Patches(layers.Layer):
    def __init__(self):
        super().__init__()
        self.patch, self.position = layers.Conv2D(8, 4, 4), layers.Embedding(4, 8)

    def call(self, x):
        return ops.reshape(self.patch(x), (-1, 4, 8)) + self.position(ops.arange(4))


class Unopened(layers.Layer):
    """Reads a number while it runs, so that no trace shows what it looks up."""

    def __init__(self):
        super().__init__()
        self.table = layers.Embedding(9, 4)

    def build(self, shape):
        self.table.build(shape)

    def call(self, x):
        return self.table(x) * float(ops.convert_to_numpy(ops.sum(ops.ones((2,)))) if ops.is_tensor(x) else x)

    def compute_output_spec(self, x):
        return keras.KerasTensor((*x.shape, 4))


def made(layer, shape, dtype="int32"):
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layer(inputs))))


def rows(model, x=None):
    return [None if spec.rows is None else spec.rows.tolist() for spec in input_specs(model, x)]


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (TokenAndPosition, (10,), [500]),
        (OwnTable, (3,), [0, 30, 30]),
        (Columns, (5,), [3, 50, 7, 0, 0]),
        (Patches, (8, 8, 3), None),
        (lambda: layers.TimeDistributed(layers.Embedding(6, 4)), (3, 2), [[6]]),
        (lambda: layers.Rescaling(0.5), (3,), None),
        (Unopened, (3,), None),
    ],
)
def test_rows_of_each_element(layer, shape, expected):
    dtype = "float32" if layer in (Patches, Columns) else "int32"
    assert rows(made(layer(), shape, dtype)) == [expected]


@pytest.mark.skipif(not hasattr(layers, "ReversibleEmbedding"), reason="this Keras has none")
def test_a_reversible_embedding_is_looked_up():
    assert rows(made(layers.ReversibleEmbedding(7, 4), (5,))) == [[7]]


def test_inputs_are_drawn_as_they_are_read():
    x = draw_inputs(made(Columns(), (5,), "float32"), 512)
    assert x.dtype == "float32"
    assert [set(np.unique(x[:, place])) <= set(range(size)) for place, size in enumerate((3, 50, 7))] == [True] * 3
    assert x[:, 1].max() > 30
    assert np.mean(x[:, 3:] == np.round(x[:, 3:])) < 0.01
    assert abs(x[:, 3:].std() - 1) < 0.12  # five standard errors of 1024 numbers
    images = draw_inputs(made(Patches(), (8, 8, 3), "float32"))
    assert (images != np.round(images)).any()
    assert set(np.unique(draw_inputs(made(Unopened(), (3,)), 256))) == set(range(9))


def test_data_are_bound_where_they_are_looked_up_and_nowhere_else():
    model = made(Columns(), (5,), "float32")
    good = np.array([[2, 49, 6, 1e4, -0.5], [0, 0, 0, np.nan, 7]], "float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(prepared(model, good)), good)
    for column, value, message in (
        (0, 3, "got numbers from 2 to 3, expected integers from 0 to 2"),
        (1, -1, "got numbers from -1 to 49, expected integers from 0 to 49"),
        (2, 0.5, r"got 0.5 \(dtype float32\), expected integers from 0 to 6"),
    ):
        bad = good.copy()
        bad[1, column] = value
        with pytest.raises(ValueError, match=message):
            prepared(model, bad)
    tokens = made(TokenAndPosition(), (10,))
    assert prepared(tokens, np.full((2, 10), 499)).shape == (2, 10)
    with pytest.raises(ValueError, match="expected integers from 0 to 499, an embedding's rows"):
        prepared(tokens, np.full((2, 10), 500))
    assert prepared(made(Unopened(), (3,)), np.full((2, 3), 9)).shape == (2, 3)  # it says what it takes when it runs


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.embedded, self.head = TokenAndPosition(), layers.Dense(2)

    def call(self, inputs):
        return self.head(self.embedded(inputs["tokens"])) + ops.mean(inputs["number"])


def test_a_subclassed_model_says_what_its_trace_shows():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.embedded, self.head = TokenAndPosition(), layers.Dense(2)

        def call(self, x):
            return self.head(self.embedded(x))

    model = Own()
    model(np.zeros((4, 10), "int32"))
    x = draw_inputs(model, 64)
    assert x.shape == (64, 10)
    assert set(np.unique(x)) <= set(range(500))
    assert x.max() > 400
    assert any("(32, 10)" in note for note in probe(model).notes)
    with pytest.raises(ValueError, match=r"x\[0\]: got numbers from 500 to 500, expected integers from 0 to 499"):
        probe(model, np.full((2, 10), 500))
    several = Subclassed()
    data = {"tokens": np.full((4, 10), 499), "number": np.ones((4, 3), "float32")}
    several(data)
    assert rows(several, {name: ops.convert_to_tensor(each) for name, each in data.items()}) == [None, [500]]
    assert probe(several, data).rows
    with pytest.raises(ValueError, match=r"x\[1\]: got numbers from 500 to 500"):
        probe(several, {**data, "tokens": data["tokens"] + 1})


def test_sizes_of_the_data_are_traced():
    inputs = keras.Input((None,), dtype="int32")
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(layers.Embedding(6, 4)(inputs))))
    assert prepared(model, np.zeros((3, 5))).shape == (3, 5)
    assert rows(model, np.zeros((3, 5))) == [[6]]
