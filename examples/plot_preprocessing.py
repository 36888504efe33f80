r"""
Preprocessing, initialization's other half
==========================================

Initialization assumes inputs of mean 0 and variance 1. A unit with bias 0 looks at its inputs from the origin: its
hyperplane goes through 0. Where the data lies off to one side of the origin, many a hyperplane does not cut it.
"""

# %%
# Five versions of the same images, all fitted on the training set: raw pixels from 0 to 1; their mean subtracted;
# standardized (z-scores); and whitened, with the principal components as axes (PCA) or turned back to pixels (ZCA).
import keras
import matplotlib.pyplot as plt
import numpy as np

from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.examples import start

example = start("preprocessing", epochs=25, hyperplanes=2000)
images = example.images()
flat = [each.reshape(len(each), -1) for each in (images.x_train, images.x_test)]
low, high = flat[0].min(), flat[0].max()
raw = [(each - low) / (high - low) for each in flat]
mean, deviation = raw[0].mean(axis=0), raw[0].std(axis=0)
deviation[deviation == 0] = 1  # pixels that are never on
_, singular, components = np.linalg.svd(raw[0] - mean, full_matrices=False)
explained = np.cumsum(singular**2) / np.sum(singular**2)
kept = np.searchsorted(explained, 0.99) + 1  # the rest is noise and constant pixels
whitening = components[:kept].T * np.sqrt(len(raw[0]) - 1) / singular[:kept]
transforms = {
    "raw": lambda x: x,
    "mean subtracted": lambda x: x - mean,
    "z-scored": lambda x: (x - mean) / deviation,
    "PCA-whitened": lambda x: (x - mean) @ whitening,
    "ZCA-whitened": lambda x: (x - mean) @ whitening @ components[:kept],
}
versions = {name: [transform(each) for each in raw] for name, transform in transforms.items()}

# %%
# Random hyperplanes through the origin, as the units of a new layer are. Two images are separated by one with
# probability angle / :math:`\pi`, the angle between them as seen from the origin: that is expected; counted are the
# hyperplanes that cut off at least one image in ten, and the pairs of images that one separates.
rng = np.random.default_rng(example.options.seed)
rows = []
for name, (train, _) in versions.items():
    side = (train @ rng.standard_normal((train.shape[1], example.options.hyperplanes)) > 0).mean(axis=0)
    unit = train / np.linalg.norm(train, axis=1, keepdims=True)
    rows.append(
        {
            "inputs": name,
            "mean square": np.mean(train**2),
            "planes split": np.mean((side > 0) & (side < 1)),
            "by a tenth": np.mean(np.minimum(side, 1 - side) >= 0.1),
            "pairs apart": np.mean(2 * side * (1 - side)),
            "expected": np.arccos(np.clip(unit @ unit.T, -1, 1)).mean() / np.pi,
        }
    )

# %%
# The same network on each of them: two ReLU layers, SGD with the same learning rate, the same first weights where the
# number of inputs allows.
for name, row in zip(example.track(list(versions), "training"), rows, strict=True):
    keras.utils.set_random_seed(example.options.seed)
    train, test = versions[name]
    hidden = [keras.layers.Dense(128, "relu", kernel_initializer="he_normal", name=f"layer_{i + 1}") for i in range(2)]
    model = keras.Sequential([keras.Input((train.shape[1],)), *hidden, keras.layers.Dense(images.classes, "softmax")])
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    row["loss"] = model.fit(
        train,
        images.y_train,
        epochs=example.options.epochs,
        callbacks=[LayerStatsCallback(example.log_dir(name.replace(" ", "_")), on_finding="ignore")],
        verbose=0,
    ).history["loss"]
    row["test accuracy"] = model.evaluate(test, images.y_test, verbose=0)[1]
example.table([{**row, "loss": row["loss"][-1]} for row in rows])
example.found(inputs=rows)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
positions = np.arange(len(rows))
left.barh(positions - 0.2, [row["by a tenth"] for row in rows], 0.4, label="split off a tenth or more")
left.barh(positions + 0.2, [row["pairs apart"] for row in rows], 0.4, color="C5", label="pairs of images separated")
left.plot([row["expected"] for row in rows], positions + 0.2, "k|", markersize=14, label="expected: angle / π")
left.set(yticks=positions, xlabel="share", xlim=(0, 1.02))
left.set_yticklabels(versions)
left.invert_yaxis()
left.legend(loc="lower center", bbox_to_anchor=(0.4, 1), frameon=False)
for row, marker in zip(rows, "osD^v", strict=True):
    right.plot(range(1, len(row["loss"]) + 1), row["loss"], marker=marker, markersize=4, label=row["inputs"])
right.set(xlabel="epoch", ylabel="training loss", yscale="log")
right.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
example.figure(
    figure,
    "Left: seen from the origin raw images lie in one direction, and a random hyperplane separates two of them half as "
    "often as it should; subtract the mean, and each unit splits them. Right: z-scores, of the mean 0 and variance 1 "
    "that the weights are drawn for, learn fastest. The mean alone subtracted leaves inputs that are too small; in "
    "whitened ones noise is as large as strokes.",
)
