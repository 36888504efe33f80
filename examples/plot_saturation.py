"""
Sigmoid layers saturate from the top
====================================

Glorot and Bengio (2010), figures 2 and 3: what the activations of four hidden layers do while the network trains from
the weights that were standard then, U(-1/sqrt(n), 1/sqrt(n)). The last sigmoid layer shuts down first and comes back
late, if at all.
"""

# %%
# The same network with three activations, its hidden layers measured in every epoch.
import keras
import matplotlib.pyplot as plt
import numpy as np

from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.examples import start
from keras_initkit.initializers import StandardUniform

example = start("saturation", epochs=80)
images = example.images(examples=1440)
layers = [f"hidden_{i}" for i in range(1, 5)]


def train(activation, learning_rate, epochs):
    """Mean and standard deviation of the activations, (epochs, layers), and the training loss."""
    keras.utils.set_random_seed(example.options.seed)
    hidden = [keras.layers.Dense(100, activation, kernel_initializer=StandardUniform(), name=name) for name in layers]
    classifier = keras.layers.Dense(images.classes, "softmax", kernel_initializer=StandardUniform())
    model = keras.Sequential([keras.Input(images.x_train.shape[1:]), keras.layers.Flatten(), *hidden, classifier])
    # On TensorFlow several small steps can run as one call.
    several = 16 if keras.backend.backend() == "tensorflow" else 1
    model.compile(keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy", steps_per_execution=several)
    stats = LayerStatsCallback(example.log_dir(activation), layers=layers, on_finding="ignore")
    model.fit(images.x_train, images.y_train, batch_size=10, epochs=epochs, callbacks=[stats], verbose=0)
    mean = np.array([list(report.statistic("activation_mean").values()) for report in stats.reports])
    variance = np.array([list(report.statistic("activation_variance").values()) for report in stats.reports])
    return mean, np.sqrt(variance), model.history.history["loss"]


epochs = example.options.epochs
settings = {"sigmoid": (0.5, epochs), "tanh": (0.05, epochs // 4), "softsign": (0.05, epochs // 4)}
results = {name: train(name, *settings[name]) for name in example.track(list(settings), "training")}

rows = [
    {
        "activation": name,
        "epoch": epoch + 1,
        "training loss": loss[epoch],
        **{f"layer {i + 1}": f"{mean[epoch, i]:.3f} ± {sd[epoch, i]:.3f}" for i in range(4)},
    }
    for name, (mean, sd, loss) in results.items()
    for epoch in np.linspace(0, len(loss) - 1, 6).round().astype(int)
]
example.table(rows, "Mean and standard deviation of the activations")
example.found(**{name: {"mean": mean, "sd": sd, "loss": loss} for name, (mean, sd, loss) in results.items()})

# %%
# Why the last layer: at the start it carries nothing about the input, and what it sends up is noise to the classifier.
# The quickest way to less noise is to turn the layer off, for a sigmoid at 0, where it is saturated. A tanh that is
# turned off stands at 0, where its slope is largest.
figure, panels = plt.subplots(1, 3, figsize=(8, 3.6), layout="constrained", width_ratios=(2, 1, 1))
for panel, (name, (mean, sd, _)) in zip(panels, results.items(), strict=True):
    steps = np.arange(1, len(mean) + 1)
    for i in range(4):
        style = {"color": f"C{i}", "linestyle": ("-", "--", "-.", ":")[i]}
        if name == "sigmoid":
            panel.plot(steps, mean[:, i], label=f"layer {i + 1}", **style)
            panel.fill_between(steps, mean[:, i] - sd[:, i], mean[:, i] + sd[:, i], color=f"C{i}", alpha=0.15)
        else:
            panel.plot(steps, sd[:, i], **style)
    panel.set(title=f"{name}: {'mean ± sd' if name == 'sigmoid' else 'sd'} of activations", xlabel="epoch")
    panel.set_ylim(0, 1)
    panel.grid(alpha=0.3)
figure.legend(loc="outside upper center", ncols=4, frameon=False)
example.figure(
    figure,
    "Left: within a few epochs the last sigmoid layer (dotted) is driven to 0, where it is saturated; the network "
    "learns nothing until it slowly comes out again. Middle and right: a tanh and a softsign network learns from the "
    "first epoch; softsign keeps away from its ends at -1 and 1.",
)
