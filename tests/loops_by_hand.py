"""Training steps that are written by hand, on each backend: what a test of `watch` trains."""

import keras
import numpy as np
from keras import layers as L

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).standard_normal((64, 6)).astype("float32")
Y = np.arange(64) % 3
KINDS = {"tensorflow": ["plain", "compiled", "xla"], "jax": ["plain", "compiled", "donated"], "torch": ["plain"]}[
    BACKEND
]
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(name="network", dtype=None):
    keras.utils.set_random_seed(1)
    layers = [L.Dense(16, "relu", name="a"), L.Dropout(0.1, seed=3), L.Dense(3, name="b", dtype="float32")]
    model = keras.Sequential([keras.Input((6,)), *layers], name=name)
    if dtype:
        layers[0].dtype_policy = dtype
    return model


class Loop:
    """A model, its optimizer and `step(x, y)`, which returns the loss; on JAX `step(state, (x, y))`."""

    def __init__(self, kind=KINDS[-1], model=None, optimizer=None, loss=lambda optimizer, loss: loss):
        self.model = network() if model is None else model
        self.optimizer = keras.optimizers.Adam(1e-2) if optimizer is None else optimizer
        self.scaled = loss
        self.step = getattr(self, BACKEND)(kind)

    def tensorflow(self, kind):
        import tensorflow as tf

        def step(x, y):
            with tf.GradientTape() as tape:
                loss = loss_of(y, self.model(x, training=True))
                scaled = self.scaled(self.optimizer, loss)
            weights = self.model.trainable_weights
            self.optimizer.apply(tape.gradient(scaled, weights), weights)
            return loss

        options = {"compiled": {}, "xla": {"jit_compile": True}}
        return tf.function(step, **options[kind]) if kind in options else step

    def torch(self, kind):
        import torch

        def step(x, y):
            self.model.zero_grad()
            loss = loss_of(y, self.model(x, training=True))
            self.scaled(self.optimizer, loss).backward()
            if isinstance(self.optimizer, torch.optim.Optimizer):
                self.optimizer.step()
                return loss
            weights = list(self.model.trainable_weights)
            with torch.no_grad():
                self.optimizer.apply([weight.value.grad for weight in weights], weights)
            return loss

        return step if kind == "plain" else torch.compile(step)

    def jax(self, kind):
        import jax

        self.optimizer.build(self.model.trainable_variables)
        variables = (self.model.trainable_variables, self.model.non_trainable_variables, self.optimizer.variables)
        self.state = tuple([variable.value + 0 for variable in each] for each in variables)

        def compute(weights, others, x, y):
            outputs, others = self.model.stateless_call(weights, others, x, training=True)
            loss = loss_of(y, outputs)
            return self.scaled(self.optimizer, loss), (loss, others)

        def step(state, data):
            weights, others, optimizer = state
            (_, (loss, others)), gradients = jax.value_and_grad(compute, has_aux=True)(weights, others, *data)
            weights, optimizer = self.optimizer.stateless_apply(optimizer, gradients, weights)
            return loss, (weights, others, optimizer)

        options = {"compiled": {}, "donated": {"donate_argnums": 0}}
        return jax.jit(step, **options[kind]) if kind in options else step

    def train(self, steps=7, step=None):
        """Returns the losses and the weights after training by `step`, which is the loop's own if left out."""
        step, losses = step or self.step, []
        for i in range(steps):
            x, y = (keras.ops.convert_to_tensor(each[8 * i : 8 * i + 8]) for each in (X, Y))
            if BACKEND == "jax":
                loss, self.state = step(self.state, (x, y))
            else:
                loss = step(x, y)
            losses.append(float(keras.ops.convert_to_numpy(loss)))
        weights = self.state[0] if BACKEND == "jax" else [each.value for each in self.model.trainable_variables]
        return losses, [keras.ops.convert_to_numpy(each) for each in weights]
