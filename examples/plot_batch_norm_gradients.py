"""
Batch normalization keeps the gradient alive
============================================

Ten hidden sigmoid layers, the network that could not be trained for twenty years: the gradient of its first weight
matrix is a millionth of the last one's. With batch normalization before each sigmoid all eleven are of one size.
"""

# %%
# Two networks that differ in the normalization alone, trained on batches of 200 images whose pixels lie between 0
# and 1. `LayerStatsCallback` reads the gradients inside the 10th, 20th, ..., 50th step.
import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_initkit as ik
from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.examples import start

example = start("batch_norm_gradients", width=100)
images = example.images()
used = len(images.x_train) // 200 * 200
pixels = images.x_train[:used] - images.x_train.min()
pixels /= pixels.max()
iterations = (10, 20, 30, 40, 50)


def network(normalized):
    """Flatten, ten times Dense, perhaps BatchNormalization, and sigmoid; a classifier."""
    layers = [keras.Input(pixels.shape[1:]), keras.layers.Flatten()]
    for i in range(10):
        layers.append(keras.layers.Dense(example.options.width, kernel_initializer="glorot_normal", name=f"W{i + 1}"))
        layers += [keras.layers.BatchNormalization()] * normalized + [keras.layers.Activation("sigmoid")]
    layers.append(keras.layers.Dense(images.classes, "softmax", kernel_initializer="glorot_normal", name="W11"))
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    return model


def norm(moments):
    """Euclidean norm of a matrix, from the mean and the variance of its elements."""
    return np.sqrt(moments.count * (moments.variance + moments.mean**2))


sizes = {}
for normalized in example.track((False, True), "training"):
    keras.utils.set_random_seed(example.options.seed)  # both start from the same weights
    model = network(normalized)
    stats = LayerStatsCallback(
        example.log_dir("normalized" if normalized else "plain"),
        update_freq=lambda steps_before: steps_before + 1 in iterations,
        layers=[f"W{i}" for i in range(1, 12)],
        sample_size=None,  # reads every element
        on_finding="ignore",
    )
    epochs = -(-max(iterations) // (used // 200))
    model.fit(pixels, images.y_train[:used], batch_size=200, epochs=epochs, callbacks=[stats], verbose=0)
    sizes[normalized] = np.array(
        [[norm(row.moments) for row in report.rows if row.tap.kind == "weight_gradient"] for report in stats.reports]
    )

# %%
# A sigmoid's slope is at most 1/4. Mean-field theory says what a layer makes of the gradient: without normalization
# it multiplies its size by sqrt(chi_1) = sigma_w sqrt(E[f'(u)²]). Normalization divides by the standard deviation of
# the pre-activation, sigma_w sd(f), so that the weights' scale cancels: sqrt(E[f'(z)²] / Var f(z)), z ~ N(0, 1).
expectation = ik.theory.expectation
variance = expectation("sigmoid") - expectation("sigmoid", power=1) ** 2
factors = {
    False: np.sqrt(ik.theory.chi_1("sigmoid", sigma_w=1.0)),  # Glorot's sigma_w, where fan-in and fan-out are equal
    True: np.sqrt(expectation("sigmoid", derivative=True) / variance),
}
# Between W2 and W10 eight layers of one size; the geometric mean of what each did, in all measured steps.
measured = {bn: np.exp(np.log(sizes[bn][:, 1] / sizes[bn][:, 9]).mean() / 8) for bn in sizes}

for normalized, by_step in sizes.items():
    print(f"{'With' if normalized else 'Without'} batch normalization: norm of each weight matrix' gradient")
    example.table(
        [
            {"matrix": f"W{i + 1}", **{f"iteration {n}": by_step[step, i] for step, n in enumerate(iterations)}}
            for i in range(11)
        ]
    )
    print(f"each layer passes on {measured[normalized]:.2f} of it; in theory {factors[normalized]:.2f}\n")
example.found(
    iterations=iterations,
    plain=sizes[False],
    normalized=sizes[True],
    factor={"measured": list(measured.values()), "theory": list(factors.values())},
)

# %%
figure, panels = plt.subplots(1, 2, figsize=(8, 4), layout="constrained", sharey=True)
for panel, (normalized, by_step) in zip(panels, sizes.items(), strict=True):
    for n, line, color in zip(iterations, by_step, plt.colormaps["viridis"](np.linspace(0, 0.85, 5)), strict=True):
        panel.plot(range(1, 12), line, marker="o", markersize=4, color=color, label=f"iteration {n}")
    matrices = np.arange(2, 11)
    theory = np.median(by_step[:, 9]) * factors[normalized] ** (10.0 - matrices)
    panel.plot(matrices, theory, "k--", label=f"theory: factor {factors[normalized]:.2f} a layer", zorder=3)
    panel.set(title=f"{'with' if normalized else 'without'} batch normalization", yscale="log", xlabel="weight matrix")
    panel.set_xticks(range(1, 12))
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, fontsize=8, loc="lower right")
panels[0].set_ylabel("norm of the gradient")
example.figure(
    figure,
    "Left: each sigmoid layer takes three quarters of the gradient, so the first matrix gets a millionth of what the "
    "last one gets and does not learn. Right: normalized, all matrices get gradients of one size. Both slopes are "
    "what mean-field theory expects.",
)
