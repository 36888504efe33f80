"""Remedies for signals, gradients and outputs: run as printed, they make a broken model train like its sound twin."""

import keras
import numpy as np
import pytest
from remedies import executes, find, run_remedy

from keras_initkit import diagnose

pytestmark = [pytest.mark.slow, pytest.mark.one_backend]
L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.standard_normal((512, 16)).astype("float32")
Y = (X @ RNG.standard_normal((16, 4))).argmax(axis=1)
TARGET = np.log1p(np.exp(2 * X[:, :1] + X[:, 2:3]))
CHANNELS = RNG.standard_normal((512, 1, 1, 16))
IMAGES = (CHANNELS + 0.1 * RNG.standard_normal((512, 5, 5, 16))).astype("float32")
OF_IMAGES = (CHANNELS[:, 0, 0] @ RNG.standard_normal((16, 4))).argmax(axis=1)
NORMAL, CONSTANT = keras.initializers.RandomNormal, keras.initializers.Constant


def mlp(activation="relu", depth=7, initializer=None, optimizer=None, head=None):
    """Hidden layers `h0`, `h1`, ... of 32 units; `head` are the options of a head of one unit for a regression."""
    keras.utils.set_random_seed(0)
    initializer = initializer or ("he_normal" if activation == "relu" else "glorot_normal")
    model = keras.Sequential([L.Input((16,))])
    for number in range(depth):
        model.add(L.Dense(32, activation, kernel_initializer=initializer, name=f"h{number}"))
    model.add(L.Dense(4 if head is None else 1, name="head", **(head or {})))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if head is None else "mse"
    model.compile(optimizer or keras.optimizers.SGD(0.05, momentum=0.9), loss)
    return model


def separable(initializer):
    """Convolutions whose depthwise kernels, of 9 inputs to each unit, Keras takes to have 144."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([L.Input((5, 5, 16))])
    for _ in range(3):
        kernels = {"depthwise_initializer": initializer, "pointwise_initializer": "he_normal"}
        model.add(L.SeparableConv2D(16, 3, padding="same", activation="relu", **kernels))
    model.add(L.GlobalAveragePooling2D())
    model.add(L.Dense(4, name="head"))
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model


def score(model, x=X, y=Y, epochs=8):
    """Accuracy, or the coefficient of determination, after training."""
    keras.utils.set_random_seed(1)
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)
    outputs = keras.ops.convert_to_numpy(model(x, training=False))
    if y.dtype.kind == "f":
        return 1 - np.square(outputs - y).mean() / y.var()
    return (outputs.argmax(axis=1) == y).mean()


SCORES = {}  # of sound twins


def sound_score(build, *data):
    """The score of a sound twin, which several faults may have."""
    if build not in SCORES:
        SCORES[build] = score(build(), *data)
    return SCORES[build]


# Broken model, sound twin, inputs, labels.
FAULTS = {
    "exploding_activation": (lambda: mlp(initializer=NORMAL(stddev=1.2)), mlp, X, Y),
    "vanishing_activation": (lambda: mlp(initializer=NORMAL(stddev=0.06)), mlp, X, Y),
    "vanishing_gradient": (lambda: mlp("sigmoid"), mlp, X, Y),
    "exploding_gradient": (lambda: mlp("tanh", 11, NORMAL(stddev=1.0)), lambda: mlp("tanh", 11), X, Y),
    "wrong_fans": (lambda: separable("lecun_normal"), lambda: separable(NORMAL(stddev=1 / 3)), IMAGES, OF_IMAGES),
    "constant_output": (lambda: mlp(depth=2, head={"activation": "relu"}), lambda: mlp(depth=2, head={}), X, TARGET),
}


@executes(*FAULTS)
@pytest.mark.parametrize("kind", FAULTS)
def test_a_remedy_brings_the_model_to_its_sound_twin(kind):
    build, sound, x, y = FAULTS[kind]
    model = build()
    if kind == "constant_output":
        model.get_layer("head").bias.assign([-60.0])  # it has died
    found = [each for each in diagnose(model, x, y) if each.kind == kind]
    assert found
    for each in found if kind == "wrong_fans" else found[:1]:  # one for each layer
        run_remedy(each, model=model, x=x)
    assert score(model, x, y) > 0.95 * sound_score(sound, x, y) > 0.6


def shallow(rate=0.5):
    return mlp(depth=2, optimizer=keras.optimizers.SGD(rate))


@executes("overshooting_step")
def test_a_rate_that_overshoots_is_lowered():
    model = shallow(30.0)
    run_remedy(find("overshooting_step", diagnose(model, X, Y)), model=model)
    assert 0.3 * (1 - 1e-2) <= float(model.optimizer.learning_rate) <= 30 / 4
    assert score(model) > 0.95 * sound_score(shallow)


@executes("overshooting_step")
def test_a_schedule_that_overshoots_gives_way_to_a_rate():
    model = shallow(keras.optimizers.schedules.ExponentialDecay(3000.0, 1000, 0.9))
    run_remedy(find("overshooting_step", diagnose(model, X, Y)), model=model)
    assert model.optimizer.get_config()["learning_rate"] == pytest.approx(30.0, rel=1e-2)  # never more at once


@executes("overshooting_step")
def test_a_kernel_that_overshoots_is_drawn():
    model, draws = shallow(), np.random.default_rng(0)
    for layer in model.layers:  # the same on all backends: the rate is near what the model bears
        scale = np.sqrt((1 if layer.name == "head" else 2) / layer.kernel.shape[0])
        layer.kernel.assign((4 if layer.name == "h1" else 1) * scale * draws.standard_normal(layer.kernel.shape))
    run_remedy(find("overshooting_step", diagnose(model, X, Y)), model=model)
    assert score(model) > 0.95 * sound_score(shallow)


@executes("exploding_gradient")
def test_a_recurrent_kernel_whose_gradient_grows_over_steps_is_drawn():
    model = keras.Sequential([L.Input((8, 16)), L.SimpleRNN(32, name="rnn"), L.Dense(4)])
    kernel, x = model.get_layer("rnn").cell.recurrent_kernel, X.reshape(64, 8, 16)
    sound = np.square(keras.ops.convert_to_numpy(kernel)).mean()
    kernel.assign(30 * kernel)
    run_remedy(find("exploding_gradient", diagnose(model, x)), model=model)
    assert "exploding_gradient" not in [each.kind for each in diagnose(model, x)]
    assert np.square(keras.ops.convert_to_numpy(kernel)).mean() == pytest.approx(sound, rel=0.2)
