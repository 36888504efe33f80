"""
Batch normalization rescues bad weights
=======================================

Weights of N(0, 0.01) lose the signal of a six-layer network, weights of N(0, 1) saturate or blow it up. A batch
normalization before each activation divides whatever scale the weights have out again (Ioffe and Szegedy 2015).
"""

# %%
# Eight networks: two activations, two bad scales, without and with normalization. Before training, the activations of
# each layer; then the same training for all. (Keras adds an epsilon of 0.001 to the variance that it divides by, which
# is why the layers after sd 0.01 come out a little smaller.)
import re

import keras
import matplotlib.pyplot as plt

import keras_initkit as ik
from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.examples import start

example = start("batch_norm_rescue", epochs=10, width=128, activations="tanh,relu")
activations = example.options.activations.split(",")
images = example.images(examples=1500)


def network(activation, sd, normalized):
    """Six times Dense, perhaps BatchNormalization, and the activation; a classifier."""
    normal = keras.initializers.RandomNormal
    layers = [keras.Input(images.x_train.shape[1:]), keras.layers.Flatten()]
    for i in range(6):
        layers.append(keras.layers.Dense(example.options.width, kernel_initializer=normal(stddev=sd)))
        if normalized:
            layers.append(keras.layers.BatchNormalization())
        layers.append(keras.layers.Activation(activation, name=f"activation_{i + 1}"))
    layers.append(keras.layers.Dense(images.classes, "softmax", kernel_initializer=normal(stddev=sd)))
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


cases = [(activation, sd, bn) for activation in activations for sd in (0.01, 1.0) for bn in (False, True)]
rows, curves = [], {}
for activation, sd, normalized in example.track(cases, "training"):
    model = network(activation, sd, normalized)
    report = ik.probe(model, images.x_train[:256], images.y_train[:256])
    layers = [r.moments.stddev for r in report.rows if r.tap.kind == "output" and r.tap.layer.startswith("activation")]
    run = f"{activation}_sd_{sd:g}" + "_normalized" * normalized
    history = model.fit(
        images.x_train,
        images.y_train,
        batch_size=64,
        epochs=example.options.epochs,
        callbacks=[LayerStatsCallback(example.log_dir(run), layers=re.compile("dense"), on_finding="ignore")],
        verbose=0,
    ).history
    curves[activation, sd, normalized] = (layers, history["loss"])
    rows.append(
        {
            "activation": activation,
            "weights' sd": sd,
            "norm.": "yes" if normalized else "no",
            "sd, layer 1": layers[0],
            "sd, layer 6": layers[-1],
            "loss": history["loss"][-1],
            "test accuracy": model.evaluate(images.x_test, images.y_test, batch_size=64, verbose=0)[1],
        }
    )
example.table(rows)
example.found(
    runs=[{**row, "sd": layers, "loss": loss} for row, (layers, loss) in zip(rows, curves.values(), strict=True)]
)

# %%
# Above the activations before training, below the training loss.
figure, panels = plt.subplots(2, len(activations), figsize=(8, 5.4), layout="constrained", squeeze=False)
for (activation, sd, normalized), (layers, loss) in curves.items():
    column = activations.index(activation)
    style = {
        "color": "C0" if sd < 0.1 else "C3",
        "linestyle": "-" if normalized else ":",
        "marker": "o" if normalized else "x",
        "label": f"sd {sd:g}, {'with' if normalized else 'without'} normalization",
    }
    panels[0, column].plot(range(1, 7), layers, **style)
    panels[1, column].plot(range(1, len(loss) + 1), loss, **style)
    panels[0, column].set(title=activation, xlabel="layer", yscale="log")
    panels[1, column].set(xlabel="epoch", yscale="log")
panels[0, 0].set_ylabel("activations' sd")
panels[1, 0].set_ylabel("training loss")
figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
example.figure(
    figure,
    "Solid: with normalization each layer's activations have the same size whatever the weights' sd, and the loss "
    "falls. Dotted, without: sd 0.01 sends no signal, and the loss stays at ln 10 = 2.3, or long near it; sd 1 "
    "saturates tanh and blows up relu, and the loss starts high.",
)
