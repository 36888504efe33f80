"""What a report knows of its model: for each layer what it reads, and how its signal is judged."""

from __future__ import annotations

from dataclasses import dataclass

from keras_initkit.report._attention_rows import _Plain


@dataclass(frozen=True)
class LayerFlow(_Plain):
    """How the signal comes to a layer, and by which measure it is judged there.

    A layer's signal, forward, is the variance of its output times `forward_scale`; backward, the variance of the
    gradient at its output times `backward_scale`. Initialization is to keep both constant over depth.

    Args:
        layer: String. Path of the layer.
        inputs: Tuple of strings. Paths of the layers whose outputs it reads, operations between them left out.
        forward_scale: Float. 1, but for the gates of LSTMs and GRUs that the signal has come through; `None` where the
            scale of the output does not matter: before a normalization, in a residual branch, at the model's output.
        backward_scale: Float. Elements of the output for one example, since the sum of squares is what a kernel keeps
            on the way back, times the positions over which pooling has averaged; `None` where it does not matter.
        by_logits: Boolean. Whether the gradient counts at the pre-activation: behind a softmax or sigmoid at the output
            it depends on how sure the model is.
        units: Integer. Number of units of its output.
        can_die: Boolean. Whether units that are 0 for every example are dead.
        alive_at_zero: Boolean. Whether its activation lets gradients pass at 0, so that a kernel of 0 can learn.
        is_gate: Boolean. Whether it weighs another signal, or is weighed.
        can_saturate: Boolean. Whether units at the ends of the activation's range have stopped to learn: in hidden
            layers.
        limits: Tuple of two floats. Ends of the activation's range where its mean slope is judged.
        normalized_scale: Float. As `forward_scale`, where a normalization outside residual branches gives the signal a
            scale of its own: it enters anew there, which is not judged itself.
    """

    layer: str
    inputs: tuple[str, ...] = ()
    forward_scale: float | None = None
    backward_scale: float | None = None
    by_logits: bool = False
    units: int | None = None
    can_die: bool = False
    alive_at_zero: bool = False
    is_gate: bool = False
    can_saturate: bool = False
    limits: tuple[float, float] | None = None
    normalized_scale: float | None = None
