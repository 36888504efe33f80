"""Whether `report.healthy`, which tables and figures show, and `diagnose` agree: ten models, seven of them published.

For each model: the layers that are judged, the range of their decades from where the signal enters, the layers that are
not healthy, and what `diagnose` says of signals and units. They agree where every layer that a finding names is not
healthy, and none is where nothing is found.

    KERAS_BACKEND=torch python benchmarks/health_agrees.py [names]
"""

import sys

import keras
import numpy as np
from keras import layers as L

import keras_initkit as ik
from keras_initkit.report._health import signal_decades

KINDS = {"vanishing_activation", "exploding_activation", "vanishing_gradient", "exploding_gradient"}
KINDS |= {"dead_units", "saturated_units", "nonfinite"}
LOSS = keras.losses.SparseCategoricalCrossentropy
APPLICATIONS = {"MobileNetV2": 64, "ResNet50": 64, "DenseNet121": 64, "EfficientNetB0": 64, "Xception": 71, "VGG16": 64}


def application(name):
    size = APPLICATIONS[name]
    model = getattr(keras.applications, name)(input_shape=(size, size, 3), weights=None, classes=10)
    return model, np.random.default_rng(0).standard_normal((8, size, size, 3)).astype("float32"), LOSS()


def bert():
    import keras_hub

    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=100, num_layers=4, num_heads=4, hidden_dim=64, intermediate_dim=256, max_sequence_length=32
    )
    tokens = np.random.default_rng(0).integers(0, 100, (16, 32))
    x = {"token_ids": tokens, "segment_ids": np.zeros_like(tokens), "padding_mask": np.ones_like(tokens)}
    outputs = L.Dense(10, name="head")(backbone.output["pooled_output"])
    return keras.Model(backbone.input, outputs), x, LOSS(from_logits=True)


def dense(activation, initializer, depth):
    hidden = [L.Dense(64, activation, kernel_initializer=initializer, name=f"hidden_{i}") for i in range(depth)]
    model = keras.Sequential([keras.Input((32,)), *hidden, L.Dense(10, name="head")])
    return model, np.random.default_rng(0).standard_normal((128, 32)).astype("float32"), LOSS(from_logits=True)


def lstm():
    stack = [L.LSTM(32, return_sequences=i < 5, name=f"lstm_{i}") for i in range(6)]
    model = keras.Sequential([keras.Input((20, 16)), *stack, L.Dense(10, name="head")])
    return model, np.random.default_rng(0).standard_normal((32, 20, 16)).astype("float32"), LOSS(from_logits=True)


MODELS = {name: lambda name=name: application(name) for name in APPLICATIONS} | {
    "BERT, 4 blocks": bert,
    "LSTM, 6 layers": lstm,
    "10 relu layers, glorot_uniform": lambda: dense("relu", "glorot_uniform", 10),
    "10 relu layers, stddev 0.05": lambda: dense("relu", keras.initializers.RandomNormal(stddev=0.05), 10),
    "10 relu layers, stddev 0.6": lambda: dense("relu", keras.initializers.RandomNormal(stddev=0.6), 10),
    "8 sigmoid layers": lambda: dense("sigmoid", "glorot_uniform", 8),
}


def span(decades):
    values = list(decades.values())
    return f"{min(values):.1f} to {max(values):.1f}" if values else "-"


def main(names):
    print("| model | judged of | forward, decades | backward, decades | not healthy | findings | agree |")
    print("|---|---|---|---|---|---|---|")
    disagree = 0
    for name, make in MODELS.items():
        if names and not any(each in name for each in names):
            continue
        keras.utils.set_random_seed(0)
        model, x, loss = make()
        examples = len(keras.tree.flatten(x)[0])
        report = ik.probe(model, x, np.arange(examples) % 10, loss=loss)
        found = [f for f in ik.diagnose(report, model=model) if f.severity != "info" and f.kind in KINDS]
        healthy = report.healthy
        bad = [layer for layer, is_healthy in healthy.items() if not is_healthy]
        agree = all(healthy.get(f.layer) is False for f in found) and bool(bad) == bool(found)
        disagree += not agree
        forward, backward = map(span, signal_decades(report))
        said = ", ".join(f"{f.kind} in {f.layer}" for f in found) or "none"
        row = [f"{len(healthy)} of {len(report)}", forward, backward, str(len(bad)), said, "yes" if agree else "NO"]
        print("|", " | ".join([name, *row]), "|", flush=True)
    return disagree


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
