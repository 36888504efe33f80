"""What is tracked of each tensor on its way through a model, forward and backward."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from keras_initkit.prediction._autocorrelation import Lags
from keras_initkit.prediction._geometry import Profile, Sizes


class UnpredictableError(Exception):
    """Theory has nothing to say here; the message says why, as a clause."""


@dataclass(frozen=True, eq=False)
class Signal:
    """A tensor (examples, positions, units), as a wide random network's theory sees it.

    Args:
        mean: of all elements.
        second: mean square of all elements.
        size: sizes of the axes of positions; empty for (examples, units).
        same: mean product of two elements of one unit and one example, by the lag between their positions;
            `None` where it is not known.
        other: the same for two different examples. It is what a unit's own mean contributes.
        gaussian: whether each unit's elements are Gaussian, as those of a pre-activation are.
        alike: whether all units share one distribution; parts that were joined need not.
        roots: the random kernels (and inputs) that the elements depend on one by one. Elements of a pre-activation
            depend on no other than their own kernel, given the scale of what it reads (central limit theorem).
            Tensors without a common root are uncorrelated, given their means.
        source: Gaussian signal of which this one is `function`, element by element, where that is so.
        margin: zeros (before, after) around the positions, of which the other fields do not speak.
        profile: along each axis, the mean square at each position over the mean of all; empty or `None`: even.
            A convolution with a border of zeros leaves less near it, and the next one reads the middle more often.
    """

    mean: float
    second: float
    size: Sizes = ()
    same: Lags | None = None
    other: Lags | None = None
    gaussian: bool = False
    alike: bool = True
    roots: frozenset[Hashable] = frozenset()
    source: Signal | None = None
    function: Callable | None = None
    margin: tuple[tuple[int, int], ...] = ()
    profile: Profile = ()

    @classmethod
    def unknown(cls, size: Sizes) -> Signal:
        """A signal of which nothing is known but its size."""
        return cls(math.nan, math.nan, size)

    @property
    def known(self) -> bool:
        """Whether its mean and variance are."""
        return math.isfinite(self.second)

    @property
    def variance(self) -> float:
        """Of all elements."""
        return max(self.second - self.mean**2, 0.0)

    def map_lags(self, function: Callable[[Lags], Lags]) -> dict[str, Any]:
        """`same` and `other`, each changed by `function` where known."""
        lags = {"same": self.same, "other": self.other}
        return {name: None if values is None else function(values) for name, values in lags.items()}

    def settled(self) -> Signal:
        """The same with its margin of zeros counted as elements."""
        if not any(map(any, self.margin)):
            return replace(self, margin=()) if self.margin else self
        outer = padded(self.size, self.margin)
        share = math.prod(1.0 if n is None else n / m for n, m in zip(self.size, outer, strict=True))  # type: ignore
        lags = self.map_lags(lambda values: values.map(lambda v: v * share))
        return Signal(self.mean * share, self.second * share, outer, **lags, alike=False, roots=self.roots)


def padded(size: Sizes, margin: Iterable[tuple[int, int]]) -> Sizes:
    """Sizes with a margin around."""
    return tuple(n if n is None else n + sum(pair) for n, pair in zip(size, margin, strict=True))


@dataclass(frozen=True, eq=False)
class Gradient:
    """The gradient of the loss with respect to a tensor. Its mean is 0: its signs come from random kernels.

    Args:
        second: mean square of its elements.
        white: whether its elements at different positions are uncorrelated.
        roots: as of a `Signal`: the kernels that the gradient came back through last, or the model's output.
        balanced: whether a normalisation has taken out what elements of a unit share, so that it adds up to less
            over examples and positions than independent elements would (before a batch normalisation, to 0).
        chosen: where it reaches only elements that a max pooling chose: a sample of the Gaussian source of these.
    """

    second: float
    white: bool = True
    roots: frozenset[Hashable] = frozenset()
    balanced: bool = False
    chosen: np.ndarray | None = None

    def scaled(self, factor: float, **changes: Any) -> Gradient:
        """Times a random factor of this mean square, which leaves neither sums of 0 nor a choice."""
        changes = {"balanced": False, "chosen": None, **changes}
        return replace(self, second=self.second * factor, **changes)


@dataclass(frozen=True, eq=False)
class Passage:
    """What a layer's call does: to the signal, and to the gradient that comes back.

    Args:
        output: the signal that it puts out.
        backward: from the gradient of the output to those of the inputs.
        pre_activation: what the layer's own activation is applied to.
        through_activation: from the gradient of the output to that of the pre-activation.
        weights: from the gradient of the output and the number of examples to the mean squares of the weights'
            gradients, by the weight's name.
        reason: why the output is not known, where that is so.
        parts: signals that sublayers put out, and read: (layer, inputs, output).
    """

    output: Signal
    backward: Callable[[Gradient], list[Gradient]]
    pre_activation: Signal | None = None
    through_activation: Callable[[Gradient], Gradient] | None = None
    weights: Callable[[Gradient, int], dict[str, float]] | None = None
    reason: str = ""
    parts: list[tuple] = field(default_factory=list)


def independent(parts: Iterable[frozenset[Hashable]]) -> bool:
    """Whether no two share a root."""
    seen: set[Hashable] = set()
    for roots in parts:
        if seen & roots:
            return False
        seen |= roots
    return True


def meet(gradients: list[Gradient]) -> Gradient:
    """The sum of gradients that come back to one tensor from all its consumers.

    Raises:
        UnpredictableError: if they may be correlated.
    """
    if len(gradients) == 1:
        return gradients[0]
    if any(gradient.chosen is not None for gradient in gradients):
        raise UnpredictableError("a max pooling's gradient meets others, and reaches only some of its elements")
    if not independent(gradient.roots for gradient in gradients):
        raise UnpredictableError("the gradients that meet at its output came through the same kernels")
    return Gradient(
        sum(gradient.second for gradient in gradients),
        all(gradient.white for gradient in gradients),
        frozenset().union(*(gradient.roots for gradient in gradients)),
        balanced=any(gradient.balanced for gradient in gradients),
    )


def reweighted(profile: Profile, function: Callable[[np.ndarray], np.ndarray]) -> Profile:
    """A profile after something that acts on the mean square at each position, with mean 1 again."""

    def along(values: np.ndarray | None) -> np.ndarray | None:
        if values is None or np.ptp(values) == 0:
            return None
        changed = function(values)
        return changed / changed.mean() if changed.mean() > 0 else None

    return tuple(along(values) for values in profile)
