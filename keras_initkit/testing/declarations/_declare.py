"""The table of what each known initializer draws, filled by `expect`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Shape = tuple[int, ...]
# A frozen scipy.stats distribution of independent elements, or a predicate on the values.
Declared = Any

# A dense kernel and a convolution's, each rectangular and of 2**17 elements or more.
SHAPES: tuple[Shape, ...] = ((256, 512), (3, 5, 64, 144))
# Tall, wide and convolutional: the two fans differ by a factor of 16 at least.
FAN_SHAPES: tuple[Shape, ...] = ((64, 1024), (1024, 64), (3, 3, 32, 512))


def as_it_is(initializer: Any, shape: Shape) -> Shape:
    """Returns the shape: it needs no fitting."""
    return shape


@dataclass(frozen=True)
class Expectation:
    """The declaration of one class, made by `expect`."""

    declared: Callable[[Any, Shape], Declared]
    shapes: tuple[Shape, ...] = SHAPES
    fan_shapes: tuple[Shape, ...] = FAN_SHAPES
    small: Shape = (6, 4)
    rejects: tuple[Shape, ...] = ()
    zero_sized: tuple[Shape, ...] = ((0, 4), (4, 0))
    deviations: Mapping[str, str] = field(default_factory=dict)
    fit: Callable[[Any, Shape], Shape] = as_it_is
    reseed: Callable[[Any, Any], Any] | None = None

    def fitted(self, initializer: Any) -> Expectation:
        """Returns the declaration with shapes that this instance has values for."""

        def fit(shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
            return tuple(self.fit(initializer, shape) for shape in shapes)

        return replace(
            self,
            shapes=fit(self.shapes),
            fan_shapes=fit(self.fan_shapes),
            small=self.fit(initializer, self.small),
            zero_sized=fit(self.zero_sized),
        )


TABLE: dict[type, Expectation] = {}


def expect(
    initializer_class: type,
    *,
    shapes: Sequence[Shape] = SHAPES,
    fan_shapes: Sequence[Shape] | None = None,
    small: Shape = (6, 4),
    rejects: Sequence[Shape] = (),
    zero_sized: Sequence[Shape] | None = None,
    deviations: Mapping[str, str] | None = None,
    fit: Callable[[Any, Shape], Shape] = as_it_is,
    reseed: Callable[[Any, Any], Any] | None = None,
) -> Callable[[Callable[[Any, Shape], Declared]], Callable[[Any, Shape], Declared]]:
    """Declares what an initializer class draws, for the checks to know it without `expected`.

    It decorates a function of an instance and a shape that returns a frozen `scipy.stats` distribution (the
    elements are then independent draws of it) or a predicate on the values, which returns False, or raises an
    `AssertionError` that says more, for values that it does not accept.

    Args:
        initializer_class: Class. Subclasses need their own declaration.
        shapes: Shapes drawn for the statistics. The documented power holds from 2**17 elements.
        fan_shapes: Shapes whose two fans differ, for `fan_mode`; by default dense and convolution kernels, or
            `shapes` where those are given.
        small: Tuple of integers. A small valid shape, for everything that needs no statistics.
        rejects: Shapes that the initializer must refuse with a `ValueError`.
        zero_sized: Shapes without elements that it must accept; by default `(0, 4)` and `(4, 0)`, or `small` with no
            inputs.
        deviations: Mapping from names of checks that the class fails by design to the reasons.
        fit: Callable. Returns, for an instance and each of these shapes except `rejects`, a shape that the instance
            has values for: with a last axis that divides into its groups, for example.
        reseed: Callable. Returns, for an instance and a seed, a copy that draws from the seed, where the constructor
            has no `seed` argument.

    Returns:
        The decorator.

    Example:

    >>> import keras
    >>> @keras.saving.register_keras_serializable("example")
    ... class Half(keras.initializers.Initializer):
    ...     def __call__(self, shape, dtype=None):
    ...         return keras.ops.full(shape, 0.5, dtype or keras.config.floatx())
    >>> @expect(Half)
    ... def half(initializer, shape):
    ...     return lambda values: (values == 0.5).all()
    >>> from keras_initkit.testing import check_initializer
    >>> check_initializer(Half())
    """
    default = tuple(shapes) == SHAPES

    def register(function: Callable[[Any, Shape], Declared]) -> Callable[[Any, Shape], Declared]:
        TABLE[initializer_class] = Expectation(
            function,
            tuple(shapes),
            tuple(fan_shapes if fan_shapes is not None else FAN_SHAPES if default else shapes),
            small,
            tuple(rejects),
            tuple(zero_sized if zero_sized is not None else _without_elements(small)),
            dict(deviations or {}),
            fit,
            reseed,
        )
        return function

    return register


def _without_elements(small: Shape) -> tuple[Shape, ...]:
    if len(small) == 2:
        return ((0, 4), (4, 0))
    return ((0,),) if len(small) == 1 else ((*small[:-2], 0, small[-1]),)
