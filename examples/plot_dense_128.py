"""
The Dense(128) models
=====================

The comparison that Keras' users know best: one `Flatten`, one `Dense(128, "relu")`, and an initializer by name. With
one hidden layer nearly every scheme trains; with ten, the scale decides.
"""

# %%
# The model exactly as it is written in the sources, under one of the initializers.
import keras

import keras_initkit as ik
from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.comparison.data import load

digits = load("digits")
model = keras.Sequential(
    [
        keras.Input((64, 32)),
        keras.layers.Flatten(),
        keras.layers.Dense(128, "relu", kernel_initializer="he_normal", bias_initializer="zeros"),
        keras.layers.Dense(10, "softmax"),
    ]
)
model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
stats = LayerStatsCallback(None)
model.fit(digits.x_train, digits.y_train, epochs=3, verbose=0, callbacks=[stats])
for report in stats.reports:
    print(report.step, report.statistic("activation_variance"))

# %%
# One hidden layer under all initializers, then ten.
for depth in (1, 10):
    comparison = ik.compare(depth=depth, epochs=3)
    print(comparison)
    comparison.plot_variance().savefig(f"variance_depth_{depth}.png")
