"""An MLP in float64 NumPy, with what GradInit and MetaInit minimise: the oracle of their tests."""

import itertools

import keras
import numpy as np
from helpers import cross_entropy

SIZES = (3, 4, 5)


def parameters(seed=0):
    """Kernels and biases, none of them zero."""
    rng = np.random.default_rng(seed)
    shapes = [shape for n_in, n_out in itertools.pairwise(SIZES) for shape in ((n_in, n_out), (n_out,))]
    return [rng.standard_normal(shape) for shape in shapes]


def keras_model(factor=1.0):
    """The same network in Keras, from those parameters times a factor."""
    _, hidden, classes = SIZES
    layers = [keras.layers.Dense(hidden, "tanh"), keras.layers.Dense(classes)]
    model = keras.Sequential([keras.Input((SIZES[0],)), *layers])
    model.set_weights([factor * w for w in parameters()])
    model.compile("sgd", cross_entropy())
    return model


def data(examples=16, seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((examples, SIZES[0])), rng.integers(0, SIZES[-1], examples)


def loss_and_gradients(theta, x, y):
    """Cross-entropy of tanh(x W1 + b1) W2 + b2, by hand."""
    w1, b1, w2, b2 = theta
    h = np.tanh(x @ w1 + b1)
    z = h @ w2 + b2
    z = z - z.max(axis=1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss = -np.log(p[rows, y]).mean()
    d2 = p.copy()
    d2[rows, y] -= 1
    d2 /= len(y)
    d1 = (d2 @ w2.T) * (1 - h**2)
    return loss, [x.T @ d1, d1.sum(axis=0), h.T @ d2, d2.sum(axis=0)]


def scaled(scales):
    return [s * w for s, w in zip(scales, parameters(), strict=True)]


def gradient_norm(scales, x, y, order):
    flat = np.concatenate([g.ravel() for g in loss_and_gradients(scaled(scales), x, y)[1]])
    return np.linalg.norm(flat, order)


def loss_after_step(scales, x, y, next_x, next_y, eta, adam):
    theta = scaled(scales)
    _, gradients = loss_and_gradients(theta, x, y)
    steps = [np.sign(g) if adam else g for g in gradients]
    return loss_and_gradients([w - eta * s for w, s in zip(theta, steps, strict=True)], next_x, next_y)[0]


def gradient_quotient(scales, x, y, epsilon=1e-5, h=1e-5):
    """The Hessian's product by a central difference of gradients: error h^2, about 1e-10."""
    theta = scaled(scales)
    _, gradients = loss_and_gradients(theta, x, y)
    plus, minus = (
        loss_and_gradients([w + sign * h * g for w, g in zip(theta, gradients, strict=True)], x, y)[1]
        for sign in (1, -1)
    )
    total = 0.0
    for g, up, down in zip(gradients, plus, minus, strict=True):
        product = (up - down) / (2 * h)
        total += np.abs((g - product) / (g + np.where(g >= 0, epsilon, -epsilon)) - 1).sum()
    return total / sum(g.size for g in gradients)


def differences(function, scales, h=1e-4):
    """Gradient by central differences."""
    steps = h * np.eye(len(scales))
    return np.array([(function(scales + step) - function(scales - step)) / (2 * h) for step in steps])
