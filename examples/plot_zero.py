"""
Zero is a fine start, and a hopeless one
========================================

Hidden units that start equal get equal gradients and stay equal: a layer of a hundred is a layer of one. Logistic
regression has no hidden units, its loss is convex, and it may start from zero as well as from anywhere.

In floating point the balance is unstable: some processors sum the units of a layer in different orders, which parts
equal units by 1e-7. Each epoch of this training triples that, and after a dozen epochs one unit may have become two.
"""

# %%
# One hidden layer of 32 units under zeros, under a constant, and under Glorot's scheme. After every epoch: how many
# different units are there? Two are different if some weight differs by a thousandth of the layer's largest.
import keras
import matplotlib.pyplot as plt
import numpy as np

from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.examples import start

example = start("zero", epochs=15)
images = example.images(examples=1500)
starts = {
    "zeros": keras.initializers.Zeros(),
    "constant 0.1": keras.initializers.Constant(0.1),
    "Glorot": keras.initializers.GlorotUniform(),
}


def classifier(hidden, activation, initializer):
    """Logistic regression, or a hidden layer before it, all kernels from one scheme."""
    keras.utils.set_random_seed(example.options.seed)
    layers = [keras.Input(images.x_train.shape[1:]), keras.layers.Flatten()]
    if hidden:
        layers.append(keras.layers.Dense(hidden, activation, kernel_initializer=initializer, name="hidden"))
    layers.append(keras.layers.Dense(images.classes, "softmax", kernel_initializer=initializer, name="output"))
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def train(model, run, callbacks=()):
    """The history of a training of which every run sees the same batches."""
    keras.utils.set_random_seed(example.options.seed)
    stats = LayerStatsCallback(example.log_dir(run), on_finding="ignore")
    return model.fit(
        images.x_train,
        images.y_train,
        batch_size=50,
        epochs=example.options.epochs,
        validation_data=(images.x_test, images.y_test),
        callbacks=[stats, *callbacks],
        verbose=0,
    ).history


class DifferentUnits(keras.callbacks.Callback):
    """Counts the different columns of the hidden kernel before training and after each epoch."""

    def on_train_begin(self, logs=None):
        """Counts for the first time."""
        self.counts = []
        self.on_epoch_end(None)

    def on_epoch_end(self, epoch, logs=None):
        """Counts."""
        columns = self.model.get_layer("hidden").get_weights()[0].T
        distances = np.abs(columns[:, None] - columns).max(axis=-1)
        equal = distances <= 1e-3 * np.abs(columns).max()
        self.counts.append(int((~np.tril(equal, -1).any(axis=1)).sum()))  # those that equal no earlier one


rows, counts, losses = [], {}, {}
for activation, name in example.track([(a, s) for a in ("tanh", "relu") for s in starts], "training"):
    model = classifier(32, activation, starts[name])
    units = DifferentUnits()
    history = train(model, f"{activation}_{name.replace(' ', '_')}", [units])
    counts[activation, name], losses[activation, name] = units.counts, history["loss"]
    rows.append(
        {
            "model": f"32 {activation}",
            "start": name,
            "different units": units.counts[-1],
            "training loss": history["loss"][-1],
            "test accuracy": history["val_accuracy"][-1],
        }
    )

# %%
# Logistic regression. At zero all classes have the same probability, so the gradient of each class' weights is
# (1/10 - y) x: different for every class, since the labels are. Nothing has to break a symmetry, and the cost has one
# valley.
for name in ("zeros", "Glorot"):
    history = train(classifier(0, None, starts[name]), f"logistic_{name}")
    losses["logistic regression", name] = history["loss"]
    rows.append(
        {
            "model": "logistic regression",
            "start": name,
            "different units": images.classes,
            "training loss": history["loss"][-1],
            "test accuracy": history["val_accuracy"][-1],
        }
    )
example.table(rows)
example.found(runs=rows, units=[{"activation": a, "start": s, "counts": seen} for (a, s), seen in counts.items()])

# %%
figure, panels = plt.subplots(1, 3, figsize=(8, 3.4), layout="constrained")
styles = {"zeros": "C3-", "constant 0.1": "k--", "Glorot": "C0:"}
epochs = range(1, example.options.epochs + 1)
for name, style in styles.items():
    panels[0].plot([0, *epochs], counts["tanh", name], style, label=name)
    panels[1].plot(epochs, losses["tanh", name], style, label=name)
for name in ("zeros", "Glorot"):
    panels[2].plot(epochs, losses["logistic regression", name], styles[name], label=name)
panels[0].set(title="32 tanh units: different ones", xlabel="epoch", yscale="log")
panels[0].set_yticks((1, 2, 4, 8, 16, 32), ("1", "2", "4", "8", "16", "32"))
panels[0].minorticks_off()
panels[1].set(title="32 tanh units: training loss", xlabel="epoch", ylim=(0, None))
panels[2].set(title="logistic regression: training loss", xlabel="epoch", ylim=(0, None))
for panel in panels:
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, fontsize=8, loc="center right")
example.figure(
    figure,
    "Left: units that start equal stay equal, but for rounding on some processors. Middle: with a constant the layer "
    "learns what a single unit can; with zeros only the output's bias moves. Right: without one, zero is no worse.",
)
