"""A probe leaves the model, and every source of random numbers, as it found them, also after an exception."""

import random

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initkit.capture._probe import probe

BACKEND = keras.backend.backend()
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((16, 6)).astype("float32"), rng.integers(0, 3, 16)


class Noisy(layers.Layer):
    """Draws from every generator that there is, and may fail."""

    fails = False

    def __init__(self):
        super().__init__()
        # JAX lets no layer use the global generator.
        self.seeds = keras.random.SeedGenerator(2) if BACKEND == "jax" else None

    def call(self, x):
        noise = random.random() + np.random.standard_normal()  # noqa: NPY002 (the global generator is meant)
        x = x + keras.random.normal((8,), seed=self.seeds) * ops.cast(noise, x.dtype)
        if BACKEND == "torch":
            import torch

            x = x + torch.randn(8)
        if self.fails:
            raise RuntimeError("on purpose")
        return x


class Counting(layers.Layer):
    """Weights that every call changes."""

    def build(self, shape):
        self.total = self.add_weight(shape=(), initializer="zeros", trainable=False, name="total")

    def call(self, x):
        self.total.assign_add(ops.mean(x))
        self.add_loss(ops.mean(x) ** 2)
        return x


def build(**options):
    keras.backend.clear_session()
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(8, "relu", name="a"),
            Noisy(),
            layers.BatchNormalization(),
            layers.Dropout(0.3, seed=5),
            Counting(),
            layers.Dense(4, trainable=False),
            layers.SpectralNormalization(layers.Dense(4)),
            layers.Dense(3, "softmax"),
        ]
    )
    if options:
        model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"], **options)
    return model


def state(model):
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else [])]
    values = [(v.path, ops.convert_to_numpy(v.value).tobytes(), v.trainable) for v in variables]
    metrics = [ops.convert_to_numpy(v.value).tolist() for metric in model.metrics for v in metric.variables]
    attributes = [sorted(vars(layer)) for layer in [model, *model.layers]]
    return (
        values,
        metrics,
        attributes,
        [layer.trainable for layer in model.layers],
        model.compiled,
        getattr(model, "train_function", None),
        getattr(getattr(model, "_compile_loss", None), "built", None),
    )


def draws():
    numbers = [random.random(), np.random.standard_normal(), float(keras.random.normal(()))]  # noqa: NPY002
    if BACKEND == "torch":
        import torch

        numbers.append(float(torch.randn(())))
    return numbers


COMPILED = {"optimizer": "adam"}


@pytest.mark.parametrize(
    "options", [pytest.param({}, id="uncompiled", marks=pytest.mark.one_backend), pytest.param(COMPILED, id="compiled")]
)
@pytest.mark.parametrize("trained", [False, True], ids=["fresh", "trained"])
@pytest.mark.filterwarnings("ignore")
def test_everything_is_as_before(options, trained):
    if trained and not options:
        pytest.skip("nothing to train with")

    def run(measured):
        model = build(**options)
        if trained:
            model.train_on_batch(X, Y)
        before = state(model)
        if measured:
            probe(model, X)
            probe(model, X, Y, loss=None if options else "sparse_categorical_crossentropy")
            probe(model, training=False)
            probe(model, X, gradients=False)
            Noisy.fails = True
            try:
                with pytest.raises(RuntimeError, match="on purpose"):
                    probe(model, X, Y, loss="sparse_categorical_crossentropy")
                with pytest.raises(RuntimeError, match="on purpose"):
                    probe(model, X, gradients=False)
            finally:
                Noisy.fails = False
            assert state(model) == before
        after = draws()
        history = model.fit(X, Y, batch_size=8, verbose=0).history if options else None
        return after, history, state(model)[0]

    assert run(measured=True) == run(measured=False)


def test_a_generator_of_seeds_that_nobody_has_needed_is_not_left_behind():
    def first_draw(measured):
        model = build()
        probe(model, X)
        keras.backend.clear_session()  # forgets the generator; the next one is seeded from Python's numbers
        random.seed(3)
        if measured:
            probe(model, X)
        return draws()

    assert first_draw(True) == first_draw(False)


def test_an_unbuilt_model_gets_the_weights_of_its_first_call():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = layers.Dense(4, "relu"), layers.Dense(2)

        def call(self, x):
            return self.b(self.a(x))

    def weights(measured):
        keras.utils.set_random_seed(5)
        model = Own()
        if measured:
            report = probe(model, X)
            assert len(report.layers) == 2
        model(X)
        return [ops.convert_to_numpy(w.value).tolist() for w in model.weights]

    assert weights(True) == weights(False)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="functions of TensorFlow")
def test_functions_are_not_kept_as_they_were_traced():
    import tensorflow as tf

    class Function(keras.Model):
        def __init__(self):
            super().__init__()
            self.norm, self.a = layers.BatchNormalization(), layers.Dense(4, "relu", name="a")

        @tf.function
        def call(self, x, training=False):
            return self.a(self.norm(x, training=training))

    model = Function()
    model(X[:3])
    report = probe(model, X)
    assert "a" in report.layers
    assert not any("not read" in note for note in report.notes)
    before = ops.convert_to_numpy(model.norm.moving_mean.value)
    model(X, training=True)
    assert not np.array_equal(before, ops.convert_to_numpy(model.norm.moving_mean.value))
    assert not tf.config.functions_run_eagerly()


@pytest.mark.skipif(BACKEND != "torch", reason="modules of PyTorch")
def test_buffers_of_modules_are_kept():
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4))
    module.eval()
    model = keras.Sequential([layers.Input((6,)), layers.TorchModuleWrapper(module, output_shape=(None, 4))])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    report = probe(model, X)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not module.training
    assert sum(row.tap.kind == "weight_gradient" for row in report.rows) == 4
