"""
Pre-training
============

Before good initial scales were known, deep networks were started layer by layer: each layer learns, as an
auto-encoder, to keep what it is given (Bengio et al. 2007), then the whole is fine-tuned on labels. A deep sigmoid
network learns that way; with the right scale, or another activation, it is no longer needed.
"""

# %%
# One network, five hidden sigmoid layers, from three starts: small random weights of N(0, 0.05), He's, and pre-trained;
# and, for what came after, relu layers from He's. The images lie between 0 and 1, as codes of sigmoids do.
import keras
import matplotlib.pyplot as plt

import keras_initkit as ik
from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.examples import start

example = start("pretraining", epochs=15, pretraining_epochs=10)
options = example.options
images = example.images(examples=1500)
low, high = images.x_train.min(), images.x_train.max()
x_train, x_test = ((x - low) / (high - low) for x in (images.x_train, images.x_test))
starts = {
    "sigmoid, small": ("sigmoid", keras.initializers.RandomNormal(stddev=0.05)),
    "sigmoid, He": ("sigmoid", "he_normal"),
    "pre-trained": ("sigmoid", "pretraining"),
    "relu, He": ("relu", "he_normal"),
}


def network(activation):
    """Five hidden layers and a classifier."""
    hidden = [keras.layers.Dense(100, activation, name=f"hidden_{i + 1}") for i in range(5)]
    classifier = keras.layers.Dense(images.classes, "softmax", name="classifier")
    model = keras.Sequential([keras.Input(x_train.shape[1:]), keras.layers.Flatten(), *hidden, classifier])
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


rows, curves, signal = [], {}, {}
for name in example.track(list(starts), "training"):
    activation, scheme = starts[name]
    keras.utils.set_random_seed(options.seed)
    model = network(activation)
    if scheme == "pretraining":
        ik.initialize(model, "he_normal", seed=options.seed)
        given = {"epochs": options.pretraining_epochs, "learning_rate": 3e-3, "verbose": 0}
        ik.initialize(model, scheme, x_train, seed=options.seed, **given)
    else:
        ik.initialize(model, scheme, seed=options.seed)
    report = ik.probe(model, x_train[:256], images.y_train[:256])
    hidden = [row for row in report.rows if row.tap.layer.startswith("hidden_")]
    signal[name] = {
        "gradients": [row.moments.stddev for row in hidden if row.tap.kind == "output_gradient"],
        "ranks": [row.effective_rank for row in hidden if row.tap.kind == "output"],
    }
    stats = LayerStatsCallback(example.log_dir(name.replace(", ", "_")), on_finding="ignore")
    history = model.fit(
        x_train,
        images.y_train,
        epochs=options.epochs,
        validation_data=(x_test, images.y_test),
        callbacks=[stats],
        verbose=0,
    ).history
    curves[name] = history["loss"]
    rows.append(
        {
            "start": name,
            "gradient 1 / 5": signal[name]["gradients"][0] / signal[name]["gradients"][-1],
            "rank": signal[name]["ranks"][-1],
            "training loss": history["loss"][-1],
            "test accuracy": history["val_accuracy"][-1],
        }
    )
# The gradient of layer 1 beside that of layer 5, and how many directions layer 5 still has (its effective rank).
example.table(rows)
example.found(runs=[{**row, **signal[row["start"]], "loss": curves[row["start"]]} for row in rows])

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
for name, color, marker, line in zip(starts, ("C1", "C3", "C0", "C2"), "v^os", ("--", "-.", "-", ":"), strict=True):
    style = {"color": color, "linestyle": line, "label": name}
    left.plot(range(1, 6), signal[name]["gradients"], marker=marker, **style)
    right.plot(range(1, options.epochs + 1), curves[name], **style)
left.set(title="before training: gradients' standard deviation", xlabel="hidden layer", yscale="log")
left.set_xticks(range(1, 6))
right.set(title="fine-tuning: training loss", xlabel="epoch", ylim=(0, None))
for panel in (left, right):
    panel.grid(alpha=0.3)
figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
example.figure(
    figure,
    "Left: small or He's weights leave the lower sigmoid layers hardly a gradient; pre-training has made weights that "
    "carry it down. Right: the pre-trained network learns, the other two sigmoid networks stand at ln 10, and relu "
    "layers from He's start need no pre-training.",
)
