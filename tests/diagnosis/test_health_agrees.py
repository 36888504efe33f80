"""`report.healthy`, which tables and figures show, and `diagnose` judge by one rule."""

import io
import re

import keras
import numpy as np
import pytest
from keras import layers as L
from rich.console import Console

from keras_initkit import diagnose, probe
from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.report._health import signal_entries

pytestmark = pytest.mark.one_backend

KINDS = {"vanishing_activation", "exploding_activation", "vanishing_gradient", "exploding_gradient"}
KINDS |= {"dead_units", "saturated_units", "nonfinite"}
IMAGES = np.random.default_rng(0).standard_normal((16, 16, 16, 3)).astype("float32")
X = np.random.default_rng(0).standard_normal((128, 32)).astype("float32")


def normal(stddev):
    return keras.initializers.RandomNormal(stddev=stddev, seed=1)


def mlp(activation, initializer, depth=8, head=None, **options):
    hidden = [L.Dense(64, activation, kernel_initializer=initializer, name=f"h{i}", **options) for i in range(depth)]
    return keras.Sequential([keras.Input((32,)), *hidden, L.Dense(10, head, name="head")]), X


def pooled():
    convolutions = [L.Conv2D(8, 3, padding="same", activation="relu", kernel_initializer="he_normal") for _ in range(4)]
    stack = [*convolutions, L.GlobalAveragePooling2D(), L.Dense(10, "softmax", name="head")]
    return keras.Sequential([keras.Input((16, 16, 3)), *stack]), IMAGES


def residual(scale):
    x = inputs = keras.Input((32,))
    x = L.Dense(32, name="stem")(x)
    for i in range(6):
        y = L.Dense(32, "relu", kernel_initializer="he_normal")(x)
        x = L.Add(name=f"sum_{i}")([x, L.Dense(32, kernel_initializer=normal(scale))(y)])
    return keras.Model(inputs, L.Dense(10, name="head")(x)), X


def normalized(features="he_normal"):
    x = inputs = keras.Input((16, 16, 3))
    for i in range(5):
        x = L.Conv2D(8, 3, padding="same", kernel_initializer=normal(3.0))(x)
        x = L.ReLU()(L.BatchNormalization(name=f"norm_{i}")(x))
    x = L.Dense(16, "relu", kernel_initializer=features, name="features")(L.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, L.Dense(10, name="head")(x)), IMAGES


def before_branches():
    x = inputs = keras.Input((32,))
    x = L.Dense(32, kernel_initializer=normal(1e-4), name="stem")(x)
    for i in range(3):
        y = L.Dense(32, "relu", kernel_initializer="he_normal")(L.LayerNormalization()(x))
        x = L.Add(name=f"sum_{i}")([x, L.Dense(32, kernel_initializer=normal(1e-3))(y)])
    return keras.Model(inputs, L.Dense(10, name="head")(x)), X


MODELS = {
    "relu": lambda: mlp("relu", "he_normal"),
    "relu, glorot": lambda: mlp("relu", "glorot_uniform"),
    "softmax head": lambda: mlp("tanh", "glorot_uniform", head="softmax"),
    "pooled": pooled,
    "normalized": normalized,
    "residual": lambda: residual(0.02),
    "zero branches": lambda: residual(0.0),
    "zero head": lambda: (lambda pair: (pair[0].layers[-1].kernel.assign(np.zeros((64, 10))), pair)[1])(
        mlp("relu", "he_normal")
    ),
    "broken: small": lambda: mlp("relu", normal(0.02)),
    "broken: large": lambda: mlp("relu", normal(2.0)),
    "broken: sigmoid": lambda: mlp("sigmoid", "glorot_uniform"),
    "broken: residual": lambda: residual(3.0),
    "broken: dead": lambda: mlp("relu", "he_normal", 4, bias_initializer=keras.initializers.Constant(-100.0)),
    "broken: small after a normalization": lambda: normalized(normal(1e-4)),
    "broken: large after a normalization": lambda: normalized(normal(1e4)),
    "broken: saturated": lambda: mlp("tanh", normal(10.0), 4),
}


def marked(report):
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="standard")
    console.print(report)
    return re.findall(r"\x1b\[(?:1;)?3[13]m", console.file.getvalue())


@pytest.mark.parametrize("name", sorted(MODELS))
def test_healthy_agrees_with_diagnose(name):
    keras.utils.set_random_seed(0)
    model, x = MODELS[name]()
    report = probe(
        model, x, np.arange(len(x)) % 10, loss=keras.losses.SparseCategoricalCrossentropy(name != "softmax head")
    )
    found = [each for each in diagnose(report, model=model) if each.severity != "info" and each.kind in KINDS]
    bad = [layer for layer, healthy in report.healthy.items() if not healthy]
    assert bool(found) == bool(bad) == bool(marked(report)) == name.startswith("broken"), (found, bad)
    assert {each.layer for each in found} <= set(bad)


def test_a_run_s_reports_are_judged_like_a_probe():
    keras.utils.set_random_seed(0)
    for name in ("relu", "broken: small", "pooled"):
        model, x = MODELS[name]()
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=name != "pooled"))
        stats = LayerStatsCallback(None, on_finding=lambda finding: None)
        model.fit(x, np.arange(len(x)) % 10, epochs=1, verbose=0, callbacks=[stats])
        healthy = stats.reports[0].healthy
        assert list(healthy) == [layer.name for layer in model.layers if layer.weights][: len(healthy)]
        assert all(healthy.values()) == (not name.startswith("broken"))


def test_a_signal_enters_at_a_normalization_but_not_at_that_of_a_branch():
    entries, _ = signal_entries(probe(*normalized()))
    assert entries == {"features": ("norm_4", 1.0)}
    entries, _ = signal_entries(probe(*before_branches()))
    assert {entry.layer for entry in entries.values()} == {"stem"}
    assert {"stem", "sum_0", "sum_2"} <= set(entries)
