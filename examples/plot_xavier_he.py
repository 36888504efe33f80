r"""
Xavier for tanh, He for ReLU
============================

A layer computes :math:`z = W h` and passes on :math:`f(z)`. With :math:`n` inputs and independent weights of mean 0,

.. math::

    \operatorname{Var} z = n \operatorname{Var} W \; \mathbb{E}[h^2] .

Near 0 a tanh is the identity, so :math:`\mathbb{E}[h^2]` stays if :math:`\operatorname{Var} W = 1/n`. The gradient
comes back through the :math:`m` outputs, which asks for :math:`1/m`; Glorot and Bengio (2010) meet in the middle:
:math:`\operatorname{Var} W = 2/(n + m)`. A ReLU passes half of a symmetric signal on:
:math:`\mathbb{E}[\operatorname{relu}(z)^2] = \operatorname{Var}(z) / 2`. He et al. (2015) give that half back:
:math:`\operatorname{Var} W = 2/n`.
"""

# %%
# The same ten layers of equal width under the three pairs. `probe` measures; beside it stands what mean-field theory
# predicts: the formula above, with :math:`\mathbb{E}[f(z)^2]` by quadrature, layer after layer.
import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_initkit as ik
from keras_initkit.examples import start

example = start("xavier_he", width=512, layers=10)
images = example.images()
x, y = images.x_train[:512], images.y_train[:512]


def network(activation, initializer):
    """Flatten, layers of one width, a classifier."""
    hidden = [
        keras.layers.Dense(example.options.width, activation, kernel_initializer=initializer, name=f"layer_{i + 1}")
        for i in range(example.options.layers)
    ]
    classifier = keras.layers.Dense(images.classes, "softmax", kernel_initializer=initializer)
    return keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Flatten(), *hidden, classifier])


pairs = {"Xavier, tanh": ("tanh", "glorot_normal"), "Xavier, relu": ("relu", "glorot_normal")}
pairs["He, relu"] = ("relu", "he_normal")
rows = []
for name, pair in pairs.items():
    report = ik.probe(network(*pair), x, y, loss="sparse_categorical_crossentropy")
    outputs, gradients = (
        [row for row in report.rows if row.tap.kind == kind and row.tap.layer.startswith("layer_")]
        for kind in ("output", "output_gradient")
    )
    for depth, (output, gradient) in enumerate(zip(outputs, gradients, strict=True), 1):
        rows.append(
            {
                "": name,
                "layer": depth,
                "activations' sd": output.moments.stddev,
                "predicted": np.sqrt(output.predicted.variance),
                "gradients' sd": gradient.moments.stddev,
                # Theory starts from the last layer's gradient, as measured: what a softmax hands back is not predicted.
                "predicted ": np.sqrt((gradient.predicted or gradient.moments).variance),
            }
        )

# %%
# First and last layer. Down by :math:`\sqrt{2}` a layer is down by 23 after nine.
example.table([row for row in rows if row["layer"] in (1, example.options.layers)])
example.found(layers=rows)

# %%
figure, panels = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
columns = {"activations' sd": "predicted", "gradients' sd": "predicted "}
for panel, (column, predicted) in zip(panels, columns.items(), strict=True):
    for name, marker in zip(pairs, "osD", strict=True):
        of_pair = [row for row in rows if row[""] == name]
        layers = [row["layer"] for row in of_pair]
        panel.plot(layers, [row[column] for row in of_pair], marker, markersize=4, label=name)
        panel.plot(layers, [row[predicted] for row in of_pair], "k--", linewidth=0.8, zorder=0)
    panel.set(xlabel="layer", ylabel=column.replace("sd", "standard deviation"), yscale="log")
panels[0].set_title("forward: read from left to right")
panels[1].set_title("backward: read from right to left")
panels[0].plot([], [], "k--", linewidth=0.8, label="predicted")
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
example.figure(
    figure,
    "Xavier keeps a tanh network's signal, which falls only as tanh bends what is large, and loses half of a ReLU "
    "network's variance in each layer, forward and backward. He keeps both. The dashes are theory's.",
)
