"""One training step, measured from inside, on the PyTorch backend.

PyTorch runs a step as `train_step` says it, operation by operation. For a measured one the layers' `call` and the
optimizers' `apply` are wrapped, on the instances and for this step alone; a hook on each output sees the gradient
that comes back through it. A hook is no operation: the autograd graph is the one of a plain step.

Under `jit_compile=True` a wrapped layer would be compiled to another program, which rounds otherwise and draws other
random numbers. There the step that trains is the compiled one, as always, and what is read (but for the update) is a
pass before it: the same batch from the same state, operation by operation, with everything put back. Its Dropout
draws other masks than the compiled step's.
"""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import torch

from keras_initkit.capture._random_state import global_seed, random_state_kept, replaced
from keras_initkit.capture.step._meter import StepMeter, optimizers_of
from keras_initkit.capture.step._reduction import Update, reduce_taps
from keras_initkit.capture.step._targets import units_last
from keras_initkit.statistics._sampling import take_sample
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._weights import main_weights

Readings = defaultdict[Tap, list[Any]]
Unscale = Callable[[torch.Tensor], torch.Tensor]


class TorchStepMeter(StepMeter):
    """Measures single training steps of `model`; see `StepMeter`."""

    def _measured(self, plain: Any, data: Any) -> Any:
        model, readings = self._model, defaultdict(list)
        self._find()  # at every measured step: the step before may have built a layer
        weights = [(path, each.value) for path, layer in self._layers.items() for each in main_weights(layer)]
        with torch.no_grad():
            for path, weight in weights:
                readings[Tap("weight", path)].append(weight.detach())
            before_the_step = self._reduced(readings, lambda kind: kind == "weight")
            updated = weights if any(tap.kind == "weight_update" for tap in self._taps) else []
            before = [_copy(take_sample(weight.detach(), self._sample_size)) for _, weight in updated]
        if model.jit_compile:
            with _undone(model), self._listening(readings, train=False):
                model.train_step(data[0])
            logs = plain(data)
        else:
            with self._listening(readings, train=True):
                logs = plain(data)
        with torch.no_grad():
            for (path, weight), sample in zip(updated, before, strict=True):
                readings[Tap("weight_update", path)].append(Update(sample, weight.detach()))
            after_the_step = self._reduced(readings, lambda kind: kind != "weight")
            self._matrix = torch.cat([*before_the_step, *after_the_step])
        return logs

    def _reduced(self, readings: Readings, of_kind: Callable[[str], bool]) -> list[torch.Tensor]:
        """The part of the matrix that these kinds of taps make, in a list; an empty one where there are none."""
        seen = {tap: units_last(tap, self._layers[tap.layer], readings[tap]) for tap in self._taps if of_kind(tap.kind)}
        return [reduce_taps(seen, self._limits, self._sample_size, self._histograms)] if seen else []

    @contextlib.contextmanager
    def _listening(self, readings: Readings, train: bool) -> Iterator[None]:
        """Layers and optimizers are listened to; `train` says whether the latter do their work."""
        model = self._model
        owners = {id(each.value): path for path, layer in self._layers.items() for each in main_weights(layer)}
        unscale = _loss_unscaling(model.optimizer)
        with contextlib.ExitStack() as wrapped:
            for path, layer in self._layers.items():
                wrapped.enter_context(_tapped_layer(layer, path, readings, unscale))
            for path, layer in self._activated.items():
                wrapped.enter_context(_tapped_activation(layer, path, readings, unscale))
            for optimizer in optimizers_of(model, keras.optimizers.Optimizer):
                wrapped.enter_context(_tapped_apply(optimizer, model, owners, readings, train))
            for optimizer in optimizers_of(model, torch.optim.Optimizer):
                wrapped.enter_context(_tapped_step(optimizer, owners, readings, train))
            yield


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor for reading later: what comes after it in the step may work in place."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _loss_unscaling(optimizer: Any) -> Unscale:
    """What undoes the loss scaling of mixed precision on a gradient; the identity where there is none."""
    one = keras.ops.ones(())
    scale = one if optimizer is None else optimizer.scale_loss(one)
    if scale is one:
        return lambda gradient: gradient.detach()
    scale = _copy(scale)  # which the step may change
    return lambda gradient: gradient.detach().float() / scale


def _tapped_layer(layer: keras.layers.Layer, path: str, readings: Readings, unscale: Unscale) -> Any:
    original = layer.call

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        outputs = original(*args, **kwargs)
        output = next(filter(_is_signal, keras.tree.flatten(outputs)), None)
        if output is not None:
            _read(output, "output", path, readings, unscale)
        return outputs

    return replaced(layer, "call", call)


def _tapped_activation(layer: keras.layers.Layer, path: str, readings: Readings, unscale: Unscale) -> Any:
    original = layer.activation

    @functools.wraps(original)
    def activation(x: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_signal(x):
            _read(x, "pre_activation", path, readings, unscale)
        return original(x, *args, **kwargs)

    return replaced(layer, "activation", activation)


def _read(tensor: torch.Tensor, kind: str, path: str, readings: Readings, unscale: Unscale) -> None:
    if _is_in_backward_pass():  # computed once more, under `keras.RematScope` say
        return
    readings[Tap(kind, path)].append(_copy(tensor))
    if tensor.requires_grad:
        gradients = readings[Tap(f"{kind}_gradient", path)]

        def hook(gradient: torch.Tensor) -> None:
            gradients.append(unscale(gradient))

        tensor.register_hook(hook)


def _is_in_backward_pass() -> bool:
    # Private, but PyTorch's own checkpointing asks it too: test_step_meter_torch.py guards it.
    return torch._C._current_graph_task_id() != -1


def _is_signal(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point()


def _tapped_apply(optimizer: Any, model: keras.Model, owners: dict[int, str], readings: Readings, train: bool) -> Any:
    original, unscale = optimizer.apply, _loss_unscaling(optimizer)

    @functools.wraps(original)
    def apply(grads: Any, trainable_variables: Any = None) -> Any:
        grads = list(grads)
        variables = model.trainable_variables if trainable_variables is None else list(trainable_variables)
        pairs = zip((each.value for each in variables), grads, strict=False)
        _read_gradients(pairs, owners, readings, unscale)
        return original(grads, trainable_variables) if train else None

    return replaced(optimizer, "apply", apply)


def _tapped_step(optimizer: torch.optim.Optimizer, owners: dict[int, str], readings: Readings, train: bool) -> Any:
    """The same for an optimizer of PyTorch itself, which a `train_step` of one's own may use."""
    original = optimizer.step

    @functools.wraps(original)
    def step(*args: Any, **kwargs: Any) -> Any:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        _read_gradients(((weight, weight.grad) for weight in weights), owners, readings, lambda gradient: gradient)
        return original(*args, **kwargs) if train else None

    return replaced(optimizer, "step", step)


def _read_gradients(pairs: Iterable, owners: dict[int, str], readings: Readings, unscale: Unscale) -> None:
    for weight, gradient in pairs:
        if gradient is not None and id(weight) in owners:
            # A copy, for a second backward pass adds to it in place; rows of an embedding that no example used
            # have a gradient of zero.
            readings[Tap("weight_gradient", owners[id(weight)])].append(_copy(unscale(gradient).to_dense()))


@contextlib.contextmanager
def _undone(model: keras.Model) -> Iterator[None]:
    """Tensors, gradients and random numbers are put back to where they were before a step without its optimizers."""
    variables = [each.value for each in (*model.variables, *model.metrics_variables, *global_seed())]
    tensors = {id(x): x for x in (*variables, *model.parameters(), *model.buffers())}.values()
    before = [(x, _copy(x)) for x in tensors]
    gradients = [(x, x.grad) for x in model.parameters()]
    for weight, gradient in gradients:
        weight.grad = None if gradient is None else gradient.clone()
    try:
        with random_state_kept(), torch.random.fork_rng():
            yield
    finally:
        for weight, gradient in gradients:
            weight.grad = gradient
        with torch.no_grad():
            for x, value in before:
                x.copy_(value)


STEP_METER = TorchStepMeter
