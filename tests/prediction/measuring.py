"""Measures a model call by call, in training mode: the oracle of the predictions. TensorFlow only."""

import keras
import numpy as np

from keras_initkit.prediction import InputMoments, predict
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._calls import calls

L = keras.layers
JOINING = (L.Add, L.Average, L.Concatenate, L.Multiply, L.Subtract)
TRAINED = (L.AlphaDropout, L.BatchNormalization, L.Dropout, L.GaussianDropout, L.GaussianNoise, L.SpatialDropout1D)


def measure(model, inputs, seed):
    """Mean and mean square, by tap, of one pass over `inputs` and back from a standard normal cotangent."""
    import tensorflow as tf

    graph = calls(model)
    whole = graph[-1]
    tensors, before = {}, {}
    random = np.random.default_rng(seed)
    with tf.GradientTape() as tape:
        for symbol, value in zip(whole.inputs, inputs, strict=True):
            tensors[symbol.number] = tf.convert_to_tensor(value)
            if symbol.is_float:
                tape.watch(tensors[symbol.number])
        for place, call in enumerate(graph[:-1]):
            if isinstance(call.layer, keras.Model):
                continue
            arguments = [tensors[tensor.number] for tensor in call.inputs]
            joins = isinstance(call.layer, JOINING)
            activation = getattr(call.layer, "activation", None)
            fused = activation is not None and not isinstance(call.layer, keras.layers.Activation)
            if fused:
                call.layer.activation = None
            options = {"training": True} if isinstance(call.layer, TRAINED) else {}
            result = call.layer(arguments, **options) if joins else call.layer(*arguments, **options)
            if fused:
                call.layer.activation = activation
                before[place] = result
                result = activation(result)
            tensors[call.outputs[0].number] = result
        loss = sum(
            tf.reduce_sum(tensors[symbol.number] * random.normal(size=tensors[symbol.number].shape))
            for symbol in whole.outputs
        )
    weights = {(call.path, w.name): w.value for call in graph[:-1] if not isinstance(call.layer, keras.Model)
               for w in getattr(call.layer, "trainable_weights", [])}  # fmt: skip
    gradients = tape.gradient(loss, {"tensors": tensors, "before": before, "weights": weights})
    found = {}

    def note(tap, tensor):
        if tensor is not None:
            values = np.asarray(tf.convert_to_tensor(tensor), "float64")
            found[tap] = (values.mean(), (values**2).mean())

    for symbol in whole.inputs:
        note(Tap("input_gradient", "model", 0, str(symbol.number)), gradients["tensors"][symbol.number])
    for place, call in enumerate(graph[:-1]):
        if isinstance(call.layer, keras.Model):
            continue
        note(Tap("output", call.path, call.index), tensors[call.outputs[0].number])
        note(Tap("output_gradient", call.path, call.index), gradients["tensors"][call.outputs[0].number])
        if place in before:
            note(Tap("pre_activation", call.path, call.index), before[place])
            note(Tap("pre_activation_gradient", call.path, call.index), gradients["before"][place])
    for (path, name), gradient in gradients["weights"].items():
        note(Tap("weight_gradient", path, None, name), gradient)
    return found


def compare(build, seeds=6, examples=32, draw=None, errors=4.5, slack=0.02):
    """Check a prediction against networks drawn anew, every tap that both have.

    The mean over seeds has to lie within `errors` standard errors of it (of the fluctuation across seeds) plus
    `slack`, relative to the second moment: what is left of order 1 / width.

    Returns:
        The first network's prediction, and how many of its taps were compared.
    """
    rows, first = {}, None
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        model = build()
        random = np.random.default_rng(100 + seed)
        inputs = [
            random.normal(size=(examples, *symbol.shape[1:])).astype("float32")
            if draw is None
            else draw(random, symbol)
            for symbol in model.inputs
        ]
        prediction = predict(model, [InputMoments(examples=examples)] * len(inputs))
        first = first or prediction
        for tap, (mean, second) in measure(model, inputs, seed).items():
            if tap in prediction:
                expected = prediction[tap]
                scale = expected.variance + expected.mean**2
                rows.setdefault(tap, []).append((mean, second, expected.mean, scale))
    wrong = []
    for tap, values in rows.items():
        mean, second, expected_mean, scale = np.array(values).T
        # Predictions go along with each draw's own kernels, so the ratio fluctuates less than the moment.
        ratio = second / np.maximum(scale, 1e-30)
        tolerance = errors * ratio.std(ddof=1) / np.sqrt(seeds) + slack
        off = (mean - expected_mean) / np.sqrt(np.maximum(scale, 1e-30))
        mean_tolerance = errors * off.std(ddof=1) / np.sqrt(seeds) + slack
        if abs(ratio.mean() - 1) > tolerance or abs(off.mean()) > mean_tolerance:
            wrong.append(f"{tap}: measured / predicted {ratio.mean():.4f} +- {tolerance:.4f}, mean off "
                         f"{off.mean():.4f} +- {mean_tolerance:.4f}")  # fmt: skip
    assert not wrong, "\n".join(wrong)
    return first, len(rows)
