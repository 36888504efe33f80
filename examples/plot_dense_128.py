"""
The Dense(128) models
=====================

The comparison that Keras' users know best: one `Flatten`, one `Dense(128, "relu")`, and an initializer by name. With
one hidden layer nearly every scheme trains; with ten, the scale decides.
"""

# %%
# The model exactly as it is written in the sources, under one of the initializers.
import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_initkit as ik
from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.examples import start

example = start("dense_128", epochs=2, depth=10, activations="relu,tanh")
options = example.options
images = example.images(enlarged=True)
model = keras.Sequential(
    [
        keras.Input(images.x_train.shape[1:]),
        keras.layers.Flatten(),
        keras.layers.Dense(128, "relu", kernel_initializer="he_normal", bias_initializer="zeros", name="hidden"),
        keras.layers.Dense(10, "softmax", name="classifier"),
    ]
)
model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
stats = LayerStatsCallback(example.log_dir("he_normal"))
model.fit(images.x_train, images.y_train, epochs=options.epochs, verbose=0, callbacks=[stats])
example.table([{"step": report.step, **report.statistic("activation_variance")} for report in stats.reports])

# %%
# One hidden layer under all initializers, then ten, relu and tanh.
initializers = ["zeros", "random_normal", "random_uniform"]
initializers += [f"{scheme}_{draw}" for scheme in ("glorot", "he", "lecun") for draw in ("normal", "uniform")]
cases = [(1, "relu"), *((options.depth, activation) for activation in options.activations.split(","))]
comparisons = {}
for depth, activation in example.track(cases, "training"):
    comparisons[depth, activation] = ik.compare(
        initializers,
        activation=activation,
        depth=depth,
        epochs=options.epochs,
        seed=options.seed,
        data=options.data,
        log_dir=example.log_dir(f"{activation}_{depth}"),
    )
    print(comparisons[depth, activation])

# %%
# The sources judge an initialization by four criteria: 1, it trains to a lower loss; 2, units neither saturate (tanh)
# nor explode (relu); 3, gradients are of like size in all layers; 4, activations have the same variance in all layers
# and, under tanh, a mean near zero. Here "like" and "same" mean within a factor of 10 from the smallest to the
# largest, "lower" below half of ln 10, the loss of guessing; a mean is near zero within four standard errors of 128
# units.


def spread(values):
    """Largest over smallest; of a signal that is gone, or overflowed, infinity."""
    values = np.array(values)
    return values.max() / values.min() if np.isfinite(values).all() and values.min() > 0 else np.inf


def is_centered(histogram):
    """Whether the mean is within four standard errors, of 128 units, from zero."""
    counts, edges = np.array(histogram[0]), np.array(histogram[1])
    centers = (edges[1:] + edges[:-1]) / 2
    mean = np.average(centers, weights=counts)
    return bool(mean**2 < 4**2 / 128 * np.average((centers - mean) ** 2, weights=counts))


def criteria(run, activation):
    """What the four criteria look at, and which of them are met."""
    forward, backward = spread(run.forward), spread(run.backward)
    met = (
        run.train_loss < np.log(10) / 2 and run.test_loss < np.log(10) / 2,
        run.saturated < 0.05 and (activation == "tanh" or run.forward[-1] < 10 * run.forward[0]),
        backward < 10,
        forward < 10 and (activation != "tanh" or all(map(is_centered, run.histograms))),
    )
    return {
        "train loss": run.train_loss,
        "test loss": run.test_loss,
        "saturated": run.saturated,
        "gradients": backward,
        "activations": forward,
        "criteria": " ".join(str(i + 1) for i, each in enumerate(met) if each) or "none",
    }


rows = []
for (depth, activation), comparison in comparisons.items():
    judged = [{"initializer": run.initializer, **criteria(run, activation)} for run in comparison.runs]
    example.table(judged, f"{depth} x Dense(128, {activation}); gradients and activations: max / min of their variance")
    rows += [{"depth": depth, "activation": activation, **row} for row in judged]
example.found(initializers=rows)

# %%
# The losses of all, and the signal of the deep models.
figure, panel = plt.subplots(figsize=(8, 3.6), layout="constrained")
for i, ((depth, activation), comparison) in enumerate(comparisons.items()):
    losses = [run.test_loss for run in comparison.runs]
    label = f"{depth} x Dense(128, {activation})"
    panel.plot(np.arange(len(losses)) + 0.2 * (i - 1), losses, "osD"[i], color=f"C{(0, 1, 3)[i]}", label=label)
panel.axhline(np.log(10), color="k", linewidth=1, linestyle=":", label="guessing: ln 10")
panel.set_xticks(range(len(initializers)), [name.replace("_", "\n") for name in initializers])
panel.set(ylabel=f"test loss after {options.epochs} epochs", ylim=(0, None))
panel.grid(axis="y", alpha=0.3)
panel.legend(frameon=False, fontsize=8)
example.figure(
    figure,
    "With one hidden layer (circles) all but zeros train. With ten (squares, diamonds) random_normal and "
    "random_uniform, whose scale ignores the layer's width, stay at guessing.",
    part="loss",
)
reasons = {
    "relu": "He's scale, which makes up for the half that relu cuts off.",
    "tanh": "here too He's, for tanh's gain at variance 1 is 1.6, nearer to the square root of 2 than to 1.",
}
for activation in options.activations.split(","):
    figure = comparisons[options.depth, activation].plot_variance()
    caption = f"{options.depth} x Dense(128, {activation}) before training: flat is what keeps the signal: "
    example.figure(figure, f"{caption}{reasons[activation]} {figure.get_supxlabel()}", part=activation)
