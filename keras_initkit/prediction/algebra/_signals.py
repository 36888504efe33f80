"""What prediction tracks of each tensor, forward (`Signal`) and backward (`Gradient`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._geometry import Profile, Sizes
from keras_initkit.prediction.algebra._levels import Levels, between, combine, even, weighted

_SHARED = 1e-9  # of levels of mean 1: less is rounding


class UnpredictableError(Exception):
    """Raised where no theory holds; the message says why, as a clause.

    Args:
        reason: String.
        guess: Signal whose correlations are about right, for where prediction resumes from measured moments.
        part: Gradient of which all but the size is known, likewise.
    """

    def __init__(self, reason: str, guess: Signal | None = None, part: Gradient | None = None):
        super().__init__(reason)
        self.guess, self.part = guess, part


@dataclass(frozen=True, eq=False)
class Units:
    """How the units of a signal differ.

    Args:
        levels: Variance of each unit over that of all; `None` once a normalization has made them equal.
        sample: Array of shape (units, examples, positions). A sample of such a tensor; `None` where there is none.
    """

    levels: np.ndarray | None
    sample: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Signal:
    """Statistics of a tensor of shape (examples, *positions, units), as theory sees it in a wide random network.

    Args:
        mean: Float. Mean of all elements.
        second_moment: Float. Mean square of all elements.
        size: Tuple. Sizes of the axes of positions; empty for (examples, units).
        within_example: `Autocorrelation` of two elements of one unit in one example, by the lag between their
            positions; `None` where it is not known.
        between_examples: The same for two different examples, which is what a unit's own mean contributes.
        gaussian: Boolean. Whether each unit's elements are Gaussian, as those of a pre-activation are.
        identically_distributed: Boolean. Whether all units share one distribution; concatenated parts need not.
        edges: Boolean. Whether it is only near the borders that the distribution differs, alike for all units.
        sources: The random kernels and inputs that the elements depend on one by one. Elements of a pre-activation
            depend on their own kernel alone, given the scale of what it reads (central limit theorem). Tensors
            without a common source are uncorrelated, given their means.
        argument: Gaussian signal of which this one is `function`, element by element, where that is so.
        function: Callable, see `argument`.
        margin: Tuple of pairs. Zeros (before, after) around the positions, which the other fields leave out.
        profile: Along each axis, the mean square at each position over the mean of all; empty or `None` if even.
            A convolution with a border of zeros leaves less near it, and the next one reads the middle more often.
        levels: The same along the only axis of positions of a sequence, by example: see `_levels.py`.
        units: How units differ where a depthwise kernel of few weights makes them uneven. A normalization over the
            batch reads it, and the activation after that.
        axes: Tuple. For each axis of the tensor after the first, the number of the axis of positions that it is, or
            `None` for units. `None`: positions in their order, then units.
        law: Array. Equally likely values of an element, where they are not Gaussian: see `_laws.py`. It is moved to the
            signal's mean and variance where it is used.
        across_units: Float. E[x_u x_v] of two units at one position; `None` where they only share the mean.
        values: Callable that returns the values of a tensor that depends on no signal, with an axis for each of the
            tensor's, or fewer to be broadcast; the first is that of examples.
        parts: Tuple of pairs (share, signal): the groups of units that were concatenated, where they differ.
        note: What the tensor is to the calls that read it: a statistic, the weights of an attention.
        spread: Float. Relative variance, over positions and examples, of the scale that all units share, behind a
            normalization over the batch; `None` where it is not followed: see `_spread.py`.
    """

    mean: float
    second_moment: float
    size: Sizes = ()
    within_example: Autocorrelation | None = None
    between_examples: Autocorrelation | None = None
    gaussian: bool = False
    identically_distributed: bool = True
    edges: bool = False
    sources: frozenset[Hashable] = frozenset()
    argument: Signal | None = None
    function: Callable | None = None
    margin: tuple[tuple[int, int], ...] = ()
    profile: Profile = ()
    levels: Levels = None
    units: Units | None = None
    axes: tuple[int | None, ...] | None = None
    law: np.ndarray | None = None
    across_units: float | None = None
    values: Callable[[], np.ndarray] | None = None
    parts: tuple[tuple[float, Signal], ...] = ()
    note: Any = None
    spread: float | None = None

    @classmethod
    def unknown(cls, size: Sizes, **fields: Any) -> Signal:
        """Returns a signal with only its size known."""
        return cls(math.nan, math.nan, size, **fields)

    @property
    def product_of_units(self) -> float:
        """The mean product of two units at one position."""
        return self.mean**2 if self.across_units is None else self.across_units

    @property
    def known(self) -> bool:
        """Whether mean and variance are known."""
        return math.isfinite(self.second_moment)

    @property
    def variance(self) -> float:
        """Variance of all elements."""
        return max(self.second_moment - self.mean**2, 0.0)

    def map_autocorrelations(self, function: Callable[[Autocorrelation], Autocorrelation]) -> dict[str, Any]:
        """Applies `function` to `within_example` and `between_examples` where known; returns them by name."""
        both = {"within_example": self.within_example, "between_examples": self.between_examples}
        return {name: None if values is None else function(values) for name, values in both.items()}

    def with_margin(self) -> Signal:
        """Returns the signal with its margin of zeros counted as elements."""
        if not any(map(any, self.margin)):
            return replace(self, margin=()) if self.margin else self
        outer = pad_sizes(self.size, self.margin)
        share = math.prod(1.0 if n is None else n / m for n, m in zip(self.size, outer, strict=True))  # type: ignore
        correlations = self.map_autocorrelations(lambda values: values.map(lambda v: v * share))
        return Signal(
            self.mean * share,
            self.second_moment * share,
            outer,
            **correlations,
            identically_distributed=False,
            edges=self.identically_distributed or self.edges,
            sources=self.sources,
        )


def pad_sizes(size: Sizes, margin: Iterable[tuple[int, int]]) -> Sizes:
    """Returns sizes with a margin around them."""
    return tuple(n if n is None else n + sum(pair) for n, pair in zip(size, margin, strict=True))


@dataclass(frozen=True, eq=False)
class Gradient:
    """Statistics of the gradient of the loss with respect to a tensor; its mean is 0, for random kernels sign it.

    Args:
        second_moment: Float. Mean square of its elements; NaN where that is not known.
        white: Boolean. Whether its elements at different positions are uncorrelated.
        sources: As of a `Signal`: the kernels that the gradient came back through last, or the model's output.
        balanced: Boolean. Whether a normalization has taken out what elements of a unit share. Then it adds up to less
            over examples and positions than independent elements would (before a batch normalization, to 0).
        chosen: Array. Where the gradient, or a part of it, reaches only elements that a max pooling chose, a sample of
            their Gaussian argument.
        chosen_fraction: Float. The fraction of the mean square that does so.
        common: Float. Mean product of two elements of a unit at different positions of an example; `None` where it is
            not known. 0 for a white gradient.
        values: Array. Mean square at each value of the signal's law, over that of all; `None` where it is the same. A
            rectified sum passes gradients on where it is positive, which is where its summands were large.
        batched: Boolean. Whether it has passed a normalization over a batch: then it is larger where signals are.
        doubt: Float. Bound of the relative error that has come together in normalizations over few examples.
        levels: As of a `Signal`.
        profile: As of a `Signal`.
        unit_levels: Mean square of each unit over that of all, of the gradient that a normalization sends back.
        parts: Tuple of floats. Mean squares in the parts of a signal that has some; empty where they are equal.
        along: Float. Of the gradient of an attention's weights, the mean product for two keys of one query.
        sensitivity: Float. By which power the mean square follows the scale that the signal's units share at a
            position: see `_spread.py`.
        own: Float. The same for the scale of the element's own unit alone.
    """

    second_moment: float
    white: bool = True
    sources: frozenset[Hashable] = frozenset()
    balanced: bool = False
    chosen: np.ndarray | None = None
    chosen_fraction: float = 1.0
    common: float | None = None
    along: float | None = None
    values: np.ndarray | None = None
    parts: tuple[float, ...] = ()
    levels: Levels = None
    profile: Profile = ()
    batched: bool = False
    doubt: float = 0.0
    unit_levels: np.ndarray | None = None
    sensitivity: float = 0.0
    own: float = 0.0

    @property
    def between_positions(self) -> float | None:
        """The mean product of two elements of a unit at different positions, where it is known."""
        return 0.0 if self.white else self.common

    def weighed(self, factor: float, by: Levels) -> Gradient:
        """Multiplies by independent factors whose mean squares have levels themselves."""
        both = combine(np.multiply, self.levels, by)
        if both is None:
            return self.scaled(factor)
        mean = float(both.mean())
        found = self.scaled(factor * mean, levels=even(both))
        if found.common is None or mean <= 0:
            return found
        # Two positions get factors of their own, so what they share grows by the mean product of two different ones.
        shared = between(self.levels)
        if shared <= _SHARED:  # the gradient is at one position, as behind a class token
            return replace(found, common=0.0)
        return replace(found, common=found.common / mean * between(both) / shared)

    def scaled(self, factor: float, **changes: Any) -> Gradient:
        """Multiplies by independent random factors of mean square `factor`, which undo `balanced` and `chosen`."""
        common, along = (None if value is None else value * factor for value in (self.common, self.along))
        parts = tuple(value * factor for value in self.parts)
        found = {"balanced": False, "chosen": None, "values": None, "common": common, "along": along, "parts": parts}
        changes = {**found, "unit_levels": None, **changes}
        return replace(self, second_moment=self.second_moment * factor, **changes)


@dataclass(frozen=True, eq=False)
class LayerPropagation:
    """What a layer's call does to the signal, and to the gradient that comes back.

    Args:
        output: The signal that it puts out.
        backward: Maps the gradient of the output to the list of gradients of the inputs.
        pre_activation: The signal that the layer's own activation is applied to.
        through_activation: Maps the gradient of the output to that of the pre-activation.
        weights: Maps the gradient of the output and the number of examples to the mean squares of the weights'
            gradients, by the weight's name.
        reason: String. Why the output is not known, where that is so.
        parts: Signals inside the layer, as tuples (sublayer, its input, its output).
        others: Signals of further outputs. `backward` then maps a list of gradients, one for each output.
    """

    output: Signal
    backward: Callable[[Gradient], list[Gradient]]
    pre_activation: Signal | None = None
    through_activation: Callable[[Gradient], Gradient] | None = None
    weights: Callable[[Gradient, int], dict[str, float]] | None = None
    reason: str = ""
    parts: list[tuple] = field(default_factory=list)
    others: tuple[Signal, ...] = ()


def are_independent(parts: Iterable[frozenset[Hashable]]) -> bool:
    """Whether no two of the sets share a source."""
    seen: set[Hashable] = set()
    for sources in parts:
        if seen & sources:
            return False
        seen |= sources
    return True


def add_gradients(gradients: list[Gradient]) -> Gradient:
    """Adds the gradients that come back to one tensor from all its consumers, which must not be correlated."""
    gradients = [gradient for gradient in gradients if gradient.second_moment > 0] or gradients[:1]
    if len(gradients) == 1:
        return gradients[0]
    chosen = [gradient for gradient in gradients if gradient.chosen is not None]
    if len(chosen) > 1:
        raise UnpredictableError("parts of it reach only the elements that several max poolings chose")
    if not are_independent(gradient.sources for gradient in gradients):
        raise UnpredictableError("the gradients that add up at its output came through the same kernels")
    total = sum(gradient.second_moment for gradient in gradients)
    common = [gradient.between_positions for gradient in gradients]
    count = max(len(gradient.parts) for gradient in gradients)
    parts = [gradient.parts or (gradient.second_moment,) * count for gradient in gradients]
    return Gradient(
        total,
        all(gradient.white for gradient in gradients),
        frozenset().union(*(gradient.sources for gradient in gradients)),
        balanced=any(gradient.balanced for gradient in gradients),
        chosen=chosen[0].chosen if chosen else None,
        chosen_fraction=sum(each.chosen_fraction * each.second_moment for each in chosen) / total if chosen else 1.0,
        common=None if None in common else sum(value for value in common if value is not None),
        levels=weighted([(gradient.second_moment, gradient.levels) for gradient in gradients]),
        values=_by_value(gradients, total),
        batched=any(gradient.batched for gradient in gradients),
        doubt=_mean([gradient.doubt for gradient in gradients], gradients, total),
        sensitivity=_mean([gradient.sensitivity for gradient in gradients], gradients, total),
        own=_mean([gradient.own for gradient in gradients], gradients, total),
        profile=_profile(gradients, total),
        parts=tuple(map(sum, zip(*parts, strict=True))) if all(len(each) == count for each in parts) else (),
    )


def _mean(values: list[float], gradients: list[Gradient], total: float) -> float:
    """Returns the mean, weighted by the gradients' mean squares."""
    if total <= 0:
        return 0.0
    return sum(gradient.second_moment * value for gradient, value in zip(gradients, values, strict=True)) / total


def _by_value(gradients: list[Gradient], total: float) -> np.ndarray | None:
    known = next((gradient.values for gradient in gradients if gradient.values is not None), None)
    if known is None or total <= 0:
        return None
    found = np.zeros_like(known)
    for gradient in gradients:
        found = found + gradient.second_moment / total * (1.0 if gradient.values is None else gradient.values)
    return found


def _profile(gradients: list[Gradient], total: float) -> Profile:
    """Returns the mean profile, where the profiles are those of one map."""
    sizes = {tuple(None if p is None else len(p) for p in gradient.profile) for gradient in gradients}
    known = [size for size in sizes if size]
    if len(known) != 1 or None in known[0] or total <= 0:
        return ()
    found = [np.zeros(n or 0) for n in known[0]]
    for gradient in gradients:
        for axis, each in enumerate(found):
            given = gradient.profile[axis] if gradient.profile else None
            each += gradient.second_moment / total * (np.ones(len(each)) if given is None else given)
    return tuple(found)
