"""The ways in which people train: models of every kind, on every backend, with the options of `compile` and `fit`.

A configuration is a function without arguments that returns a compiled model and what is done with it, in order:
arguments of `fit`, or a function of the model. Each stands in `CONFIGURATIONS` under its name.
"""

import keras
import numpy as np
from helpers import CROSS_ENTROPY, Subclassed, TiedEmbedding, cross_entropy, mlp
from keras import layers, ops

BACKEND = keras.backend.backend()

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((24, 6)).astype("float32"), rng.integers(0, 3, 24)
IMAGES, SEQUENCES = rng.standard_normal((24, 6, 6, 3)).astype("float32"), rng.standard_normal((24, 4, 3)).astype("f")
TOKENS = rng.integers(1, 12, (24, 5))
SEQUENCES[:, 3:] = TOKENS[:, 3:] = 0

CONFIGURATIONS = {}
# Compiling is slow there, and the program that trains is the plain one in all of them.
NOT_JAX = ("tensorflow", "torch")


def configuration(build=None, *, on=("tensorflow", "jax", "torch"), name=None):
    """Registers a configuration for the backends on which there is such a thing."""

    def register(build):
        if BACKEND in on:
            CONFIGURATIONS[name or build.__name__] = build
        return build

    return register if build is None else register(build)


def compiled(model, loss=CROSS_ENTROPY, optimizer="adam", **options):
    model.compile(optimizer, loss, **options)
    return model


def data(x=X, y=Y, **options):
    return {"x": x, "y": y, "batch_size": 8, **options}


class Scaled(layers.Layer):
    """A product that ends in an operation with constants, which TensorFlow joins with the next one."""

    def __init__(self, finish):
        super().__init__()
        self.finish = finish

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 6), initializer="glorot_uniform")

    def call(self, x):
        return self.finish(ops.matmul(x, self.w))


class WithLoss(Scaled):
    def call(self, x):
        y = super().call(x)
        self.add_loss(ops.mean(ops.square(y)))
        return y


@configuration
def validation_and_partial_batches():
    return compiled(mlp(), metrics=["accuracy"]), data(X, Y, validation_split=0.2, batch_size=12, epochs=2)  # 12 + 7


@configuration(on=NOT_JAX)
def activation_layers():
    between = (layers.Dense(8, name="b"), layers.Activation("gelu"), layers.Dense(8, use_bias=False), layers.ReLU())
    return compiled(mlp(*between)), data()


@configuration(on=NOT_JAX)
def every_activation():
    x = inputs = keras.Input((4, 3))
    x = layers.Conv1D(4, 2, activation="relu")(x)
    for name in ("gelu", "silu", "elu", "leaky_relu", "softplus", "mish"):
        x = layers.Dense(4, name)(x)
    x = layers.Dense(4, layers.LeakyReLU(0.3))(layers.SeparableConv1D(4, 2, activation="tanh")(x))
    x = layers.EinsumDense("abc,cd->ad", 4, activation="selu")(x)
    x = layers.Dense(4, use_bias=False, activation="relu6")(x)
    return compiled(keras.Model(inputs, layers.Dense(3, "softmax")(x))), data(SEQUENCES, Y)


@configuration
def residual_cnn():
    inputs = keras.Input((6, 6, 3))
    x = residual = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(inputs)))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", use_bias=False)(x))
    x = layers.MaxPooling2D()(layers.ReLU()(layers.Add()([x, residual])))
    x = layers.Flatten()(layers.SeparableConv2D(5, 2, activation="relu")(x))
    return compiled(keras.Model(inputs, layers.Dense(3, "softmax")(x))), data(IMAGES, Y)


@configuration(on=NOT_JAX)
def transformer_with_mask():
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(12, 8, mask_zero=True)(tokens)
    attended = layers.MultiHeadAttention(2, 4, dropout=0.1)(x, x, use_causal_mask=True)
    x = layers.LayerNormalization()(layers.Add()([x, attended]))
    x = layers.GlobalAveragePooling1D()(layers.Dense(8, "gelu")(x))
    return compiled(keras.Model(tokens, layers.Dense(3, "softmax")(x))), data(TOKENS, Y)


@configuration
def masked_recurrent():
    stack = [layers.Input((5,), dtype="int32"), layers.Embedding(12, 5, mask_zero=True)]
    stack += [layers.LSTM(4, return_sequences=True), layers.Dense(3, "softmax")]
    return compiled(keras.Sequential(stack)), data(TOKENS, TOKENS % 3)


@configuration
def recurrent_states_and_unrolled():
    inputs = keras.Input(batch_shape=(8, 4, 3))
    _, state = layers.GRU(5, return_state=True, stateful=BACKEND != "torch")(inputs)
    x = layers.Concatenate()([state, layers.SimpleRNN(3, unroll=True)(layers.Masking()(inputs))])
    return compiled(keras.Model(inputs, layers.Dense(3)(x)), "mse"), data(SEQUENCES, X[:, :3], shuffle=False)


@configuration(on=NOT_JAX)
def bidirectional_and_time_distributed():
    stack = [layers.Input((4, 3)), layers.TimeDistributed(layers.Dense(4, "tanh"))]
    stack += [layers.Bidirectional(layers.SimpleRNN(3)), layers.Dense(3)]
    return compiled(keras.Sequential(stack), "mse"), data(SEQUENCES, X[:, :3])


@configuration
def dict_inputs_and_outputs():
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    x = layers.Dense(8, "relu")(layers.Concatenate()([a, b]))
    model = keras.Model(
        {"a": a, "b": b}, {"p": layers.Dense(3, "softmax", name="p")(x), "q": layers.Dense(1, name="q")(x)}
    )
    compiled(model, {"p": CROSS_ENTROPY, "q": "mse"}, loss_weights={"p": 1.0, "q": 0.3})
    return model, data({"a": X, "b": -X}, {"p": Y, "q": X[:, :1]})


@configuration
def sample_weights():
    return compiled(mlp(), weighted_metrics=["accuracy"]), data(sample_weight=np.linspace(0, 1, 24, dtype="float32"))


@configuration
def nested_and_shared_with_class_weights():
    inner = keras.Sequential([layers.Input((6,)), layers.Dense(6, "relu", name="dense")], name="inner")
    outer = keras.Sequential([layers.Input((6,)), inner, layers.Dense(6, name="dense")], name="outer")
    inputs = keras.Input((6,))
    outputs = layers.Dense(3, "softmax", name="dense")(inner(outer(inputs)))
    return compiled(keras.Model(inputs, outputs)), data(class_weight={0: 1.0, 1: 2.0, 2: 0.5})


@configuration
def tied_embedding():
    return compiled(TiedEmbedding(), cross_entropy()), data(TOKENS, TOKENS)


@configuration
def subclassed():
    return compiled(Subclassed(), "mse"), data(X, X[:, :3])


@configuration(on=NOT_JAX)
def subclassed_eager():
    return compiled(Subclassed(), "mse", run_eagerly=True), data(X, X[:, :3], epochs=2)


@configuration
def loss_of_a_layers_output():
    # Three parts of one gradient: the order of their sum shows in its last bits.
    return compiled(mlp(WithLoss(lambda x: x), layers.ActivityRegularization(l2=0.1))), data(X, Y, epochs=3)


@configuration(on=NOT_JAX)
def one_tensor_in_several_outputs():
    inputs = keras.Input((6,))
    a, b, c = Scaled(lambda x: (x, x, x * 0.3))(inputs)
    x = ops.sin(a) + ops.cos(a) * b + c
    return compiled(keras.Model(inputs, layers.Dense(3, "softmax")(x))), data()


@configuration(on=NOT_JAX)
def constant_factors_in_a_row():
    chain = [Scaled(lambda x: x * 0.1), layers.Rescaling(3.3, 0.7), Scaled(lambda x: 0.7 + x * 0.3)]
    return compiled(mlp(*chain, layers.Rescaling(1 / 0.3, 0.1), Scaled(lambda x: x / 7.0))), data()


@configuration
def frozen_and_normalized():
    model = mlp(layers.BatchNormalization(name="norm"), layers.SpectralNormalization(layers.Dense(4)), layers.Dense(4))
    model.get_layer("a").trainable = model.get_layer("norm").trainable = False
    return compiled(model), data(validation_data=(X[:8], Y[:8]))


@configuration
def nothing_to_train():
    model = mlp()
    model.trainable = False
    return compiled(model), data()


@configuration
def regularized_and_constrained():
    options = {"kernel_regularizer": "l2", "kernel_constraint": "unit_norm", "activity_regularizer": "l1"}
    return compiled(mlp(layers.Dense(8, **options))), data()


@configuration
def random_layers():
    return compiled(mlp(layers.GaussianNoise(0.1), layers.Dropout(0.3, seed=5), layers.AlphaDropout(0.1))), data()


@configuration(on=NOT_JAX)
def normalizations():
    several = (layers.LayerNormalization(), layers.GroupNormalization(2), layers.UnitNormalization(), layers.PReLU())
    return compiled(mlp(*several)), data()


@configuration
def custom_loss_and_metric():
    def loss(y, p):
        return ops.mean(ops.abs(y - p) ** 1.5, axis=-1)

    class Largest(keras.metrics.Metric):
        def __init__(self):
            super().__init__(name="largest")
            self.seen = self.add_weight(initializer="zeros", name="seen")

        def update_state(self, y, p, sample_weight=None):
            self.seen.assign(ops.maximum(self.seen, ops.max(p)))

        def result(self):
            return self.seen.value + 0.0

    return compiled(mlp(out=None), loss, metrics=[Largest(), "mae"]), data(X, X[:, :3])


@configuration
def own_loss_method():
    class Own(keras.Sequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(ops.square(y - y_pred)) + 0.1 * ops.mean(ops.abs(y_pred))

    return compiled(mlp(out=None, kind=Own), None), data(X, X[:, :3])


@configuration
def generator_of_unknown_length():
    random = np.random.default_rng(1)
    batches = [(random.standard_normal((7, 6)).astype("float32"), random.integers(0, 3, 7)) for _ in range(5)]
    return compiled(mlp()), {"x": (batch for batch in batches), "epochs": 1}


@configuration
def py_dataset():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            chosen = slice(10 * index, 10 * index + 10)  # 10, 10, 4
            return X[chosen], Y[chosen]

    return compiled(mlp()), {"x": Batches(), "epochs": 2, "shuffle": False}


@configuration
def not_a_number():
    x = X.copy()
    x[3, 2], x[20, 1] = np.nan, np.inf
    return compiled(mlp()), data(x)


@configuration
def sigmoid():
    return compiled(mlp(out="sigmoid"), "binary_crossentropy"), data(y=np.eye(3, dtype="float32")[Y])


@configuration
def fit_twice_and_compiled_anew():
    def anew(model):
        model.get_layer("a").trainable = False
        model.compile("rmsprop", CROSS_ENTROPY)

    return compiled(mlp()), data(), data(epochs=3, initial_epoch=1), anew, data()


def with_policy(name):
    keras.config.set_dtype_policy(name)


@configuration
def mixed_float16():
    with_policy("mixed_float16")
    return compiled(mlp(layers.BatchNormalization(), layers.Dense(8))), data()


@configuration
def mixed_bfloat16():
    with_policy("mixed_bfloat16")
    return compiled(mlp(layers.BatchNormalization(), layers.Dense(8))), data()


def _with_adam(**options):
    return lambda: (compiled(mlp(), optimizer=keras.optimizers.Adam(0.01, **options)), data())


configuration(_with_adam(global_clipnorm=0.1), name="global_clipnorm")
configuration(_with_adam(use_ema=True, ema_overwrite_frequency=2, weight_decay=0.01), name="moving_average_and_decay")
configuration(_with_adam(gradient_accumulation_steps=2), name="accumulation")
configuration(_with_adam(loss_scale_factor=128.0), name="loss_scale")
configuration(lambda: (compiled(mlp(layers.Dropout(0.2)), run_eagerly=True), data()), name="eager")


def _jit(jit_compile):
    return lambda: (compiled(mlp(layers.Dropout(0.2)), jit_compile=jit_compile), data())


configuration(_jit(True), on=("tensorflow", "jax"), name="jit")
configuration(_jit(False), on=("jax",), name="no_jit")


@configuration(on=("tensorflow", "jax"))
def steps_per_execution():
    # 32 examples: in Keras 3.3 a chunk of steps that is not whole fails, with or without the callback.
    return compiled(mlp(layers.Dropout(0.2)), steps_per_execution=2), data(np.tile(X, (2, 1))[:32], np.tile(Y, 2)[:32])
