"""The tensors of a model, by name."""

from __future__ import annotations

from typing import NamedTuple

SIGNALS = ("input", "pre_activation", "output")
KINDS = (*SIGNALS, *(f"{kind}_gradient" for kind in SIGNALS), "weight", "weight_gradient", "weight_update")


class Tap(NamedTuple):
    """One place where a model's signal is read, or predicted.

    Args:
        kind: one of `KINDS`. `"input"`, `"pre_activation"` (what the layer's activation is applied to) and
            `"output"` are tensors of a layer's call; `"input_gradient"` and so on the gradients of the loss with
            respect to them, an input's being the part that comes back through this layer; `"weight"` a weight
            before the step, `"weight_gradient"` the gradient of the loss with respect to it, `"weight_update"` what
            the step added to it.
        layer: the layer's path in the model (`structure.named_layers`).
        call: which call of the layer, from 0; `None` where all calls are taken together, and for weights.
        name: the weight's name (`"kernel"`), or the place of one of several inputs or outputs (`"0"`, `"1"`);
            empty where there is one, and where all the layer's kernels are taken together.
    """

    kind: str
    layer: str
    call: int | None = None
    name: str = ""
