"""What a measured training step has read."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras

from keras_initkit.statistics._ops import as_float
from keras_initkit.statistics._tap import Tap

Unscale = Callable[[Any], Any]  # undoes the loss scaling of mixed precision on a gradient


class CapturedTensors:
    """What the taps of one step saw.

    Args:
        scope: Where the step's own tensors live (a graph, a trace), for `StepMeter._is_readable`.
        unscale: What undoes the loss scaling on gradients, by the optimizer's identity.
    """

    def __init__(self, scope: Any, unscale: Mapping[int, Unscale]):
        self.scope, self.unscale = scope, unscale
        self.seen: defaultdict[Tap, list[Any]] = defaultdict(list)
        self.expected: Counter[Tap] = Counter()  # how many tensors there were to see
        self.losses: Counter[str] = Counter()  # how often a layer has called `add_loss`

    def warn(self, taps: Iterable[Tap]) -> None:
        """Warns, once for all, of those taps that saw tensors which could not be read."""
        unread = [tap for tap in taps if len(self.seen[tap]) < self.expected[tap]]
        if unread:
            more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
            warnings.warn(
                f"{unread[0].kind} of layer {unread[0].layer!r}{more}: made inside a loop, a branch or a compiled "
                "function within the step, where it cannot be read from outside; left out of the statistics.",
                stacklevel=2,
            )


def loss_unscaling(optimizer: Any) -> Unscale:
    """Returns what undoes the loss scaling of mixed precision on a gradient; the identity where there is none."""
    one = keras.ops.ones(())
    scale = optimizer.scale_loss(one) if hasattr(optimizer, "scale_loss") else one  # PyTorch's own have none
    if scale is one:
        return lambda gradient: gradient

    def unscale(gradient: Any) -> Any:
        gradient = as_float(gradient)
        return gradient / keras.ops.cast(scale, gradient.dtype)

    return unscale
