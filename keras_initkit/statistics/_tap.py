"""The tensors of a model, by name."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast, get_args

Kind = Literal[
    "input",
    "pre_activation",
    "output",
    "input_gradient",
    "pre_activation_gradient",
    "output_gradient",
    "weight",
    "weight_gradient",
    "weight_update",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
SIGNALS = KINDS[:3]


class Tap(NamedTuple):
    """Names one tensor of a model.

    Args:
        kind: String. One of `KINDS`. `"input"`, `"pre_activation"` (what the layer's activation is applied to) and
            `"output"` are tensors of a layer's call; `"input_gradient"` and so on are the gradients of the loss with
            respect to them (for an input, the part that comes back through this layer); `"weight"` is a weight
            before the step, `"weight_gradient"` the gradient of the loss with respect to it, `"weight_update"` what
            the step added to it.
        layer: String. The layer's path in the model (`structure.named_layers`).
        call: Integer. Which call of the layer, from 0; `None` where all calls are taken together, and for weights.
        name: String. The weight's name (`"kernel"`), or the place of one of several inputs or outputs (`"0"`,
            `"1"`); empty where there is one, and where all the layer's kernels are taken together.
    """

    kind: Kind
    layer: str
    call: int | None = None
    name: str = ""

    @property
    def gradient(self) -> Tap:
        """Tap of the gradient of the loss with respect to this tensor."""
        return self._replace(kind=cast(Kind, f"{self.kind}_gradient"))
