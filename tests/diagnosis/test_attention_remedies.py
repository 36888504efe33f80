"""Remedies of attention: the printed line, in place of the faulty one, makes the program its sound twin."""

import re

import keras
import numpy as np
import pytest
from remedies import codes, executes, find, run_remedy

from keras_initkit import diagnose

pytestmark = pytest.mark.one_backend
WORDS, LENGTH, UNITS = 12, 8, 16
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
TEXT = np.random.default_rng(0).integers(1, WORDS, (16, LENGTH + 1)).astype("int32")
PADDED = np.where(np.arange(LENGTH) < 5, TEXT[:, :LENGTH], 0)
NEXT, CLASSES = (TEXT[:, :-1], TEXT[:, 1:]), (PADDED, TEXT[:, 0] % 3)

# Programs, whose lines a fault or a remedy takes the place of.
BY_KERAS = {
    "embed": "x = Embedding(WORDS, UNITS, UNIT)(tokens)",
    "positions": "x = Table()(x)",
    "layer": "attention = MultiHeadAttention(2, UNITS // 2, name='attention')",
    "mask": "",
    "attend": "y = attention(x, x)",
    "sum": "x = x + y",
}
OWN = {
    "embed": "x = Embedding(WORDS, UNITS, UNIT)(tokens)",
    "positions": "x = Table()(x)",
    "parts": "query, key, value = (Dense(UNITS, name=name)(x) for name in ('query', 'key', 'value'))",
    "scores": "scores = keras.ops.matmul(query, keras.ops.transpose(key, (0, 2, 1)))",
    "scale": f"scores = scores * {UNITS**-0.5}",
    "mask": "",
    "softmax": "weights = Softmax()(scores)",
    "sum": "x = x + keras.ops.matmul(weights, value)",
}
DEEPER = {
    **BY_KERAS,
    "wide": "y = Dense(2 * UNITS, 'relu', name='wide')(x)",
    "narrow": "x = x + Dense(UNITS, name='narrow')(y)",
}


class Table(keras.layers.Layer):
    """Adds a table of positions."""

    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.05))
        self.supports_masking = True

    def call(self, x):
        return x + self.table


class Unmasked(keras.layers.Layer):
    """Drops the mask, without a warning."""

    def call(self, x):
        return x + 0.0

    def compute_mask(self, inputs, previous_mask):
        return None


def build(program, predicts_next=False, **lines):
    """Returns the model of a program, some of whose lines are others."""
    keras.utils.set_random_seed(0)
    pool = "" if predicts_next else "x = GlobalAveragePooling1D()(x)"
    head = f"model = keras.Model(tokens, Dense({WORDS if predicts_next else 3})(x))"
    names = {**vars(keras.layers), "keras": keras, "np": np, "Table": Table, "Unmasked": Unmasked}
    names |= {"WORDS": WORDS, "UNITS": UNITS}
    names |= {name: keras.initializers.RandomNormal(stddev=size) for name, size in (("UNIT", 1.0), ("EIGHT", 8.0))}
    names["tokens"] = keras.Input((LENGTH,), dtype="int32", name="tokens")
    exec("\n".join([*{**program, **lines}.values(), pool, head]), names)
    return names["model"]


def by_shape(model):
    """A model's weights, all of which train; a table of positions may be built before that of the tokens or after."""
    assert len(model.trainable_weights) == len(model.weights)
    return sorted(model.weights, key=lambda weight: tuple(weight.shape))


LOWER = f"np.tril(np.ones((1, {LENGTH}, {LENGTH}), bool))"
CAUSAL = f"y = attention(x, x, attention_mask={LOWER})"
MASKED = {"embed": "x = Unmasked()(Embedding(WORDS, UNITS, UNIT, mask_zero=True)(tokens))"}
KEPT = "keras.ops.cast(tokens, 'bool')"
GIVEN = "y = attention(x, x, attention_mask=mask[:, None, :])"
SCALED, LARGE = OWN["scale"], {"embed": BY_KERAS["embed"].replace("UNIT)", "EIGHT)")}
# Kind, program, the line at fault, as it is and as it should be, lines that both have, and the data.
CASES = {
    "later keys": ("future_attended", BY_KERAS, "attend", BY_KERAS["attend"], CAUSAL, {}, NEXT),
    "a reversed mask": ("future_attended", BY_KERAS, "attend", CAUSAL.replace("np", "~np", 1), CAUSAL, {}, NEXT),
    "later keys, own": ("future_attended", OWN, "mask", "", f"scores = scores - 1e9 * ~{LOWER}", {}, NEXT),
    "padding": (
        "padding_attended",
        BY_KERAS,
        "attend",
        BY_KERAS["attend"],
        f"y = attention(x, x, attention_mask={KEPT}[:, None, :])",
        MASKED,
        CLASSES,
    ),
    "padding alone": (
        "padding_attended",
        BY_KERAS,
        "mask",
        "mask = keras.ops.equal(tokens, 0)",
        f"mask = {KEPT}",
        {**MASKED, "attend": GIVEN},
        CLASSES,
    ),
    "padding, own": (
        "padding_attended",
        OWN,
        "mask",
        "",
        "scores = scores - 1e9 * keras.ops.cast(keras.ops.equal(tokens, 0), 'float32')[:, None, :]",
        MASKED,
        CLASSES,
    ),
    "another axis": ("uneven_attention", OWN, "softmax", "weights = Softmax(1)(scores)", OWN["softmax"], {}, CLASSES),
    "a sum left out": ("residual_lost", DEEPER, "sum", "x = y", "x = x + y", {}, CLASSES),
    "no positions": ("positions_lost", BY_KERAS, "positions", "", BY_KERAS["positions"], {}, CLASSES),
    "large scores": ("collapsed_attention", OWN, "scale", "scores = 4 * scores", SCALED, {}, CLASSES),
    "large inputs": ("collapsed_attention", BY_KERAS, "mask", "", "x = LayerNormalization()(x)", LARGE, CLASSES),
    "small scores": ("uniform_attention", OWN, "scale", "scores = 1e-6 * scores", SCALED, {}, CLASSES),
}


@executes(*(kind for kind, *_ in CASES.values()))
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_line_of_a_remedy_makes_the_program_its_sound_twin(name):
    """With the same weights the two compute the same, and the same weights train: so does the same training."""
    kind, program, place, faulty, sound, both, data = CASES[name]
    broken, twin = (build(program, data is NEXT, **{**both, place: line}) for line in (faulty, sound))
    if kind == "uniform_attention":
        broken.compile("adam", LOSS)
        broken.optimizer.iterations.assign(100)  # small scores do not grow for that long
    found = find(kind, diagnose(broken, *data, loss=LOSS))
    mended = build(program, data is NEXT, **{**both, place: codes(found)[0]})
    assert [each.shape for each in by_shape(mended)] == [each.shape for each in by_shape(twin)]
    for each, own in zip(by_shape(mended), by_shape(twin), strict=True):
        each.assign(own)
    if len(broken.weights) == len(twin.weights):
        broken.set_weights(twin.get_weights())
    outputs = [keras.ops.convert_to_numpy(model(data[0], training=False)) for model in (broken, mended, twin)]
    np.testing.assert_allclose(outputs[1], outputs[2], rtol=1e-4, atol=1e-4)
    assert np.abs(outputs[0] - outputs[2]).max() > 1e-2


def drawn(**changes):
    """The program whose kernels of queries and keys some change was made to."""
    model = build(BY_KERAS)
    layer = model.get_layer("attention")
    for part in (layer.query_dense, layer.key_dense):
        part.kernel.assign(changes.get("scale", 1.0) * part.kernel)
        part.trainable = changes.get("trainable", True)
    return model


@executes("collapsed_attention", "uniform_attention", "query_key_frozen")
@pytest.mark.parametrize(
    ("kind", "scale"), [("collapsed_attention", 8.0), ("uniform_attention", 1e-3), ("query_key_frozen", 0.0)]
)
def test_kernels_of_queries_and_keys_are_drawn_as_those_of_the_sound_twin(kind, scale):
    broken, twin = drawn(scale=scale), build(BY_KERAS)
    if kind == "uniform_attention":
        broken.compile("sgd", LOSS)
        broken.optimizer.iterations.assign(100)
    run_remedy(find(kind, diagnose(broken, *CLASSES, loss=LOSS)), model=broken)
    layer = broken.get_layer("attention")
    for part in (layer.query_dense, layer.key_dense):
        kernel = keras.ops.convert_to_numpy(part.kernel)
        error = np.sqrt((1.8 - 1) / (4 * kernel.size))  # of a uniform distribution's standard deviation
        assert kernel.std() == pytest.approx(np.sqrt(2 / (UNITS + UNITS)), rel=5 * error)
    others = [
        [keras.ops.convert_to_numpy(each) for each in model.weights if not re.search("query|key", each.path)]
        for model in (broken, twin)
    ]
    assert all(np.array_equal(one, other) for one, other in zip(*others, strict=True))


@executes("query_key_frozen")
def test_queries_and_keys_train_again():
    broken, twin = drawn(trainable=False), build(BY_KERAS)
    broken.compile("sgd", LOSS)
    run_remedy(find("query_key_frozen", diagnose(broken, *CLASSES)), model=broken)
    assert len(broken.trainable_weights) == len(twin.trainable_weights) == len(twin.weights)
    for one, other in zip(broken.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(keras.__version__.startswith("3.3."), reason="Keras 3.3 loses the mask of a sum")
@executes("positions_lost")
def test_a_table_of_positions_hands_the_mask_on():
    masked = {"embed": "x = Embedding(WORDS, UNITS, UNIT, mask_zero=True)(tokens)"}
    found = find("positions_lost", diagnose(build(BY_KERAS, positions="", **masked), *CLASSES, loss=LOSS))
    mended = build(BY_KERAS, positions=codes(found)[0], **masked)
    kinds = {each.kind for each in diagnose(mended, *CLASSES, loss=LOSS)}
    assert kinds.isdisjoint({"positions_lost", "padding_attended"})
