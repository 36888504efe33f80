"""How a training step's tensors and their gradients are read on the PyTorch backend."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import torch

from keras_initkit._compat import seed_generator, torch_is_in_backward_pass
from keras_initkit._random_state import random_state_kept
from keras_initkit.capture._hooks import wrap_optimizer
from keras_initkit.capture.backends.torch.probe import tensors_kept
from keras_initkit.capture.step._captured import CapturedTensors, Unscale
from keras_initkit.capture.step._measurement import StepMeasurement
from keras_initkit.statistics._tap import Tap
from keras_initkit.structure._weights import main_weights


class TorchReading(StepMeasurement):
    """Reads a step while it runs, operation by operation; see `StepReader`."""

    _optimizer_types = (keras.optimizers.Optimizer, torch.optim.Optimizer)
    _reduced_before: torch.Tensor | None = None

    def _read(self, tensor: torch.Tensor, tap: Tap, on_value: Unscale, on_gradient: Unscale | None) -> torch.Tensor:
        on_value(_copy(tensor))
        if on_gradient is not None and tensor.requires_grad:
            tensor.register_hook(lambda gradient: on_gradient(gradient.detach()))
        return tensor

    def _has_whole_gradient(self, output: torch.Tensor, outputs: list[Any], inputs: Any, added_loss: bool) -> bool:
        return True  # a hook adds nothing to the graph, so it may see all parts of a gradient summed up

    def _dense(self, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.detach().to_dense()  # rows of an embedding that no example used have a gradient of zero

    def _kept(self, tensor: torch.Tensor) -> torch.Tensor:
        return _copy(tensor)  # the step works in place, and a second backward pass adds to a weight's gradient

    def _is_recomputing(self) -> bool:
        return torch_is_in_backward_pass()  # under `keras.RematScope` say

    def _before_training(self, captured: CapturedTensors) -> None:
        """Reduces the weights at once, since the step changes them in place."""
        seen = {tap: captured.seen.pop(tap, []) for tap in self._taps if tap.kind == "weight"}
        self._reduced_before = super()._reduce(seen) if seen else None

    def _reduce(self, seen: Mapping[Tap, Sequence[torch.Tensor]]) -> torch.Tensor:
        rest = {tap: tensors for tap, tensors in seen.items() if tap.kind != "weight"}
        parts = [self._reduced_before, super()._reduce(rest) if rest else None]
        found = [part for part in parts if part is not None]
        return torch.cat(found) if found else super()._reduce({})  # a model without weights

    def _tapped_optimizer(self, optimizer: Any, owners: Mapping[int, str]) -> contextlib.AbstractContextManager[None]:
        if not isinstance(optimizer, torch.optim.Optimizer):
            return super()._tapped_optimizer(optimizer, owners)
        # One of PyTorch itself, which a `train_step` of one's own may use.
        paths = {id(w.value): path for path, layer in self._layers.items() for w in main_weights(layer)}

        def step(original: Callable, *args: Any, **kwargs: Any) -> Any:
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            self._read_update(optimizer, [(paths.get(id(weight)), weight.grad) for weight in weights])
            return original(*args, **kwargs)

        return wrap_optimizer(optimizer, step)

    @contextlib.contextmanager
    def _without_updates(self) -> Iterator[None]:
        """Within this context, optimizers do nothing."""
        with contextlib.ExitStack() as wrapped:
            for optimizer in self._optimizers():
                wrapped.enter_context(wrap_optimizer(optimizer, lambda *_, **__: None))
            yield


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a tensor for reading later: what comes after it in the step may work in place."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


@contextlib.contextmanager
def undone(models: Sequence[keras.Model]) -> Iterator[None]:
    """Restores tensors, gradients and random numbers to what they were before a step without its optimizers."""
    generator = seed_generator()
    seeds = [] if generator is None else [generator.state]
    variables = [x.value for model in models for x in (*model.variables, *model.metrics_variables)]
    variables += [seed.value for seed in seeds]
    parameters = [x for model in models for x in model.parameters()]
    buffers = [x for model in models for x in model.buffers()]
    tensors = {id(x): x for x in (*variables, *parameters, *buffers)}.values()
    gradients = [(x, x.grad) for x in parameters]
    for weight, gradient in gradients:
        weight.grad = None if gradient is None else gradient.clone()
    try:
        with random_state_kept(), tensors_kept(tensors):
            yield
    finally:
        for weight, gradient in gradients:
            weight.grad = gradient
