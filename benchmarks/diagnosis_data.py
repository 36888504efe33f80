"""What the models of `diagnosis.py` train on: small sets, real where a task allows it."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

TRAINING = 800


class Data(NamedTuple):
    """Training and test examples.

    Args:
        score: "accuracy" or "r2"; of guessing the most frequent class, or the mean, it is `chance`.
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    score: str = "accuracy"

    @property
    def chance(self) -> float:
        """Score of the best constant answer."""
        if self.score == "r2":
            return 0.0
        return float(np.bincount(classes_of(self.y_test)).max() / len(self.y_test))

    def score_of(self, predictions: np.ndarray) -> float:
        """Test accuracy or coefficient of determination; 0 where a prediction is not finite."""
        if not np.isfinite(predictions).all():
            return 0.0
        if self.score == "r2":
            residual = np.square(predictions.reshape(self.y_test.shape) - self.y_test).sum()
            return float(1 - residual / np.square(self.y_test - self.y_test.mean(axis=0)).sum())
        if predictions.shape[-1] == 1:
            # Probabilities or logits: the two halves of the ordered predictions, for tasks of two even classes.
            guesses = predictions.ravel() > (0.5 if predictions.min() >= 0 else 0.0)
        else:
            guesses = predictions.argmax(axis=-1)
        return float((guesses == classes_of(self.y_test)).mean())


def classes_of(y: np.ndarray) -> np.ndarray:
    """Class numbers, of one-hot labels too."""
    return (y.argmax(axis=-1) if y.ndim > 1 and y.shape[-1] > 1 else y.ravel()).astype(int)


@functools.cache
def load(name: str, mnist: str | None = None) -> Data:
    """A data set by name: of the digits `"flat"`, `"image"`, `"rows"`, `"parity"`, `"onehot"`, `"autoencoder"`,
    `"denoising"`, `"raw"`; `"mnist"`; `"regression"`, `"linear"`; `"tokens"`, `"bag"`.
    """
    if name == "mnist":
        with np.load(mnist) as file:
            images, labels = file["x"][: 2 * TRAINING].astype("float32"), file["y"][: 2 * TRAINING].astype("int64")
        pooled = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))[..., None]  # 14 x 14 pixels
        return _split(standardized(pooled), labels)
    makers = {"regression": _friedman, "linear": _linear, "tokens": _tokens, "bag": _bag}
    return makers[name]() if name in makers else _digits(name)


def standardized(x: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 over all elements."""
    return ((x - x.mean()) / x.std()).astype("float32")


def _split(x: np.ndarray, y: np.ndarray, score: str = "accuracy") -> Data:
    return Data(x[:TRAINING], y[:TRAINING], x[TRAINING : 2 * TRAINING], y[TRAINING : 2 * TRAINING], score)


def _digits(name: str) -> Data:
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images, labels = digits.images[order].astype("float32"), digits.target[order].astype("int64")
    flat = standardized(images.reshape(len(images), -1))
    if name == "parity":
        return _split(flat, (labels % 2).astype("float32")[:, None])
    if name == "onehot":
        return _split(flat, np.eye(10, dtype="float32")[labels])
    if name in ("autoencoder", "denoising"):
        pixels = flat if name == "autoencoder" else images.reshape(len(images), -1) / 16
        return _split(pixels.astype("float32"), pixels.astype("float32"), "r2")
    shaped = {"flat": (64,), "raw": (64,), "image": (8, 8, 1), "rows": (8, 8)}[name]
    return _split((images / 16 if name == "raw" else flat).reshape(-1, *shaped).astype("float32"), labels)


def _friedman() -> Data:
    """Friedman 1991: ten uniform inputs, of which five count; the target is standardized."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(2 * TRAINING, 10))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    y = y + rng.standard_normal(len(y))
    return _split(standardized(x), standardized(y)[:, None], "r2")


def _linear() -> Data:
    """Three linear functions of twenty normal inputs, with noise of a tenth of their variance."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2 * TRAINING, 20))
    y = x @ rng.standard_normal((20, 3)) / np.sqrt(20)
    return _split(x.astype("float32"), (y + 0.3 * rng.standard_normal(y.shape)).astype("float32"), "r2")


def _tokens() -> Data:
    """Which of four marker tokens stands somewhere among sixteen tokens of noise."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(4, 30, (2 * TRAINING, 16)), rng.integers(0, 4, 2 * TRAINING)
    for place in range(3):  # three times, so that a few hundred examples are enough
        x[np.arange(len(x)), (rng.integers(0, 5, len(x)) + 5 * place)] = y
    return _split(x.astype("int32"), y)


def _bag() -> Data:
    """Two topics, each with its own frequencies of forty words."""
    rng = np.random.default_rng(0)
    topics, y = rng.dirichlet(np.ones(40), 2), rng.integers(0, 2, 2 * TRAINING)
    x = np.stack([rng.choice(40, 20, p=topics[topic]) for topic in y])
    return _split(x.astype("int32"), y.astype("float32")[:, None])
