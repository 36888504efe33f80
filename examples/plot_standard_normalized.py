"""
Standard against normalized initialization
==========================================

Glorot and Bengio (2010), figures 6 and 7: under the weights that were standard then, activations shrink from layer to
layer on the way up and gradients on the way down. Their normalized initialization, Keras' `glorot_uniform`, keeps both.
"""

# %%
# Five tanh layers, one forward and one backward pass. The standard is U(-1/sqrt(n), 1/sqrt(n)), of variance 1/(3n);
# the normalized U(-sqrt(6/(n + n')), sqrt(6/(n + n'))), of variance 2/(n + n'), n' being the fan-out.
import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_initkit as ik
from keras_initkit.examples import start

example = start("standard_normalized", width=1000)
images = example.images()
x, y = images.x_train[:300], images.y_train[:300]
names = {"standard": "keras_initkit>StandardUniform", "normalized": "glorot_uniform"}


def network(initializer):
    """Flatten, five tanh layers and a classifier."""
    widths = [example.options.width] * 5
    hidden = [
        keras.layers.Dense(units, "tanh", kernel_initializer=initializer, name=f"layer_{i + 1}")
        for i, units in enumerate(widths)
    ]
    classifier = keras.layers.Dense(images.classes, "softmax", kernel_initializer=initializer)
    return keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Flatten(), *hidden, classifier])


models = {name: network(initializer) for name, initializer in names.items()}
reports = {name: ik.probe(model, x, y, loss="sparse_categorical_crossentropy") for name, model in models.items()}


def tensors(name, kind, tensor=""):
    """The five layers' rows of one kind."""
    rows = [row for row in reports[name].rows if row.tap.kind == kind and row.tap.layer.startswith("layer_")]
    return [row for row in rows if row.tap.name == tensor]


# %%
# The paper's formulas (5 and 6), where tanh is taken for the identity: on its way down from layer i + 1 to layer i
# the variance of dCost/ds is multiplied by n Var W of layer i + 1, n being its fan-out; the variance of the
# activations on its way up by n Var W, n being the fan-in. dCost/dW is made of both. The measured variances at the two
# ends, layer 1's input and layer 5, are where they start from.
rows = []
for name, model in models.items():
    kernels = [model.get_layer(f"layer_{i + 1}").get_weights()[0] for i in range(5)]
    up = [kernel.shape[0] * kernel.var() for kernel in kernels]
    down = [kernel.shape[1] * kernel.var() for kernel in kernels]
    at_sums = [row.moments.variance for row in tensors(name, "pre_activation_gradient")]
    at_weights = [row.moments.variance for row in tensors(name, "weight_gradient", "kernel")]
    activations = [row.moments.variance for row in tensors(name, "output")]
    for i in range(5):
        # What is above layer i, and what is below it, beside what is above and below layer 5.
        above, below = np.prod(down[i + 1 :]), np.prod(up[i:4])
        rows.append(
            {
                "weights": name,
                "layer": i + 1,
                "Var of activations": activations[i],
                "Var dCost/ds": at_sums[i],
                "formula (s)": at_sums[4] * above,
                "Var dCost/dW": at_weights[i],
                "formula (W)": at_weights[4] * above / below,
            }
        )
example.table(rows)
example.found(layers=rows)

# %%
# Histograms of the activations and of the gradients that come back to them.
figure, panels = plt.subplots(2, 2, figsize=(8, 5), layout="constrained", sharex="row")
for column, name in zip(panels.T, names, strict=True):
    for panel, kind in zip(column, ("output", "output_gradient"), strict=True):
        for i, row in enumerate(tensors(name, kind)):
            counts, edges = row.histogram
            density = np.array(counts) / sum(counts) / np.diff(edges)
            label = f"layer {i + 1}"
            panel.plot((np.array(edges[1:]) + edges[:-1]) / 2, density, ("-", "--", "-.", ":", "-")[i], label=label)
        panel.set(yscale="log", title=f"{name}: {'activations' if kind == 'output' else 'gradients'}")
        limit = 1 if kind == "output" else 4 * max(r.moments.stddev for n in names for r in tensors(n, kind))
        panel.set_xlim(-limit, limit)
        panel.grid(alpha=0.3)
    column[0].set_xticks((-1, -0.5, 0, 0.5, 1))
    column[1].ticklabel_format(axis="x", scilimits=(-3, 3))
panels[0, 0].set_ylabel("density")
panels[1, 0].set_ylabel("density")
figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
example.figure(
    figure,
    "Left: under the standard weights each layer's activations are narrower than those below, and gradients narrower "
    "towards layer 1. Right: normalized, all layers have nearly the same distribution, up and down.",
)

# %%
# Variances by layer beside the formulas.
figure, panels = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
pairs = (("Var dCost/ds", "formula (s)"), ("Var dCost/dW", "formula (W)"))
for panel, (measured, formula) in zip(panels, pairs, strict=True):
    for color, name in zip(("C3", "C0"), names, strict=True):
        of = [row for row in rows if row["weights"] == name]
        panel.plot(range(1, 6), [row[measured] for row in of], "o", color=color, label=f"{name}, measured")
        panel.plot(range(1, 6), [row[formula] for row in of], "--", color=color, label=f"{name}, formula")
    panel.set(title=measured, yscale="log", xlabel="layer")
    panel.set_xticks(range(1, 6))
    panel.grid(alpha=0.3)
panels[0].set_ylabel("variance")
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
example.figure(
    figure,
    "Left: standard weights (vermilion) lose two thirds of the gradient's variance in each layer, and what tanh's "
    "slope, below 1, takes besides; normalized ones that alone. Right: the gradient of the weights is of one size in "
    "layers 2 to 5 under both, since what the standard loses on the way down it has not yet lost on the way up. Layer "
    "1 has other inputs, and fewer.",
    part="variance",
)
