"""predict(): the mean and variance that theory expects of every tensor of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import keras

from keras_initkit.prediction._known_values import KnownValues
from keras_initkit.prediction._prediction import Prediction
from keras_initkit.prediction._walk import Propagation
from keras_initkit.prediction.algebra._input_moments import input_signals, number_of_examples, resolve_moments
from keras_initkit.prediction.algebra._signals import Gradient
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._calls import calls, traced_once
from keras_initkit.structure._graph import Call
from keras_initkit.structure._separate_parts import check_has_call


@traced_once()
def predict(
    model: keras.Model,
    input_moments: Any = None,
    *,
    output_gradient_variance: float | Sequence[float] | None = None,
    measured: Mapping[Tap, Any] | None = None,
) -> Prediction:
    r"""Predicts mean and variance of every tensor of a wide model at initialization, forward and backward.

    Signals are followed from the inputs through every layer's call, and gradients from the outputs back:

    .. math::

        E[z^2] = \sigma_w^2 n_{in} E[x^2] + E[b^2], \qquad E[g_x^2] = \sigma_w^2 n_{out} E[g_z^2]

    through a dense layer or a convolution $z = W x + b$, and

    .. math::

        E[y^2] = E[f(z)^2], \qquad E[g_z^2] = E[f'(z)^2] E[g_y^2]

    through an activation $y = f(z)$. Here $z$ is Gaussian (a sum of many independent terms) or a sum of independent
    tensors of known distributions, and gradients are independent of the activations; behind batch normalizations, they
    are larger where the few units of narrow layers are larger. Layers act as in training.
    Variances are over all elements: examples, positions and units. $\sigma_w^2$ is the mean square of the kernel's
    present values, close to its initializer's variance. A kernel that is not a random draw of mean 0, such as the
    identity, is not predicted.

    Layers of your own are opened: there are rules for the operations inside them. Attention averages values by the
    softmax p of scores, whose variance gives the effective number of keys:

    .. math::

        E[y^2] = s E[v^2] + (1 - s) E[v_i v_j], \qquad s = E\left[\sum_i p_i^2\right]

    Args:
        model: A Functional or built Sequential model. Nested models are opened.
        input_moments: Statistics of the inputs. `None` means independent $N(0, 1)$ elements, a pair
            `(mean, variance)` for independent elements with these moments. `InputMoments` adds the correlations
            between positions and examples, and the batch size, which the weights' gradients need. For several
            inputs, a list of these or a dictionary by input name.
        output_gradient_variance: Float, or list of floats for several outputs. Variance of the gradient of the loss
            with respect to the model's output, whose elements are taken as independent. `None` means 1.
        measured: Mapping from `Tap` to moments (`.mean`, `.variance`). Where a layer cannot be predicted, or a few
            units or examples leave it to chance (by more than a factor of 1.3 in 1 of 20 draws), prediction resumes
            from its measured output, and backward from the measured gradient of an output.

    Returns:
        A `Prediction`, which maps each `Tap` to `Expected(mean, variance)`. Its `.unpredicted` holds the reason for
        each layer that cannot be predicted, or whose gradient cannot. After such a layer, prediction resumes at the
        next normalization that fixes mean and variance.

    Raises:
        ValueError: If the model has no graph (subclassed, or not built), or arguments do not fit it.

    Example:

    >>> model = keras.Sequential([keras.Input((512,)), keras.layers.Dense(512, "relu", name="dense",
    ...     kernel_initializer=keras.initializers.HeNormal(seed=0))])
    >>> prediction = predict(model)
    >>> mean, variance = prediction[Tap("output", "dense", 0)]
    >>> round(mean, 2), round(variance, 1)  # sqrt(1 / pi), 1 - 1 / pi
    (0.56, 0.7)
    >>> round(prediction[Tap("input_gradient", "dense", 0)].variance, 1)
    1.0

    References:
        - Xavier Glorot and Yoshua Bengio (2010), "Understanding the difficulty of training deep feedforward neural
          networks", https://proceedings.mlr.press/v9/glorot10a.html
        - Kaiming He et al. (2015), "Delving deep into rectifiers", https://arxiv.org/abs/1502.01852
        - Ben Poole et al. (2016), "Exponential expressivity in deep neural networks through transient chaos",
          https://arxiv.org/abs/1606.05340
        - Samuel S. Schoenholz et al. (2017), "Deep information propagation", https://arxiv.org/abs/1611.01232
        - Lechao Xiao et al. (2018), "Dynamical isometry and a mean field theory of CNNs",
          https://arxiv.org/abs/1806.05393
        - Greg Yang et al. (2019), "A mean field theory of batch normalization", https://arxiv.org/abs/1902.08129
    """
    if measured is not None and not isinstance(measured, Mapping):
        raise ValueError(f"measured: got {type(measured).__name__}, expected a mapping from Tap to moments.")
    check_has_call(model)
    graph = calls(model)
    whole = graph[-1]
    examples = number_of_examples(model, whole.inputs, input_moments)
    signals = input_signals(model, whole.inputs, input_moments)
    moments = resolve_moments(model, whole.inputs, input_moments)
    integers = {tensor.number: each.integers for tensor, each in zip(whole.inputs, moments, strict=True)}
    walk = Propagation(model, graph, measured or {}, examples, KnownValues(graph, integers))
    walk.forward(signals)
    walk.backward(_output_gradients(model, whole, output_gradient_variance))
    elements: dict[str, int] = {}
    for call in graph[:-1]:
        if call.outputs:
            elements.setdefault(call.path, math.prod(size or 1 for size in call.outputs[0].shape[1:]))
    return Prediction(walk.expected, walk.unpredicted, elements)


def _output_gradients(model: keras.Model, whole: Call, variance: Any) -> dict[int, list[Gradient]]:
    count = len(whole.outputs)
    given = 1.0 if variance is None else variance
    values = list(given) if isinstance(given, Sequence) else [given] * count
    fine = all(isinstance(v, Real) and 0 <= float(v) < math.inf for v in values)
    if len(values) != count or not fine:
        raise ValueError(
            f"output_gradient_variance: got {variance!r}, expected a non-negative number, or a list of one for each of "
            f"the {count} outputs of {model.name}."
        )
    found: dict[int, list[Gradient]] = {}
    for place, (tensor, value) in enumerate(zip(whole.outputs, values, strict=True)):
        found.setdefault(tensor.number, []).append(Gradient(float(value), sources=frozenset({("output", place)})))
    return found
