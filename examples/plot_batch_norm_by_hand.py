"""
Batch normalization by hand
===========================

Forward and backward from the formulas of Ioffe and Szegedy (2015), in NumPy, beside Keras' layer; inference with the
unbiased variance of the population.
"""

# %%
# Training normalizes each unit by the mean and the variance of the batch: x̂ = (x - μ) / sqrt(σ² + ε);
# then gamma scales and beta shifts it.
# μ and σ² depend on every example, so the gradient comes back to x on three ways.
import keras
import matplotlib.pyplot as plt
import numpy as np

from keras_initkit.examples import start

example = start("batch_norm_by_hand")
EPSILON = 1e-3  # Keras' default


def forward(x, gamma, beta):
    """Normalized by the batch; returns what `backward` needs too."""
    mean, variance = x.mean(axis=0), x.var(axis=0)
    normalized = (x - mean) / np.sqrt(variance + EPSILON)
    return gamma * normalized + beta, (normalized, variance, gamma)


def backward(gradient, normalized, variance, gamma):
    """Gradients with respect to x, gamma and beta."""
    at_normalized = gradient * gamma
    through_mean = at_normalized.mean(axis=0)
    through_variance = normalized * (at_normalized * normalized).mean(axis=0)
    at_x = (at_normalized - through_mean - through_variance) / np.sqrt(variance + EPSILON)
    return at_x, (gradient * normalized).sum(axis=0), gradient.sum(axis=0)


rng = np.random.default_rng(example.options.seed)
x, gradient = rng.normal(3, 2, (10, 6)), rng.normal(size=(10, 6))
gamma, beta = rng.uniform(0.5, 2, 6), rng.normal(size=6)
by_hand, kept = forward(x, gamma, beta)
gradients = dict(zip(("x", "gamma", "beta"), backward(gradient, *kept), strict=True))

# %%
# Keras' gradients are what one step of SGD with learning rate 1 takes off. For that of x, x itself is made a weight:
# the kernel of a Dense layer that is given the identity matrix.
dense = keras.layers.Dense(6, use_bias=False, name="x")
layer = keras.layers.BatchNormalization()
model = keras.Sequential([keras.Input((10,)), dense, layer])
dense.set_weights([x])
layer.set_weights([gamma, beta, np.zeros(6), np.ones(6)])
# The loss whose gradient at the output is `gradient`; Keras divides it by the number of examples.
model.compile(keras.optimizers.SGD(1.0), lambda target, y: 10 * keras.ops.sum(target * y, axis=-1))
output = keras.ops.convert_to_numpy(layer(x.astype("float32"), training=True))
model.fit(np.eye(10), gradient, batch_size=10, shuffle=False, verbose=0)
after = {"x": dense.get_weights()[0], **dict(zip(("gamma", "beta"), layer.get_weights(), strict=False))}
before = {"x": x, "gamma": gamma, "beta": beta}
differences = {"output": np.abs(output - by_hand).max()}
for name, expected in gradients.items():
    differences[f"gradient of {name}"] = np.abs(before[name] - after[name] - expected).max()
example.table([{"of": name, "largest difference": value} for name, value in differences.items()], "NumPy and Keras")

# %%
# For inference the paper takes the population's mean and variance: the average over batches of μ, and of
# m / (m - 1) σ², since the variance of a batch of m is too small by (m - 1) / m on average. Keras averages σ² as it
# is, which matters for small batches alone.
rows = []
for m in (2, 3, 5, 10, 20, 50, 100):
    drawn = rng.normal(3, 2, (20000 // m, m, 6)).astype("float32")
    layer = keras.layers.BatchNormalization(momentum=0.0)  # moving_variance is that of the last batch
    layer.build((None, 6))
    layer(drawn[0], training=True)
    batch_variances = drawn.var(axis=1)
    ratio = keras.ops.convert_to_numpy(layer.moving_variance) / batch_variances[0]
    average = batch_variances.mean()
    rows.append(
        {
            "batch": m,
            "population": 4.0,
            "average of σ²": average,
            "times m/(m-1)": average * m / (m - 1),
            "Keras / σ²": ratio.mean(),
        }
    )
example.table(rows, "Variance for inference")
example.found(differences=differences, inference=rows)


# %%
figure, panel = plt.subplots(figsize=(8, 3.2), layout="constrained")
batches = [row["batch"] for row in rows]
panel.axhline(4.0, color="k", linewidth=1, label="population")
panel.plot(batches, [row["average of σ²"] for row in rows], "C3v--", label="average of σ²: what Keras keeps")
panel.plot(batches, [row["times m/(m-1)"] for row in rows], "C0o-", label="average of m/(m-1) σ²: the paper's")
panel.set(xscale="log", xlabel="examples in a batch, m", ylabel="variance", ylim=(1.5, 4.5))
panel.set_xticks(batches, batches)
panel.minorticks_off()
panel.grid(alpha=0.3)
panel.legend(frameon=False)
example.figure(
    figure,
    "The variance of a batch is too small by (m - 1) / m on average: half of the population's for batches of two, 5 % "
    "less for batches of 20, nothing to speak of from 100 on.",
)
