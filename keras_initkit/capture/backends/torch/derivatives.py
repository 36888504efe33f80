"""Derivatives of derivatives, on the PyTorch backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import torch


def value_and_gradients(
    function: Callable[..., torch.Tensor],
) -> Callable[..., tuple[torch.Tensor, list[torch.Tensor]]]:
    """See `derivatives_backend`."""

    def differentiated(values: list[torch.Tensor], *rest: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
        with torch.enable_grad():
            values = [value if value.requires_grad else value.detach().requires_grad_() for value in values]
            result = function(values, *rest)
            found = torch.autograd.grad(result, values, create_graph=True, allow_unused=True)
            gradients = [
                torch.zeros_like(value) if gradient is None else gradient.to_dense()
                for value, gradient in zip(values, found, strict=True)
            ]
        return result, gradients

    return differentiated


def compiled(function: Callable) -> Callable:
    """The function as it is, without the graph of what it returns."""

    def run(*args: Any) -> Any:
        return keras.tree.map_structure(lambda tensor: tensor.detach(), function(*args))

    return run


def lacks_derivative(error: Exception) -> bool:
    """Whether an error says that some operation has no derivative."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("derivative" in text or "differentiate" in text)
