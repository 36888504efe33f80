r"""
Presets for transformers
========================

A transformer's weights differ by what they are for, not by their shape: a query, a key and the last kernel of an MLP
may all be 64 x 64. The presets go by the role of each weight, read from the model's trace.
"""

# %%
# A post-norm transformer, LN(x + f(x)), over the rows of images: attention of four heads and an MLP in each block. No
# warm-up, Adam at 1e-3 from the first step on.
import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_initkit as ik
from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.examples import start

example = start("presets", blocks=24, width=32, epochs=4, examples=1024)
images = example.images(examples=example.options.examples)
blocks, width, seed = example.options.blocks, example.options.width, example.options.seed


def transformer():
    """The rows of an image as a sequence, through post-norm blocks, to a class."""
    layers = keras.layers
    inputs = keras.Input(images.x_train.shape[1:])
    x = layers.Dense(width, name="rows")(layers.Reshape((images.x_train.shape[1], -1))(inputs))
    for block in range(blocks):
        y = layers.MultiHeadAttention(4, width // 4, name=f"attention_{block}")(x, x)
        x = layers.LayerNormalization(epsilon=1e-6)(x + y)
        y = layers.Dense(width, name=f"mlp_out_{block}")(layers.Dense(4 * width, "relu", name=f"mlp_in_{block}")(x))
        x = layers.LayerNormalization(epsilon=1e-6)(x + y)
    return keras.Model(inputs, layers.Dense(images.classes, name="head")(layers.GlobalAveragePooling1D()(x)))


# %%
# What each preset makes of the model. "deepnorm" wants LN(alpha x + f(x)); a normalization has no scale, so it divides
# by alpha what ends the branch instead, and the model stays as it is.
starts = ["as built", "gpt2", "nanochat", "deepnorm"]
roles: dict[str, dict[str, list[float]]] = {}
losses: dict[str, list[float]] = {}
for name in example.track(starts, "training"):
    keras.utils.set_random_seed(seed)
    model = transformer()
    if name != "as built":
        report = ik.initialize(model, name, seed=seed)
        roles[name] = {}
        for change in report.kernels:
            roles[name].setdefault(change.note.partition(",")[0], []).append(change.stddev_after)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    first = model.evaluate(images.x_train, images.y_train, verbose=0, batch_size=256)
    keras.utils.set_random_seed(seed)
    stats = LayerStatsCallback(example.log_dir(name.replace(" ", "_")), on_finding="ignore")
    history = model.fit(
        images.x_train, images.y_train, batch_size=64, epochs=example.options.epochs, callbacks=[stats], verbose=0
    )
    losses[name] = [first, *history.history["loss"]]

names = list(roles["gpt2"])
example.table([{"role": role, **{n: float(np.mean(roles[n][role])) for n in roles}} for role in names], "deviations")
example.table(
    [{"start": n, "loss before": v[0], "after": v[-1], "of a guess": np.log(images.classes)} for n, v in losses.items()]
)
example.found(
    losses=losses, deviations={name: {r: float(np.mean(v)) for r, v in roles[name].items()} for name in roles}
)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for offset, (name, marker) in enumerate(zip(roles, "osD", strict=True)):
    values = [max(float(np.mean(roles[name][role])), 3e-4) for role in names]
    left.plot(values, np.arange(len(names)) + 0.15 * (offset - 1), marker, label=name, color=f"C{offset + 1}")
left.axvline(6e-4, color="0.8", linewidth=0.8)
left.set(xscale="log", yticks=range(len(names)), yticklabels=names, xlabel="standard deviation (left of the line: 0)")
left.invert_yaxis()
left.legend(loc="upper left", bbox_to_anchor=(0.12, 1), frameon=False)
for color, (name, values) in enumerate(losses.items()):
    right.plot(values, "o-", markersize=4, label=name, color=f"C{color}")
right.axhline(np.log(images.classes), color="k", linestyle="--", linewidth=0.8)
right.text(example.options.epochs, np.log(images.classes) - 0.02, "a guess", va="top", ha="right", fontsize=8)
right.set(xlabel="epoch", ylabel="training loss", title=f"{blocks} post-norm blocks")
right.legend(frameon=False)
example.figure(
    figure,
    "Left: what each preset draws by role; deepnorm's outputs hold 1/alpha, nanochat's are zero. Right: with Keras' "
    "own kernels the deep post-norm transformer stays at a guess; under each preset it trains from the first step on.",
)
