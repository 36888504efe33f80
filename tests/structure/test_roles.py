"""What a layer does as a whole is told by the calls inside it."""

import keras
import pytest
from keras import layers, ops

from keras_initkit.structure._patterns import gathered_calls
from keras_initkit.structure._roles import layer_roles, nonlinear_layers


class Rms(layers.Layer):
    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), name="gain", initializer="ones")

    def call(self, x):
        x = ops.cast(x, "float32")
        return ops.cast(x * ops.rsqrt(ops.mean(ops.square(x), -1, keepdims=True) + 1e-6) * (1 + self.gain), "float32")


class Swish(layers.Layer):
    def call(self, x):
        return x * ops.sigmoid(x)


class Attention(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.query = layers.Dense(8, name="query")

    def call(self, x):
        return ops.softmax(self.query(x) @ ops.transpose(x, (0, 2, 1))) @ x


class TokenAndPosition(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.token = layers.Embedding(10, 8, name="token")

    def build(self, shape):
        self.position = self.add_weight(shape=(shape[-1], 8), name="position")
        self.token.build()

    def call(self, x):
        return self.token(x) + self.position


class Subclass(layers.Embedding):
    pass


class Projected(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.token, self.project = layers.Embedding(10, 4, name="token"), layers.Dense(8, "relu", name="project")

    def call(self, x):
        return ops.reshape(self.project(self.token(x)), (-1, 4, 8))


@pytest.fixture(scope="module")
def found():
    tokens = keras.Input((4,), dtype="int32")
    inside = keras.Sequential(
        [keras.Input((4, 8)), layers.Dense(8, name="dense"), layers.ReLU(name="relu")], name="part"
    )
    x = (
        TokenAndPosition(name="both")(tokens)
        + Subclass(10, 8, name="table")(tokens)
        + Projected(name="projected")(tokens)
    )
    x = Attention(name="attention")(Rms(name="rms")(x))
    x = layers.MultiHeadAttention(2, 4, name="keras")(x, x)
    return gathered_calls(keras.Model(tokens, inside(Swish(name="swish")(layers.LayerNormalization(name="layer")(x)))))


def test_roles(found):
    roles = layer_roles(found)
    assert {path: role for path, role in roles.items() if "/" not in path} == {
        "both": "embedding",
        "table": "embedding",
        "rms": "normalization",
        "attention": "attention",
        "keras": "attention",
        "layer": "normalization",
        "swish": "activation",
    }
    assert roles["both/token"] == roles["projected/token"] == "embedding"
    assert roles["part/relu"] == "activation"
    assert "attention/query" not in roles


def test_layers_that_end_in_an_activation(found):
    bent = {path for path in nonlinear_layers(found) if not path.startswith("keras/")}
    assert bent >= {"projected", "projected/project", "swish", "part", "part/relu", "model"}
    assert not bent & {"both", "rms", "attention", "attention/query", "part/dense", "table", "layer", "keras"}
