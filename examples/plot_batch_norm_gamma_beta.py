"""
What gamma and beta are for
===========================

A normalized sigmoid is given N(0, 1), where it is nearly a straight line, and layers that are straight lines are one
line together. The scale gamma and the shift beta, which batch normalization learns, let each unit leave the line.
"""

# %%
# Of the variance of f(z), z ~ N(0, 1), the best straight line explains E[f']² / Var f.
import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_initkit as ik
from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.examples import start

example = start("batch_norm_gamma_beta", epochs=60)
images = example.images(examples=1400)
expectation = ik.theory.expectation
line = expectation("sigmoid", power=1, derivative=True) ** 2
line /= expectation("sigmoid") - expectation("sigmoid", power=1) ** 2


# %%
# The same network with gamma and beta and without.
def train(learned):
    """Three normalized sigmoid layers, with gamma and beta or without."""
    layers = [keras.Input(images.x_train.shape[1:]), keras.layers.Flatten()]
    for i in range(3):
        normalization = keras.layers.BatchNormalization(center=learned, scale=learned, name=f"normalization_{i + 1}")
        layers += [keras.layers.Dense(64, use_bias=False), normalization, keras.layers.Activation("sigmoid")]
    model = keras.Sequential([*layers, keras.layers.Dense(images.classes, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    callbacks = [LayerStatsCallback(example.log_dir("learned" if learned else "left_out"), on_finding="ignore")]
    fitted = {"batch_size": 200, "epochs": example.options.epochs, "callbacks": callbacks, "verbose": 0}
    losses = model.fit(images.x_train, images.y_train, **fitted).history["loss"]
    normalized = keras.Model(model.inputs[0], [each.output for each in model.layers if "normalization" in each.name])
    return losses, [keras.ops.convert_to_numpy(each) for each in normalized(images.x_train[:1000], training=True)]


def linear_share(given):
    """How much of a sigmoid's variance a straight line explains, for each unit; the mean of the units."""
    return np.mean([np.corrcoef(u, 1 / (1 + np.exp(-u)))[0, 1] ** 2 for u in given.T])


results = {learned: train(learned) for learned in example.track((False, True), "training")}
rows = [
    {
        "gamma, beta": "learned" if learned else "left out",
        "layer": i + 1,
        "sd before sigmoid": given.std(),
        "linear share": linear_share(given),
        "loss": losses[-1],
    }
    for learned, (losses, layers) in results.items()
    for i, given in enumerate(layers)
]
example.table(rows, f"After training; in theory the linear share at N(0, 1) is {line:.3f}")
example.found(theory=line, layers=rows)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
z = np.linspace(-6, 6, 200)
left.plot(z, 1 / (1 + np.exp(-z)), "k", label="sigmoid")
for learned, (losses, layers) in results.items():
    color, label = ("C0", "learned") if learned else ("C3", "left out")
    counts, edges = np.histogram(layers[-1], 60, (-6, 6), density=True)
    left.stairs(counts, edges, color=color, linewidth=1.5, label=f"layer 3, gamma and beta {label}")
    right.plot(range(1, len(losses) + 1), losses, color=color, label=f"gamma and beta {label}")
left.set(xlabel="what the sigmoid is given", ylabel="sigmoid; density", ylim=(0, 1.35))
right.set(xlabel="epoch", ylabel="training loss", yscale="log")
for panel in (left, right):
    panel.legend(frameon=False, fontsize=8, loc="upper left" if panel is left else "upper right")
    panel.grid(alpha=0.3)
example.figure(
    figure,
    "Left: without gamma and beta what the last sigmoid is given stays between -2 and 2, where it is nearly a line; "
    "with them it reaches to where the sigmoid bends. Right: the same layers, free to bend, learn faster.",
)
