"""Greedy layer-wise pre-training by auto-encoders."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit._checks import checked_count, checked_number
from keras_initkit._random_state import random_state_kept
from keras_initkit.capture._hooks import wrap_call
from keras_initkit.inputs._batches import take_rows
from keras_initkit.schemes._plan import Plan
from keras_initkit.schemes._registry import register_scheme
from keras_initkit.schemes.trained._auto_encoder import AutoEncoder
from keras_initkit.structure._kernels import kernels_by_layer
from keras_initkit.structure._layer_paths import named_layers

ENCODERS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


@register_scheme("pretraining")
def pretraining(
    plan: Plan,
    epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    noise: float = 0.0,
    verbose: int = 1,
) -> None:
    r"""Pretrains each Dense and Conv layer in turn as an auto-encoder.

        h = f(W x~ + b),    x^ = g(W' h + c),    minimize the distance of x^ from x over W, b and c

    x is what the layer really gets, from the layers before it as they have been pre-trained, f its own activation,
    x~ is x with a share `noise` of its elements set to zero. W' is the adjoint of the layer's linear map: the
    transposed matrix of a Dense layer, the transposed convolution of a Conv layer with its strides, padding and
    groups. So the decoder has no separate kernel (tied weights): a small W with a large W', which would leave the
    units in their linear range, is not possible. The decoder is thrown away.

    Where all x lie in [0, 1] (images, what a sigmoid puts out), g is a sigmoid and the distance the binary
    cross-entropy; else g is the identity and the distance the mean square. W starts from the weights that the layer
    has; Adam does the steps. Layers whose output is the model's are left for fine-tuning: they learn from labels.
    A layer that is called several times learns from its first call's input. Layers before it behave as in training.

    Args:
        plan: what may be set, and data.
        epochs: over the data, for each layer.
        batch_size: examples of a batch; what is left over after the last full batch of an epoch is not used.
        learning_rate: of Adam.
        noise: share of each example's elements that is masked, from 0 to below 1 (denoising auto-encoder).
        verbose: 0 shows no progress bar.

    References:

    - Hinton and Salakhutdinov (2006), "Reducing the dimensionality of data with neural networks",
      https://doi.org/10.1126/science.1127647
    - Bengio, Lamblin, Popovici and Larochelle (2007), "Greedy layer-wise training of deep networks" (NIPS 2006),
      https://papers.nips.cc/paper/3048-greedy-layer-wise-training-of-deep-networks
    - Vincent, Larochelle, Bengio and Manzagol (2008), "Extracting and composing robust features with denoising
      autoencoders" (noise, tied weights), https://doi.org/10.1145/1390156.1390294
    """
    if plan.x is None:
        raise ValueError("pretraining: got no data, expected x: each layer learns to reconstruct its input.")
    epochs, batch_size = checked_count("epochs", epochs), checked_count("batch_size", batch_size)
    learning_rate = checked_number("learning_rate", learning_rate, above=0)
    noise = checked_number("noise", noise, least=0, below=1)
    x = keras.tree.map_structure(to_numpy, plan.x)
    learned: dict[int, tuple[keras.Variable, Any]] = {}
    with random_state_kept():
        order = _order_of_flow(plan, x)
        for number, path in enumerate(order):
            layer = plan.layers[path]
            given = _given(plan.model, layer, x, list(learned.values()), batch_size)
            if not np.isfinite(given).all():
                raise ValueError(f"pretraining: the input of layer {path!r} is not finite. Look for NaN in the data.")
            generator = np.random.default_rng([plan.seed, number])
            encoder = AutoEncoder(layer, given)
            title = f"pre-training {path} ({number + 1} of {len(order)})" if verbose else ""
            encoder.fit(path, given, epochs, batch_size, learning_rate, noise, generator, title)
            learned |= {id(variable): (variable, value) for variable, value in encoder.learned()}
    for variable, value in learned.values():
        plan.assign(variable, value)


def _order_of_flow(plan: Plan, x: Any) -> list[str]:
    """Paths of the layers to pre-train in the order in which a forward pass calls them; the others are told why not."""
    called: list[str] = []
    outputs: dict[str, Any] = {}

    def note(path: str, call: Callable, *args: Any, **kwargs: Any) -> Any:
        if path not in outputs:
            called.append(path)
        outputs[path] = call(*args, **kwargs)
        return outputs[path]

    named = named_layers(plan.model)
    layers = {path: named[path] for path in kernels_by_layer(plan.model)}
    with keras.StatelessScope(), contextlib.ExitStack() as wrapped:
        for path, layer in layers.items():
            wrapped.enter_context(wrap_call(layer, functools.partial(note, path)))
        last = keras.tree.flatten(plan.model(take_rows(x, slice(0, 2)), training=True))
    heads = {path for path in called if any(outputs[path] is each for each in last)} | set(called[-1:])
    reasons = {}
    for path, layer in layers.items():
        if path not in outputs:
            reasons[path] = "the forward pass does not call its layer"
        elif not isinstance(layer, ENCODERS) or not any(layer.kernel is weight for weight in layer.weights):
            reasons[path] = "only Dense and Conv layers are pre-trained"
        elif path in heads:
            reasons[path] = "its output is the model's output, which is trained on labels"
    for kernel in plan.kernels:
        reason = reasons.get(plan.path_of(kernel.variable))
        if reason:
            plan.skip(kernel.variable, reason)
    order = [path for path in called if path in plan.layers and path not in reasons]
    if not order:
        raise ValueError(
            "pretraining: no layer to pre-train. Expected Dense or Conv layers before the last one; "
            f"got {', '.join(f'{path}: {reason}' for path, reason in reasons.items()) or 'no kernels'}."
        )
    return order


def _given(
    model: keras.Model, layer: keras.layers.Layer, x: Any, learned: list[tuple[keras.Variable, Any]], batch_size: int
) -> np.ndarray:
    """What a layer gets in its first call, over all examples, where the layers before it have learned."""
    seen: list[np.ndarray] = []

    def keep(call: Callable, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        batch.append(to_numpy(inputs))
        return call(inputs, *args, **kwargs)

    size = max(batch_size, 256)
    examples = len(keras.tree.flatten(x)[0])
    with wrap_call(layer, keep):
        for start in range(0, examples, size):
            batch: list[np.ndarray] = []
            with keras.StatelessScope(state_mapping=learned):
                model(take_rows(x, slice(start, start + size)), training=True)
            seen.append(batch[0])
    return np.concatenate(seen)
