"""One training step, measured from inside, on the PyTorch backend.

PyTorch runs a step as Keras' `train_step` says it, operation by operation. For a measured one the layers' `call`
and the optimizers' `apply` are wrapped, on the instances and for this step alone; a hook on each output sees the
gradient that comes back through it. A hook is no operation: the autograd graph is the one of a plain step.

Under `jit_compile=True` a wrapped layer would be compiled into another program, which rounds otherwise and draws
other random numbers. There the step that trains is the compiled one, as always, and what is measured is a pass
before it, over the same batch from the same state, all of which is put back.
"""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import keras
import torch

from keras_initkit.signal.backends.sharing import SharedStepMeter
from keras_initkit.signal.state import random_state_kept, replaced
from keras_initkit.signal.step import reduce_taps
from keras_initkit.signal.taps import kernels_of
from keras_initkit.structure.taps import Tap

Readings = defaultdict[Tap, list[torch.Tensor]]
Unscale = Callable[[torch.Tensor], torch.Tensor]


class StepMeter(SharedStepMeter):
    """Measures single training steps of `model`; see `SharedStepMeter`."""

    def _measured(self, plain: Any, data: Any) -> Any:
        model, readings = self._model, defaultdict(list)
        self._find()  # at every measured step: a layer may be built in the step before
        before = self._weights()
        for path, weights in before.items():
            readings[Tap("weight", path)] = weights
        if model.jit_compile:
            with _undone(model), self._read_into(readings, train=False):
                model.train_step(data[0])
            logs = plain(data)
        else:
            with self._read_into(readings, train=True):
                logs = plain(data)
        with torch.no_grad():
            for path, weights in self._weights().items():
                pairs = zip(weights, before[path], strict=True)
                readings[Tap("weight_update", path)] = [after - earlier for after, earlier in pairs]
            seen = {tap: readings[tap] for tap in self._taps}
            self._matrix = reduce_taps(seen, {}, self._sample_size, self._histograms)
        return logs

    def _weights(self) -> dict[str, list[torch.Tensor]]:
        return {path: [_copy(each.value) for each in kernels_of(layer)] for path, layer in self._layers.items()}

    @contextlib.contextmanager
    def _read_into(self, readings: Readings, train: bool) -> Iterator[None]:
        """Layers and optimizers are listened to; `train` says whether the latter may do their work."""
        model = self._model
        owners = {id(each.value): path for path, layer in self._layers.items() for each in kernels_of(layer)}
        unscale = _loss_unscaling(model.optimizer)
        with contextlib.ExitStack() as wrapped:
            for path, layer in self._layers.items():
                wrapped.enter_context(_tapped_layer(layer, path, readings, unscale))
            for optimizer in _of_type(model, keras.optimizers.Optimizer):
                wrapped.enter_context(_tapped_apply(optimizer, model, owners, readings, train))
            for optimizer in _of_type(model, torch.optim.Optimizer):
                wrapped.enter_context(_tapped_step(optimizer, owners, readings, train))
            yield


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor for reading later: what comes after it in the step may work in place."""
    return tensor.detach().clone()


def _of_type(model: keras.Model, kind: type) -> list[Any]:
    """The optimizer of `compile` and those that a model with its own `train_step` keeps as attributes."""
    candidates = [model.optimizer, *vars(model).values()]
    return list({id(x): x for x in candidates if isinstance(x, kind)}.values())


def _loss_unscaling(optimizer: Any) -> Unscale:
    """What undoes the loss scaling of mixed precision on a gradient; a copy where there is none."""
    one = torch.ones((), device=keras.ops.ones(()).device)
    scale = one if optimizer is None else optimizer.scale_loss(one)
    if scale is one:
        return _copy
    scale = _copy(scale)
    return lambda gradient: gradient.detach().float() / scale


def _tapped_layer(layer: keras.layers.Layer, path: str, readings: Readings, unscale: Unscale) -> Any:
    original = layer.call

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        outputs = original(*args, **kwargs)
        output = next((x for x in keras.tree.flatten(outputs) if _is_signal(x)), None)
        if output is not None:
            readings[Tap("output", path)].append(_copy(output))
            if output.requires_grad:
                gradients = readings[Tap("output_gradient", path)]
                output.register_hook(lambda gradient: gradients.append(unscale(gradient)))
        return outputs

    return replaced(layer, "call", call)


def _is_signal(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point()


def _tapped_apply(optimizer: Any, model: keras.Model, owners: dict[int, str], readings: Readings, train: bool) -> Any:
    original, unscale = optimizer.apply, _loss_unscaling(optimizer)

    @functools.wraps(original)
    def apply(grads: Any, trainable_variables: Any = None) -> Any:
        grads = list(grads)
        variables = model.trainable_variables if trainable_variables is None else list(trainable_variables)
        for gradient, variable in zip(grads, variables, strict=False):
            if gradient is not None and id(variable.value) in owners:
                readings[Tap("weight_gradient", owners[id(variable.value)])].append(unscale(gradient.to_dense()))
        return original(grads, trainable_variables) if train else None

    return replaced(optimizer, "apply", apply)


def _tapped_step(optimizer: torch.optim.Optimizer, owners: dict[int, str], readings: Readings, train: bool) -> Any:
    """The same for an optimizer of PyTorch itself, which a `train_step` of one's own may use."""
    original = optimizer.step

    @functools.wraps(original)
    def step(*args: Any, **kwargs: Any) -> Any:
        for weight in (each for group in optimizer.param_groups for each in group["params"]):
            if weight.grad is not None and id(weight) in owners:
                readings[Tap("weight_gradient", owners[id(weight)])].append(_copy(weight.grad.to_dense()))
        return original(*args, **kwargs) if train else None

    return replaced(optimizer, "step", step)


@contextlib.contextmanager
def _undone(model: keras.Model) -> Iterator[None]:
    """Whatever a step without its optimizers changes is put back."""
    weights = list(model.parameters())
    variables = [each.value for each in (*model.variables, *model.metrics_variables)]
    states = [(each, _copy(each)) for each in (*variables, *model.buffers()) if not each.requires_grad]
    gradients = [(weight, weight.grad) for weight in weights]
    for weight, gradient in gradients:
        weight.grad = None if gradient is None else gradient.clone()
    try:
        with random_state_kept(), torch.random.fork_rng():
            yield
    finally:
        for weight, gradient in gradients:
            weight.grad = gradient
        with torch.no_grad():
            for tensor, before in states:
                tensor.copy_(before)
