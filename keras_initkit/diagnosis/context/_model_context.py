"""What rules know of a model: what follows each kernel, and whether its scale matters there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit.diagnosis.context._kernel_context import KernelContext
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._attentions import Attention, find_attentions
from keras_initkit.structure._calls import calls
from keras_initkit.structure._following import Following, following_activations, rectified_layers
from keras_initkit.structure._graph import Call, Tensor, leaves, signals
from keras_initkit.structure._kernels import kernels_by_layer
from keras_initkit.structure._layer_kinds import (
    has_slope_at_zero,
    is_attention,
    is_embedding,
    is_nonlinear,
    is_normalization,
    output_limits,
)
from keras_initkit.structure._layer_paths import named_layers
from keras_initkit.structure._patterns import gathered_calls
from keras_initkit.structure._reach_of_scale import (
    closed_layers,
    gated_layers,
    gating_layers,
    normalized_layers,
    output_layers,
)
from keras_initkit.structure._residual import Branch, residual_branches
from keras_initkit.structure._roles import LayerRole, layer_roles, nonlinear_layers, normalizes


class ModelContext:
    """Structure of a built model: its kernels, and which layers begin, end, branch or normalize.

    Args:
        model: Keras model. Of one that cannot be traced `graph` is empty, and its residual branches and
            normalizations are not known.
        by_hand: Boolean. Whether a loop that is written by hand trains it, of whose loss nothing is known.
        optimizer: What updates its weights there, if it is an optimizer of Keras.
    """

    def __init__(self, model: keras.Model, by_hand: bool = False, optimizer: Any = None):
        self.model, self.is_by_hand = model, by_hand
        self._updates = optimizer if by_hand else getattr(model, "optimizer", None)
        try:
            self.graph: list[Call] = gathered_calls(model)
        except ValueError:
            self.graph = []
        self._reached: dict[str, set[str]] = {}
        self.read: dict[int, Any] = {}  # the reports of the last diagnosis with their readings, by identity

    @functools.cached_property
    def kernels(self) -> list[KernelContext]:
        """Every kernel that has an element and is read by the model, as far as that is known, in the order of layers.

        A model with a custom `train_step` may train without ever being called, and so without being built; what
        its kernels are for is unknown then.
        """
        if not self.model.built:
            return []
        branched = {id(k.variable) for branch in self.branches for k in branch.kernels}
        attention = tuple(f"{path}/" for path, role in self.roles.items() if role == "attention")
        unknown = Following("linear", "not in a graph", False)
        read = {id(tensor.variable) for call in self.graph for tensor in call.inputs}
        read |= {
            id(weight) for call in self._leaves if isinstance(call.layer, keras.Layer) for weight in call.layer.weights
        }
        return [
            KernelContext(
                path,
                kernel,
                self._following.get(path, unknown),
                path in self.normalized,
                id(kernel.variable) in branched or f"{path}/".startswith(attention),
            )
            for path, held in kernels_by_layer(self.model).items()
            for kernel in held
            if 0 not in kernel.shape and (not self.graph or id(kernel.variable) in read)
        ]

    @functools.cached_property
    def _following(self) -> dict[str, Following]:
        return following_activations(self.model)

    @functools.cached_property
    def _layers(self) -> dict[str, keras.layers.Layer]:
        return named_layers(self.model)

    @functools.cached_property
    def branches(self) -> list[Branch]:
        """Residual branches."""
        return residual_branches(self.model) if self.graph else []

    @functools.cached_property
    def calls(self) -> list[Call]:
        """The calls of the model as they are traced; none where it cannot be traced."""
        return calls(self.model) if self.graph else []

    @functools.cached_property
    def attentions(self) -> list[Attention]:
        """Attentions, whatever their class."""
        return find_attentions(self.calls)

    @functools.cached_property
    def in_branches(self) -> set[str]:
        """Paths of all layers inside residual branches."""
        inside = {call.path for branch in self.branches for call in branch.calls}
        return inside | {context.path for context in self.kernels if context.in_branch}

    @property
    def trainable(self) -> set[str]:
        """Paths of layers with kernels that train."""
        return {context.path for context in self.kernels if context.kernel.variable.trainable}

    @functools.cached_property
    def usual_stddev(self) -> dict[str, float]:
        """Standard deviation of each layer's kernel under LeCun's initializer; the smallest of several kernels."""
        found: dict[str, float] = {}
        for context in self.kernels:
            usual = max(context.kernel.fans.fan_in, 1.0) ** -0.5
            found[context.path] = min(usual, found.get(context.path, usual))
        return found

    @functools.cached_property
    def roles(self) -> dict[str, LayerRole]:
        """What a layer does as a whole, such as `"normalization"` or `"embedding"`, by path."""
        if self.graph:
            return layer_roles(self.graph)
        kinds: dict[LayerRole, Callable[[Any], bool]]
        kinds = {"normalization": is_normalization, "embedding": is_embedding, "attention": is_attention}
        return {path: role for path, layer in self._layers.items() for role, known in kinds.items() if known(layer)}

    @functools.cached_property
    def _nonlinear(self) -> set[str]:
        return nonlinear_layers(self.graph)

    def is_nonlinear(self, path: str) -> bool:
        """Whether a layer applies an activation to its result."""
        return path in self._nonlinear or is_nonlinear(self._layers[path])

    def limits(self, path: str) -> tuple[float, float] | None:
        """Returns the range of a layer's activation, if it has both ends."""
        limits = output_limits(self._layers[path]) if path in self._layers else None
        return limits if limits is not None and np.isfinite(limits).all() else None

    def has_slope_at_zero(self, path: str) -> bool:
        """Whether a layer's activation passes gradients at 0 and below: tanh does, relu does not."""
        return path in self._layers and has_slope_at_zero(self._layers[path])

    def is_gate(self, path: str) -> bool:
        """Whether a layer's output multiplies another signal by elements."""
        return path in self._factors

    @functools.cached_property
    def _factors(self) -> set[str]:
        return gated_layers(self.graph, {context.path for context in self.kernels})

    @functools.cached_property
    def rectified(self) -> set[str]:
        """Paths of layers that a separate activation alone reads which makes zeros of what is below 0."""
        return rectified_layers(self.model)

    @functools.cached_property
    def first_layers(self) -> list[str]:
        """Paths of layers with kernels that read the data, with nothing but layers without kernels before them."""
        return list(dict.fromkeys(call.path for call in self._data_and_readers[1]))

    @functools.cached_property
    def joined_inputs(self) -> list[Tap]:
        """Taps of data that no kernel reads alone and a layer joins with others, as a number beside an embedding."""
        data, readers = self._data_and_readers
        joined = data.difference(*(call.inputs for call in readers))
        found = []
        for call in self._leaves:
            if isinstance(call.layer, keras.Layer) and not data.issuperset(call.inputs):
                floats = [tensor for tensor in call.inputs if tensor.is_float]
                names = [str(place) if len(floats) > 1 else "" for place in range(len(floats))]
                chosen = [name for name, tensor in zip(names, floats, strict=True) if tensor in joined]
                found += [Tap("input", call.path, call.index, name) for name in chosen]
        return found

    @functools.cached_property
    def _data_and_readers(self) -> tuple[set[Tensor], list[Call]]:
        """The inputs and what layers without kernels make of them alone, and the calls with kernels that read these."""
        with_kernel = {context.path for context in self.kernels}
        raw, readers = set(self.graph[-1].inputs if self.graph else ()), []
        for call in self._leaves:
            if call.inputs and raw.issuperset(call.inputs):
                if call.path in with_kernel:
                    readers.append(call)
                else:
                    raw |= set(call.outputs)
        return raw, readers

    def reaches(self, cause: str, layer: str) -> bool | None:
        """Whether a layer computes with what another one puts out, or is the same; `None` if the graph does not show.

        Args:
            cause: String. Path of a layer.
            layer: String. Path of the layer that may come after it.
        """
        if cause == layer:
            return True
        paths = self._paths_after(cause)
        return layer in paths if paths and self._paths_after(layer) else None

    def _paths_after(self, path: str) -> set[str]:
        """Paths of the layers that a layer's output reaches, with those of which it is a part; empty if unknown."""
        if path not in self._reached:
            tensors: set[Tensor] = set()
            paths: set[str] = set()
            for call in self._leaves:
                inside = f"{call.path}/".startswith(f"{path}/")
                if inside or not tensors.isdisjoint(call.inputs):
                    tensors.update(call.outputs)
                    paths.update(call.path[:end] for end, sign in enumerate(f"{call.path}/") if sign == "/")
            self._reached[path] = paths
        return self._reached[path]

    @functools.cached_property
    def _leaves(self) -> list[Call]:
        return leaves(self.graph)

    @functools.cached_property
    def normalized(self) -> set[str]:
        """Paths of layers whose output is read by normalizations alone."""
        return normalized_layers(self.graph)

    @functools.cached_property
    def closed(self) -> set[str]:
        """Paths of layers whose scale does not reach an output, as `closed_layers` finds them."""
        return closed_layers(self.graph)

    @functools.cached_property
    def normalized_away(self) -> set[str]:
        """Paths of layers whose scale normalizations take away on all ways to an output."""
        return closed_layers(self.graph, normalizes)

    @functools.cached_property
    def only_gating(self) -> set[str]:
        """Paths of layers whose output reaches the model's only by a bounded gate on another signal."""
        return gating_layers(self.graph, self._factors)

    @functools.cached_property
    def gated(self) -> set[str]:
        """Paths of layers with kernels whose output is multiplied by another signal (gates, and what they weigh)."""
        return self._factors & {context.path for context in self.kernels}

    @functools.cached_property
    def constants(self) -> set[str]:
        """Paths of layers whose output does not depend on the model's input, such as tables of positions."""
        moving = signals(self.graph)
        return {call.path for call in self.graph if not moving.intersection(call.outputs)}

    @functools.cached_property
    def outputs(self) -> set[str]:
        """Paths of layers that end in the model's output, such as the last kernel and a softmax after it."""
        return output_layers(self.model, self.graph)

    @property
    def optimizer(self) -> keras.optimizers.Optimizer | None:
        """The optimizer that the model trains with, within what scales the loss."""
        return getattr(self._updates, "inner_optimizer", self._updates)

    @property
    def adapts_steps(self) -> bool:
        """Whether the optimizer is known to divide or clip gradients, so that its steps do not grow with them."""
        clips = any(getattr(self.optimizer, name, None) for name in ("clipnorm", "global_clipnorm", "clipvalue"))
        return self.optimizer is not None and (clips or not isinstance(self.optimizer, keras.optimizers.SGD))

    @property
    def gradient_rate(self) -> float | None:
        """The learning rate, where a step is the gradient times that rate; `None` of any other optimizer, or none."""
        if self.optimizer is None or self.adapts_steps:
            return None
        return float(to_numpy(self.optimizer.learning_rate))

    @property
    def scales_loss(self) -> bool:
        """Whether the optimizer adapts a loss scale; an occasional overflow is then expected."""
        return isinstance(self._updates, keras.optimizers.LossScaleOptimizer)

    @functools.cached_property
    def heads(self) -> list[Call]:
        """Calls that compute the model's outputs."""
        if not self.graph:
            return []
        outputs = set(self.graph[-1].outputs)
        return [call for call in self._leaves if outputs.intersection(call.outputs)]
