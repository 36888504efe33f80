"""Private names of PyTorch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import keras

from keras_initkit._compat._moved import unless_moved


def torch_random_state_kept() -> contextlib.AbstractContextManager[None]:
    """Restores PyTorch's random numbers on the host, which symbolic calls draw from too; elsewhere does nothing.

    Nothing private, but a framework: what runs symbolic calls may import none.
    """
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.random.fork_rng(devices=[])


def torch_is_in_backward_pass() -> bool:
    """Returns whether a backward pass is running, in which checkpointing computes layers once more.

    PyTorch's own checkpointing asks it too. If it moves: a layer under `keras.RematScope` is read twice.
    """
    import torch

    with unless_moved("torch._C._current_graph_task_id", "a layer under keras.RematScope is read twice"):
        return torch._C._current_graph_task_id() != -1
    return False


def torch_before_compilation(function: Any) -> Callable | None:
    """Returns the function that `torch.compile` has made `function` of; `None` if it is none of those.

    If it moves: there is no telling, and PyTorch would compile a measured step anew, which may round otherwise.
    """
    return getattr(function, "_torchdynamo_orig_callable", None)
