"""
Six layers, three widths of a Gaussian
======================================

The first experiment of every lecture on initialization: a six-layer tanh network with weights of N(0, sd). Too narrow,
and the activations collapse to zero; too wide, and they sit at -1 and 1; the gradients pay for either.
"""

# %%
# One batch forward and backward through the same network, its weights drawn with three standard deviations. `probe`
# reads every layer on the way.
import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_initkit as ik
from keras_initkit.examples import start

example = start("six_layers", width=512)
images = example.images()
x, y = images.x_train[:512], images.y_train[:512]


def network(sd):
    """Flatten, six tanh layers and a classifier."""
    normal = keras.initializers.RandomNormal
    widths = [example.options.width] * 6
    hidden = [
        keras.layers.Dense(units, "tanh", kernel_initializer=normal(stddev=sd), name=f"layer_{i + 1}")
        for i, units in enumerate(widths)
    ]
    classifier = keras.layers.Dense(images.classes, "softmax", kernel_initializer=normal(stddev=sd))
    return keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Flatten(), *hidden, classifier])


sds = (0.01, 0.05, 1.0)
reports = {sd: ik.probe(network(sd), x, y, loss="sparse_categorical_crossentropy") for sd in sds}

# %%
# Mean-field theory knows beforehand what comes out: the variance that enters layer l is
# q = fan_in sd² E[tanh(z)²], z ~ N(0, q of the layer before). The probe sets it beside what it measures.


def hidden(sd, kind):
    """The six layers' rows of one kind of tensor."""
    return [row for row in reports[sd].rows if row.tap.kind == kind and row.tap.layer.startswith("layer_")]


rows = [
    {
        "weights' sd": sd,
        "layer": output.tap.layer,
        "activations' sd": output.moments.stddev,
        "predicted": np.sqrt(output.predicted.variance),
        "saturated": output.saturated,
        "gradients' sd": gradient.moments.stddev,
    }
    for sd in sds
    for output, gradient in zip(hidden(sd, "output"), hidden(sd, "output_gradient"), strict=True)
]
example.table(rows)
example.found(layers=rows)

# %%
# Activations, layer by layer, on the same axis from -1 to 1.


def histograms(kind, title, limits):
    """A row for each width of the Gaussian, a column for each layer."""
    figure, panels = plt.subplots(3, 6, figsize=(8, 4.2), layout="constrained")
    figure.suptitle(title)
    for sd, row in zip(sds, panels, strict=True):
        row[0].set_ylabel(f"weights' sd\n{sd:g}")
        tensors = hidden(sd, kind)
        limit = limits or 3 * max(tensor.moments.stddev for tensor in tensors)
        for panel, tensor in zip(row, tensors, strict=True):
            counts, edges = tensor.histogram
            panel.stairs(counts, edges, fill=True, color="C0")
            panel.vlines(edges[:-1], 0, counts, "C0", linewidth=1)  # a spike narrower than a pixel is seen too
            panel.set(xlim=(-limit, limit), xticks=(-limit, limit), yticks=())
            panel.set_xticklabels([f"{-limit:.1g}", f"{limit:.1g}"], fontsize=7)
            panel.set_title(f"{tensor.tap.layer.replace('_', ' ')}\nsd {tensor.moments.stddev:.2g}", fontsize=8)
    return figure


example.figure(
    histograms("output", "Activations", limits=1),
    "Top: with sd 0.01 each layer shrinks the signal to a quarter, a spike at 0 is left. Middle: with 0.05 it stays "
    "spread. Bottom: with sd 1 nearly all units sit at -1 or 1, where tanh has no slope.",
)

# %%
# Gradients on their way back, from layer 6 to layer 1, each row on one axis.
example.figure(
    histograms("output_gradient", "Gradients of the loss with respect to the activations", limits=None),
    "Read from right to left. Top: with sd 0.01 the gradient is gone before it reaches layer 1. Middle: with 0.05 it "
    "keeps its size. Bottom: with sd 1 it grows on the way back, in spite of the saturation: the few units that are "
    "not saturated pass on 512 large weights each.",
    part="gradients",
)
