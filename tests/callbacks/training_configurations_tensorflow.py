"""Configurations of `training_configurations` that only the TensorFlow backend has."""

import keras
import numpy as np
import tensorflow as tf
from helpers import Subclassed, mlp
from keras import layers
from training_configurations import X, Y, compiled, configuration, data, with_policy


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
    @tf.function
    def call(self, x, training=None, mask=None):
        return super().call(x, training=training)


@configuration
def own_train_step():
    return compiled(mlp(kind=OwnStep)), data()


@configuration
def two_optimizers_and_gradient_penalty():
    model = Adversarial()
    model.compile()
    return model, {"x": X, "batch_size": 8}


@configuration
def function_inside_mixed_float16():
    with_policy("mixed_float16")
    return compiled(mlp(kind=FunctionInside)), data()


@configuration
def subclassed_steps_per_execution():
    return compiled(Subclassed(), "mse", steps_per_execution=2), data(X[:16], X[:16, :3], epochs=2)


@configuration
def dataset_of_unknown_length():
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).filter(lambda x, y: y != 7).batch(16)
    return compiled(mlp()), {"x": dataset, "epochs": 2}


@configuration
def raw_softmax():
    return compiled(mlp(out=tf.nn.softmax)), data()


@configuration
def random_numbers_of_no_seed():
    return compiled(mlp(layers.Lambda(lambda x: x + keras.random.normal((8,))))), data()


@configuration
def one_device_strategy():
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        return compiled(mlp(layers.BatchNormalization())), data()


@configuration
def sums_of_three_at_the_limit_of_memory():
    """A plain step that TensorFlow expects to take a little less than what makes its memory optimizer split sums."""
    inputs = x = layers.Input((1024,))
    for _ in range(2):
        x = layers.Add()([layers.Dense(1024, "tanh")(x) for _ in range(3)])
    wide = np.random.default_rng(0).standard_normal((4, 1024)).astype("float32")
    model = keras.Model(inputs, layers.Dense(1)(x))
    return compiled(model, "mse"), {"x": wide, "y": wide[:, :1], "batch_size": 2, "epochs": 2}
