"""What rules know of a model's task: for each output its head, its loss and its labels, and the inputs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit.diagnosis.context._model_context import ModelContext
from keras_initkit.diagnosis.task._heads import Head, find_heads
from keras_initkit.diagnosis.task._label_facts import Inputs, Labels, describe_inputs
from keras_initkit.diagnosis.task._losses import KnownLoss, describe_loss, find_losses
from keras_initkit.structure._signal_outputs import trains_by_itself


@dataclass(frozen=True, eq=False)
class Output:
    """One output of a model.

    Args:
        name: String. Its name.
        place: Integer. Its place among the outputs.
        head: `Head`.
        loss: `KnownLoss`, or `None` where there is none, several, or one of the user's own.
        labels: `Labels`, or `None` where none are given.
        own_loss: `keras.losses.Loss` of the user's own, if it is one.
    """

    name: str
    place: int
    head: Head
    loss: KnownLoss | None
    labels: Labels | None = None
    own_loss: keras.losses.Loss | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """What a model is trained for, as far as it is known.

    Args:
        outputs: Tuple of `Output`. Empty if the model cannot be traced.
        model: `ModelContext`.
        inputs: Tuple of `Inputs`. Empty without data.
        label_problem: String. Why the labels cannot be compared with the outputs at all.
        in_order: Boolean. Whether examples come in the order in which `fit` takes them.
        steps: Integer. Number of training steps that are planned, where it is known.
        fresh: Set of strings. Paths of batch normalizations whose averages began with the run; `None` if not known.
        known: Dictionary of what rules have found in the structure, which does not change while a model trains.
    """

    outputs: tuple[Output, ...]
    model: ModelContext
    inputs: tuple[Inputs, ...] = ()
    label_problem: str = ""
    in_order: bool = False
    steps: int | None = None
    fresh: frozenset[str] | None = None
    known: dict[str, Any] = field(default_factory=dict)

    def reader_of(self, place: int) -> str:
        """Returns the path of the first layer that reads an input."""
        graph, kernels = self.model.graph, self.model.first_layers
        if kernels and len(graph[-1].inputs) == 1:
            return kernels[0]
        tensors = set(graph[-1].inputs[place : place + 1]) if graph else set()
        for call in graph:
            if not call.opened and tensors.intersection(call.inputs):
                return call.path
        return next(iter(kernels), "model")

    @functools.cached_property
    def adds_loss(self) -> bool:
        """Whether the model trains by what it adds to the loss itself."""
        return bool(self.model.graph) and trains_by_itself(self.model.graph)

    @functools.cached_property
    def masks(self) -> bool:
        """Whether some layer masks positions, whose labels then do not count."""
        layers = [call.layer for call in self.model.graph if isinstance(call.layer, keras.Layer)]
        return any(isinstance(each, keras.layers.Masking) or getattr(each, "mask_zero", False) for each in layers)

    @property
    def with_loss(self) -> list[tuple[Output, KnownLoss]]:
        """Outputs whose head and loss are known."""
        return [(each, each.loss) for each in self.outputs if each.loss is not None and each.head.activation]


def make_task(
    context: ModelContext,
    x: Any = None,
    y: Any = None,
    loss: Any = None,
    sample_weight: Any = None,
    **options: Any,
) -> Task:
    """Returns the task of a model.

    Args:
        context: `ModelContext` of the model.
        x: Inputs, in any structure; `None` without.
        y: Labels in the structure of the outputs; `None` without.
        loss: The loss, as `diagnose` takes it.
        sample_weight: Array of weights; examples of weight 0 do not count.
        options: `label_problem`, `in_order` and `steps` of `Task`.
    """
    heads = find_heads(context.graph)
    names = getattr(context.model, "output_names", None) or []
    names = list(names) if len(names) == len(heads) else [str(place) for place in range(len(heads))]
    labels = labels_by_output(y, names, sample_weight)
    outputs = tuple(
        _make_output(name, place, *each)
        for place, (name, *each) in enumerate(
            zip(names, heads, find_losses(context.model, loss, names), labels, strict=True)
        )
    )
    inputs = () if x is None else tuple(describe_inputs(flat_arrays(x)))
    return Task(outputs, context, inputs, **options)


def _make_output(name: str, place: int, head: Head, loss: Any, labels: Labels | None) -> Output:
    known = describe_loss(loss, head.units)
    own = loss if known is None and isinstance(loss, keras.losses.Loss) else None
    return Output(name, place, head, known, labels, own)


def labels_by_output(y: Any, names: Sequence[str], sample_weight: Any) -> list[Labels | None]:
    """Returns the labels of each output; `None` for all where their number is another."""
    nothing: list[Labels | None] = [None] * len(names)
    if y is None:
        return nothing
    if isinstance(y, list | tuple) and all(isinstance(leaf, int | float) for leaf in keras.tree.flatten(y)):
        y = np.asarray(y)
    leaves = [y[name] for name in names] if isinstance(y, dict) and set(y) == set(names) else keras.tree.flatten(y)
    weights = None if sample_weight is None or keras.tree.is_nested(sample_weight) else _array(sample_weight)
    if len(leaves) != len(names):
        return nothing
    arrays = [None if leaf is None else _array(leaf) for leaf in leaves]
    return [None if each is None or each.ndim == 0 or not each.size else Labels(each, weights) for each in arrays]


def flat_arrays(x: Any) -> list[np.ndarray]:
    return [_array(leaf) for leaf in keras.tree.flatten(x) if leaf is not None]


def _array(leaf: Any) -> np.ndarray:
    array = to_numpy(leaf) if keras.ops.is_tensor(leaf) else np.asarray(leaf)
    return array if array.dtype.kind in "biuf" else np.zeros(0)
