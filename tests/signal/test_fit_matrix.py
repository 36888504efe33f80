"""Training with LayerStatsCallback is training without it, to the last bit, in the ways that people use `fit`."""

import copy
import pickle

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.signal import Moments, Tap

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="steps are measured on TensorFlow")
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((40, 6)).astype("float32"), rng.integers(0, 3, 40)
IMAGES, SEQUENCES = rng.standard_normal((20, 8, 8, 3)).astype("float32"), rng.standard_normal((24, 7, 4)).astype("f")
TOKENS = rng.integers(1, 12, (24, 7))
SEQUENCES[:, 5:] = TOKENS[:, 5:] = 0
CROSS_ENTROPY = "sparse_categorical_crossentropy"
OLD = not hasattr(layers, "RMSNormalization")  # came with Keras 3.9

CONFIGURATIONS = {}


def configuration(build):
    CONFIGURATIONS[build.__name__] = build
    return build


def compiled(model, loss=CROSS_ENTROPY, optimizer="adam", **options):
    model.compile(optimizer, loss, **options)
    return model


def mlp(*inner, out="softmax", kind=keras.Sequential):
    return kind([layers.Input((6,)), layers.Dense(8, "relu", name="a"), *inner, layers.Dense(3, out, name="z")])


def data(x=X[:32], y=Y[:32], **options):
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


class Subclassed(keras.Model):
    """Layers in lists and dicts, one called twice, one whose output goes nowhere, one never called."""

    def __init__(self):
        super().__init__()
        self.several = [layers.Dense(6, "relu", name=f"several_{i}") for i in range(2)]
        self.named = {"shared": layers.Dense(6, "tanh", name="shared"), "last": [layers.Dense(3, name="last")]}
        self.aside, self.never = layers.Dense(2, name="aside"), layers.Dense(2, name="never")
        self.attention = layers.MultiHeadAttention(2, 3, name="attention")

    def call(self, x, training=None):
        for layer in self.several:
            x = layer(x)
        self.aside(x)
        x = self.named["shared"](self.named["shared"](x))
        x = ops.expand_dims(x, 1)
        return self.named["last"][0](ops.squeeze(self.attention(x, x), 1))


class OwnStep(keras.Sequential):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}


class Adversarial(keras.Model):
    """Two optimizers, of which `compile` knows none; a gradient penalty, so one tape within another."""

    def __init__(self):
        super().__init__()
        self.maker = keras.Sequential([layers.Input((4,)), layers.Dense(8, "relu"), layers.Dense(6)], name="maker")
        self.judge = keras.Sequential([layers.Input((6,)), layers.Dense(8, "tanh"), layers.Dense(1)], name="judge")
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, x):
        return self.judge(x)

    def compile(self):
        super().compile()
        self.first, self.second = keras.optimizers.Adam(), keras.optimizers.SGD(0.1)

    def train_step(self, x):
        noise = keras.random.normal((8, 4), seed=self.seeds)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.judge(self.maker(noise))) - tf.reduce_mean(self.judge(x))
            with tf.GradientTape() as inner:
                inner.watch(x)
                judged = self.judge(x)
            loss += tf.reduce_mean((tf.norm(inner.gradient(judged, x), axis=1) - 1) ** 2)
        weights = self.judge.trainable_variables
        self.first.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self.judge(self.maker(noise)))
        weights = self.maker.trainable_variables
        self.second.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


class FunctionInside(OwnStep):
    @tf.function if keras.backend.backend() == "tensorflow" else (lambda f: f)
    def call(self, x, training=None, mask=None):
        return super().call(x, training=training)


@configuration
def dense():
    return compiled(mlp(), metrics=["accuracy"]), {
        **data(X, Y, validation_split=0.2),
        "batch_size": 12,
        "epochs": 2,
    }  # 12 + 12 + 8


@configuration
def activation_layers():
    between = (layers.Dense(8, name="b"), layers.Activation("gelu"), layers.Dense(8, use_bias=False), layers.ReLU())
    return compiled(mlp(*between)), data()


@configuration
def residual_cnn():
    inputs = keras.Input((8, 8, 3))
    x = residual = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(inputs)))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", use_bias=False)(x))
    x = layers.MaxPooling2D()(layers.ReLU()(layers.Add()([x, residual])))
    x = layers.Flatten()(layers.SeparableConv2D(5, 3, activation="relu")(x))
    return compiled(keras.Model(inputs, layers.Dense(3, "softmax")(x))), data(IMAGES[:16], Y[:16], epochs=2)


@configuration
def transformer_with_mask():
    tokens = keras.Input((7,), dtype="int32")
    x = layers.Embedding(12, 8, mask_zero=True)(tokens)
    attended = layers.MultiHeadAttention(2, 4, dropout=0.1)(x, x, use_causal_mask=True)
    x = layers.LayerNormalization()(layers.Add()([x, attended]))
    x = layers.GlobalAveragePooling1D()(layers.Dense(8, "gelu")(x))
    return compiled(keras.Model(tokens, layers.Dense(3, "softmax")(x))), data(TOKENS, Y[:24])


@configuration
def masked_recurrent():
    stack = [layers.Input((7,), dtype="int32"), layers.Embedding(12, 5, mask_zero=True)]
    stack += [layers.LSTM(4, return_sequences=True), layers.Dense(3, "softmax")]
    return compiled(keras.Sequential(stack)), data(TOKENS, TOKENS % 3)


@configuration
def recurrent_states():
    inputs = keras.Input(batch_shape=(8, 7, 4))
    _, *states = layers.LSTM(5, return_state=True, stateful=True)(inputs)
    x = layers.Concatenate()([*states, layers.SimpleRNN(3, unroll=True)(layers.Masking()(inputs))])
    fit = data(SEQUENCES, Y[:24], shuffle=False)
    return compiled(keras.Model(inputs, layers.Dense(3, "softmax")(x))), fit


@configuration
def dict_inputs_and_outputs():
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    x = layers.Dense(8, "relu")(layers.Concatenate()([a, b]))
    model = keras.Model(
        {"a": a, "b": b}, {"p": layers.Dense(3, "softmax", name="p")(x), "q": layers.Dense(1, name="q")(x)}
    )
    compiled(model, {"p": CROSS_ENTROPY, "q": "mse"}, loss_weights={"p": 1.0, "q": 0.3})
    return model, data({"a": X[:32], "b": -X[:32]}, {"p": Y[:32], "q": X[:32, :1]}, sample_weight=np.linspace(0, 1, 32))


@configuration
def nested_and_shared():
    inner = keras.Sequential([layers.Input((6,)), layers.Dense(6, "relu", name="dense")], name="inner")
    outer = keras.Sequential([layers.Input((6,)), inner, layers.Dense(6, name="dense")], name="outer")
    inputs = keras.Input((6,))
    outputs = layers.Dense(3, "softmax", name="dense")(inner(outer(inputs)))
    return compiled(keras.Model(inputs, outputs)), data(class_weight={0: 1.0, 1: 2.0, 2: 0.5})


@configuration
def tied_embedding():
    class Tied(keras.Model):
        def __init__(self):
            super().__init__()
            self.embedding, self.hidden = layers.Embedding(12, 5), layers.Dense(5, "relu")

        def call(self, x):
            return ops.matmul(self.hidden(self.embedding(x)), ops.transpose(self.embedding.embeddings))

    return compiled(Tied(), keras.losses.SparseCategoricalCrossentropy(from_logits=True)), data(TOKENS, TOKENS)


@configuration
def subclassed():
    return compiled(Subclassed(), "mse"), data(X[:32], X[:32, :3])


@configuration
def subclassed_steps_per_execution():
    return compiled(Subclassed(), "mse", steps_per_execution=2), data(X[:32], X[:32, :3])


@configuration
def subclassed_eager():
    return compiled(Subclassed(), "mse", run_eagerly=True), data(X[:32], X[:32, :3])


@configuration
def own_train_step():
    return compiled(mlp(kind=OwnStep)), data()


@configuration
def two_optimizers_and_gradient_penalty():
    model = Adversarial()
    model.compile()
    return model, {"x": X[:32], "batch_size": 8}


@configuration
def function_inside_mixed_float16():
    with_policy("mixed_float16")
    return compiled(mlp(kind=FunctionInside)), data()


@configuration
def loss_of_a_layers_output():
    # Three parts of one gradient: the order of their sum shows in its last bits.
    return compiled(mlp(WithLoss(lambda x: x), layers.ActivityRegularization(l2=0.1))), data(X, Y, epochs=3)


@configuration
def one_tensor_in_several_outputs():
    inputs = keras.Input((6,))
    a, b, c = Scaled(lambda x: (x, x, x * 0.3))(inputs)
    x = ops.sin(a) + ops.cos(a) * b + c
    return compiled(keras.Model(inputs, layers.Dense(3, "softmax")(x))), data()


@configuration
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
def random_layers():
    noisy = (layers.GaussianNoise(0.1), layers.Dropout(0.3, seed=5), layers.Dense(8), layers.AlphaDropout(0.1))
    return compiled(mlp(*noisy, layers.Lambda(lambda x: x + keras.random.normal((8,))))), data()


@configuration
def generator_of_unknown_length():
    random = np.random.default_rng(1)
    batches = [(random.standard_normal((7, 6)).astype("float32"), random.integers(0, 3, 7)) for _ in range(5)]
    return compiled(mlp()), {"x": (batch for batch in batches), "epochs": 1}


@configuration
def dataset_of_unknown_length():
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).filter(lambda x, y: y != 7).batch(16)
    return compiled(mlp()), {"x": dataset, "epochs": 2}


@configuration
def not_a_number():
    x = X[:32].copy()
    x[3, 2], x[20, 1] = np.nan, np.inf
    return compiled(mlp()), data(x)


@configuration
def raw_softmax():
    return compiled(mlp(out=tf.nn.softmax)), data()


@configuration
def sigmoid():
    return compiled(mlp(out="sigmoid"), "binary_crossentropy"), data(y=np.eye(3)[Y[:32]])


@configuration
def one_device_strategy():
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        return compiled(mlp(layers.BatchNormalization())), data()


def with_policy(name):
    keras.config.set_dtype_policy(name)


for policy in ("mixed_float16", "mixed_bfloat16"):

    def build_with(policy=policy):
        with_policy(policy)
        return compiled(mlp(layers.BatchNormalization(), layers.Dense(8))), data()

    CONFIGURATIONS[policy] = build_with

OPTIONS = {
    "global_clipnorm": {"global_clipnorm": 0.1},
    "moving_average_and_weight_decay": {"use_ema": True, "ema_overwrite_frequency": 2, "weight_decay": 0.01},
    "accumulation": {"gradient_accumulation_steps": 2},
    "loss_scale": {"loss_scale_factor": 128.0},
}
for name, options in OPTIONS.items():
    CONFIGURATIONS[name] = lambda options=options: (
        compiled(mlp(), optimizer=keras.optimizers.Adam(0.01, **options)),
        data(),
    )

WAYS = {
    "eager": {"run_eagerly": True},
    "jit": {"jit_compile": True},
    "steps_per_execution": {"steps_per_execution": 2},
}
for name, way in WAYS.items():
    # 32 examples: in Keras 3.3 a chunk of steps that is not whole fails, with or without the callback.
    CONFIGURATIONS[name] = lambda way=way: (compiled(mlp(layers.Dropout(0.2)), **way), data())


def state_after_training(build, callbacks):
    keras.backend.clear_session()
    keras.utils.set_random_seed(7)
    try:
        model, options = build()
    finally:
        with_policy("float32")
    history = model.fit(verbose=0, callbacks=callbacks, **options).history
    optimizers = [x for x in vars(model).values() if isinstance(x, keras.optimizers.Optimizer)]
    variables = [*model.variables, *(variable for optimizer in optimizers for variable in optimizer.variables)]
    values = [(each.path, np.asarray(each.value)) for each in variables]
    draws = np.random.normal(), float(tf.random.uniform(())), float(keras.random.normal(()))  # noqa: NPY002 (whether the global state is touched)
    for layer in [model, *model._flatten_layers()]:
        assert not {"call", "add_loss", "train_step"} & set(vars(layer)), "something is left behind"
    assert not any("apply" in vars(optimizer) for optimizer in optimizers)
    return values, history, draws


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.filterwarnings("ignore")
def test_training_is_the_same_to_the_last_bit(name):
    build = CONFIGURATIONS[name]
    expected, expected_history, expected_draws = state_after_training(build, [])
    callback = LayerStatsCallback(None, update_freq=2)  # first, plain and partial batches by turns
    values, history, draws = state_after_training(build, [callback])
    assert [path for path, _ in values] == [path for path, _ in expected]
    different = [
        path for (path, value), (_, other) in zip(values, expected, strict=True) if value.tobytes() != other.tobytes()
    ]
    assert not different
    np.testing.assert_equal(history, expected_history)
    assert draws == expected_draws
    assert len(callback.reports) >= (1 if name == "subclassed_eager" else 2)
    # Where nothing is built before an eager step, that step alone goes unmeasured.
    first = 2 if name == "subclassed_eager" else 1 if "steps_per_execution" in name else 0
    assert callback.reports[0].step == first
    assert callback.reports[0].statistic("weight_variance")


def fit(model, callbacks, **options):
    return model.fit(X, Y, batch_size=16, verbose=0, callbacks=callbacks, **options)


def steps(callback):
    return [report.step for report in callback.reports]


def test_subclassed_layers_are_measured_from_the_first_step_on():
    """Their weights exist once the first step has been traced; the outputs against an eager tape in NumPy."""
    keras.utils.set_random_seed(2)
    model, callback = compiled(Subclassed(), "mse"), LayerStatsCallback(None)
    model.fit(X, X[:, :3], batch_size=40, shuffle=False, verbose=0, callbacks=[callback])
    measured = callback.reports[0]
    keras.utils.set_random_seed(2)
    twin = Subclassed()
    twin(X)
    with tf.GradientTape() as tape:
        shared = twin.named["shared"]
        x = twin.several[1](twin.several[0](X))
        outputs = [shared(x)]
        tape.watch(outputs)
        outputs.append(shared(outputs[0]))
        x = ops.expand_dims(outputs[1], 1)
        x = twin.named["last"][0](ops.squeeze(twin.attention(x, x), 1))
        loss = ops.mean(ops.square(x - X[:, :3]))
    gradients = tape.gradient(loss, [*outputs, shared.kernel.value])
    for kind, tensor in {
        "output": outputs,
        "output_gradient": gradients[:2],
        "weight": shared.kernel,
        "weight_gradient": gradients[2],
    }.items():
        expected = Moments.of(np.array([t.numpy() for t in tensor]) if isinstance(tensor, list) else tensor.numpy())
        assert measured.moments[Tap(kind, "shared")].count == expected.count
        assert measured.moments[Tap(kind, "shared")].variance == pytest.approx(expected.variance, rel=1e-5)
    assert "attention/query" in measured.layers
    assert Tap("weight_gradient", "aside") not in measured.moments
    assert "never" not in measured.layers


def test_every_optimizer_of_a_model_shows_its_gradients():
    model, callback = Adversarial(), LayerStatsCallback(None)
    model.compile()
    model.fit(X, batch_size=40, verbose=0, callbacks=[callback])
    gradients = callback.reports[0].statistic("weight_gradient_variance")
    assert sorted({path.split("/")[0] for path in gradients}) == ["judge", "maker"]


def test_two_callbacks_share_a_measured_step():
    model, often, seldom = compiled(mlp()), LayerStatsCallback(None, 1), LayerStatsCallback(None, 2)
    fit(model, [often, seldom], epochs=2)
    assert steps(often) == [0, 1, 2, 3, 4, 5]
    assert steps(seldom) == [0, 2, 4]
    assert [report.moments for report in often.reports[::2]] == [report.moments for report in seldom.reports]


class Raises(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if batch == 1:
            raise KeyboardInterrupt


def test_an_interrupt_just_before_a_measured_step_is_forgotten(tmp_path):
    model, callback = compiled(mlp()), LayerStatsCallback(tmp_path, 1)
    with pytest.raises(KeyboardInterrupt):
        fit(model, [callback, Raises()])
    fit(model, [callback])
    assert steps(callback) == [0, 1, 2, 3]
    plain = model.train_function
    fit(model, [])
    assert model.train_function is plain
    assert not hasattr(plain, "__self__")


def test_an_interrupt_in_a_measured_step_leaves_the_plain_function():
    class Interrupted(layers.Layer):
        on = False

        def call(self, x):
            if self.on:
                raise KeyboardInterrupt
            return x

    layer = Interrupted()
    model, callback = compiled(mlp(layer)), LayerStatsCallback(None, 1)
    fit(model, [])
    plain = model.train_function
    layer.on = True
    with pytest.raises(KeyboardInterrupt):
        fit(model, [callback])
    assert model.train_function is plain
    assert not any({"call", "add_loss"} & set(vars(each)) for each in model.layers)
    layer.on = False
    fit(model, [callback])
    assert steps(callback) == [0, 1, 2]


def test_copies_and_pickles():
    model, callback = compiled(mlp()), LayerStatsCallback(None, 2)
    pickle.loads(pickle.dumps(callback))
    fit(model, [callback])
    for twin in (pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback)):
        assert steps(twin) == [0, 2]
        fit(compiled(mlp()), [twin])
        assert steps(twin) == [0, 2, 4]


def test_layers_that_a_model_gains_between_fits():
    model, callback = compiled(mlp()), LayerStatsCallback(None)
    fit(model, [callback])
    model.add(layers.Dense(3, "softmax", name="new"))
    fit(compiled(model), [callback])
    assert [report.layers for report in callback.reports] == [["a", "z"], ["a", "z", "new"]]


@pytest.mark.skipif(OLD, reason="a chunk of steps that is not whole fails in this Keras, without the callback too")
def test_a_partial_chunk_of_steps_counts_its_own_steps():
    model, callback = compiled(mlp(), steps_per_execution=2), LayerStatsCallback(None, 1)
    fit(model, [callback], epochs=2)
    assert steps(callback) == [1, 2, 4, 5]
    assert int(model.optimizer.iterations) == 6


def test_with_the_callbacks_of_keras(tmp_path):
    def callbacks(directory):
        several = [
            keras.callbacks.TensorBoard(directory, histogram_freq=1, profile_batch=0),
            keras.callbacks.ModelCheckpoint(directory / "last.keras", save_freq=2),
            keras.callbacks.BackupAndRestore(directory / "backup", save_freq=2),
            keras.callbacks.EarlyStopping("loss", patience=1),
            keras.callbacks.TerminateOnNaN(),
        ]
        return [*several, keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]

    states = []
    for name in ("with", "without"):
        keras.backend.clear_session()
        keras.utils.set_random_seed(3)
        model = compiled(mlp(layers.Dropout(0.2)), optimizer=keras.optimizers.Adam(use_ema=True))
        mine = [LayerStatsCallback(tmp_path / name, 2)] if name == "with" else []
        history = fit(model, [*mine, *callbacks(tmp_path / name)], epochs=3, validation_data=(X, Y)).history
        states.append(
            (history, [variable.numpy().tobytes() for variable in (*model.variables, *model.optimizer.variables)])
        )
    assert states[0] == states[1]
