"""
Cross-entropy has fewer plateaus than the quadratic cost
========================================================

Glorot and Bengio (2010), figure 5: the training cost of a two-layer network as a surface over two of its weights, one
of each layer. The quadratic cost is flat where a unit is wrong and sure of it; the cross-entropy is steep there.
"""

# %%
# A network with one tanh unit and a softmax of two classes, so that two weights are all there is to vary: the unit's
# own, and the one from it to the output. The task: the sign of the input, with a few labels wrong.
import keras
import matplotlib.pyplot as plt
import numpy as np

from keras_initkit.examples import start

example = start("cost_surfaces", points=41)
rng = np.random.default_rng(example.options.seed)
x = rng.normal(size=(256, 1)).astype("float32")
y = ((x[:, 0] > 0) ^ (rng.random(256) < 0.05)).astype("int64")
one_hot = np.eye(2, dtype="float32")[y]
hidden = keras.layers.Dense(1, "tanh", use_bias=False)
output = keras.layers.Dense(2, "softmax", use_bias=False)
model = keras.Sequential([keras.Input((1,)), hidden, output])
costs = {"cross-entropy": keras.losses.CategoricalCrossentropy(), "quadratic": keras.losses.MeanSquaredError()}

weights = np.linspace(-4, 4, example.options.points)
surfaces = {name: np.zeros((len(weights), len(weights))) for name in costs}
for i, first in enumerate(example.track(weights, "computing")):
    for j, second in enumerate(weights):
        model.set_weights([np.array([[first]]), np.array([[-second, second]])])
        probabilities = model(x)
        for name, cost in costs.items():
            surfaces[name][i, j] = keras.ops.convert_to_numpy(cost(one_hot, probabilities))

# %%
# How flat each surface is where the network is wrong: its slope, in units of its own height, over the upper half of
# that height, and in the corners, where both weights are large and of opposite signs.
spacing = weights[1] - weights[0]
rows = []
for name, surface in surfaces.items():
    slope = np.hypot(*np.gradient(surface, spacing)) / np.ptp(surface)
    high = surface > (surface.min() + surface.max()) / 2
    rows.append(
        {
            "cost": name,
            "least": surface.min(),
            "most": surface.max(),
            "slope of upper half": slope[high].mean(),
            "share flatter than 0.05": (slope[high] < 0.05).mean(),
            "slope in the corner": slope[1, -2],
        }
    )
example.table(rows)
example.found(costs=rows, surfaces=surfaces, weights=weights, labels=y, inputs=x[:, 0])

# %%
figure, panels = plt.subplots(1, 2, figsize=(8, 3.9), layout="constrained", subplot_kw={"projection": "3d"})
for panel, (name, surface) in zip(panels, surfaces.items(), strict=True):
    panel.plot_surface(*np.meshgrid(weights, weights, indexing="ij"), surface, cmap="cividis", linewidth=0)
    panel.set(title=name, xlabel="weight of layer 1", ylabel="weight of layer 2")
    panel.set_zlabel("cost")
    panel.view_init(28, -120)
example.figure(
    figure,
    "Two valleys, where both weights have the same sign, and two hills. Left: from the hills of the cross-entropy it "
    "goes down everywhere. Right: those of the quadratic cost are plateaus, on which gradient descent stands still.",
)
