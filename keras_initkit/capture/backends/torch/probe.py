"""Values and gradients of a model's tensors in one eager pass, on the PyTorch backend."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import torch

from keras_initkit._compat import copy_keras_mask
from keras_initkit.structure._sublayers import walk_layers


def is_tensor(x: Any) -> bool:
    """Whether `x` is a dense tensor."""
    return isinstance(x, torch.Tensor) and x.layout == torch.strided and x.device.type != "meta"


def _host(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()  # NumPy has no bfloat16


def observed(tensor: torch.Tensor, on_value: Callable, on_gradient: Callable) -> torch.Tensor:
    """`tensor` itself for the model; see `probe_backend`."""
    on_value(_host(tensor))
    result = tensor.view_as(tensor)
    if result.requires_grad:
        result.register_hook(lambda gradient: on_gradient(_host(gradient)))
    copy_keras_mask(tensor, result)
    return result


def differentiate(
    function: Callable[[list[torch.Tensor]], torch.Tensor],
    inputs: Sequence[torch.Tensor],
    variables: Sequence[keras.Variable],
) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """The scalar `function(inputs)`, and its gradients with respect to the variables."""
    inputs = [x.detach().requires_grad_() if x.is_floating_point() else x for x in inputs]
    sources = [variable.value for variable in variables]
    # Regularizers look for their weight in the scope.
    scope = keras.StatelessScope(list(zip(variables, sources, strict=True)), collect_losses=True)
    with scope, torch.enable_grad():
        # Copies, for a layer may work in place, which PyTorch forbids on what gradients are asked for.
        result = function([x.clone() for x in inputs])
        leaves = [x for x in [*sources, *inputs] if x.requires_grad]
        gradients: dict[int, torch.Tensor | None] = {}
        if leaves and result.requires_grad:
            found = torch.autograd.grad(result, leaves, allow_unused=True)
            gradients = {id(leaf): gradient for leaf, gradient in zip(leaves, found, strict=True)}
    of_sources = [gradients.get(id(source)) for source in sources]
    return _host(result), [None if g is None else _host(g.to_dense()) for g in of_sources]


def no_gradients() -> contextlib.AbstractContextManager:
    """Nothing that runs here is recorded for a backward pass."""
    return torch.no_grad()


@contextlib.contextmanager
def undisturbed(model: keras.Model) -> Iterator[None]:
    """Keeps PyTorch's random numbers, and the modes and buffers of modules."""
    modules = {id(each): each for _, layer in walk_layers(model) for each in layer.modules()}.values()
    modes = [(module, module.training) for module in modules]
    buffers = [buffer for module in modules for buffer in module.buffers(recurse=False)]
    with tensors_kept(buffers):
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


@contextlib.contextmanager
def tensors_kept(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """Restores tensors in place, and PyTorch's random numbers, to what they were before."""
    before = [(x, x.detach().clone()) for x in tensors]
    with torch.random.fork_rng():
        try:
            yield
        finally:
            with torch.no_grad():
                for x, value in before:
                    x.copy_(value)
