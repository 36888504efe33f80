"""The data sets that initializers are compared on.

`digits.npz` holds 1,797 images of 8 x 8 pixels from 0 to 16, and their classes. Source: E. Alpaydin and C. Kaynak,
1998, Optical Recognition of Handwritten Digits (the test set), UCI Machine Learning Repository,
https://doi.org/10.24432/C50P49, licensed under CC BY 4.0. They are the images and the order of scikit-learn's
`load_digits`.
"""

from __future__ import annotations

import importlib.resources
import math
import os
from dataclasses import dataclass

import keras
import numpy as np

NAMES = ("digits", "gaussian", "mnist")
SHAPE = (64, 32)  # of the images in the experiments that this package reproduces


@dataclass(frozen=True)
class Dataset:
    """Examples, float32 `(examples, ...)`, standardized by the training set, with int64 class numbers from 0."""

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(max(self.y_train.max(), self.y_test.max())) + 1

    @property
    def chance(self) -> float:
        """Test accuracy of always naming the most frequent training class."""
        return float((self.y_test == np.bincount(self.y_train).argmax()).mean())


class ShuffledBatches(keras.utils.PyDataset):
    """Training batches in a new order for every epoch, which follows from the seed alone."""

    def __init__(self, x: np.ndarray, y: np.ndarray, batch_size: int, seed: int):
        super().__init__()
        self._x, self._y, self._batch_size = x, y, batch_size
        self._rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self._x) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        return self._x[chosen], self._y[chosen]

    def on_epoch_end(self) -> None:
        """Shuffles for the next epoch."""
        self._order = self._rng.permutation(len(self._x))


def load(data: str, seed: int = 0) -> Dataset:
    """Loads a data set by its name or from a file.

    Args:
        data: String. `"digits"`: 1,797 handwritten digits, each pixel repeated to 64 x 32. `"gaussian"`: 1,500 images
            of independent N(0, 1) pixels, labeled by a random linear teacher. `"mnist"`: through `keras.datasets`,
            which downloads it. Otherwise the path of an `.npz` file with arrays `x`, of shape `(examples, ...)`, and
            `y`, class numbers of shape `(examples,)`.
        seed: Integer. Seed of the split into training and test examples (4 : 1) and of the Gaussian data.
    """
    if data == "mnist":
        return _standardized(data, *_mnist())
    if data == "digits":
        x, y = _digits()
    elif data == "gaussian":
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((1500, *SHAPE))
        y = (x.reshape(1500, -1) @ rng.standard_normal((x[0].size, 10))).argmax(axis=1)
    else:
        x, y = _file(data)
    train, test = split(y, seed)
    return _standardized(data, x[train], y[train], x[test], y[test])


def split(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the training and of the test examples, 4 : 1; in large enough classes in that ratio too.

    The draws are those of scikit-learn's `train_test_split(test_size=0.2, random_state=seed)`, with `stratify=y` if
    every class has two examples or more and there are five examples for each class.
    """
    rng = np.random.RandomState(seed)
    counts = np.bincount(y)
    test_size = math.ceil(0.2 * len(y))
    if counts.min() < 2 or len(y) < 5 * len(counts):
        order = rng.permutation(len(y))
        return order[test_size:], order[:test_size]
    in_train = _shares(counts, len(y) - test_size, rng)
    in_test = _shares(counts - in_train, test_size, rng)
    train, test = [], []
    for label, (first, second) in enumerate(zip(in_train, in_test, strict=True)):
        members = rng.permutation(np.flatnonzero(y == label))
        train.append(members[:first])
        test.append(members[first : first + second])
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))


def _shares(counts: np.ndarray, number: int, rng: np.random.RandomState) -> np.ndarray:
    """How many of `number` examples each class gives; what rounding leaves goes to the largest remainders."""
    exact = counts / counts.sum() * number
    shares = np.floor(exact)
    remainders = exact - shares
    for remainder in np.unique(remainders)[::-1]:
        missing = int(number - shares.sum())
        if missing <= 0:
            break
        equal = np.flatnonzero(remainders == remainder)
        shares[rng.permutation(equal)[:missing]] += 1
    return shares.astype(int)


def _standardized(
    name: str, x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray
) -> Dataset:
    mean, deviation = x_train.mean(), x_train.std() or 1.0
    x_train, x_test = (((x - mean) / deviation).astype("float32") for x in (x_train, x_test))
    return Dataset(name, x_train, y_train.astype("int64"), x_test, y_test.astype("int64"))


def _digits() -> tuple[np.ndarray, np.ndarray]:
    file = importlib.resources.files("keras_initkit.comparison").joinpath("digits.npz")
    with file.open("rb") as opened, np.load(opened) as digits:
        x, y = digits["x"], digits["y"].astype("int64")
    height, width = x.shape[1:]
    return np.kron(x, np.ones((SHAPE[0] // height, SHAPE[1] // width))), y


def _mnist() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    except Exception as error:  # whatever the download raises
        raise ValueError(
            f"data: 'mnist' could not be loaded through keras.datasets ({' '.join(str(error).split())[:200]}). "
            "Connect to the internet, or give a file: --data FILE.npz with arrays x and y."
        ) from error
    return x_train.astype("float64"), y_train, x_test.astype("float64"), y_test


def _file(path: str) -> tuple[np.ndarray, np.ndarray]:
    expected = "expected an .npz file with arrays x, (examples, ...), and y, class numbers (examples,)"
    if not os.path.exists(path):
        names = ", ".join(map(repr, NAMES))
        raise ValueError(f"data: got {path!r}, which is neither one of {names} nor a file that exists; {expected}.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            x, y = np.asarray(arrays["x"]), np.asarray(arrays["y"])
    except Exception as error:  # whatever a damaged file makes of NumPy, zipfile and zlib
        raise ValueError(f"data: cannot read {path!r} ({' '.join(str(error).split())}); {expected}.") from error
    if y.ndim != 1 or x.ndim < 2 or len(x) != len(y) or (len(x) and not x[0].size):
        raise ValueError(f"data: {path!r} holds x of shape {x.shape} and y of shape {y.shape}; {expected}.")
    if not np.issubdtype(x.dtype, np.number) or np.issubdtype(x.dtype, np.complexfloating):
        raise ValueError(f"data: {path!r} holds x of dtype {x.dtype}; expected real numbers.")
    x = x.astype("float64")
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x)).sum())
        raise ValueError(f"data: x in {path!r} has {bad} NaN or infinite values; expected none.")
    real = np.issubdtype(y.dtype, np.integer) or np.issubdtype(y.dtype, np.floating)
    if not real or not np.isfinite(y).all() or (y != np.round(y)).any() or (y < 0).any():
        raise ValueError(f"data: y in {path!r} is not class numbers 0, 1, 2, ... (dtype {y.dtype}); {expected}.")
    if len(y) < 10 or len(np.unique(y)) < 2:
        raise ValueError(
            f"data: {path!r} holds {len(y)} examples of {len(np.unique(y))} classes; "
            "expected at least 10 examples and 2 classes."
        )
    return x, np.unique(y, return_inverse=True)[1]  # 0, 5, 9 are three classes; the model needs no other units
