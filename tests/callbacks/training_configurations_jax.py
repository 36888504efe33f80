"""Configurations of `training_configurations` that only the JAX backend has."""

import jax
import keras
from helpers import mlp
from training_configurations import compiled, configuration, data


class OwnStep(keras.Sequential):
    def train_step(self, state, data):
        trainable, non_trainable, optimizer, metrics = state
        x, y = data

        def loss_of(trainable, non_trainable):
            outputs, non_trainable = self.stateless_call(trainable, non_trainable, x, training=True)
            return self.compute_loss(x, y, outputs), non_trainable

        (loss, non_trainable), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable, non_trainable)
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
        return {"loss": loss}, (trainable, non_trainable, optimizer, metrics)


@configuration
def own_train_step():
    return compiled(mlp(kind=OwnStep)), data()
