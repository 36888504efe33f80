"""Configurations of `training_configurations` that only the PyTorch backend has."""

import shutil

import keras
import torch
from helpers import mlp
from keras import layers
from training_configurations import X, Y, compiled, configuration, data


class OwnStep(keras.Sequential):
    def train_step(self, data):
        x, y = data
        self.zero_grad()
        loss = self.compute_loss(x, y, self(x, training=True))
        loss.backward()
        variables = self.trainable_variables
        with torch.no_grad():
            self.optimizer.apply([each.value.grad for each in variables], variables)
        return {"loss": loss.detach()}


class TwoOptimizers(keras.Model):
    """One of Keras and one of PyTorch; a gradient penalty, so a gradient of a gradient; gradients that add up."""

    def __init__(self):
        super().__init__()
        self.maker = keras.Sequential([layers.Input((4,)), layers.Dense(8, "relu"), layers.Dense(6)], name="maker")
        self.judge = keras.Sequential([layers.Input((6,)), layers.Dense(8, "tanh"), layers.Dense(1)], name="judge")
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, x):
        return self.judge(x)

    def compile(self):
        super().compile()
        self.first = keras.optimizers.Adam()
        self.second = torch.optim.SGD([each.value for each in self.maker.trainable_variables], 0.1, momentum=0.5)

    def train_step(self, x):
        noise = keras.random.normal((8, 4), seed=self.seeds)
        self.zero_grad()
        x = x.detach().requires_grad_()
        judged = self.judge(x)
        (slope,) = torch.autograd.grad(judged.sum(), x, create_graph=True)
        penalty = ((slope.norm(dim=1) - 1) ** 2).mean()
        (self.judge(self.maker(noise)).mean() - judged.mean() + penalty).backward()
        with torch.no_grad():
            variables = self.judge.trainable_variables
            self.first.apply([each.value.grad for each in variables], variables)
        loss = -self.judge(self.maker(noise)).mean()
        loss.backward()  # on top of the gradients of before
        torch.nn.utils.clip_grad_norm_([each.value for each in self.maker.trainable_variables], 0.1)
        self.second.step()
        return {"loss": loss.detach()}


class InPlace(layers.Layer):
    def call(self, x):
        return torch.nn.functional.relu_(x.mul_(1.5))


@configuration
def own_train_step():
    return compiled(mlp(kind=OwnStep)), data()


@configuration
def optimizers_of_keras_and_of_pytorch():
    model = TwoOptimizers()
    model.compile()
    return model, {"x": X, "batch_size": 8}


@configuration
def work_in_place():
    return compiled(mlp(layers.Dense(8, name="b"), InPlace())), data()


@configuration
def modules_of_pytorch():
    torch.manual_seed(3)
    module = torch.nn.Sequential(
        torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(inplace=True), torch.nn.Dropout(0.2)
    )
    return compiled(mlp(layers.TorchModuleWrapper(module), layers.Dense(8))), data()


@configuration
def torch_loader():
    pairs = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    return compiled(mlp()), {"x": torch.utils.data.DataLoader(pairs, batch_size=7, shuffle=True), "epochs": 2}


@configuration
def random_numbers_of_no_seed():
    noise = layers.Lambda(lambda x: x + keras.random.normal((8,)) + torch.rand(8))
    return compiled(mlp(noise)), data()


if shutil.which("g++"):

    @configuration
    def jit():
        model = keras.Sequential([layers.Input((6,)), layers.Dense(3), layers.Dropout(0.2)])
        return compiled(model, "mse", "sgd", jit_compile=True), data(X[:16], X[:16, :3], epochs=2)
