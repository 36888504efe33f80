"""80 programs whose head, loss, labels or data do not fit each other, each beside its sound twin.

Ten kinds of fault on eight tasks each: classification, regression, sequences and images, from one unit to 100 classes.
Every program is diagnosed before training. Counted are the faults whose first finding has the right kind, and the sound
twins with an error.

    python benchmarks/task_faults.py [--out task_faults.json] [--only KIND]
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers as L

import keras_initkit

EXAMPLES = 208


class Program(NamedTuple):
    """A program: a model that is compiled, and its data.

    Args:
        model: Keras model.
        x: Inputs.
        y: Labels.
        fit: Options of `fit`, where the fault is in training itself; `None` where the model is only diagnosed.
    """

    model: keras.Model
    x: Any
    y: Any
    fit: dict[str, Any] | None = None


class Setting(NamedTuple):
    """A body of a network and the inputs that it reads."""

    body: Callable[[], list[keras.layers.Layer]]
    shape: tuple[int, ...]
    per_position: bool = False


def dense() -> list[keras.layers.Layer]:
    return [L.Dense(32, "relu"), L.Dense(16, "relu")]


def tanh() -> list[keras.layers.Layer]:
    return [L.Dense(24, "tanh"), L.Dropout(0.2)]


def image() -> list[keras.layers.Layer]:
    return [L.Conv2D(8, 3, activation="relu"), L.MaxPooling2D(), L.Flatten(), L.Dense(32, "relu")]


def normed_image() -> list[keras.layers.Layer]:
    norm = [L.Conv2D(8, 3, padding="same"), L.BatchNormalization(), L.ReLU()]
    return [*norm, L.GlobalAveragePooling2D(), L.Dense(16, "gelu")]


def sequence() -> list[keras.layers.Layer]:
    return [L.LSTM(16), L.Dense(16, "relu")]


def positions() -> list[keras.layers.Layer]:
    return [L.Conv1D(16, 3, padding="same", activation="relu"), L.Dense(16, "relu")]


FLAT, TANH = Setting(dense, (12,)), Setting(tanh, (20,))
IMAGE, NORMED = Setting(image, (12, 12, 1)), Setting(normed_image, (10, 10, 3))
SEQUENCE, POSITIONS = Setting(sequence, (9, 5)), Setting(positions, (8, 6), True)


def inputs(setting: Setting, seed: int = 0, examples: int = EXAMPLES) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((examples, *setting.shape)).astype("float32")


def scores(setting: Setting, x: np.ndarray, units: int, seed: int = 1) -> np.ndarray:
    """Returns numbers of sd 1 that depend on the inputs, for each example or position."""
    flat = x if setting.per_position else x.reshape(len(x), -1)
    weights = np.random.default_rng(seed).standard_normal((flat.shape[-1], units)) / flat.shape[-1] ** 0.5
    return (flat @ weights).astype("float32")


def classes_of(setting: Setting, x: np.ndarray, count: int) -> np.ndarray:
    """Returns classes that depend on the inputs and are all there."""
    if count == 2:
        return (scores(setting, x, 1)[..., 0] > 0).astype("int64")
    labels = scores(setting, x, count).argmax(-1)
    labels.reshape(-1)[: 2 * count] = np.resize(np.arange(count), min(2 * count, labels.size))
    return labels


def model_of(setting: Setting, head: list[keras.layers.Layer], style: str, loss: Any, **options: Any) -> keras.Model:
    """Returns a compiled model, written as a chain, a graph, a nested model or a class."""
    keras.utils.set_random_seed(3)
    body = setting.body()
    if style == "class":
        model: keras.Model = Chain([*body, *head])
        model.build((None, *setting.shape))
    elif style == "nested":
        inner = keras.Sequential([keras.Input(setting.shape), *body])
        x = given = keras.Input(setting.shape)
        x = inner(x)
        for layer in head:
            x = layer(x)
        model = keras.Model(given, x)
    elif style == "graph":
        x = given = keras.Input(setting.shape)
        for layer in [*body, *head]:
            x = layer(x)
        model = keras.Model(given, x)
    else:
        model = keras.Sequential([keras.Input(setting.shape), *body, *head])
    model.compile(keras.optimizers.Adam(3e-3), loss, **options)
    return model


class Chain(keras.Model):
    """Layers one after another, as a class."""

    def __init__(self, chain: list[keras.layers.Layer]):
        super().__init__()
        self.chain = chain

    def build(self, input_shape: Any) -> None:
        """Builds the layers."""
        shape = input_shape
        for layer in self.chain:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        self.built = True

    def call(self, x: Any) -> Any:
        """Applies the layers."""
        for layer in self.chain:
            x = layer(x)
        return x


def head_of(units: int, activation: str | None, separate: bool = False) -> list[keras.layers.Layer]:
    if separate and activation:
        return [L.Dense(units), L.Activation(activation)]
    return [L.Dense(units, activation)]


Pair = tuple[Program, Program]
SPARSE, CATEGORICAL, BINARY = "sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy"


def softmax_of_one() -> Iterator[Pair]:
    for setting, style, separate in (
        (FLAT, "chain", False),
        (TANH, "graph", True),
        (IMAGE, "nested", False),
        (NORMED, "chain", True),
        (SEQUENCE, "class", False),
        (SEQUENCE, "graph", True),
        (POSITIONS, "chain", False),
        (POSITIONS, "nested", True),
    ):
        x = inputs(setting)
        y = classes_of(setting, x, 2)[..., None].astype("float32")
        yield tuple(
            Program(model_of(setting, head_of(1, activation, separate), style, BINARY), x, y)
            for activation in ("softmax", "sigmoid")
        )


def head_loss() -> Iterator[Pair]:
    logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    one = keras.losses.BinaryCrossentropy(from_logits=True)
    for setting, style, units, broken, sound, loss in (
        (FLAT, "chain", 5, "sigmoid", "softmax", SPARSE),
        (TANH, "graph", 10, "relu", "softmax", CATEGORICAL),
        (IMAGE, "class", 10, None, "softmax", SPARSE),
        (NORMED, "nested", 100, "softmax", None, logits),
        (SEQUENCE, "chain", 1, "relu", "sigmoid", BINARY),
        (SEQUENCE, "graph", 1, "sigmoid", None, one),
        (POSITIONS, "chain", 7, "tanh", "softmax", SPARSE),
        (POSITIONS, "class", 1, None, "sigmoid", BINARY),
    ):
        x = inputs(setting)
        y = classes_of(setting, x, max(units, 2))
        y = y[..., None].astype("float32") if units == 1 else np.eye(units)[y] if loss == CATEGORICAL else y
        yield tuple(
            Program(model_of(setting, head_of(units, activation, style == "graph"), style, loss), x, y)
            for activation in (broken, sound)
        )


def target_range() -> Iterator[Pair]:
    for setting, style, units, activation, change in (
        (FLAT, "chain", 1, "sigmoid", lambda z: 50 + 20 * z),
        (TANH, "graph", 3, "tanh", lambda z: 3 * z),
        (IMAGE, "class", 1, "relu", lambda z: z),
        (NORMED, "nested", 2, "softplus", lambda z: -abs(z)),
        (SEQUENCE, "chain", 1, "tanh", lambda z: 10 + z),
        (SEQUENCE, "graph", 4, "sigmoid", lambda z: z),
        (POSITIONS, "chain", 1, "relu", lambda z: z - 0.5),
        (POSITIONS, "nested", 2, "softsign", lambda z: 5 * z),
    ):
        x = inputs(setting)
        y = change(scores(setting, x, units))
        yield tuple(
            Program(model_of(setting, head_of(units, each, style == "graph"), style, "mse"), x, y)
            for each in (activation, None)
        )


def label_values() -> Iterator[Pair]:
    for setting, style, units, loss, change in (
        (FLAT, "chain", 4, SPARSE, lambda y: y + 1),
        (TANH, "graph", 10, SPARSE, lambda y: y * 2),
        (IMAGE, "class", 10, SPARSE, lambda y: y - 1),
        (NORMED, "nested", 1, BINARY, lambda y: 2 * y - 1),
        (SEQUENCE, "chain", 1, BINARY, lambda y: y * 255),
        (SEQUENCE, "graph", 100, SPARSE, lambda y: y + 1),
        (POSITIONS, "chain", 1, BINARY, lambda y: y + 1),
        (POSITIONS, "class", 5, CATEGORICAL, lambda y: 2 * y - 1),
    ):
        x = inputs(setting)
        y = classes_of(setting, x, max(units, 2))
        y = y[..., None] if units == 1 else np.eye(units)[y] if loss == CATEGORICAL else y
        activation = "sigmoid" if units == 1 else "softmax"
        head = [head_of(units, activation, style == "graph") for _ in range(2)]
        models = [model_of(setting, each, style, loss) for each in head]
        yield Program(models[0], x, change(y)), Program(models[1], x, y)


def label_shapes() -> Iterator[Pair]:
    for setting, style, units, loss, form in (
        (FLAT, "chain", 4, SPARSE, "one-hot"),
        (TANH, "graph", 10, CATEGORICAL, "integers"),
        (IMAGE, "class", 3, "mse", "first"),
        (NORMED, "nested", 100, CATEGORICAL, "integers"),
        (SEQUENCE, "chain", 1, "mae", "doubled"),
        (SEQUENCE, "graph", 6, SPARSE, "one-hot"),
        (POSITIONS, "chain", 1, "mse", "example"),
        (POSITIONS, "class", 5, CATEGORICAL, "integers"),
    ):
        x = inputs(setting)
        right = scores(setting, x, units)
        if loss in (SPARSE, CATEGORICAL):
            classes = classes_of(setting, x, units)
            right = classes if loss == SPARSE else np.eye(units)[classes]
        wrong = {
            "one-hot": lambda r=right, u=units: np.eye(u)[r],
            "integers": lambda r=right: r.argmax(-1),
            "first": lambda r=right: r[..., :1],
            "doubled": lambda r=right: np.concatenate([r, -r], -1),
            "example": lambda r=right: r.mean(1),
        }[form]()
        activation = None if loss in ("mse", "mae") else "softmax"
        models = [model_of(setting, head_of(units, activation), style, loss) for _ in range(2)]
        yield Program(models[0], x, wrong), Program(models[1], x, right)


def one_hot_sigmoid() -> Iterator[Pair]:
    for (setting, style), units in zip(
        (
            (FLAT, "chain"),
            (TANH, "graph"),
            (IMAGE, "class"),
            (NORMED, "nested"),
            (SEQUENCE, "chain"),
            (SEQUENCE, "graph"),
            (POSITIONS, "chain"),
            (POSITIONS, "class"),
        ),
        (3, 10, 10, 100, 4, 2, 7, 5),
        strict=True,
    ):
        x = inputs(setting)
        one_hot = np.eye(units)[classes_of(setting, x, units)]
        models = [
            model_of(setting, head_of(units, activation, style == "graph"), style, loss)
            for activation, loss in (("sigmoid", BINARY), ("softmax", CATEGORICAL))
        ]
        yield Program(models[0], x, one_hot), Program(models[1], x, one_hot)


def no_nonlinearity() -> Iterator[Pair]:
    def flat(activation: str | None, *units: int) -> Callable[[], list[keras.layers.Layer]]:
        return lambda: [L.Dense(each, activation) for each in units]

    def conv(activation: str | None) -> list[keras.layers.Layer]:
        return [L.Conv2D(8, 3, activation=activation), L.Conv2D(16, 3, activation=activation), L.Flatten()]

    def conv1d(activation: str | None) -> list[keras.layers.Layer]:
        return [L.Conv1D(16, 3, activation=activation), L.BatchNormalization(), L.GlobalAveragePooling1D()]

    def each(activation: str | None) -> list[keras.layers.Layer]:
        return [L.TimeDistributed(L.Dense(16, activation)), L.Dropout(0.1)]

    bodies: list[tuple[Callable, tuple[int, ...], str, int, Any]] = [
        (lambda a: flat(a, 64)(), (12,), "chain", 10, SPARSE),
        (lambda a: flat(a, 32, 32, 32)(), (20,), "graph", 1, "mse"),
        (lambda a: flat(a, 128, 64)(), (30,), "class", 100, SPARSE),
        (lambda a: [*flat(a, 32)(), L.Dropout(0.3)], (16,), "nested", 1, BINARY),
        (conv, (12, 12, 1), "chain", 10, SPARSE),
        (conv, (10, 10, 3), "graph", 1, "mae"),
        (conv1d, (9, 5), "chain", 4, SPARSE),
        (each, (8, 6), "graph", 3, SPARSE),
    ]
    for body, shape, style, units, loss in bodies:
        pair = []
        for activation in (None, "relu"):
            setting = Setting(lambda b=body, a=activation: b(a), shape, shape == (8, 6))
            x = inputs(setting)
            y = scores(setting, x, 1) if loss in ("mse", "mae") else classes_of(setting, x, max(units, 2))
            y = y[..., None].astype("float32") if loss == BINARY else y
            last = {"mse": None, "mae": None, BINARY: "sigmoid"}.get(loss, "softmax")
            pair.append(Program(model_of(setting, head_of(units, last), style, loss), x, y))
        yield tuple(pair)


def normalization_of_one() -> Iterator[Pair]:
    def squeezed(norm: Callable[[], keras.layers.Layer], units: int) -> Callable[[], list[keras.layers.Layer]]:
        return lambda: [L.Dense(16, "relu"), L.Dense(units), norm(), L.Dense(8, "relu")]

    def pooled(groups: int) -> Callable[[], list[keras.layers.Layer]]:
        return lambda: [
            L.Conv2D(8, 3, activation="relu"),
            L.GlobalAveragePooling2D(keepdims=True),
            L.GroupNormalization(groups),
            L.Flatten(),
        ]

    layer, group = L.LayerNormalization, lambda: L.GroupNormalization(1)
    for broken, sound, shape, style, units, loss in (
        (squeezed(layer, 1), squeezed(layer, 6), (12,), "chain", 1, "mse"),
        (squeezed(layer, 1), squeezed(layer, 6), (12,), "graph", 10, SPARSE),
        (squeezed(group, 1), squeezed(group, 4), (20,), "class", 3, SPARSE),
        (squeezed(layer, 1), squeezed(layer, 3), (8, 6), "chain", 5, SPARSE),
        (pooled(8), pooled(2), (12, 12, 1), "chain", 10, SPARSE),
        (pooled(-1), pooled(4), (10, 10, 3), "graph", 1, "mse"),
        (squeezed(layer, 1), squeezed(layer, 3), (9, 5), "graph", 2, SPARSE),
        (squeezed(layer, 1), squeezed(layer, 8), (30,), "nested", 100, SPARSE),
    ):
        pair = []
        for body in (broken, sound):
            setting = Setting(body, shape, shape in ((8, 6), (9, 5)))
            x = inputs(setting)
            y = scores(setting, x, 1) if loss == "mse" else classes_of(setting, x, units)
            last = None if loss == "mse" else "softmax"
            pair.append(Program(model_of(setting, head_of(units, last), style, loss), x, y))
        yield tuple(pair)


def constant_input() -> Iterator[Pair]:
    def with_nan(x: np.ndarray) -> np.ndarray:
        x = x.copy()
        x.reshape(len(x), -1)[5:9, 2] = np.nan
        return x

    changes: list[Callable[[np.ndarray], np.ndarray]] = [
        lambda x: 0 * x,
        with_nan,
        lambda x: np.ones_like(x),
        lambda x: np.broadcast_to(x[:1], x.shape).copy(),
        with_nan,
        lambda x: 0 * x,
        with_nan,
        lambda x: np.broadcast_to(x[:1], x.shape).copy(),
    ]
    settings = (FLAT, TANH, IMAGE, NORMED, SEQUENCE, SEQUENCE, POSITIONS, POSITIONS)
    styles = ("chain", "graph", "class", "nested", "chain", "graph", "chain", "class")
    for setting, style, change, units in zip(settings, styles, changes, (1, 3, 10, 100, 1, 5, 4, 1), strict=True):
        x = inputs(setting)
        regression = units == 1
        y = scores(setting, x, 1) if regression else classes_of(setting, x, units)
        loss, last = ("mse", None) if regression else (SPARSE, "softmax")
        models = [model_of(setting, head_of(units, last), style, loss) for _ in range(2)]
        yield Program(models[0], change(x), y), Program(models[1], x, y)


def unshuffled() -> Iterator[Pair]:
    """Labels in order that `fit` is told not to shuffle; the twin is told to."""
    styles = ("chain", "graph", "class", "nested", "chain", "graph", "chain", "graph")
    settings = (FLAT, TANH, IMAGE, NORMED, SEQUENCE, SEQUENCE, FLAT, TANH)
    for setting, style, units in zip(settings, styles, (2, 5, 10, 10, 3, 1, 100, 1), strict=True):
        count = 16 * max(units, 24)
        x = inputs(setting, examples=count)
        y = np.sort(np.arange(count) % max(units, 2))
        x = x + scores(setting, x, 1).mean() * 0 + (y / max(units, 2)).reshape(-1, *[1] * len(setting.shape))
        x = x.astype("float32")
        loss, last = (BINARY, "sigmoid") if units == 1 else (SPARSE, "softmax")
        labels = y[:, None].astype("float32") if units == 1 else y
        models = [model_of(setting, head_of(units, last), style, loss) for _ in range(2)]
        yield tuple(
            Program(model, x, labels, {"shuffle": shuffle, "batch_size": 32, "epochs": 1})
            for model, shuffle in zip(models, (False, True), strict=True)
        )


FAULTS: dict[str, tuple[str, Callable[[], Iterator[Pair]]]] = {
    "softmax over one unit": ("softmax_of_one", softmax_of_one),
    "head and loss": ("head_loss_mismatch", head_loss),
    "targets out of range": ("target_out_of_range", target_range),
    "label values": ("label_mismatch", label_values),
    "label shapes": ("label_mismatch", label_shapes),
    "one-hot and sigmoids": ("label_mismatch", one_hot_sigmoid),
    "no activation": ("linear_stack", no_nonlinearity),
    "normalization over one": ("normalization_of_one", normalization_of_one),
    "constant or NaN inputs": ("constant_input", constant_input),
    "sorted data": ("unshuffled_labels", unshuffled),
}


def findings_of(program: Program) -> list[keras_initkit.diagnosis.Finding]:
    """Returns what is found before training, or, where the fault is in training, by the callback."""
    if program.fit is None:
        return list(keras_initkit.diagnose(program.model, program.x, program.y))
    from keras_initkit.callbacks import LayerStatsCallback

    callback = LayerStatsCallback(None, "batch", on_finding=lambda finding: None)
    program.model.fit(program.x, program.y, verbose=0, callbacks=[callback], **program.fit)
    return list(keras_initkit.diagnose(callback))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="a JSON file for all findings")
    parser.add_argument("--only", help="part of a fault's name")
    options = parser.parse_args()
    rows, table = [], {}
    for name, (kind, make) in FAULTS.items():
        if options.only and options.only not in name:
            continue
        first = errors = total = 0
        for number, (broken, sound) in enumerate(make()):
            found, silent = findings_of(broken), findings_of(sound)
            wrong = [f"{each.kind} in {each.layer}" for each in silent if each.severity == "error"]
            is_first = bool(found) and found[0].kind == kind
            first, errors, total = first + is_first, errors + bool(wrong), total + 1
            kinds = [f"{each.severity} {each.kind} in {each.layer}" for each in found]
            rows.append({"fault": name, "number": number, "found": kinds, "sound": wrong})
            if not is_first or wrong:
                print(f"{name} {number}: found {kinds[:4]}; errors on the twin: {wrong}")
            keras.backend.clear_session(free_memory=False)
        table[name] = (kind, total, first, errors)
    print("\n| fault | kind | programs | named first | errors on the twin |\n|---|---|---|---|---|")
    for name, (kind, total, first, errors) in table.items():
        print(f"| {name} | `{kind}` | {total} | {first} | {errors} |")
    total, first, errors = (sum(row[place] for row in table.values()) for place in (1, 2, 3))
    print(f"| all | | {total} | {first} ({first / max(total, 1):.1%}) | {errors} |")
    if options.out:
        with open(options.out, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
