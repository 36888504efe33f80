r"""
One hundred linear layers
=========================

A hundred matrix products of width 512, no activation, no bias. Each multiplies the standard deviation by
:math:`\sigma \sqrt{512}`, and a factor a layer acts a hundred times.
"""

# %%
# Weights of N(0, 1), of N(0, 0.01), and of N(0, 1/sqrt(512)); one example x of N(0, 1). Every output of a layer is a
# sum of 512 products, each of variance :math:`\sigma^2`: its standard deviation is :math:`\sigma \sqrt{512}`, 22.6
# for N(0, 1).
import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_initkit as ik
from keras_initkit.examples import start

example = start("linear_100", width=512, layers=100)
width, depth = example.options.width, example.options.layers
x = np.random.default_rng(example.options.seed).standard_normal((1, width))


def network(sd):
    """Linear layers alone."""
    normal = keras.initializers.RandomNormal
    layers = [keras.layers.Dense(width, use_bias=False, kernel_initializer=normal(stddev=sd)) for _ in range(depth)]
    return keras.Sequential([keras.Input((width,)), *layers])


sds = {"1": 1.0, "0.01": 0.01, f"1/sqrt({width})": width**-0.5}
outputs = {}
for name, sd in example.track(list(sds.items()), "probing"):
    outputs[name] = [row for row in ik.probe(network(sd), x).rows if row.tap.kind == "output"]

# %%
# A float32 ends at 3.4e38: :math:`22.6^{28}` is below that, :math:`22.6^{29}` above. At the other end a processor
# may take what is below 1.2e-38 as 0. A layer is lost where most of its outputs are not finite, or all 0.
measured = {name: [row.moments.stddev for row in rows] for name, rows in outputs.items()}
lost = {
    name: next((i for i, row in enumerate(rows, 1) if row.moments.nonfinite > width / 2 or row.dead_units == 1), None)
    for name, rows in outputs.items()
}
example.table(
    [
        {
            "weights' sd": name,
            "after 1 layer": values[0],
            "expected": sds[name] * width**0.5,
            "after 10": values[9],
            f"after {depth}": values[-1],
            "lost at layer": lost[name] or "never",
        }
        for name, values in measured.items()
    ]
)
example.found(sd=measured, lost_at=lost)

# %%
figure, panel = plt.subplots(figsize=(8, 4), layout="constrained")
layers = np.arange(1, depth + 1)
for (name, values), marker in zip(measured.items(), "osD", strict=True):
    finite = np.isfinite(values) & (np.array(values) > 0)
    panel.plot(layers[finite], np.array(values)[finite], marker, markersize=3, label=f"weights' sd {name}")
    panel.plot(layers, (sds[name] * width**0.5) ** layers.astype(float), "k--", linewidth=0.8, zorder=0)
panel.plot([], [], "k--", linewidth=0.8, label="expected")
panel.axhspan(float(np.finfo("float32").max), 1e60, color="0.85", linewidth=0)
panel.axhspan(1e-60, float(np.finfo("float32").tiny), color="0.85", linewidth=0)
panel.text(depth / 2, 1e48, "more than a float32 can hold", ha="center")
panel.text(depth / 2, 1e-50, "less than a float32 can hold at full precision", ha="center")
panel.set(xlabel="layer", ylabel="standard deviation of the outputs", yscale="log", ylim=(1e-60, 1e60))
panel.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
example.figure(
    figure,
    "A factor of 22.6 a layer leaves what a float32 can hold at layer 29, a factor of 0.23 sinks below it; only the "
    "factor 1, weights of standard deviation 1/sqrt(512), carries the signal through a hundred layers.",
)
