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
from keras_initkit.examples import start

example = start("dense_128", epochs=3)
options = example.options
images = example.images(enlarged=True)
model = keras.Sequential(
    [
        keras.Input(images.x_train.shape[1:]),
        keras.layers.Flatten(),
        keras.layers.Dense(128, "relu", kernel_initializer="he_normal", bias_initializer="zeros", name="hidden"),
        keras.layers.Dense(10, "softmax", name="classifier"),
    ]
)
model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
stats = LayerStatsCallback(example.log_dir("he_normal"))
model.fit(images.x_train, images.y_train, epochs=options.epochs, verbose=0, callbacks=[stats])
example.table([{"step": report.step, **report.statistic("activation_variance")} for report in stats.reports])

# %%
# One hidden layer under all initializers, then ten.
for depth in example.track((1, 10), "training"):
    comparison = ik.compare(
        depth=depth,
        epochs=options.epochs,
        seed=options.seed,
        data=options.data,
        log_dir=example.log_dir(f"depth_{depth}"),
    )
    print(comparison)
    example.figure(
        comparison.plot_variance(),
        "Variance of each layer's activations and gradients before training: flat is what He's scale keeps.",
        part=f"depth_{depth}",
    )
    example.found(**{f"depth_{depth}": comparison.rows()})
